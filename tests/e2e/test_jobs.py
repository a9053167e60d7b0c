# SPDX-License-Identifier: Apache-2.0
"""Jobs: commands as tracked child processes, with their output, limits, ends, and a daemon that dies meanwhile."""

import os
import re
import signal
import sys
import time
from pathlib import Path

from conftest import eventually

PYTHON = sys.executable
EAT = "x = bytearray(600 << 20); x[::4096] = bytes([1]) * len(x[::4096]); import time; time.sleep(20)"


def status(daemon, job):
    """Its status; what is not written is as it was at first."""
    return {"phase": "queued", "reason": "", "exitCode": 0, **daemon.get("jobs", job).get("status", {})}


def running(daemon, job):
    return eventually(lambda: status(daemon, job)["phase"] == "running", what=f"{job} running")


def test_output_and_exit_code(daemon):
    job = daemon.job(["/bin/sh", "-c", "echo to stdout; echo to stderr >&2; exit 0"])
    end = daemon.wait_over("jobs", job)["status"]
    assert end["phase"] == "succeeded" and end.get("exitCode", 0) == 0 and end["attempts"] == 1
    assert sorted(daemon.job_log(job).splitlines()) == ["to stderr", "to stdout"]
    assert len(end["log"]) == 64, "the output is a blob once the job ended"
    assert end["finishedAt"] >= end["startedAt"]


def test_a_failure_keeps_its_code(daemon):
    job = daemon.job(["/bin/sh", "-c", "echo sorry; exit 37"])
    end = daemon.wait_over("jobs", job)["status"]
    assert end["phase"] == "failed" and end["exitCode"] == 37 and "37" in end["reason"]
    assert daemon.job_log(job) == "sorry\n"


def test_a_signal_is_named(daemon):
    job = daemon.job(["/bin/sh", "-c", "kill -SEGV $$"])
    end = daemon.wait_over("jobs", job)["status"]
    assert end["phase"] == "failed" and "signal 11" in end["reason"]


def test_a_program_that_is_not_there(daemon):
    job = daemon.job(["/no/such/program"])
    end = daemon.wait_over("jobs", job)["status"]
    assert end["phase"] == "failed"
    assert "/no/such/program" in end["reason"] + daemon.job_log(job)


def test_timeout_is_the_reason(daemon):
    job = daemon.job(["/bin/sh", "-c", "echo begun; sleep 60"], timeout="700ms")
    began = time.monotonic()
    end = daemon.wait_over("jobs", job)["status"]
    assert time.monotonic() - began < 8
    assert end["phase"] == "failed" and "timeout" in end["reason"]
    assert daemon.job_log(job).startswith("begun\n")


def test_too_much_memory_is_told_apart(daemon):
    job = daemon.job([PYTHON, "-c", EAT], memory="128Mi", timeout="60s")
    end = daemon.wait_over("jobs", job)["status"]
    assert end["phase"] == "failed" and "out of memory" in end["reason"]
    assert end["memoryPeak"] and end["finishedAt"]


def test_children_count_towards_memory(daemon):
    job = daemon.job(["/bin/sh", "-c", f"{PYTHON} -c '{EAT}' & {PYTHON} -c '{EAT}' & wait"], memory="700Mi", timeout="60s")
    end = daemon.wait_over("jobs", job)["status"]
    assert end["phase"] == "failed" and "out of memory" in end["reason"]


def test_what_a_job_used_is_recorded(daemon):
    job = daemon.job([PYTHON, "-c", "x = bytearray(80 << 20); x[::4096] = bytes([1]) * len(x[::4096]); sum(range(4000000))"])
    end = daemon.wait_over("jobs", job)["status"]
    peak = end["memoryPeak"]
    number, unit, binary = re.fullmatch(r"(\d+)([KMG])?(i)?", str(peak)).groups()     # whichever is exact and short
    assert 60 < int(number) * (1024 if binary else 1000) ** " KMG".index(unit or " ") / 2**20 < 400, peak
    assert end["cpuSeconds"] > 0.02


def test_cancel_ends_the_whole_group(daemon, tmp_path):
    pids = tmp_path / "pids"
    job = daemon.job(["/bin/sh", "-c", f"sleep 300 & echo $! $$ > {pids}; wait"])
    eventually(lambda: pids.exists() and pids.read_text().strip(), what="the job's pids")
    daemon.ok("cancel", job)
    end = daemon.wait_over("jobs", job, 20)["status"]
    assert end["phase"] == "cancelled"
    for pid in pids.read_text().split():
        eventually(lambda: not Path(f"/proc/{pid}").exists() or "State:\tZ" in Path(f"/proc/{pid}/status").read_text(),
                   5, what=f"the end of {pid}")


