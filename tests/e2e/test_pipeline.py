# SPDX-License-Identifier: Apache-2.0
"""The main job in small: from real flights to a served model, and what happens when a step does not go well."""

import json
import os
import threading
import time

import numpy as np
import pytest

import flights
from conftest import eventually

KEYS = {"origin": ["ATL"], "destination": ["ORD"], "date": ["2001-05-01T10:00:00"], "ts": ["2001-05-01T16:00:00"],
        "distance": [606]}
UNTIL = "2001-05-01"
TRAIN = {"rows": "late_rows.1", "holdout": "14d", "model": {"trees": {"rounds": 3, "depth": 3}}}


def run(daemon, text, *args, seconds=120):
    """Applies a pipeline and runs it; the command's result and the run."""
    name = daemon.ok("apply", "-f", "-", input=text).out.split()[0].split("/")[1]
    result = daemon.cli("run", name, "-o", "json", *args, seconds=seconds)
    return result, result.json() if result.out else None


def steps_of(made):
    """Its steps by name; a run that was only just made has none yet."""
    return {s["name"]: {"phase": "waiting", **s} for s in made.get("status", {}).get("steps", [])}


def wait_step(daemon, run_name, step, phase="running", seconds=60):
    return eventually(lambda: steps_of(daemon.get("pipelineruns", run_name)).get(step, {}).get("phase") == phase,
                      seconds, 0.05, f"step {step} of {run_name} {phase}")


def champion(daemon):
    return daemon.get("models", "late")["status"]["aliases"].get("champion")


# ---- it runs through ----

def test_it_runs_through(trained):
    result = trained.first_run
    assert result.code == 0, result.err
    made = result.json()
    assert made["status"]["phase"] == "succeeded"
    steps = steps_of(made)
    assert list(steps) == ["ingest", "rows", "train", "register", "evaluate", "gate", "online", "deploy"]
    assert all(s["phase"] == "succeeded" for s in steps.values())
    order = list(steps.values())
    assert all(a["finished"] <= b["started"] for a, b in zip(order, order[1:]))
    assert champion(trained) == "late.1"


def test_the_first_version_holds_what_was_known_then(trained):
    version = trained.get("datasetversions", "flights.1")["spec"]
    whole = flights.table(trained.sources)
    known = whole[(whole.ts < UNTIL) & (whole.known_at < UNTIL)]
    assert version["rows"] == len(known) > 100_000
    assert len(whole) == trained.source_rows
    rows = flights.rows_of(trained, "flights.1")
    assert rows.ts.is_monotonic_increasing
    both = rows.set_index("id").sort_index(), known.set_index("id").sort_index()
    for column in ("date", "ts", "known_at", "origin", "destination", "distance", "delay", "late"):
        assert (both[0][column] == both[1][column]).all(), column


def test_what_is_odd_is_counted_and_named(trained):
    checks = {c["name"]: c for c in trained.get("datasetversions", "flights.1")["spec"]["checks"]}
    rows = flights.rows_of(trained, "flights.1")
    impossible = rows[(rows.delay < -180) | (rows.delay > 1440)]
    twice = rows.duplicated(["date", "origin", "destination", "distance", "delay"], keep=False)
    told = checks["impossible_delay"]
    assert told["failed"] == len(impossible) > 0 and not told.get("ok") and told["severity"] == "warn"
    assert set(told["examples"]) <= set(impossible.id.astype(str)) and told["examples"]
    told = checks["exact_duplicate"]
    extra = rows.duplicated(["date", "origin", "destination", "distance", "delay"]).sum()
    assert told["failed"] in (int(twice.sum()), int(extra)) and told["failed"] > 0
    assert set(told["examples"]) <= set(rows[twice].id.astype(str)) and told["examples"]
    assert len(checks) == 16 and sum(not c.get("ok") for c in checks.values()) == 2


def test_statistics_are_those_of_the_rows(trained):
    rows = flights.rows_of(trained, "flights.1")
    columns = {c["name"]: c for c in trained.get("datasetversions", "flights.1")["spec"]["columns"]}
    assert {n: c["type"] for n, c in columns.items()}["delay"] == "BIGINT"
    assert (columns["ts"]["role"], columns["known_at"]["role"], columns["id"]["role"]) == ("eventTime", "knownAt", "id")
    for name in ("delay", "distance"):
        told = columns[name]["statistics"]
        assert told["min"] == rows[name].min() and told["max"] == rows[name].max()
        assert told["mean"] == pytest.approx(rows[name].mean(), rel=1e-9)
        assert told["std"] == pytest.approx(rows[name].std(), rel=1e-3)
        assert told.get("nulls", 0) == 0
    origins = columns["origin"]["statistics"]
    assert abs(origins["distinct"] - rows.origin.nunique()) <= 0.1 * rows.origin.nunique()
    assert origins["first"] == rows.origin.min() and origins["last"] == rows.origin.max()


