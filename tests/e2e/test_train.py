# SPDX-License-Identifier: Apache-2.0
"""dhow train: from a few lines of YAML to a model that ONNX Runtime runs; stopped, killed, resumed, swept, refused."""

import json
import os
import re
import signal
import subprocess
import time

import duckdb
import numpy as np
import onnx
import onnxruntime
import pytest
import yaml
from conftest import DHOW, ROOT, eventually
from sklearn.datasets import load_breast_cancer
from training import SECONDS, Bench, cancer, columns, result, tables


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tables(tmp_path_factory.mktemp("train"))


@pytest.fixture
def bench(data):
    return Bench(data)


# ---- what comes out ----


def test_three_lines_are_enough(bench):
    form = bench.form("A Few", data={"path": "cancer.csv"}, label="benign", model={"mlp": {}})
    out, err = bench.train(form, "-o", "json")
    run = result(out)
    assert run["dir"].endswith("/a-few-1")
    assert run["metrics"]["auc"] > 0.98 and run["metrics"]["accuracy"] > 0.93
    assert run["facts"]["parityMaxRelative"] <= 1e-4 and run["facts"]["trainRows"] + run["facts"]["validRows"] == 569
    assert "ONNX Runtime says the same" in err and "valid.logloss" in err.replace("logLoss", "valid.logloss")
    folder = bench.folder / run["dir"]
    for name in ("model.onnx", "baseline.json", "result.json", "report.md", "metrics.jsonl", "out.log", "spec.json"):
        assert (folder / name).stat().st_size > 0, name
    told = {json.loads(line)["name"] for line in (folder / "metrics.jsonl").read_text().splitlines()}
    assert {"train.logloss", "valid.logloss", "valid.auc", "train.rate"} <= told


def test_the_exported_model_takes_raw_rows(bench):
    out, _ = bench.train(bench.form("raw", **cancer()), "-o", "json")
    run = result(out)
    session = onnxruntime.InferenceSession(str(bench.folder / run["model"]))
    x, y = load_breast_cancer(return_X_y=True)
    assert [i.name for i in session.get_inputs()] == ["features"]
    assert run["signature"]["features"][0] == "mean_radius" and run["signature"]["outputs"][0]["name"] == "probability"
    p = session.run(None, {"features": x.astype(np.float32)})[0]
    assert p.shape == (569, 1) and ((p[:, 0] > 0.5) == y).mean() > 0.9


def test_categories_are_given_as_they_are(bench, data):
    """Texts and numbers become the ids of training in the model itself: what training never saw is one category, what is missing another."""
    duckdb.execute(f"""copy (select case when i % 50 = 0 then null when i % 70 = 0 then '' else chr((97 + i * 7 % 5)::integer) end as town,
        case when i % 40 = 0 then null else i * 13 % 24 end as hour, (i * 13 % 24) * 100000000 as code, (i * 37 % 101)::double as x,
        (i * 7 % 5 + i * 13 % 24 > 14)::integer as y from range(4000) r(i)) to '{data}/towns.parquet' (format parquet)""")
    form = bench.form("towns", data={"path": "towns.parquet", "categories": ["town", "hour", "code"]}, label="y", epochs=6,
                      model={"mlp": {"hidden": [32]}}, optimizer={"rate": 0.003})
    run = result(bench.train(form, "-o", "json")[0])
    assert run["metrics"]["auc"] > 0.95 and run["facts"]["parityMaxRelative"] <= 1e-4
    assert run["signature"]["features"] == ["x", "hour"] and run["signature"]["categories"] == ["town", "code"]
    model = onnx.load(bench.folder / run["model"])
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())

    def said(hour, town, code="500000000", x=50):
        return float(session.run(None, {"features": np.array([[x, hour]], np.float32),
                                        "categories": np.array([[town, code]], object)})[0][0, 0])
    nan = float("nan")
    assert said(5, "a") < 0.4 < 0.6 < said(23, "e", "2300000000"), "as in training"
    assert said(5, "nowhere") == said(5, "a b") != said(5, "a"), "unknown texts are one category"
    assert said(99, "a") == said(-1, "a") == said(5.5, "a") == said(float("inf"), "a") != said(5, "a"), "and unknown numbers"
    assert said(nan, "a") not in (said(99, "a"), said(5, "a")) and said(5, "") not in (said(5, "nowhere"), said(5, "a")), "missing is another"
    assert said(5, "a", "1") == said(5, "a", "00500000000") != said(5, "a")

    # A table of categories alone is learned from as well; one with nothing to learn from says what it has.
    for columns, features, texts in (["town", "hour"], ["hour"], ["town"]), (["town"], [], ["town"]), (["hour"], ["hour"], []):
        duckdb.execute(f"copy (select {', '.join(columns)}, y from '{data}/towns.parquet') to '{data}/alone.parquet' (format parquet)")
        alone = bench.form("alone", data={"path": "alone.parquet", "categories": columns}, label="y", epochs=1, model={"mlp": {"hidden": [8]}})
        signature = result(bench.train(alone, "-o", "json")[0])["signature"]
        assert (signature.get("features", []), signature.get("categories", [])) == (features, texts)
    duckdb.execute(f"copy (select town, y from '{data}/towns.parquet') to '{data}/alone.parquet' (format parquet)")
    told = bench.fails(bench.form("alone", data={"path": "alone.parquet"}, label="y", model={"mlp": {"hidden": [8]}}))
    assert "no column of numbers left to learn from" in told and "not of numbers: town;" in told

    # It is gone on with: texts are looked up by the vocabulary that the model has, whatever the new rows hold.
    duckdb.execute(f"""copy (select * from read_parquet('{data}/towns.parquet') where town is null or town <> 'b')
        to '{data}/fewer.parquet' (format parquet)""")
    more = bench.form("on", data={"path": "fewer.parquet"}, label="y", epochs=1, model={"onnx": {"file": run["model"]}}, inputs=[
        {"name": "features", "columns": ["x", "hour"], "normalise": "none", "missing": "fill", "fill": -1},
        {"name": "categories", "kind": "categories", "columns": ["town", "code"]}], optimizer={"rate": 1e-5})
    on = result(bench.train(more, "-o", "json")[0])
    assert on["metrics"]["auc"] > 0.94 and on["facts"]["parityMaxRelative"] <= 1e-4
    assert on["signature"] == run["signature"]
    before, session = said(5, "b"), onnxruntime.InferenceSession(str(bench.folder / on["model"]))
    assert abs(said(5, "b") - before) < 0.05 and said(5, "nowhere") == said(5, "a b") != said(5, "a")
    assert "takes texts" in bench.fails(bench.form("numbers", **{**yaml.safe_load(more.read_text()), "inputs": [
        {"name": "features", "columns": ["x", "hour"], "normalise": "none", "missing": "fill"},
        {"name": "categories", "columns": ["x", "hour"], "missing": "fill"}]}))


