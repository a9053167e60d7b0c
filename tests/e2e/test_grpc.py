# SPDX-License-Identifier: Apache-2.0
"""The services that every gRPC server is asked for, by grpcio: health and reflection, with a token where one is asked for."""

import threading

import grpc
import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

SERVING, SERVICE_UNKNOWN = b"\x08\x01", b"\x08\x03"     # HealthCheckResponse.status
INFERENCE = "inference.GRPCInferenceService"


@pytest.fixture
def channel(daemon):
    with grpc.insecure_channel(daemon.url.removeprefix("http://")) as one:
        yield one


@pytest.fixture
def token(daemon):
    return (("authorization", f"Bearer {daemon.token}"),)


def health(channel, service, token=()):
    """HealthCheckRequest has one field, the service's name."""
    call = channel.unary_unary("/grpc.health.v1.Health/Check")
    return call(b"\x0a" + bytes([len(service)]) + service.encode() if service else b"", metadata=token, timeout=10)


def watch(channel, service):
    return channel.unary_stream("/grpc.health.v1.Health/Watch")(b"\x0a" + bytes([len(service)]) + service.encode(), timeout=10)


def code_of(call, *args, **more):
    with pytest.raises(grpc.RpcError) as caught:
        call(*args, **more)
    return caught.value.code()


@pytest.mark.parametrize("service", ["", INFERENCE, "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"])
def test_health_of_what_is_there(channel, token, service):
    assert health(channel, service) == SERVING
    assert health(channel, service, token) == SERVING


@pytest.mark.parametrize("service", ["nobody", "inference", INFERENCE + "x", "\0", "x" * 120])
def test_health_of_an_unknown_service(channel, service):
    assert code_of(health, channel, service) == grpc.StatusCode.NOT_FOUND
    call = watch(channel, service)
    assert next(call) == SERVICE_UNKNOWN
    call.cancel()


def test_watch_tells_what_is_so_and_stays(channel):
    calls = [watch(channel, INFERENCE) for _ in range(20)]
    assert [next(call) for call in calls] == [SERVING] * 20
    assert all(call.is_active() for call in calls)
    for call in calls:
        call.cancel()
    assert health(channel, "") == SERVING


def test_watch_ends_when_the_server_stops(fresh):
    one = fresh()
    with grpc.insecure_channel(one.url.removeprefix("http://")) as channel:
        call = watch(channel, "")
        assert next(call) == SERVING
        stopper = threading.Thread(target=one.stop)
        stopper.start()
        with pytest.raises(grpc.RpcError) as caught:
            list(call)
        stopper.join()
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


@pytest.fixture
def reflect(channel, token):
    def ask(*requests, token=token):
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        return list(stub.ServerReflectionInfo(iter(requests), metadata=token, timeout=10))
    return ask


def asks(**what):
    return reflection_pb2.ServerReflectionRequest(host="h", **what)


def test_reflection_names_the_services(reflect):
    told, = reflect(asks(list_services="*"))
    assert told.valid_host == "h" and told.original_request == asks(list_services="*")
    names = [service.name for service in told.list_services_response.service]
    assert len(names) == len(set(names))
    assert {INFERENCE, "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection"} == set(names)


def test_each_service_has_a_descriptor_that_stands_alone(reflect):
    told, = reflect(asks(list_services="*"))
    names = [service.name for service in told.list_services_response.service]
    for name, answer in zip(names, reflect(*(asks(file_containing_symbol=name) for name in names)), strict=True):
        raw, = answer.file_descriptor_response.file_descriptor_proto
        file = descriptor_pb2.FileDescriptorProto.FromString(raw)
        pool = DescriptorPool()
        pool.Add(file)
        service = pool.FindServiceByName(name)
        assert service.methods and service.full_name == name
        again, = reflect(asks(file_by_filename=file.name))
        assert again.file_descriptor_response.file_descriptor_proto == [raw]


def test_reflection_finds_parts_of_what_is_declared_alone(reflect):
    there = [INFERENCE + ".ModelInfer", "inference.ModelInferRequest.InferInputTensor", "inference.DataType"]
    for answer in reflect(*(asks(file_containing_symbol=name) for name in there)):
        assert answer.file_descriptor_response.file_descriptor_proto
    absent = [asks(file_containing_symbol="inference.Nothing"), asks(file_containing_symbol=""), asks(file_by_filename="no.proto"),
              asks(file_containing_symbol="x" * 1000)]
    assert [answer.error_response.error_code for answer in reflect(*absent)] == [grpc.StatusCode.NOT_FOUND.value[0]] * len(absent)
    answer, = reflect(asks(all_extension_numbers_of_type="x"))
    assert answer.error_response.error_code == grpc.StatusCode.UNIMPLEMENTED.value[0]


def test_reflection_is_not_for_strangers(reflect):
    assert code_of(reflect, asks(list_services="*"), token=()) == grpc.StatusCode.UNAUTHENTICATED
    wrong = (("authorization", "Bearer nobody"),)
    assert code_of(reflect, asks(list_services="*"), token=wrong) == grpc.StatusCode.UNAUTHENTICATED


def test_bytes_that_are_no_request(channel, token):
    call = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
    assert code_of(lambda: list(call(iter([b"\xff"]), metadata=token, timeout=10))) == grpc.StatusCode.INVALID_ARGUMENT
