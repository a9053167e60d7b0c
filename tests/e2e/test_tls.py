# SPDX-License-Identifier: Apache-2.0
"""TLS as real clients speak it: tritonclient over HTTP, asyncio and gRPC, bare grpcio, and our own command line; with a
certificate of their own where the server asks for one."""

import asyncio
import queue
import re
import ssl

import gevent.ssl
import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
import tritonclient.http.aio as triton_aio
from serving import linear
from test_drill_change import Authority, secure

MODEL, W, B = linear()
X = np.random.default_rng(5).standard_normal((4, 4)).astype(np.float32)


@pytest.fixture(params=["server", "both"])
def tls(request, fresh, tmp_path):
    """A daemon whose clients show a certificate, too, or need none; what a client needs, as PEM files."""
    one = Authority(tmp_path)
    mine = one.issue("client", "extendedKeyUsage=clientAuth") if request.param == "both" else None
    daemon = one.daemon = secure(fresh, one, *(["--tls-client-ca", str(one.pem)] if mine else []))
    daemon.session.cert = mine and tuple(map(str, mine))
    daemon.deploy_onnx("linear", MODEL)
    daemon.mine, daemon.authority = mine, one
    daemon.address = daemon.url.removeprefix("https://")
    daemon.headers = {"authorization": f"Bearer {daemon.token}"}
    return daemon


def context(daemon):
    made = ssl.create_default_context(cafile=str(daemon.authority.pem))
    if daemon.mine:
        made.load_cert_chain(*daemon.mine)
    return made


def channel(daemon):
    cert, key = (part.read_bytes() for part in daemon.mine) if daemon.mine else (None, None)
    return grpc.ssl_channel_credentials(daemon.authority.pem.read_bytes(), key, cert)


def asked(of):
    return [of.InferInput("x", X.shape, "FP32").set_data_from_numpy(X)]


def right(result):
    np.testing.assert_allclose(result.as_numpy("y"), X @ W + B, rtol=1e-5, atol=1e-6)


def test_tritonclient_over_https(tls):
    options = {"ca_certs": str(tls.authority.pem)}
    if tls.mine:
        options |= {"certfile": str(tls.mine[0]), "keyfile": str(tls.mine[1])}
    with triton_http.InferenceServerClient(tls.address, ssl=True, ssl_options=options, concurrency=4,
                                           ssl_context_factory=lambda: gevent_context(options)) as client:
        assert client.is_server_live(headers=tls.headers) and client.is_model_ready("linear", headers=tls.headers)
        right(client.infer("linear", asked(triton_http), headers=tls.headers))
        waiting = [client.async_infer("linear", asked(triton_http), headers=tls.headers) for _ in range(8)]
        for one in waiting:
            right(one.get_result())


def gevent_context(options):
    made = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.load_verify_locations(options["ca_certs"])
    if "certfile" in options:
        made.load_cert_chain(options["certfile"], options["keyfile"])
    return made


def test_tritonclient_over_https_by_asyncio(tls):
    async def go():
        async with triton_aio.InferenceServerClient(tls.address, ssl=True, ssl_context=context(tls)) as client:
            right(await client.infer("linear", asked(triton_http), headers=tls.headers))
    asyncio.run(go())


def test_tritonclient_over_grpc(tls):
    files = dict(zip(("certificate_chain", "private_key"), map(str, tls.mine))) if tls.mine else {}
    with triton_grpc.InferenceServerClient(tls.address, ssl=True, root_certificates=str(tls.authority.pem), **files) as client:
        assert client.is_server_ready(headers=tls.headers)
        assert client.get_model_metadata("linear", headers=tls.headers).name == "linear"
        right(client.infer("linear", asked(triton_grpc), headers=tls.headers))
        answers = queue.Queue()
        client.start_stream(lambda result, error: answers.put((result, error)), headers=tls.headers)
        for _ in range(5):
            client.async_stream_infer("linear", asked(triton_grpc))
        for _ in range(5):
            result, error = answers.get(timeout=10)
            assert error is None
            right(result)
        client.stop_stream()


def test_bare_grpcio(tls):
    with grpc.secure_channel(tls.address, channel(tls)) as one:
        assert one.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=10) == b"\x08\x01"
        with pytest.raises(grpc.RpcError) as refused:
            one.unary_unary("/inference.GRPCInferenceService/ModelReady")(b"\x0a\x06linear", timeout=10)
        assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_who_does_not_trust_or_is_not_trusted_gets_nothing(tls, tmp_path):
    (tmp_path / "stranger").mkdir()
    stranger = Authority(tmp_path / "stranger", "stranger")
    calls = [grpc.ssl_channel_credentials(stranger.pem.read_bytes())]
    if tls.mine:
        cert, key = stranger.issue("other", "extendedKeyUsage=clientAuth")
        calls += [grpc.ssl_channel_credentials(tls.authority.pem.read_bytes()),
                  grpc.ssl_channel_credentials(tls.authority.pem.read_bytes(), key.read_bytes(), cert.read_bytes())]
    for credentials in calls:
        with grpc.secure_channel(tls.address, credentials) as one, pytest.raises(grpc.RpcError) as refused:
            one.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=5)
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE


# ---- our own ----

@pytest.fixture
def line(tls):
    """The command line, told whom to trust and what to show."""
    tls.extra_env = {"DHOW_CA": str(tls.authority.pem)}
    if tls.mine:
        tls.extra_env |= dict(zip(("DHOW_CERT", "DHOW_KEY"), map(str, tls.mine)))
    return tls


def test_the_command_line_over_https(line):
    assert "linear" in line.ok("get", "deployments").out
    for protocol in ("rest", "binary", "grpc"):
        told = line.ok("model", "bench", "linear", "--protocol", protocol, "--seconds", "0.3", "--concurrency", "1,20",
                       "--threads", "2", "-o", "json").json()
        assert len(told) == 2 and all(level["requests"] > 0 and level["errors"] == {} for level in told), told


def test_a_wrong_authority_or_certificate_is_named(line, tmp_path):
    line.extra_env["DHOW_CA"] = str(tmp_path / "none.pem")
    got = line.cli("model", "bench", "linear")
    assert got.code == 2 and "none.pem has no certificates" in got.err and "DHOW_CA" in got.err
    line.extra_env.pop("DHOW_CA")
    got = line.cli("get", "deployments")
    assert got.code != 0 and re.search("no TLS with .*\nwhy: .*certificate", got.err) and "DHOW_CA" in got.err
    line.extra_env |= {"DHOW_CA": str(line.authority.pem), "DHOW_CERT": str(line.authority.pem), "DHOW_KEY": ""}
    got = line.cli("get", "deployments")
    assert got.code == 2 and "are not a certificate and its key" in got.err