def test_digits(bench):
    form = bench.form("digits", data={"path": "digits.parquet"}, label="digit", epochs=40, batchSize=64,
                      inputs=[{"name": "image", "kind": "array", "columns": ["image"]}],
                      model={"mlp": {"hidden": [256, 128], "dropout": 0.2}})
    out, _ = bench.train(form, "-o", "json")
    assert result(out)["metrics"]["accuracy"] >= 0.97


def test_trees_tell_the_same_measures(bench):
    net, _ = bench.train(bench.form("net", **cancer()), "-o", "json")
    trees, _ = bench.train(bench.form("trees", **cancer(model={"trees": {"rounds": 20}})), "-o", "json")
    assert set(result(net)["metrics"]) <= set(result(trees)["metrics"])
    assert result(trees)["metrics"]["auc"] > 0.98


def test_trees_split_by_time_are_the_same_by_either_way(bench, data):
    """Parquet goes straight into rows, CSV through the loader."""
    con = duckdb.connect()
    con.execute("create table flights as select timestamp '2026-01-01' + interval (i) minute as at, case when i % 13 > 0 then (i * 37) % 101 end "
                "as a, ((i * 61) % 97) / 7.0 as b, (((i * 37) % 101 + (i * 61) % 97) > 100)::integer as late from range(5000) r(i)")
    models = []
    for kind in ("parquet", "csv"):
        con.execute(f"copy flights to '{data}/flights.{kind}' (format {kind})")
        form = bench.form(f"trees-{kind}", model={"trees": {"rounds": 10}}, data={"path": f"{data}/flights.{kind}"}, label="late",
                          split={"at": "at"}, holdout="10h")
        out, _ = bench.train(form, "-o", "json")
        facts = result(out)["facts"]
        assert facts["validRows"] == 600 and facts["trainRows"] == 4400
        models.append((result(out)["metrics"], result(out)["signature"]))
    assert models[0] == models[1]


def test_trees_see_for_themselves_what_is_missing(bench, data):
    duckdb.execute(f"copy (select case when i % 3 > 0 then i % 7 end as a, i % 11 as b, (i % 3 = 0)::integer as y from range(600) r(i)) "
                   f"to '{data}/gaps.parquet' (format parquet)")
    form = bench.form("gaps", model={"trees": {"rounds": 5}}, data={"path": f"{data}/gaps.parquet"}, label="y",
                      inputs=[{"name": "x", "kind": "numbers", "columns": ["a", "b"], "indicator": True}])
    out, _ = bench.train(form, "-o", "json")
    assert result(out)["metrics"]["auc"] == 1 and result(out)["signature"]["features"] == ["a", "b"]


def test_a_language_model_learns(bench):
    form = bench.form("gpt", data={"path": "text.txt"}, epochs=3, model={"gpt": {"layers": 1, "width": 32, "heads": 2}},
                      inputs=[{"name": "tokens", "kind": "tokens", "columns": ["text"], "length": 16}])
    out, _ = bench.train(form, "-o", "json", "--set", "optimizer.rate=0.01")
    assert result(out)["metrics"]["perplexity"] < 4


def test_an_autoencoder_learns(bench):
    form = bench.form("auto", data={"path": "cancer.parquet"}, model={"autoencoder": {"latent": 8}}, epochs=20)
    out, _ = bench.train(form, "-o", "json")
    assert result(out)["metrics"]["rmse"] < 0.85  # of numbers whose standard deviation is 1


def test_more_can_be_measured(bench):
    form = cancer(metrics=["f1", "recall"], epochs=3, earlyStop={"metric": "precision", "patience": 3})
    told = result(bench.train(bench.form("asked", **form), "-o", "json")[0])["metrics"]
    assert {"logLoss", "auc", "f1", "recall", "precision"} <= set(told)
    assert told["f1"] == pytest.approx(2 * told["precision"] * told["recall"] / (told["precision"] + told["recall"]))
    bench.train(bench.form("trees", **cancer(metrics=["auc"], model={"trees": {"rounds": 3}})), "-q")


