# SPDX-License-Identifier: Apache-2.0
"""Limits of the listener, as options of `dhow serve`: what is refused, in which words, and that memory stays within them."""

import queue
import resource
import time

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from drill import (DATA, END_STREAM, Load, Wire, always_right, call_headers, connect, figures, frame, head, hear, hung_up, leave,
                   message, send_all, serve_mlp)
from onnx import helper
from serving import model_of, same
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import InferenceServerException

from conftest import eventually

MIB = 1 << 20


def ask(client_of, daemon, x, name="same", **more):
    """x sent to the model that gives it back, by one of Triton's clients."""
    options = {} if client_of is triton_http else {"channel_args": [("grpc.max_receive_message_length", -1)]}
    client = client_of.InferenceServerClient(daemon.url.removeprefix("http://"), **options)
    one = client_of.InferInput("x", list(x.shape), "FP32")
    one.set_data_from_numpy(x)
    with client:
        return client.infer(name, [one], headers={"authorization": f"Bearer {daemon.token}"}, **more).as_numpy("y")


def rows(mebibytes):
    return np.random.default_rng(1).standard_normal((int(mebibytes * MIB / 8), 2), np.float32)


@pytest.fixture(scope="module")
def served(daemon):
    daemon.deploy_onnx("same", same("FP32"))
    return daemon


@pytest.mark.parametrize("client_of", [triton_http, triton_grpc])
def test_a_prediction_may_bring_64_mebibytes(served, client_of):
    x = rows(60)
    np.testing.assert_array_equal(ask(client_of, served, x), x)
    with pytest.raises(InferenceServerException) as refused:
        ask(client_of, served, rows(65))
    assert "limit" in str(refused.value) or "over" in str(refused.value) or "Broken pipe" in str(refused.value)


@pytest.mark.parametrize("client_of", [triton_http, triton_grpc])
def test_the_most_that_a_body_may_have_is_an_option(fresh, client_of):
    one = fresh(args=["--max-body", "300Ki"])
    one.deploy_onnx("same", same("FP32"))
    x = rows(0.25)
    np.testing.assert_array_equal(ask(client_of, one, x), x)
    with pytest.raises(InferenceServerException) as refused:
        ask(client_of, one, rows(0.5))
    assert str(refused.value.status()) in ("413", "StatusCode.RESOURCE_EXHAUSTED")
    if client_of is triton_http:    # nor may one that is small on its way
        with pytest.raises(InferenceServerException) as refused:
            ask(client_of, one, np.zeros((1 << 17, 2), np.float32), request_compression_algorithm="gzip")
        assert str(refused.value.status()) == "413" and "307200 bytes" in refused.value.message()


@pytest.mark.parametrize("option, value, says", [
    ("--max-body", "2Zi", "'2Zi' is not a size, as in 64Mi"),
    ("--max-body", "10", "10 is not from 1Ki to 2Gi"),
    ("--max-held", "100Mi", "100Mi are fewer than 4 bodies of --max-body"),
    ("--max-connections", "none", "'none' is not a number"),
    ("--idle-timeout", "5", "'5' is not a time, as in 30s"),
    ("--head-timeout", "2d", "2d is not from 100ms to 1h"),
])
def test_a_limit_that_makes_no_sense_is_refused(run_binary, tmp_path, option, value, says):
    got = run_binary("serve", "--data", str(tmp_path / "data"), "--listen", "127.0.0.1:0", option, value)
    assert got.code == 2 and got.err.startswith(f"error: {option}\nwhy:   {says}")
    assert not (tmp_path / "data").exists()


def test_time_outs_are_options(fresh):
    one = fresh(args=["--head-timeout", "300ms", "--body-timeout", "600ms", "--idle-timeout", "900ms"])
    for sent, least in (b"GET /healthz HTTP/1.1\r\nHost: lo", 0.3), (head(one, "Content-Length: 9") + b"\r\nabc", 0.6):
        began, client = time.monotonic(), connect(one)
        client.sendall(sent)
        assert hear(client).startswith(b"HTTP/1.1 408 ") and least <= time.monotonic() - began < least + 2
        client.close()
    began, client = time.monotonic(), connect(one)
    assert hung_up(client) and 0.9 <= time.monotonic() - began < 3
    client.close()


