# SPDX-License-Identifier: Apache-2.0
"""The graph of a pipeline: who waits for whom, further tries, time-outs, and runs that wait for each other."""

import os
import signal
import time
from pathlib import Path

import pytest
import yaml

from conftest import eventually

SLOW = """SELECT a.id, a.moment, sum(b.value) AS value FROM ticks a JOIN ticks b ON b.id <= a.id
          WHERE a.id < {0} AND b.id < {0} GROUP BY a.id, a.moment"""
DECLARED = [
    {"kind": "Source", "metadata": {"name": "ticks"}, "spec": {"path": "ticks.csv", "format": "csv"}},
    {"kind": "Source", "metadata": {"name": "absent"}, "spec": {"path": "absent.csv", "format": "csv"}},
    *({"kind": "Dataset", "metadata": {"name": name},
       "spec": {"sources": [source], "query": query, "id": "id", "eventTime": "moment"}}
      for name, source, query in (("quick", "ticks", "SELECT id, moment, value FROM ticks"),
                                  ("absent", "absent", "SELECT id, moment FROM absent"),
                                  ("slow", "ticks", SLOW.format(12_000)),               # a second or two
                                  ("endless", "ticks", SLOW.format(10_000_000)))),
]


@pytest.fixture(scope="module")
def one(daemon):
    with open(daemon.sources / "ticks.csv", "w") as out:
        out.write("id,moment,value\n")
        for i in range(200_000):
            out.write(f"{i},2001-01-{1 + i // 86400:02} {i // 3600 % 24:02}:{i // 60 % 60:02}:{i % 60:02},{i % 7}\n")
    daemon.ok("apply", "-f", "-", input=yaml.safe_dump_all({"apiVersion": "dhow/v1", **d} for d in DECLARED))
    return daemon


def start(one, name, *steps, **spec):
    """Runs steps of (name, dataset, {more}), each an ingest; the run's name."""
    made = [{"name": s[0], "uses": "ingest", "with": {"dataset": s[1]}, **(s[2] if len(s) > 2 else {})} for s in steps]
    assert one.put("Pipeline", name, {"steps": made, **spec}).ok
    return one.ok("run", name, "--detach").out.strip()


def test_a_command_is_a_step(one):
    say = {"command": ["sh", "-c", "echo ${params.word} $X"], "env": {"X": "there"}, "resources": {"cpu": 1, "memory": "64Mi"}}
    assert one.put("Pipeline", "says", {"params": {"word": "hello"}, "steps": [{"name": "s", "uses": "command", "with": say}]}).ok
    run = one.ok("run", "says", "--detach").out.strip()
    one.ok("run", "says")
    assert one.ok("logs", run, "s").out == "hello there\n"
    for name, given, want in (("mute", {}, "with.command is missing"), ("typo", {"comand": ["a"]}, "with.comand")):
        assert one.put("Pipeline", name, {"steps": [{"name": "s", "uses": "command", "with": given}]}).ok
        failed = one.cli("run", name)
        assert failed.code == 1 and want in failed.err


def steps_of(run):
    return {s["name"]: {"phase": "waiting", **s} for s in run.get("status", {}).get("steps", [])}


def ended(one, run, seconds=60):
    run = one.wait_over("pipelineruns", run, seconds)
    return run["status"], steps_of(run)


def worker_of(one, job):
    """Process id of the worker that does the job now, once there is one."""
    folder = f"/jobs/{one.get('jobs', job)['metadata']['id']}-"

    def look():
        for place in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = place.read_bytes().decode(errors="replace").split("\0")
            except OSError:         # gone meanwhile
                continue
            if len(words) > 3 and words[1] == "worker" and words[2] == "--dir" and str(one.data) in words[3] and folder in words[3]:
                return int(place.parent.name)
        return None

    return eventually(look, 20, what=f"the worker of {job}")


def test_a_step_begins_when_all_that_it_needs_has_ended(one):
    run = start(one, "diamond", ("last", "quick", {"needs": ["left", "right"]}), ("left", "quick", {"needs": ["first"]}),
                ("right", "quick", {"needs": ["first"]}), ("first", "quick"), ("apart", "quick"))
    status, steps = ended(one, run)
    assert status["phase"] == "succeeded" and {s["phase"] for s in steps.values()} == {"succeeded"}
    assert list(steps) == ["last", "left", "right", "first", "apart"], "shown as they were written"
    for step, needs in (("left", ["first"]), ("right", ["first"]), ("last", ["left", "right"])):
        assert all(steps[step]["started"] >= steps[n]["finished"] for n in needs), step
    assert steps["apart"]["started"] < steps["first"]["finished"], "what needs nothing waits for nothing"