def test_a_repeated_ingest_makes_no_second_version(trained):
    text = flights.pipeline("again", ("ingest", "ingest", {"dataset": "flights", "until": UNTIL}),
                            ("rows", "build", {"trainingSet": "late_rows", "version": "${steps.ingest.version}",
                                               "from": "2001-02-01", "until": UNTIL}))
    result, made = run(trained, text)
    assert result.code == 0, result.err
    assert steps_of(made)["ingest"]["outputs"]["version"] == "flights.1"
    assert steps_of(made)["rows"]["outputs"]["version"] == "late_rows.1"
    names = [v["metadata"]["name"] for v in trained.get("datasetversions")["items"]]
    assert names.count("flights.1") == 1
    again = [v for v in trained.get("datasetversions")["items"]
             if v["spec"]["of"] == "Dataset/flights" and v["spec"].get("until", "").startswith(UNTIL)]
    assert len(again) == 1


def test_no_label_row_is_lost_or_doubled(trained):
    labels = flights.rows_of(trained, "late_rows.1")
    rows = flights.rows_of(trained, "flights.1")
    able = rows[(rows.ts >= "2001-02-01") & (rows.ts < UNTIL)].set_index("id")
    assert labels.id.is_unique and set(labels.id) <= set(able.index)
    assert 0.49 < len(labels) / len(able) < 0.51
    assert (able.loc[labels.id, "late"].to_numpy() == labels.late.to_numpy()).all()
    assert (able.loc[labels.id, "ts"].to_numpy() == labels.ts.to_numpy()).all()


def test_a_versions_file_can_be_fetched(trained):
    sha = trained.get("datasetversions", "flights.1")["spec"]["files"][0]["sha"]
    reply = trained.http("GET", trained.path("datasetversions", "flights.1", "files/0"))
    assert reply.status_code == 200 and reply.content == flights.blob(trained, sha).read_bytes()
    assert reply.content[:4] == b"PAR1"
    viewer = trained.make_token(["viewer"])["token"]
    assert trained.http("GET", trained.path("datasetversions", "flights.1", "files/0"), token=viewer).status_code == 403
    assert trained.http("GET", trained.path("datasetversions", "flights.1", "files/9")).status_code == 404


# ---- registry ----

def test_a_version_knows_where_it_comes_from(trained):
    spec = trained.get("modelversions", "late.1")["spec"]
    status = trained.get("modelversions", "late.1")["status"]
    assert len(spec["signature"]["features"]) == 24 and spec["signature"]["inputs"][0]["shape"] == [-1, 24]
    assert spec["params"]["trees"]["rounds"] == 20 and spec["service"] == "late_features"
    assert "DatasetVersion/late_rows.1" in spec["inputs"]
    assert spec["codeCommit"] and spec["metrics"]["auc"] > 0.6
    assert status["state"] == "passed" and all(g["ok"] for g in status["gates"])
    assert status["evaluation"]["parityMaxAbs"] <= 1e-5 and status["evaluation"]["parityRows"] == 10000
    for sha in (spec["onnx"], spec["native"], spec["baseline"]):
        assert flights.blob(trained, sha).exists()


def test_a_version_never_changes(trained):
    was = trained.get("modelversions", "late.1")
    was["spec"]["metrics"] = {"auc": 1.0}
    reply = trained.http("PUT", trained.path("modelversions", "late.1"), json=was)
    assert reply.status_code in (400, 405, 409), reply.text
    assert trained.get("modelversions", "late.1")["spec"]["metrics"]["auc"] < 1


def test_lineage_goes_both_ways(trained):
    def refs(kind, name, side):
        answer = trained.http("GET", trained.path("lineage") + f"?ref={kind}/{name}").json()
        return {e["input"] if side == "up" else e["output"] for e in answer[side]}

    assert {"DatasetVersion/late_rows.1", "DatasetVersion/flights.1", "Source/flights_raw", "Source/airports",
            "Dataset/flights", "FeatureService/late_features"} <= refs("ModelVersion", "late.1", "up")
    assert {"DatasetVersion/flights.1", "DatasetVersion/late_rows.1", "ModelVersion/late.1"} \
        <= refs("Source", "flights_raw", "down")
    assert not refs("Source", "flights_raw", "up")
    shown = trained.ok("lineage", "modelversion", "late.1").out
    assert "DatasetVersion/flights.1" in shown and "Source/flights_raw" in shown
    assert "ModelVersion/late.1" in trained.ok("describe", "datasetversion", "flights.1").out
    assert trained.http("GET", trained.path("lineage") + "?ref=Model/none").status_code == 404


def test_a_training_run_logs_metrics_and_resources(trained):
    runs = trained.get("runs")["items"]
    one = next(r for r in runs if r["spec"]["job"] == "late-1-train")
    assert one["status"]["version"] == "late.1"
    answer = trained.http("GET", trained.path("runs", one["metadata"]["name"], "metrics")).json()
    loss = {m["name"]: m for m in answer["metrics"]}["valid.logloss"]
    assert len(loss["values"]) == 20 and loss["steps"] == sorted(set(loss["steps"]))
    assert loss["values"][-1] < loss["values"][0]
    job = trained.get("jobs", "late-1-train")["status"]
    assert job["cpuSeconds"] > 0 and job["memoryPeak"]
    assert "auc" in trained.ok("logs", "late-1", "train").out.lower()


