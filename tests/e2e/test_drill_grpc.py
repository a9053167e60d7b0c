# SPDX-License-Identifier: Apache-2.0
"""The fault drill over gRPC and HTTP/2: messages that are no messages, calls that are given up, frames that make work and
carry nothing."""

import subprocess
import threading
from collections import Counter

import grpc
import numpy as np
import pytest
from drill import (CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST, SETTINGS, WINDOW, X, Load, Wire,
                   always_right, call_headers, fields, figures, frame, message, serve_mlp, unharmed, zeros_zipped)
from serving import slow
from tritonclient.grpc import service_pb2 as pb

from conftest import eventually

SERVICE = "/inference.GRPCInferenceService/"
INVALID, EXHAUSTED, UNIMPLEMENTED = 3, 8, 12
PROTOCOL, INTERNAL, CANCEL, CALM = 1, 2, 8, 11     # RST_STREAM's and GOAWAY's


@pytest.fixture(scope="module")
def served(daemon):
    daemon.bits = serve_mlp(daemon)
    return daemon


@pytest.fixture(autouse=True)
def goes_on(served):
    with unharmed(served, served.bits):
        yield


@pytest.fixture
def wire(served):
    with Wire(served) as one:
        yield one


@pytest.fixture
def channel(served):
    with grpc.insecure_channel(served.url.removeprefix("http://")) as one:
        yield one


def request(name="mlp", rows=X, **more):
    one = pb.ModelInferRequest(model_name=name, raw_input_contents=[rows.tobytes()], **more)
    one.inputs.add(name="x", datatype="FP32", shape=rows.shape)
    return one


def metadata(daemon):
    return (("authorization", f"Bearer {daemon.token}"),)


def unary(channel, method="ModelInfer"):
    return channel.unary_unary(SERVICE + method, lambda m: m if isinstance(m, bytes) else m.SerializeToString(),
                               pb.ModelInferResponse.FromString)


def stream(channel):
    return channel.stream_stream(SERVICE + "ModelStreamInfer", pb.ModelInferRequest.SerializeToString,
                                 pb.ModelStreamInferResponse.FromString)


# ---- messages ----

def curl(daemon, body, *headers):
    """grpc-status and grpc-message of a call whose body is just this."""
    headers = ("content-type: application/grpc", "te: trailers", f"authorization: Bearer {daemon.token}", *headers)
    told = subprocess.run(
        ["curl", "-s", "--max-time", "20", "-D", "-", "-o", "/dev/null", "--http2-prior-knowledge", "--data-binary", "@-",
         *(part for header in headers for part in ("-H", header)), daemon.url + SERVICE + "ModelInfer"],
        input=body, capture_output=True).stdout.decode()
    found = dict(line.split(": ", 1) for line in told.splitlines() if line.startswith("grpc-"))
    return int(found["grpc-status"]), found.get("grpc-message", "")


BODY = request().SerializeToString()
FRAMES = {
    "no message": (b"", INVALID),
    "half a prefix": (b"\0\0\0", INVALID),
    "prefix past the end": (message(BODY, said=len(BODY) + 1), INVALID),
    "prefix before the end": (message(BODY, said=len(BODY) - 1), INVALID),
    "prefix of 2 GiB": (message(BODY, said=2**31), INVALID),
    "prefix of 4 GiB": (message(BODY, said=2**32 - 1), INVALID),
    "two messages": (message(BODY) * 2, INVALID),
    "unknown flag": (b"\2" + message(BODY)[1:], INVALID),
    "compressed in no coding": (message(BODY, zipped=True), UNIMPLEMENTED),
}


@pytest.mark.parametrize("why", FRAMES)
def test_what_is_not_one_message_is_refused(served, why):
    body, status = FRAMES[why]
    got, text = curl(served, body)
    assert got == status and len(text) > 10


def test_a_compressed_bomb_is_refused(served):
    got, text = curl(served, message(zeros_zipped(500), zipped=True), "grpc-encoding: gzip")
    assert got == EXHAUSTED and "inflated" in text


def test_what_is_cut_anywhere_in_a_message_is_refused_or_right(served, channel):
    """A cut between two fields makes a message; one inside of a field never does."""
    call, codes = unary(channel), set()
    for n in range(len(BODY)):
        try:
            call(BODY[:n], metadata=metadata(served), timeout=10)
        except grpc.RpcError as e:
            codes.add(e.code())
            assert e.details()
    assert codes <= {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}
    assert call(BODY, metadata=metadata(served)).raw_output_contents[0] == served.bits


