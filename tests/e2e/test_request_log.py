# SPDX-License-Identifier: Apache-2.0
"""Predictions over HTTP, then what DuckDB reads in the request log and Prometheus' own parsers in /metrics."""

import json
import re
import resource
import struct
import subprocess
import time

import duckdb
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families as families

from conftest import eventually

INFER = "/v2/models/{}/infer"
TRACE = "0af7651916cd43dd8448eb211c80319c"
SECRET = 1234.5678


def model_of(inputs, outputs, nodes, features=None, personal=None):
    value = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "small", [value(*i) for i in inputs], [value(*o) for o in outputs])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    for key, names in (("dhow.features", features), ("dhow.personal", personal)):
        if names:
            entry = made.metadata_props.add()
            entry.key, entry.value = key, json.dumps(names)
    onnx.checker.check_model(made)
    return made


def rows_model(**more):
    """y = |a| + |b| + |c|."""
    return model_of([("x", TensorProto.FLOAT, ["N", 3])], [("y", TensorProto.FLOAT, ["N", 1])],
                    [helper.make_node("ReduceL1", ["x"], ["y"], axes=[1], keepdims=1)], **more)


def mixed_model():
    """Tensors of several types and forms go through."""
    return model_of([("words", TensorProto.STRING, ["N", 2]), ("whole", TensorProto.INT64, ["N"]),
                     ("half", TensorProto.FLOAT16, ["N", 2])],
                    [("words_out", TensorProto.STRING, ["N", 2]), ("whole_out", TensorProto.INT64, ["N"]),
                     ("half_out", TensorProto.FLOAT, ["N", 2])],
                    [helper.make_node("Identity", ["words"], ["words_out"]),
                     helper.make_node("Identity", ["whole"], ["whole_out"]),
                     helper.make_node("Cast", ["half"], ["half_out"], to=TensorProto.FLOAT)])


def serve(daemon, name, model, log):
    assert daemon.put("Model", name, {}).ok
    reply = daemon.http("POST", daemon.path("models", name, "upload"), data=model.SerializeToString(),
                        headers={"Content-Type": "application/octet-stream"})
    assert reply.status_code == 201, reply.text
    reply = daemon.put("Deployment", name, {"model": name, "version": reply.json()["version"], "requestLog": log})
    assert reply.ok, reply.text
    eventually(lambda: daemon.http("GET", f"/v2/models/{name}/ready").status_code == 200, 15, what="the deployment")


def ask(daemon, name, x, headers=None, **more):
    x = np.asarray(x, dtype=np.float32)
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": list(x.shape), "data": x.ravel().tolist()}], **more}
    reply = daemon.http("POST", INFER.format(name), json=body, headers=headers)
    assert reply.status_code == 200, reply.text
    return reply


def versions(daemon, dataset):
    reply = daemon.http("GET", daemon.path("datasets", dataset))
    return reply.json()["status"].get("versions", 0) if reply.ok else 0


def table(daemon, dataset, tmp_path, select="*", order="time"):
    """All versions of the log, as DuckDB of our own reads their files; and the files' bytes."""
    paths, text = [], b""
    for n in range(1, versions(daemon, dataset) + 1):
        reply = daemon.http("GET", daemon.path("datasetversions", f"{dataset}.{n}", "files/0"))
        assert reply.status_code == 200, reply.text
        paths.append(tmp_path / f"{dataset}.{n}.parquet")
        paths[-1].write_bytes(reply.content)
        text += reply.content
    names = ", ".join(f"'{p}'" for p in paths)
    return duckdb.sql(f"SELECT {select} FROM read_parquet([{names}]) ORDER BY {order}").df(), text


def rotated(daemon, dataset, least=1):
    eventually(lambda: versions(daemon, dataset) >= least, 20, what="a version of the log")


