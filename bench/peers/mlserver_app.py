# SPDX-License-Identifier: Apache-2.0
"""An ONNX file in MLServer; parameters.uri of model-settings.json names it."""

import numpy as np
import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class OnnxModel(MLModel):
    async def load(self) -> bool:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(self.settings.parameters.uri, options,
                                                    providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        x = payload.inputs[0]
        y = self.session.run(None, {x.name: NumpyCodec.decode_input(x).astype(np.float32, copy=False)})[0]
        output = NumpyCodec.encode_output(self.session.get_outputs()[0].name, y)
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=[output])