def test_any_bytes_are_refused(served, channel):
    """Each byte of a good message changed, and bytes by chance: an answer or a clear refusal, never another status."""
    random, call, wrong = np.random.default_rng(9), unary(channel), 0
    bodies = [BODY[:i] + bytes([BODY[i] ^ int(random.integers(1, 256))]) + BODY[i + 1:] for i in range(len(BODY))]
    bodies += [random.bytes(int(random.integers(1, 200))) for _ in range(200)]
    for body in bodies:
        try:
            call(body, metadata=metadata(served), timeout=10)
        except grpc.RpcError as e:
            wrong += 1
            assert e.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND), e
            assert e.details()
    assert wrong > 200


def test_a_message_in_a_stream_that_is_too_long_ends_it(wire, served):
    wire.send(call_headers(served, "ModelStreamInfer"), frame(DATA, 0, 1, message(b"", said=2**31)))
    assert wire.until(HEADERS, 1, END_STREAM) is not None
    assert wire.answers()


def test_a_thousand_messages_of_which_half_are_wrong(served, channel):
    def messages():
        for i in range(1000):
            yield request(id=str(i)) if i % 2 == 0 else request(id=str(i), rows=X[:, :15])
    got = list(stream(channel)(messages(), metadata=metadata(served), timeout=60))
    assert [one.infer_response.id for one in got] == [str(i) for i in range(1000)]
    for i, one in enumerate(got):
        assert bool(one.error_message) == bool(i % 2)
        assert i % 2 or one.infer_response.raw_output_contents[0] == served.bits


# ---- calls that are given up ----

@pytest.fixture(scope="module")
def slow_model(served):
    served.deploy_onnx("slow", slow(), instances=1, batching={"queue": 1000})
    return "slow"


def test_cancelled_calls_take_nothing_from_others(served, channel, slow_model):
    rows = np.ones((100, 256), np.float32)
    calls = [unary(channel).future(request(slow_model, rows), metadata=metadata(served)) for _ in range(100)]
    eventually(lambda: waiting(served, slow_model) > 10, what="a queue")
    for call in calls:
        call.cancel()
    ends = Counter(call.code() for call in calls)
    assert ends[grpc.StatusCode.CANCELLED] > 50 and set(ends) <= {grpc.StatusCode.CANCELLED, grpc.StatusCode.OK}, ends
    assert unary(channel)(request(), metadata=metadata(served), timeout=20).raw_output_contents[0] == served.bits
    eventually(lambda: waiting(served, slow_model) == 0, what="an empty queue")
    runs = sum(v for k, v in figures(served, "dhow_inference_executions_total").items() if f'"{slow_model}"' in k)
    assert runs < 50, "nothing runs for those who left"


def waiting(daemon, name):
    return sum(v for k, v in figures(daemon, "dhow_inference_in_flight").items() if f'"{name}"' in k)


def test_cancelled_streams_take_nothing_from_others(served, channel, slow_model):
    over = threading.Event()

    def messages(name, rows):
        for _ in range(10):
            yield request(name, rows)
        over.wait(20)
    calls = [stream(channel)(messages(slow_model if i % 2 else "mlp", np.ones((10, 256), np.float32) if i % 2 else X),
                             metadata=metadata(served)) for i in range(100)]
    for call in calls[::2]:
        assert next(call).infer_response.raw_output_contents[0] == served.bits
    for call in calls:
        call.cancel()
    over.set()
    assert unary(channel)(request(), metadata=metadata(served), timeout=20).raw_output_contents[0] == served.bits


def test_deadlines_of_a_millisecond(served, channel, slow_model):
    rows = np.ones((100, 256), np.float32)
    for _ in range(100):
        with pytest.raises(grpc.RpcError) as caught:
            unary(channel)(request(slow_model, rows), metadata=metadata(served), timeout=0.001)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert unary(channel)(request(), metadata=metadata(served), timeout=20).raw_output_contents[0] == served.bits


# ---- frames ----

def sent_away(wire):
    """The code of the server's last word, or that it hung up without one."""
    told = wire.until(GOAWAY)
    return told and int.from_bytes(told[4:8], "big")


