# SPDX-License-Identifier: Apache-2.0
"""Trees of XGBoost or LightGBM by their own Python, from a Parquet file to a saved model, as a Python engineer would write it:
trees_train.py xgboost|lightgbm FILE ROUNDS MODEL. Or makes the file: trees_train.py data FILE. Each library takes the table as
Arrow, which both read faster than a NumPy matrix made of it. The last HELD_OUT rows are held out; scoring them is not in the
time, importing the library neither. One line of JSON, seconds by part."""

import json
import os
import resource
import sys
import time

import numpy as np

ROWS, HELD_OUT, WIDTH = 1_100_000, 100_000, 20
THREADS = int(os.environ.get("OMP_NUM_THREADS", "2"))


def data(path):
    """Normal numbers, and a label that depends on twelve of them, alone and in pairs."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    r = np.random.default_rng(7)
    x = r.standard_normal((ROWS, WIDTH), dtype=np.float32)
    z = x[:, 0] * x[:, 1] + np.sin(2 * x[:, 2]) + 0.5 * x[:, 3] ** 2 - 0.7 * np.abs(x[:, 4]) + 0.4 * x[:, 5] * (x[:, 6] > 0)
    z += x[:, 7:12] @ np.array([0.3, -0.3, 0.2, 0.1, -0.1], np.float32)
    y = (z + r.logistic(size=ROWS) > 0.1).astype(np.float32)
    columns = {f"x{i}": x[:, i] for i in range(WIDTH)}
    at = pa.array(np.arange(ROWS, dtype=np.int64) * 1_000_000, pa.timestamp("us"))
    pq.write_table(pa.table({**columns, "y": y, "t": at}), path, compression="zstd", row_group_size=122_880)


def xgboost_train(table, y, rounds, said, model):
    import xgboost
    parameters = {"objective": "binary:logistic", "tree_method": "hist", "max_depth": 6, "eta": 0.1, "max_bin": 256,
                  "nthread": THREADS}
    binned = xgboost.QuantileDMatrix(table, y, nthread=THREADS)
    said("bin")
    trees = xgboost.train(parameters, binned, rounds)
    said("fit")
    trees.save_model(f"{model}.json")
    return lambda held: trees.predict(xgboost.DMatrix(held)), xgboost.__version__


def lightgbm_train(table, y, rounds, said, model):
    import lightgbm
    parameters = {"objective": "binary", "num_leaves": 64, "max_depth": 6, "learning_rate": 0.1, "max_bin": 255,
                  "num_threads": THREADS, "verbose": -1}
    binned = lightgbm.Dataset(table, y, params=parameters).construct()
    said("bin")
    trees = lightgbm.train(parameters, binned, rounds)
    said("fit")
    trees.save_model(f"{model}.txt")
    return lambda held: trees.predict(np.stack([c.to_numpy() for c in held.columns], 1)), lightgbm.__version__


def auc(score, y):
    """By ranks; scores that are equal share theirs."""
    _, place, count = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]
    ones = y.sum()
    return (rank[y == 1].sum() - ones * (ones + 1) / 2) / (ones * (len(y) - ones))


def main(library, path, rounds, model):
    import pyarrow.parquet as pq
    __import__(library)
    out, start = {}, time.perf_counter()
    last = start

    def said(part):
        nonlocal last
        now = time.perf_counter()
        out[part], last = now - last, now

    columns = [f"x{i}" for i in range(WIDTH)]
    table = pq.read_table(path, columns=[*columns, "y"])
    y, x = table.column("y").to_numpy(), table.select(columns)
    n = len(y) - HELD_OUT
    said("read")
    predict, version = {"xgboost": xgboost_train, "lightgbm": lightgbm_train}[library](x.slice(0, n), y[:n], rounds, said, model)
    said("save")
    out["seconds"] = last - start
    out["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    out["auc"] = float(auc(predict(x.slice(n)), y[n:]))
    print(json.dumps({**out, "rows": n, "version": version}))


if sys.argv[1] == "data":
    data(sys.argv[2])
else:
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
