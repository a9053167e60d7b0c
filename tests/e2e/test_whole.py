# SPDX-License-Identifier: Apache-2.0
"""The main job on all three million flights, where the figures are known: what a leak from the future looks like, and
online rows against the offline join."""

import json

import numpy as np
import pandas as pd
import pytest

import flights
from conftest import FLIGHTS, ROOT, Daemon, daemon_close

MAY = pd.Timestamp("2001-05-01")
ROWS = 10_000
INPUTS = ("origin", "destination", "date", "ts", "distance")
HONEST = """\
apiVersion: dhow/v1
kind: Pipeline
metadata: {name: honest}
spec:
  params: {history: "", rows: ""}
  steps:
    - name: learn
      uses: build
      with: {trainingSet: late_rows, version: "${params.history}", from: "2001-02-01", until: "2001-06-01"}
    - name: train
      uses: train
      needs: [learn]
      with:
        rows: "${steps.learn.version}"
        holdout: 31d
        model: {trees: {rounds: 80, depth: 7, learningRate: 0.15, subsample: 0.8, columns: 0.8, stopAfter: 20}}
        resources: {cpu: 2, memory: 6Gi}
    - name: register
      uses: register
      needs: [train]
      with: {model: late, run: "${steps.train.job}"}
    - name: served
      uses: evaluate
      needs: [register]
      with: {model: late, version: "${steps.register.version}", rows: "${params.rows}", from: "2001-06-01", until: "2001-07-01"}
    - name: gate
      uses: gate
      needs: [served]
      with:
        model: late
        version: "${steps.register.version}"
        metrics: "${steps.served.metrics}"
        bounds:
          - {metric: auc, min: 0.70, max: 0.85}
          - {metric: logLoss, max: 0.55}
---
apiVersion: dhow/v1
kind: Pipeline
metadata: {name: until_may}
spec:
  steps:
    - {name: ingest, uses: ingest, with: {dataset: flights, until: "2001-05-01"}}
    - {name: online, uses: materialize, needs: [ingest], with: {service: late_features, version: "${steps.ingest.version}"}}
"""


def outputs(made):
    return {s["name"]: s.get("outputs", {}) for s in made["status"]["steps"]}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A daemon with the recipe, all flights in one version, and the rows of May and June as they looked at push-back."""
    one = Daemon(tmp_path_factory.mktemp("whole"))
    one.sources.rmdir()
    one.sources.symlink_to(FLIGHTS.parent)
    one.start()
    one.ok("apply", "-f", str(ROOT / "examples" / "flights"), "-f", "-", input=HONEST)
    one.history = outputs(one.ok("run", "history", "-o", "json", seconds=300).json())
    yield one
    daemon_close(one)


@pytest.fixture(scope="module")
def leak(whole):
    """The command that runs the planted mistake, and what its steps gave."""
    params = ["--param", f"history={whole.history['ingest']['version']}", "--param", f"rows={whole.history['rows']['version']}"]
    result = whole.cli("run", "leak", *params, "-o", "json", seconds=300)
    honest = whole.ok("run", "honest", *params, "-o", "json", seconds=300)
    return result, outputs(result.json()), outputs(honest.json())


def auc(step):
    return json.loads(step["metrics"])["auc"]


# ---- the future in the features ----

def test_a_join_on_departure_time_claims_what_it_does_not_keep(leak):
    _, leaky, _ = leak
    assert auc(leaky["offline"]) == pytest.approx(0.90, abs=0.01)
    assert auc(leaky["served"]) == pytest.approx(0.67, abs=0.01)


def test_the_honest_join_keeps_what_it_claims(leak):
    _, leaky, honest = leak
    assert auc(honest["served"]) == pytest.approx(0.755, abs=0.01)
    assert auc(honest["served"]) > auc(leaky["served"]) + 0.07


def test_the_gate_takes_the_honest_one_only(whole, leak):
    result, leaky, honest = leak
    assert result.code == 3 and "auc" in result.err and "0.7" in result.err
    assert whole.get("modelversions", leaky["register"]["version"])["status"]["state"] == "refused"
    assert whole.get("modelversions", honest["register"]["version"])["status"]["state"] == "passed"


def test_a_flight_is_in_its_own_features_only_where_the_future_leaks(whole, leak):
    """Where the last hour holds one flight, its mean delay is the label's own delay: always, or by chance."""
    delays = flights.rows_of(whole, whole.history["ingest"]["version"], "id, delay").set_index("id").delay

    def own(version):
        rows = flights.rows_of(whole, version, "id, origin_recent_flights_1h as n, origin_recent_delay_1h as mean")
        alone = rows[rows.n == 1]
        assert len(alone) > 1000
        return np.mean(alone["mean"].to_numpy() == delays.loc[alone.id].to_numpy())

    _, leaky, honest = leak
    assert own(leaky["learn"]["version"]) == 1
    assert own(honest["learn"]["version"]) < 0.05


