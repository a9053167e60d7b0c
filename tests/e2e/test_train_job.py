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
from conftest import DHOW, ROOT, Daemon, daemon_close, eventually
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


def sweeps(one, begins):
    return [s for s in one.get("sweeps")["items"] if s["metadata"]["name"].startswith(begins)]


def sweep_over(one, begins):
    """The sweep of that beginning, once it is over."""
    return one.wait_over("sweeps", sweeps(one, begins)[0]["metadata"]["name"], 200)


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
    best = table["trials"][table["best"] - 1]
    assert best["measure"] == max(t["measure"] for t in table["trials"])
    sweep, = sweeps(netted, "grid-")
    status = sweep["status"]
    assert status["phase"] == "succeeded" and status["done"] == status["total"] == 4 and status["bestJob"] == best["run"]
    assert status["bestMeasure"] == best["measure"] and status["bestSet"] == best["set"]
    row = next(line for line in netted.ok("get", "sweeps").out.splitlines() if line.startswith("grid-")).split()
    assert row[1:3] == ["grid", "succeeded"] and best["run"] in row
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


def test_a_sweep_outlives_its_client(netted):
    sweep = {"kind": "random", "trials": 5, "over": {"seed": {"min": 1, "max": 1000}}}
    process, terminal = command(netted, form(netted, "alone", sweep=sweep))
    eventually(lambda: jobs(netted, "alone-"), 30, 0.05, "its first job")
    process.kill()
    process.wait()
    os.close(terminal)
    assert len(jobs(netted, "alone-")) < 5
    status = sweep_over(netted, "alone-")["status"]
    assert status["phase"] == "succeeded" and status["done"] == 5 == len(jobs(netted, "alone-"))


def test_a_sweep_goes_on_after_its_daemon_was_killed(netted):
    sweep = {"kind": "random", "trials": 6, "over": {"seed": {"min": 1, "max": 1000}}, "atOnce": 2}
    name = netted.ok("train", form(netted, "risen", sweep=sweep, epochs=20), "--detach").out.strip()
    for ended in (1, 4):
        eventually(lambda: netted.get("sweeps", name)["status"].get("done", 0) >= ended, 60, 0.02, "some of its trials")
        netted.kill()
        netted.start()
    status = netted.wait_over("sweeps", name, 200)["status"]
    made = jobs(netted, "risen-")
    assert status["phase"] == "succeeded" and [t["phase"] for t in status["trials"]] == ["done"] * 6
    assert {t["job"] for t in status["trials"]} == set(made) == {f"{name}-t{i}" for i in range(1, 7)}
    assert {j["status"]["attempts"] for j in made.values()} == {1}, "each trial ran once"


def test_a_sweep_there_that_halves(netted):
    sweep = {"kind": "halving", "factor": 2, "trials": 4, "over": {"optimizer.rate": {"min": 1e-5, "max": 0.03, "scale": "log"}},
             "metric": "auc", "atOnce": 2}
    done = netted.ok("train", form(netted, "half", sweep=sweep, epochs=4), "-o", "json", seconds=200)
    table = done.json()
    assert sorted(t["epochs"] for t in table["trials"]) == [1, 1, 2, 4] and len(jobs(netted, "half-")) == 4 + 2 + 1
    best = table["trials"][table["best"] - 1]
    assert best["epochs"] == 4 and best["run"].endswith("-r3")
    assert jobs(netted, best["run"])[best["run"]]["spec"]["with"]["epochs"] == 4
    assert len(re.findall(r"^trial \d of 4: optimizer.rate=", done.err, re.M)) == 7, done.err


def test_the_sweep_of_the_guide_can_be_applied(netted):
    guide = (ROOT / "docs" / "guides" / "training.md").read_text()
    netted.ok("apply", "-f", "-", input=re.search(r"^```yaml\n(apiVersion.*?)^```$", guide, re.S | re.M).group(1))
    status = netted.wait_over("sweeps", "late-rates", 200)["status"]
    assert status["phase"] == "succeeded" and sorted(t["epochs"] for t in status["trials"]) == [1] * 6 + [3] * 2 + [9]
    assert jobs(netted, "late-rates-t1")["late-rates-t1"]["spec"]["retries"] == 1
    events = netted.http("GET", "/api/v1/events?kind=Sweep&name=late-rates&limit=1000").json()["items"]
    told, = [e for e in events if e["type"] == "sweep.ended"]
    assert told["data"]["job"] == status["bestJob"] and told["data"]["measure"] == status["bestMeasure"]


@pytest.mark.parametrize("stop", ["cancel", "delete"])
def test_a_sweep_that_is_given_up_takes_its_jobs_along(netted, stop):
    sweep = {"kind": "random", "trials": 4, "over": {"optimizer.rate": {"min": 1e-4, "max": 0.01}}, "atOnce": 2}
    name = netted.ok("train", form(netted, stop, sweep=sweep, epochs=100000), "--detach").out.strip()
    eventually(lambda: len(jobs(netted, name)) == 2, 30, 0.1, "two jobs")
    if stop == "cancel":
        netted.ok("cancel", name)
        status = netted.wait_over("sweeps", name)["status"]
        assert status["phase"] == "cancelled" and {t["phase"] for t in status["trials"]} == {"cancelled"}
        assert netted.cli("cancel", name).code == 5, "it has ended"
    else:
        netted.ok("delete", "sweep", name)
    eventually(lambda: {j["status"]["phase"] for j in jobs(netted, name).values()} == {"cancelled"}, 30, 0.1, "the end of its jobs")
    assert len(jobs(netted, name)) == 2


def test_a_wrong_sweep_is_refused_before_anything_begins(netted):
    form_ = {"rows": "late_rows.1", "holdout": "14d", "model": {"mlp": {}}}
    over = {"optimizer.rate": [0.1]}
    for spec, field in (({"with": form_, "over": {"optimizer.rat": [0.1]}}, "spec.over"),
                        ({"with": form_, "over": {"optimizer.rate": ["fast"]}}, "spec.over"),
                        ({"with": form_, "over": over, "trials": 1001}, "spec.trials"),
                        ({"with": {**form_, "model": {}}, "over": over}, "spec.with.model"),
                        ({"with": {**form_, "epoch": 3}, "over": over}, "spec.with.epoch"),
                        ({"with": {**form_, "rows": "late_rows.99"}, "over": over}, "spec.with.rows"),
                        ({"with": {**form_, "holdout": "0s"}, "over": over}, "spec.with.holdout")):
        reply = netted.put("Sweep", "wrong", spec)
        assert reply.status_code in (400, 413) and reply.json()["field"] == field, reply.text
        assert field in reply.json()["detail"] or field == "spec.with.model", reply.text
    assert netted.put("Sweep", "w" * 51, {"with": form_, "over": over}).json()["field"] == "metadata.name"
    netted.job(["true"], name="taken-t1")
    reply = netted.put("Sweep", "taken", {"with": form_, "over": over})
    assert reply.status_code == 409 and "taken-t1" in reply.json()["detail"]
    said_ = netted.cli("train", form(netted, "amiss", sweep={"over": {"optimizer.rat": [0.1]}}))
    assert said_.code == 2 and "optimizer.rat" in said_.err and not sweeps(netted, "amiss") and not jobs(netted, "amiss")


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
