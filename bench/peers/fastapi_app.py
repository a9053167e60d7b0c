# SPDX-License-Identifier: Apache-2.0
"""What a Python engineer writes: FastAPI, orjson and ONNX Runtime; $MODELS names the folder of the ONNX files."""

import os
from pathlib import Path

import numpy as np
import onnxruntime
import orjson
from fastapi import FastAPI, Request, Response

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
sessions = {place.stem: onnxruntime.InferenceSession(place, options, providers=["CPUExecutionProvider"])
            for place in Path(os.environ["MODELS"]).glob("*.onnx")}
app = FastAPI()


@app.get("/v2/health/ready")
async def ready():
    return {"ready": True}


@app.post("/v2/models/{model}/infer")
async def infer(model: str, request: Request):
    body, session = await request.body(), sessions[model]
    head = int(request.headers.get("inference-header-content-length", len(body)))
    one = orjson.loads(body[:head])["inputs"][0]
    x = np.array(one["data"], np.float32) if "data" in one else np.frombuffer(body, np.float32, offset=head)
    y = session.run(None, {one["name"]: x.reshape(one["shape"])})[0]
    output = {"name": session.get_outputs()[0].name, "datatype": "FP32", "shape": y.shape, "data": y.ravel().tolist()}
    return Response(orjson.dumps({"model_name": model, "model_version": "1", "outputs": [output]}),
                    media_type="application/json")