def test_rows_of_the_test_are_looked_at_once_at_the_end(bench):
    """Those of a file that is for it, or a share: by the model that is exported, and nothing is decided by them."""
    for part, where in (("rest", "i % 5 > 0"), ("test", "i % 5 = 0")):
        duckdb.execute(f"copy (select * exclude i from (select *, row_number() over () as i from '{bench.folder}/cancer.parquet') where {where}) "
                       f"to '{bench.folder}/cancer-{part}.parquet' (format parquet)")
    form = cancer(epochs=12, optimizer={"rate": 0.01}, earlyStop={"metric": "auc"})
    files = [{"path": "cancer-rest.parquet"}, {"path": "cancer-test.parquet", "part": "test"}]
    out, err = bench.train(bench.form("tested", **{**form, "data": {"files": files}}), "-o", "json")
    run = result(out)
    assert run["facts"]["testRows"] == 113 and set(run["test"]) >= {"auc", "logLoss", "accuracy"} and "test: 113 rows" in err
    session = onnxruntime.InferenceSession(str(bench.folder / run["model"]))
    rows = duckdb.execute(f"select * from '{bench.folder}/cancer-test.parquet'").fetchnumpy()
    p = session.run(None, {"features": np.stack([rows[c] for c in columns()], 1).astype(np.float32)})[0][:, 0]
    assert run["test"]["accuracy"] == pytest.approx(((p > 0.5) == rows["benign"]).mean())
    told = [json.loads(line) for line in (bench.folder / run["dir"] / "metrics.jsonl").read_text().splitlines()]
    assert [t["value"] for t in told if t["name"] == "test.auc"] == [run["test"]["auc"]]
    assert "on the rows of the test" in (bench.folder / run["dir"] / "report.md").read_text()
    out, _ = bench.train(bench.form("share", **{**form, "split": {"valid": 0.1, "test": 0.3}}))
    assert re.search(r"^test\.auc +0\.9", out, re.M), out
    out, _ = bench.train(bench.form("none", **form), "-o", "json")
    assert "test" not in result(out)


def test_a_sweep_is_by_any_measure_of_its_task(bench):
    sweep = {"kind": "grid", "over": {"optimizer.rate": [1e-6, 0.01]}, "metric": "f1"}
    told = result(bench.train(bench.form("by", **cancer(epochs=5, sweep=sweep)), "-o", "json")[0])
    assert told["best"] == 2 and told["trials"][1]["measure"] == max(t["measure"] for t in told["trials"])


def test_a_model_is_gone_on_with(bench):
    """The exported model under a new last layer, the rest of it frozen; then all of it."""
    bench.train(bench.form("base", **cancer()), "-q", "--dir", "base")
    base = onnxruntime.InferenceSession(str(bench.folder / "base" / "model.onnx"))
    form = bench.form("tuned", data={"path": "cancer.parquet"}, label="benign", epochs=2,
                      model={"onnx": {"file": "base/model.onnx", "freeze": ["layer1.*"]}})
    bench.train(form, "-q", "--dir", "tuned")
    x = load_breast_cancer(return_X_y=True)[0].astype(np.float32)
    tuned = onnxruntime.InferenceSession(str(bench.folder / "tuned" / "model.onnx"))
    before, after = base.run(None, {"features": x})[0], tuned.run(None, {"features": x})[0]
    assert after.shape == before.shape and 0 < np.abs(after - before).max() < 0.9
    weights = [{t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(bench.folder / d / "model.onnx").graph.initializer}
               for d in ("base", "tuned")]
    assert (weights[0]["layer1.weight"] == weights[1]["layer1.weight"]).all()
    assert not (weights[0]["head.weight"] == weights[1]["head.weight"]).all()


# ---- the same again ----


def test_one_seed_one_model(bench):
    form = bench.form("seed", **cancer(model={"mlp": {"dropout": 0.2, "norm": "batch"}}, epochs=4))
    models = []
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        bench.train(form, "-q", "--dir", f"seed-{name}", "--set", f"seed={seed}")
        models.append((bench.folder / f"seed-{name}" / "model.onnx").read_bytes())
    assert models[0] == models[1] and models[0] != models[2]


def test_killed_and_resumed_it_ends_with_the_same_bits(bench):
    form = bench.form("long", **cancer(model={"mlp": {"dropout": 0.2, "norm": "batch"}}, epochs=60, deterministic=True,
                                       optimizer={"ema": 0.99, "accumulate": 3}))
    bench.train(form, "-q", "--dir", "whole")
    for how in (signal.SIGKILL, signal.SIGINT):
        folder = bench.folder / f"cut-{how}"
        p = bench.start(form, "-q", "--dir", folder)
        end = time.monotonic() + 60
        while not list(folder.glob("checkpoints/step-*")) and p.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        p.send_signal(how)
        p.communicate(timeout=60)
        bench.train(form, "-q", "--dir", folder, "--resume")
        assert (folder / "model.onnx").read_bytes() == (bench.folder / "whole" / "model.onnx").read_bytes()


def test_a_checkpoint_of_another_model_names_the_tensor(bench):
    form = bench.form("other", **cancer(epochs=1))
    bench.train(form, "-q", "--dir", "other")
    err = bench.fails(form, "--dir", "other", "--resume", "--set", "model.mlp.hidden=[33]")
    assert "of another model" in err and "layer1.weight" in err and "[30, 32]" in err
    assert "seed" in bench.fails(form, "--dir", "other", "--resume", "--set", "seed=2")


def test_what_is_asked_to_stop_early_does(bench):
    form = bench.form("early", **cancer(epochs=200, earlyStop={"metric": "auc", "patience": 2}))
    out, err = bench.train(form, "-o", "json")
    assert result(out)["facts"]["epochs"] < 200 and "auc has not become better 2 times" in err


# ---- a model that is there ----


