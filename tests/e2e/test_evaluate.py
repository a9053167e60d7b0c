# SPDX-License-Identifier: Apache-2.0
"""Versions are judged by what their labels are: 0 and 1, classes, numbers. Machines report their load; how worn one is (a number), and in
which of three states, is known minutes later."""

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import yaml
from conftest import Daemon, daemon_close
from flights import blob, pipeline, rows_of
from sklearn import metrics

HOLDOUT = 12  # hours
RECIPE = """
{apiVersion: dhow/v1, kind: Source, metadata: {name: machines_file}, spec: {path: machines.csv, format: csv}}
---
apiVersion: dhow/v1
kind: Dataset
metadata: {name: machines}
spec:
  sources: [machines_file]
  query: |
    SELECT id, TIMESTAMP '2001-01-01' + to_seconds(second) AS moment, moment + INTERVAL 5 MINUTE AS known, machine, load, failed, state, wear
    FROM machines_file
  id: id
  eventTime: moment
  knownAt: known
---
{apiVersion: dhow/v1, kind: Entity, metadata: {name: machine}, spec: {keys: [machine]}}
---
apiVersion: dhow/v1
kind: FeatureView
metadata: {name: recent}
spec:
  dataset: machines
  entity: machine
  windows: [20m, 1h]
  ttl: 1d
  aggregates: [{name: load, function: mean, column: load}]
---
{apiVersion: dhow/v1, kind: FeatureService, metadata: {name: load}, spec: {views: [recent]}}
"""
TREES = {"trees": {"rounds": 20, "depth": 3, "learningRate": 0.3}}
MLP = {"mlp": {"hidden": [32]}}


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    one = Daemon(tmp_path_factory.mktemp("judged"))
    r = np.random.default_rng(5)
    load, rows = np.zeros(10), []
    for i in range(6000):
        m = i % 10
        load[m] = 0.8 * load[m] + 20 * r.random()
        bad = load[m] + 20 * r.random()
        rows.append((i, i // 10 * 600, f"m{m}", int(load[m]), int(bad > 65), int(bad > 55) + int(bad > 70), 3 * bad + 100))
    one.start()
    pd.DataFrame(rows, columns=["id", "second", "machine", "load", "failed", "state", "wear"]).to_csv(one.sources / "machines.csv", index=False)
    made = [yaml.safe_dump({"apiVersion": "dhow/v1", "kind": "TrainingSet", "metadata": {"name": f"{label}_rows"},
                            "spec": {"dataset": "machines", "service": "load", "label": label}}) for label in ("failed", "state", "wear")]
    one.ok("apply", "-f", "-", input="---\n".join([RECIPE, *made]))
    one.ok("apply", "-f", "-", input=pipeline("take", ("take", "ingest", {"dataset": "machines"})))
    assert one.cli("run", "take").code == 0
    yield one
    daemon_close(one)


def judge(one, name, label, model, bounds, **form):
    """Trains, registers, judges and gates a version of the model `name`; the command's result."""
    one.ok("apply", "-f", "-", input=yaml.safe_dump({"apiVersion": "dhow/v1", "kind": "Model", "metadata": {"name": name}, "spec": {}}))
    one.ok("apply", "-f", "-", input=pipeline(
        name,
        ("rows", "build", {"trainingSet": f"{label}_rows", "version": "machines.1"}),
        ("train", "train", {"rows": "${steps.rows.version}", "holdout": f"{HOLDOUT}h", "model": model, **form}),
        ("register", "register", {"model": name, "run": "${steps.train.job}"}),
        ("judge", "evaluate", {"model": name, "version": "${steps.register.version}", "rows": "${steps.rows.version}", "holdout": f"{HOLDOUT}h",
                               "parityRows": 200}),
        ("gate", "gate", {"model": name, "version": "${steps.register.version}", "metrics": "${steps.judge.metrics}", "bounds": bounds})))
    return one.cli("run", name, seconds=120)


def held_out(one, version, label):
    """Labels of the rows that it was judged on, and what ONNX Runtime makes of them."""
    spec = one.get("modelversions", version)["spec"]
    rows_name = next(i for i in spec["inputs"] if i.startswith(f"DatasetVersion/{label}_rows")).split("/")[1]
    rows = rows_of(one, rows_name)
    rows = rows[rows.moment > rows.moment.max() - pd.Timedelta(hours=HOLDOUT)]
    session = onnxruntime.InferenceSession(str(blob(one, spec["onnx"])))
    x = rows[spec["signature"]["features"]].to_numpy(np.float32)
    return rows[label].to_numpy(), session.run(None, {"features": x})[0]


def measured(one, version):
    return one.get("modelversions", version)["status"]["evaluation"]


@pytest.mark.parametrize("kind, model, form", [("trees", TREES, {}), ("mlp", MLP, {"epochs": 20})])
def test_numbers(one, kind, model, form):
    name = f"wear-{kind}"
    done = judge(one, name, "wear", model, [{"metric": "r2", "min": 0.3}, {"metric": "mae", "max": 25}], task="regression", **form)
    assert done.code == 0, done.err
    y, p = held_out(one, f"{name}.1", "wear")
    got = measured(one, f"{name}.1")
    assert got["rows"] == len(y) > 500 and got["champion"] is None and not {"auc", "logLoss"} & set(got)
    assert got["mae"] == pytest.approx(metrics.mean_absolute_error(y, p[:, 0]), rel=1e-4)
    assert got["rmse"] == pytest.approx(metrics.root_mean_squared_error(y, p[:, 0]), rel=1e-4)
    assert got["r2"] == pytest.approx(metrics.r2_score(y, p[:, 0]), rel=1e-4)
    assert kind != "trees" or got["parityMaxAbs"] < 1e-5


@pytest.mark.parametrize("kind, model, form", [("trees", TREES, {}), ("mlp", MLP, {"epochs": 20})])
def test_classes(one, kind, model, form):
    name = f"state-{kind}"
    done = judge(one, name, "state", model, [{"metric": "accuracy", "min": 0.4}, {"metric": "f1", "min": 0.3}], **form)
    assert done.code == 0, done.err
    y, p = held_out(one, f"{name}.1", "state")
    got = measured(one, f"{name}.1")
    assert p.shape[1] == 3 and got["rows"] == len(y) and "auc" not in got
    assert got["logLoss"] == pytest.approx(metrics.log_loss(y, p, labels=[0, 1, 2]), rel=1e-4)
    assert got["accuracy"] == pytest.approx(metrics.accuracy_score(y, p.argmax(1)), abs=1e-9)
    assert got["f1"] == pytest.approx(metrics.f1_score(y, p.argmax(1), average="macro"), abs=1e-9)


def test_two_classes_as_ever(one):
    done = judge(one, "failed", "failed", TREES, [{"metric": "auc", "min": 0.7}])
    assert done.code == 0, done.err
    y, p = held_out(one, "failed.1", "failed")
    got = measured(one, "failed.1")
    assert got["auc"] == pytest.approx(metrics.roc_auc_score(y, p[:, 0]), abs=1e-6)
    assert got["logLoss"] == pytest.approx(metrics.log_loss(y, p[:, 0]), rel=1e-4)
    assert got["averagePrecision"] == pytest.approx(metrics.average_precision_score(y, p[:, 0]), abs=1e-6)
    assert got["rmse"] == pytest.approx(np.sqrt(metrics.brier_score_loss(y, p[:, 0])), rel=1e-4)


def test_a_number_is_compared_with_the_champions_in_its_direction(one):
    """Less error is better, more explained variance is; a champion that answers another question is not asked."""
    bounds = [{"metric": "mae", "championWithin": 0.5}, {"metric": "r2", "championWithin": 0.01}]
    assert judge(one, "wear", "wear", TREES, bounds, task="regression").code == 0
    one.http("POST", one.path("models", "wear", "alias"), json={"alias": "champion", "version": "wear.1"})
    worse = judge(one, "wear", "wear", {"trees": {"rounds": 1, "depth": 1}}, bounds, task="regression")
    assert worse.code == 3 and "mae is" in worse.err and "worse than the champion's" in worse.err and "r2 is" in worse.err, worse.err
    got = measured(one, "wear.2")
    assert got["champion"]["mae"] == pytest.approx(measured(one, "wear.1")["mae"]) and got["champion"]["mae"] < got["mae"]

    other = judge(one, "wear", "state", TREES, [{"metric": "accuracy", "min": 0.5}])
    assert other.code == 0 and measured(one, "wear.3")["champion"] is None, other.err
    said = one.cli("logs", f"{one.get('modelversions', 'wear.3')['spec']['job'].rsplit('-', 1)[0]}-judge").out
    assert "the champion is not judged: 'wear.1' gives 1 numbers a row, 'wear.3' 3" in said, said


def test_what_is_no_class_is_refused(one):
    """Rows of another label than the model has learned."""
    assert judge(one, "three", "state", TREES, [{"metric": "accuracy", "min": 0.5}]).code == 0
    rows = next(v["metadata"]["name"] for v in one.get("datasetversions")["items"] if v["metadata"]["name"].startswith("wear_rows"))
    one.ok("apply", "-f", "-", input=pipeline("wrong", ("judge", "evaluate", {"model": "three", "version": "three.1", "rows": rows})))
    done = one.cli("run", "wrong", seconds=60)
    assert done.code == 1 and "is none of the 3 classes of version 'three.1'" in done.err, done.err
