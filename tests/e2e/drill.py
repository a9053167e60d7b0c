# SPDX-License-Identifier: Apache-2.0
"""What the fault drills share: a small network that is served all along, what must hold after each fault, raw bytes to the
server, and frames of HTTP/2 made by hand."""

import contextlib
import json
import re
import socket
import struct
import threading
import time
import zlib

import numpy as np
import pytest
import requests
from onnx import helper
from serving import model_of

from conftest import eventually

X = np.random.default_rng(4).standard_normal((3, 16)).astype(np.float32)
GROWTH_MB = 24  # that a fault may leave behind: what the heap keeps of its pages


def mlp(seed=7):
    """16-64-64-1: the model and what it makes of x."""
    random = np.random.default_rng(seed)
    sizes, weights, nodes, x = (16, 64, 64, 1), {}, [], "x"
    for i in range(3):
        weights[f"w{i}"] = (random.standard_normal(sizes[i:i + 2]) / 4).astype(np.float32)
        weights[f"b{i}"] = random.standard_normal(sizes[i + 1]).astype(np.float32)
        nodes.append(helper.make_node("Gemm", [x, f"w{i}", f"b{i}"], [f"h{i}"]))
        x = f"r{i}" if i < 2 else "y"
        nodes.append(helper.make_node("Relu" if i < 2 else "Sigmoid", [f"h{i}"], [x]))

    def answer(x):
        x = x.astype(np.float64)
        for i in range(3):
            x = x @ weights[f"w{i}"] + weights[f"b{i}"]
            x = np.maximum(x, 0) if i < 2 else 1 / (1 + np.exp(-x))
        return x
    return model_of(nodes, {"x": ("FP32", ["N", 16])}, {"y": ("FP32", ["N", 1])}, weights), answer


def infer_path(name):
    return f"/v2/models/{name}/infer"


def binary_body(x=X, **more):
    """Head and bytes of a request, as one; the length of its head."""
    head = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": list(x.shape),
                                   "parameters": {"binary_data_size": x.nbytes}, **more}],
                       "parameters": {"binary_data_output": True}}).encode()
    return head + x.tobytes(), len(head)


def predict(daemon, name="mlp", x=X, session=None, timeout=60, **more):
    """The answer's bytes."""
    body, n = binary_body(x)
    headers = {"Authorization": f"Bearer {daemon.token}", "Inference-Header-Content-Length": str(n)}
    reply = (session or daemon.session).post(daemon.url + infer_path(name), data=body, headers=headers, timeout=timeout, **more)
    assert reply.status_code == 200, f"{reply.status_code}: {reply.text[:500]}"
    return reply.content[int(reply.headers["Inference-Header-Content-Length"]):]


def serve_mlp(daemon, name="mlp", **spec):
    """Deploys the network; its answer to X, bit for bit."""
    model, answer = mlp()
    daemon.deploy_onnx(name, model, **spec)
    bits = predict(daemon, name)
    np.testing.assert_allclose(np.frombuffer(bits, np.float32), answer(X).ravel(), rtol=1e-5)
    return bits


@contextlib.contextmanager
def unharmed(daemon, bits, growth_mb=GROWTH_MB):
    """After what happens inside: the same process lives and answers, it answers right, and has not grown by more."""
    pid, before = daemon.pid, daemon.rss_mb()
    yield
    assert daemon.alive() and daemon.pid == pid
    assert daemon.http("GET", "/healthz", token=None).status_code == 200
    assert predict(daemon) == bits
    eventually(lambda: daemon.rss_mb() - before < growth_mb, 10, 0.1, f"memory within {growth_mb} MB of {before:.0f}")


def figures(daemon, name):
    """Lines of /metrics of this name: {labels: value}."""
    text = daemon.http("GET", "/metrics").text
    return {labels or "": float(value) for labels, value in re.findall(rf"^{name}(\{{.*\}})? (\S+)$", text, re.M)}


class Load:
    """Threads that call all the time, each with a connection of its own; what went wrong, and how long calls took."""

    def __init__(self, call, threads=8):
        self.call, self.over = call, threading.Event()
        self.failed, self.seconds, self.done = [], [], 0
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(threads)]

    def run(self):
        with requests.Session() as session:
            session.trust_env = False
            while not self.over.is_set():
                began = time.monotonic()
                try:
                    self.call(session)
                except Exception as e:  # whatever it is, it is what is counted
                    self.failed.append(repr(e)[:300])
                    time.sleep(0.01)
                else:
                    self.done += 1
                    self.seconds.append(time.monotonic() - began)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join(60)


