# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks share: a daemon in a folder of its own, a small trained model, nginx and wrk beside it, and the one
line of JSON that each figure is. Standard library only; everything listens on loopback and ends with the program."""

import array
import atexit
import csv
import ctypes
import http.client
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DHOW = Path(os.environ.get("DHOW", ROOT / "build" / "dhow"))
PEER = ROOT / "build" / "bench" / "peer"
DATA = ROOT / ".deps" / "data"
RECIPE = ROOT / "examples" / "flights" / "dhow.yaml"
CORES = len(os.sched_getaffinity(0))
TICK = os.sysconf("SC_CLK_TCK")
PIPELINE = ROOT / "bench" / "small.yaml"
UNTIL = 983404800 * 1000000  # small.yaml's until, 2001-03-01, in microseconds
PR_SET_PDEATHSIG = 1
MISSED = 3  # exit code: all was measured, and a bound was missed


def note(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def fail(what, hint):
    print(f"error: {what}\nhint:  {hint}", file=sys.stderr, flush=True)
    sys.exit(1)


def tool(name, *places):
    """The path of a program that set-up installs."""
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *places]))
    return found or fail(f"{name} is not installed", "run scripts/setup bench")


def emit(name, value, unit, peer=None, peer_value=None, **more):
    """One figure. ratio is value / peer_value; the unit tells which side of 1 is the better one. more: further members."""
    def rounded(x):
        return None if x is None else float(f"{x:.4g}")
    ratio = rounded(value / peer_value) if peer_value and value is not None else None
    print(json.dumps({"name": name, "value": rounded(value), "unit": unit, "peer": peer,
                      "peer_value": rounded(peer_value), "ratio": ratio, **more}, ensure_ascii=False), flush=True)
    return ratio


def median(values):
    return statistics.median(values)


def medians(rows):
    """A list of dicts of figures: one dict of their medians."""
    return {key: median([row[key] for row in rows]) for key in rows[0]}


# ---- folders and processes ----

def folder():
    """A fresh folder on the checkout's disk, removed at exit: /tmp may be memory, where fsync costs nothing."""
    place = ROOT / "build"
    place.mkdir(exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix="bench-", dir=place))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


def copy(source, to):
    subprocess.run(["cp", "-a", "--reflink=auto", "--sparse=always", str(source), str(to)], check=True)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def dies_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Process:
    """A server that is ours: started, asked about, ended by its pid."""

    def __init__(self, command, log, port, **more):
        self.port = port
        with open(log, "ab") as out:
            self.popen = subprocess.Popen(command, **{"stdin": subprocess.DEVNULL, "stdout": out, "stderr": out,
                                                      "preexec_fn": dies_with_parent, **more})
        self.log = Path(log)
        atexit.register(self.stop)

    def stop(self):
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(15)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()

    def pids(self):
        """It and its children, and theirs."""
        found = [self.popen.pid]
        for pid in found:
            for children in Path("/proc").glob(f"{pid}/task/*/children"):
                found += map(int, children.read_text().split())
        return found

    def cpu_seconds(self):
        """User and system time of all of it until now."""
        total = 0
        for pid in self.pids():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICK

    def rss_mb(self):
        """Resident memory in MB; what children share with the first is counted once."""
        pids = self.pids()
        total = memory_kb(pids[0], "Rss")
        for pid in pids[1:]:
            total += memory_kb(pid, "Private_Clean") + memory_kb(pid, "Private_Dirty")
        return total * 1024 / 1e6

    def answers(self, path, seconds=30.0, every=0.0002):
        """Waits for a 200 on path."""
        end = time.monotonic() + seconds
        while not answer_ok(self.port, path):
            if self.popen.poll() is not None or time.monotonic() > end:
                fail(f"{self.popen.args[0]} does not answer {path}", self.log.read_text(errors="replace")[-2000:])
            time.sleep(every)
        return self


def memory_kb(pid, what):
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(rf"^{what}:\s+(\d+) kB", text, re.M).group(1))


def answer_ok(port, path):
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as s:
            s.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
            return s.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


