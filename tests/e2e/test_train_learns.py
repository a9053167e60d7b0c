# SPDX-License-Identifier: Apache-2.0
"""Does what dhow trains learn as well as it should? The small ones of bench/learn: real digits, and a GPT step by step beside JAX."""

import json
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import ROOT
from sklearn.datasets import load_digits
from training import Bench


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def test_digits_by_a_cnn(bench):
    """1,797 handwritten digits of 8×8; a fifth is held out and judged by ONNX Runtime."""
    told = load_digits()
    order = np.random.default_rng(1).permutation(len(told.target))
    rest, held = order[len(order) // 5:], order[:len(order) // 5]
    np.save(bench.folder / "images.npy", told.images[rest].astype(np.float32))
    np.save(bench.folder / "labels.npy", told.target[rest].astype(np.int64))
    form = bench.form("digits", model={"cnn": {"channels": [32, 64], "dense": 64}}, label="label", epochs=12, batchSize=32, precision="fp32",
                      inputs=[{"name": "image", "kind": "array", "columns": ["image"], "shape": [1, 8, 8], "normalise": "standard"}],
                      data={"files": [{"path": "images.npy", "column": "image"}, {"path": "labels.npy", "column": "label"}]},
                      optimizer={"rate": 0.002})
    bench.train(form, "-q", "--dir", "digits")
    session = onnxruntime.InferenceSession(str(bench.folder / "digits/model.onnx"))
    p = session.run(None, {"image": told.images[held].astype(np.float32).reshape(-1, 1, 8, 8)})[0]
    assert (p.argmax(1) == told.target[held]).mean() >= 0.98


def test_a_gpts_curve_is_jaxs(bench):
    """All windows of a text are one batch, so that the order in which they are drawn does not matter."""
    length, rows, steps = 32, 24, 60
    text = (ROOT / "LICENSE").read_text()[:length * rows + 1]
    (bench.folder / "text.txt").write_text(text)
    gpt = {"layers": 2, "width": 32, "heads": 4}
    form = bench.form("gpt", model={"gpt": gpt}, data={"path": "text.txt"}, split={"valid": 0}, batchSize=rows, steps=steps, precision="fp32",
                      inputs=[{"name": "tokens", "kind": "tokens", "columns": ["text"], "length": length}],
                      optimizer={"rate": 0.003, "decay": 0.01}, schedule={"kind": "constant", "warmup": 0})
    bench.train(form, "-q", "--dir", "first", "--set", "steps=1", "--set", "optimizer.rate=1e-30")  # the weights that it begins with
    bench.train(form, "-q", "--dir", "ours")
    lines = [json.loads(line) for line in (bench.folder / "ours/metrics.jsonl").read_text().splitlines()]
    ours = np.array([line["value"] for line in lines if line["name"] == "train.logloss"])

    model = onnx.load(bench.folder / "first/model.onnx")
    known = {p.key: json.loads(p.value) for p in model.metadata_props if p.key == "dhow.vocabulary.tokens"}["dhow.vocabulary.tokens"]
    ids = np.array([known.index(c) + 1 for c in text], np.int32)
    np.save(bench.folder / "windows.npy", np.stack([ids[i * length:(i + 1) * length + 1] for i in range(rows)]))
    places, at = {}, 0
    with open(bench.folder / "weights", "wb") as out:
        for t in model.graph.initializer:
            w = onnx.numpy_helper.to_array(t)
            if t.name.endswith((".weight", ".bias", ".scale")):
                places[t.name] = [at, *w.shape]
                out.write(w.tobytes())
                at += w.size
    work = {"model": {"gpt": gpt}, "shape": [length], "rows": rows, "steps": steps, "optimizer": {"rate": 0.003, "decay": 0.01},
            "weights": str(bench.folder / "weights"), "windows": str(bench.folder / "windows.npy")}
    theirs = subprocess.run([sys.executable, ROOT / "bench/peers/jax_gpt.py", json.dumps(work), json.dumps(places)], check=True,
                            stdout=subprocess.PIPE, text=True).stdout.split()
    theirs = np.array(theirs, float)
    assert len(ours) == len(theirs) == steps and ours[-1] < 0.75 * ours[0]
    assert np.abs(ours / theirs - 1).max() < 0.01, list(zip(ours, theirs))