def always_right(daemon, bits, name="mlp"):
    """A call for Load."""
    def call(session):
        assert predict(daemon, name, session=session) == bits, "a wrong answer"
    return call


# ---- raw bytes ----

def connect(daemon, seconds=10):
    host, port = daemon.url.partition("://")[2].split(":")
    one = socket.create_connection((host, int(port)), timeout=seconds)
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return one


def head(daemon, *lines, name="mlp"):
    """The head of a prediction's request, without its last line."""
    return "".join(f"{line}\r\n" for line in (f"POST {infer_path(name)} HTTP/1.1", "Host: localhost",
                                               f"Authorization: Bearer {daemon.token}", *lines)).encode()


def hear(one):
    """All that the server says until it hangs up, or is silent for the socket's time."""
    said = b""
    with contextlib.suppress(OSError):
        while part := one.recv(65536):
            said += part
    return said


def hung_up(one, seconds=10):
    """Whether the server ends the connection in time."""
    one.settimeout(seconds)
    try:
        while one.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


def leave(one):
    """Closes with a reset, as a process that dies with an answer unread does. An orderly end is only of what the client
    sends: it may still read its answer."""
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    one.close()


def send_all(one, data):
    """False: the server hung up before it had all."""
    try:
        one.sendall(data)
    except OSError:
        return False
    return True


def zeros_zipped(mebibytes):
    """So many MiB of zeros, as a gzip stream that is made in a moment and has no end."""
    made = zlib.compressobj(9, zlib.DEFLATED, 31)
    first = made.compress(bytes(1 << 20)) + made.flush(zlib.Z_FULL_FLUSH)
    again = made.compress(bytes(1 << 20)) + made.flush(zlib.Z_FULL_FLUSH)
    return first + again * (mebibytes - 1)


# ---- HTTP/2, by hand (RFC 9113) ----

DATA, HEADERS, RST, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind, flags=0, stream=0, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def length(n):
    """Of a text in HPACK, which has seven bits for it in the first byte."""
    if n < 127:
        return bytes([n])
    out, n = b"\x7f", n - 127
    while n > 127:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def fields(*pairs):
    """Headers, none of them compressed."""
    return b"".join(b"\0" + length(len(k)) + k.encode() + length(len(v)) + v.encode() for k, v in pairs)


def call_headers(daemon, method, *more, stream=1, flags=END_HEADERS):
    return frame(HEADERS, flags, stream, fields(
        (":method", "POST"), (":scheme", "http"), (":path", f"/inference.GRPCInferenceService/{method}"),
        (":authority", "localhost"), ("content-type", "application/grpc"), ("te", "trailers"),
        ("authorization", f"Bearer {daemon.token}"), *more))


def message(body, zipped=False, said=None):
    """One of gRPC, which says that it is so long."""
    return bytes([zipped]) + struct.pack(">I", len(body) if said is None else said) + body


class Wire:
    """A connection of HTTP/2."""

    def __init__(self, daemon, *settings, seconds=10):
        self.socket, self.rest = connect(daemon, seconds), b""
        self.socket.sendall(PREFACE + frame(SETTINGS, payload=b"".join(struct.pack(">HI", *s) for s in settings)))
        assert self.until(SETTINGS) is not None
        self.socket.sendall(frame(SETTINGS, ACK))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, *frames):
        return send_all(self.socket, b"".join(frames))

    def frames(self):
        """(kind, flags, stream, payload) of each frame that comes, until the end of the connection."""
        while True:
            with contextlib.suppress(ConnectionError):
                while len(self.rest) >= 9 and len(self.rest) >= 9 + int.from_bytes(self.rest[:3], "big"):
                    n = int.from_bytes(self.rest[:3], "big")
                    got = self.rest[:9 + n]
                    self.rest = self.rest[9 + n:]
                    yield got[3], got[4], int.from_bytes(got[5:9], "big") & 0x7fffffff, got[9:]
                part = self.socket.recv(65536)
                if part:
                    self.rest += part
                    continue
            return

    def until(self, kind, stream=None, flags=0):
        """The payload of the first such frame; None: the connection ended before."""
        for got, has, where, payload in self.frames():
            if got == kind and stream in (None, where) and has & flags == flags:
                return payload
        return None

    def answers(self):
        """Whether the server is still there, and listens."""
        return self.send(frame(PING, payload=b"are you?")) and self.until(PING, flags=ACK) == b"are you?"