def test_a_failure_stops_its_own_branch_only(one):
    run = start(one, "branches", ("bad", "absent"), ("after", "quick", {"needs": ["bad"]}), ("later", "quick", {"needs": ["after"]}),
                ("good", "quick"), ("fine", "quick", {"needs": ["good"]}))
    status, steps = ended(one, run)
    assert {n: s["phase"] for n, s in steps.items()} == {"bad": "failed", "after": "skipped", "later": "skipped",
                                                        "good": "succeeded", "fine": "succeeded"}
    assert status["phase"] == "failed" and status["exitCode"] == 1
    assert "bad" in status["message"] and "absent.csv" in status["message"]


def test_a_worker_that_was_killed_is_tried_again(one):
    run = start(one, "patient", ("take", "slow", {"retries": 2}), ("then", "quick", {"needs": ["take"]}))
    eventually(lambda: steps_of(one.get("pipelineruns", run)).get("take", {}).get("phase") == "running", what="the step")
    os.kill(worker_of(one, f"{run}-take"), signal.SIGKILL)
    status, steps = ended(one, run)
    assert status["phase"] == "succeeded" and steps["then"]["phase"] == "succeeded"
    assert one.get("jobs", f"{run}-take")["status"]["attempts"] == 2


def test_what_another_try_cannot_mend_is_not_tried_again(one):
    run = start(one, "hopeless", ("take", "absent", {"retries": 5}))
    status, _ = ended(one, run)
    assert status["phase"] == "failed"
    assert one.get("jobs", f"{run}-take")["status"]["attempts"] == 1


def test_a_step_that_takes_too_long_is_ended_and_says_so(one):
    run = start(one, "hasty", ("take", "endless", {"timeout": "1s", "retries": 1}), ("then", "quick", {"needs": ["take"]}))
    began = time.monotonic()
    status, steps = ended(one, run)
    assert time.monotonic() - began < 20
    job = one.get("jobs", f"{run}-take")["status"]
    assert status["phase"] == "failed" and "timeout" in status["message"] and "take" in status["message"]
    assert job["attempts"] == 2 and steps["then"]["phase"] == "skipped"


def test_runs_of_a_pipeline_wait_for_each_other(one):
    first = start(one, "single", ("take", "endless"))
    eventually(lambda: one.get("pipelineruns", first).get("status", {}).get("phase") == "running", what="the first run")
    second = one.ok("run", "single", "--detach").out.strip()
    told = eventually(lambda: one.get("pipelineruns", second).get("status", {}).get("message"), what="why it waits")
    assert "earlier run" in told
    one.ok("cancel", first)
    assert ended(one, first)[0]["phase"] == "cancelled"
    eventually(lambda: steps_of(one.get("pipelineruns", second)).get("take", {}).get("phase") == "running", what="its turn")
    one.ok("cancel", second)
    assert ended(one, second)[0]["phase"] == "cancelled"


def test_as_many_at_once_as_the_pipeline_allows(one):
    runs = [start(one, "several", ("take", "quick"), concurrency=5) for _ in range(5)]
    for run in runs:
        assert ended(one, run)[0]["phase"] == "succeeded"
    assert not [m for m in (one.get("pipelineruns", r)["status"].get("message") for r in runs) if m]


def test_kill_9_between_steps_repeats_none(one):
    """Six steps, and the daemon is killed again and again; each step's job is made once and ends once."""
    steps = [(f"s{i}", "slow" if i % 2 else "quick", {"needs": [f"s{i - 1}"]} if i else {}) for i in range(6)]
    run = start(one, "stubborn", *steps)
    for i in range(8):
        time.sleep(0.25 * (i % 3))
        one.kill()
        one.start()
    status, done = ended(one, run, 120)
    assert status["phase"] == "succeeded", status
    assert all(a["finished"] <= b["started"] for a, b in zip(done.values(), list(done.values())[1:]))
    jobs = [j for j in one.get("jobs")["items"] if j["spec"].get("owner") == f"PipelineRun/{run}"]
    assert len(jobs) == 6 and all(j["status"]["attempts"] == 1 for j in jobs), [j["status"] for j in jobs]


@pytest.mark.parametrize("dies", [False, True], ids=["it goes on", "the daemon dies at once"])
def test_deleting_a_run_at_work_stops_its_job(one, dies):
    run = start(one, "dropped", ("take", "endless"))
    eventually(lambda: steps_of(one.get("pipelineruns", run)).get("take", {}).get("phase") == "running", what="the step")
    pid = worker_of(one, f"{run}-take")
    one.ok("delete", "pipelinerun", run)
    if dies:
        one.kill()
        one.start()
    eventually(lambda: not Path(f"/proc/{pid}").exists(), 20, what="the end of its worker")
    assert one.wait_over("jobs", f"{run}-take")["status"]["phase"] == "cancelled"