# ---- online equals offline, to the bit ----

@pytest.fixture(scope="module")
def labels(whole):
    """The first rows of May, with the features that the offline join gave them."""
    rows = flights.rows_of(whole, whole.history["rows"]["version"])
    first = rows[rows.ts >= MAY].sort_values("ts", kind="stable")
    last = first.ts.iloc[ROWS]
    return first[first.ts <= last]


@pytest.fixture(scope="module")
def online(whole, labels):
    """The same rows asked of the daemon, each at its own time: the online rows are made from what was known before May,
    then each flight is pushed when it has landed. A frame like labels."""
    result = whole.ok("run", "until_may", "-o", "json", seconds=300)
    known = flights.rows_of(whole, outputs(result.json())["ingest"]["version"], "id").id
    near = flights.rows_of(whole, whole.history["ingest"]["version"], where=f"ts between '2001-04-29' and '{labels.ts.max()}'")
    events = near[(near.known_at <= labels.ts.max()) & ~near.id.isin(known)].sort_values("known_at", kind="stable")
    assert events.ts.min() > pd.Timestamp("2001-04-30"), "a flight that took longer was left out"
    asked = near.set_index("id").loc[labels.id].reset_index()
    pushed, answers = 0, []
    landed = events.known_at.to_numpy()
    for ts, group in asked.groupby("ts", sort=True):
        until = int(np.searchsorted(landed, ts.to_datetime64(), side="right"))
        if until > pushed:
            columns(whole, "datasets/flights/push", "rows", events.iloc[pushed:until])
            pushed = until
        answers.append(pd.DataFrame(columns(whole, "featureservices/late_features/online", "entities", group[list(INPUTS)])
                                    ["features"], index=group.id, dtype=float))
    return pd.concat(answers)


def columns(daemon, path, key, frame):
    """Posts a frame as columns; the answer."""
    body = {name: np.datetime_as_string(c.to_numpy()).tolist() if c.dtype.kind == "M" else c.tolist()
            for name, c in frame.items()}
    reply = daemon.http("POST", f"/api/v1/projects/default/{path}", json={key: body})
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_ten_thousand_online_rows_equal_the_offline_join_to_the_bit(labels, online):
    offline = labels.set_index("id")[online.columns].astype(float).loc[online.index]
    assert len(offline) >= ROWS and offline.shape[1] == 24
    ours, theirs = online.to_numpy(), offline.to_numpy()
    same = (ours.view("u8") == theirs.view("u8")) | (np.isnan(ours) & np.isnan(theirs))
    row, column = np.argwhere(~same)[0] if not same.all() else (0, 0)
    assert same.all(), f"{(~same).any(axis=1).sum()} of {len(same)} rows differ, first {online.index[row]} in " \
                       f"{online.columns[column]}: {ours[row, column]!r} online, {theirs[row, column]!r} offline"


def test_the_comparison_is_no_trivial_one(labels, online):
    """Features differ from row to row, and change from what was known before May."""
    assert online.weekday.nunique() > 1 and (online.drop(columns="weekday").nunique() > 20).all()
    assert online.isna().to_numpy().any(), "no row without history among them"
    assert online.origin_recent_delay_1h.nunique() > 1000
