# SPDX-License-Identifier: Apache-2.0
"""The Open Inference Protocol over gRPC and Triton's extensions, asked by Triton's own clients."""

import json
import queue

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.http as triton_http
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tritonclient.grpc import model_config_pb2, service_pb2 as pb
from tritonclient.utils import InferenceServerException

from conftest import eventually
from test_faults import deploy, small_model, upload

NAME = "small"
ROWS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=np.float32)
WANT = 1 / (1 + np.exp(-ROWS @ np.array([[0.5], [-1], [2]])))


@pytest.fixture(scope="module")
def served(daemon):
    reply = upload(daemon, small_model(), name=NAME)
    assert reply.status_code == 201, reply.text
    deploy(daemon, reply.json()["version"], NAME)
    eventually(lambda: daemon.http("GET", f"/v2/models/{NAME}/ready").status_code == 200, 15, what="the deployment")
    return daemon


@pytest.fixture(scope="module")
def headers(served):
    return {"authorization": f"Bearer {served.token}"}


@pytest.fixture
def client(served):
    one = triton.InferenceServerClient(served.url.removeprefix("http://"))
    yield one
    one.close()


@pytest.fixture
def stub(served, headers):
    """Any bytes to any method."""
    with grpc.insecure_channel(served.url.removeprefix("http://")) as channel:
        def call(method, message):
            raw = channel.unary_unary(f"/inference.GRPCInferenceService/{method}",
                                      request_serializer=lambda m: m if isinstance(m, bytes) else m.SerializeToString(),
                                      response_deserializer=lambda raw: raw)
            return raw(message, metadata=tuple(headers.items()), timeout=10)
        yield call


def tensors(rows=ROWS, name="x"):
    one = triton.InferInput(name, rows.shape, "FP32")
    one.set_data_from_numpy(rows)
    return [one]


def code_of(call, *args, **more):
    with pytest.raises((grpc.RpcError, InferenceServerException)) as caught:
        call(*args, **more)
    e = caught.value
    return e.code().name if isinstance(e, grpc.RpcError) else e.status().split(".")[-1]


def test_health_and_metadata(client, headers):
    assert client.is_server_live() and client.is_server_ready()         # as a probe asks: without a token
    assert client.is_model_ready(NAME, headers=headers)
    assert not client.is_model_ready("none", headers=headers)
    server = client.get_server_metadata()
    assert server.name == "dhow" and "statistics" in server.extensions
    model = client.get_model_metadata(NAME, headers=headers)
    assert (model.name, list(model.versions), model.platform) == (NAME, ["1"], "onnxruntime_onnx")
    assert [(t.name, t.datatype, list(t.shape)) for t in model.inputs] == [("x", "FP32", [-1, 3])]
    assert code_of(client.get_model_metadata, "none", headers=headers) == "NOT_FOUND"
    assert code_of(client.get_model_metadata, NAME) == "UNAUTHENTICATED"


def test_predictions(client, headers):
    reply = client.infer(NAME, tensors(), request_id="abc", headers=headers)
    assert np.allclose(reply.as_numpy("y"), WANT)
    answer = reply.get_response()
    assert (answer.id, answer.model_name, answer.model_version) == ("abc", NAME, "1")
    reply = client.infer(NAME, tensors(), model_version="1", outputs=[triton.InferRequestedOutput("y")], headers=headers,
                         compression_algorithm="gzip", priority=1, timeout=10_000_000, sequence_id="s")
    assert np.allclose(reply.as_numpy("y"), WANT)
    assert code_of(client.infer, NAME, tensors(), model_version="9", headers=headers) == "NOT_FOUND"
    assert code_of(client.infer, NAME, tensors(name="z"), headers=headers) == "INVALID_ARGUMENT"
    assert code_of(client.infer, NAME, tensors()) == "UNAUTHENTICATED"


def test_large_tensors(client, headers):
    rows = np.random.default_rng(1).normal(size=(100_000, 3)).astype(np.float32)
    reply = client.infer(NAME, tensors(rows), headers=headers).as_numpy("y")
    assert np.allclose(reply, 1 / (1 + np.exp(-rows @ np.array([[0.5], [-1], [2]]))), atol=1e-6)


def request(**more):
    return pb.ModelInferRequest(model_name=NAME, **more)


