# SPDX-License-Identifier: Apache-2.0
"""KServe's own model server around ONNX Runtime, on loopback: kserve_app.py PORT; $MODELS as in fastapi_app.py."""

import os
import sys
from pathlib import Path

import onnxruntime
import uvicorn
from kserve import InferOutput, InferResponse, Model, ModelServer


class OnnxModel(Model):
    def __init__(self, place):
        super().__init__(place.stem)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(place, options, providers=["CPUExecutionProvider"])
        self.ready = True

    async def predict(self, payload, headers=None, response_headers=None):
        x = payload.inputs[0]
        y = self.session.run(None, {x.name: x.as_numpy()})[0]
        output = InferOutput(name=self.session.get_outputs()[0].name, shape=list(y.shape), datatype="FP32")
        output.set_data_from_numpy(y, binary_data=False)
        return InferResponse(response_id=payload.id or "1", model_name=self.name, infer_outputs=[output])


class LoopbackConfig(uvicorn.Config):
    """The server offers no choice of its address."""

    def __init__(self, *args, **more):
        super().__init__(*args, **{**more, "host": "127.0.0.1"})


uvicorn.Config = LoopbackConfig
models = [OnnxModel(place) for place in Path(os.environ["MODELS"]).glob("*.onnx")]
ModelServer(http_port=int(sys.argv[1]), enable_grpc=False, workers=1, access_log_format=None).start(models)