def test_the_same_rows_train_the_same_model(trained):
    again = flights.documents()
    spec = flights.step(again, "train")["with"]
    text = flights.pipeline("same", ("train", "train", {**spec, "rows": "late_rows.1", "holdout": "14d"}))
    result, made = run(trained, text)
    assert result.code == 0, result.err
    outputs = steps_of(made)["train"]["outputs"]
    assert outputs["onnx"] == trained.get("modelversions", "late.1")["spec"]["onnx"]


def test_a_job_gives_a_model_one_version(trained):
    before = trained.get("models", "late")["status"]["versions"]
    result, made = run(trained, flights.pipeline("twice", ("register", "register", {"model": "late", "run": "late-1-train"})))
    assert result.code == 0 and steps_of(made)["register"]["outputs"]["version"] == "late.1"
    assert trained.get("models", "late")["status"]["versions"] == before


# ---- gates ----

def judge(*bounds):
    return [("train", "train", TRAIN),
            ("register", "register", {"model": "late", "run": "${steps.train.job}"}),
            ("evaluate", "evaluate", {"model": "late", "version": "${steps.register.version}", "rows": "late_rows.1",
                                      "holdout": "14d", "parityRows": 100}),
            ("gate", "gate", {"model": "late", "version": "${steps.register.version}",
                              "metrics": "${steps.evaluate.metrics}", "bounds": list(bounds)}),
            ("deploy", "deploy", {"deployment": "late", "version": "${steps.register.version}"})]


def test_a_failed_gate_is_exit_3_and_names_metric_bound_and_value(trained):
    before = champion(trained)
    result, made = run(trained, flights.pipeline("strict", *judge({"metric": "auc", "min": 0.99}, {"metric": "logLoss", "max": 0.9})))
    assert result.code == 3
    steps = steps_of(made)
    version = steps["register"]["outputs"]["version"]
    auc = json.loads(steps["evaluate"]["outputs"]["metrics"])["auc"]
    for part in (version, "auc", "0.99", f"{auc:.4f}"[:5]):
        assert part in made["status"]["message"] and part in result.err, (part, result.err)
    assert "logLoss" not in made["status"]["message"], "a bound that holds is not blamed"
    assert steps["gate"]["phase"] == "failed" and steps["deploy"]["phase"] == "skipped"
    status = trained.get("modelversions", version)["status"]
    assert status["state"] == "refused" and "0.99" in status["message"]
    assert [g["ok"] if "ok" in g else False for g in status["gates"]] == [False, True]
    assert champion(trained) == before


def test_a_challenger_must_keep_up_with_the_champion(trained):
    result, made = run(trained, flights.pipeline("weak", *judge({"metric": "auc", "championWithin": 0.000001})))
    assert result.code == 3 and "champion" in made["status"]["message"]


def test_a_refused_version_cannot_be_deployed(trained):
    refused = next(v["metadata"]["name"] for v in trained.get("modelversions")["items"]
                   if v.get("status", {}).get("state") == "refused")
    before = champion(trained)
    result, made = run(trained, flights.pipeline("smuggle", ("deploy", "deploy", {"deployment": "late", "version": refused})))
    assert result.code != 0 and refused in made["status"]["message"]
    assert champion(trained) == before


def test_a_leak_from_the_future_is_refused(trained):
    """Features keyed on departure instead of landing: too good to be true, and the upper bound says so."""
    honest = trained.get("modelversions", "late.1")["status"]["evaluation"]["auc"]
    leaky = """\
apiVersion: dhow/v1
kind: TrainingSet
metadata: {name: leaky_rows}
spec: {dataset: flights, service: late_features, label: late, sample: 0.5, knownAt: ts}
---
apiVersion: dhow/v1
kind: Model
metadata: {name: leaky}
"""
    trained.ok("apply", "-f", "-", input=leaky)
    trees = {"rounds": 20, "depth": 5, "learningRate": 0.3}
    text = flights.pipeline(
        "leaky", ("rows", "build", {"trainingSet": "leaky_rows", "version": "flights.1", "from": "2001-02-01", "until": UNTIL}),
        ("train", "train", {"rows": "${steps.rows.version}", "holdout": "14d", "model": {"trees": trees}}),
        ("register", "register", {"model": "leaky", "run": "${steps.train.job}"}),
        ("evaluate", "evaluate", {"model": "leaky", "version": "${steps.register.version}", "rows": "${steps.rows.version}",
                                  "holdout": "14d"}),
        ("served", "evaluate", {"model": "leaky", "version": "${steps.register.version}", "rows": "late_rows.1",
                                "holdout": "14d"}),
        ("gate", "gate", {"model": "leaky", "version": "${steps.register.version}", "metrics": "${steps.evaluate.metrics}",
                          "bounds": [{"metric": "auc", "max": round(honest + 0.03, 3)}]}))
    result, made = run(trained, text)
    steps = steps_of(made)
    offline = json.loads(steps["evaluate"]["outputs"]["metrics"])["auc"]
    served = json.loads(steps["served"]["outputs"]["metrics"])["auc"]
    assert offline > honest + 0.05, "a leak that does not show is none"
    assert served < honest - 0.01, "trained on the future, it does worse on the truth"
    assert result.code == 3 and "auc" in made["status"]["message"]


