# SPDX-License-Identifier: Apache-2.0
"""What runs a deployment's model: chosen by what the model is, named by hand, and the same answers from all."""

import threading

import numpy as np
import onnxruntime
import pytest
from conftest import eventually
from onnx import helper
import serving

RANDOM = np.random.default_rng(3)
WIDTHS = [12, 48, 48, 3]


def network():
    """Dense layers, with categories through an embedding beside the numbers; two outputs."""
    weights = {"table": RANDOM.standard_normal((20, 4)).astype(np.float32)}
    nodes = [helper.make_node("Gather", ["table", "kind"], ["e"]), helper.make_node("Concat", ["x", "e"], ["h0"], axis=1)]
    for i, (a, b) in enumerate(zip([WIDTHS[0] + 4, *WIDTHS[1:]], WIDTHS[1:])):
        weights[f"w{i}"] = (RANDOM.standard_normal((b, a)) / a**0.5).astype(np.float32)
        weights[f"b{i}"] = RANDOM.standard_normal(b).astype(np.float32)
        nodes += [helper.make_node("Gemm", [f"h{i}", f"w{i}", f"b{i}"], [f"g{i}"], transB=1),
                  helper.make_node("Relu", [f"g{i}"], [f"h{i + 1}"])]
    nodes.append(helper.make_node("Softmax", ["g2"], ["p"], axis=1))
    return serving.model_of(nodes, {"x": ("FP32", ["N", WIDTHS[0]]), "kind": ("INT64", ["N"])},
                            {"p": ("FP32", ["N", 3]), "g2": ("FP32", ["N", 3])}, weights)


def convolution():
    w = RANDOM.standard_normal((2, 1, 3, 3)).astype(np.float32)
    return serving.model_of([helper.make_node("Conv", ["x", "w"], ["y"], pads=[1] * 4)], {"x": ("FP32", ["N", 1, 8, 8])},
                            {"y": ("FP32", ["N", 2, 8, 8])}, {"w": w})


def centred():
    """Each answer depends on all rows of the request."""
    return serving.model_of([helper.make_node("ReduceMean", ["x"], ["m"], axes=[0]), helper.make_node("Sub", ["x", "m"], ["y"])],
                            {"x": ("FP32", ["N", 2])}, {"y": ("FP32", ["N", 2])})


def runs_by(daemon, name):
    traffic, = daemon.get("deployments", name)["status"]["traffic"]
    return traffic["runtime"]


def ask(daemon, name, rows, seed=0):
    """Answers to so many rows, and ONNX Runtime's own in this process."""
    random = np.random.default_rng(seed)
    x, kind = random.standard_normal((rows, WIDTHS[0])).astype(np.float32), random.integers(0, 20, rows)
    inputs = [{"name": "x", "datatype": "FP32", "shape": list(x.shape), "data": x.ravel().tolist()},
              {"name": "kind", "datatype": "INT64", "shape": [rows], "data": kind.tolist()}]
    reply = daemon.http("POST", f"/v2/models/{name}/infer", json={"inputs": inputs})
    assert reply.status_code == 200, reply.text
    got = {o["name"]: np.array(o["data"]).reshape(o["shape"]) for o in reply.json()["outputs"]}
    return got, dict(zip(["p", "g2"], daemon.oracle.run(None, {"x": x, "kind": kind})))


@pytest.fixture(scope="module")
def daemon(daemon):
    model = network()
    daemon.oracle = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for name, spec in (("net", {}), ("pinned", {"runtime": "onnx"}), ("named", {"runtime": "engine"}),
                       ("batched", {"batching": {"maxBatch": 32}})):
        daemon.deploy_onnx(name, model, **spec)
    return daemon


def test_it_is_chosen_by_what_the_model_is(daemon):
    assert [runs_by(daemon, name) for name in ("net", "pinned", "named", "batched")] == ["engine", "onnx", "engine", "engine"]
    for name, model in (("image", convolution()), ("centred", centred()), ("text", serving.same("BYTES"))):
        daemon.deploy_onnx(name, model)
        assert runs_by(daemon, name) == "onnx"


@pytest.mark.parametrize("name", ["net", "pinned", "named", "batched"])
@pytest.mark.parametrize("rows", [1, 2, 3, 33, 100, 1000])
def test_all_answer_alike(daemon, name, rows):
    got, want = ask(daemon, name, rows)
    for output in want:
        np.testing.assert_allclose(got[output], want[output], rtol=1e-5, atol=2e-6)


def test_many_at_once_get_their_own_answers(daemon):
    wrong = []

    def client(seed):
        for i in range(30):
            got, want = ask(daemon, ("net", "batched")[seed % 2], 1 + (seed + i) % 5, seed * 100 + i)
            wrong.extend(o for o in want if not np.allclose(got[o], want[o], rtol=1e-5, atol=2e-6))
    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_category_that_is_none_is_refused(daemon):
    inputs = [{"name": "x", "datatype": "FP32", "shape": [1, WIDTHS[0]], "data": [0] * WIDTHS[0]},
              {"name": "kind", "datatype": "INT64", "shape": [1], "data": [20]}]
    for name in ("net", "pinned"):
        reply = daemon.http("POST", f"/v2/models/{name}/infer", json={"inputs": inputs})
        assert reply.status_code >= 400 and reply.json()["error"]
    ask(daemon, "net", 1)


@pytest.mark.parametrize("model, runtime, told", [(centred, "engine", "rows see each other"),
                                                  (network, "native", "no native trees")])
def test_one_that_is_named_and_does_not_fit_says_why(daemon, model, runtime, told):
    name = f"not-{runtime}"
    version = daemon.deploy_onnx(name, model())
    assert daemon.put("Deployment", name, {"model": name, "version": version, "runtime": runtime}).ok

    def message():
        return told in str(daemon.get("deployments", name)["status"])
    eventually(message, what=f"why it is not {runtime}")
