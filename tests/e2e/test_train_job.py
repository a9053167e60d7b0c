# SPDX-License-Identifier: Apache-2.0
"""A network in the pipeline that trees were in: one line of the recipe differs, all other steps are as they were."""

import json
import os
import pty
import re
import signal
import subprocess
import time

import numpy as np
import onnxruntime
import pytest
import yaml
from conftest import DHOW, Daemon, daemon_close, eventually
from flights import blob, documents, rows_of, sources_make, step

REQUEST = {"date": "2001-05-03T10:00:00", "ts": "2001-05-03T16:00:00", "distance": 606}


def network(made):
    train = step(made, "train")["with"]
    train["model"] = {"mlp": {"hidden": [64, 32]}}
    train["epochs"] = 2
    train["profile"] = True
    gate = step(made, "gate")["with"]
    gate["bounds"] = [b for b in gate["bounds"] if b["metric"] != "parityMaxAbs"]


def network_of_categories(made):
    """Airports are texts, hours and weekdays numbers; all four are embedded."""
    network(made)
    made["FeatureService", "late_features"]["spec"]["request"] += [
        {"name": "from", "function": "text", "column": "origin"}, {"name": "to", "function": "text", "column": "destination"}]
    step(made, "train")["with"]["data"] = {"categories": ["hour", "weekday"]}
    made["Deployment", "late"]["spec"]["requestLog"] = {"share": 1, "rotateEvery": "1s"}


def run(one, change):
    sources_make(one.sources)
    one.start()
    recipe = one.sources / "recipe.yaml"
    recipe.write_text(yaml.safe_dump_all(documents(change).values(), sort_keys=False))
    assert one.cli("apply", "-f", recipe).code == 0
    done = one.cli("run", "late", seconds=400)
    assert done.code == 0, done.err
    return one


@pytest.fixture(scope="module")
def netted(tmp_path_factory):
    """A daemon whose pipeline has trained a network."""
    one = run(Daemon(tmp_path_factory.mktemp("netted")), network)
    yield one
    daemon_close(one)


def form(one, name, **more):
    path = one.sources / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"rows": "late_rows.1", "holdout": "14d", "model": {"mlp": {"hidden": [16]}}, "epochs": 1, **more},
                                   sort_keys=False))
    return path


def command(one, *args):
    """`dhow train` there, on a terminal: its process, and what it says."""
    mine, its = pty.openpty()
    env = {**one.env(), "DHOW_SERVER": one.url, "DHOW_TOKEN_FILE": str(one.token_file), "TERM": "xterm"}
    process = subprocess.Popen([DHOW, "train", *map(str, args)], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=its,
                               cwd=one.folder)
    os.close(its)
    return process, mine


def said(terminal):
    text = b""
    try:
        while part := os.read(terminal, 65536):
            text += part
    except OSError:  # its end
        pass
    os.close(terminal)
    return text.decode(errors="replace")


def jobs(one, begins):
    return {j["metadata"]["name"]: j for j in one.get("jobs")["items"] if j["metadata"]["name"].startswith(begins)}


def test_a_network_goes_the_way_of_trees(netted):
    one = netted
    version = one.cli("get", "modelversion", "late.1", "-o", "json").json()
    assert version["status"]["state"] == "passed" and version["spec"]["params"]["mlp"]["hidden"] == [64, 32]
    assert version["spec"]["facts"]["parityMaxRelative"] <= 1e-4

    # Where its time went is in the run, and the last training's figures are in /metrics.
    job = version["spec"]["job"]
    told = {m["name"]: m["values"][-1] for m in one.http("GET", one.path("runs", job, "metrics")).json()["metrics"]}
    metrics = {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in one.http("GET", "/metrics").text.splitlines()
               if line.startswith("dhow_training_")}
    ops = {name.split(".")[2] for name in told if name.startswith("profile.seconds.")}
    assert len(ops) >= 3 and 'dhow_training_op_seconds{op="%s"}' % min(ops) in metrics
    for name, metric in (("rowsPerSecond", "rows_per_second"), ("waitedShare", "waiting_share"), ("memoryPeak", "memory_peak_bytes"),
                         ("stepSeconds", "step_seconds"), ("peakGflops", "peak_gflops")):
        assert metrics["dhow_training_" + metric] == pytest.approx(told["profile." + name], rel=1e-6), name
    for op in ops:
        assert metrics[f'dhow_training_op_seconds{{op="{op}"}}'] == pytest.approx(told["profile.seconds." + op], rel=1e-6)
    assert 0 < sum(told["profile.seconds." + op] for op in ops) <= told["profile.stepSeconds"] * 1.05


def test_the_command_trains_there_and_shows_how_far_it_is(netted):
    process, terminal = command(netted, form(netted, "there", epochs=30))
    text = said(terminal)
    assert process.wait(60) == 0, text
    assert re.search(r"there-\w+: running, \d+/\d+ steps, loss [\d.]+, rate [\d.e-]+", text), text
    assert "ONNX Runtime says the same" in text, "what the job says is shown"
    done = netted.cli("train", form(netted, "there"), "-o", "json").json()
    assert done["status"]["phase"] == "succeeded" and json.loads(done["status"]["result"]["metrics"])["auc"] > 0.5
    wrong = netted.cli("train", form(netted, "wrong", holdout="0s"))
    assert wrong.code != 0 and "holdout" in wrong.err


