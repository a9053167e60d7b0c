# SPDX-License-Identifier: Apache-2.0
"""The fault drill while things change under load: the process is killed, certificates are rotated, versions come and go,
models are loaded and unloaded."""

import contextlib
import json
import os
import shutil
import ssl
import subprocess
import threading
import time

import duckdb
import flights
import numpy as np
import pytest
import requests
import tritonclient.http as triton
from drill import X, Load, always_right, binary_body, connect, infer_path, mlp, predict, serve_mlp, unharmed

from conftest import eventually

SECOND = 1
PROMISE_S = 0.5         # of the request log: a twentieth of a second
CYCLES, FLAT_MB = 60, 2
KILLS = int(os.environ.get("KILLS", 5))


def upload(daemon, name, seed=7):
    reply = daemon.http("POST", daemon.path("models", name, "upload"), data=mlp(seed)[0].SerializeToString(),
                        headers={"Content-Type": "application/octet-stream"})
    assert reply.status_code == 201, reply.text
    return reply.json()["version"]


# ---- kill -9 ----

class Killed:
    """Predictions and new versions until the process is killed: what of them was acknowledged, and when."""

    def __init__(self, daemon, bits):
        self.daemon, self.bits, self.wrong, self.asked, self.versions = daemon, bits, [], {}, []
        self.over = threading.Event()

    def predictions(self, thread, number):
        body, n = binary_body()
        with requests.Session() as session:
            session.trust_env = False
            for i in range(1_000_000):
                if self.over.is_set():
                    return
                name = f"{number}-{thread}-{i}"
                try:
                    reply = session.post(self.daemon.url + infer_path("mlp"), data=body, timeout=10, headers={
                        "Authorization": f"Bearer {self.token}", "Inference-Header-Content-Length": str(n), "X-Request-Id": name})
                except requests.RequestException:
                    return
                if reply.status_code != 200 or not reply.content.endswith(self.bits):
                    self.wrong.append(reply.text[:200])
                self.asked[name] = time.monotonic()

    def uploads(self):
        data = mlp()[0].SerializeToString()
        while not self.over.is_set():
            try:
                reply = requests.post(self.daemon.url + self.daemon.path("models", "other", "upload"), data=data, timeout=10,
                                      headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/octet-stream"})
            except requests.RequestException:
                return
            if reply.status_code == 201:
                self.versions.append(reply.json()["version"])

    def round(self, number, seconds=0.8):
        """Kills it under load; forgets what the request log need not have kept."""
        self.token = self.daemon.token
        threads = [threading.Thread(target=self.predictions, args=(i, number)) for i in range(8)]
        threads.append(threading.Thread(target=self.uploads))
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        at = time.monotonic()
        self.daemon.kill()
        self.over.set()
        for thread in threads:
            thread.join(20)
        self.over.clear()
        self.asked = {k: t for k, t in self.asked.items() if t < at - PROMISE_S}


def listed(daemon, plural):
    """Names of all of a kind, page by page."""
    page = {"next": ""}
    while "next" in page:
        page = daemon.get(plural, params={"limit": 1000, "after": page["next"]})
        yield from (one["metadata"]["name"] for one in page["items"])


def logged(daemon, folder):
    """Names of the requests in the log."""
    names = set()
    for version in listed(daemon, "datasetversions"):
        reply = daemon.http("GET", daemon.path("datasetversions", version, "files/0"))
        file = folder / "one.parquet"
        file.write_bytes(reply.content)
        names |= {name for name, in duckdb.sql(f"SELECT request_id FROM '{file}'").fetchall()}
    return names


def test_kill_under_load_loses_nothing_that_was_acknowledged(fresh, tmp_path):
    daemon = fresh()
    bits = serve_mlp(daemon, requestLog={"share": 1, "rotateEvery": "1s"})
    daemon.put("Model", "other", {})
    work = Killed(daemon, bits)
    for number in range(KILLS):
        work.round(number)
        daemon.start()
        eventually(lambda: daemon.http("GET", "/v2/models/mlp/ready").status_code == 200, 10, 0.01, "the deployment")
        assert predict(daemon) == bits
        assert not work.wrong, work.wrong[:3]
    assert len(work.versions) > 5 and set(work.versions) <= set(listed(daemon, "modelversions"))
    assert len(work.asked) > 100
    lost = work.asked.keys()

    def all_there():
        nonlocal lost
        lost = lost - logged(daemon, tmp_path)
        return not lost
    with contextlib.suppress(pytest.fail.Exception):
        eventually(all_there, 15, 0.2)
    assert not lost, f"of {len(work.asked)} requests the log lacks {len(lost)}: {sorted(lost)[:20]}"


# ---- certificates ----

class Authority:
    """Certificates by the openssl command, of an authority of its own."""

    def __init__(self, folder, name="authority"):
        self.folder = folder
        self.run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
                 f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")
        self.name, self.pem = name, folder / f"{name}.pem"

    def run(self, *args):
        subprocess.run(["openssl", *args], cwd=self.folder, check=True, capture_output=True)

    def issue(self, name, more="subjectAltName=IP:127.0.0.1"):
        """(certificate, key)"""
        (self.folder / "more").write_text(more)
        self.run("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
                 "-keyout", f"{name}.key", "-out", f"{name}.csr")
        self.run("x509", "-req", "-in", f"{name}.csr", "-CA", self.pem.name, "-CAkey", f"{self.name}.key", "-CAcreateserial",
                 "-days", "1", "-extfile", "more", "-out", f"{name}.pem")
        return self.folder / f"{name}.pem", self.folder / f"{name}.key"


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


def put_pair(daemon, cert, key):
    """The files are replaced as a tool does that renews them."""
    for source, name in ((cert, "tls.pem"), (key, "tls.key")):
        shutil.copy(source, daemon.folder / (name + ".new"))
        os.replace(daemon.folder / (name + ".new"), daemon.folder / name)


def secure(fresh, authority, *args):
    """A daemon that speaks TLS with the certificate "first"."""
    daemon = fresh.unstarted()
    daemon.args = ["--tls-cert", "tls.pem", "--tls-key", "tls.key", *args]
    put_pair(daemon, *authority.issue("first"))
    daemon.session.verify = str(authority.pem)
    daemon.start()
    assert daemon.url.startswith("https://")
    return daemon


def shown(daemon, authority, **more):
    """The name in the certificate that a new connection is shown, and the connection's version."""
    context = ssl.create_default_context(cafile=str(authority.pem))
    with connect(daemon) as raw, context.wrap_socket(raw, server_hostname="127.0.0.1") as one:
        return dict(part[0] for part in one.getpeercert()["subject"])["commonName"], one.version()


def test_certificates_are_rotated_under_load(fresh, authority):
    daemon = secure(fresh, authority)
    bits = serve_mlp(daemon)
    assert shown(daemon, authority) == ("first", "TLSv1.3")

    def call(session):
        session.verify = str(authority.pem)
        assert predict(daemon, session=session) == bits
        assert shown(daemon, authority)[0] in names, "a new connection, too"
    names = ["first"]
    with unharmed(daemon, bits, 32), Load(call, 4) as load:
        for name in ("second", "third", "fourth"):
            names.append(name)
            put_pair(daemon, *authority.issue(name))
            eventually(lambda: shown(daemon, authority)[0] == name, 10, 0.05, "the new certificate")
        (daemon.folder / "tls.pem").write_text("no certificate")
        eventually(lambda: "tls.reload_failed" in daemon.log_text(), 10, 0.05, "the report of a bad pair")
        cert, _ = authority.issue("fifth")
        put_pair(daemon, cert, authority.folder / "fourth.key")
        eventually(lambda: daemon.log_text().count("tls.reload_failed") > 1, 10, 0.05, "the report of a pair that is none")
        assert shown(daemon, authority)[0] == "fourth"
    assert not load.failed and load.done > 100, load.failed[:3]


def test_old_versions_of_tls_and_plain_http_are_refused(fresh, authority):
    daemon = secure(fresh, authority)
    context = ssl.create_default_context(cafile=str(authority.pem))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with connect(daemon) as raw, pytest.raises(ssl.SSLError, match="(?i)version"):
        context.wrap_socket(raw, server_hostname="127.0.0.1")
    reply = requests.get(daemon.url.replace("https", "http") + "/healthz", timeout=10)
    assert reply.status_code == 400 and "TLS" in reply.text
    for noise in (b"\x16\x03\x01\xff\xff" + b"x" * 1000, b"\x16" * 70_000, b"\x80\x2e\x01\x00\x02", b""):
        with connect(daemon) as raw, contextlib.suppress(OSError):
            raw.sendall(noise)
    assert daemon.http("GET", "/healthz").status_code == 200


def test_only_clients_with_a_certificate_are_let_in(fresh, authority, tmp_path):
    daemon = fresh.unstarted()
    (tmp_path / "stranger").mkdir()
    stranger = Authority(tmp_path / "stranger", "stranger")
    mine = authority.issue("client", "extendedKeyUsage=clientAuth")
    daemon = secure(fresh, authority, "--tls-client-ca", str(authority.pem))

    def health(cert):
        return requests.get(daemon.url + "/healthz", verify=str(authority.pem), cert=cert and tuple(map(str, cert)), timeout=10)
    assert health(mine).status_code == 200
    for other in (None, stranger.issue("other", "extendedKeyUsage=clientAuth")):
        with pytest.raises(requests.exceptions.ConnectionError):
            health(other)
    daemon.session.cert = tuple(map(str, mine))
    assert daemon.http("GET", "/healthz").status_code == 200


# ---- versions and models ----

def champion(daemon, model, version):
    """Lets it through a gate, then makes it champion."""
    name = "pass-" + version.replace(".", "-")
    daemon.ok("apply", "-f", "-", input=flights.pipeline(name, ("gate", "gate", {
        "model": model, "version": version, "metrics": {"auc": 0.9}, "bounds": [{"metric": "auc", "min": 0.5}]})))
    daemon.ok("run", name)
    reply = daemon.http("POST", daemon.path("models", model, "alias"), json={"alias": "champion", "version": version})
    assert reply.ok, reply.text


def test_versions_change_under_load(daemon):
    bits = serve_mlp(daemon)
    upload(daemon, "mlp", 8)
    body, n = binary_body()
    answers = {seed - 6: mlp(seed)[1](X).ravel() for seed in (7, 8)}
    took = []

    def moving(session):
        """Each answer is right for the version that it names."""
        reply = session.post(daemon.url + infer_path("moving"), data=body, timeout=20, headers={
            "Authorization": f"Bearer {daemon.token}", "Inference-Header-Content-Length": str(n)})
        assert reply.status_code == 200, reply.text
        at = int(reply.headers["Inference-Header-Content-Length"])
        version = int(json.loads(reply.content[:at])["model_version"])
        np.testing.assert_allclose(np.frombuffer(reply.content[at:], np.float32), answers[version], rtol=1e-5)
        return version

    def wait_version(version, began):
        eventually(lambda: moving(daemon.session) == version, what=f"version {version}")
        took.append(time.monotonic() - began)

    for version in ("mlp.1", "mlp.2"):
        champion(daemon, "mlp", version)
    assert daemon.put("Deployment", "moving", {"model": "mlp", "version": "mlp.1"}).ok
    eventually(lambda: daemon.http("GET", "/v2/models/moving/ready").status_code == 200, what="the deployment")
    daemon.deploy_onnx("other", mlp(9)[0])
    with unharmed(daemon, bits), Load(always_right(daemon, bits), 8) as stays, Load(moving, 8) as moves:
        for version in (2, 1, 2, 1):
            began = time.monotonic()
            assert daemon.put("Deployment", "moving", {"model": "mlp", "version": f"mlp.{version}"}).ok
            wait_version(version, began)
        for verb in ("unload", "load") * 5:
            began = time.monotonic()
            assert daemon.http("POST", f"/v2/repository/models/other/{verb}", json={}).ok
            took.append(time.monotonic() - began)
        assert daemon.put("Deployment", "moving", {"model": "mlp", "canary": {"share": 0}}).ok
        wait_version(2, time.monotonic())
        began = time.monotonic()
        assert daemon.http("POST", daemon.path("deployments", "moving", "rollback"), json={}).ok
        wait_version(1, began)
    assert not stays.failed and stays.done > 100, stays.failed[:3]
    assert not moves.failed and moves.done > 100, moves.failed[:3]
    assert max(took) < SECOND, took


def test_memory_is_flat_over_cycles_of_loading(daemon):
    """Within 2 MB, from the first cycle on."""
    bits = serve_mlp(daemon)
    daemon.deploy_onnx("cycled", mlp(3)[0])
    client = triton.InferenceServerClient(daemon.url.removeprefix("http://"))
    headers = {"authorization": f"Bearer {daemon.token}"}
    x, sizes = triton.InferInput("x", X.shape, "FP32").set_data_from_numpy(X), []
    with unharmed(daemon, bits):
        for _ in range(CYCLES):
            client.unload_model("cycled", headers=headers)
            assert not client.is_model_ready("cycled", headers=headers)
            client.load_model("cycled", headers=headers)
            told = client.infer("cycled", [x], headers=headers).as_numpy("y")
            np.testing.assert_allclose(told, mlp(3)[1](X), rtol=1e-5)
            sizes.append(daemon.rss_mb())
    client.close()
    assert max(sizes) - min(sizes) < FLAT_MB, sizes