def one_input(shape=(1, 3), datatype="FP32", **contents):
    t = pb.ModelInferRequest.InferInputTensor(name="x", datatype=datatype, shape=shape)
    if contents:
        t.contents.CopyFrom(pb.InferTensorContents(**contents))
    return t


def test_contents_in_place_of_raw_bytes(stub):
    answer = pb.ModelInferResponse.FromString(stub("ModelInfer", request(inputs=[one_input(fp32_contents=[1, 0, 0])])))
    assert np.allclose(np.frombuffer(answer.raw_output_contents[0], np.float32), WANT[0])


RAW = b"\0" * 12


def with_parameter(key, **value):
    message = request(inputs=[one_input()], raw_input_contents=[RAW])
    message.parameters[key].MergeFrom(pb.InferParameter(**value))
    return message


WRONG = {
    "truncated": request(inputs=[one_input()], raw_input_contents=[RAW]).SerializeToString()[:-3],
    "endless number": b"\x0a" + b"\xff" * 11,
    "past the end": b"\x0a\xff\x01small",
    "wire type": b"\x08\x01",
    "group": b"\x0b\x0c",
    "name twice": pb.ModelInferRequest(model_name=NAME).SerializeToString() * 2,
    "name not UTF-8": b"\x0a\x01\xff",
    "no model": b"",
    "both": request(inputs=[one_input(fp32_contents=[1, 2, 3])], raw_input_contents=[RAW]),
    "neither": request(inputs=[one_input()]),
    "too few raw": request(inputs=[one_input(), one_input()], raw_input_contents=[RAW]),
    "too many raw": request(inputs=[one_input()], raw_input_contents=[RAW, RAW]),
    "short raw": request(inputs=[one_input()], raw_input_contents=[RAW[1:]]),
    "long raw": request(inputs=[one_input()], raw_input_contents=[RAW + b"\0"]),
    "short contents": request(inputs=[one_input(fp32_contents=[1])]),
    "long contents": request(inputs=[one_input(fp32_contents=[1, 2, 3, 4])]),
    "other contents": request(inputs=[one_input(int_contents=[1, 2, 3])]),
    "overflow": request(inputs=[one_input(shape=(2**62, 16))], raw_input_contents=[b""]),
    "negative": request(inputs=[one_input(shape=(-1, 3))], raw_input_contents=[RAW]),
    "empty": request(inputs=[one_input(shape=(0, 3))], raw_input_contents=[b""]),
    "many sizes": request(inputs=[one_input(shape=[1] * 1000)], raw_input_contents=[RAW]),
    "datatype": request(inputs=[one_input(datatype="FP99")], raw_input_contents=[RAW]),
    "same input twice": request(inputs=[one_input(), one_input()], raw_input_contents=[RAW, RAW]),
    "no such output": request(inputs=[one_input()], raw_input_contents=[RAW],
                              outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name="z")]),
    "100,000 outputs": request(inputs=[one_input()], raw_input_contents=[RAW],
                               outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name="y")] * 100_000),
    "reserved parameter": with_parameter("triton_x", int64_param=1),
    "parameter of another type": with_parameter("priority", string_param="high"),
    "parameter without a value": with_parameter("priority"),
    "100,000 inputs": request(inputs=[one_input()] * 100_000),
}


@pytest.mark.parametrize("why", WRONG)
def test_what_breaks_a_rule_is_refused(served, stub, why):
    want = "NOT_FOUND" if why == "no model" else "INVALID_ARGUMENT"
    assert code_of(stub, "ModelInfer", WRONG[why]) == want
    assert served.alive()


def test_a_model_that_is_not_there_comes_before_what_else_is_wrong(stub):
    wrong = pb.ModelInferRequest()
    wrong.CopyFrom(WRONG["datatype"])
    wrong.model_name = "none"
    assert code_of(stub, "ModelInfer", wrong) == "NOT_FOUND"


@pytest.mark.parametrize("name", ["..", "../../etc/passwd", "a%2fb", "a\0b", "a\nb", "x" * 4096, "‮"])
def test_hostile_names_are_not_found(stub, name):
    for method, message in (("ModelInfer", pb.ModelInferRequest(model_name=name)),
                            ("ModelMetadata", pb.ModelMetadataRequest(name=name)),
                            ("ModelConfig", pb.ModelConfigRequest(name=name)),
                            ("ModelStatistics", pb.ModelStatisticsRequest(name=name))):
        assert code_of(stub, method, message) == "NOT_FOUND", method