def with_norms(path):
    """x[30] → Gemm → BatchNormalization as it is served → Relu → Gemm → Sigmoid; its running statistics fit nothing."""
    r = np.random.default_rng(3)
    f = onnx.numpy_helper.from_array
    weights = {"w1": r.normal(size=(30, 16)) * 0.01, "b1": np.zeros(16), "scale": np.ones(16), "shift": np.zeros(16), "mean": np.zeros(16),
               "var": np.ones(16), "w2": r.normal(size=(16, 1)) * 0.2, "b2": np.zeros(1)}
    h = onnx.helper
    nodes = [h.make_node("Gemm", ["x", "w1", "b1"], ["h"]), h.make_node("BatchNormalization", ["h", "scale", "shift", "mean", "var"], ["n"]),
             h.make_node("Relu", ["n"], ["a"]), h.make_node("Gemm", ["a", "w2", "b2"], ["z"]), h.make_node("Sigmoid", ["z"], ["p"])]
    graph = h.make_graph(nodes, "norms", [h.make_tensor_value_info("x", 1, ["N", 30])], [h.make_tensor_value_info("p", 1, ["N", 1])],
                         [f(v.astype(np.float32), k) for k, v in weights.items()])
    onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8), path)
    return weights


def weights_of(path):
    return {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


def test_batch_norm_of_a_given_model_learns_on_unless_it_is_frozen(bench):
    before = with_norms(bench.folder / "norms.onnx")
    for name, freeze in (("free", []), ("frozen", ["scale", "shift"])):
        form = bench.form(f"norms-{name}", **cancer(model={"onnx": {"file": "norms.onnx", "freeze": freeze}}, epochs=20))
        bench.train(form, "-q", "--dir", f"norms-{name}")
        after = weights_of(bench.folder / f"norms-{name}" / "model.onnx")
        assert np.allclose(after["mean"], before["mean"]) == bool(freeze) and np.allclose(after["var"], before["var"]) == bool(freeze)
        assert np.array_equal(after["scale"], before["scale"].astype(np.float32)) == bool(freeze)
        assert not np.allclose(after["w1"], before["w1"])


def test_a_new_last_layer_for_another_task(bench):
    with_norms(bench.folder / "norms.onnx")
    form = bench.form("head", **cancer(model={"onnx": {"file": "norms.onnx", "head": "a", "freeze": ["w1"]}}, loss="mse",
                                       inputs=[{"name": "x", "columns": columns()}], epochs=3))
    out, _ = bench.train(form, "-o", "json", "--dir", "head")
    after = weights_of(bench.folder / "head" / "model.onnx")
    assert "head.weight" in after and after["head.weight"].shape == (16, 1) and "w2" not in after
    assert set(result(out)["metrics"]) == {"rmse", "mae", "r2"}
    err = bench.fails(form, "--set", "model.onnx.head=nothing")
    assert "nothing" in err and "value" in err


def test_what_is_odd_in_a_given_model_is_said_once(bench):
    h, r = onnx.helper, np.random.default_rng(1)
    shapes = {"k1": (4, 1, 3, 3), "k2": (4, 4, 3, 3), "w": (64, 10)}
    weights = [onnx.numpy_helper.from_array((r.normal(size=s) * 0.3).astype(np.float32), n) for n, s in shapes.items()]
    nodes = [h.make_node("Conv", ["x", "k1"], ["a"], kernel_shape=[3, 3]), h.make_node("Relu", ["a"], ["b"]),
             h.make_node("Conv", ["b", "k2"], ["c"], kernel_shape=[3, 3]), h.make_node("Flatten", ["c"], ["f"]), h.make_node("MatMul", ["f", "w"], ["y"])]
    graph = h.make_graph(nodes, "convs", [h.make_tensor_value_info("x", 1, ["N", 1, 8, 8])], [h.make_tensor_value_info("y", 1, ["N", 10])], weights)
    onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8), bench.folder / "convs.onnx")
    form = bench.form("convs", data={"path": "digits.parquet"}, label="digit", steps=2, model={"onnx": {"file": "convs.onnx"}},
                      inputs=[{"name": "x", "kind": "array", "columns": ["image"], "shape": [1, 8, 8]}])
    _, err = bench.train(form)
    assert len(re.findall("^note: 2 convolutions and no normalisation", err, re.M)) == 1, err


def with_time(path, *inputs):
    """Each input [N, S, width] → MatMul → Relu → mean over S; their sum → Gemm → 10 classes. How long S is, is left open."""
    r = np.random.default_rng(4)
    h, f = onnx.helper, onnx.numpy_helper.from_array
    nodes, weights = [], {"head": r.normal(size=(16, 10)), "bias": np.zeros(10)}
    for name, width in inputs:
        weights[f"{name}.w"] = r.normal(size=(width, 16)) * 0.3
        nodes += [h.make_node("MatMul", [name, f"{name}.w"], [f"{name}.h"]), h.make_node("Relu", [f"{name}.h"], [f"{name}.a"]),
                  h.make_node("ReduceMean", [f"{name}.a"], [f"{name}.m"], axes=[1], keepdims=0)]
    nodes += [h.make_node("Sum", [f"{name}.m" for name, _ in inputs], ["all"]), h.make_node("Gemm", ["all", "head", "bias"], ["z"])]
    graph = h.make_graph(nodes, "time", [h.make_tensor_value_info(name, 1, ["N", "S", width]) for name, width in inputs],
                         [h.make_tensor_value_info("z", 1, ["N", 10])], [f(v.astype(np.float32), k) for k, v in weights.items()])
    onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8), path)