def test_rows_say_what_was_sent_and_answered(daemon, tmp_path):
    serve(daemon, "plain", rows_model(features=["a", "b", "TIME"]), {"share": 1, "rotateEvery": "1s"})
    rng = np.random.default_rng(7)
    x = rng.standard_normal((50, 3)).astype(np.float32)
    x[3, 1] = 3.4e38
    answers = []
    for i, row in enumerate(x):
        reply = ask(daemon, "plain", [row], headers={"X-Request-Id": f"req-{i}"}, id=f"id-{i}", ids=[f"row-{i}"])
        answers.append(reply.json()["outputs"][0]["data"][0])
    batch = ask(daemon, "plain", x[:5], ids=[f"batch-{i}" for i in range(5)]).json()["outputs"][0]["data"]

    def whole():
        rotated(daemon, "plain-requests")
        rows, _ = table(daemon, "plain-requests", tmp_path)
        return [rows] if len(rows) >= 55 else None
    rows, = eventually(whole, 20, 0.3, "all rows")
    assert len(rows) == 55 and rows["request"].is_unique
    ones = rows[rows["id"].notna()]
    assert ones["id"].tolist() == [f"id-{i}" for i in range(50)]
    assert ones["request_id"].tolist() == [f"req-{i}" for i in range(50)]
    assert ones["row_id"].tolist() == [f"row-{i}" for i in range(50)]
    assert np.array_equal(ones[["a", "b", "TIME_2"]].to_numpy(dtype=np.float32), x), "bit for bit"
    assert np.array_equal(ones["y"].to_numpy(dtype=np.float32), np.array(answers, dtype=np.float32))
    more = rows[rows["id"].isna()].set_index("row_id").loc[[f"batch-{i}" for i in range(5)]]
    assert np.array_equal(more["y"].to_numpy(dtype=np.float32), np.array(batch, dtype=np.float32))
    assert set(rows["version"]) == {"plain.1"} and set(rows["deployment"]) == {"plain"} and rows["error"].isna().all()
    secret = daemon.token
    assert rows["token"].notna().all() and not rows["token"].str.contains(secret.split("_")[-1]).any()
    spent = rows["input_us"] + rows["queue_us"] + rows["infer_us"] + rows["output_us"]
    assert np.allclose(spent, rows["took_us"], rtol=1e-6, atol=0.01)


def test_the_log_is_an_ordinary_dataset(daemon, tmp_path):
    serve(daemon, "lined", rows_model(), {"share": 1, "rotateEvery": "1s", "dataset": "asked"})
    ask(daemon, "lined", [[1, 2, 3]])
    rotated(daemon, "asked")
    version = daemon.get("datasetversions", "asked.1")["spec"]
    roles = {c["name"]: c.get("role") for c in version["columns"]}
    assert roles["request"] == "id" and roles["time"] == "eventTime" and roles["f0"] == "feature"
    lines = daemon.http("GET", daemon.path("lineage") + "?ref=DatasetVersion/asked.1").json()["up"]
    assert {"Deployment/lined", "ModelVersion/lined.1"} <= {line["input"] for line in lines}
    assert "asked.1" in daemon.ok("get", "datasetversions").out
    refused = daemon.put("Dataset", "half", {"query": "SELECT 1", "id": "a", "eventTime": "b"})
    assert refused.status_code == 400 and "spec.sources" in refused.text


