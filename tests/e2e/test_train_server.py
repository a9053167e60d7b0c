# SPDX-License-Identifier: Apache-2.0
"""Any dataset's version is trained from as files are: images, text, plain tables; tracked, registered, deployed, asked, swept, killed."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import duckdb
import numpy as np
import onnxruntime
import pytest
import yaml
from conftest import DHOW, ROOT, Daemon, daemon_close, eventually
from flights import blob, pipeline, rows_of
from sklearn.datasets import load_breast_cancer, load_digits

SECONDS = 300
CNN = {"cnn": {"channels": [8, 16]}}
GPT = {"gpt": {"layers": 1, "width": 16, "heads": 2}}
IMAGE = [{"name": "image", "kind": "array", "columns": ["image"], "shape": [1, 8, 8]}]
TOKENS = [{"name": "tokens", "kind": "tokens", "columns": ["text"], "length": 32}]


def sources_make(folder):
    """digits.parquet (an image a row), cancer.csv (30 numbers a row, and what names the row), text.txt."""
    digits, cancer = load_digits(), load_breast_cancer()
    names = [n.replace(" ", "_") for n in cancer.feature_names]
    con = duckdb.connect()
    con.execute("create table digits(image float[], digit integer)")
    con.executemany("insert into digits values (?, ?)", [(x.tolist(), int(y)) for x, y in zip(digits.data, digits.target)])
    con.execute(f"copy digits to '{folder}/digits.parquet' (format parquet)")
    head = "patient,seen,known," + ",".join(names) + ",benign\n"
    lines = [",".join([str(9000 - i), f"2001-01-{1 + i // 24:02d} {i % 24:02d}:00:00", f"2001-01-{1 + i // 24:02d} {i % 24:02d}:30:00",
                       *map(str, map(float, x)), str(y)]) for i, (x, y) in enumerate(zip(cancer.data, cancer.target))]
    (folder / "cancer.csv").write_text(head + "\n".join(lines) + "\n")
    (folder / "text.txt").write_text("the quick brown fox\n\njumps over the lazy dog. 'Tis \"so\",\r\nlo!\n" * 150)
    return names


SOURCES = {"digits": ("digits.parquet", "parquet"), "cancer": ("cancer.csv", "csv"), "text": ("text.txt", "text")}
DATASETS = {
    "digits": {"sources": ["digits"], "query": "SELECT image, digit, image::UTINYINT[] AS ink FROM digits"},
    "patients": {"sources": ["cancer"], "query": "SELECT *, patient % 3 AS ward, if(mean_area > 600, 'large', 'small') AS size FROM cancer",
                 "id": "patient"},
    "visits": {"sources": ["cancer"], "query": "SELECT * FROM cancer", "id": "patient", "eventTime": "seen", "knownAt": "known"},
    "lines": {"sources": ["text"], "query": "SELECT line, text FROM text", "id": "line"},
}


def ingest(one, dataset):
    assert one.put("Job", f"ingest-{dataset}", {"type": "ingest", "with": {"dataset": dataset}}).ok
    job = one.wait_over("jobs", f"ingest-{dataset}")
    return job["status"]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    daemon = Daemon(tmp_path_factory.mktemp("served"))
    sources_make(daemon.sources)
    daemon.start()
    for name, (path, format_) in SOURCES.items():
        assert daemon.put("Source", name, {"path": path, "format": format_}).ok
    for name, spec in DATASETS.items():
        assert daemon.put("Dataset", name, spec).ok
        status = ingest(daemon, name)
        assert status["phase"] == "succeeded", status
    yield daemon
    daemon_close(daemon)


def form(one, name, **spec):
    path = one.folder / f"{name}.yaml"
    few = {} if "trees" in spec["model"] else {"epochs": 2}
    path.write_text(yaml.safe_dump({**few, **spec}, sort_keys=False))
    return path


def train(one, name, **spec):
    """A job there, and what it gave."""
    done = one.ok("train", form(one, name, **spec), "-o", "json", seconds=SECONDS).json()
    return done["metadata"]["name"], done["status"]["result"]


def here(one, name, **spec):
    """The same form without a server; its folder."""
    folder = one.folder / f"{name}-here"
    done = subprocess.run([DHOW, "train", form(one, f"{name}-here", **spec), "-q", "--dir", folder], env=one.env(), cwd=one.folder,
                          capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    return folder


def deployed(one, name, job, metric="logLoss"):
    """Registers a job's model, judges it by what the training measured, and deploys it; an ONNX Runtime session of the same file."""
    one.put("Model", name, {})
    one.put("Deployment", name, {"model": name})
    one.ok("apply", "-f", "-", input=pipeline(
        f"ship-{name}", ("register", "register", {"model": name, "run": job}),
        ("gate", "gate", {"model": name, "version": "${steps.register.version}", "metrics": one.get("jobs", job)["status"]["result"]["metrics"],
                          "bounds": [{"metric": metric, "max": 3.5}]}),
        ("deploy", "deploy", {"deployment": name, "version": "${steps.register.version}"})))
    one.ok("run", f"ship-{name}", seconds=SECONDS)
    version = one.get("modelversions", f"{name}.1")
    assert version["status"]["state"] == "passed"
    return version["spec"], onnxruntime.InferenceSession(str(blob(one, version["spec"]["onnx"])))


