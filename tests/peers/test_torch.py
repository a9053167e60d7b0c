# SPDX-License-Identifier: Apache-2.0
"""Models exported by PyTorch answer as PyTorch does."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

EXPORT = Path(__file__).with_name("torch_models.py")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("torch")
    subprocess.run(["/usr/bin/python3", EXPORT, folder], check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("name", ["mlp", "conv", "lstm", "texts"])
def test_answers_are_pytorchs(daemon, exported, name):
    x, y = (np.load(exported / f"{name}.{side}.npy") for side in ("in", "out"))
    daemon.deploy_onnx(f"torch-{name}", (exported / f"{name}.onnx").read_bytes())
    kind = "INT64" if x.dtype == np.int64 else "FP32"
    for rows in (len(x), 1):
        reply = daemon.http("POST", f"/v2/models/torch-{name}/infer", json={
            "inputs": [{"name": "x", "datatype": kind, "shape": [rows, *x.shape[1:]], "data": x[:rows].ravel().tolist()}]})
        assert reply.status_code == 200, reply.text
        output = reply.json()["outputs"][0]
        assert output["shape"] == [rows, *y.shape[1:]]
        np.testing.assert_allclose(np.reshape(output["data"], output["shape"]), y[:rows], rtol=1e-4, atol=1e-5)