def test_tensors_of_every_form_become_lists(daemon, tmp_path):
    serve(daemon, "mixed", mixed_model(), {"share": 1, "rotateEvery": "1s"})
    words, whole = ["a \"b\" \\ \u00e9\n", "", "x", "\u65e5\u672c"], [2**62, -1]
    body = {"inputs": [{"name": "words", "datatype": "BYTES", "shape": [2, 2], "data": words},
                       {"name": "whole", "datatype": "INT64", "shape": [2], "data": whole},
                       {"name": "half", "datatype": "FP16", "shape": [2, 2], "data": [1.5, -0.25, 0, 6.0e-8]}]}
    reply = daemon.http("POST", INFER.format("mixed"), json=body)
    if reply.status_code != 200:
        pytest.skip(f"the protocol does not take these types yet: {reply.text[:100]}")
    rotated(daemon, "mixed-requests")
    rows, _ = table(daemon, "mixed-requests", tmp_path, order="time, request")
    assert [list(w) for w in rows["words"]] == [words[:2], words[2:]]
    assert [list(w) for w in rows["words_out"]] == [words[:2], words[2:]]
    assert rows["whole"].tolist() == whole and rows["whole_out"].tolist() == whole
    assert np.array_equal(np.stack(rows["half"].to_numpy()), np.array([[1.5, -0.25], [0, np.float16(6.0e-8)]], dtype=np.float32))


@pytest.mark.parametrize("redact", ["null", "hash"])
def test_personal_values_reach_no_file(daemon, tmp_path, redact):
    """By the version's signature (a), and by the deployment (y): nothing of them is in any byte below the data folder."""
    name, dataset = f"shy-{redact}", f"shy-{redact}-requests"
    serve(daemon, name, rows_model(features=["a", "b", "c"], personal=["a"]),
          {"share": 1, "rotateEvery": "2s", "redact": redact, "personal": ["y"]})
    for b in (1, 1, 2):
        ask(daemon, name, [[SECRET, b, 2]])
    folder = daemon.data / "requests"
    eventually(lambda: any(p.read_bytes() for p in folder.glob("*.open/rows.jsonl")), 5, what="rows on the disk")
    spilled = b"".join(p.read_bytes() for p in folder.glob("*/rows.jsonl"))
    rotated(daemon, dataset)
    rows, text = table(daemon, dataset, tmp_path)
    if redact == "null":
        assert rows["a"].isna().all() and rows["y"].isna().all()
    else:
        assert rows["a"].str.fullmatch("[0-9a-f]{32}").all() and rows["a"].nunique() == 1
        assert rows["y"].nunique() == 2, "different answers have different hashes"
    assert rows["b"].tolist() == [1, 1, 2]
    kept = spilled + text + b"".join(p.read_bytes() for p in daemon.data.rglob("*") if p.is_file() and p.stat().st_size < 1 << 24)
    for form in (str(SECRET).encode(), b"1234.56", struct.pack("<f", SECRET), struct.pack("<d", np.float32(SECRET))):
        assert form not in kept, form


def test_kill_9_loses_no_row_that_was_on_the_disk(fresh, tmp_path):
    one = fresh()
    serve(one, "tough", rows_model(), {"share": 1, "rotateEvery": "1h"})
    for i in range(200):
        ask(one, "tough", [[i, 0, 0]], id=f"id-{i}")
    folder = one.data / "requests"
    eventually(lambda: sum(p.read_bytes().count(b"\n") for p in folder.glob("*/rows.jsonl")) >= 200, 2, what="rows on the disk")
    one.kill()
    spill = next(folder.glob("*.open/rows.jsonl"))
    with open(spill, "ab") as f:
        f.write(b'{"c0":"half a ro')
    one.start()
    rotated(one, "tough-requests")
    rows, _ = table(one, "tough-requests", tmp_path)
    assert rows["id"].tolist() == [f"id-{i}" for i in range(200)] and rows["f0"].tolist() == list(range(200))
    assert eventually(lambda: not [p for p in folder.iterdir() if p.is_dir()], what="an empty folder of spills")


SLOW_SYNC = """
#include <unistd.h>
int fsync(int fd) { (void)fd; sleep(1); return 0; }
int fdatasync(int fd) { return fsync(fd); }
"""


