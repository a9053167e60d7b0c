# SPDX-License-Identifier: Apache-2.0
"""Metrics that are counted batch by batch and merged say what scikit-learn says of all rows at once."""

import json
import os
import subprocess

import numpy as np
import pytest
from sklearn import metrics as sk

ROOT = os.environ.get("DHOW_ROOT") or os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROGRAM = os.path.join(ROOT, "build", "tests", "tool-metrics")


def count(tmp_path, task, p, y, classes=0, logits=False, exact_max=0, parts=1):
    p.astype(np.float32).tofile(tmp_path / "p")
    y.tofile(tmp_path / "y")
    words = [PROGRAM, task, classes, int(logits), exact_max, parts, tmp_path / "p", tmp_path / "y"]
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def near(ours, theirs, within=1e-6):
    assert abs(ours - theirs) <= within, (ours, theirs)


def binary(n, seed=1, ties=False):
    r = np.random.default_rng(seed)
    y = (r.random(n) < 0.3).astype(np.float32)
    p = (1 / (1 + np.exp(-(1.5 * y - 1 + r.normal(size=n))))).astype(np.float32)
    return (np.round(p, 2) if ties else p), y


@pytest.mark.parametrize("parts", [1, 5])
@pytest.mark.parametrize("ties", [False, True])
def test_two_classes(tmp_path, parts, ties):
    p, y = binary(20000, ties=ties)
    p[:3], y[:3] = [0, 1, 1], [0, 1, 0]
    m = count(tmp_path, "binary", p, y, parts=parts)
    q = np.clip(p.astype(np.float64), 1e-7, 1 - 1e-7)
    near(m["auc"], sk.roc_auc_score(y, p))
    near(m["averagePrecision"], sk.average_precision_score(y, p))
    near(m["logLoss"], sk.log_loss(y, q))
    near(m["accuracy"], sk.accuracy_score(y, p >= 0.5))
    near(m["precision"], sk.precision_score(y, p >= 0.5))
    near(m["recall"], sk.recall_score(y, p >= 0.5))
    near(m["f1"], sk.f1_score(y, p >= 0.5))
    assert "aucError" not in m


def test_logits_are_what_their_probabilities_are(tmp_path):
    p, y = binary(5000)
    z = np.log(p.astype(np.float64) / (1 - p.astype(np.float64)))
    a, b = count(tmp_path, "binary", p, y), count(tmp_path, "binary", z, y, logits=True)
    for name in a:
        near(a[name], b[name], 2e-5)


@pytest.mark.parametrize("logits", [False, True])
def test_beyond_its_room_the_error_is_bounded(tmp_path, logits):
    p, y = binary(300000)
    scores = np.log(p / (1 - p)) if logits else p
    m = count(tmp_path, "binary", scores, y, logits=logits, exact_max=1000, parts=3)
    for name, truth in [("auc", sk.roc_auc_score(y, scores)), ("averagePrecision", sk.average_precision_score(y, scores))]:
        assert 0 < m[name + "Error"] < 2e-3
        near(m[name], truth, m[name + "Error"])
    coarse = np.round(p, 1)  # ties in truth, too
    m = count(tmp_path, "binary", coarse, y, exact_max=1000)
    near(m["auc"], sk.roc_auc_score(y, coarse), 1e-9)
    near(m["averagePrecision"], sk.average_precision_score(y, coarse), 1e-9)


@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("logits", [False, True])
def test_many_classes(tmp_path, parts, logits):
    r = np.random.default_rng(2)
    n, classes = 6000, 12
    y = r.integers(0, classes - 2, n)  # one class never comes, one is only claimed
    z = (r.normal(size=(n, classes)) + 2 * np.eye(classes)[y]).astype(np.float32)
    z[:, -1] -= 100
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    m = count(tmp_path, "classes", z if logits else p, y.astype(np.int64), classes, logits, parts=parts)
    guess = z.argmax(1)
    near(m["accuracy"], sk.accuracy_score(y, guess))
    near(m["logLoss"], sk.log_loss(y, p.astype(np.float64) / p.sum(1, keepdims=True, dtype=np.float64), labels=range(classes)), 1e-5)
    near(m["topK"], sk.top_k_accuracy_score(y, p, k=3, labels=range(classes)))
    near(m["precision"], sk.precision_score(y, guess, average="macro", zero_division=0))
    near(m["recall"], sk.recall_score(y, guess, average="macro", zero_division=0))
    near(m["f1"], sk.f1_score(y, guess, average="macro", zero_division=0))
    top, right = p.max(1).astype(np.float64), guess == y
    bins = np.clip(np.ceil(top * 10) - 1, 0, 9)
    near(m["calibrationError"], sum(abs(top[bins == b].sum() - right[bins == b].sum()) for b in range(10)) / n, 1e-5)


def test_tokens(tmp_path):
    r = np.random.default_rng(3)
    z = r.normal(size=(2000, 50)).astype(np.float32)
    y = r.integers(-1, 50, 2000)
    m = count(tmp_path, "tokens", z, y.astype(np.int64), 50, parts=2)
    there = y >= 0
    p = np.exp(z.astype(np.float64))
    loss = sk.log_loss(y[there], (p / p.sum(1, keepdims=True))[there], labels=range(50))
    near(m["logLoss"], loss)
    near(m["perplexity"], np.exp(loss), 1e-4)
    near(m["accuracy"], sk.accuracy_score(y[there], z.argmax(1)[there]))


