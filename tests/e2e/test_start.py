# SPDX-License-Identifier: Apache-2.0
"""What a newcomer meets first: starting, the one-time token, help, and how little of the machine it takes."""

import os
import re
import socket
import statistics
import subprocess
import time
from pathlib import Path

from conftest import DHOW, eventually

VERBS = ("serve apply diff get describe delete run cancel resume logs predict replay lineage drift rollback doctor "
         "audit token explain completion gen version").split()


def test_first_start_gives_the_admin_token_once(fresh):
    one = fresh()
    token = one.token
    assert re.fullmatch(r"dhow_[0-9a-f]{12}_[A-Za-z0-9_-]{43}", token)
    assert one.token_file.stat().st_mode & 0o777 == 0o600
    assert token not in one.log_text()
    me = one.http("GET", "/api/v1/whoami").json()
    assert me["roles"] == ["admin"] and me["project"] == "*"
    one.stop()
    one.token_file.unlink()
    one.start()
    assert not one.token_file.exists(), "a second start gave a token away"
    assert "first start" not in one.log_text().split("dhow.stopped")[-1]
    assert one.http("GET", "/api/v1/whoami", token=token).status_code == 200


def test_without_a_file_the_token_is_shown_on_stderr_once(tmp_path):
    def start():
        process = subprocess.Popen([str(DHOW), "serve", "--data", str(tmp_path / "d"), "--listen", "127.0.0.1:0"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
        time.sleep(0.8)
        process.terminate()
        out, err = process.communicate(timeout=20)
        assert process.returncode == 0, err
        assert out == ""
        return err

    assert len(re.findall(r"DHOW_TOKEN=dhow_\S{56}", start())) == 1
    assert "dhow_" not in start().replace("dhow_data", "")


def test_start_takes_under_a_second(fresh):
    one = fresh()
    times = [one.start_seconds]
    for _ in range(4):
        one.stop()
        one.start()
        times.append(one.start_seconds)
    assert statistics.median(times) < 1.0, times


def test_idle_takes_under_60_mb_and_loads_no_engine(fresh):
    one = fresh()
    for path in ("/healthz", "/openapi.json", "/api/v1/projects/default/jobs"):
        assert one.http("GET", path).status_code == 200
    time.sleep(1.0)
    assert one.rss_mb() < 60, f"{one.rss_mb():.1f} MB"
    maps = Path(f"/proc/{one.pid}/maps").read_text()
    for library in ("libonnxruntime", "libduckdb", "libxgboost"):
        assert library not in maps, f"{library} is loaded in an idle daemon"


def test_idle_takes_no_cpu(fresh):
    one = fresh()
    one.http("GET", "/healthz")
    time.sleep(0.5)

    def ticks():
        fields = Path(f"/proc/{one.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    before = ticks()
    time.sleep(3.0)
    assert ticks() - before <= 0.06, f"{ticks() - before:.2f} CPU seconds in 3 idle ones"


def test_help_takes_under_20_ms():
    times = []
    for _ in range(20):
        begin = time.perf_counter()
        done = subprocess.run([str(DHOW), "--help"], capture_output=True, check=True)
        times.append(time.perf_counter() - begin)
        assert b"apply" in done.stdout
    assert statistics.median(times) < 0.020, f"median {statistics.median(times) * 1e3:.1f} ms"


def test_every_verb_explains_itself(run_binary):
    listed = run_binary("--help").out
    for verb in VERBS:
        assert re.search(rf"^  {verb} ", listed, re.M), f"{verb} is not in --help"
        shown = run_binary(verb, "--help")
        assert shown.code == 0 and f"usage: dhow {verb}" in shown.out, verb
    for hidden in ("worker", "shim"):
        assert not re.search(rf"^  {hidden} ", listed, re.M)


def test_misuse_is_exit_2_with_a_hint(run_binary):
    no_verb = run_binary("aply", "-f", "x")
    assert no_verb.code == 2 and "did you mean `dhow apply`" in no_verb.err
    no_option = run_binary("get", "jobs", "--colour")
    assert no_option.code == 2 and "--colour" in no_option.err and "dhow get --help" in no_option.err
    assert run_binary().code == 2
    assert run_binary("get").code == 2
    assert run_binary("get", "jobs", "-o", "xml").code == 2
    assert run_binary("get", "jbos").code == 2


def test_no_daemon_is_one_clear_error(run_binary):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    gone = run_binary("get", "jobs", "--server", f"http://127.0.0.1:{port}")
    assert gone.code == 1
    assert gone.err.startswith("error: ") and str(port) in gone.err


def test_only_loopback_unless_told(run_binary, tmp_path):
    refused = run_binary("serve", "--data", str(tmp_path / "d"), "--listen", "0.0.0.0:0")
    assert refused.code == 2
    assert "can be reached from other machines" in refused.err and "127.0.0.1" in refused.err


def test_one_folder_has_one_daemon(fresh):
    one = fresh()
    second = one.cli("serve", "--data", str(one.data), "--listen", "127.0.0.1:0")
    assert second.code == 1
    assert str(one.data) in second.err
    assert one.http("GET", "/healthz").status_code == 200


def test_a_port_that_is_taken_is_named(fresh):
    one = fresh()
    address = one.url.removeprefix("http://")
    second = one.cli("serve", "--data", str(one.folder / "other"), "--listen", address)
    assert second.code == 1 and address in second.err


def test_a_folder_of_a_newer_dhow_is_refused(fresh):
    one = fresh()
    one.stop()
    (one.data / "format").write_text("dhow-store 99\n")
    second = one.cli("serve", "--data", str(one.data), "--listen", "127.0.0.1:0")
    assert second.code == 2 and "99" in second.err


def test_sigterm_lets_requests_end(fresh):
    one = fresh()
    job = one.job(["/bin/sh", "-c", "echo kept"])
    one.wait_over("jobs", job)
    one.stop()
    assert eventually(lambda: "dhow.stopped" in one.log_text(), 2)
    one.start()
    assert one.job_log(job) == "kept\n"


def test_doctor_names_what_is_there(fresh):
    one = fresh()
    told = one.ok("doctor", "--data", str(one.data), "-o", "json").json()
    checks = {c["check"]: c for c in told}
    for part in ("duckdb", "onnxruntime", "xgboost", "audit", "daemon"):
        assert checks[part]["ok"], checks[part]
    assert re.match(r"1\.(2[4-9]|[3-9]\d)", checks["onnxruntime"]["text"])
    devices = [c["text"] for c in told if c["check"] == "device"]
    assert "cpu" in devices and all(text == "cpu" or " is not here: " in text or text.isalnum() for text in devices)
    assert all(c["ok"] for c in told), told  # a device that is not there is no fault


def test_doctor_says_what_is_missing(fresh):
    one = fresh(env={"DHOW_ORT_LIB": "/nowhere/libonnxruntime.so"})
    told = one.cli("doctor", "--data", str(one.data), "-o", "json").json()
    ort = next(c for c in told if c["check"] == "onnxruntime")
    assert not ort["ok"] and "/nowhere/libonnxruntime.so" in ort["text"]