# ---- serving ----

def test_predict_by_key_and_by_tensor_agree(trained):
    reply = trained.http("POST", "/v2/models/late/infer",
                         json={"entities": KEYS, "parameters": {"return_features": True, "version": "1"}})
    assert reply.status_code == 200, reply.text
    by_key = reply.json()
    outputs = {o["name"]: o for o in by_key["outputs"]}
    features = outputs["features"]["data"]
    assert outputs["features"]["shape"] == [1, 24] and len(by_key["parameters"]["features"]) == 24
    tensor = {"inputs": [{"name": "features", "datatype": "FP32", "shape": [1, 24], "data": features}]}   # null is NaN
    reply = trained.http("POST", "/v2/models/late/versions/1/infer", json=tensor)
    assert reply.status_code == 200, reply.text
    assert reply.json()["outputs"][0]["data"] == outputs["probability"]["data"]
    assert 0 < reply.json()["outputs"][0]["data"][0] < 1


def test_predict_by_command_line(trained):
    keys = [a for k, v in KEYS.items() for a in ("-k", f"{k}={v[0]}")]
    shown = trained.ok("predict", "late", *keys).out
    answer = trained.ok("predict", "late", *keys, "-o", "json").json()
    assert f"{answer['outputs'][0]['data'][0]:.4f}"[:5] in shown
    assert trained.cli("predict", "none", *keys).code == 1
    missing = trained.cli("predict", "late", "-k", "origin=ATL")
    assert missing.code == 2 and "destination" in missing.err


def test_a_batch_is_its_rows(trained):
    single = [trained.http("POST", "/v2/models/late/infer", json={"entities": {**KEYS, "distance": [d]}, "parameters": {"version": "1"}}
                           ).json()["outputs"][0]["data"][0] for d in (100, 606, 2500)]
    together = trained.http("POST", "/v2/models/late/infer", json={
        "entities": {k: v * 3 if k != "distance" else [100, 606, 2500] for k, v in KEYS.items()}, "parameters": {"version": "1"}})
    assert together.json()["outputs"][0]["data"] == single


def test_a_new_key_has_no_history_but_an_answer(trained):
    reply = trained.http("POST", "/v2/models/late/infer", json={"entities": {**KEYS, "origin": ["ZZZ"]},
                                                               "parameters": {"return_features": True}})
    outputs = {o["name"]: o["data"] for o in reply.json()["outputs"]}
    assert outputs["features"][:9] == [None] * 9 and outputs["features"][9] is not None
    assert 0 < outputs["probability"][0] < 1


def test_inference_metadata(trained):
    server = trained.http("GET", "/v2", token=None).json()
    assert server["name"] == "dhow" and server["version"] and isinstance(server["extensions"], list)
    assert trained.http("GET", "/v2/health/live", token=None).json() == {"live": True}
    assert trained.http("GET", "/v2/health/ready", token=None).json() == {"ready": True}
    model = trained.http("GET", "/v2/models/late").json()
    assert model["name"] == "late" and model["versions"] and all(v.isdigit() for v in model["versions"])
    assert model["inputs"] == [{"name": "features", "datatype": "FP32", "shape": [-1, 24]}]
    assert model["outputs"] == [{"name": "probability", "datatype": "FP32", "shape": [-1, 1]}]
    assert model["platform"] in ("onnxruntime_onnx", "onnx_onnxv1")
    one = trained.http("GET", f"/v2/models/late/versions/{model['versions'][0]}").json()
    assert one["name"] == "late"
    ready = trained.http("GET", "/v2/models/late/ready")
    assert ready.status_code == 200 and ready.json() == {"name": "late", "ready": True}
    assert trained.http("GET", "/v2/models/late/versions/99/ready").status_code == 404
    assert trained.http("GET", "/v2/models/none").status_code == 404


def test_another_projects_model_is_not_there(trained):
    trained.project("elsewhere")
    stranger = trained.make_token(["admin"], project="elsewhere")["token"]
    assert trained.http("GET", "/v2/models/late", token=stranger).status_code == 404
    assert trained.http("POST", "/v2/models/late/infer", token=stranger, json={"entities": KEYS}).status_code == 404
    assert trained.http("GET", "/v2/models/late", headers={"X-Dhow-Project": "default"}, token=stranger).status_code == 404
    trained.http("POST", "/v2/models/late/infer", json={"entities": KEYS})
    figures, theirs = trained.http("GET", "/metrics").text, trained.http("GET", "/metrics", token=stranger).text
    assert 'dhow_inference_requests_total{project="default",deployment="late"' in figures
    assert "dhow_http_requests_total" in theirs and 'project="default"' not in theirs