def digits_as(*shapes):
    return {"data": {"path": "digits.parquet"}, "label": "digit", "epochs": 2,
            "inputs": [{"name": name, "kind": "array", "columns": ["image"], "shape": shape} for name, shape in shapes]}


def test_what_does_not_decay_is_named(bench):
    """All named is as none decays; an embedding or a layer alone is something between."""
    models = {}
    for name, optimizer in (("none", {"decay": 0}), ("all", {"decay": 0.3, "noDecay": ["*"]}), ("one", {"decay": 0.3, "noDecay": ["layer1.*"]}),
                            ("plain", {"decay": 0.3})):
        bench.train(bench.form(f"decay-{name}", **cancer(epochs=2, optimizer=optimizer)), "-q", "--dir", f"decay-{name}")
        models[name] = weights_of(bench.folder / f"decay-{name}" / "model.onnx")
    same = {(a, b): all(np.array_equal(models[a][k], models[b][k]) for k in models[a]) for a in models for b in models if a < b}
    assert [pair for pair, equal in same.items() if equal] == [("all", "none")]
    err = bench.fails(bench.form("decay-typo", **cancer(optimizer={"noDecay": ["layr1.*"]})))
    assert "no parameter of the model is called 'layr1.*'" in err and "noDecay" in err


# ---- memory ----


def wide(hidden, **more):
    return cancer(**{"model": {"mlp": {"hidden": hidden}}, "steps": 4, "threads": 2, "optimizer": {"kind": "adamw", "ema": 0.999}, **more})


def test_a_budget_is_of_all_that_is_held(bench):
    """What the process takes above that of a model of nothing stays below what was planned, and that below the budget."""
    base = result(bench.train(bench.form("thin", **wide([4])), "-o", "json")[0])["facts"]
    for optimizer in ({"kind": "adamw", "ema": 0.999}, {"kind": "sgd", "momentum": 0}):
        form = bench.form("wide", **wide([2500, 2500], optimizer=optimizer))
        err = bench.fails(form, "--set", "memory=60Mi")
        needed = re.search(r"needs (\d+)(Ki|Mi) in all, and the budget is 60Mi", err)
        assert needed, err
        budget = int(needed[1]) // (1024 if needed[2] == "Ki" else 1) + 2  # and the look at the rows held out
        facts = result(bench.train(form, "-o", "json", "--set", f"memory={budget}Mi")[0])["facts"]
        assert facts["memoryPlanned"] <= budget << 20
        assert facts["memoryPeak"] - base["memoryPeak"] <= facts["memoryPlanned"] * 1.05 + (8 << 20)


def test_a_model_that_memory_cannot_hold_is_one_error(bench):
    form = bench.form("huge", **wide([30000, 20000]))
    script = f"ulimit -v 3000000; exec '{DHOW}' train '{form}' -q"
    p = subprocess.run(["bash", "-c", script], cwd=bench.folder, text=True, capture_output=True, timeout=SECONDS)
    assert p.returncode == 2 and len(re.findall("^error: ", p.stderr, re.M)) == 1, p.stderr
    assert "the largest is 'layer2.weight' [30000, 20000]: 2289Mi" in p.stderr
    err = bench.fails(form, "--set", "memory=1Gi")
    assert "the parameters take" in err and "the budget is 1Gi" in err and "'layer2.weight'" in err
    err = bench.fails(bench.form("huge-lstm", data={"path": "digits.parquet"}, label="digit", model={"lstm": {"width": 12000}}, threads=1,
                                 inputs=[{"name": "x", "kind": "array", "columns": ["image"], "shape": [8, 8]}]), "--set", "memory=512Mi")
    assert "'lstm1.state'" in err or "'layer1.state'" in err, err


def test_an_open_axis_is_as_long_as_the_data(bench):
    with_time(bench.folder / "time.onnx", ("x", 2))
    form = bench.form("time", **digits_as(("x", [32, 2])), model={"onnx": {"file": "time.onnx"}})
    out, _ = bench.train(form, "-o", "json", "--dir", "time")
    assert result(out)["facts"]["parityMaxRelative"] <= 1e-4
    served = onnxruntime.InferenceSession(str(bench.folder / "time" / "model.onnx"))  # and it still takes any length
    assert served.run(None, {served.get_inputs()[0].name: np.ones((3, 7, 2), np.float32)})[0].shape == (3, 10)


def test_axes_of_one_name_are_of_one_length(bench):
    with_time(bench.folder / "times.onnx", ("x", 2), ("y", 4))
    form = bench.form("times", **digits_as(("x", [32, 2]), ("y", [16, 4])), model={"onnx": {"file": "times.onnx"}})
    err = bench.fails(form)
    assert "input 'y' of the model: axis 1 is 'S', which is 32 elsewhere, and 16 in the data" in err


# ---- choices, by trial or by the form ----


def test_few_steps_of_batch_norm_are_looked_at_fairly(bench):
    """Running statistics are the plain mean of the first batches: one step is enough to be measured by."""
    form = bench.form("norm", **cancer(model={"mlp": {"hidden": [32], "norm": "batch"}}, steps=8, evaluateEvery=1, batchSize=128, seed=3,
                                       optimizer={"rate": 0.01}, schedule={"kind": "constant", "warmup": 0}))
    bench.train(form, "-q", "--dir", "norm")
    lines = [json.loads(line) for line in (bench.folder / "norm" / "metrics.jsonl").read_text().splitlines()]
    train = [line["value"] for line in lines if line["name"] == "train.logloss"]
    valid = [line["value"] for line in lines if line["name"] == "valid.logloss"]
    assert len(train) == len(valid) == 8
    # The loss of a step is that of the parameters before it.
    assert all(v < t + 0.1 for v, t in zip(valid[:-1], train[1:])), (train, valid)