@pytest.mark.parametrize("parts", [1, 7])
def test_numbers(tmp_path, parts):
    r = np.random.default_rng(4)
    y = (1e4 + r.normal(size=9999)).astype(np.float32)
    p = (y + r.normal(size=9999) * 0.3).astype(np.float32)
    m = count(tmp_path, "numbers", p, y, parts=parts)
    y, p = y.astype(np.float64), p.astype(np.float64)
    near(m["rmse"], np.sqrt(sk.mean_squared_error(y, p)))
    near(m["mae"], sk.mean_absolute_error(y, p))
    near(m["r2"], sk.r2_score(y, p))


def ranked(relevance, group):
    rows = np.zeros(len(relevance), np.dtype([("relevance", np.float32), ("group", np.int64)], align=True))
    rows["relevance"], rows["group"] = relevance, group
    return rows


def ranks_of_all(p, y, group):
    """Share of pairs in order, and scikit-learn's NDCG over the groups that have any relevance."""
    right = pairs = 0
    gains = []
    for g in np.unique(group):
        score, rel = p[group == g].astype(np.float64), y[group == g].astype(np.float64)
        better = rel[:, None] > rel[None, :]
        right += (((score[:, None] > score[None, :]) + 0.5 * (score[:, None] == score[None, :])) * better).sum()
        pairs += better.sum()
        if len(rel) > 1 and rel.max() > 0:
            gains.append(sk.ndcg_score([rel], [score]))
        elif rel.max() > 0:
            gains.append(1)
    return right / pairs, np.mean(gains)


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("ties", [False, True])
def test_ranking(tmp_path, parts, ties):
    r = np.random.default_rng(6)
    group = r.integers(-50, 50, 3000) ** 3
    y = np.maximum(r.integers(-2, 5, 3000), 0)
    p = (y + r.normal(size=3000) * 2).astype(np.float32)
    p = np.round(p) if ties else p
    m = count(tmp_path, "ranking", p, ranked(y, group), parts=parts)
    pairs, gain = ranks_of_all(p, y, group)
    near(m["pairAccuracy"], pairs, 1e-9)
    near(m["ndcg"], gain, 1e-9)
    below = count(tmp_path, "ranking", p, ranked(y - 1, group), parts=parts)
    near(below["pairAccuracy"], pairs, 1e-9)
    assert below["ndcg"] is None


def test_more_groups_than_there_is_room_for_are_a_sample(tmp_path):
    r = np.random.default_rng(7)
    group = np.repeat(np.arange(150000), 10)
    y = r.integers(0, 3, len(group))
    p = (y + r.normal(size=len(group)) * 2).astype(np.float32)
    rows = np.reshape(p, (-1, 10)), np.reshape(y, (-1, 10))
    better = rows[1][:, :, None] > rows[1][:, None, :]
    whole = ((rows[0][:, :, None] > rows[0][:, None, :]) & better).sum() / better.sum()
    m = [count(tmp_path, "ranking", p, ranked(y, group), parts=parts) for parts in (1, 4)]
    assert m[0] == m[1] and abs(m[0]["pairAccuracy"] - whole) < 2e-3


@pytest.mark.parametrize("parts", [1, 3])
def test_points(tmp_path, parts):
    r = np.random.default_rng(8)
    y = r.integers(0, 40, 900)
    y[0] = 99  # alone: nothing of its label can be near
    p = (np.eye(100, 8)[y % 8] * 2 + r.normal(size=(900, 8))).astype(np.float32)
    m = count(tmp_path, "points", p, y.astype(np.int64), 8, parts=parts)
    d = ((p[:, None, :].astype(np.float64) - p[None]) ** 2).sum(2)
    np.fill_diagonal(d, np.inf)
    order = np.argsort(d, 1)
    for k in (1, 5):
        near(m[f"recallAt{k}"], (y[order[1:, :k]] == y[1:, None]).any(1).mean(), 1e-9)
    wide, labels = r.normal(size=(20000, 3)).astype(np.float32), r.integers(0, 2, 20000)
    wide[:, 0] += 3 * labels
    many = count(tmp_path, "points", wide, labels.astype(np.int64), 3, parts=parts)
    d = ((wide[:2000, None, :] - wide[None, :2000]) ** 2).sum(2)
    np.fill_diagonal(d, np.inf)
    near(many["recallAt1"], (labels[:2000][d.argmin(1)] == labels[:2000]).mean(), 0.03)  # of a sample


def test_what_has_no_meaning_is_null(tmp_path):
    one = np.ones(10, np.float32)
    m = count(tmp_path, "binary", one * 0.3, one)
    assert m["auc"] is None and m["accuracy"] == 0
    m = count(tmp_path, "numbers", one * np.nan, one)
    assert m["rmse"] is None
    m = count(tmp_path, "ranking", one, ranked(one, np.arange(10)))  # no pairs
    assert m["pairAccuracy"] is None and m["ndcg"] == 1
    m = count(tmp_path, "points", one, np.arange(10), 1)
    assert m["recallAt1"] is None
