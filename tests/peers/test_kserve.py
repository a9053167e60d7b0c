# SPDX-License-Identifier: Apache-2.0
"""KServe's own Python clients, unchanged."""

import asyncio

import grpc
import httpx
import numpy as np
import pytest
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput
from serving import Dhow, linear

MODEL, W, B = linear()
X = np.random.default_rng(2).standard_normal((5, 4)).astype(np.float32)
Y = X @ W + B


@pytest.fixture(scope="module")
def server(daemon):
    one = Dhow(daemon)
    one.deploy("linear", MODEL)
    return one


def request(binary, model="linear", **more):
    x = InferInput("x", list(X.shape), "FP32")
    x.set_data_from_numpy(X, binary_data=binary)
    return InferRequest(model_name=model, infer_inputs=[x], request_id="k-1", **more)


def rest(server, call, *args, **more):
    """One call of the REST client."""
    async def ask():
        client = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
        try:
            return await getattr(client, call)(f"http://{server.rest}", *args, **{"headers": server.headers, **more})
        finally:
            await client.close()
    return asyncio.run(ask())


def over_grpc(server, call, *args):
    async def ask():
        client = InferenceGRPCClient(server.grpc, retries=0)
        try:
            return await getattr(client, call)(*args, headers=tuple(server.headers.items()))
        finally:
            await client.close()
    return asyncio.run(ask())


def same_as_numpy(answer):
    assert answer.id == "k-1" and answer.model_name == "linear"
    np.testing.assert_allclose(answer.outputs[0].as_numpy(), Y, rtol=1e-5, atol=1e-6)


def test_rest_health(server):
    assert rest(server, "is_server_live") and rest(server, "is_server_ready")
    assert rest(server, "is_model_ready", "linear")


def test_rest_an_unknown_model_is_not_there(server):
    with pytest.raises(httpx.HTTPStatusError) as caught:
        rest(server, "infer", request(False, "nobody"), model_name="nobody")
    assert caught.value.response.status_code == 404


def test_rest_json(server):
    same_as_numpy(rest(server, "infer", request(False), model_name="linear"))


def test_rest_plain_dictionary(server):
    body = {"inputs": [{"name": "x", "shape": list(X.shape), "datatype": "FP32", "data": X.ravel().tolist()}]}
    answer = rest(server, "infer", body, model_name="linear")
    np.testing.assert_allclose(answer.outputs[0].as_numpy(), Y, rtol=1e-5, atol=1e-6)


def test_rest_binary_request(server):
    same_as_numpy(rest(server, "infer", request(True), model_name="linear"))


def test_rest_binary_both_ways(server):
    outputs = [RequestedOutput("y", parameters={"binary_data": True})]
    same_as_numpy(rest(server, "infer", request(True, request_outputs=outputs), model_name="linear"))


def test_grpc_health(server):
    assert over_grpc(server, "is_server_live") and over_grpc(server, "is_server_ready")
    assert over_grpc(server, "is_model_ready", "linear") and not over_grpc(server, "is_model_ready", "nobody")


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
def test_grpc_infer(server, raw):
    same_as_numpy(over_grpc(server, "infer", request(raw)))


def test_grpc_an_unknown_model_is_not_there(server):
    with pytest.raises(grpc.RpcError) as caught:
        over_grpc(server, "infer", request(True, "nobody"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
