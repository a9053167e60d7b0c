# SPDX-License-Identifier: Apache-2.0
"""A real Triton from the package nvidia-pytriton, without a container: the peer of bench-serve, and the oracle of the client
tests (`make test-peers`). It has no backend for ONNX, so peers/model.py runs the files in its Python backend."""

import os
import shutil
import urllib.request
from pathlib import Path

from common import ROOT, Process, fail, free_port

VENV = ROOT / ".deps" / "peers" / "main"
MODEL = ROOT / "bench" / "peers" / "model.py"


def package():
    """Where the package lies; None: set-up did not install it."""
    return next(VENV.glob("lib/python3.*/site-packages/pytriton/tritonserver"), None)


class Triton(Process):
    """Triton on a repository in where/repository that begins with `models`, {name: (ONNX file, text of config.pbtxt)}."""

    def __init__(self, where, models, *args):
        self.where, self.repository = Path(where), Path(where) / "repository"
        home = package() or fail("Triton is not there", "run scripts/setup peers")
        self.repository.mkdir(parents=True)
        for name, (place, config) in models.items():
            self.add(name, place, config)
        self.grpc = free_port()
        port, site = free_port(), home.parents[1]
        env = {**os.environ, "PYTHONPATH": str(site), "ORT_DISABLE_TELEMETRY": "1",
               "LD_LIBRARY_PATH": str(site / "nvidia_pytriton.libs")}
        super().__init__([str(home / "bin" / "tritonserver"), f"--model-repository={self.repository}",
                          f"--backend-directory={home / 'backends'}", f"--cache-directory={home / 'caches'}",
                          "--http-address=127.0.0.1", f"--http-port={port}", "--grpc-address=127.0.0.1",
                          f"--grpc-port={self.grpc}", "--allow-metrics=false", "--model-control-mode=explicit",
                          "--load-model=*", *args], self.where / "log", port, env=env)

    def add(self, name, place, config):
        """Lays a model into the repository; it is loaded at start, or by load()."""
        version = self.repository / name / "1"
        version.mkdir(parents=True, exist_ok=True)
        shutil.copy(place, version / "model.onnx")
        shutil.copy(MODEL, version / "model.py")
        (version.parent / "config.pbtxt").write_text(config)

    def load(self, name, verb="load"):
        url = f"http://127.0.0.1:{self.port}/v2/repository/models/{name}/{verb}"
        with urllib.request.urlopen(urllib.request.Request(url, b"{}", method="POST"), timeout=60) as reply:
            reply.read()


def config(inputs, outputs, batch=64, more=""):
    """A config.pbtxt. Inputs and outputs are (name, type, dims without the batch's)."""
    def side(what, tensors):
        return "\n".join(f'{what} {{ name: "{name}" data_type: TYPE_{kind} dims: [ {", ".join(map(str, dims))} ] }}'
                         for name, kind, dims in tensors)
    batching = "dynamic_batching { max_queue_delay_microseconds: 100 }\n" if batch else ""
    return (f'backend: "python"\nmax_batch_size: {batch}\n{side("input", inputs)}\n{side("output", outputs)}\n'
            f"{batching}instance_group {{ kind: KIND_CPU count: 1 }}\n{more}")