class Daemon(Process):
    """`dhow serve` on a data folder; where/data is made if it is not there."""

    def __init__(self, where, *options, wait="/healthz"):
        self.where = Path(where)
        self.token_file = self.where / "token"
        port = free_port()
        if not DHOW.is_file():
            fail("build/dhow is not there", "run make build")
        super().__init__([str(DHOW), "serve", "--listen", f"127.0.0.1:{port}", "--data", str(self.where / "data"),
                          "--sources", str(DATA), "--first-token", str(self.token_file), *options], self.where / "log",
                         port)
        if wait:
            self.answers(wait)
            while not self.token_file.exists():  # a first start writes it when it listens already
                time.sleep(0.001)
        self.connection = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def token(self):
        return self.token_file.read_text().strip()

    def cli(self, *args, text=None):
        keep = {k: v for k, v in os.environ.items() if not k.startswith("DHOW_")}
        env = {**keep, "DHOW_SERVER": self.url, "DHOW_TOKEN_FILE": str(self.token_file)}
        done = subprocess.run([str(DHOW), *args], input=text, capture_output=True, text=True, env=env)
        if done.returncode:
            fail(f"dhow {' '.join(args)} ended with {done.returncode}", done.stderr[-2000:])
        return done.stdout

    def http(self, method, path, body=None):
        """body: bytes as they are, anything else as JSON; none in the answer is None."""
        if not self.connection:
            self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        raw = isinstance(body, bytes)
        self.connection.request(method, path, body if raw or body is None else json.dumps(body),
                                {"Authorization": f"Bearer {self.token}",
                                 "Content-Type": "application/octet-stream" if raw else "application/json"})
        reply = self.connection.getresponse()
        text = reply.read()
        if reply.status >= 300:
            fail(f"{method} {path}: {reply.status}", text.decode(errors="replace")[:2000])
        return json.loads(text) if text else None

    def get(self, plural, name):
        return self.http("GET", f"/api/v1/projects/default/{plural}/{name}")

    def put(self, kind, plural, name, spec):
        self.http("PUT", f"/api/v1/projects/default/{plural}/{name}",
                  {"apiVersion": "dhow/v1", "kind": kind, "metadata": {"name": name}, "spec": spec})

    def job(self, name, kind, settings, cpu=CORES):
        """Runs a job to its end: (seconds from asking to done, its result)."""
        began = time.monotonic()
        self.put("Job", "jobs", name, {"type": kind, "with": settings, "cpu": cpu})
        while True:
            status = self.get("jobs", name).get("status", {})
            if status.get("phase") in ("succeeded", "failed", "cancelled"):
                break
            time.sleep(0.005)
        seconds = time.monotonic() - began
        if status["phase"] != "succeeded":
            fail(f"the job {name} {status['phase']}: {status.get('reason')}", f"its log is in {self.where}")
        result = status["result"]
        return seconds, json.loads(result) if isinstance(result, str) else result

    def blobs(self, version):
        """The files of a dataset version."""
        return [self.blob(f["sha"]) for f in self.get("datasetversions", version)["spec"]["files"]]

    def blob(self, sha):
        return self.where / "data" / "blobs" / sha[:2] / sha[2:]


def upload_onnx(daemon, model, path):
    """An ONNX file becomes a version of the model; its name."""
    return daemon.http("POST", f"/api/v1/projects/default/models/{model}/upload", Path(path).read_bytes())["version"]


def deploy_onnx(daemon, name, path, **spec):
    """Uploads an ONNX file as a version of the model `name` and deploys it under that name, further fields of the
    Deployment's spec as given; the version, once it answers."""
    daemon.put("Model", "models", name, {})
    version = upload_onnx(daemon, name, path)
    daemon.put("Deployment", "deployments", name, {"model": name, "version": version, **spec})
    deployed(daemon, name, version)
    return version


def deployed(daemon, name, version=None, phase="serving", seconds=20):
    """Waits until a deployment is in this phase and, if one is named, answers by this version."""
    end = time.monotonic() + seconds
    while True:
        status = daemon.get("deployments", name).get("status", {})
        if status.get("phase") == phase and version in (None, status.get("version")):
            return
        if status.get("phase") == "failed" or time.monotonic() > end:
            fail(f"the deployment {name} is not {phase} with {version or 'any version'}", json.dumps(status))
        time.sleep(0.002)