def test_connections_are_an_option(fresh):
    one = fresh(args=["--max-connections", "3", "--loops", "1"])
    held = [connect(one) for _ in range(3)]
    for client in held:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
    beyond = connect(one)
    assert hear(beyond).startswith(b"HTTP/1.1 503 ")
    for client in [beyond, *held]:
        client.close()


def test_what_many_large_bodies_take_together_has_a_limit(fresh):
    """Two thousand clients begin a body of 60 MiB each: 117 GiB if they were let."""
    one = fresh(args=["--max-held", "256Mi"])
    bits = serve_mlp(one)
    limit, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    before, part, held = one.rss_mb(), bytes(2 * MIB), []
    begin = head(one, f"Content-Length: {60 * MIB}") + b"\r\n" + part
    try:
        with Load(always_right(one, bits), 1) as load:
            for _ in range(2000):
                held.append(connect(one))
                held[-1].settimeout(0.05)
                send_all(held[-1], begin)
                assert one.rss_mb() - before < 256 + 64
            time.sleep(0.3)
        told = figures(one, "dhow_http_held_bytes")[""]
        assert 100 * MIB < told <= 256 * MIB
        assert figures(one, "dhow_http_connections")[""] > 1
        said = [hear(client)[:12] for client in held[-200:]]
        assert set(said) <= {b"HTTP/1.1 503", b""} and said.count(b"HTTP/1.1 503") > 50, said
        assert load.done > 20 and all("503" in failed for failed in load.failed), load.failed[:3]
    finally:
        for client in held:
            leave(client)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    eventually(lambda: figures(one, "dhow_http_held_bytes")[""] < MIB, 10, what="the memory's return")
    eventually(lambda: one.rss_mb() - before < 64, 20, 0.2, what="the pages' return")
    assert always_right(one, bits)(one.session) is None


# ---- gzip ----

ONES = helper.make_node("ConstantOfShape", ["n"], ["y"])


def reply_bytes(daemon, name, accepts, method):
    """How many bytes the answer to a call takes on the wire, and whether its message is compressed."""
    asked = pb.ModelInferRequest(model_name=name, raw_input_contents=[np.int64([1000]).tobytes()])
    asked.inputs.add(name="n", datatype="INT64", shape=[1])
    with Wire(daemon) as wire:
        more = [("grpc-accept-encoding", accepts)] if accepts else []
        wire.send(call_headers(daemon, method, *more), frame(DATA, END_STREAM, 1, message(asked.SerializeToString())))
        data = wire.until(DATA, 1)
    return len(data), data[0]


@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer"])
@pytest.mark.parametrize("args, accepts, zipped", [((), "gzip", 0), (("--grpc-gzip",), "identity,deflate,gzip", 1),
                                                   (("--grpc-gzip",), "", 0), (("--grpc-gzip",), "identity", 0)])
def test_gzip_of_replies_is_an_option(fresh, args, accepts, zipped, method):
    one = fresh(args=args)
    one.deploy_onnx("ones", model_of([ONES], {"n": ("INT64", [1])}, {"y": ("FP32", ["N"])}))
    n, flag = reply_bytes(one, "ones", accepts, method)
    assert flag == zipped and (n < 500 if zipped else n > 4000)


def test_tritonclient_reads_compressed_replies(fresh):
    one = fresh(args=["--grpc-gzip"])
    one.deploy_onnx("same", same("FP32"))
    x = np.tile(np.arange(2, dtype=np.float32), (5000, 1))
    for how in (None, "gzip", "deflate"):
        np.testing.assert_array_equal(ask(triton_grpc, one, x, compression_algorithm=how), x)
    answers = queue.Queue()
    with triton_grpc.InferenceServerClient(one.url.removeprefix("http://")) as client:
        client.start_stream(lambda result, error: answers.put((result, error)), compression_algorithm="gzip",
                            headers={"authorization": f"Bearer {one.token}"})
        for i in range(3):
            tensor = triton_grpc.InferInput("x", x.shape, "FP32")
            client.async_stream_infer("same", [tensor.set_data_from_numpy(x + i)])
        for i in range(3):
            result, error = answers.get(timeout=10)
            assert error is None
            np.testing.assert_array_equal(result.as_numpy("y"), x + i)
        client.stop_stream()