def flood(wire, frames, times):
    """Sends all of them again and again, or until the server has enough. Not so many that it breaks off without a word."""
    for _ in range(times):
        if not wire.send(frames):
            break


NOISE = {
    "PING": frame(PING, payload=b"12345678"),
    "SETTINGS": frame(SETTINGS),
    "empty DATA": frame(DATA, 0, 1),
    "PRIORITY": frame(2, 0, 1, b"\0\0\0\0\1"),
}


@pytest.mark.parametrize("kind", NOISE)
def test_a_flood_of_frames_that_carry_nothing_ends_the_connection(served, wire, kind):
    with Load(always_right(served, served.bits), 2) as load:
        wire.send(call_headers(served, "ModelStreamInfer"))
        flood(wire, NOISE[kind] * 1000, 4)
        assert sent_away(wire) in (None, CALM)
    assert not load.failed, load.failed[:3]


def test_rapid_reset_ends_the_connection(served, wire):
    """CVE-2023-44487: calls that are given up as soon as they are made, so that none counts as open."""
    with Load(always_right(served, served.bits), 2) as load:
        wire.send(*(call_headers(served, "ModelInfer", stream=s) + frame(RST, 0, s, bytes([0, 0, 0, CANCEL]))
                    for s in range(1, 6001, 2)))
        assert sent_away(wire) in (None, CALM, INTERNAL)
    assert not load.failed, load.failed[:3]


def test_headers_without_end_are_refused(served, wire):
    """CVE-2024-27316 and its like: CONTINUATION after CONTINUATION."""
    more = frame(CONTINUATION, 0, 1, fields(*[(f"x-{i}", "y" * 100) for i in range(100)]))
    wire.send(call_headers(served, "ModelInfer", flags=0))
    flood(wire, more * 10, 100)
    assert not wire.answers(), "it was hung up on, or told to go"


def test_more_calls_at_once_than_announced_end_the_connection(served, wire):
    wire.send(*(call_headers(served, "ModelInfer", stream=s) for s in range(1, 2001, 2)))
    assert sent_away(wire) in (None, PROTOCOL)


def test_a_client_without_room_stalls_itself_alone(served):
    """It has no window for its answers: they wait, within bounds, and others are answered."""
    big = request(rows=np.tile(X, (2000, 1))).SerializeToString()
    with Wire(served, (4, 0)) as one:
        for stream_id in range(1, 101, 2):
            assert one.send(call_headers(served, "ModelInfer", stream=stream_id))
            for at in range(0, len(big) + 5, 16000):
                part = message(big)[at:at + 16000]
                one.send(frame(DATA, END_STREAM if at + 16000 >= len(big) + 5 else 0, stream_id, part))
        assert one.until(HEADERS) is not None
        assert one.answers()
        one.send(frame(WINDOW, 0, 1, (1 << 20).to_bytes(4, "big")))
        assert one.until(DATA, 1), "what it has room for comes"


WRONG_FRAMES = {
    "longer than agreed": frame(DATA, 0, 1, bytes(20_000)),
    "DATA of no call": frame(DATA, 0, 99, b"x"),
    "PING of 7 bytes": frame(PING, payload=b"1234567"),
    "SETTINGS of 5 bytes": frame(SETTINGS, payload=b"12345"),
    "window that overflows": frame(WINDOW, 0, 0, b"\x7f\xff\xff\xff") * 2,
    "window of 0": frame(WINDOW, 0, 0, bytes(4)),
    "HEADERS of an even id": frame(HEADERS, END_HEADERS, 2, fields((":method", "GET"))),
    "HEADERS that are no HPACK": frame(HEADERS, END_HEADERS, 3, b"\xff" * 50),
    "table size of 4 GiB": frame(HEADERS, END_HEADERS, 3, b"\x3f\xff\xff\xff\xff\x0f"),
    "padding longer than the frame": frame(DATA, 8, 1, b"\xff"),
    "HTTP/1.1": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


@pytest.mark.parametrize("why", WRONG_FRAMES)
def test_frames_against_the_rules_end_the_connection(served, wire, why):
    wire.send(call_headers(served, "ModelStreamInfer"), WRONG_FRAMES[why])
    assert wire.until(GOAWAY) is not None
    eventually(lambda: not wire.send(frame(PING, payload=bytes(8))) or wire.until(PING) is None, what="the end")