def test_rows_wait_for_no_sync(fresh, tmp_path):
    """On a disk that is busy a sync takes long: rows are where kill -9 leaves them within their twentieth of a second, in each
    new file of them."""
    (tmp_path / "slow.c").write_text(SLOW_SYNC)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "slow.so", tmp_path / "slow.c"], check=True)
    one = fresh()
    serve(one, "quick", rows_model(), {"share": 1, "rotateEvery": "1s"})
    one.stop()
    one.extra_env["LD_PRELOAD"] = str(tmp_path / "slow.so")
    one.start(60)
    eventually(lambda: one.http("GET", "/v2/models/quick/ready").status_code == 200, 20, what="the deployment")
    folder = one.data / "requests"
    for i in range(3):
        ask(one, "quick", [[i, 0, 0]], id=f"id-{i}")
        eventually(lambda i=i: any(f'"id-{i}"' in p.read_text() for p in folder.glob("*/rows.jsonl")), 0.6, 0.01, f"row {i} on the disk")
        time.sleep(1.2)  # another file


def test_a_full_disk_stops_the_log_and_not_the_answers(fresh, tmp_path):
    """A limit on the size of files stands for the disk: it is the rows' file alone that reaches it."""
    one = fresh()
    serve(one, "full", rows_model(), {"share": 1, "rotateEvery": "1h"})
    resource.prlimit(one.pid, resource.RLIMIT_FSIZE, (4 << 20, resource.RLIM_INFINITY))
    x = np.ones((1000, 3))
    eventually(lambda: ask(one, "full", x) and "request-log.stopped" in one.log_text(), 60, 0, "an error")
    for _ in range(20):
        ask(one, "full", [[1, 2, 3]])
    said = [line for line in one.log_text().splitlines() if "request-log.stopped" in line]
    assert len(said) == 1 and "No space left on device" in said[0] and "requests/" in said[0]
    plain = {s.name: s.value for f in families(one.http("GET", "/metrics").text) for s in f.samples if label(s, deployment="full")}
    assert plain["dhow_inference_failures_total"] == 0 and plain["dhow_inference_unlogged_total"] > 0
    rotated(one, "full-requests")
    # What was taken before the disk was full waits, and is written when there is room again, here at the end.
    resource.prlimit(one.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    one.stop()
    one.start()
    rotated(one, "full-requests", 2)
    rows, _ = table(one, "full-requests", tmp_path, "count(*) AS n, count(y) AS whole", "1")
    assert rows["n"][0] == rows["whole"][0] == 1000 * plain["dhow_inference_logged_total"]


def label(sample, **wanted):
    return all(sample.labels.get(k) == v for k, v in wanted.items())


def test_both_forms_of_metrics_are_read_by_prometheus_own_parsers(daemon):
    serve(daemon, "counted", rows_model(), {"share": 1, "rotateEvery": "1h"})
    for _ in range(3):
        ask(daemon, "counted", [[1, 2, 3], [4, 5, 6]], headers={"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"})
    bad = daemon.http("POST", INFER.format("counted"), json={"inputs": [{"name": "z", "datatype": "FP32", "shape": [1], "data": [1]}]})
    assert bad.status_code == 400
    plain, opened = daemon.http("GET", "/metrics"), daemon.http("GET", "/metrics", headers={
        "Accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"})
    assert plain.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert opened.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert opened.text.endswith("# EOF\n") and "trace_id" not in plain.text
    figures = {}
    for form in (list(families(plain.text)), list(open_families(opened.text))):
        found = {s.name.removesuffix("_total") + "".join(s.labels.get(k, "") for k in ("reason",)): s.value for f in form for s in f.samples
                 if label(s, model="counted", version="1") and "quantile" not in s.labels}
        assert found["nv_inference_request_success"] == 3 and found["nv_inference_request_failureOTHER"] == 1
        assert found["nv_inference_request_failureREJECTED"] == 0
        assert found["nv_inference_count"] == 6 and found["nv_inference_exec_count"] == 3
        assert found["nv_inference_pending_request_count"] == 0 and found["nv_cache_num_hits_per_model"] == 0
        spent = sum(found[f"nv_inference_{p}_duration_us"] for p in ("queue", "compute_input", "compute_infer", "compute_output"))
        assert abs(spent - found["nv_inference_request_duration_us"]) <= 4
        ours = {s.name: s.value for f in form for s in f.samples if label(s, deployment="counted") and "le" not in s.labels}
        assert ours["dhow_inference_requests_total"] == 4 and ours["dhow_inference_refused_total"] == 1
        assert ours["dhow_inference_in_flight"] == 0 and ours["dhow_inference_logged_total"] == 4
        for phase in ("", "queue_", "input_", "compute_", "output_"):
            assert ours[f"dhow_inference_{phase}seconds_count"] == 3
        quantiles = {s.labels["quantile"]: s.value for f in form for s in f.samples
                     if s.name == "nv_inference_request_summary_us" and label(s, model="counted") and "quantile" in s.labels}
        assert set(quantiles) == {"0.5", "0.9", "0.95", "0.99", "0.999"}
        assert 0 < quantiles["0.5"] <= quantiles["0.999"]
        machine = {s.name: s.value for f in form for s in f.samples if s.name.startswith("nv_cpu_")}
        assert 0 <= machine["nv_cpu_utilization"] <= 1
        assert 0 < machine["nv_cpu_memory_used_bytes"] < machine["nv_cpu_memory_total_bytes"]
        figures[len(figures)] = form
    traced = [s.exemplar for f in figures[1] for s in f.samples if s.exemplar]
    assert any(e.labels["trace_id"] == TRACE and e.value > 0 for e in traced)


def test_a_trace_goes_on_in_the_answer_and_in_the_log(daemon, tmp_path):
    serve(daemon, "traced", rows_model(), {"share": 1, "rotateEvery": "1s"})
    sent = f"00-{TRACE}-b7ad6b7169203331-01"
    reply = ask(daemon, "traced", [[1, 2, 3]], headers={"traceparent": sent, "tracestate": "a=1"}, id="with")
    back = reply.headers["traceparent"]
    assert re.fullmatch(f"00-{TRACE}-[0-9a-f]{{16}}-01", back) and back != sent
    for broken in ("00-" + "0" * 32 + "-b7ad6b7169203331-01", sent.upper(), sent + "-x"):
        assert "traceparent" not in ask(daemon, "traced", [[1, 2, 3]], headers={"traceparent": broken}, id="without").headers
    rotated(daemon, "traced-requests")
    rows, _ = table(daemon, "traced-requests", tmp_path)
    assert set(rows[rows["id"] == "with"]["trace"]) == {TRACE}
    assert rows[rows["id"] == "without"]["trace"].isna().all()


def test_a_balancer_is_told_of_the_load_when_it_asks(daemon):
    serve(daemon, "loaded", rows_model(), {"share": 0})
    text = ask(daemon, "loaded", [[1, 2, 3]], headers={"endpoint-load-metrics-format": "text"}).headers["endpoint-load-metrics"]
    pairs = dict(pair.split("=") for pair in text.removeprefix("TEXT ").split(", "))
    assert text.startswith("TEXT ") and 0 <= float(pairs["cpu_utilization"]) <= 1 and "named_metrics.in_flight" in pairs
    said = ask(daemon, "loaded", [[1, 2, 3]], headers={"endpoint-load-metrics-format": "json"}).headers["endpoint-load-metrics"]
    told = json.loads(said.removeprefix("JSON "))
    assert said.startswith("JSON ") and 0 < told["mem_utilization"] < 1 and told["rps_fractional"] >= 0
    assert "endpoint-load-metrics" not in ask(daemon, "loaded", [[1, 2, 3]]).headers
    assert "endpoint-load-metrics" not in ask(daemon, "loaded", [[1, 2, 3]], headers={"endpoint-load-metrics-format": "x"}).headers
