# SPDX-License-Identifier: Apache-2.0
"""The fault drill: clients that are slow, many, wrong or hostile, models that take too long. After each of them the same
process answers as before, to the bit, and its memory stayed within a bound."""

import json
import resource
import time

import numpy as np
import pytest
import requests
from drill import (X, Load, always_right, binary_body, connect, figures, head, hear, hung_up, infer_path, leave, predict, send_all,
                   serve_mlp, unharmed, zeros_zipped)
from serving import slow

from conftest import eventually

CONNECTIONS = 10_000
CONNECTION_BYTES = 4096  # that an idle one may cost
ROWS = np.ones((200, 256), np.float32)  # for serving.slow()


@pytest.fixture(scope="module")
def served(daemon):
    daemon.bits = serve_mlp(daemon)
    return daemon


@pytest.fixture(autouse=True)
def goes_on(served):
    with unharmed(served, served.bits):
        yield


def errors(reply, status=400):
    """What a refusal says."""
    assert reply.status_code == status, f"{reply.status_code}: {reply.text[:300]}"
    told = reply.json()["error"]
    assert set(reply.json()) == {"error"} and 10 < len(told) < 1000, told
    return told


# ---- connections ----

def test_ten_thousand_idle_connections(served):
    limit, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    number = CONNECTIONS if hard == resource.RLIM_INFINITY else min(CONNECTIONS, hard - 1000)
    ask = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    before, held = served.rss_mb(), []
    try:
        for i in range(number):
            held.append(connect(served))
            if i % 2:   # one that was talked over, as browsers keep them
                held[-1].sendall(ask)
                assert held[-1].recv(4096).startswith(b"HTTP/1.1 200")
        for _ in range(100):
            assert predict(served) == served.bits
        each = (served.rss_mb() - before) * (1 << 20) / number
        for one in held[::97]:
            one.sendall(ask)
            assert one.recv(4096).startswith(b"HTTP/1.1 200"), "it is still ours"
    finally:
        for one in held:
            one.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    assert number == CONNECTIONS, f"the limit of files lets only {number} be tried"
    assert each < CONNECTION_BYTES


def test_slow_senders_hold_nobody_up_and_are_cut(served):
    """Heads that come byte by byte have ten seconds (net_limits), bodies a minute: those are still listened to here."""
    heads, bodies = ([connect(served) for _ in range(100)] for _ in range(2))
    body, n = binary_body()
    text = head(served, f"Content-Length: {len(body)}", f"Inference-Header-Content-Length: {n}")
    for one in bodies:
        one.sendall(text + b"\r\n")
    began = time.monotonic()
    cut_by = began + 14
    with Load(always_right(served, served.bits), 2) as load:
        for at in range(40):
            for one, drip in [(s, text) for s in heads] + [(s, body) for s in bodies]:
                send_all(one, drip[at:at + 1])
            time.sleep(0.2)
        assert all(hung_up(one, max(0.1, cut_by - time.monotonic())) for one in heads)
        assert time.monotonic() - began > 5, "they were given some time"
    assert not load.failed and load.done > 100, load.failed[:3]
    assert np.percentile(load.seconds, 99) < 1
    for one in bodies:
        send_all(one, body[40:])
    assert all(one.recv(4096).startswith(b"HTTP/1.1 200") for one in bodies)
    for one in heads + bodies:
        one.close()


def test_a_flood_of_one_byte_chunks_is_refused(served):
    with connect(served) as one:
        send_all(one, head(served, "Transfer-Encoding: chunked") + b"\r\n" + b"1\r\n \r\n" * 100_000 + b"0\r\n\r\n")
        told = hear(one)
    assert told.startswith(b"HTTP/1.1 400") and b'{"error":"too many chunks"}' in told, told[:500]


GOOD = b'{"inputs":[]}'
FRAMING = {
    "chunk size of letters": (["Transfer-Encoding: chunked"], b"zz\r\n"),
    "chunk size over 64 bits": (["Transfer-Encoding: chunked"], b"fffffffffffffffff\r\n"),
    "chunk size of 63 bits": (["Transfer-Encoding: chunked"], b"7fffffffffffffff\r\n"),
    "negative chunk size": (["Transfer-Encoding: chunked"], b"-1\r\n"),
    "chunk without its end": (["Transfer-Encoding: chunked"], b"1\r\nxx\r\n0\r\n\r\n"),
    "endless chunk extension": (["Transfer-Encoding: chunked"], b"1;" + b"x" * 100_000),
    "length and chunks": ([f"Content-Length: {len(GOOD)}", "Transfer-Encoding: chunked"], GOOD),
    "chunks and length": (["Transfer-Encoding: chunked", f"Content-Length: {len(GOOD)}"], GOOD),
    "two lengths": (["Content-Length: 13", "Content-Length: 14"], GOOD),
    "a list of lengths": (["Content-Length: 13, 14"], GOOD),
    "ten terabytes": (["Content-Length: 10000000000000"], GOOD),
    "length over 64 bits": (["Content-Length: 99999999999999999999"], GOOD),
    "negative length": (["Content-Length: -13"], GOOD),
    "length with a sign": (["Content-Length: +13"], GOOD),
    "hexadecimal length": (["Content-Length: 0x0d"], GOOD),
    "chunks in a coding": (["Transfer-Encoding: gzip, chunked"], GOOD),
    "blank before the colon": (["Content-Length : 13"], GOOD),
}