def test_onnx_runtime_phones_nobody(trained):
    """1.29 and later keep an uploader thread and files in the home folder unless it is told not to, before it loads."""
    trained.http("POST", "/v2/models/late/infer", json={"entities": KEYS})
    maps = open(f"/proc/{trained.pid}/maps").read()
    assert "libonnxruntime" in maps
    assert not [p for p in trained.home.rglob("*") if "Microsoft" in str(p) or "onnxruntime" in str(p)]
    known = ("dhow", "store-writer", "auth", "models-", "jobs-", "watch", "control", "request-", "net", "monitor", "hook",
             "push", "lane", "kv", "requests-", "shadows-", "reaper", "instance", "write", "tls")
    strange = [name for name in trained.threads() if not name.startswith(known)]
    assert not strange, strange
    sockets = open("/proc/net/tcp").read() + open("/proc/net/tcp6").read()
    inodes = {os.readlink(f"/proc/{trained.pid}/fd/{fd}")[8:-1] for fd in os.listdir(f"/proc/{trained.pid}/fd")
              if os.readlink(f"/proc/{trained.pid}/fd/{fd}").startswith("socket:")}
    for line in sockets.splitlines():
        fields = line.split()
        if len(fields) > 9 and fields[9] in inodes and fields[3] == "01":
            assert fields[1].startswith("0100007F"), f"a connection to somewhere: {line}"


# ---- online equals offline, to the bit ----

def replay_rows(trained):
    """A later version and its training rows."""
    text = flights.pipeline("later", ("ingest", "ingest", {"dataset": "flights", "until": "2001-06-01"}),
                            ("rows", "build", {"trainingSet": "late_rows", "version": "${steps.ingest.version}",
                                               "from": UNTIL, "until": "2001-05-06"}))
    result, made = run(trained, text)
    assert result.code == 0, result.err
    return [steps_of(made)[s]["outputs"]["version"] for s in ("ingest", "rows")]


def test_online_rows_equal_offline_rows_to_the_bit(trained):
    version, rows = replay_rows(trained)
    told = trained.ok("replay", "late", "--version", version, "--dataset", "flights", "--from", UNTIL, "--until", "2001-05-06",
                      "--inputs", "origin,destination,date,ts,distance", "--compare", rows, "--compare-rows", "10000",
                      "-o", "json", seconds=200).json()
    assert told["compared"] >= 1000 and told["mismatches"] == 0, told
    assert told["requestsFailed"] == 0 and told["predictions"] >= 5000
    assert 0.55 < told["realisedAuc"] < 0.85


def online(daemon, keys):
    reply = daemon.http("POST", daemon.path("featureservices", "late_features", "online"), json={"entities": keys})
    assert reply.status_code == 200, reply.text
    return reply.json()


def push(daemon, *rows, dataset="flights"):
    columns = {k: [r[k] for r in rows] for k in rows[0]}
    return daemon.http("POST", daemon.path("datasets", dataset, "push"), json={"rows": columns})


def row(number, known_at, **change):
    base = {"id": number, "date": known_at, "ts": known_at, "known_at": known_at, "origin": "ZZA", "destination": "ZZB",
            "distance": 100, "delay": 10, "late": 0}
    return {**base, **change}


def test_an_older_event_never_overwrites_a_newer_one(trained):
    keys = {"origin": ["ZZA"], "destination": ["ZZB"], "date": ["2002-01-01T12:00:00"], "ts": ["2002-01-01T12:00:00"], "distance": [100]}
    assert push(trained, row(900001, "2002-01-01T11:30:00Z", delay=100)).status_code == 200
    first = online(trained, keys)
    assert first["features"]["origin_recent_delay_1h"] == [100]
    assert push(trained, row(900002, "2002-01-01T08:00:00Z", delay=-50)).json()["rows"] == 1
    then = online(trained, keys)
    assert then["knownAt"]["origin_recent"] == first["knownAt"]["origin_recent"]
    assert then["features"]["origin_recent_delay_1h"] == [100], "an older event came into the last hour"
    assert then["features"]["origin_recent_flights_24h"] == [2], "a late event is counted where it belongs"
    assert then["features"]["origin_recent_delay_24h"] == [25]


def test_the_same_event_twice_counts_once(trained):
    keys = {"origin": ["ZZC"], "destination": ["ZZD"], "date": ["2002-01-02T12:00:00"], "ts": ["2002-01-02T12:00:00"], "distance": [100]}
    event = row(900010, "2002-01-02T11:30:00Z", origin="ZZC", destination="ZZD")
    assert push(trained, event).json()["events"] > 0
    assert push(trained, event).json()["known"] > 0
    assert push(trained, event, event).status_code == 200
    assert online(trained, keys)["features"]["origin_recent_flights_1h"] == [1]


def test_a_view_forgets_after_its_time_to_live(trained):
    event = row(900020, "2002-02-01T00:00:00Z", origin="ZZE", destination="ZZF")
    push(trained, event)

    def seen(ts):
        answer = online(trained, {"origin": ["ZZE"], "destination": ["ZZF"], "date": [ts], "ts": [ts], "distance": [1]})
        return answer["statuses"]["origin_recent"][0], answer["features"]["origin_recent_flights_24h"][0]

    assert seen("2002-02-01T00:00:00Z") == ("PRESENT", 1)
    assert seen("2002-02-08T00:00:00Z")[0] == "PRESENT", "the last moment counts"
    assert seen("2002-02-08T00:00:00.000001Z") == ("OUTSIDE_MAX_AGE", None)