def declare(daemon, *kinds):
    """The main job's resources (examples/flights/dhow.yaml) of these kinds, as far as they are alone in it."""
    texts = [t for t in RECIPE.read_text().split("\n---\n") if re.search(r"^kind: (\w+)", t, re.M).group(1) in kinds]
    daemon.cli("apply", "-f", "-", text="\n---\n".join(texts))


FEATURES = ("Source", "Dataset", "Entity", "FeatureView", "FeatureService", "TrainingSet")


def trained():
    """A daemon on a copy of a folder with flights.1, late_rows.1 and the deployed model late.1: the main job on January
    and February. It is made once for all benchmarks that scripts/bench runs together ($BENCH_DIR), and stopped."""
    made = Path(os.environ.get("BENCH_DIR") or folder()) / "trained"
    if not made.exists():
        note("training a small model (flights of January and February)")
        work = made.with_name("training")
        work.mkdir(parents=True)
        daemon = Daemon(work)
        declare(daemon, *FEATURES, "Model", "Deployment", "Monitor")
        daemon.cli("apply", "-f", str(PIPELINE))
        daemon.cli("run", "small")
        daemon.stop()
        work.rename(made)
    where = folder() / "daemon"
    copy(made, where)
    return where


# ---- peers and load ----

def peer(*args, text=None):
    """build/bench/peer: libraries called bare; what it prints, one JSON value a line."""
    if not PEER.is_file():
        fail("build/bench/peer is not there", "run it through make bench or scripts/bench NAME")
    done = subprocess.run([str(PEER), *map(str, args)], input=text, capture_output=True, text=True)
    if done.returncode:
        fail(f"peer {' '.join(map(str, args))}", done.stderr[-2000:])
    return [json.loads(line) for line in done.stdout.splitlines()]


def sql(files, *statements):
    """Statements run by DuckDB alone, with as many threads and as much memory as a job gets: a dict each, seconds and
    the first row."""
    return peer("sql", CORES, *files, text="\n;\n".join(statements))


def sample(where, rows):
    """Flights (origin, destination, distance, delay) as they are spread over the routes; the same ones every time."""
    out = where / "sample.csv"
    sql([DATA / "flights-3m.parquet", out],
        f"COPY (SELECT origin, destination, distance, delay FROM read_parquet('{DATA}/flights-3m.parquet', "
        f"file_row_number = true) WHERE date < '2001-03-01' ORDER BY hash(file_row_number) LIMIT {rows}) TO '{out}' "
        "(FORMAT csv, USE_TMP_FILE false)")
    with open(out, newline="") as f:
        return [(r["origin"], r["destination"], int(r["distance"]), int(r["delay"])) for r in csv.DictReader(f)]


def nginx(where, path, body):
    """nginx that answers one path with a fixed body, as many workers as cores."""
    where.mkdir()
    port = free_port()
    conf = where / "nginx.conf"
    conf.write_text(f"""
        daemon off;
        worker_processes {CORES};
        pid {where}/pid;
        error_log {where}/error.log;
        events {{ worker_connections 1024; }}
        http {{
            access_log off;
            keepalive_requests 1000000000;
            client_body_temp_path {where}; proxy_temp_path {where}; fastcgi_temp_path {where};
            uwsgi_temp_path {where}; scgi_temp_path {where};
            server {{
                listen 127.0.0.1:{port} reuseport;
                location = {path} {{ default_type "text/plain; charset=utf-8"; return 200 "{body}"; }}
            }}
        }}
        """)
    return Process([tool("nginx", "/usr/sbin", "/usr/local/sbin"), "-p", str(where), "-c", str(conf),
                    "-e", str(where / "error.log")], where / "log", port)


def wrk_start(server, path, connections, seconds, threads=1, **env):
    """Begins load by wrk; wrk_end tells what came of it. env goes to load.lua."""
    command = [tool("wrk"), "-t", str(min(threads, connections)), "-c", str(connections), "-d", f"{seconds}s",
               "--timeout", "10s", "-s", str(ROOT / "bench" / "load.lua"), f"http://127.0.0.1:{server.port}{path}"]
    return server, path, server.cpu_seconds(), subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=dies_with_parent,
        env={**os.environ, "LOAD_PATH": path, **{k: str(v) for k, v in env.items()}})


