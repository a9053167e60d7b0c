# SPDX-License-Identifier: Apache-2.0
"""kill -9 at random moments, under load: what was acknowledged is there, and nothing is there by half."""

import hashlib
import os
import random
import threading
import time

import duckdb
import numpy as np
import pytest
import requests
from onnx import TensorProto, helper

import flights
from conftest import eventually

KILLS = 60
LIFE_SECONDS_MAX = 0.4          # of a daemon under load
ROWS = 3000                     # of one push, spread over
KEYS = 10                       # of an entity
DOCUMENT_BYTES_MAX = 400_000
DECLARED = """\
apiVersion: dhow/v1
kind: Source
metadata: {name: ticks}
spec: {path: ticks.parquet, format: parquet}
---
apiVersion: dhow/v1
kind: Dataset
metadata: {name: ticks}
spec: {sources: [ticks], query: "SELECT id, moment, value FROM ticks", id: id, eventTime: moment}
---
apiVersion: dhow/v1
kind: Dataset
metadata: {name: pushed}
spec:
  sources: [ticks]
  query: SELECT id, moment, CAST(id AS VARCHAR) AS thing, value FROM ticks
  id: id
  eventTime: moment
  expect:
    - {rule: schema, columns: {id: BIGINT, moment: TIMESTAMP, thing: VARCHAR, value: DOUBLE}}
---
apiVersion: dhow/v1
kind: Entity
metadata: {name: thing}
spec: {keys: [thing]}
---
apiVersion: dhow/v1
kind: FeatureView
metadata: {name: recent}
spec:
  dataset: pushed
  entity: thing
  windows: [1h]
  ttl: 30d
  aggregates: [{name: n, function: count}, {name: sum, function: sum, column: value}]
---
apiVersion: dhow/v1
kind: FeatureService
metadata: {name: recent}
spec: {views: [recent]}
---
apiVersion: dhow/v1
kind: Model
metadata: {name: large}
"""