def ask(one, name, **tensors):
    """What the deployment says of these arrays."""
    types = {"f": "FP32", "i": "INT64", "O": "BYTES"}
    reply = one.http("POST", f"/v2/models/{name}/infer", json={"inputs": [
        {"name": n, "datatype": types[x.dtype.kind], "shape": list(x.shape), "data": x.ravel().tolist()} for n, x in tensors.items()]})
    assert reply.status_code == 200, reply.text
    out, = reply.json()["outputs"]
    return np.array(out["data"]).reshape(out["shape"])


def test_images_are_a_dataset_that_a_cnn_learns_from(one):
    columns = {c["name"]: c for c in one.get("datasetversions", "digits.1")["spec"]["columns"]}
    assert columns["image"]["type"] == "FLOAT[]" and columns["digit"]["type"] == "INTEGER"
    spec = {"label": "digit", "inputs": IMAGE, "model": CNN, "split": {"valid": 0.2, "test": 0.1}, "epochs": 6, "deterministic": True, "optimizer": {"rate": 0.01},
            "resources": {"cpu": 2}}
    job, result = train(one, "digits", rows="digits.1", **spec)
    metrics, facts = json.loads(result["metrics"]), json.loads(result["facts"])
    assert metrics["accuracy"] > 0.9 and facts["trainRows"] + facts["validRows"] + facts["testRows"] == 1797 and facts["testRows"] > 100
    assert json.loads(result["test"])["accuracy"] > 0.9 and one.get("runs", job)["status"]["metrics"]["test.accuracy"] > 0.9
    assert "split" not in facts, "nothing was split by time"

    version, session = deployed(one, "digits", job)
    assert version["signature"]["inputs"] == [{"name": "image", "type": "FP32", "shape": [-1, 1, 8, 8]}]
    assert "DatasetVersion/digits.1" in version["inputs"] and version["metrics"]["accuracy"] == metrics["accuracy"]
    x = np.array(rows_of(one, "digits.1")["image"].tolist()[:50], np.float32).reshape(-1, 1, 8, 8)
    assert np.allclose(ask(one, "digits", image=x), session.run(None, {"image": x})[0], rtol=1e-5, atol=1e-6)

    # The same bits as without a server: the rows, their order and what is held out are the same.
    folder = here(one, "digits", data={"path": str(one.sources / "digits.parquet")}, **spec)
    assert hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest() == version["onnx"]


