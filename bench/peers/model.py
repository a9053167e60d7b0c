# SPDX-License-Identifier: Apache-2.0
"""Any ONNX file in Triton's Python backend: it lies beside this file as model.onnx. Requests of a batch are run as one."""

import json
import os
import sys

# The backend's interpreter does not look there by itself.
sys.path[:0] = os.environ["PYTHONPATH"].split(os.pathsep)

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb


class TritonPythonModel:
    def initialize(self, args):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        place = os.path.join(args["model_repository"], args["model_version"], "model.onnx")
        self.session = onnxruntime.InferenceSession(place, options, providers=["CPUExecutionProvider"])
        self.types = {i.name: i.type for i in self.session.get_inputs()}
        self.inputs = list(self.types)
        self.outputs = [o.name for o in self.session.get_outputs()]
        self.together = json.loads(args["model_config"])["max_batch_size"] > 0

    def feed(self, request):
        """BYTES come as bytes; ONNX Runtime's strings are text."""
        feed = {name: pb.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs}
        return {name: np.char.decode(x.astype(bytes), "utf-8").astype(object) if self.types[name] == "tensor(string)"
                else x for name, x in feed.items()}

    def reply(self, values):
        return pb.InferenceResponse([pb.Tensor(name, np.asarray(value)) for name, value in zip(self.outputs, values)])

    def alone(self, request):
        try:
            return self.reply(self.session.run(None, self.feed(request)))
        except Exception as error:  # what it says is the client's answer
            return pb.InferenceResponse(error=pb.TritonError(str(error)))

    def execute(self, requests):
        if not self.together:
            return [self.alone(request) for request in requests]
        feeds = [self.feed(request) for request in requests]
        rows = np.cumsum([len(feed[self.inputs[0]]) for feed in feeds])[:-1]
        values = self.session.run(None, {name: np.concatenate([feed[name] for feed in feeds]) for name in self.inputs})
        return [self.reply(part) for part in zip(*(np.split(value, rows) for value in values))]
