# SPDX-License-Identifier: Apache-2.0
"""Labels that are numbers, in whatever unit: a network learns how far they are from their mean, and speaks in their unit."""

import json

import duckdb
import numpy as np
import onnxruntime
import pytest
from training import Bench, result

N, HELD = 4000, 800


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    folder = tmp_path_factory.mktemp("numbers")
    r = np.random.default_rng(3)
    x = r.standard_normal((N, 3))
    far = 5000 + 40 * (x[:, 0] - 0.5 * x[:, 1] ** 2) + 4 * r.standard_normal(N)
    near = 1e-4 * (x[:, 1] + 0.1 * r.standard_normal(N))
    con = duckdb.connect()
    con.execute("create table t(id integer, a double, b double, c double, far double, near double)")
    con.executemany("insert into t values (?, ?, ?, ?, ?, ?)",
                    [(i, *map(float, x[i]), float(far[i]), float(near[i])) for i in range(N)])
    con.execute(f"copy t to '{folder}/t.parquet' (format parquet)")
    np.save(folder / "x.npy", x.astype(np.float32))
    np.save(folder / "pair.npy", np.stack([far, x[:, 2] * 20 - 70], 1).astype(np.float32))
    return Bench(folder)


def form(bench, name, label, **more):
    return bench.form(name, **{"data": {"path": "t.parquet"}, "label": label, "task": "regression", "model": {"mlp": {"hidden": [32]}},
                               "inputs": [{"name": "x", "kind": "numbers", "columns": ["a", "b", "c"]}], "batchSize": 64, "epochs": 20,
                               "optimizer": {"rate": 0.01},
                               "split": {"valid": HELD / N}, **more})


def losses(bench, folder):
    lines = [json.loads(line) for line in (bench.folder / folder / "metrics.jsonl").read_text().splitlines()]
    return [line["value"] for line in lines if line["name"] == "train.loss"]


def predicted(bench, folder, label):
    """What the model file says of all rows, and their labels."""
    t = duckdb.connect().execute(f"select * from '{bench.folder}/t.parquet' order by id").df()
    session = onnxruntime.InferenceSession(str(bench.folder / folder / "model.onnx"))
    given = session.get_inputs()[0].name
    return session.run(None, {given: t[["a", "b", "c"]].to_numpy(np.float32)})[0], np.stack(t[label].to_numpy()).reshape(N, -1)


def test_several_numbers_a_row(bench):
    """Each has its own mean; all have one unit, so that the loss over them is in theirs."""
    out, _ = bench.train(form(bench, "pair", "pair", data={"files": [{"path": "x.npy", "column": "x"}, {"path": "pair.npy", "column": "pair"}]},
                              inputs=[{"name": "x", "kind": "array", "columns": ["x"]}]), "-o", "json", "--dir", "pair")
    x, y = np.load(bench.folder / "x.npy"), np.load(bench.folder / "pair.npy")
    session = onnxruntime.InferenceSession(str(bench.folder / "pair/model.onnx"))
    p = session.run(None, {session.get_inputs()[0].name: x})[0]
    assert p.shape == y.shape and ((p - y) ** 2).mean(0) == pytest.approx([0, 0], abs=100) and result(out)["metrics"]["r2"] > 0.95
    assert losses(bench, "pair")[-1] == pytest.approx(((p - y) ** 2).mean(), rel=0.25)


DELTA = 10


@pytest.mark.parametrize("label, loss, of", [
    ("far", "mse", lambda d: np.mean(d ** 2)),
    ("far", "mae", lambda d: np.mean(abs(d))),
    ("far", "huber", lambda d: np.mean(np.where(abs(d) <= DELTA, d ** 2 / 2, DELTA * (abs(d) - DELTA / 2)))),
    ("near", "mse", lambda d: np.mean(d ** 2)),
])
def test_far_from_zero_and_in_small_units(bench, label, loss, of):
    name = f"{label}-{loss}"
    out, _ = bench.train(form(bench, name, label, loss=loss, **({"lossWith": {"delta": DELTA}} if loss == "huber" else {})),
                         "-o", "json", "--dir", name)
    got = result(out)["metrics"]
    assert got["r2"] > 0.95, got
    p, y = predicted(bench, name, label)
    assert p.shape == y.shape
    # The loss is told in the label's unit; it is a mean over steps of weights that still move, so only near the end's.
    assert losses(bench, name)[-1] == pytest.approx(of(p - y), rel=0.25)
    # It begins where a model of nothing but the mean is, give or take its first weights, not at zero.
    assert losses(bench, name)[0] < 10 * of(y - y.mean(0))
    assert got["rmse"] == pytest.approx(np.sqrt(np.mean((p - y) ** 2)), rel=0.25)


def test_it_goes_on_with_the_same_bits(bench):
    whole = form(bench, "whole", "far", deterministic=True, checkpoint={"every": 50, "keep": 100})
    bench.train(whole, "-q", "--dir", "whole")
    (bench.folder / "part").mkdir()
    steps = sorted(int(p.name[5:]) for p in (bench.folder / "whole/checkpoints").glob("step-*"))
    source, to = bench.folder / "whole/checkpoints", bench.folder / "part/checkpoints"
    to.mkdir()
    (source / f"step-{steps[1]}").rename(to / f"step-{steps[1]}")
    bench.train(whole, "-q", "--dir", "part", "--resume")
    assert (bench.folder / "part/model.onnx").read_bytes() == (bench.folder / "whole/model.onnx").read_bytes()