def test_lines_of_text_are_the_text_that_a_gpt_learns_from(one):
    lines = rows_of(one, "lines.1")
    assert "\n".join(lines["text"]) == (one.sources / "text.txt").read_bytes().decode()
    spec = {"inputs": TOKENS, "model": GPT, "optimizer": {"rate": 0.01}, "batchSize": 16, "deterministic": True, "resources": {"cpu": 2}}
    job, result = train(one, "lines", rows="lines.1", **spec)
    assert json.loads(result["metrics"])["perplexity"] < 20

    version, session = deployed(one, "lines", job)
    folder = here(one, "lines", data={"path": str(one.sources / "text.txt")}, **spec)
    assert hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest() == version["onnx"]
    characters = json.loads(session.get_modelmeta().custom_metadata_map["dhow.vocabulary.tokens"])
    text = (one.sources / "text.txt").read_bytes().decode()[7:7 + 4 * 32]
    x = np.array([characters.index(c) + 1 for c in text], np.int64).reshape(4, 32)
    name = version["signature"]["inputs"][0]["name"]
    assert np.allclose(ask(one, "lines", **{name: x}), session.run(None, {name: x})[0], rtol=1e-4, atol=1e-5)


def test_ids_in_rows_are_a_stream_too(one):
    """A column of whole numbers, and one of lists of them."""
    con = duckdb.connect()
    con.execute(f"""copy (select i, (i * i) % 11 as token, [(i * i) % 11, (i * 3) % 7]::smallint[] as pair from range(3000) t(i))
                    to '{one.sources}/ids.parquet' (format parquet)""")
    assert one.put("Source", "ids", {"path": "ids.parquet"}).ok
    assert one.put("Dataset", "ids", {"sources": ["ids"], "query": "SELECT i, token, pair FROM ids", "id": "i"}).ok
    assert ingest(one, "ids")["phase"] == "succeeded"
    for column, tokens in (("token", 3000), ("pair", 6000)):
        inputs = [{"name": "tokens", "kind": "tokens", "columns": [column], "length": 20}]
        _, result = train(one, f"ids-{column}", rows="ids.1", inputs=inputs, model=GPT, epochs=1)
        facts = json.loads(result["facts"])
        assert facts["trainRows"] == (tokens * 9 // 10 - 1) // 20, facts


def test_a_table_is_learned_from_without_what_names_its_rows(one):
    job, result = train(one, "patients", rows="patients.1", label="benign", model={"mlp": {"hidden": [32]}}, epochs=10)
    names = json.loads(result["signature"])["features"]
    assert len(names) == 31 and "patient" not in names and json.loads(result["metrics"])["auc"] > 0.95
    version, session = deployed(one, "patients", job)
    x = rows_of(one, "patients.1")[names].to_numpy(np.float32)[:100]
    assert np.allclose(ask(one, "patients", features=x), session.run(None, {"features": x})[0], rtol=1e-5, atol=1e-6)
    baseline = json.loads(blob(one, version["baseline"]).read_text())
    assert [c["name"] for c in baseline["features"]] == names, "so that drift can be watched"

    _, result = train(one, "trees", rows="patients.1", label="benign", model={"trees": {"rounds": 20, "depth": 3}})
    assert json.loads(result["signature"])["features"] == names and json.loads(result["metrics"])["auc"] > 0.95


def test_categories_of_a_table_are_embedded(one):
    job, result = train(one, "wards", rows="patients.1", label="benign", model={"mlp": {"hidden": [16]}}, epochs=5,
                        data={"categories": ["ward", "size"]})
    _, session = deployed(one, "wards", job)
    names = json.loads(result["signature"])["features"]
    assert "ward" in names and json.loads(result["signature"])["categories"] == ["size"]
    rows = rows_of(one, "patients.1").head(100)
    given = {"features": rows[names].to_numpy(np.float32), "categories": rows[["size"]].to_numpy(object)}
    assert np.allclose(ask(one, "wards", **given), session.run(None, given)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("model, inputs", [
    ({"resnet": {"depth": 8}}, IMAGE), ({"mobilenet": {}}, IMAGE),
    ({"lstm": {"width": 8}}, [{"name": "rows", "kind": "array", "columns": ["image"], "shape": [8, 8]}]),
    ({"transformer-encoder": {"layers": 1, "width": 16, "heads": 2}}, [{"name": "ink", "kind": "array", "ids": True, "columns": ["ink"]}]),
], ids=lambda v: next(iter(v), "") if isinstance(v, dict) else "")
def test_other_networks_learn_from_lists_too(one, model, inputs):
    _, result = train(one, "few", rows="digits.1", label="digit", inputs=inputs, model=model, steps=5, batchSize=32)
    facts = json.loads(result["facts"])
    assert facts["steps"] == 5 and facts["parityMaxRelative"] < 1e-3


def test_rows_that_do_not_fit_into_memory_are_read_in_windows(one):
    con = duckdb.connect()
    con.execute(f"""copy (select [((i * 7 + k) % 10)::float for k in range(64)] as image, (i % 10)::integer as digit
                    from range(12000) t(i)) to '{one.sources}/many.parquet' (format parquet)""")
    assert one.put("Source", "many", {"path": "many.parquet"}).ok
    assert one.put("Dataset", "many", {"sources": ["many"], "query": "SELECT image, digit FROM many"}).ok
    assert ingest(one, "many")["phase"] == "succeeded"
    _, result = train(one, "many", rows="many.1", label="digit", inputs=IMAGE, model=CNN, data={"memory": "2Mi"}, epochs=2,
                      optimizer={"rate": 0.01})
    assert json.loads(result["metrics"])["accuracy"] > 0.99


def test_a_form_splits_a_dataset_by_time(one):
    spec = {"rows": "visits.1", "label": "benign", "model": {"mlp": {"hidden": [8]}}, "split": {"at": "seen", "known": "known"}}
    _, result = train(one, "visits", holdout="5d", **spec)
    facts = json.loads(result["facts"])
    assert facts["validRows"] == 120 and facts["trainRows"] == 569 - 120 - 1, "one was not known in time"
    assert facts["split"].startswith("2001-01-19T16:00") and facts["until"].startswith("2001-01-24T16:00")
    for wrong, field in (({}, "holdout"), ({"split": {"valid": 0.2}, "holdout": "5d"}, "holdout"),
                         ({"holdout": "5d", "split": {"at": "sen"}}, "split.at"), ({"holdout": "5d", "label": "benin"}, "label")):
        said = one.cli("train", form(one, "wrong", **{**spec, **wrong}))
        assert said.code != 0 and f"with.{field}" in said.err, said.err


def test_what_a_server_cannot_see_is_refused_before_there_is_a_job(one):
    before = len(one.get("jobs")["items"])
    said = one.cli("train", form(one, "local", data={"path": "digits.parquet"}, label="digit", model=CNN))
    assert said.code == 2 and "does not see these files" in said.err and "Dataset" in said.err
    said = one.cli("train", form(one, "local", rows="digits.1", model={"onnx": {"file": "model.onnx"}}))
    assert said.code == 2 and "model.onnx.file" in said.err and "blob" in said.err
    assert one.cli("train", form(one, "local", label="digit", model=CNN)).code == 2
    assert len(one.get("jobs")["items"]) == before


def test_a_model_that_was_registered_is_gone_on_with(one):
    spec = {"label": "digit", "inputs": IMAGE, "split": {"valid": 0.2}}
    job, result = train(one, "first", rows="digits.1", model=CNN, **spec)
    _, more = train(one, "second", rows="digits.1", model={"onnx": {"blob": result["onnx"]}}, **spec)
    assert json.loads(more["metrics"])["logLoss"] < json.loads(result["metrics"])["logLoss"]


def test_a_sweep_there_over_images(one):
    sweep = {"kind": "halving", "factor": 2, "trials": 4, "over": {"optimizer.rate": {"min": 1e-5, "max": 0.03, "scale": "log"}},
             "metric": "accuracy", "atOnce": 2}
    spec = {"rows": "digits.1", "label": "digit", "inputs": IMAGE, "model": CNN, "split": {"valid": 0.2}, "epochs": 4}
    table = one.ok("train", form(one, "swept", sweep=sweep, **spec), "-o", "json", seconds=SECONDS).json()
    assert sorted(t["epochs"] for t in table["trials"]) == [1, 1, 2, 4]
    best = table["trials"][table["best"] - 1]
    deployed(one, "swept", best["run"])

    over = {"optimizer.rate": [0.1]}
    for wrong, field in (({"label": "digits"}, "label"), ({"holdout": "1d"}, "holdout"), ({"rows": "digits.9"}, "rows"),
                         ({"data": {"path": "x.parquet"}}, "data")):
        reply = one.put("Sweep", "wrong", {"with": {**spec, **wrong}, "over": over})
        assert reply.status_code == 400 and reply.json()["field"] == f"spec.with.{field}", reply.text
    # What a trial sets counts, not what the form alone says.
    reply = one.put("Sweep", "wrong", {"with": spec, "over": {"label": ["digit", "image2"]}, "kind": "grid"})
    assert reply.status_code == 400 and reply.json()["field"] == "spec.with.label", reply.text


def test_a_pipeline_goes_from_files_to_answers(one):
    one.put("Model", "seen", {})
    one.put("Deployment", "seen", {"model": "seen"})
    one.ok("apply", "-f", "-", input=pipeline(
        "seen", ("ingest", "ingest", {"dataset": "digits"}),
        ("train", "train", {"rows": "${steps.ingest.version}", "label": "digit", "inputs": IMAGE, "model": CNN,
                            "epochs": 6, "optimizer": {"rate": 0.01}}),
        ("register", "register", {"model": "seen", "run": "${steps.train.job}"}),
        ("gate", "gate", {"model": "seen", "version": "${steps.register.version}", "metrics": "${steps.train.metrics}",
                          "bounds": [{"metric": "accuracy", "min": 0.8}]}),
        ("deploy", "deploy", {"deployment": "seen", "version": "${steps.register.version}"})))
    one.ok("run", "seen", seconds=SECONDS)
    rows = rows_of(one, "digits.1")
    x = np.array(rows["image"].tolist()[:100], np.float32).reshape(-1, 1, 8, 8)
    assert (ask(one, "seen", image=x).argmax(1) == rows["digit"][:100]).mean() > 0.8


def worker_of(one, job):
    folder = f"/jobs/{one.get('jobs', job)['metadata']['id']}-"
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = place.read_bytes().decode(errors="replace").split("\0")
        except OSError:  # gone meanwhile
            continue
        if len(words) > 3 and words[1:3] == ["worker", "--dir"] and str(one.data) in words[3] and folder in words[3]:
            return int(place.parent.name)
    return None


def test_killed_in_the_middle_it_goes_on(one):
    """The daemon, then the worker itself: the end has the bits of a training that nobody disturbed."""
    spec = {"rows": "digits.1", "label": "digit", "inputs": IMAGE, "model": {"cnn": {"channels": [8, 16], "dropout": 0.1}},
            "split": {"valid": 0.2}, "epochs": 30, "deterministic": True}
    for job in ("calm", "stormy"):
        assert one.put("Job", job, {"type": "train", "with": spec, "cpu": 1, "retries": 2}).ok
        if job == "stormy":
            folder = one.data / "jobs" / f"{one.get('jobs', job)['metadata']['id']}-1"
            eventually(lambda: list(folder.glob("checkpoints/step-*")), 60, 0.01, "a checkpoint")
            one.kill()
            one.start()
            os.kill(worker_of(one, job), signal.SIGKILL)
        one.wait_over("jobs", job, SECONDS)
    calm, stormy = (one.get("jobs", j)["status"] for j in ("calm", "stormy"))
    assert calm["phase"] == stormy["phase"] == "succeeded" and (calm["attempts"], stormy["attempts"]) == (1, 2)
    assert calm["result"]["onnx"] == stormy["result"]["onnx"]


def test_what_a_job_left_is_fetched(one):
    job, result = train(one, "profiled", rows="digits.1", label="digit", inputs=IMAGE, model=CNN, epochs=1, profile=True)
    one.ok("output", job, "profile", "-f", "profile.json")
    trace = json.loads((one.folder / "profile.json").read_text())
    assert "Conv" in {e["cat"] for e in trace["traceEvents"]}
    assert json.loads(one.ok("output", job, "profile").out) == trace
    onnx = one.http("GET", one.path("jobs", job, "outputs/onnx"))
    assert hashlib.sha256(onnx.content).hexdigest() == result["onnx"]
    for name in ("native", "metrics", "rows", "spec.json", "out.log"):
        reply = one.http("GET", one.path("jobs", job, f"outputs/{name}"))
        assert reply.status_code == 404, f"{name}: {reply.text}"
    said = one.cli("output", job, "native")
    assert said.code == 1 and "it left onnx, baseline, profile" in said.err, said.err
    viewer = one.make_token(["viewer"], name="onlooker")["token"]
    assert one.http("GET", one.path("jobs", job, "outputs/onnx"), token=viewer).status_code == 403


def test_a_table_of_things_is_no_table_of_events(one):
    def refused(kind, name, spec, text, job=None):
        reply = one.put(kind, name, spec)
        message = reply.text if not reply.ok else ingest(one, name)["reason"] if kind == "Dataset" else one.wait_over("jobs", name)["status"]["reason"]
        assert text in message, message
    refused("Job", "ended", {"type": "ingest", "with": {"dataset": "digits", "until": "2001-01-01"}}, "has no eventTime")
    refused("Dataset", "nested", {"sources": ["digits"], "query": "SELECT [image] AS images FROM digits"}, "list of numbers")
    refused("Dataset", "odd", {"sources": ["digits"], "query": "SELECT * FROM digits", "knownAt": "digit"}, "spec.eventTime")
    refused("Dataset", "key", {"sources": ["digits"], "query": "SELECT image FROM digits", "id": "image"}, "not a single value")
    assert one.put("Entity", "thing", {"keys": ["digit"]}, plural="entities").ok
    reply = one.put("FeatureView", "things", {"dataset": "digits", "entity": "thing", "windows": ["1h"],
                                              "aggregates": [{"name": "n", "function": "count"}]})
    if reply.ok:
        one.put("FeatureService", "things", {"views": ["things"]})
        one.put("Job", "things", {"type": "materialize", "with": {"service": "things", "version": "digits.1"}})
        assert "no events" in one.wait_over("jobs", "things")["status"]["reason"]
    else:
        assert "no events" in reply.text


def test_what_the_guide_says_of_datasets_works(one):
    guide = (ROOT / "docs" / "guides" / "training.md").read_text()
    made, form_, steps = (b for b in re.findall(r"^```yaml\n(.*?)^```$", guide, re.S | re.M) if "scans" in b)
    shutil.copy(one.sources / "digits.parquet", one.sources / "scans.parquet")
    one.ok("apply", "-f", "-", input=made)
    assert one.wait_over("jobs", "scans-in")["status"]["result"]["version"] == "scans.1"
    train(one, "scans", **{**yaml.safe_load(form_), "epochs": 1})
    one.put("Model", "scans", {})
    one.put("Deployment", "scans", {"model": "scans"})
    one.ok("apply", "-f", "-", input=yaml.safe_dump({"apiVersion": "dhow/v1", "kind": "Pipeline", "metadata": {"name": "scans"},
                                                     "spec": yaml.safe_load(steps)}))
    one.ok("run", "scans", seconds=SECONDS)
    one.ok("output", "scans-1", "onnx", "--step", "train", "-f", "scans.onnx")
    onnxruntime.InferenceSession(str(one.folder / "scans.onnx"))
