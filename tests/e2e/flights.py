# SPDX-License-Identifier: Apache-2.0
"""The main job in small: real flights between a few large airports, and examples/flights/dhow.yaml cut to fit."""

import shutil
from pathlib import Path

import duckdb
import yaml

from conftest import AIRPORTS, FLIGHTS, ROOT

HUBS = ("ATL", "DFW", "ORD", "LAX", "PHX", "DEN", "LAS", "MSP", "STL", "SEA")
RECIPE = ROOT / "examples" / "flights" / "dhow.yaml"
IMPOSSIBLE = "delay < -180 or delay > 1440"


def sources_make(folder):
    """flights-3m.parquet (a quarter of a million of its rows, with every impossible delay and exact duplicate, in the
    file's order) and airports.csv, as the recipe names them; the number of rows."""
    path = Path(folder) / "flights-3m.parquet"
    hubs = ", ".join(f"'{h}'" for h in HUBS)
    db = duckdb.connect()
    db.execute("set threads = 2")
    db.execute(f"""
        copy (select date, delay, distance, origin, destination from (
                select *, count(*) over (partition by date, origin, destination, distance, delay) as n
                from read_parquet('{FLIGHTS}', file_row_number = true))
              where (origin in ({hubs}) and destination in ({hubs})) or {IMPOSSIBLE} or n > 1
              order by file_row_number) to '{path}' (format parquet)""")
    shutil.copy(AIRPORTS, folder)
    return db.execute(f"select count(*) from '{path}'").fetchone()[0]


def table(folder):
    """The recipe's query written a second time: a frame of what the dataset has to hold, whatever the time."""
    return duckdb.connect().execute(f"""
        select f.file_row_number as id, f.date,
               f.date - to_hours(cast(round(a.longitude / 15) as integer)) as ts,
               f.date - to_hours(cast(round(a.longitude / 15) as integer))
                      + to_microseconds(cast(round((40 + f.distance / 7.8) * 60000000) as bigint)) as known_at,
               f.origin, f.destination, f.distance, f.delay, cast(f.delay > 15 as integer) as late
        from read_parquet('{folder}/flights-3m.parquet', file_row_number = true) f
        join read_csv('{folder}/airports.csv') a on a.iata = f.origin""").df()


def documents(change=None):
    """The recipe's documents by (kind, name), small enough for a test; change(documents) alters them further."""
    made = {(d["kind"], d["metadata"]["name"]): d for d in yaml.safe_load_all(RECIPE.read_text()) if d}
    made["TrainingSet", "late_rows"]["spec"]["sample"] = 0.5
    made["Deployment", "late"]["spec"]["canary"] = {"share": 0.5, "requests": 40}
    made["Monitor", "late_drift"]["spec"].update(window="7d", sustain=2)
    pipeline = made["Pipeline", "late"]["spec"]
    pipeline["triggers"] = []
    trees = step(made, "train")["with"]["model"]["trees"]
    trees.update(rounds=20, depth=5, learningRate=0.3, stopAfter=0)
    step(made, "train")["with"]["resources"] = {"cpu": 2, "memory": "2Gi"}
    step(made, "evaluate")["with"]["parityRows"] = 10000
    step(made, "gate")["with"]["bounds"] = [
        {"metric": "auc", "min": 0.62, "max": 0.85},
        {"metric": "logLoss", "max": 0.6},
        {"metric": "parityMaxAbs", "max": 0.00001},
        {"metric": "auc", "championWithin": 0.05},
    ]
    if change:
        change(made)
    return made


def step(made, name):
    return next(s for s in made["Pipeline", "late"]["spec"]["steps"] if s["name"] == name)


def pipeline(name, *steps, **params):
    """A pipeline whose steps follow each other: each is (name, uses, with) or (name, uses, with, {more})."""
    made = []
    for one in steps:
        more = one[3] if len(one) > 3 else {}
        needs = {"needs": [made[-1]["name"]]} if made else {}
        made.append({"name": one[0], "uses": one[1], "with": one[2], **needs, **more})
    return yaml.safe_dump({"apiVersion": "dhow/v1", "kind": "Pipeline", "metadata": {"name": name},
                           "spec": {"params": params, "steps": made}})


def text(made):
    return yaml.safe_dump_all(made.values(), sort_keys=False)


def blob(daemon, sha):
    """Path of a blob in the data folder."""
    path = daemon.data / "blobs" / sha[:2] / sha[2:]
    return path if path.exists() else daemon.data / "blobs" / sha[:2] / sha


def rows_of(daemon, version, columns="*", where="true"):
    """A dataset version as a pandas frame, read from its blobs."""
    files = [str(blob(daemon, f["sha"])) for f in daemon.get("datasetversions", version)["spec"]["files"]]
    return duckdb.connect().execute(f"select {columns} from read_parquet({files!r}) where {where}").df()
