# SPDX-License-Identifier: Apache-2.0
"""Every template from YAML, in each precision, for a few steps of a tiny size: it trains, it is exported, ONNX Runtime says the same of it.
And each word of a form that changes how it learns does."""

import json
import math

import duckdb
import numpy as np
import onnx
import onnxruntime
import pytest
from training import Bench, result

ROWS = 240
TABLE = {"categories": ["town", "hour"]}
IMAGE = [{"name": "image", "kind": "array", "columns": ["image"], "shape": [1, 8, 8]}]
SERIES = [{"name": "series", "kind": "array", "columns": ["image"], "shape": [8, 8]}]
WORDS = [{"name": "words", "kind": "array", "columns": ["words"], "ids": True}]
TEXT = [{"name": "tokens", "kind": "tokens", "columns": ["text"], "length": 8}]
TEMPLATES = {
    "mlp": ({"mlp": {"hidden": [16], "norm": "batch", "dropout": 0.1}}, {"data": TABLE}),
    "mlp-layer-norm": ({"mlp": {"hidden": [16, 8], "norm": "layer", "activation": "gelu"}}, {}),
    "tabular-resnet": ({"tabular-resnet": {"width": 8, "blocks": 2}}, {"data": TABLE}),
    "cnn": ({"cnn": {"channels": [4, 8], "dense": 8}}, {"inputs": IMAGE}),
    "resnet": ({"resnet": {"depth": 8, "width": 4}}, {"inputs": IMAGE}),
    "mobilenet": ({"mobilenet": {"width": 0.1}}, {"inputs": IMAGE}),
    "lstm": ({"lstm": {"width": 8, "layers": 2}}, {"inputs": SERIES}),
    "lstm-ids": ({"lstm": {"width": 8, "embedding": 4, "pool": "mean"}}, {"inputs": WORDS}),
    "gru-ids": ({"lstm": {"cell": "gru", "width": 8, "embedding": 4, "dropout": 0.1}}, {"inputs": WORDS}),
    "transformer-encoder": ({"transformer-encoder": {"layers": 1, "width": 8, "heads": 2}}, {"inputs": SERIES}),
    "transformer-encoder-ids": ({"transformer-encoder": {"layers": 1, "width": 8, "heads": 2, "pool": "first"}}, {"inputs": WORDS}),
    "gpt": ({"gpt": {"layers": 1, "width": 8, "heads": 2, "dropout": 0.1}}, {"inputs": TEXT, "data": {"path": "text.txt"}, "label": None}),
    "autoencoder": ({"autoencoder": {"hidden": [8], "latent": 2}}, {"label": None, "inputs": [{"name": "x", "columns": ["a", "b", "c"]}]}),
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """rows.parquet: a picture, six words, two categories and three numbers a row, of three kinds. still.parquet: labels that nothing foretells,
    so that what is learned is the loss's own mean of them. long.parquet: more than a small memory holds. text.txt."""
    folder, r = tmp_path_factory.mktemp("forms"), np.random.default_rng(2)
    kind = r.integers(0, 3, ROWS)
    con = duckdb.connect()
    con.execute("create table t(image float[], words integer[], town text, hour integer, a double, b double, c double, kind integer)")
    con.executemany("insert into t values (?, ?, ?, ?, ?, ?, ?, ?)", [
        ((r.normal(size=64) + k).tolist(), r.integers(3 * k, 3 * k + 6, 6).tolist(), "abc"[k], int(r.integers(0, 24)), *r.normal(size=3) + k, k)
        for k in kind.tolist()])
    con.execute(f"copy t to '{folder}/rows.parquet' (format parquet)")
    con.execute(f"copy (select 1.0 as x, (i % 10 = 0)::integer as rare, (i % 2)::integer as odd, case when i % 2 = 1 then 1.0 else 9.0 end as w, "
                f"case when i % 10 < 3 then 10.0 else 0.0 end as skew from range(1000) r(i)) to '{folder}/still.parquet' (format parquet)")
    con.execute(f"copy (select i as at, (i * 37 % 101)::double as a, (i * 61 % 97)::double as b, (i * 37 % 101 + i * 61 % 97 > 98)::integer as y "
                f"from range(60000) r(i)) to '{folder}/long.parquet' (format parquet, row_group_size 4096)")
    (folder / "text.txt").write_text("the quick brown fox jumps over the lazy dog. " * 40)
    return Bench(folder)


def rows_form(model, **more):
    data = {"path": "rows.parquet", **more.pop("data", {})}
    inputs = more.pop("inputs", [{"name": "x", "columns": ["a", "b", "c"]}] if "categories" not in data else
                      [{"name": "x", "columns": ["a", "b", "c"]}, {"name": "c", "kind": "categories", "columns": data.pop("categories")}])
    form = {"data": data, "label": "kind", "model": model, "inputs": inputs, "batchSize": 32, "split": {"valid": 0.2}, "steps": 4, **more}
    return {k: v for k, v in form.items() if v is not None}


def some(told):
    """Raw rows for an input of the exported model."""
    shape = [5 if isinstance(d, str) or d is None else d for d in told.shape]
    if told.type == "tensor(string)":
        return np.full(shape, "b", object)
    whole = np.arange(math.prod(shape)).reshape(shape) % 7
    return whole.astype(np.int64 if "int64" in told.type else np.float32)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("template", TEMPLATES)
def test_every_template_trains_and_is_what_onnx_runtime_runs(bench, template, precision):
    model, more = TEMPLATES[template]
    name = f"{template}-{precision}"
    out, err = bench.train(bench.form(name, **rows_form(model, precision=precision, **more)), "-o", "json", "--dir", name)
    run = result(out)
    assert run["facts"]["precision"] == precision and run["facts"]["steps"] == 4 and run["facts"]["skippedSteps"] < 4
    assert run["facts"]["parityMaxRelative"] <= 1e-4 and all(math.isfinite(v) for v in run["metrics"].values()), run
    session = onnxruntime.InferenceSession(str(bench.folder / run["model"]))
    outputs = session.run(None, {i.name: some(i) for i in session.get_inputs()})
    assert len(outputs[0]) == 5 and np.isfinite(outputs[0]).all()


# ---- words that change what is learned ----


def learned(bench, name, label, **more):
    """What a model says that has nothing but its bias to learn with."""
    form = {"data": {"path": "still.parquet"}, "label": label, "inputs": [{"name": "x", "columns": ["x"]}], "model": {"mlp": {"hidden": [4]}},
            "batchSize": 100, "epochs": 40, "split": {"valid": 0}, "optimizer": {"rate": 0.05, "decay": 0}, "precision": "fp32", **more}
    run = result(bench.train(bench.form(name, **form), "-o", "json", "--dir", name)[0])
    session = onnxruntime.InferenceSession(str(bench.folder / run["model"]))
    return float(session.run(None, {session.get_inputs()[0].name: np.ones((1, 1), np.float32)})[0][0, 0])


@pytest.mark.parametrize("name, label, more, says", [
    ("plain", "rare", {}, 0.1),
    ("balanced", "rare", {"classWeights": "balanced"}, 0.5),
    ("listed", "rare", {"classWeights": [1, 3]}, 0.25),
    ("smooth", "rare", {"labelSmoothing": 0.4}, 0.1 * 0.8 + 0.9 * 0.2),
    ("weighted", "odd", {"weight": "w"}, 0.1),
    ("mse", "skew", {"loss": "mse", "epochs": 120}, 3),
    ("mae", "skew", {"loss": "mae", "optimizer": {"rate": 0.01, "decay": 0}}, 0),
    ("huber", "skew", {"loss": "huber"}, 3 / 7),  # 0.7 h = 0.3
])
def test_a_loss_is_the_one_that_the_form_says(bench, name, label, more, says):
    assert learned(bench, f"still-{name}", label, **more) == pytest.approx(says, abs=0.03 if says < 1 else 0.15)


@pytest.mark.parametrize("optimizer", [{"kind": "sgd", "nesterov": True}, {"kind": "adam", "rate": 0.02},
                                       {"kind": "adamw", "rate": 0.02, "clip": 1}, {"kind": "lamb", "rate": 0.02},
                                       {"kind": "adagrad", "rate": 0.05}], ids=lambda o: o["kind"])
def test_every_optimiser_learns(bench, optimizer):
    form = rows_form({"mlp": {"hidden": [16]}}, steps=60, optimizer=optimizer, precision="fp32")
    out, _ = bench.train(bench.form(optimizer["kind"], **form), "-o", "json")
    assert result(out)["metrics"]["logLoss"] < 0.8 < math.log(3)


def told(bench, folder, name):
    lines = [json.loads(line) for line in (bench.folder / folder / "metrics.jsonl").read_text().splitlines()]
    return [line["value"] for line in lines if line["name"] == name]


@pytest.mark.parametrize("schedule, rates", [
    ({"kind": "oneCycle", "warmup": 4, "factor": 10}, lambda r: r[3] == max(r) == pytest.approx(0.01) and r[0] < 0.003 and r[-1] < 0.001),
    ({"kind": "step", "warmup": 0, "every": 5}, lambda r: r[3] == pytest.approx(0.01) and r[6] == pytest.approx(1e-3) and r[-1] == pytest.approx(1e-5)),
    ({"kind": "linear", "warmup": 0, "factor": 0.5}, lambda r: r[-1] == pytest.approx(0.005) and r[9] == pytest.approx(0.0075, rel=0.05)),
], ids=lambda s: s["kind"] if isinstance(s, dict) else "")
def test_a_schedule_is_the_one_that_the_form_says(bench, schedule, rates):
    name = schedule["kind"]
    form = rows_form({"mlp": {"hidden": [8]}}, steps=15 if name != "linear" else 20, schedule=schedule, optimizer={"rate": 0.01})
    bench.train(bench.form(name, **form), "-q", "--dir", name)
    assert rates(told(bench, name, "train.rate")), told(bench, name, "train.rate")


def weights_of(bench, name):
    model = onnx.load(bench.folder / name / "model.onnx")
    return {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}


def test_batches_that_are_added_up_are_one_large_batch(bench):
    for name, batch, each in (("large", 48, 1), ("small", 12, 4)):
        form = rows_form({"mlp": {"hidden": [8]}}, batchSize=batch, steps=None, epochs=5, optimizer={"accumulate": each, "rate": 0.01}, precision="fp32",
                         split={"valid": 0})
        run = result(bench.train(bench.form(name, **form), "-o", "json", "--dir", name)[0])
        assert run["facts"]["steps"] == 25 * each
    large, small = weights_of(bench, "large"), weights_of(bench, "small")
    assert large.keys() == small.keys() and all(np.allclose(large[k], small[k], atol=1e-5) for k in large)


# ---- bounds ----


def test_a_budget_is_met_by_fewer_rows_at_once(bench):
    form = rows_form({"cnn": {"channels": [16], "norm": "none", "dropout": 0}}, inputs=IMAGE, batchSize=160, precision="fp32")
    free = result(bench.train(bench.form("free", **form), "-o", "json")[0])
    need = free["facts"]["memoryPlanned"]
    out, err = bench.train(bench.form("bound", **form, memory=need * 2 // 3), "-o", "json")
    bound = result(out)
    assert bound["facts"]["memoryPlanned"] <= need * 2 // 3 and " parts" in err, err
    assert bound["metrics"]["logLoss"] == pytest.approx(free["metrics"]["logLoss"], rel=1e-3)


def test_a_batch_that_is_found_by_trial_fits_the_budget(bench):
    """Rows of a batch norm cannot be taken apart: 32 of them are too many here."""
    form = rows_form({"cnn": {"channels": [16], "dropout": 0}}, inputs=IMAGE, batchSize=8, precision="fp32", split={"valid": 0})
    budget = result(bench.train(bench.form("eight", **form), "-o", "json")[0])["facts"]["memoryPlanned"]
    out, _ = bench.train(bench.form("found", **{**form, "batchSize": "auto", "memory": budget}), "-o", "json")
    assert result(out)["facts"]["batchSize"] in (4, 8, 16) and result(out)["facts"]["memoryPlanned"] <= budget


def test_more_rows_than_the_memory_of_data_are_read_in_windows(bench):
    form = {"label": "y", "inputs": [{"name": "x", "columns": ["a", "b"]}], "model": {"mlp": {"hidden": [16]}}, "batchSize": 256, "epochs": 2,
            "optimizer": {"rate": 0.01}, "precision": "fp32"}
    runs = [result(bench.train(bench.form("kept", **form, data={"path": "long.parquet"}), "-o", "json")[0])]
    out, err = bench.train(bench.form("windows", **form, data={"path": "long.parquet", "memory": "1Mi"}), "-o", "json")
    runs.append(result(out))
    assert "(read anew in each epoch)" in err
    assert len({(r["facts"]["trainRows"], r["facts"]["validRows"], r["facts"]["steps"]) for r in runs}) == 1
    assert all(r["metrics"]["auc"] > 0.99 for r in runs), [r["metrics"] for r in runs]


def test_checkpoints_are_as_many_and_as_far_apart_as_the_form_says(bench):
    form = rows_form({"mlp": {"hidden": [8]}}, steps=22, split={"valid": 0}, checkpoint={"every": 4, "keep": 3})
    bench.train(bench.form("every", **form), "-q", "--dir", "every")
    assert sorted(p.name for p in (bench.folder / "every/checkpoints").glob("step-*")) == ["step-16", "step-20", "step-22"]