def test_a_push_is_all_or_none(trained):
    keys = {"origin": ["ZZG"], "destination": ["ZZH"], "date": ["2002-03-01T12:00:00"], "ts": ["2002-03-01T12:00:00"], "distance": [1]}
    good = row(900030, "2002-03-01T11:00:00Z", origin="ZZG", destination="ZZH")
    refused = push(trained, good, {**good, "id": 900031, "delay": "late"})
    assert refused.status_code == 400 and "delay" in refused.text
    assert online(trained, keys)["features"]["origin_recent_flights_1h"] == [None]
    short = trained.http("POST", trained.path("datasets", "flights", "push"),
                         json={"rows": {**{k: [v] for k, v in good.items()}, "delay": [1, 2]}})
    assert short.status_code == 400
    assert push(trained, good, dataset="nothing").status_code == 404
    assert push(trained, {k: v for k, v in good.items() if k != "origin"}).status_code == 400


def test_pushes_survive_kill_9(trained):
    keys = {"origin": ["ZZI"], "destination": ["ZZJ"], "date": ["2002-04-01T12:00:00"], "ts": ["2002-04-01T12:00:00"], "distance": [1]}
    assert push(trained, row(900040, "2002-04-01T11:00:00Z", origin="ZZI", destination="ZZJ", delay=33)).status_code == 200
    trained.kill()
    trained.start()
    assert online(trained, keys)["features"]["origin_recent_delay_1h"] == [33]
    eventually(lambda: trained.http("GET", "/v2/health/ready", token=None).status_code == 200, 20, what="ready again")
    assert trained.http("POST", "/v2/models/late/infer", json={"entities": KEYS}).status_code == 200


# ---- a new version takes over ----

def test_a_challenger_takes_a_share_and_then_all(trained):
    """The recipe again, on more rows: the new version is tried on half of the requests, and is champion after 40."""
    before = champion(trained)
    name = trained.ok("run", "late", "--detach", "--param", "until=2001-05-20").out.strip()
    stop, answers, failures = threading.Event(), [], []

    def ask():
        i = 0
        while not stop.is_set():
            i += 1
            reply = trained.session.post(trained.url + "/v2/models/late/infer", json={"id": f"r{i}", "entities": KEYS},
                                         headers={"Authorization": f"Bearer {trained.token}"})
            (answers if reply.status_code == 200 else failures).append(reply.json())
            time.sleep(0.005)

    asker = threading.Thread(target=ask)
    asker.start()
    try:
        ended = trained.wait_over("pipelineruns", name, 120)
        time.sleep(0.3)
    finally:
        stop.set()
        asker.join()
    assert ended["status"]["phase"] == "succeeded", ended["status"].get("message")
    after = champion(trained)
    assert after == steps_of(ended)["register"]["outputs"]["version"] != before
    assert not failures, failures[:3]
    versions = [a["model_version"] for a in answers]
    assert set(versions) == {before.split(".")[1], after.split(".")[1]}
    first = versions.index(after.split(".")[1])
    tried = versions[first:first + 60]
    assert 15 <= tried.count(before.split(".")[1]) <= 45, "the share was not about a half"
    assert set(versions[-20:]) == {after.split(".")[1]}
    rolled = trained.ok("rollback", "late", "-o", "json").json()
    assert champion(trained) == before, rolled
    eventually(lambda: trained.http("POST", "/v2/models/late/infer", json={"entities": KEYS}).json()["model_version"]
               == before.split(".")[1], 5, what="the version before")


@pytest.mark.parametrize("how", ["takes too long", "is cancelled"])
def test_a_trial_that_is_given_up_leaves_no_challenger(trained, how):
    """Nobody asks, so the trial does not end by itself; its version must not take over later, behind a run that failed."""
    before = champion(trained)
    other = next(v["metadata"]["name"] for v in trained.get("modelversions")["items"]
                 if v["spec"]["model"] == "late" and v["status"]["state"] == "passed" and v["metadata"]["name"] != before)
    more = {"timeout": "1s"} if how == "takes too long" else {}
    text = flights.pipeline("trial", ("deploy", "deploy", {"deployment": "late", "version": other}, more))
    trained.ok("apply", "-f", "-", input=text)
    name = trained.ok("run", "trial", "--detach").out.strip()
    if not more:
        eventually(lambda: trained.get("models", "late")["status"]["aliases"].get("challenger") == other, what="the trial")
        trained.ok("cancel", name)
    ended = trained.wait_over("pipelineruns", name, 30)["status"]
    assert ended["phase"] == ("failed" if more else "cancelled") and ended["exitCode"] == 1
    assert not more or "took longer than 1s" in ended["message"]
    assert not trained.get("models", "late")["status"]["aliases"].get("challenger") and champion(trained) == before
    eventually(lambda: trained.get("deployments", "late")["status"]["rollout"]["state"] == "failed", what="the end of the trial")
    answers = {trained.http("POST", "/v2/models/late/infer", json={"entities": KEYS}).json()["model_version"] for _ in range(60)}
    assert answers == {before.split(".")[1]}