def test_unknown_fields_are_passed_over(stub):
    message = request(inputs=[one_input(fp32_contents=[1, 0, 0])]).SerializeToString() + b"\xfa\x3f\x03abc\xf8\x3f\x01"
    assert pb.ModelInferResponse.FromString(stub("ModelInfer", message)).model_name == NAME


def test_a_stream_outlives_its_errors(client, headers):
    seen = queue.Queue()
    client.start_stream(lambda result, error: seen.put((result, error)), headers=headers)
    client.async_stream_infer(NAME, tensors(), request_id="1")
    client.async_stream_infer("none", tensors(), request_id="2")
    client.async_stream_infer(NAME, tensors(), request_id="3", enable_empty_final_response=True)
    first, second, third = (seen.get(timeout=10) for _ in range(3))
    client.stop_stream()
    assert first[0].get_response().id == "1" and np.allclose(first[0].as_numpy("y"), WANT)
    assert second[0] is None and "Request for unknown model: 'none' is not found" in str(second[1])
    assert third[0].get_response().parameters["triton_final_response"].bool_param


def test_a_stream_may_want_its_errors_as_status(client, headers):
    seen = queue.Queue()
    client.start_stream(lambda result, error: seen.put(error), headers={**headers, "triton_grpc_error": "true"})
    client.async_stream_infer("none", tensors())
    error = seen.get(timeout=10)
    client.stop_stream()
    assert "NOT_FOUND" in error.status()


def test_a_hundred_requests_in_one_stream(client, headers):
    seen = queue.Queue()
    client.start_stream(lambda result, error: seen.put((result, error)), headers=headers)
    for i in range(100):
        client.async_stream_infer(NAME, tensors(), request_id=str(i))
    ids = [seen.get(timeout=10)[0].get_response().id for _ in range(100)]
    client.stop_stream()
    assert ids == [str(i) for i in range(100)]


def test_both_protocols_say_the_same(served, client, headers):
    http = triton_http.InferenceServerClient(served.url.removeprefix("http://"))
    by_rest = http.get_model_config(NAME, headers=headers)
    by_grpc = client.get_model_config(NAME, headers=headers, as_json=True)["config"]
    assert by_grpc["input"][0]["dims"] == ["3"] and by_rest["input"][0]["dims"] == [3]
    assert by_grpc["max_batch_size"] == by_rest["max_batch_size"] > 1000
    assert by_grpc["instance_group"][0]["kind"] == by_rest["instance_group"][0]["kind"]
    before = http.get_inference_statistics(NAME, headers=headers)["model_stats"][0]
    client.infer(NAME, tensors(), headers=headers)
    after = client.get_inference_statistics(NAME, headers=headers).model_stats[0]
    assert after.inference_stats.success.count == before["inference_stats"]["success"]["count"] + 1
    assert after.inference_count == before["inference_count"] + 3
    index = client.get_model_repository_index(headers=headers).models
    assert [(m.name, m.version, m.state) for m in index if m.name == NAME] == [(NAME, "1", "READY")]
    assert {"name": NAME, "version": "1", "state": "READY"} in http.get_model_repository_index(headers=headers)
    assert http.get_system_shared_memory_status(headers=headers) == []
    assert not client.get_system_shared_memory_status(headers=headers).regions
    http.close()


def test_unloading_and_loading(served, client, headers):
    def state():
        return [m.state for m in client.get_model_repository_index(headers=headers).models if m.name == NAME]
    assert code_of(client.load_model, NAME, headers=headers, config="{}") == "INVALID_ARGUMENT"
    assert code_of(client.load_model, NAME, headers=headers, config="{}",
                   files={"file:1/../../x.onnx": b"x"}) == "INVALID_ARGUMENT"
    assert code_of(client.unload_model, "../small", headers=headers) == "NOT_FOUND"
    client.unload_model(NAME, headers=headers)
    assert state() == ["UNAVAILABLE"] and not client.is_model_ready(NAME, headers=headers)
    assert code_of(client.infer, NAME, tensors(), headers=headers) == "UNAVAILABLE"
    client.load_model(NAME, headers=headers)
    assert state() == ["READY"]
    assert np.allclose(client.infer(NAME, tensors(), headers=headers).as_numpy("y"), WANT)


