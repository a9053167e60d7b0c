# SPDX-License-Identifier: Apache-2.0
"""The figures again, by other means: pandas for the features, scikit-learn for the metrics, numpy for the drift."""

import json

import duckdb
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

import flights
from conftest import eventually

HOURS = pd.Timedelta(hours=1)
# view: its keys, its windows, its time to live
VIEWS = {
    "origin_recent": (["origin"], {"1h": HOURS, "3h": 3 * HOURS, "24h": 24 * HOURS}, pd.Timedelta(days=7)),
    "destination_recent": (["destination"], {"3h": 3 * HOURS, "24h": 24 * HOURS}, pd.Timedelta(days=7)),
    "route_history": (["origin", "destination"], {"7d": pd.Timedelta(days=7), "30d": pd.Timedelta(days=30)},
                      pd.Timedelta(days=60)),
}
SAMPLE = 2000


@pytest.fixture(scope="module")
def events(trained):
    """Every flight of the file, straight from Parquet and CSV, without dhow and without its query."""
    raw = duckdb.connect().execute(f"select * from '{trained.sources}/flights-3m.parquet'").df()
    airports = pd.read_csv(trained.sources / "airports.csv", keep_default_na=False).set_index("iata")
    raw["id"] = np.arange(len(raw))
    longitude = airports.longitude.astype(float).reindex(raw.origin).to_numpy() / 15
    shift = np.trunc(longitude + np.copysign(0.5, longitude)).astype("int64")    # half goes away from zero
    raw["ts"] = raw.date - pd.to_timedelta(shift, unit="h")
    micros = np.floor((40 + raw.distance / 7.8) * 60000000 + 0.5).astype("int64")
    raw["known_at"] = raw.ts + pd.to_timedelta(micros, unit="us")
    raw["late"] = (raw.delay > 15).astype(int)
    return raw


@pytest.fixture(scope="module")
def known(events):
    """What a version until May 1 may see."""
    until = pd.Timestamp("2001-05-01")
    return events[(events.ts < until) & (events.known_at < until)]


@pytest.fixture(scope="module")
def labels(trained, events):
    """Training rows: a fixed sample, and besides every row whose key and known time tie with another flight's."""
    rows = flights.rows_of(trained, "late_rows.1").set_index("id")
    picked = rows.sample(SAMPLE, random_state=7)
    busiest = rows[rows.ts.duplicated(keep=False)].sort_values("ts").head(300)
    return pd.concat([picked, busiest]).loc[lambda f: ~f.index.duplicated()]


def expected_of_view(view, known, label):
    """Count, mean delay and share late per window for one label row, by the words of the contract: the last known-at
    of the key not after t and not older than the time to live; all events of the key in [it - w, it]."""
    keys, windows, ttl = VIEWS[view]
    group = known[view].get(tuple(label[k] for k in keys))
    none = {f"{view}_{name}_{w}": np.nan for w in windows for name in ("flights", "delay", "late")}
    if group is None:
        return none
    at, delay, late = group
    last = np.searchsorted(at, label.ts.to_datetime64(), side="right") - 1
    if last < 0 or at[last] < (label.ts - ttl).to_datetime64():
        return none
    out = {}
    for w, width in windows.items():
        inside = (at >= at[last] - width.to_timedelta64()) & (at <= at[last])
        n = int(inside.sum())
        out[f"{view}_flights_{w}"] = float(n)
        out[f"{view}_delay_{w}"] = float(int(delay[inside].sum())) / n
        out[f"{view}_late_{w}"] = float(int(late[inside].sum())) / n
    return out


@pytest.fixture(scope="module")
def expected(known, labels, events):
    grouped = {}
    for view, (keys, _, _) in VIEWS.items():
        ordered = known.sort_values("known_at", kind="stable")
        grouped[view] = {key if isinstance(key, tuple) else (key,):
                         (g.known_at.to_numpy(), g.delay.to_numpy(), g.late.to_numpy())
                         for key, g in ordered.groupby(keys)}
    rows = []
    whole = events.set_index("id")
    for number in labels.index:
        label = whole.loc[number]
        row = {}
        for view in VIEWS:
            row |= expected_of_view(view, grouped, label)
        row |= {"hour": float(label.date.hour), "distance": float(label.distance)}
        rows.append(row)
    return pd.DataFrame(rows, index=labels.index)


def test_the_sample_has_what_is_hard(labels, expected, known):
    assert len(labels) >= SAMPLE
    ties = known.duplicated(["origin", "known_at"], keep=False)
    assert ties.any(), "no two flights of an airport became known together"
    assert labels.ts.duplicated().any()
    assert expected.isna().any().any(), "no row without history"