def test_a_challenger_whose_traffic_drifts_is_taken_back(trained):
    """A Monitor of the challenger, and requests to the two versions by their numbers: rows that moved take it back when they
    are its own, not when they are the champion's."""
    before = champion(trained)
    other = next(v["metadata"]["name"] for v in trained.get("modelversions")["items"]
                 if v["spec"]["model"] == "late" and v["status"]["state"] == "passed" and v["metadata"]["name"] != before)
    signature = trained.get("modelversions", other)["spec"]["signature"]["features"]
    rows = flights.rows_of(trained, "late_rows.1")[signature].sample(4000, random_state=1).to_numpy("<f4")
    name = trained.http("GET", "/v2/models/late").json()["inputs"][0]["name"]

    def ask(version, x):
        head = json.dumps({"inputs": [{"name": name, "shape": list(x.shape), "datatype": "FP32",
                                       "parameters": {"binary_data_size": x.nbytes}}]}).encode()
        reply = trained.http("POST", f"/v2/models/late/versions/{version.split('.')[1]}/infer", data=head + x.tobytes(),
                             headers={"Inference-Header-Content-Length": str(len(head))})
        assert reply.status_code == 200, reply.text

    def asked(champions, challengers, until, seconds=30):
        """Both are asked until it is so."""
        end = time.monotonic() + seconds
        while not until():
            assert time.monotonic() < end, (trained.get("monitors", "canary"), trained.get("deployments", "late")["status"])
            ask(before, champions)
            if rollout()["state"] == "canary":
                ask(other, challengers)
            time.sleep(0.1)

    def rollout():
        return trained.get("deployments", "late")["status"]["rollout"]

    def closed():
        return trained.get("monitors", "canary").get("status", {}).get("windowsClosed", 0)

    was = trained.get("deployments", "late")["spec"]
    trained.put("Monitor", "canary", {"deployment": "late", "watch": "challenger", "window": "1s", "sustain": 2})
    trained.put("Deployment", "late", {**was, "canary": {"share": 0.5, "requests": 100000, "abort": {"monitor": "canary"}}})
    trained.ok("apply", "-f", "-", input=flights.pipeline("trial", ("deploy", "deploy", {"deployment": "late", "version": other})))
    run_name = trained.ok("run", "trial", "--detach").out.strip()
    try:
        eventually(lambda: rollout()["state"] == "canary", 20, what="the trial")
        asked(rows + 10 * rows.std(), rows, lambda: closed() >= 3)
        assert rollout()["state"] == "canary" and trained.get("monitors", "canary")["status"].get("alarm", "none") == "none"
        asked(rows, rows + 10 * rows.std(), lambda: rollout()["state"] == "failed")
        assert rollout()["message"] == f"monitor canary says that {other} drifted"
        assert champion(trained) == before and not trained.get("models", "late")["status"]["aliases"].get("challenger")
    finally:
        trained.cli("cancel", run_name)
        trained.put("Deployment", "late", was)
        trained.http("DELETE", trained.path("monitors", "canary"))


# ---- when a step does not go well ----

def test_resume_goes_on_from_the_failed_step(trained):
    trained.ok("apply", "-f", "-", input="""\
apiVersion: dhow/v1
kind: Source
metadata: {name: tardy}
spec: {path: tardy.csv, format: csv}
---
apiVersion: dhow/v1
kind: Dataset
metadata: {name: tardy}
spec: {sources: [tardy], query: "SELECT id, moment FROM tardy", id: id, eventTime: moment}
""")
    text = flights.pipeline("patchy", ("first", "ingest", {"dataset": "flights", "until": UNTIL}),
                            ("second", "ingest", {"dataset": "tardy"}), ("third", "ingest", {"dataset": "tardy"}))
    result, made = run(trained, text)
    assert result.code == 1
    assert "tardy" in made["status"]["message"] and "second" in made["status"]["message"]
    was = steps_of(made)
    assert was["third"]["phase"] == "skipped"
    (trained.sources / "tardy.csv").write_text("id,moment\n1,2001-01-01 00:00:00\n2,2001-01-02 00:00:00\n")
    resumed = trained.cli("resume", made["metadata"]["name"])
    assert resumed.code == 0, resumed.err
    now = steps_of(trained.get("pipelineruns", made["metadata"]["name"]))
    assert all(s["phase"] == "succeeded" for s in now.values())
    assert now["first"] == was["first"], "what had succeeded ran again"
    assert now["second"]["job"] != was["second"]["job"] and now["second"]["outputs"]["version"] == "tardy.1"
    assert now["third"]["outputs"]["version"] == "tardy.1"


