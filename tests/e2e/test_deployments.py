# SPDX-License-Identifier: Apache-2.0
"""Deployments of a model made here: an A/B test computed again by scipy, a cookie that holds, a shadow, versions that change
under load, sleep and its first answer."""

import threading

import numpy as np
import pytest
import requests
from onnx import TensorProto, helper, numpy_helper
from scipy import integrate, optimize, stats

from conftest import eventually

ALPHA, SCALE, ROWS = 1e-6, 0.05, 700


def model_bytes(weight):
    """y = sigmoid(weight · x), x a row of one."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Sigmoid", ["z"], ["y"])], "m",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1])],
        [numpy_helper.from_array(np.array([[weight]], "f"), "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


@pytest.fixture(scope="module")
def served(daemon):
    """Model m with the versions m.1, m.2 and m.3."""
    assert daemon.put("Model", "m", {}).status_code == 201
    for weight in (1, 2, 3):
        reply = daemon.http("POST", daemon.path("models", "m", "upload"), data=model_bytes(weight))
        assert reply.status_code in (200, 201), reply.text
    return daemon


def deploy(daemon, name, spec):
    reply = daemon.put("Deployment", name, {"model": "m", **spec})
    assert reply.status_code in (200, 201), reply.text


def status(daemon, name):
    return daemon.get("deployments", name).get("status", {})


def body(x=1.0, **more):
    return {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [x]}], **more}


def ask(daemon, name, **more):
    return daemon.http("POST", f"/v2/models/{name}/infer", json=body(**more))


def ready(daemon, name, versions):
    eventually(lambda: sum(t["state"] == "ready" for t in status(daemon, name).get("traffic", [])
                           if "state" in t) == versions or None, what=f"{name} with {versions} versions")


# ---- the A/B test ----

def ratio(d, v):
    """The likelihood ratio of differences N(0, SCALE²) to none, by numerical integration."""
    def integrand(t):
        return stats.norm.pdf(t, 0, SCALE) * np.exp((2 * d * t - t * t) / (2 * v))
    peak = d * SCALE**2 / (SCALE**2 + v)
    return integrate.quad(integrand, peak - 12 * v**0.5, peak + 12 * v**0.5, epsabs=0, epsrel=1e-10, limit=200)[0]


def variance(outcomes):
    share = (sum(outcomes) + 1) / (len(outcomes) + 2)
    return share * (1 - share) / len(outcomes)


def looked_at(arms):
    """Difference, its variance."""
    a, b = arms
    return np.mean(b) - np.mean(a), variance(a) + variance(b)


def test_an_ab_test_is_what_scipy_computes(served):
    deploy(served, "ab", {"abTest": {"a": "m.1", "b": "m.2", "alpha": ALPHA, "minEffect": SCALE, "maxRequests": ROWS}})
    ready(served, "ab", 2)
    random, arms, told, least = np.random.default_rng(5), ([], []), [], 1.0
    for i in range(ROWS):
        version = ask(served, "ab", id=f"row-{i}").json()["model_version"]
        value = int(random.random() < (0.3, 0.4)[int(version) - 1])
        arms[int(version) - 1].append(value)
        told.append({"id": f"row-{i}", "value": value})
        if min(map(len, arms)) >= 100:
            least = min(least, 1 / ratio(*looked_at(arms)))
    reply = served.http("POST", served.path("deployments", "ab", "outcomes"), json={"outcomes": told})
    assert reply.json() == {"outcomes": ROWS, "matched": ROWS}
    test = eventually(lambda: (lambda t: t if t.get("decision") == "neither" else None)(
        status(served, "ab").get("abTest", {})), what="the decision")

    difference, v = looked_at(arms)
    half = optimize.brentq(lambda d: ALPHA * ratio(d, v) - 1, 0.01, 1)
    assert [test[arm]["n"] for arm in "ab"] == list(map(len, arms))
    assert [test[arm]["mean"] for arm in "ab"] == pytest.approx(list(map(np.mean, arms)))
    assert test["difference"] == pytest.approx(difference)
    assert (test["low"], test["high"]) == pytest.approx((difference - half, difference + half), rel=1e-6)
    assert test["p"] == pytest.approx(least, rel=1e-6)


# ---- who answers ----

def test_a_cookie_jar_meets_one_version(served):
    deploy(served, "sticky", {"traffic": [{"version": "m.1", "share": 1}, {"version": "m.2", "share": 1}],
                              "sticky": {"cookie": "arm"}})
    ready(served, "sticky", 2)
    met = set()
    for _ in range(20):
        with requests.Session() as jar:
            jar.trust_env = False
            jar.headers["Authorization"] = f"Bearer {served.token}"
            mine = {jar.post(served.url + "/v2/models/sticky/infer", json=body()).json()["model_version"]
                    for _ in range(5)}
        assert len(mine) == 1
        met |= mine
    assert met == {"1", "2"}


def test_a_shadow_differs_as_numpy_says(served):
    deploy(served, "shaded", {"version": "m.1", "shadow": {"version": "m.2", "tolerance": 0.1}})
    ready(served, "shaded", 2)
    rows = np.linspace(-3, 3, 25)
    for i, x in enumerate(rows):
        assert ask(served, "shaded", x=float(x), id=f"x-{i}").json()["model_version"] == "1"
    def report():
        got = served.http("GET", served.path("deployments", "shaded", "shadow")).json()
        return got if got["rows"] == len(rows) else None
    got = eventually(report, what="the comparison")
    apart = np.abs(1 / (1 + np.exp(-rows)) - 1 / (1 + np.exp(-2 * rows)))
    assert (got["failed"], got["dropped"], got["differ"]) == (0, 0, int((apart > 0.1).sum()))
    assert (got["max"], got["mean"]) == pytest.approx((apart.max(), apart.mean()), rel=1e-4)
    assert set(got["worst"][:2]) == {f"x-{i}" for i in np.argsort(-apart)[:2]}


# ---- change ----

class Load:
    """Clients that ask all the time."""

    def __init__(self, daemon, name, clients=8):
        self.stop, self.failed, self.asked = threading.Event(), [], 0
        self.url, self.token = f"{daemon.url}/v2/models/{name}/infer", daemon.token
        self.threads = [threading.Thread(target=self.run) for _ in range(clients)]

    def run(self):
        with requests.Session() as session:
            session.trust_env = False
            session.headers["Authorization"] = f"Bearer {self.token}"
            while not self.stop.is_set():
                reply = session.post(self.url, json=body())
                self.asked += 1
                if reply.status_code != 200:
                    self.failed.append(reply.text)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join()


def test_versions_change_under_load(served):
    deploy(served, "changed", {"version": "m.1"})
    ready(served, "changed", 1)
    with Load(served, "changed") as load:
        for version in "23121":
            deploy(served, "changed", {"version": f"m.{version}"})
            eventually(lambda: ask(served, "changed").json().get("model_version") == version, what=f"version {version}")
    assert load.asked > 0 and not load.failed, load.failed[:3]


def test_sleep_gives_its_sessions_up_and_the_first_answer_is_right(served):
    deploy(served, "slept", {"version": "m.3", "idle": "100ms"})
    eventually(lambda: status(served, "slept").get("phase") == "idle", what="sleep")
    reply = ask(served, "slept", x=0.5)
    assert reply.status_code == 200
    assert reply.json()["outputs"][0]["data"] == pytest.approx([1 / (1 + np.exp(-1.5))], rel=1e-5)
    now = eventually(lambda: (lambda s: s if s.get("coldStarts") else None)(status(served, "slept")), what="the note")
    assert now["coldStarts"] == 1 and now["coldStartMs"] > 0
    assert "idle" in served.ok("get", "deployments").out or eventually(
        lambda: "idle" in served.ok("get", "deployments").out, what="sleep again")