def test_every_feature_is_what_pandas_computes_exactly(labels, expected):
    assert len(expected.columns) == 23 and set(expected.columns) <= set(labels.columns)
    for column in expected:
        ours, theirs = labels[column].astype(float).to_numpy(), expected[column].to_numpy()
        same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
        bad = np.flatnonzero(~same)
        assert not len(bad), f"{column}: {len(bad)} of {len(same)} differ, row {labels.index[bad[0]]}: " \
                             f"{ours[bad[0]]!r}, not {theirs[bad[0]]!r}"


def test_weekday_is_one_number_a_day(labels, events):
    days = events.set_index("id").loc[labels.index].date.dt.day_of_week
    pairs = set(zip(days, labels.weekday))
    assert len(pairs) == 7 and len({w for _, w in pairs}) == 7


def test_the_label_is_the_flights_own(labels, events):
    assert (events.set_index("id").loc[labels.index].late.to_numpy() == labels.late.to_numpy()).all()


# ---- metrics ----

@pytest.fixture(scope="module")
def judged(trained):
    """The rows that the gate judged on, and what the served model says of them now."""
    rows = flights.rows_of(trained, "late_rows.1")
    facts = trained.get("modelversions", "late.1")["spec"]["facts"]
    held = rows[(rows.ts > pd.Timestamp(facts["split"].rstrip("Z"))) & (rows.ts < pd.Timestamp(facts["until"].rstrip("Z")))]
    signature = trained.get("modelversions", "late.1")["spec"]["signature"]
    x = held[signature["features"]].to_numpy(dtype=np.float64)
    scores = []
    for part in np.array_split(x, max(1, len(x) // 2000)):
        values = ",".join("null" if np.isnan(v) else repr(float(v)) for v in part.ravel())
        body = f'{{"inputs":[{{"name":"features","datatype":"FP32","shape":[{len(part)},{part.shape[1]}],"data":[{values}]}}]}}'
        reply = trained.http("POST", "/v2/models/late/versions/1/infer", data=body, headers={"Content-Type": "application/json"})
        if reply.status_code == 404:
            pytest.skip("late.1 is not served any more")
        assert reply.status_code == 200, reply.text
        scores += reply.json()["outputs"][0]["data"]
    return held.late.to_numpy(), np.array(scores), trained.get("modelversions", "late.1")["status"]["evaluation"]


def test_the_judged_rows_are_the_last_two_weeks(judged):
    assert len(judged[0]) == judged[2]["rows"] > 5000


def test_auc_is_what_scikit_learn_computes(judged):
    """A pair or two of nearly equal scores may change places: the sum over trees is rounded as the batch is split."""
    late, scores, told = judged
    assert told["auc"] == pytest.approx(roc_auc_score(late, scores), abs=2e-7)
    assert told["averagePrecision"] == pytest.approx(average_precision_score(late, scores), abs=1e-6)


def test_log_loss_is_what_scikit_learn_computes(judged):
    late, scores, told = judged
    assert told["logLoss"] == pytest.approx(log_loss(late, scores.astype(np.float64)), abs=1e-6)
    assert told["rmse"] == pytest.approx(np.sqrt(np.mean((scores - late) ** 2)), abs=1e-6)
    assert told["accuracy"] == pytest.approx(np.mean((scores >= 0.5) == late), abs=1e-3)


def test_calibration_is_honest(judged):
    """Ten equal bins of the score: mean distance of said and seen, weighted by rows (at most a bit off in the binning)."""
    late, scores, told = judged
    bins = np.minimum((scores * 10).astype(int), 9)
    ece = sum(abs(scores[bins == b].mean() - late[bins == b].mean()) * np.mean(bins == b) for b in np.unique(bins))
    quantiles = np.array_split(np.argsort(scores, kind="stable"), 10)
    by_rank = sum(abs(scores[q].mean() - late[q].mean()) * len(q) / len(scores) for q in quantiles)
    assert min(abs(told["calibrationError"] - ece), abs(told["calibrationError"] - by_rank)) < 2e-3


# ---- drift ----

def wasserstein(a, b):
    """Area between two empirical distribution functions."""
    a, b = np.sort(a), np.sort(b)
    points = np.sort(np.concatenate([a, b]))
    gaps = np.diff(points)
    fa = np.searchsorted(a, points[:-1], side="right") / len(a)
    fb = np.searchsorted(b, points[:-1], side="right") / len(b)
    return float(np.sum(np.abs(fa - fb) * gaps))


def psi(reference, current, edges):
    def shares(values):
        counts = np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)
        return np.maximum(counts / len(values), 1e-4)

    p, q = shares(reference), shares(current)
    return float(np.sum((q - p) * np.log(q / p)))


@pytest.fixture(scope="module")
def replayed(trained):
    """Two weeks of May as live traffic against a deployment and a monitor of their own, by tensor, without pushes."""
    trained.ok("apply", "-f", "-", input="""\
apiVersion: dhow/v1
kind: Deployment
metadata: {name: watched}
spec: {model: late, service: late_features, version: late.1}
---
apiVersion: dhow/v1
kind: Monitor
metadata: {name: watched}
spec: {deployment: watched, window: 7d, sustain: 2, features: {wasserstein: 0.1, psi: 0.25, share: 0.3}}
""")
    eventually(lambda: trained.http("GET", "/v2/models/watched/ready").status_code == 200, 20, what="the deployment")
    rows = flights.rows_of(trained, "late_rows.1")
    seen = rows[(rows.ts >= "2001-04-02") & (rows.ts < "2001-04-09")].sort_values("ts").head(5000)
    signature = trained.get("modelversions", "late.1")["spec"]["signature"]["features"]
    features = []
    moments = seen.ts
    for start in range(0, len(seen), 500):
        part = seen.iloc[start:start + 500]
        entities = {"origin": part.origin.tolist(), "destination": part.destination.tolist(),
                    "date": part.ts.dt.strftime("%Y-%m-%dT%H:%M:%S").tolist(),
                    "ts": moments.iloc[start:start + 500].dt.strftime("%Y-%m-%dT%H:%M:%SZ").tolist(),
                    "distance": part.distance.astype(int).tolist()}
        reply = trained.http("POST", "/v2/models/watched/infer",
                             json={"entities": entities, "parameters": {"return_features": True}})
        assert reply.status_code == 200, reply.text
        out = {o["name"]: o for o in reply.json()["outputs"]}
        features += np.array(out["features"]["data"], dtype=float).reshape(-1, len(signature)).tolist()
    live = pd.DataFrame(features, columns=signature)
    # A request of the next window closes this one.
    trained.http("POST", "/v2/models/watched/infer",
                 json={"entities": {"origin": ["ATL"], "destination": ["ORD"], "date": ["2001-04-09T12:00:00"],
                                    "ts": ["2001-04-09T12:00:00Z"], "distance": [606]}})

    def closed():
        status = trained.get("monitors", "watched").get("status", {})
        return status if status.get("windowsClosed", 0) >= 1 else None

    return live, eventually(closed, 20, what="a closed window")


def test_the_monitor_counts_what_was_asked(replayed):
    live, status = replayed
    assert sum(w["predictions"] for w in status["history"]) >= len(live)


def test_drift_is_what_numpy_computes(trained, replayed):
    """Wasserstein's distance normed by the training rows' spread, of each feature. The window is sketched, so a little
    off is allowed, a lot is not."""
    live, status = replayed
    spec = trained.get("modelversions", "late.1")["spec"]
    rows = flights.rows_of(trained, "late_rows.1")
    train = rows[rows.ts <= pd.Timestamp(spec["facts"]["split"].rstrip("Z"))]
    told = {d["name"]: d for d in status["drift"]}
    largest = 0.0
    for name in spec["signature"]["features"]:
        was, now = train[name].dropna().to_numpy(float), live[name].dropna().to_numpy(float)
        distance = wasserstein(was, now) / was.std()
        assert told[name]["wasserstein"] == pytest.approx(distance, rel=0.05, abs=0.005), name
        assert bool(told[name].get("over")) == (distance >= 0.1 or told[name]["psi"] >= 0.25) or abs(distance - 0.1) < 0.006, name
        largest = max(largest, told[name]["wasserstein"])
    assert status["history"][0]["wassersteinMax"] >= largest * 0.999


def test_stability_is_that_of_the_deciles(trained, replayed):
    """PSI over the deciles of the training rows, empty parts counted as one in ten thousand (or left a little above)."""
    live, status = replayed
    spec = trained.get("modelversions", "late.1")["spec"]
    rows = flights.rows_of(trained, "late_rows.1")
    train = rows[rows.ts <= pd.Timestamp(spec["facts"]["split"].rstrip("Z"))]
    told = {d["name"]: d["psi"] for d in status["drift"]}
    for name in ("origin_recent_delay_24h", "destination_recent_flights_24h", "route_history_delay_30d", "distance"):
        was, now = train[name].dropna().to_numpy(float), live[name].dropna().to_numpy(float)
        edges = np.unique(np.quantile(was, np.arange(1, 10) / 10))
        assert told[name] == pytest.approx(psi(was, now, edges), rel=0.15, abs=0.02), name
