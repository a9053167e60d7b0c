# SPDX-License-Identifier: Apache-2.0
"""Trees by the same form as networks: what they learn beside XGBoost's own Python, what they say beside scikit-learn, what they refuse."""

import json

import duckdb
import numpy as np
import onnx
import onnxruntime
import pandas
import pytest
import sklearn.metrics as sk
import xgboost
from conftest import Daemon, daemon_close, eventually
from test_train_server import ask, deployed, ingest
from test_train_server import train as served_job
from training import Bench, result

COLUMNS = 8
ROUNDS = 12
PARTS = {"learn": 1500, "held": 500, "last": 400}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """learn, held and last (.parquet): x0 …, of which some are missing; two classes, three, the same as texts, a number; weights."""
    folder, r = tmp_path_factory.mktemp("trees"), np.random.default_rng(7)
    n = sum(PARTS.values())
    x = r.normal(size=(n, COLUMNS)).astype(np.float32)
    score = x[:, 0] + np.where(x[:, 1] > 0.3, x[:, 2], -x[:, 3]) + 0.3 * r.normal(size=n)
    x[r.random(x.shape) < 0.05] = np.nan
    query = np.arange(n) % (n // 8)  # the rows of one are far from each other
    rows = {"query": query, "grade": np.clip(np.round(score + 1), 0, 4), "two": (score > 0.5).astype(int), "three": np.digitize(score, [-0.5, 1]), "z": score * 3 + 100, "w": r.integers(1, 5, n).astype(float)}
    rows["word"] = np.array(["low", "mid", "top"])[rows["three"]]
    got = {"folder": folder}
    con, at = duckdb.connect(), 0
    for part, count in PARTS.items():
        cut = slice(at, at + count)
        got[part] = {"x": x[cut], **{k: v[cut] for k, v in rows.items()}}
        frame = {f"x{i}": x[cut, i] for i in range(COLUMNS)} | {k: v[cut] for k, v in rows.items()}
        con.register("frame", pandas.DataFrame(frame))
        con.execute(f"copy (select * from frame) to '{folder}/{part}.parquet' (format parquet)")
        at += count
    return got


@pytest.fixture
def bench(table):
    return Bench(table["folder"])


def form(label, trees=None, test=False, **more):
    files = [{"path": "learn.parquet"}, {"path": "held.parquet", "part": "valid"}] + [{"path": "last.parquet", "part": "test"}] * test
    return {"data": {"files": files}, "split": {"valid": 0}, "label": label, "inputs": [{"name": "features", "columns": [f"x{i}" for i in range(COLUMNS)]}],
            "model": {"trees": {"rounds": ROUNDS, "depth": 4, "learningRate": 0.3, **(trees or {})}}, **more}


def train(bench, name, spec, *args):
    out, err = bench.train(bench.form(name, **spec), "-o", "json", *args)
    run = result(out)
    bytes_ = (bench.folder / run["model"]).read_bytes()
    onnx.checker.check_model(onnx.load_from_string(bytes_), full_check=True)
    session = onnxruntime.InferenceSession(bytes_)
    return run, lambda x: session.run(None, {"features": x})[0], err


def peer(table, label, objective, base, weight=None, **more):
    """XGBoost's own Python on the same rows, with the same words."""
    learn = table["learn"]
    data = xgboost.QuantileDMatrix(learn["x"], learn[label])
    if weight is not None:
        data.set_weight(weight)  # bins go by the numbers alone, as many rows to each
    words = {"objective": objective, "max_depth": 4, "eta": 0.3, "base_score": base, "seed": 1, "nthread": 2, **more}
    return xgboost.train(words, data, ROUNDS)


def balanced(y):
    return (len(y) / (len(np.unique(y)) * np.bincount(y)))[y]


def weighted_median(y, w):
    order = np.argsort(y, kind="stable")
    return float(y[order][np.searchsorted(np.cumsum(w[order]), w.sum() / 2)])


# ---- the same trees as XGBoost's own ----

GOALS = {
    "two": ({"label": "two"}, "binary:logistic", lambda t, w: float(np.average(t["two"], weights=w)), None),
    "weight": ({"label": "two", "weight": "w"}, "binary:logistic", lambda t, w: float(np.average(t["two"], weights=w)), lambda t: t["w"]),
    "balanced": ({"label": "two", "classWeights": "balanced"}, "binary:logistic", lambda t, w: 0.5, lambda t: balanced(t["two"])),
    "list": ({"label": "two", "classWeights": [2, 0.5], "weight": "w"}, "binary:logistic",
             lambda t, w: float(np.average(t["two"], weights=w)), lambda t: t["w"] * np.array([2, 0.5])[t["two"]]),
    "three": ({"label": "three"}, "multi:softprob", lambda t, w: 0, None),
    "words": ({"label": "word", "classWeights": [1, 2, 3]}, "multi:softprob", lambda t, w: 0, lambda t: np.array([1, 2, 3])[t["three"]]),
    "mse": ({"label": "z", "task": "regression"}, "reg:squarederror", lambda t, w: float(np.average(t["z"], weights=w)), None),
    "mae": ({"label": "z", "loss": "mae", "weight": "w"}, "reg:absoluteerror", lambda t, w: weighted_median(t["z"], w), lambda t: t["w"]),
    "huber": ({"label": "z", "loss": "huber", "lossWith": {"delta": 2.5}}, "reg:pseudohubererror",
              lambda t, w: weighted_median(t["z"], np.ones(len(t["z"]))), None),
}


@pytest.mark.parametrize("name", GOALS)
def test_the_trees_are_those_of_xgboost(bench, table, name):
    said, objective, base, weight = GOALS[name]
    learn, held = table["learn"], table["held"]
    w = weight(learn) if weight else None
    run, predict, _ = train(bench, f"goal-{name}", form(**said))
    label = "three" if name == "words" else said["label"]
    more = {"multi:softprob": {"num_class": 3}, "reg:pseudohubererror": {"huber_slope": 2.5}}
    theirs = peer(table, label, objective, base(learn, w), w, **more.get(objective, {}))
    want = theirs.predict(xgboost.DMatrix(held["x"])).reshape(len(held["x"]), -1)
    best = run["facts"]["bestRound"]
    if best < ROUNDS:
        want = theirs.predict(xgboost.DMatrix(held["x"]), iteration_range=(0, best)).reshape(len(held["x"]), -1)
    got = predict(held["x"])
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= 1e-5 * max(1, np.abs(want).max())
    assert run["signature"]["outputs"] == [{"name": "value" if objective.startswith("reg") else "probability", "type": "FP32",
                                            "shape": [-1, want.shape[1]]}]
    assert json.loads((bench.folder / run["dir"] / "baseline.json").read_text())["score"]["n"] == PARTS["learn"]
    if name == "words":
        metadata = {p.key: p.value for p in onnx.load(bench.folder / run["model"]).metadata_props}
        assert json.loads(metadata["dhow.classes"]) == ["low", "mid", "top"]


def test_rankings_are_those_of_xgboost(bench, table):
    """Groups that lie anywhere in the file are put together; relevance may be any number."""
    learn, held = table["learn"], table["held"]
    run, predict, _ = train(bench, "rank", form("grade", loss="pairwise", split={"group": "query", "valid": 0}, metrics=["ndcg"]))
    order = np.argsort(learn["query"], kind="stable")
    data = xgboost.QuantileDMatrix(learn["x"][order], learn["grade"][order], qid=learn["query"][order])
    theirs = xgboost.train({"objective": "rank:pairwise", "max_depth": 4, "eta": 0.3, "base_score": 0, "seed": 1}, data, run["facts"]["bestRound"])
    got, want = predict(held["x"])[:, 0], theirs.predict(xgboost.DMatrix(held["x"]))
    assert np.corrcoef(got, want)[0, 1] > 0.995
    same = held["query"][:, None] == held["query"]
    better = same & (held["grade"][:, None] > held["grade"])
    assert run["metrics"]["pairAccuracy"] == pytest.approx((got[:, None] > got)[better].mean(), abs=0.01) and run["metrics"]["pairAccuracy"] > 0.7
    assert run["metrics"]["ndcg"] > 0.8 and run["signature"]["outputs"][0]["name"] == "value"


# ---- the same measures as networks ----

def test_measures_are_those_of_networks_and_of_scikit_learn(bench, table):
    held = table["held"]
    cases = {
        "two": (["f1", "recall", "precision"], lambda y, p: {
            "auc": sk.roc_auc_score(y, p[:, 0]), "logLoss": sk.log_loss(y, p[:, 0].astype(float)), "averagePrecision": sk.average_precision_score(y, p[:, 0]),
            "f1": sk.f1_score(y, p[:, 0] >= 0.5), "recall": sk.recall_score(y, p[:, 0] >= 0.5), "precision": sk.precision_score(y, p[:, 0] >= 0.5),
            "accuracy": sk.accuracy_score(y, p[:, 0] >= 0.5)}),
        "three": (["recall"], lambda y, p: {
            "logLoss": sk.log_loss(y, p.astype(float) / p.sum(1, dtype=float, keepdims=True)), "accuracy": sk.accuracy_score(y, p.argmax(1)), "f1": sk.f1_score(y, p.argmax(1), average="macro"),
            "recall": sk.recall_score(y, p.argmax(1), average="macro")}),
        "z": ([], lambda y, p: {"rmse": sk.root_mean_squared_error(y, p[:, 0]), "mae": sk.mean_absolute_error(y, p[:, 0]), "r2": sk.r2_score(y, p[:, 0])}),
    }
    for label, (asked, want) in cases.items():
        more = {"metrics": asked, **({"task": "regression"} if label == "z" else {})}
        run, predict, _ = train(bench, f"measures-{label}", form(label, **more))
        for name, value in want(held[label], predict(held["x"])).items():
            assert run["metrics"][name] == pytest.approx(value, abs=2e-5), (label, name)
        net = form(label, **more, epochs=1)
        net["model"] = {"mlp": {"hidden": [8]}}
        network = result(bench.train(bench.form(f"net-{label}", **net), "-o", "json")[0])
        assert set(network["metrics"]) <= set(run["metrics"]), label
        assert set(run["metrics"]) - set(network["metrics"]) <= {"trainLogLoss"}, label


def test_rows_of_the_test_are_measured_at_the_end(bench, table):
    last = table["last"]
    run, predict, _ = train(bench, "test", form("three", test=True))
    p = predict(last["x"])
    assert run["facts"]["testRows"] == PARTS["last"] and set(run["test"]) == set(run["metrics"]) - {"trainLogLoss"}
    assert run["test"]["accuracy"] == pytest.approx(sk.accuracy_score(last["three"], p.argmax(1)), abs=1e-6) != run["metrics"]["accuracy"]
    assert told(bench, run, "test.accuracy") == [run["test"]["accuracy"]]
    shares = {**form("two"), "data": {"path": "learn.parquet"}, "split": {"valid": 0.2, "test": 0.3}}
    facts = train(bench, "shares", shares)[0]["facts"]
    assert facts["trainRows"] + facts["validRows"] + facts["testRows"] == PARTS["learn"] and facts["testRows"] > 380


def told(bench, run, name):
    lines = [json.loads(line) for line in (bench.folder / run["dir"] / "metrics.jsonl").read_text().splitlines()]
    return [line["value"] for line in lines if line["name"] == name]


@pytest.mark.parametrize("label, metric, more", [("two", "auc", True), ("two", "f1", True), ("three", "accuracy", True), ("z", "mae", False)])
def test_the_best_round_is_by_what_is_watched(bench, label, metric, more):
    spec = form(label, {"rounds": 60, "learningRate": 0.5}, earlyStop={"metric": metric, "patience": 4})
    run, _, _ = train(bench, f"stop-{label}-{metric}", {**spec, **({"task": "regression"} if label == "z" else {})})
    values, facts = np.array(told(bench, run, f"valid.{metric}")), run["facts"]
    best = int((values.argmax() if more else values.argmin())) + 1
    assert facts["bestRound"] == best and facts["rounds"] == len(values) == best + 4 < 60
    assert run["metrics"][metric] == pytest.approx(values[best - 1], abs=1e-6)


def test_stop_after_is_the_trees_own_word_for_patience(bench):
    runs = [train(bench, name, spec)[0] for name, spec in (
        ("own", form("two", {"rounds": 60, "stopAfter": 3, "learningRate": 0.5})),
        ("shared", form("two", {"rounds": 60, "learningRate": 0.5}, earlyStop={"patience": 3})))]
    assert runs[0]["facts"]["rounds"] == runs[1]["facts"]["rounds"] == runs[0]["facts"]["bestRound"] + 3 < 60
    spec = form("two", earlyStop={"patience": 100, "minDelta": 10})
    assert train(bench, "delta", spec)[0]["facts"]["bestRound"] == 1, "nothing is better by ten"


def test_threads_are_those_that_are_asked_for(bench):
    run, _, err = train(bench, "threads", form("two", threads=1))
    assert run["facts"]["threads"] == 1 and "threads 1" in err


def test_one_seed_one_model(bench):
    sampled = {"subsample": 0.7, "columns": 0.7}
    models = [(bench.folder / train(bench, name, form("two", sampled | own, **more))[0]["model"]).read_bytes()
              for name, own, more in (("a", {}, {}), ("b", {"seed": 1}, {}), ("c", {}, {"seed": 9}), ("d", {"seed": 9}, {}))]
    assert models[0] == models[1] != models[2] == models[3]


def test_what_is_missing_is_what_the_form_says(bench, table):
    spec = form("two")
    whole = train(bench, "missing", spec)[0]["facts"]["trainRows"]
    spec["inputs"][0]["missing"] = "skip"
    kept = train(bench, "skip", spec)[0]["facts"]["trainRows"]
    assert (whole, kept) == (PARTS["learn"], int((~np.isnan(table["learn"]["x"]).any(1)).sum()))
    spec["inputs"][0]["missing"] = "error"
    assert "missing" in bench.fails(bench.form("error", **spec))


def test_where_the_time_went(bench):
    run, _, err = train(bench, "profile", form("two"), "--profile")
    report = (bench.folder / run["dir"] / "report.md").read_text()
    for part in ("reading", "bins", "trees", "looks", "ONNX", "million rows a second"):
        assert part in report, part
    assert told(bench, run, "profile.seconds.learn")[0] > 0
    spans = json.loads((bench.folder / run["dir"] / "profile.json").read_text())["traceEvents"]
    assert [s["name"] for s in spans] == ["read", "bin", *["learn", "look"] * ROUNDS, "rest"]
    assert all(a["ts"] <= b["ts"] and a["dur"] >= 0 for a, b in zip(spans, spans[1:]))


# ---- on a server ----


@pytest.fixture(scope="module")
def one(table, tmp_path_factory):
    daemon = Daemon(tmp_path_factory.mktemp("served"))
    (daemon.sources / "learn.parquet").write_bytes((table["folder"] / "learn.parquet").read_bytes())
    daemon.start()
    assert daemon.put("Source", "learn", {"path": "learn.parquet", "format": "parquet"}).ok
    assert daemon.put("Dataset", "rows", {"sources": ["learn"], "query": "SELECT * FROM learn"}).ok
    assert ingest(daemon, "rows")["phase"] == "succeeded"
    yield daemon
    daemon_close(daemon)


GOALS_SERVED = {"three": ({"label": "three"}, "probability", "logLoss"), "number": ({"label": "z", "task": "regression"}, "value", "rmse")}


@pytest.mark.parametrize("name", GOALS_SERVED)
def test_a_job_is_registered_deployed_and_asked_by_either_runtime(one, table, name):
    said, output, metric = GOALS_SERVED[name]
    spec = {"inputs": [{"name": "features", "columns": [f"x{i}" for i in range(COLUMNS)]}], "split": {"valid": 0.2}, **said}
    job, _ = served_job(one, name, rows="rows.1", model={"trees": {"rounds": 20, "depth": 4}}, weight="w", profile=True, **spec)
    version, session = deployed(one, name, job, metric)
    x = table["held"]["x"][:200]
    want = session.run(None, {"features": x})[0]
    assert version["signature"]["outputs"] == [{"name": output, "type": "FP32", "shape": [-1, want.shape[1]]}] and version["native"]
    for runtime, by in (("onnx", "onnx"), ("native", "native"), ("auto", "native")):
        assert one.put("Deployment", name, {**one.get("deployments", name)["spec"], "runtime": runtime}).ok
        eventually(lambda by=by: [t.get("runtime") for t in one.get("deployments", name)["status"]["traffic"] if t.get("state") == "ready"] == [by],
                   what=f"runtime {runtime}")
        full = np.nan_to_num(x)
        got = ask(one, name, features=full)
        assert np.allclose(got, session.run(None, {"features": full})[0], rtol=1e-5, atol=1e-5)


def test_a_job_is_refused_before_it_begins(one):
    spec = {"rows": "rows.1", "label": "two", "model": {"trees": {}}, "optimizer": {"rate": 0.1}}
    assert one.put("Job", "never", {"type": "train", "with": spec}).ok
    status = one.wait_over("jobs", "never")["status"]
    assert status["phase"] == "failed" and "with.optimizer" in status["reason"], status


# ---- what is refused ----

REFUSED = [
    ({"optimizer": {"rate": 0.1}}, "optimizer", "learningRate"),
    ({"schedule": {"kind": "cosine"}}, "schedule", "learningRate"),
    ({"epochs": 3}, "epochs", "rounds"),
    ({"steps": 3}, "steps", "rounds"),
    ({"batchSize": 64}, "batchSize", "subsample"),
    ({"precision": "bf16"}, "precision", "bins"),
    ({"labelSmoothing": 0.1}, "labelSmoothing", "l2"),
    ({"evaluateEvery": 5}, "evaluateEvery", "each round"),
    ({"checkpoint": {"every": 5}}, "checkpoint", "rounds"),
    ({"memory": "1Gi"}, "memory", "resources.memory"),
    ({"data": {"path": "learn.parquet", "categories": ["x1"]}}, "data.categories", "columns of numbers"),
    ({"inputs": [{"name": "x", "columns": ["x0"], "missing": "mean"}]}, "inputs.missing", "branch"),
    ({"inputs": [{"name": "x", "columns": ["x0"], "missing": "fill", "fill": 3}]}, "inputs.fill", "branch"),
    ({"inputs": [{"name": "x", "columns": ["x0"]}, {"name": "y", "columns": ["x1"]}]}, "'y'", "one input"),
    ({"inputs": [{"name": "x", "columns": ["word"], "kind": "categories"}]}, "'x'", "numbers"),
    ({"task": "language"}, "task", "regression"),
    ({"loss": "triplet"}, "loss", "ranking"),
    ({"loss": "pairwise", "split": {"group": "query"}, "lossWith": {"margin": 1}}, "lossWith.margin", "logistic"),
    ({"loss": "pairwise", "split": {"group": "query"}, "weight": "w"}, "weight", "ranking"),
    ({"loss": "pairwise"}, "split.group", "queries"),
    ({"task": "classification", "loss": "mse"}, "loss", "crossEntropy"),
    ({"task": "regression", "label": "z", "classWeights": "balanced"}, "classWeights", "classes"),
    ({"classWeights": [1, 2, 3]}, "classWeights", "2 numbers"),
    ({"classWeights": [0, 1]}, "classWeights", "the first of two classes"),
    ({"metrics": ["beauty"]}, "beauty", "f1"),
    ({"metrics": ["mae"]}, "mae", "auc"),
    ({"earlyStop": {"metric": "r2"}}, "earlyStop.metric", "f1"),
    ({"earlyStop": {"patience": 3}, "model": {"trees": {"stopAfter": 4}}}, "stopAfter", "earlyStop.patience"),
    ({"weight": "x0"}, "x0", "weight"),
    ({"resources": {"memory": "1Ki"}}, "memory", "rows"),
]


@pytest.mark.parametrize("change, names, instead", REFUSED, ids=[f"{c[1]}-{i}" for i, c in enumerate(REFUSED)])
def test_what_trees_have_no_use_for_is_refused_with_what_they_have(bench, change, names, instead):
    p = bench.start(bench.form("bad", **{**form("two"), **change}), "-q")
    _, err = p.communicate(timeout=60)
    assert p.returncode == 2 and err.count("error: ") == 1 and names in err and instead in err, err


@pytest.mark.parametrize("to, names", [([], "no checkpoints"), (["--server", "http://127.0.0.1:9"], "run of this machine")],
                         ids=["trees", "server"])
def test_there_is_nothing_to_go_on_with(bench, to, names):
    p = bench.start(bench.form("again", **form("two")), "-q", "--resume", *to)
    _, err = p.communicate(timeout=60)
    assert p.returncode == 2 and err.count("error: ") == 1 and names in err and "hint: " in err, err