@pytest.mark.parametrize("why", FRAMING)
def test_a_body_whose_end_is_in_doubt_is_refused_and_nothing_after_it_is_read(served, why):
    lines, body = FRAMING[why]
    with connect(served) as one:
        send_all(one, head(served, *lines) + b"\r\n" + body + b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        told = hear(one)
    assert told.startswith(b"HTTP/1.1 4"), told[:200]
    assert told.count(b"HTTP/1.1 ") == 1, "a second request was smuggled in"


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_compressed_bomb_is_refused(served, coding):
    body = zeros_zipped(500)
    began = time.monotonic()
    reply = served.http("POST", infer_path("mlp"), data=body if coding == "gzip" else b"\x78\x01" + body[10:],
                        headers={"Content-Encoding": coding})
    assert reply.status_code in (400, 413) and "error" in reply.json(), reply.text
    assert time.monotonic() - began < 10


# ---- tensors ----

def json_request(**changes):
    one = {"name": "x", "datatype": "FP32", "shape": [1, 16], "data": [0.5] * 16, **changes}
    return {"inputs": [{k: v for k, v in one.items() if v is not None}]}


WRONG_JSON = {
    "overflowing shape": json_request(shape=[2**62, 16]),
    "shape that overflows to 16": json_request(shape=[2**60 + 1, 16]),
    "huge shape": json_request(shape=[2**40, 16]),
    "shape of 2^63": json_request(shape=[2**63, 16]),
    "shape of 2^64": json_request(shape=[2**64, 16]),
    "negative shape": json_request(shape=[-1, 16]),
    "empty shape": json_request(shape=[0, 16]),
    "fractional shape": json_request(shape=[1.5, 16]),
    "shape of texts": json_request(shape=["1", "16"]),
    "shape of 1,000": json_request(shape=[1] * 1000),
    "no shape": json_request(shape=None),
    "too few": json_request(data=[0.5] * 15),
    "too many": json_request(data=[0.5] * 17),
    "none": json_request(data=[]),
    "no data": json_request(data=None),
    "texts": json_request(data=["0.5"] * 16),
    "objects": json_request(data=[{}] * 16),
    "truths": json_request(data=[True] * 16),
    "over a float": json_request(data=[1e39] * 16),
    "other datatype": json_request(datatype="INT64", data=[1] * 16),
    "unknown datatype": json_request(datatype="FP31"),
    "datatype of a number": json_request(datatype=32),
    "other name": json_request(name="z"),
    "name of 100,000": json_request(name="x" * 100_000),
    "twice": {"inputs": json_request()["inputs"] * 2},
    "100,000 times": {"inputs": json_request()["inputs"] * 100_000},
    "none at all": {"inputs": []},
    "no inputs": {},
    "inputs of a text": {"inputs": "x"},
    "inputs of numbers": {"inputs": [1, 2]},
    "list": [1],
    "number": 1,
    "unknown output": {**json_request(), "outputs": [{"name": "z"}]},
}


@pytest.mark.parametrize("why", WRONG_JSON)
def test_wrong_tensors_in_json_are_refused(served, why):
    assert errors(served.http("POST", infer_path("mlp"), data=json.dumps(WRONG_JSON[why])))


TEXT = json.dumps(json_request()).encode()
WRONG_TEXT = {
    "200,000 [": b"[" * 200_000,
    "200,000 [] in data": TEXT.replace(b"[0.5", b"[" * 200_000),
    "200,000 objects": b'{"a":' * 200_000,
    "200,000 [] in what is passed over": b'{"more":' + b"[" * 200_000 + b"]" * 200_000 + b"," + TEXT[1:],
    "not UTF-8": TEXT.replace(b'"x"', b'"x\xff"'),
    "half a pair": TEXT.replace(b'"x"', b'"\\ud800"'),
    "NUL": TEXT.replace(b'"x"', b'"x\0"'),
    "truncated": TEXT[:-3],
    "two": TEXT + TEXT,
    "nothing": b"",
    "endless number": TEXT.replace(b"0.5]", b"1" * 1_000_000 + b"x]"),
}


@pytest.mark.parametrize("why", WRONG_TEXT)
def test_what_is_no_json_is_refused(served, why):
    assert errors(served.http("POST", infer_path("mlp"), data=WRONG_TEXT[why]))


RAW = bytes(64)
WRONG_BINARY = {
    "overflowing shape": ({"shape": [2**62, 16]}, RAW),
    "shape that overflows to 16": ({"shape": [2**60 + 1, 16]}, RAW),
    "negative shape": ({"shape": [-1, 16]}, RAW),
    "huge size": ({"parameters": {"binary_data_size": 2**62}}, RAW),
    "size over 64 bits": ({"parameters": {"binary_data_size": 2**64}}, RAW),
    "negative size": ({"parameters": {"binary_data_size": -64}}, RAW),
    "size of a text": ({"parameters": {"binary_data_size": "64"}}, RAW),
    "fewer bytes than they say": ({}, RAW[1:]),
    "more bytes than they say": ({}, RAW + b"\0"),
    "fewer bytes than the shape": ({"parameters": {"binary_data_size": 63}}, RAW[1:]),
    "no bytes": ({"parameters": {"binary_data_size": 0}}, b""),
    "data, too": ({"data": [0.5] * 16}, RAW),
    "other datatype": ({"datatype": "INT32"}, RAW),
    "texts past the end": ({"datatype": "BYTES"}, b"\xff\xff\xff\xff" * 16),
}


@pytest.mark.parametrize("why", WRONG_BINARY)
def test_wrong_tensors_in_binary_are_refused(served, why):
    changes, raw = WRONG_BINARY[why]
    one = {"name": "x", "datatype": "FP32", "shape": [1, 16], "parameters": {"binary_data_size": len(RAW)}, **changes}
    text = json.dumps({"inputs": [one]}).encode()
    errors(served.http("POST", infer_path("mlp"), data=text + raw,
                       headers={"Inference-Header-Content-Length": str(len(text))}))


# ---- models that take too long, and too many requests ----

def ask_slow(daemon, name, timeout=60):
    """The reply, and how long it took."""
    body, n = binary_body(ROWS)
    began = time.monotonic()
    reply = requests.post(daemon.url + infer_path(name), data=body, timeout=timeout, headers={
        "Authorization": f"Bearer {daemon.token}", "Inference-Header-Content-Length": str(n)})
    return reply, time.monotonic() - began


def test_a_model_that_takes_too_long_is_ended_and_others_are_not_held_up(served):
    served.deploy_onnx("endless", slow(steps=8000), runTimeout="1s")
    with Load(always_right(served, served.bits), 4) as load:
        reply, seconds = ask_slow(served, "endless")
        assert served.http("GET", "/healthz", token=None).status_code == 200
    assert "longer" in errors(reply, 504) and seconds > 1
    assert not load.failed and load.done > 100, load.failed[:3]
    assert np.percentile(load.seconds, 99) < seconds / 2
    served.http("DELETE", served.path("deployments", "endless"))


def failures(daemon, name, reason):
    return sum(v for k, v in figures(daemon, "nv_inference_request_failure").items()
               if f'model="{name}"' in k and f'reason="{reason}"' in k)


def test_a_full_queue_refuses_and_who_has_left_is_left_out(served):
    served.deploy_onnx("busy", slow(), instances=1, runTimeout="2s", batching={"queue": 4})
    body, n = binary_body(ROWS)
    asked = head(served, f"Content-Length: {len(body)}", f"Inference-Header-Content-Length: {n}", name="busy") + b"\r\n" + body
    runs, *waiting = [connect(served, 20) for _ in range(5)]
    runs.sendall(asked)
    eventually(lambda: in_flight(served, "busy") == 1, what="the run")
    for one in waiting:
        one.sendall(asked)
    eventually(lambda: in_flight(served, "busy") == 5, what="a full queue")
    reply, _ = ask_slow(served, "busy")
    assert "Exceeds maximum queue size" in errors(reply, 429) and int(reply.headers["Retry-After"]) >= 1
    for one in waiting:
        leave(one)
    ended = runs.recv(100)
    assert ended.startswith((b"HTTP/1.1 200", b"HTTP/1.1 504"))
    late = ended.startswith(b"HTTP/1.1 504")  # on a busy machine
    runs.close()
    eventually(lambda: failures(served, "busy", "CANCELED") == 4, what="the count of those who left")
    assert failures(served, "busy", "REJECTED") == 1 + late
    assert in_flight(served, "busy") == 0
    served.http("DELETE", served.path("deployments", "busy"))


def in_flight(daemon, name):
    return sum(v for k, v in figures(daemon, "dhow_inference_in_flight").items() if f'"{name}"' in k)


def test_a_token_that_asks_too_much_is_told_when_to_come_again(served):
    bits = serve_mlp(served, "limited", limits={"perSecond": 2, "burst": 4})
    body, n = binary_body()
    replies = [served.http("POST", infer_path("limited"), data=body, headers={"Inference-Header-Content-Length": str(n)})
               for _ in range(50)]
    refused = [r for r in replies if r.status_code != 200]
    assert 30 < len(refused) < 50
    for reply in refused:
        assert "more" in errors(reply, 429) and int(reply.headers["Retry-After"]) >= 1
    time.sleep(int(refused[-1].headers["Retry-After"]))
    assert predict(served, "limited") == bits
    served.http("DELETE", served.path("deployments", "limited"))
