# SPDX-License-Identifier: Apache-2.0
"""The built binary under test: a daemon per test module, its command line, its HTTP API."""

import ctypes
import json
import os
import re
import secrets
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
import yaml

ROOT = Path(os.environ.get("DHOW_ROOT", Path(__file__).resolve().parents[2]))
DHOW = Path(os.environ.get("DHOW", ROOT / "build" / "dhow"))
LIBRARIES = ROOT / ".deps" / "lib"
FLIGHTS = ROOT / ".deps" / "data" / "flights-3m.parquet"
AIRPORTS = ROOT / ".deps" / "data" / "airports.csv"
PR_SET_PDEATHSIG = 1
LISTENS = re.compile(r"^dhow \S+ listens on (https?://\S+), data in (.*)\n", re.M)  # the whole line: it may be read while it is written
OVER = ("succeeded", "failed", "cancelled")


def dies_with_parent():
    """A daemon does not outlive the test run, however that ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def eventually(look, seconds=10.0, every=0.02, what="it"):
    """The first true value of look(); fails when there is none in time."""
    end = time.monotonic() + seconds
    while True:
        value = look()
        if value:
            return value
        if time.monotonic() > end:
            pytest.fail(f"{what} did not come within {seconds:g} s; last: {value!r}")
        time.sleep(every)


@dataclass
class Result:
    """What a command left behind."""

    code: int
    out: str
    err: str

    def json(self):
        return json.loads(self.out)

    def yaml(self):
        return yaml.safe_load(self.out)


class Daemon:
    def __init__(self, folder, env=None, args=()):
        self.folder = Path(folder)
        self.data = self.folder / "data"
        self.sources = self.folder / "sources"
        self.home = self.folder / "home"
        self.token_file = self.folder / "token"
        self.log = self.folder / "daemon.log"
        for place in (self.sources, self.home):
            place.mkdir(parents=True, exist_ok=True)
        self.extra_env = dict(env or {})
        self.args = list(args)
        self.process = None
        self.url = None
        self.start_seconds = None
        self.session = requests.Session()
        self.session.trust_env = False

    # ---- the process ----

    def env(self):
        keep = {k: v for k, v in os.environ.items() if not k.startswith("DHOW_") and "proxy" not in k.lower()}
        return {**keep, "HOME": str(self.home), "TMPDIR": str(self.folder), "TERM": "dumb", **self.extra_env}

    def command(self, *args):
        return [str(DHOW), "serve", "--data", str(self.data), "--listen", "127.0.0.1:0",
                "--sources", str(self.sources), "--first-token", str(self.token_file), *self.args, *args]

    def launch(self):
        """Begins a start, without waiting for it; how long the log was before."""
        assert self.process is None, "it runs already"
        self.log.touch()
        told = self.log.stat().st_size
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env=self.env(), cwd=self.folder, preexec_fn=dies_with_parent)
        return told

    def start(self, seconds=30.0):
        began = time.monotonic()
        told = self.launch()
        while True:
            found = LISTENS.search(self.log.read_bytes()[told:].decode(errors="replace"))
            if found:
                break
            if self.process.poll() is not None or time.monotonic() - began > seconds:
                text = self.log.read_bytes()[told:].decode(errors="replace")
                self.kill()
                pytest.fail(f"the daemon did not start:\n{text[-4000:]}")
            time.sleep(0.002)
        self.start_seconds = time.monotonic() - began
        self.url = found.group(1)
        assert found.group(2) == str(self.data)
        return self

    @property
    def pid(self):
        return self.process.pid

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def stop(self, seconds=20.0):
        """Asks it to end, and wants a clean exit."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(seconds)
        self.process = None
        assert code == 0, f"the daemon ended with {code}:\n{self.log_text()[-4000:]}"

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.wait()
        self.process = None

    def log_text(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def threads(self):
        """Names of its threads."""
        return [(task / "comm").read_text().strip() for task in Path(f"/proc/{self.pid}/task").iterdir()]

    def rss_mb(self):
        text = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", text).group(1)) / 1024

    # ---- HTTP ----

    @property
    def token(self):
        return self.token_file.read_text().strip()

    def http(self, method, path, token=True, headers=None, timeout=60, **more):
        """token: True is the admin's, None is none, else it is one."""
        headers = dict(headers or {})
        if token is not None:
            headers.setdefault("Authorization", f"Bearer {self.token if token is True else token}")
        return self.session.request(method, self.url + path, headers=headers, timeout=timeout, **more)

    def path(self, plural, name=None, action=None, project="default"):
        parts = ["/api/v1/projects", project, plural] + [p for p in (name, action) if p]
        return "/".join(parts)

    def get(self, plural, name=None, project="default", **more):
        reply = self.http("GET", self.path(plural, name, project=project), **more)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def put(self, kind, name, spec, project="default", plural=None, **more):
        document = {"apiVersion": "dhow/v1", "kind": kind, "metadata": {"name": name, **more.pop("metadata", {})},
                    "spec": spec}
        return self.http("PUT", self.path(plural or plural_of(kind), name, project=project), json=document, **more)

    def project(self, name):
        """A project of its own, for a test that must not meet others'."""
        document = {"apiVersion": "dhow/v1", "kind": "Project", "metadata": {"name": name}, "spec": {}}
        reply = self.http("PUT", f"/api/v1/projects/{name}", json=document)
        assert reply.status_code in (200, 201), reply.text
        return name

    def make_token(self, roles, project="default", name="test", **more):
        reply = self.http("POST", "/api/v1/tokens", json={"name": name, "project": project, "roles": roles, **more})
        assert reply.status_code == 201, reply.text
        return reply.json()

    # ---- the command line ----

    def cli(self, *args, input=None, token=True, project=None, env=None, seconds=120):
        environment = {**self.env(), **(env or {})}
        if self.url:
            environment["DHOW_SERVER"] = self.url
        if token is True and self.token_file.exists():
            environment["DHOW_TOKEN_FILE"] = str(self.token_file)
        elif isinstance(token, str):
            environment["DHOW_TOKEN"] = token
        if project:
            environment["DHOW_PROJECT"] = project
        done = subprocess.run([str(DHOW), *args], input=input, capture_output=True, text=True, env=environment,
                              cwd=self.folder, timeout=seconds)
        return Result(done.returncode, done.stdout, done.stderr)

    def ok(self, *args, **more):
        result = self.cli(*args, **more)
        assert result.code == 0, f"dhow {' '.join(args)}: {result.code}\n{result.err}\n{result.out}"
        return result

    # ---- models ----

    def deploy_onnx(self, name, model, **spec):
        """Uploads a model (an ONNX proto or its bytes) and deploys the version, further fields of the Deployment's spec as
        given; the version's name, once it answers."""
        self.put("Model", name, {})
        data = model if isinstance(model, bytes) else model.SerializeToString()
        reply = self.http("POST", self.path("models", name, "upload"), data=data,
                          headers={"Content-Type": "application/octet-stream"})
        assert reply.status_code == 201, reply.text
        version = reply.json()["version"]
        reply = self.put("Deployment", name, {"model": name, "version": version, **spec})
        assert reply.ok, reply.text

        def look():
            status = self.get("deployments", name).get("status", {})
            assert status.get("phase") != "failed", status
            return status.get("phase") == "serving" and status.get("version") == version
        eventually(look, 20, 0.01, f"deployment {name}")
        return version

    # ---- work ----

    def wait_over(self, plural, name, seconds=60.0, project="default"):
        """The resource once its phase is a last one."""
        def look():
            thing = self.get(plural, name, project=project)
            return thing if thing.get("status", {}).get("phase") in OVER else None
        return eventually(look, seconds, 0.05, f"the end of {plural}/{name}")

    def job(self, command, name=None, **spec):
        """Starts a command as a job; its name."""
        name = name or f"job-{secrets.token_hex(4)}"
        reply = self.put("Job", name, {"type": "command", "command": command, **spec})
        assert reply.status_code == 201, reply.text
        return name

    def job_log(self, name):
        reply = self.http("GET", self.path("jobs", name, "logs"))
        assert reply.status_code == 200, reply.text
        return reply.text


def plural_of(kind):
    return kind.lower() + ("es" if kind.endswith("s") else "s")


def daemon_close(daemon):
    """Ends it; a test that left it dead, or one that it died in, is told."""
    if daemon.process is None:
        return
    if daemon.alive():
        daemon.stop()
    else:
        code = daemon.process.returncode
        daemon.process = None
        pytest.fail(f"the daemon died with {code}:\n{daemon.log_text()[-4000:]}")


@pytest.fixture(scope="session", autouse=True)
def binary():
    if not DHOW.is_file():
        pytest.exit(f"{DHOW.name} is not built: make build", 1)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory, request):
    """One daemon for all tests of a module."""
    folder = tmp_path_factory.mktemp(request.module.__name__.removeprefix("test_"))
    one = Daemon(folder).start()
    yield one
    daemon_close(one)


@pytest.fixture
def fresh(tmp_path):
    """Makes daemons for one test: fresh(env=…, args=…) is started, fresh.unstarted(…) is not."""
    made = []

    def unstarted(name="d", **more):
        made.append(Daemon(tmp_path / f"{name}{len(made)}", **more))
        return made[-1]

    def start(**more):
        return unstarted(**more).start()

    start.unstarted = unstarted
    yield start
    for one in made:
        daemon_close(one)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The main job's pipeline, run once on a part of the flights: for all tests that look at what it made. first_run is
    the command that ran it."""
    import flights

    one = Daemon(tmp_path_factory.mktemp("trained")).start()
    one.source_rows = flights.sources_make(one.sources)
    one.ok("apply", "-f", "-", input=flights.text(flights.documents()))
    one.first_run = one.cli("run", "late", "-o", "json", seconds=300)
    yield one
    daemon_close(one)


@pytest.fixture(scope="session")
def run_binary(tmp_path_factory):
    """The command line without a daemon."""
    return Daemon(tmp_path_factory.mktemp("cli")).cli