def test_a_training_can_be_cancelled(trained):
    text = flights.pipeline("endless", ("train", "train", {**TRAIN, "model": {"trees": {"rounds": 10000, "depth": 8}}}),
                            ("register", "register", {"model": "late", "run": "${steps.train.job}"}))
    trained.ok("apply", "-f", "-", input=text)
    name = trained.ok("run", "endless", "--detach").out.strip()
    eventually(lambda: steps_of(trained.get("pipelineruns", name)).get("train", {}).get("progress", {}).get("done", 0) >= 3, 60,
               what="the third round")
    began = time.monotonic()
    trained.ok("cancel", name)
    ended = trained.wait_over("pipelineruns", name, 30)
    assert time.monotonic() - began < 12
    steps = steps_of(ended)
    assert ended["status"]["phase"] == "cancelled" and steps["train"]["phase"] == "cancelled"
    assert steps["register"]["phase"] == "skipped"
    job = trained.get("jobs", steps["train"]["job"])["status"]
    assert job["phase"] == "cancelled" and job.get("attempts") == 1
    metrics = trained.http("GET", trained.path("jobs", steps["train"]["job"], "metrics")).json()
    assert len(metrics) >= 3, "what was measured until then is kept"


def test_a_run_survives_kill_9_of_the_daemon(trained):
    """While a job trains: the next daemon goes on with the same run and the same job."""
    rounds = {"trees": {"rounds": 60, "depth": 6}}
    text = flights.pipeline("tough", ("train", "train", {**TRAIN, "model": rounds}),
                            ("register", "register", {"model": "late", "run": "${steps.train.job}"}))
    trained.ok("apply", "-f", "-", input=text)
    name = trained.ok("run", "tough", "--detach").out.strip()
    wait_step(trained, name, "train")
    eventually(lambda: steps_of(trained.get("pipelineruns", name)).get("train", {}).get("progress", {}).get("done", 0) >= 2, 60,
               what="the second round")
    trained.kill()
    trained.start()
    ended = trained.wait_over("pipelineruns", name, 120)
    assert ended["status"]["phase"] == "succeeded", ended["status"]
    assert trained.get("jobs", f"{name}-train")["status"]["attempts"] == 1
    assert steps_of(ended)["register"]["outputs"]["version"].startswith("late.")


def test_parameters(trained):
    text = flights.pipeline("told", ("say", "ingest", {"dataset": "flights", "until": "${params.until}"}), until=UNTIL)
    trained.ok("apply", "-f", "-", input=text)
    assert trained.cli("run", "told", "--param", "untill=x").code == 2
    wrong = trained.cli("run", "told", "--param", "until=yesterday-ish")
    assert wrong.code != 0 and "until" in wrong.err
    result = trained.ok("run", "told", "-o", "json")
    assert steps_of(result.json())["say"]["outputs"]["version"] == "flights.1"


def test_a_pipeline_that_cannot_work_says_why(trained):
    unknown = flights.pipeline("odd", ("x", "nonsense", {}))
    result = trained.cli("apply", "-f", "-", input=unknown)
    if result.code == 0:
        result = trained.cli("run", "odd")
    assert result.code != 0 and "nonsense" in result.err
    loop = unknown.replace("name: x", "name: x\n    needs: [y]").replace("nonsense", "ingest")
    assert trained.cli("apply", "-f", "-", input=loop).code == 2
    unfilled = flights.pipeline("odd2", ("x", "ingest", {"dataset": "${params.never}"}))
    result = trained.cli("apply", "-f", "-", input=unfilled)
    if result.code == 0:
        result = trained.cli("run", "odd2")
    assert result.code != 0 and "params.never" in result.err


def test_the_trees_own_kernel_answers_alike(trained):
    """A deployment may run its trees without ONNX Runtime: named, as that is the default, or not at all."""
    def served_by(runtime):
        spec = {**trained.get("deployments", "late")["spec"], "runtime": runtime}
        assert trained.put("Deployment", "late", spec).status_code in (200, 201)
        def told():
            traffic = trained.get("deployments", "late")["status"]["traffic"]
            return [t.get("runtime") for t in traffic if t.get("state") == "ready"] == [runtime.replace("auto", "native")]
        eventually(told, what=f"runtime {runtime}")
        keys = {name: values * 50 for name, values in KEYS.items()}
        keys["distance"] = [100 + 40 * i for i in range(50)]
        return np.array(trained.http("POST", "/v2/models/late/infer", json={"entities": keys}).json()["outputs"][0]["data"])

    onnx, native, auto = (served_by(runtime) for runtime in ("onnx", "native", "auto"))
    assert len(set(onnx)) > 1
    np.testing.assert_allclose(native, onnx, rtol=0, atol=1e-5)
    np.testing.assert_allclose(auto, onnx, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(served_by("onnx"), onnx)


def test_features_are_floats_of_the_same_doubles(trained):
    """What the model is given is the double rounded once, nothing between."""
    reply = trained.http("POST", "/v2/models/late/infer", json={"entities": KEYS, "parameters": {"return_features": True}})
    outputs = {o["name"]: o for o in reply.json()["outputs"]}
    assert outputs["features"]["datatype"] == "FP64"
    mean = outputs["features"]["data"][7]
    assert mean is None or float(np.float64(mean)) == mean