def test_fp16_scales_its_loss(bench):
    form = bench.form("half", **cancer(precision="fp16", epochs=20, optimizer={"rate": 0.005}))
    out, err = bench.train(form, "-o", "json")
    run = result(out)
    assert run["facts"]["precision"] == "fp16" and run["metrics"]["auc"] > 0.97 and ", fp16, " in err
    # Labels far away from all others overflow a gradient in half precision: such steps are left out and said, and the scale comes down.
    form = csv(bench, "far.csv", [(i * 0.1, 30.0 * (i % 130 == 7)) for i in range(400)])
    form.update(loss="mse", precision="fp16", epochs=4, batchSize=8)
    out, err = bench.train(bench.form("far", **form), "-o", "json")
    said = re.findall(r"step \d+: a gradient overflowed, the step is left out; loss scale ([\d.e+]+)", err)
    assert result(out)["facts"]["skippedSteps"] == len(said) > 0 and float(said[-1]) < 65536


def test_batch_size_and_precision_by_trial(bench):
    form = bench.form("auto", **cancer(batchSize="auto", precision="auto", epochs=2, optimizer={"rate": 0.004}))
    out, err = bench.train(form, "-o", "json")
    run = result(out)
    assert run["params"]["rate"] == pytest.approx(0.004 * (run["facts"]["batchSize"] / 64) ** 0.5), "as the usual size is 64"
    assert 1 <= run["facts"]["batchSize"] <= 512 and "batch" in err and run["params"]["batchSize"] == run["facts"]["batchSize"]
    assert run["facts"]["precision"] in ("fp32", "bf16") and run["metrics"]["auc"] > 0.8


def test_ranking_puts_the_better_of_a_query_first(bench):
    r = np.random.default_rng(5)
    rows = [(q, *x, 2 * x[0] - x[1] + 3 * (q % 5)) for q in range(150) for x in r.normal(size=(8, 2))]
    (bench.folder / "rank.csv").write_text("query,a,b,y\n" + "".join(f"q{q},{a},{b},{y}\n" for q, a, b, y in rows))
    form = {"data": {"path": "rank.csv"}, "label": "y", "loss": "pairwise", "split": {"group": "query"}, "epochs": 15, "batchSize": 64,
            "inputs": [{"name": "features", "columns": ["a", "b"]}], "model": {"mlp": {"hidden": [16]}}, "optimizer": {"rate": 0.01}}
    out, _ = bench.train(bench.form("rank", **form), "-o", "json")
    session = onnxruntime.InferenceSession(str(bench.folder / result(out)["model"]))
    x = np.array([[a, b] for _, a, b, _ in rows], np.float32)
    p = session.run(None, {"features": x})[0][:, 0].reshape(150, 8)
    y = np.array([row[3] for row in rows]).reshape(150, 8)
    better = y[:, :, None] > y[:, None, :]
    assert ((p[:, :, None] > p[:, None, :]) & better).sum() / better.sum() > 0.97
    assert "split.group" in bench.fails(bench.form("ungrouped", **{**form, "split": {}}))


# ---- bad input ----


@pytest.mark.parametrize("change, says", [
    ({"label": "malign"}, "malign"),
    ({"label": None}, "label"),
    ({"data": {"path": "nowhere.parquet"}}, "nowhere.parquet"),
    ({"data": {}}, "data"),
    ({"model": {"mpl": {}}}, "mpl"),
    ({"model": {}}, "model"),
    ({"model": {"mlp": {}, "trees": {}}}, "two of"),
    ({"model": {"mlp": {"hidden": [0]}}}, "hidden"),
    ({"model": {"cnn": {}}}, "image"),
    ({"optimiser": {}}, "optimizer"),
    ({"batchSize": 100000}, "batchSize"),
    ({"batchSize": "some"}, "batchSize"),
    ({"earlyStop": {"metric": "beauty"}}, "beauty"),
    ({"metrics": ["auc", "beauty"]}, "beauty"),
    ({"metrics": ["mae"]}, "mae"),
    ({"metrics": ["beauty"], "model": {"trees": {}}}, "beauty"),
    ({"inputs": [{"name": "n", "columns": ["f0", "benign"]}]}, "benign"),
    ({"classWeights": [1, 2, 3]}, "classWeights"),
    ({"rows": "late.1"}, "server"),
    ({"split": {"at": "mean_radius", "test": 0.1}, "holdout": "1h"}, "split.test"),
    ({"memory": "1Mi", "model": {"mlp": {"hidden": [2048, 2048]}}}, "the parameters take"),
])
def test_a_form_that_cannot_be_is_refused_with_one_error(bench, change, says):
    form = {k: v for k, v in {**cancer(), **change}.items() if v is not None}
    p = bench.start(bench.form("bad", **form), "-q")
    _, err = p.communicate(timeout=SECONDS)
    assert p.returncode in (1, 2) and len(re.findall("^error: ", err, re.M)) == 1 and says in err, err


