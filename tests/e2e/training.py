# SPDX-License-Identifier: Apache-2.0
"""What tests of `dhow train` share: data out of scikit-learn as files, and a folder in which forms are written and trained."""

import json
import os
import re
import subprocess

import duckdb
import yaml
from conftest import DHOW
from sklearn.datasets import load_breast_cancer, load_digits

SECONDS = 300


def tables(folder):
    """digits.parquet (an array a row), cancer.parquet and .csv (30 numbers a row), text.txt."""
    digits, cancer = load_digits(), load_breast_cancer()
    names = columns()
    con = duckdb.connect()
    con.execute("create table digits(image float[], digit integer)")
    con.executemany("insert into digits values (?, ?)", [(x.tolist(), int(y)) for x, y in zip(digits.data, digits.target)])
    con.execute(f"copy digits to '{folder}/digits.parquet' (format parquet)")
    con.execute(f"create table cancer({', '.join(n + ' double' for n in names)}, benign integer)")
    con.executemany(f"insert into cancer values ({', '.join('?' * 31)})",
                    [(*map(float, x), int(y)) for x, y in zip(cancer.data, cancer.target)])
    con.execute(f"copy cancer to '{folder}/cancer.parquet' (format parquet)")
    con.execute(f"copy cancer to '{folder}/cancer.csv' (format csv, header)")
    (folder / "text.txt").write_text("the quick brown fox jumps over the lazy dog. " * 400)
    return folder


def columns():
    return [n.replace(" ", "_") for n in load_breast_cancer().feature_names]


def cancer(**more):
    return {"data": {"path": "cancer.parquet"}, "label": "benign", "model": {"mlp": {"hidden": [32]}}, **more}


def result(out):
    return json.loads(out)


class Bench:
    def __init__(self, folder):
        self.folder = folder

    def form(self, name, **form):
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(form, sort_keys=False))
        return path

    def start(self, *args):
        env = {k: v for k, v in os.environ.items() if not k.startswith("DHOW_")}
        return subprocess.Popen([DHOW, "train", *map(str, args)], cwd=self.folder, env=env, text=True, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def train(self, *args, code=0):
        p = self.start(*args)
        out, err = p.communicate(timeout=SECONDS)
        assert p.returncode == code, f"exit {p.returncode}\n{out}\n{err}"
        return out, err

    def fails(self, *args, code=2):
        """One error: one line that says what (and why, and what to do)."""
        _, err = self.train(*args, "-q", code=code)
        assert len(re.findall("^error: ", err, re.M)) == 1, err
        return err