def wrk_end(started):
    """{perSecond, p50, p99 (µs), requests, cpu (the server's CPU µs per request)}. Any answer but a 2xx fails."""
    server, path, before, process = started
    text = process.communicate()[0]
    used = server.cpu_seconds() - before
    found = re.search(r"^\{.*\}$", text, re.M)
    if process.returncode or not found:
        fail(f"wrk on {path} ended with {process.returncode}", text[-2000:])
    got = json.loads(found.group(0))
    if got["errors"] or not got["requests"]:
        fail(f"{got['errors']} of {got['requests']} requests to {path} failed",
             server.log.read_text(errors="replace")[-2000:])
    return {"perSecond": got["requests"] / (got["us"] / 1e6), "p50": got["p50"], "p99": got["p99"],
            "requests": got["requests"], "cpu": used * 1e6 / got["requests"]}


def wrk(server, path, connections, seconds, threads=1, **env):
    """Load by wrk from beginning to end."""
    return wrk_end(wrk_start(server, path, connections, seconds, threads, **env))


def h2load(server, port, path, body, in_flight, seconds, *headers):
    """Load over HTTP/2 by h2load, 8 connections at most with as many streams each: figures as wrk's."""
    connections = min(8, in_flight)
    where = folder()
    command = [tool("h2load"), "-t1", f"-c{connections}", f"-m{in_flight // connections}", f"-D{seconds}", f"-d{body}",
               f"--log-file={where / 'log'}", f"http://127.0.0.1:{port}{path}"]
    before = server.cpu_seconds()
    done = subprocess.run([*command, *(f"-H{h}" for h in headers)], capture_output=True, text=True)
    used = server.cpu_seconds() - before
    rows = [line.split() for line in (where / "log").read_text().splitlines()]
    bad = sum(row[1] != "200" for row in rows)
    if done.returncode or bad or not rows:
        fail(f"{bad} of {len(rows)} requests to {path} failed", (done.stdout + done.stderr)[-2000:])
    times = sorted(int(row[2]) for row in rows)
    return {"perSecond": len(rows) / seconds, "p50": times[len(times) // 2], "p99": times[len(times) * 99 // 100],
            "requests": len(rows), "cpu": used * 1e6 / len(rows)}


def questions(daemon, n=64):
    """n questions to the deployment `late`, at the time its online features end: files of bodies by key and by tensor, a
    file of the same rows as floats, the model's file. The tensors are what the daemon finds for the keys, so that all
    three ask the same; that by tensor the answers are the same, too, is seen to here."""
    keys = []
    for origin, destination, distance, _ in sample(daemon.where, n):
        keys.append({"entities": {"origin": [origin], "destination": [destination], "date": ["2001-03-01T10:00:00"],
                                  "ts": ["2001-03-01T16:00:00"], "distance": [distance]}})
    tensors, floats = [], array.array("f")
    for key in keys:
        answer = daemon.http("POST", "/v2/models/late/infer", {**key, "parameters": {"return_features": True}})
        row = next(o["data"] for o in answer["outputs"] if o["name"] == "features")
        tensors.append({"inputs": [{"name": "features", "datatype": "FP32", "shape": [1, len(row)], "data": row}]})
        again = daemon.http("POST", "/v2/models/late/infer", tensors[-1])
        if again["outputs"][0]["data"] != answer["outputs"][0]["data"]:
            fail(f"by key {answer['outputs'][0]}, by tensor {again['outputs'][0]}", "that is a fault of dhow: report it")
        floats.extend(float("nan") if v is None else v for v in row)
    places = [daemon.where / name for name in ("keys.jsonl", "tensors.jsonl", "rows.f32")]
    for place, bodies in zip(places, (keys, tensors)):
        place.write_text("".join(json.dumps(b, separators=(",", ":")) + "\n" for b in bodies))
    places[2].write_bytes(floats.tobytes())
    version = daemon.get("deployments", "late")["status"]["version"]
    return (*places, daemon.blob(daemon.get("modelversions", version)["spec"]["onnx"]))