def test_a_model_that_cannot_be_gone_on_with_is_refused(bench):
    """Texts where the form has numbers, an operator that is not known, bytes that are no model: one error each, that says which."""
    h, width = onnx.helper, 30
    words = [h.make_node("LabelEncoder", ["c"], ["i"], domain="ai.onnx.ml", keys_strings=["a"], values_int64s=[1])]
    odd = [h.make_node("Hardmax", ["x"], ["y"])]
    x = h.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", width])
    for name, nodes, ins, outs, says in (
            ("words", words, [h.make_tensor_value_info("c", onnx.TensorProto.STRING, ["N", width])],
             [h.make_tensor_value_info("i", onnx.TensorProto.INT64, ["N", width])], "takes texts"),
            ("odd", odd, [x], [h.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", width])], "Hardmax")):
        model = h.make_model(h.make_graph(nodes, "g", ins, outs), opset_imports=[h.make_opsetid("", 17), h.make_opsetid("ai.onnx.ml", 3)])
        onnx.save(model, bench.folder / f"{name}.onnx")
        assert says in bench.fails(bench.form(name, **cancer(model={"onnx": {"file": f"{name}.onnx"}})), code=2 if name == "words" else 1)
    (bench.folder / "none.onnx").write_text("no model")
    assert "model" in bench.fails(bench.form("none", **cancer(model={"onnx": {"file": "none.onnx"}})))


def csv(bench, name, rows):
    (bench.folder / name).write_text("x,y\n" + "".join(f"{x},{y}\n" for x, y in rows))
    return {"data": {"path": name}, "label": "y", "model": {"mlp": {"hidden": [4]}}}


def test_bad_rows_are_named(bench):
    good = [(i * 0.1, i % 2) for i in range(200)]
    form = csv(bench, "empty.csv", [])
    assert "no rows in" in bench.fails(bench.form("empty", **form))
    form = csv(bench, "gone.csv", [*good, (1, "")])
    assert "y" in bench.fails(bench.form("gone", **form))
    form = csv(bench, "one.csv", [(i, 1) for i in range(100)])
    assert bench.fails(bench.form("one", **form))
    wide = csv(bench, "wide.csv", [*good, (1, 2)])
    wide["inputs"] = [{"name": "features", "columns": ["x", "z"]}]
    assert "no column 'z'" in bench.fails(bench.form("missing", **wide))
    for label, says in ((-1, "-1"), (0.5, "0.5"), (2000000, "2000000")):
        form = csv(bench, "range.csv", [*good, (1, label)])
        err = bench.fails(bench.form("range", **form))
        assert "'y'" in err and says in err and "row 200" in err, err
    strict = csv(bench, "nan.csv", [*good, ("nan", 1)])
    strict["inputs"] = [{"name": "features", "columns": ["x"], "missing": "error"}]
    assert "x" in bench.fails(bench.form("nan", **strict))
    for rows, row in (([*good, ("inf", 1)], 200), ([("-Infinity", 1), *good], 0)):  # the second makes the column one of text
        err = bench.fails(bench.form("words", **csv(bench, "words.csv", rows)))
        assert "column 'x'" in err and f"row {row} " in err and "hint:" in err, err


def test_columns_that_are_left_out_are_named(bench):
    (bench.folder / "mixed.csv").write_text("x,city,y\n" + "".join(f"{i * 0.1},{'Abu Dhabi' if i % 3 else 7},{i % 2}\n" for i in range(200)))
    _, err = bench.train(bench.form("mixed", data={"path": "mixed.csv"}, label="y", model={"mlp": {"hidden": [4]}}, epochs=1))
    assert re.search(r"^left out, .*: city$", err, re.M), err


def test_a_full_disk_leaves_the_last_checkpoint_whole(bench):
    """No file may grow beyond a part of a checkpoint: writing one ends with one error, and from the one before it goes on."""
    form = bench.form("full", **cancer(model={"mlp": {"hidden": [512, 512]}}, epochs=40))
    folder = bench.folder / "full"
    p = bench.start(form, "-q", "--dir", folder)
    eventually(lambda: list(folder.glob("checkpoints/step-*")) or p.poll() is not None, 60, what="a checkpoint")
    p.send_signal(signal.SIGINT)
    p.communicate(timeout=60)
    kept = {f: f.read_bytes() for f in (folder / "checkpoints").rglob("*") if f.is_file()}
    p = subprocess.Popen(["bash", "-c", f"ulimit -f 400; trap '' XFSZ; exec {DHOW} train {form} -q --dir {folder} --resume"], cwd=bench.folder,
                         env={k: v for k, v in os.environ.items() if not k.startswith("DHOW_")}, text=True, stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    _, err = p.communicate(timeout=SECONDS)
    assert p.returncode != 0 and len(re.findall("^error: ", err, re.M)) == 1 and "checkpoint" in err and "too large" in err.lower(), err
    assert kept == {f: f.read_bytes() for f in (folder / "checkpoints").rglob("*") if f.is_file()}, "and no half one beside it"
    bench.train(form, "-q", "--dir", folder, "--resume")


def test_a_loss_that_is_no_number_names_the_step(bench):
    form = csv(bench, "large.csv", [(i, i * 1e30) for i in range(200)])
    form.update(loss="mse", optimizer={"kind": "sgd", "rate": 100, "momentum": 0}, schedule={"kind": "constant", "warmup": 0})
    err = bench.fails(bench.form("large", **form))
    assert re.search(r"the loss became (NaN|infinite) at step \d+", err) and "checkpoint" in err


def test_an_index_that_its_table_does_not_have_names_both(bench):
    h, r = onnx.helper, np.random.default_rng(1)
    weights = [onnx.numpy_helper.from_array(r.normal(size=s).astype(np.float32), n) for n, s in (("table", (5, 4)), ("w", (12, 1)))]
    nodes = [h.make_node("Gather", ["table", "ids"], ["e"]), h.make_node("Flatten", ["e"], ["f"]), h.make_node("MatMul", ["f", "w"], ["y"])]
    graph = h.make_graph(nodes, "words", [h.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["N", 3])],
                         [h.make_tensor_value_info("y", 1, ["N", 1])], weights)
    onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8), bench.folder / "words.onnx")
    form = {"data": {"path": "words.parquet"}, "label": "y", "loss": "mse", "epochs": 2, "model": {"onnx": {"file": "words.onnx"}},
            "inputs": [{"name": "ids", "kind": "array", "columns": ["words"], "ids": True}]}
    for part, says in (("train", "of a batch at step 1, its table"), ("valid", "in row 2 of a batch of the rows held out, its table")):
        for name, bad in (("words", 7 if part == "train" else 2), ("held", 7)):
            duckdb.execute(f"copy (select [case when i % 8 = 7 then {bad} else i % 5 end, 3, 4] as words, i::double as y from range(6, 206) r(i)) "
                           f"to '{bench.folder}/{name}.parquet'")
        files = [{"path": "words.parquet"}, {"path": "held.parquet", "part": "valid"}]
        err = bench.fails(bench.form("words", **{**form, "data": {"files": files}, "split": {"valid": 0}}))
        assert "error: input 'ids' has 7 in row" in err and f"{says} 'table' has 5 rows" in err, err


def test_no_checkpoint_has_weights_that_are_no_numbers(bench):
    """Decay alone makes them a thousand times as large with each step, and what they say stays the same."""
    form = csv(bench, "still.csv", [(3, i % 2) for i in range(200)])
    form.update(loss="mae", optimizer={"kind": "sgd", "rate": 100, "momentum": 0, "decay": 10}, epochs=40, checkpoint={"every": 1, "keep": 1})
    form["schedule"] = {"kind": "constant", "warmup": 0}
    folder = bench.folder / "still"
    err = bench.fails(bench.form("still", **form), "--dir", folder)
    step = int(re.search(r"'layer1\.weight' has numbers that are NaN or infinite after step (\d+)", err)[1])
    assert f"the last good checkpoint is {folder}/checkpoints/step-{step - 1}" in err, err
    assert {p.name for p in (folder / "checkpoints").iterdir()} <= {f"step-{step - 1}", "best.json"} | {f"step-{s}" for s in range(step)}


# ---- sweeps, profile ----


def test_a_grid_keeps_the_best(bench):
    form = bench.form("grid", **cancer(epochs=2), sweep={"kind": "grid", "over": {"optimizer.rate": [1e-5, 0.01], "seed": [1, 2]}})
    out, _ = bench.train(form, "-o", "json", "--dir", "grid")
    sweep = result(out)
    assert len(sweep["trials"]) == 4 and {t["state"] for t in sweep["trials"]} == {"done"}
    best = sweep["trials"][sweep["best"] - 1]
    assert best["measure"] == min(t["measure"] for t in sweep["trials"]) and best["set"]["optimizer.rate"] == 0.01
    assert (bench.folder / "grid" / "model.onnx").read_bytes() == (bench.folder / best["run"] / "model.onnx").read_bytes()


def test_random_draws_are_the_seeds(bench):
    over = {"optimizer.rate": {"min": 1e-4, "max": 0.03, "scale": "log"}, "model.mlp.hidden": [[8], [16]]}
    drawn = []
    for seed in (1, 1, 2):
        form = bench.form("random", **cancer(epochs=1), sweep={"kind": "random", "trials": 3, "over": over, "seed": seed})
        out, _ = bench.train(form, "-o", "json")
        trials = result(out)["trials"]
        assert len(trials) == 3 and all(1e-4 <= t["set"]["optimizer.rate"] <= 0.03 and t["set"]["model.mlp.hidden"] in ([8], [16]) for t in trials)
        drawn.append([t["set"] for t in trials])
    assert drawn[0] == drawn[1] != drawn[2]


def test_halving_gives_more_epochs_to_the_better(bench):
    over = {"optimizer.rate": {"min": 1e-5, "max": 0.03, "scale": "log"}}
    form = bench.form("half", **cancer(epochs=4), sweep={"kind": "halving", "factor": 2, "trials": 4, "over": over, "metric": "auc"})
    out, _ = bench.train(form, "-o", "json", "--dir", "half")
    assert sorted(t["epochs"] for t in result(out)["trials"]) == [1, 1, 2, 4]


def test_a_profile_adds_up(bench):
    out, err = bench.train(bench.form("profile", **cancer(epochs=3)), "--profile", "--dir", "profile")
    trace = json.loads((bench.folder / "profile" / "profile.json").read_text())
    assert all({"name", "ts", "dur", "ph"} <= set(e) for e in trace["traceEvents"]) and len(trace["traceEvents"]) > 5
    assert "GFLOP/s" in err and "waiting for data" in err


# ---- the guide ----


def test_the_forms_of_the_guide_can_be_read(bench):
    """Each block fenced as ```yaml train is a whole form; those whose data is there are trained for one step."""
    text = (ROOT / "docs" / "guides" / "training.md").read_text()
    forms = re.findall(r"^```yaml train\n(.*?)^```$", text, re.S | re.M)
    assert len(forms) >= 4
    for i, form in enumerate(forms):
        path = bench.folder / f"guide-{i}.yaml"
        path.write_text(form)
        keep = yaml.safe_load(form)
        there = keep.get("data", {}).get("path")
        args = () if "sweep" in keep or "trees" in keep["model"] else ("--set", "epochs=1")
        if there and (bench.folder / there).exists():
            bench.train(path, "-q", *args)
        else:
            p = bench.start(path, "-q", *args)
            _, err = p.communicate(timeout=SECONDS)
            assert "there is no" in err or "cannot" in err or "server" in err or "No such" in err, f"{form}\n{err}"