def test_a_sweep_there_is_jobs_with_one_budget(netted):
    sweep = {"kind": "grid", "over": {"optimizer.rate": [1e-5, 0.01], "model.mlp.hidden": [[4], [8]]}, "atOnce": 2, "metric": "auc"}
    table = netted.cli("train", form(netted, "grid", sweep=sweep), "-o", "json", seconds=200).json()
    made = jobs(netted, "grid-")
    assert len(made) == 4 and {t["run"] for t in table["trials"]} == set(made) and {t["state"] for t in table["trials"]} == {"done"}
    owners = {j["spec"]["owner"] for j in made.values()}
    assert len(owners) == 1 and owners.pop().startswith("Sweep/grid-"), "they belong together"
    runs = {netted.get("runs", name)["spec"]["experiment"] for name in made}
    assert len(runs) == 1
    assert table["trials"][table["best"] - 1]["measure"] == max(t["measure"] for t in table["trials"])
    sweep = {"kind": "random", "trials": 40, "over": {"seed": {"min": 1, "max": 1000}}, "budget": "2s"}
    spent = netted.cli("train", form(netted, "spent", sweep=sweep), "-o", "json", seconds=200).json()
    states = [t["state"] for t in spent["trials"]]
    began = states.index("no time")
    assert 0 < began == len(jobs(netted, "spent-")) and set(states[:began]) == {"done"} and set(states[began:]) == {"no time"}


def test_a_sweep_that_is_stopped_takes_its_jobs_along(netted):
    sweep = {"kind": "random", "trials": 4, "over": {"optimizer.rate": {"min": 1e-4, "max": 0.01}}, "atOnce": 2}
    process, terminal = command(netted, form(netted, "cut", sweep=sweep, epochs=100000))
    eventually(lambda: len(jobs(netted, "cut-")) == 2, 30, 0.1, "two jobs")
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    text = said(terminal)
    assert process.wait(30) != 0 and "stopped" in text
    eventually(lambda: {j["status"]["phase"] for j in jobs(netted, "cut-").values()} == {"cancelled"}, 30, 0.1, "the end of its jobs")
    assert len(jobs(netted, "cut-")) == 2


def test_categories_go_all_the_way(fresh):
    """Trained with embeddings, judged, deployed and asked: by texts and by keys, each category is what it was in training."""
    one = run(fresh.unstarted(), network_of_categories)
    version = one.get("modelversions", "late.1")
    spec, signature = version["spec"], version["spec"]["signature"]
    assert version["status"]["state"] == "passed" and spec["facts"]["parityMaxRelative"] <= 1e-4
    assert [(i["name"], i["type"], i["shape"][1]) for i in signature["inputs"]] == [
        ("features", "FP32", len(signature["features"])), ("categories", "BYTES", 2)]
    assert signature["categories"] == ["from", "to"] and "hour" in signature["features"]
    # What evaluate measured is what the model says of these rows.
    assert version["status"]["evaluation"]["auc"] == pytest.approx(spec["metrics"]["auc"], abs=1e-4)

    session = onnxruntime.InferenceSession(str(blob(one, spec["onnx"])))
    rows = rows_of(one, "late_rows.1").head(200)
    x, texts = rows[signature["features"]].to_numpy(np.float32), rows[["from", "to"]].to_numpy(object)
    assert (texts == rows[["origin", "destination"]].to_numpy(object)).all() and np.isnan(x).any()
    want = session.run(None, {"features": x, "categories": texts})[0][:, 0]
    body = {"inputs": [
        {"name": "features", "datatype": "FP32", "shape": list(x.shape), "data": [None if np.isnan(v) else float(v) for v in x.ravel()]},
        {"name": "categories", "datatype": "BYTES", "shape": list(texts.shape), "data": texts.ravel().tolist()}]}
    got = one.http("POST", "/v2/models/late/infer", json=body).json()["outputs"][0]["data"]
    assert np.allclose(got, want, rtol=1e-5, atol=1e-6)
    file = one.sources / "request.json"
    file.write_text(json.dumps(body))
    said = one.cli("predict", "late", "-f", file, "-o", "json")
    assert said.code == 0 and np.allclose(said.json()["outputs"][0]["data"], want, rtol=1e-5, atol=1e-6), said.err

    keys = {"origin": ["ATL", "ORD", "ZZZ"], "destination": ["ORD", "ATL", "ATL"], **{k: [v] * 3 for k, v in REQUEST.items()}}
    reply = one.http("POST", "/v2/models/late/infer", json={"entities": keys, "parameters": {"return_features": True}}).json()
    outputs = {o["name"]: o for o in reply["outputs"]}
    features = np.array([np.nan if v is None else v for v in outputs["features"]["data"]], np.float32).reshape(3, -1)
    want = session.run(None, {"features": features, "categories": np.array([keys["origin"], keys["destination"]], object).T})[0][:, 0]
    assert np.allclose(outputs["probability"]["data"], want, rtol=1e-5, atol=1e-6) and len(set(want)) == 3

    def rows_logged():
        made = one.get("datasetversions")["items"]
        logs = [rows_of(one, v["metadata"]["name"]) for v in made if v["spec"]["of"] == "Dataset/late-requests"]
        return [r for r in logs if "ZZZ" in set(r["from"])]
    logged = eventually(rows_logged, 20, 0.2, "the log of what was asked")[0]
    assert {"from", "to", "hour", "probability"} <= set(logged.columns) and "ATL" in set(logged["to"])
    drift = eventually(lambda: one.get("monitors", "late_drift")["status"].get("version"), 20, 0.2, "the monitor's look")
    assert drift == "late.1"
