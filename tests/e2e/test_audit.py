# SPDX-License-Identifier: Apache-2.0
"""The record of who did what: complete, and no edit of it goes unseen."""

import shutil
import sqlite3

import pytest

SPEC = {"steps": [{"name": "s", "uses": "command"}]}


@pytest.fixture(scope="module")
def written(daemon):
    """A daemon with some history, stopped; its folder."""
    for i in range(20):
        assert daemon.put("Pipeline", f"p{i:02}", SPEC).status_code == 201
    token = daemon.make_token(["viewer"], name="reader")
    daemon.http("DELETE", f"/api/v1/tokens/{token['id']}")
    daemon.ok("delete", "pipeline", "p00")
    daemon.http("DELETE", daemon.path("pipelines", "p01"), token=token["token"])
    return daemon


def entries(daemon, query=""):
    return daemon.http("GET", f"/api/v1/audit?limit=1000{query}").json()["items"]


def test_every_write_is_recorded(written):
    seen = [(e["who"], e["action"], e["name"], e["outcome"]) for e in entries(written, "&after=0")]
    for i in range(20):
        assert ("admin", "pipelines.create", f"p{i:02}", "ok") in seen
    assert ("admin", "pipelines.delete", "p00", "ok") in seen
    assert any(action == "tokens.create" for _, action, _, _ in seen)
    assert any(action == "tokens.delete" for _, action, _, _ in seen)


def test_a_write_that_changes_nothing_leaves_no_entry(written):
    before = len(entries(written))
    assert written.put("Pipeline", "p02", SPEC).headers["X-Dhow-Change"] == "unchanged"
    assert len(entries(written)) == before
    assert written.put("Pipeline", "p02", {"bad": 1}).status_code == 400
    assert len(entries(written)) == before


def test_a_change_says_what_changed(written):
    written.put("Pipeline", "p03", {**SPEC, "doc": "now"})
    last = entries(written, "&name=p03")[0]
    assert last["action"] == "pipelines.update" and "spec.doc" in last["detail"]["paths"]


def test_it_can_be_filtered(written):
    assert {e["name"] for e in entries(written, "&name=p04")} == {"p04"}
    assert {e["action"] for e in entries(written, "&action=pipelines.create")} == {"pipelines.create"}
    assert entries(written, "&who=nobody") == []


def test_the_chain_holds(written):
    answer = written.http("GET", "/api/v1/audit/verify").json()
    newest = entries(written)[0]
    assert answer["ok"] and len(answer["head"]) == 64 and 25 < answer["entries"] <= newest["seq"]
    assert "entries hold" in written.ok("audit", "verify").out
    rows = entries(written, "&after=0")
    assert all(b["prev"] == a["hash"] for a, b in zip(rows, rows[1:]))


def test_no_secret_is_in_it(written):
    made = written.make_token(["viewer"])["token"]
    assert made.split("_", 2)[2] not in written.http("GET", "/api/v1/audit?limit=1000").text


@pytest.fixture(scope="module")
def stopped(written, tmp_path_factory):
    """Its data folder at rest."""
    written.stop()
    return written


def copy_of(stopped, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(stopped.data, copy)
    return copy


def test_a_copy_verifies(stopped, tmp_path):
    good = stopped.cli("audit", "verify", "--data", str(copy_of(stopped, tmp_path)))
    assert good.code == 0 and "entries hold" in good.out


@pytest.mark.parametrize("what, entry", [
    ("update audit set who = 'somebody' where seq = 7", "7"),
    ("update audit set time = time + 1 where seq = 8", "8"),
    ("update audit set outcome = 'ok', detail = '{}' where seq = (select max(seq) from audit)", None),
    ("delete from audit where seq = 9", "9"),
    ("delete from audit where seq = (select max(seq) from audit)", None),
    ("delete from audit", None),
    ("insert into audit select seq + 1, time, who, action, project, kind, name, outcome, detail, request_id, hash, hash"
     " from audit where seq = (select max(seq) from audit)", None),
    ("update audit set seq = -seq where seq in (5, 6); update audit set seq = 11 + seq where seq < 0", "5"),
    ("update audit_head set seq = seq - 1, hash = (select hash from audit where seq = audit_head.seq - 1)", None),
])
def test_an_edit_of_the_table_is_found_and_named(stopped, tmp_path, what, entry):
    copy = copy_of(stopped, tmp_path)
    db = sqlite3.connect(copy / "meta.db")
    for (trigger,) in db.execute("select name from sqlite_master where type = 'trigger' and tbl_name like 'audit%'").fetchall():
        db.execute(f"drop trigger {trigger}")
    last = db.execute("select max(seq) from audit").fetchone()[0]
    db.executescript(what)
    db.commit()
    db.close()
    broken = stopped.cli("audit", "verify", "--data", str(copy))
    assert broken.code == 1, broken
    assert broken.err.startswith("error: ") and "audit" in broken.err
    if entry:
        assert f"audit entry {entry} " in broken.err, broken.err
    else:
        assert str(last) in broken.err or str(last + 1) in broken.err or "head" in broken.err, broken.err


def test_the_table_refuses_edits_by_itself(stopped, tmp_path):
    db = sqlite3.connect(copy_of(stopped, tmp_path) / "meta.db")
    for sql in ("update audit set who = 'x' where seq = 3", "delete from audit where seq = 3"):
        with pytest.raises(sqlite3.DatabaseError, match="append-only"):
            db.execute(sql)
    db.close()


def test_a_running_daemon_says_so_too(stopped, tmp_path, fresh):
    one = fresh.unstarted()
    shutil.copytree(stopped.data, one.data)
    one.token_file.write_text(stopped.token)
    db = sqlite3.connect(one.data / "meta.db")
    db.execute("drop trigger audit_no_update")
    db.execute("update audit set who = 'somebody' where seq = 7")
    db.commit()
    db.close()
    one.start()
    answer = one.http("GET", "/api/v1/audit/verify").json()
    assert not answer["ok"] and "audit entry 7 " in answer["error"]
    told = one.cli("audit", "verify")
    assert told.code == 1 and "audit entry 7 " in told.err + told.out
    assert "entries hold" not in told.out