def test_one_that_ignores_sigterm_is_killed(daemon):
    job = daemon.job([PYTHON, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(300)"])
    eventually(lambda: "deaf" in daemon.job_log(job), what="its first line")
    began = time.monotonic()
    daemon.ok("cancel", job)
    assert daemon.wait_over("jobs", job, 30)["status"]["phase"] == "cancelled"
    assert time.monotonic() - began < 20


def test_a_waiting_job_is_cancelled_at_once(daemon):
    cores = len(os.sched_getaffinity(0))
    blocker = daemon.job(["/bin/sleep", "60"], cpu=cores)
    running(daemon, blocker)
    waiting = daemon.job(["/bin/true"], cpu=cores)
    time.sleep(0.3)
    told = status(daemon, waiting)
    daemon.ok("cancel", waiting)
    ended = daemon.wait_over("jobs", waiting, 5)["status"]
    daemon.ok("cancel", blocker)
    daemon.wait_over("jobs", blocker, 20)
    assert told["phase"] == "queued" and re.search("cpu|core", told["reason"]), told
    assert ended["phase"] == "cancelled"


def test_a_job_that_wants_more_than_there_is_runs_alone(daemon):
    small = daemon.job(["/bin/sleep", "1"])
    huge = daemon.job(["/bin/true"], cpu=4000)
    running(daemon, small)
    assert status(daemon, huge)["phase"] == "queued"
    assert daemon.wait_over("jobs", huge)["status"]["phase"] == "succeeded"
    assert status(daemon, small)["phase"] == "succeeded"


def test_priority_goes_first(daemon, tmp_path):
    cores = len(os.sched_getaffinity(0))
    order = tmp_path / "order"
    blocker = daemon.job(["/bin/sleep", "1"], cpu=cores)
    running(daemon, blocker)
    names = [daemon.job(["/bin/sh", "-c", f"echo {p} >> {order}"], cpu=cores, priority=p) for p in (1, 5, 3)]
    for name in names:
        daemon.wait_over("jobs", name)
    assert order.read_text().split() == ["5", "3", "1"]


def test_retries_until_it_works(daemon, tmp_path):
    count = tmp_path / "count"
    script = f"echo x >> {count}; [ $(wc -l < {count}) -ge 3 ] || exit 9; echo at last"
    job = daemon.job(["/bin/sh", "-c", script], retries=5)
    end = daemon.wait_over("jobs", job)["status"]
    assert end["phase"] == "succeeded" and end["attempts"] == 3 and count.read_text() == "x\n" * 3
    assert daemon.job_log(job) == "at last\n"


def test_retries_come_to_an_end(daemon):
    job = daemon.job(["/bin/false"], retries=2)
    end = daemon.wait_over("jobs", job)["status"]
    assert end["phase"] == "failed" and end["attempts"] == 3


def test_the_environment_is_clean(daemon):
    job = daemon.job(["/usr/bin/env"], env={"COLOUR": "blue"})
    daemon.wait_over("jobs", job)
    env = dict(line.split("=", 1) for line in daemon.job_log(job).splitlines())
    assert env["COLOUR"] == "blue" and env["DHOW_PROJECT"] == "default" and env["DHOW_JOB"] == job
    assert "DHOW_TOKEN" not in env and "HOME" not in env or env.get("HOME") != str(daemon.home)
    assert not set(env) - {"COLOUR", "DHOW_JOB", "DHOW_PROJECT", "PATH", "HOME", "TMPDIR", "LANG", "TZ", "PWD", "SHLVL", "_",
                           "OMP_NUM_THREADS", "DHOW_JOB_DIR"}, sorted(env)


def test_a_job_holds_no_file_of_the_daemon(daemon):
    job = daemon.job(["/bin/sh", "-c", "ls -l /proc/self/fd"])
    daemon.wait_over("jobs", job)
    for secret in ("meta.db", "online", "socket:", "lock"):
        assert secret not in daemon.job_log(job), daemon.job_log(job)


def test_a_long_output_is_cut_with_a_note(daemon):
    job = daemon.job(["/bin/sh", "-c", "yes 0123456789012345678901234567890123456789 | head -c 90000000"], timeout="60s")
    end = daemon.wait_over("jobs", job)["status"]
    assert end["phase"] == "succeeded", end
    sizes, at = [], 0
    while True:
        part = daemon.http("GET", daemon.path("jobs", job, "logs") + f"?offset={at}").content
        if not part:
            break
        at += len(part)
        sizes.append(len(part))
        assert max(sizes) <= 1 << 20
        last = part
        if len(sizes) > 3:
            at = max(at, (64 << 20) - (1 << 19))        # the middle needs no look
    assert at < 70_000_000
    assert re.search(rb"cut|truncated|left out", last[-300:]), last[-300:]


def test_run_streams_a_command(daemon):
    done = daemon.cli("run", "--", "/bin/sh", "-c", "echo one; sleep 0.4; echo two")
    assert done.code == 0 and done.out == "one\ntwo\n"
    assert re.search(r"job job-\w+", done.err)
    failed = daemon.cli("run", "--", "/bin/sh", "-c", "echo oh; exit 5")
    assert failed.code == 1 and failed.out == "oh\n" and "exit 5" in failed.err


def test_logs_follow(daemon):
    job = daemon.job(["/bin/sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.3; done"])
    assert daemon.ok("logs", job, "-f").out == "1\n2\n3\n"
    assert daemon.ok("logs", job).out == "1\n2\n3\n"
    assert daemon.cli("logs", "never-made").code == 1


def test_a_job_outlives_the_daemon(fresh, tmp_path):
    """kill -9 while a job runs: the next daemon finds it again, and it finishes with its one attempt."""
    one = fresh()
    gate = tmp_path / "gate"
    job = one.job(["/bin/sh", "-c", f"echo before; while [ ! -e {gate} ]; do sleep 0.05; done; echo after; exit 4"])
    eventually(lambda: one.job_log(job) == "before\n", what="the job's first line")
    one.kill()
    one.start()
    assert running(one, job)
    assert one.job_log(job) == "before\n"
    gate.touch()
    end = one.wait_over("jobs", job)["status"]
    assert end["phase"] == "failed" and end["exitCode"] == 4 and end["attempts"] == 1
    assert one.job_log(job) == "before\nafter\n"


def test_a_job_that_ends_while_no_daemon_runs(fresh):
    one = fresh()
    job = one.job(["/bin/sh", "-c", "echo begun; sleep 1; echo done"])
    eventually(lambda: one.job_log(job) == "begun\n", what="the job's first line")
    one.kill()
    time.sleep(1.5)
    one.start()
    end = one.wait_over("jobs", job)["status"]
    assert end["phase"] == "succeeded" and end["attempts"] == 1
    assert one.job_log(job) == "begun\ndone\n"


def test_a_job_can_be_cancelled_by_the_next_daemon(fresh):
    one = fresh()
    job = one.job(["/bin/sleep", "300"])
    running(one, job)
    one.kill()
    one.start()
    one.ok("cancel", job)
    assert one.wait_over("jobs", job, 20)["status"]["phase"] == "cancelled"


def test_stopping_the_daemon_leaves_jobs_alone(fresh):
    one = fresh()
    job = one.job(["/bin/sh", "-c", "sleep 1.5; echo survived"])
    running(one, job)
    one.stop()
    one.start()
    end = one.wait_over("jobs", job)["status"]
    assert end["phase"] == "succeeded" and one.job_log(job) == "survived\n"


def test_stopping_while_jobs_start_and_end(fresh):
    """The hooks of jobs run in threads of their own; none of them meets what is gone already."""
    for i in range(6):
        one = fresh()
        for _ in range(6):
            one.job(["/bin/sh", "-c", "sleep 0.05"])
        time.sleep(0.02 * i)
        one.stop()


def test_many_jobs_at_once(daemon):
    names = [daemon.job(["/bin/sh", "-c", f"echo {i}"], name=f"many-{i}") for i in range(30)]
    for i, name in enumerate(names):
        assert daemon.wait_over("jobs", name)["status"]["phase"] == "succeeded"
        assert daemon.job_log(name) == f"{i}\n"


def test_deleting_a_job_stops_it(daemon, tmp_path):
    pid_file = tmp_path / "pid"
    job = daemon.job(["/bin/sh", "-c", f"echo $$ > {pid_file}; exec sleep 300"])
    eventually(lambda: pid_file.exists() and pid_file.read_text().strip(), what="its pid")
    daemon.ok("delete", "job", job)
    pid = int(pid_file.read_text())

    def gone():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()

    try:
        eventually(gone, 15, what="the end of a deleted job's process")
    finally:
        if not gone():
            os.kill(pid, signal.SIGKILL)
