# SPDX-License-Identifier: Apache-2.0
"""Losses that compare rows with each other: points that are near where labels are alike, and rankings."""

import json

import numpy as np
import onnxruntime
import pytest
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier
from test_train import bench, data, result  # noqa: F401 (fixtures)

DIGITS = {"data": {"path": "digits.parquet"}, "label": "digit", "split": {"valid": 0.2},
          "inputs": [{"name": "image", "kind": "array", "columns": ["image"], "normalise": "image"}]}
TRIPLET = {**DIGITS, "loss": "triplet", "outputs": 16, "model": {"mlp": {"hidden": [64]}}, "epochs": 10, "batchSize": 128}


def test_points_of_one_label_are_near(bench):  # noqa: F811
    out, _ = bench.train(bench.form("points", **TRIPLET), "-o", "json")
    run = result(out)
    assert run["metrics"]["recallAt1"] > 0.93 and run["metrics"]["recallAt5"] >= run["metrics"]["recallAt1"]
    assert run["signature"]["outputs"] == [{"name": "embedding", "type": "FP32", "shape": [-1, 16]}]
    x, y = load_digits(return_X_y=True)
    session = onnxruntime.InferenceSession(str(bench.folder / run["model"]))
    points = session.run(["embedding"], {"image": x.astype(np.float32)})[0]
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1, rtol=1e-5)
    half = KNeighborsClassifier(1).fit(points[::2], y[::2])
    assert half.score(points[1::2], y[1::2]) > 0.95


def test_a_query_is_learned_from_whole_groups(bench):  # noqa: F811
    """Many small groups, far apart in the file: batches of single rows would hardly ever hold a pair."""
    r = np.random.default_rng(5)
    x = r.normal(size=(4000, 8, 2))
    y = np.clip(np.round(2 * x[..., 0] - x[..., 1] + 1 + r.normal(size=(4000, 8)) * 0.3), 0, 4).astype(int)
    rows = [(f"q{q}", *x[q, k], y[q, k]) for k in range(8) for q in range(4000)]
    (bench.folder / "queries.csv").write_text("query,a,b,y\n" + "".join(",".join(map(str, row)) + "\n" for row in rows))
    form = {"data": {"path": "queries.csv"}, "label": "y", "loss": "pairwise", "split": {"group": "query", "valid": 0.2}, "epochs": 2,
            "batchSize": 64, "inputs": [{"name": "f", "columns": ["a", "b"]}], "model": {"mlp": {"hidden": [16]}}, "optimizer": {"rate": 0.003}}
    for margin in (0, 0.5):
        out, _ = bench.train(bench.form("queries", **form, lossWith={"margin": margin}), "-o", "json")
        run = result(out)
        assert run["metrics"]["pairAccuracy"] > 0.97 and run["metrics"]["ndcg"] > 0.98
        session = onnxruntime.InferenceSession(str(bench.folder / run["model"]))
        p = session.run(None, {"f": x.reshape(-1, 2).astype(np.float32)})[0].reshape(4000, 8)
        better = y[:, :, None] > y[:, None, :]
        assert abs(((p[:, :, None] > p[:, None, :]) & better).sum() / better.sum() - run["metrics"]["pairAccuracy"]) < 0.01


def test_an_autoencoder_of_several_inputs_is_measured_on_all(bench):  # noqa: F811
    form = {"data": {"path": "cancer.parquet"}, "model": {"autoencoder": {"latent": 8}}, "epochs": 3,
            "inputs": [{"name": "one", "columns": ["mean_radius", "mean_area"]}, {"name": "two", "columns": ["worst_area", "mean_texture"]}]}
    out, _ = bench.train(bench.form("two", **form), "-o", "json")
    assert 0 < result(out)["metrics"]["rmse"] < 3


def test_huber_has_its_delta(bench):  # noqa: F811
    """With a large delta it is half of the squared error, from the first step on."""
    form = {"data": {"path": "cancer.parquet"}, "label": "mean_radius", "model": {"mlp": {"hidden": [8]}}, "epochs": 1, "deterministic": True,
            "inputs": [{"name": "x", "columns": ["mean_area", "mean_texture"]}], "batchSize": 64, "optimizer": {"kind": "sgd", "rate": 1e-6}}
    losses = []
    for more in ({"loss": "mse"}, {"loss": "huber", "lossWith": {"delta": 1e6}}, {"loss": "huber", "lossWith": {"delta": 0.5}}):
        out, _ = bench.train(bench.form("huber", **form, **more), "-o", "json")
        told = [json.loads(line) for line in (bench.folder / result(out)["dir"] / "metrics.jsonl").read_text().splitlines()]
        losses.append(next(m["value"] for m in told if m["name"] == "train.loss"))
    assert losses[1] == pytest.approx(losses[0] / 2, rel=1e-3) and losses[2] < losses[1] / 2


@pytest.mark.parametrize("change, says", [
    ({"task": "classification", "loss": "mae"}, "loss"),
    ({"task": "regression", "loss": "pairwise"}, "loss"),
    ({"weight": "digit"}, "weight"),
    ({"labelSmoothing": 0.1}, "labelSmoothing"),
    ({"classWeights": "balanced"}, "classWeights"),
    ({"metrics": ["auc"]}, "recallAt1"),
    ({"lossWith": {"margin": -1}}, "margin"),
])
def test_what_does_not_fit_the_task_is_refused(bench, change, says):  # noqa: F811
    assert says in bench.fails(bench.form("unfit", **{**TRIPLET, **change}))
