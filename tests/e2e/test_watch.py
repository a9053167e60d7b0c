# SPDX-License-Identifier: Apache-2.0
"""The event log as server-sent events: soon, in order, nothing lost, nobody else's."""

import http.client
import json
import socket
import threading
import time

import pytest

SPEC = {"steps": [{"name": "s", "uses": "command"}]}


class Watch:
    """Reads a stream in a thread; .events are (arrival, id, event)."""

    def __init__(self, daemon, query="", token=True, last=None):
        host, port = daemon.url.removeprefix("http://").split(":")
        self.connection = http.client.HTTPConnection(host, int(port), timeout=30)
        headers = {"Authorization": f"Bearer {daemon.token if token is True else token}"}
        if last is not None:
            headers["Last-Event-ID"] = str(last)
        self.connection.request("GET", "/api/v1/watch" + query, headers=headers)
        self.reply = self.connection.getresponse()
        assert self.reply.status == 200
        assert self.reply.headers["Content-Type"].startswith("text/event-stream")
        self.events = []
        self.begun, self.ended = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self.read)
        self.thread.start()
        assert self.begun.wait(5)

    def read(self):
        number = None
        try:
            while line := self.reply.readline().decode():
                self.begun.set()
                if line.startswith("id: "):
                    number = int(line[4:])
                elif line.startswith("data: "):
                    self.events.append((time.monotonic(), number, json.loads(line[6:])))
        except (OSError, http.client.HTTPException):      # the daemon went, or the test hung up
            pass
        self.ended.set()

    def wait(self, look, seconds=1.0):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = [e for e in list(self.events) if look(e[2])]
            if found:
                return found
            time.sleep(0.005)
        raise AssertionError(f"nothing came within {seconds} s; {[e[2] for e in self.events][-5:]}")

    def close(self):
        if self.connection.sock:
            try:
                self.connection.sock.shutdown(socket.SHUT_RDWR)
            except OSError:         # closed by the other side already
                pass
        self.thread.join(5)
        self.connection.close()


@pytest.fixture
def watch():
    """Opens watches that are closed when the test ends, however it does."""
    made = []

    def opened(*args, **more):
        made.append(Watch(*args, **more))
        return made[-1]

    yield opened
    for one in made:
        one.close()


def test_a_change_shows_within_a_second(daemon, watch):
    stream = watch(daemon)
    for change in (SPEC, {**SPEC, "doc": "changed"}, {**SPEC, "doc": "again"}):
        began = time.monotonic()
        rev = daemon.put("Pipeline", "new", change).json()["metadata"]["rev"]
        seen = stream.wait(lambda e, rev=rev: e["name"] == "new" and e["data"].get("rev") == rev)
        assert seen[0][0] - began < 1.0
    assert daemon.http("DELETE", daemon.path("pipelines", "new")).status_code == 204
    gone = stream.wait(lambda e: e["type"].endswith("deleted") and e["name"] == "new")[0][2]
    assert gone["project"] == "default" and gone["who"] == "admin"


def test_filters(daemon, watch):
    daemon.project("apart")
    by_kind, by_name, by_project = watch(daemon, "?kind=jobs"), watch(daemon, "?name=f2"), watch(daemon, "?project=apart")
    for name, project in (("f1", "default"), ("f2", "default"), ("f3", "apart")):
        daemon.put("Pipeline", name, SPEC, project=project)
    daemon.job(["/bin/true"], name="f4")
    by_kind.wait(lambda e: e["name"] == "f4")
    by_project.wait(lambda e: e["name"] == "f3")
    by_name.wait(lambda e: e["name"] == "f2")
    assert {e[2]["kind"] for e in by_kind.events} == {"Job"}
    assert {e[2]["name"] for e in by_name.events} == {"f2"}
    assert {e[2]["project"] for e in by_project.events} == {"apart"}


def test_it_goes_on_from_the_last_event_seen(daemon, watch):
    first = watch(daemon)
    daemon.put("Pipeline", "r0", SPEC)
    last = first.wait(lambda e: e["name"] == "r0")[-1][1]
    for i in range(1, 6):
        daemon.put("Pipeline", f"r{i}", SPEC)
    again = watch(daemon, last=last)
    again.wait(lambda e: e["name"] == "r5")
    assert [e[2]["name"] for e in again.events if e[2]["kind"] == "Pipeline"] == [f"r{i}" for i in range(1, 6)]
    ids = [e[1] for e in again.events]
    assert ids == sorted(set(ids)) and ids[0] > last


def test_a_list_and_a_watch_after_it_miss_nothing(daemon, watch):
    """While a writer writes: list, watch from its seq; together they are everything, once."""
    daemon.project("busy")
    stop, written = threading.Event(), []

    def write():
        while not stop.is_set() and len(written) < 400:
            name = f"w{len(written):04}"
            assert daemon.put("Pipeline", name, SPEC, project="busy").status_code == 201
            written.append(name)

    writer = threading.Thread(target=write)
    writer.start()
    time.sleep(0.1)
    reply = daemon.session.get(daemon.url + daemon.path("pipelines", project="busy") + "?limit=1000",
                               headers={"Authorization": f"Bearer {daemon.token}"}).json()
    stream = watch(daemon, "?project=busy&kind=Pipeline", last=reply["seq"])
    time.sleep(0.3)
    stop.set()
    writer.join()
    stream.wait(lambda e: e["name"] == written[-1], 5)
    listed = [item["metadata"]["name"] for item in reply["items"]]
    watched = [e[2]["name"] for e in stream.events]
    assert listed + watched == written


def test_a_watch_of_a_project_sees_no_other(daemon, watch):
    daemon.project("theirs")
    token = daemon.make_token(["viewer"], project="theirs")["token"]
    stream = watch(daemon, token=token)
    daemon.put("Pipeline", "secret-name", SPEC)
    daemon.put("Pipeline", "visible", SPEC, project="theirs")
    stream.wait(lambda e: e["name"] == "visible")
    assert {e[2]["project"] for e in stream.events} == {"theirs"}
    assert daemon.http("GET", "/api/v1/watch?project=default", token=token).status_code == 404


def test_a_watch_ends_with_the_daemon(fresh, watch):
    one = fresh()
    stream = watch(one)
    began = time.monotonic()
    one.stop()
    assert time.monotonic() - began < 5, "an open stream holds the daemon up"
