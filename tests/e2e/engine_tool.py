# SPDX-License-Identifier: Apache-2.0
"""Drives build/tests/tool-engine: ONNX models on dhow's own engine, with numpy arrays in and out."""

import json
import os
import subprocess
import tempfile

import ml_dtypes
import numpy as np

ROOT = os.environ.get("DHOW_ROOT") or os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROGRAM = os.path.join(ROOT, "build", "tests", "tool-engine")


class EngineError(Exception):
    def __init__(self, code, text):
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text


class Crash(Exception):
    pass


def load(path):
    """An array; bfloat16 comes as two bytes without a meaning."""
    array = np.load(path)
    return array.view(ml_dtypes.bfloat16) if array.dtype == np.dtype("V2") else array


class Engine:
    """One process for many runs; it is started anew after a crash."""

    def __init__(self):
        self.dir = tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
        self.process = None

    def close(self):
        if self.process:
            self.process.stdin.close()
            self.process.wait()
            self.process.stdout.close()
        self.dir.cleanup()

    def ask(self, *words):
        if not self.process:
            self.process = subprocess.Popen([PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.process.stdin.write("\t".join(str(w) for w in words) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            self.process.stdout.close()
            self.process = None
            raise Crash(f"tool-engine ended with {code}")
        reply = json.loads(line)
        if "error" in reply:
            raise EngineError(reply["error"], reply["text"])
        return reply

    def path(self, name):
        return os.path.join(self.dir.name, name)

    def put(self, model, inputs):
        with open(self.path("model.onnx"), "wb") as f:
            f.write(model if isinstance(model, bytes) else model.SerializeToString())
        paths = []
        for i, array in enumerate(inputs):
            array = np.asarray(array)
            paths.append(self.path(f"in{i}.npy"))
            if array.dtype == ml_dtypes.bfloat16:
                array = array.view("V2")
            np.save(paths[-1], np.ascontiguousarray(array).reshape(array.shape))
        return paths

    def ops(self):
        return self.ask("ops")["ops"]

    def run(self, model, inputs, precision="f32", ranks=1):
        """Outputs, by the model's order."""
        paths = self.put(model, inputs)
        self.reply = self.ask("run", self.path("model.onnx"), self.dir.name, precision, ranks, "-", *paths)
        return self.outputs(model)

    def outputs(self, model):
        return [load(self.path(f"out{i}.npy")) for i in range(len(model.graph.output))]

    def gradients(self, model, inputs, loss, precision="f32", ranks=1):
        """The loss, outputs, and the gradient of each float initialiser by name."""
        paths = self.put(model, inputs)
        self.reply = self.ask("run", self.path("model.onnx"), self.dir.name, precision, ranks, loss, *paths)
        return (
            self.reply["loss"],
            self.outputs(model),
            {name: load(self.path(f"grad{i}.npy")) for i, name in enumerate(self.reply["params"])},
        )

    def train(self, model, inputs, loss, steps, precision="f32", ranks=1):
        """The losses of so many steps of SGD, and the model's bytes after them."""
        paths = self.put(model, inputs)
        out = self.path("trained.onnx")
        reply = self.ask("train", self.path("model.onnx"), out, precision, ranks, loss, steps, *paths)
        with open(out, "rb") as f:
            return reply["losses"], f.read()

    def write(self, model):
        """The model's bytes after graph_read and graph_write."""
        self.put(model, [])
        self.ask("write", self.path("model.onnx"), self.path("written.onnx"))
        with open(self.path("written.onnx"), "rb") as f:
            return f.read()