class Load:
    """What was asked for, and what was answered. Each thread has names of its own; a broken connection ends it."""

    def __init__(self, daemon, dice):
        self.daemon, self.dice = daemon, dice
        self.token = daemon.token
        self.start = np.datetime64("now", "s") - np.timedelta64(1, "D")
        self.asked, self.told = {}, {}          # document: newest number sent, newest number acknowledged
        self.pushes = {}                        # push: True acknowledged, False on its way
        self.models = {}                        # version: hash of its bytes
        self.tokens = {}                        # token: "kept", "asked" to be revoked, or "revoked"
        self.gone = {}                          # deleted document: True acknowledged, False on its way
        self.counts = dict.fromkeys(("documents", "pushes", "models", "tokens", "deletes"), 0)

    def request(self, session, method, path, **more):
        reply = session.request(method, self.daemon.url + path, timeout=30, **more)
        if reply.status_code >= 300:
            self.wrong.append(f"{method} {path}: {reply.status_code} {reply.text[:300]}")
        return reply

    def document(self, name, number):
        """One that tells its number in three places, and the hash of its bulk."""
        bulk = f"{number} " * self.dice.choice((1, 100, DOCUMENT_BYTES_MAX // 8))
        return {"apiVersion": "dhow/v1", "kind": "Pipeline", "metadata": {"name": name, "labels": {"n": str(number)}},
                "spec": {"params": {"n": str(number), "sha": hashlib.sha256(bulk.encode()).hexdigest()},
                         "steps": [{"name": "s", "uses": "command", "with": {"n": number, "bulk": bulk}}]}}

    def documents(self, session, thread):
        name = f"d{thread}-{self.dice.randrange(20)}"
        number = self.asked[name] = self.asked.get(name, 0) + 1
        self.request(session, "PUT", self.daemon.path("pipelines", name), json=self.document(name, number))
        self.told[name] = number
        self.counts["documents"] += 1

    def push(self, session, thread):
        base = len(self.pushes) * ROWS
        name = f"t{thread}p{len(self.pushes)}"
        self.pushes[name] = False
        moments = np.datetime_as_string(self.start + np.arange(ROWS).astype("timedelta64[s]"))
        rows = {"id": list(range(base, base + ROWS)), "moment": moments.tolist(),
                "thing": [f"{name}-{i % KEYS}" for i in range(ROWS)], "value": [0.5] * ROWS}
        self.request(session, "POST", self.daemon.path("datasets", "pushed", "push"), json={"rows": rows})
        self.pushes[name] = True
        self.counts["pushes"] += 1

    def upload(self, session, _):
        width = self.dice.choice((10, 1000, 200_000))
        weights = np.random.default_rng(self.dice.randrange(1 << 30)).standard_normal(width).astype(np.float32)
        graph = helper.make_graph([helper.make_node("Mul", ["x", "w"], ["y"])], "g",
                                  [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", width])],
                                  [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", width])],
                                  [helper.make_tensor("w", TensorProto.FLOAT, [width], weights.tobytes(), raw=True)])
        data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
        reply = self.request(session, "POST", self.daemon.path("models", "large", "upload"), data=data,
                             headers={"Content-Type": "application/octet-stream"})
        self.models[reply.json()["version"]] = hashlib.sha256(data).hexdigest()
        self.counts["models"] += 1

    def access(self, session, thread):
        """Makes and revokes a token; makes and deletes a document."""
        made = self.request(session, "POST", "/api/v1/tokens",
                            json={"name": "x", "project": "default", "roles": ["viewer"]}).json()
        self.tokens[made["token"]] = "kept"
        if self.dice.random() < 0.5:
            self.tokens[made["token"]] = "asked"
            self.request(session, "DELETE", f"/api/v1/tokens/{made['id']}")
            self.tokens[made["token"]] = "revoked"
        self.counts["tokens"] += 1
        name = f"gone{thread}-{len(self.gone)}"
        self.request(session, "PUT", self.daemon.path("pipelines", name), json=self.document(name, 1))
        self.gone[name] = False
        self.request(session, "DELETE", self.daemon.path("pipelines", name))
        self.gone[name] = True
        self.counts["deletes"] += 1

    def run(self, work, thread):
        with requests.Session() as session:
            session.trust_env = False
            session.headers["Authorization"] = f"Bearer {self.token}"
            try:
                while not self.wrong:
                    work(session, thread)
            except requests.RequestException:       # the daemon is gone
                pass

    def begin(self):
        self.wrong = []
        work = [self.documents, self.documents, self.documents, self.push, self.upload, self.access]
        self.threads = [threading.Thread(target=self.run, args=(w, i)) for i, w in enumerate(work)]
        for thread in self.threads:
            thread.start()

    def end(self):
        for thread in self.threads:
            thread.join()
        assert not self.wrong, self.wrong


def document_holds(daemon, load, name):
    reply = daemon.http("GET", daemon.path("pipelines", name))
    told, asked = load.told.get(name, 0), load.asked[name]
    if reply.status_code == 404:
        assert told == 0, f"{name} is lost: {told} was acknowledged"
        return
    made = reply.json()
    number = int(made["spec"]["params"]["n"])
    given = made["spec"]["steps"][0]["with"]
    assert told <= number <= asked, f"{name} has {number}, but {told} was acknowledged and {asked} asked for"
    assert given["n"] == number and made["metadata"]["labels"]["n"] == str(number), f"{name} is mixed: {made}"
    assert hashlib.sha256(given["bulk"].encode()).hexdigest() == made["spec"]["params"]["sha"], f"{name} is torn"


def push_holds(daemon, load, name):
    keys = [f"{name}-{i}" for i in range(KEYS)]
    reply = daemon.http("POST", daemon.path("featureservices", "recent", "online"), json={"entities": {"thing": keys}})
    assert reply.status_code == 200, reply.text
    features = reply.json()["features"]
    whole = [ROWS / KEYS] * KEYS, [0.5 * ROWS / KEYS] * KEYS
    none = [None] * KEYS, [None] * KEYS
    seen = features["recent_n_1h"], features["recent_sum_1h"]
    assert seen == whole or (seen == none and not load.pushes[name]), \
        f"push {name}, {'' if load.pushes[name] else 'not '}acknowledged: {seen}"


def model_holds(daemon, name, sha):
    made = daemon.http("GET", daemon.path("modelversions", name))
    assert made.status_code == 200, f"{name} is lost"
    assert made.json()["spec"]["onnx"] == sha


def all_hold(daemon, load, everything):
    """What this round touched and some of the rest; or everything."""
    def some(names, newest):
        names = list(names)
        return names if everything else names[-newest:] + load.dice.sample(names, min(len(names), 5))

    for name in list(load.asked):
        document_holds(daemon, load, name)
    for name in some(load.pushes, 8):
        push_holds(daemon, load, name)
    for name in some(load.models, 4):
        model_holds(daemon, name, load.models[name])
    for token in some(load.tokens, 4):
        status = daemon.http("GET", "/api/v1/whoami", token=token).status_code
        allowed = {"kept": (200,), "asked": (200, 401), "revoked": (401,)}[load.tokens[token]]
        assert status in allowed, f"a token that is {load.tokens[token]} gets {status}"
    for name in some(load.gone, 4):
        status = daemon.http("GET", daemon.path("pipelines", name)).status_code
        assert status == 404 or (status == 200 and not load.gone[name]), f"{name} was deleted and is back"


def no_half_version(daemon):
    """Each version has all its files, each file is what its name says, and they hold the rows that it counts."""
    seen = 0
    for version in daemon.get("datasetversions")["items"]:
        spec, rows = version["spec"], 0
        for file in spec["files"]:
            path = flights.blob(daemon, file["sha"])
            assert path.exists(), f"{version['metadata']['name']} lacks a file"
            assert hashlib.sha256(path.read_bytes()).hexdigest() == file["sha"]
            rows += duckdb.connect().execute(f"select count(*) from read_parquet('{path}')").fetchone()[0]
        assert rows == spec["rows"] == seconds_until(spec["until"]), version
        seen += 1
    versions = daemon.http("GET", daemon.path("modelversions") + "?limit=1000").json()["items"]
    for version in versions:
        path = flights.blob(daemon, version["spec"]["onnx"])
        assert path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == version["spec"]["onnx"]
    numbers = sorted(v["spec"]["number"] for v in versions)
    assert numbers == list(range(1, len(versions) + 1)), "a number was left out or given twice"
    return seen


def seconds_until(moment):
    return int((np.datetime64(moment.rstrip("Z")) - np.datetime64("2001-01-01T00:00:00")) / np.timedelta64(1, "s"))


@pytest.fixture
def loaded(fresh):
    one = fresh.unstarted()
    duckdb.connect().execute(f"""copy (select i as id, timestamp '2001-01-01' + to_seconds(i) as moment, i / 8 as value
                                 from range(300000) t(i)) to '{one.sources}/ticks.parquet' (format parquet)""")
    one.start()
    one.ok("apply", "-f", "-", input=DECLARED)
    return one


def test_nothing_acknowledged_is_lost_and_nothing_is_half(loaded):
    one, seed = loaded, random.randrange(1 << 30)
    print(f"seed {seed}")
    dice = random.Random(seed)
    load, ingests = Load(one, dice), []
    for kill in range(KILLS):
        until = f"2001-01-0{dice.randrange(2, 4)}T{dice.randrange(24):02}:{dice.randrange(60):02}:00"
        ingests.append(f"ingest-{kill}")
        assert one.put("Job", ingests[-1], {"type": "ingest", "with": {"dataset": "ticks", "until": until}}).ok
        load.begin()
        time.sleep(dice.random() * LIFE_SECONDS_MAX)
        one.kill()
        load.end()
        if kill % 5 == 0:           # and while it repairs what the first one left
            one.launch()
            time.sleep(dice.random() * 0.05)
            one.kill()
        one.start()
        all_hold(one, load, everything=False)
    for name in ingests:
        assert one.wait_over("jobs", name, 120)["status"]["phase"] == "succeeded", one.get("jobs", name)
    all_hold(one, load, everything=True)
    assert no_half_version(one) > KILLS // 2
    assert one.http("GET", "/api/v1/audit/verify").json()["ok"]
    told = one.ok("doctor", "--data", str(one.data), "-o", "json").json()
    assert all(check["ok"] for check in told), told
    assert min(load.counts.values()) > KILLS // 2, f"too little was going on: {load.counts}"
    print(load.counts)


def test_what_a_dead_daemon_left_behind_is_swept(fresh):
    """Temporary files are no blobs, and old ones go at the next start."""
    one = fresh()
    one.kill()
    stray = one.data / "tmp" / "stray"
    stray.write_bytes(b"half")
    os.utime(stray, (1, 1))
    one.start()
    eventually(lambda: not stray.exists(), 10, what="the end of a stray file")