def test_settings(client, headers):
    was = client.get_log_settings(headers=headers).settings
    told = client.update_log_settings({"log_verbose_level": 1}, headers=headers).settings
    assert told["log_verbose_level"].uint32_param == 1 and told["log_info"].bool_param
    client.update_log_settings({"log_verbose_level": was["log_verbose_level"].uint32_param,
                                "log_info": was["log_info"].bool_param}, headers=headers)
    assert code_of(client.update_log_settings, {"log_file": "/tmp/x"}, headers=headers) == "UNIMPLEMENTED"
    assert code_of(client.update_trace_settings, settings={"trace_file": "/tmp/x"}, headers=headers) == "UNIMPLEMENTED"
    assert list(client.get_trace_settings(headers=headers).settings["trace_level"].value) == ["OFF"]
    assert code_of(client.register_system_shared_memory, "r", "/r", 64, headers=headers) == "UNIMPLEMENTED"


def test_a_viewer_may_not_change_settings(served, client):
    token = served.make_token(["viewer"], name="grpc-viewer")["token"]
    headers = {"authorization": f"Bearer {token}"}
    assert client.get_log_settings(headers=headers).settings
    assert code_of(client.update_log_settings, {"log_info": True}, headers=headers) in ("PERMISSION_DENIED", "NOT_FOUND")
    assert code_of(client.update_trace_settings, settings={"trace_level": ["OFF"]}, headers=headers) == "PERMISSION_DENIED"
    assert code_of(client.infer, NAME, tensors(), headers=headers) == "PERMISSION_DENIED"


class WithToken(grpc.StreamStreamClientInterceptor):
    def __init__(self, headers):
        self.headers = headers

    def intercept_stream_stream(self, continuation, details, requests):
        return continuation(details._replace(metadata=tuple(self.headers.items())), requests)


def test_reflection_describes_what_tritons_classes_say(served, headers):
    """Each field that we describe is theirs: same name, number, type and form."""
    with grpc.insecure_channel(served.url.removeprefix("http://")) as channel:
        known = ProtoReflectionDescriptorDatabase(grpc.intercept_channel(channel, WithToken(headers)))
        assert "inference.GRPCInferenceService" in known.get_services()
        ours = DescriptorPool(known)
        service = ours.FindServiceByName("inference.GRPCInferenceService")
        theirs = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
        assert ({(m.name, m.input_type.full_name, m.output_type.full_name) for m in service.methods} ==
                {(m.name, m.input_type.full_name, m.output_type.full_name) for m in theirs.methods})
        compared = 0
        for name, message in list(service.file.message_types_by_name.items()):
            other = pb.DESCRIPTOR.message_types_by_name.get(name) or model_config_pb2.DESCRIPTOR.message_types_by_name[name]
            compared += same_message(message, other)
    assert compared > 200


def same_message(ours, theirs):
    count = 0
    assert ours.full_name == theirs.full_name
    assert ours.GetOptions().map_entry == theirs.GetOptions().map_entry
    for f in ours.fields:
        other = theirs.fields_by_name[f.name]
        assert (f.number, f.type, f.is_repeated) == (other.number, other.type, other.is_repeated), f.full_name
        assert bool(f.containing_oneof) == bool(other.containing_oneof), f.full_name
        if f.containing_oneof:
            assert f.containing_oneof.name == other.containing_oneof.name
        if f.message_type:
            assert f.message_type.full_name == other.message_type.full_name, f.full_name
        if f.enum_type:
            assert ([(v.name, v.number) for v in f.enum_type.values] ==
                    [(v.name, v.number) for v in other.enum_type.values]), f.full_name
        count += 1
    for nested in ours.nested_types:
        count += same_message(nested, theirs.nested_types_by_name[nested.name])
    return count


def test_descriptors_parse_by_themselves(served, headers):
    with grpc.insecure_channel(served.url.removeprefix("http://")) as channel:
        known = ProtoReflectionDescriptorDatabase(grpc.intercept_channel(channel, WithToken(headers)))
        file = known.FindFileContainingSymbol("inference.ModelConfig")
    assert isinstance(file, descriptor_pb2.FileDescriptorProto) and file.syntax == "proto3"
    assert json.dumps([m.name for m in file.message_type]).count("ModelConfig") >= 1
