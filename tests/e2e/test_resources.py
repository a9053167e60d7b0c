# SPDX-License-Identifier: Apache-2.0
"""Resources by command line and HTTP: apply, diff, get, describe, delete, their errors and exit codes."""

import concurrent.futures
import json

import pytest
import requests
import yaml

PIPELINE = """\
apiVersion: dhow/v1
kind: Pipeline
metadata: {name: NAME, labels: {team: ops}}
spec:
  doc: Nothing much.
  params: {who: you}
  steps:
    - name: say
      uses: command
      timeout: 90s
"""


def pipeline(name, **change):
    text = PIPELINE.replace("NAME", name)
    for old, new in change.items():
        text = text.replace(old, new)
    return text


def three_lines(result):
    """error, why and hint, each at most once and in this order."""
    heads = [line.split(":")[0] for line in result.err.strip().splitlines()]
    assert heads[0] == "error", result.err
    assert heads == [h for h in ("error", "why", "hint") if h in heads], result.err
    return result.err


def test_apply_creates_changes_and_leaves(daemon):
    assert "created" in daemon.ok("apply", "-f", "-", input=pipeline("first")).out
    assert "unchanged" in daemon.ok("apply", "-f", "-", input=pipeline("first")).out
    assert "updated" in daemon.ok("apply", "-f", "-", input=pipeline("first", much="more")).out
    assert daemon.get("pipelines", "first")["spec"]["doc"] == "Nothing more."


def test_apply_reads_files_and_folders_in_order(daemon, tmp_path):
    (tmp_path / "b.yaml").write_text(pipeline("folder-b") + "---\n" + pipeline("folder-c"))
    (tmp_path / "a.yml").write_text(pipeline("folder-a"))
    (tmp_path / "notes.txt").write_text("not this")
    lines = daemon.ok("apply", "-f", str(tmp_path)).out.splitlines()
    assert [line.split()[0].split("/")[1] for line in lines] == ["folder-a", "folder-b", "folder-c"]


def test_a_dry_run_changes_nothing(daemon):
    daemon.ok("apply", "--dry-run", "-f", "-", input=pipeline("never"))
    assert daemon.http("GET", daemon.path("pipelines", "never")).status_code == 404
    wrong = daemon.cli("apply", "--dry-run", "-f", "-", input=pipeline("never", uses="users"))
    assert wrong.code == 2


@pytest.mark.parametrize("old, new, place, nearest", [
    ("timeout", "timeot", "spec.steps[0].timeot", "timeout"),
    ("uses:", "use:", "spec.steps[0].use", "uses"),
    ("params", "parms", "spec.parms", "params"),
    ("labels", "lables", "metadata.lables", "labels"),
    ("spec:", "specs:", "specs", "spec"),
])
def test_an_unknown_field_is_named_with_the_nearest_right_one(daemon, old, new, place, nearest):
    wrong = daemon.cli("apply", "-f", "-", input=pipeline("wrong", **{old: new}))
    assert wrong.code == 2
    told = three_lines(wrong)
    assert place in told and nearest in told.replace(place, ""), told
    assert daemon.http("GET", daemon.path("pipelines", "wrong")).status_code == 404


@pytest.mark.parametrize("old, new, place", [
    ("90s", "soon", "spec.steps[0].timeout"),
    ("90s", "[1, 2]", "spec.steps[0].timeout"),
    ("timeout: 90s", "retries: 1000", "spec.steps[0].retries"),
    ("timeout: 90s", "retries: many", "spec.steps[0].retries"),
    ("timeout: 90s", "retries: 1.5", "spec.steps[0].retries"),
    ("name: say", "name: Say It", "spec.steps[0].name"),
    ("uses: command", "needs: [nobody]", "spec.steps[0]"),
    ("timeout: 90s", "needs: [say]", "say"),
    ("dhow/v1", "dhow/v0", "apiVersion"),
])
def test_a_wrong_value_is_named_by_its_path(daemon, old, new, place):
    wrong = daemon.cli("apply", "-f", "-", input=pipeline("wrong", **{old: new}))
    assert wrong.code == 2, wrong
    assert place in three_lines(wrong)


def test_what_is_no_document_is_exit_2(daemon, tmp_path):
    for text in ("just words\n", "a: [1, 2\n", "kind: Pipeline\n", "kind: Nonsense\nmetadata: {name: x}\n",
                 "kind: Pipelin\nmetadata: {name: x}\n", "\tkind: x\n", "a: &a [*a, *a]\n"):
        wrong = daemon.cli("apply", "-f", "-", input=text)
        assert wrong.code == 2, (text, wrong)
        three_lines(wrong)
    near = daemon.cli("apply", "-f", "-", input="apiVersion: dhow/v1\nkind: Pipelin\nmetadata: {name: x}\n")
    assert "'Pipeline'" in near.err
    gone = daemon.cli("apply", "-f", str(tmp_path / "not-there.yaml"))
    assert gone.code in (1, 2) and "not-there.yaml" in gone.err


def test_diff_is_0_when_same_and_1_when_not(daemon):
    text = pipeline("differs")
    assert daemon.cli("diff", "-f", "-", input=text).code == 1
    daemon.ok("apply", "-f", "-", input=text)
    same = daemon.cli("diff", "-f", "-", input=text)
    assert same.code == 0 and same.out == "", same
    other = daemon.cli("diff", "-f", "-", input=text.replace("Nothing much", "Quite a lot").replace("ops", "dev"))
    assert other.code == 1
    lines = other.out.splitlines()
    assert any(line.startswith("-") and "Nothing much" in line for line in lines), other.out
    assert any(line.startswith("+") and "Quite a lot" in line for line in lines)
    assert any(line.startswith("+") and "dev" in line for line in lines)
    assert not any(line[0] in "+-" and "90s" in line for line in lines), "what is the same is shown as changed"
    assert daemon.get("pipelines", "differs")["spec"]["doc"] == "Nothing much.", "diff changed something"
    assert daemon.cli("diff", "-f", "-", input=text.replace("uses", "users")).code == 2


def test_what_get_prints_can_be_applied(daemon):
    daemon.ok("apply", "-f", "-", input=pipeline("round"))
    for form in ("yaml", "json"):
        shown = daemon.ok("get", "pipeline", "round", "-o", form)
        assert "unchanged" in daemon.ok("apply", "-f", "-", input=shown.out).out, form
    as_yaml = daemon.ok("get", "pipelines/round", "-o", "yaml").yaml()
    as_json = daemon.ok("get", "pipeline", "round", "-o", "json").json()
    assert as_yaml == as_json
    assert as_json["kind"] == "Pipeline" and as_json["metadata"]["labels"] == {"team": "ops"}


def test_texts_survive_yaml(daemon):
    texts = {"a": "yes", "b": "1.0", "c": "null", "d": " - x: y", "e": "tab\tnl\nend\n", "f": "é✓𝄞", "g": "0x10",
             "h": "'\"", "i": "# no", "j": "2001-05-01", "k": "x" * 3000, "l": "~", "m": "on", "n": "1e3", "o": ""}
    text = json.dumps({"apiVersion": "dhow/v1", "kind": "Pipeline", "metadata": {"name": "texts"},
                           "spec": {"params": texts, "steps": [{"name": "s", "uses": "command"}]}})   # escapes what is not ASCII
    daemon.ok("apply", "-f", "-", input=text)
    assert daemon.ok("get", "pipeline", "texts", "-o", "yaml").yaml()["spec"]["params"] == texts
    shown = daemon.ok("get", "pipeline", "texts", "-o", "yaml").out
    assert "unchanged" in daemon.ok("apply", "-f", "-", input=shown).out


def test_get_lists_a_table(daemon):
    daemon.project("tables")
    assert "no pipelines" in daemon.ok("get", "pipelines", project="tables").err
    for name in ("b", "a", "c"):
        daemon.ok("apply", "-f", "-", "-p", "tables", input=pipeline(name))
    lines = daemon.ok("get", "pipelines", "-p", "tables").out.splitlines()
    assert lines[0].split()[0] == "NAME" and "AGE" in lines[0]
    assert [line.split()[0] for line in lines[1:]] == ["a", "b", "c"]
    assert daemon.cli("get", "pipeline", "z", "-p", "tables").code == 1
    nowhere = daemon.cli("get", "pipelines", "-p", "nowhere")
    assert nowhere.code == 1 and "nowhere" in nowhere.err


@pytest.mark.parametrize("command", [
    ["get", "pipelines"], ["get", "pipeline", "forms"], ["describe", "pipeline", "forms"], ["get", "jobs"], ["token", "list"],
    ["audit"], ["audit", "verify"], ["doctor"], ["lineage", "pipeline", "forms"]], ids=" ".join)
def test_every_answer_comes_in_three_forms(daemon, command):
    """Not the ages and revisions, which go on while one looks."""
    daemon.ok("apply", "-f", "-", input=pipeline("forms"))
    as_json, as_yaml = daemon.ok(*command, "-o", "json").json(), daemon.ok(*command, "-o", "yaml").yaml()
    assert type(as_json) is type(as_yaml) and len(as_json) == len(as_yaml) > 0
    if "forms" in command:
        assert as_json == as_yaml
    table = daemon.ok(*command, "-o", "table").out
    assert table == daemon.ok(*command).out or "AGE" in table
    assert not table.startswith("{")


def test_describe_shows_it_whole(daemon):
    daemon.ok("apply", "-f", "-", input=pipeline("shown"))
    shown = daemon.ok("describe", "pipeline", "shown").out
    assert "timeout" in shown and "team: ops" in shown


def test_a_name_that_is_not_there_gets_the_nearest_one(daemon):
    daemon.ok("apply", "-f", "-", input=pipeline("monthly-report"))
    for verb in (["get"], ["describe"], ["delete"], ["lineage"]):
        near = daemon.cli(*verb, "pipeline", "monthly-reprot")
        assert near.code == 1 and "did you mean 'monthly-report'?" in three_lines(near), verb
        far = daemon.cli(*verb, "pipeline", "something-else-altogether")
        assert far.code == 1 and "`dhow get pipelines`" in three_lines(far), verb
    assert daemon.get("pipelines", "monthly-report")


def test_delete(daemon):
    daemon.ok("apply", "-f", "-", input=pipeline("goes"))
    assert "deleted" in daemon.ok("delete", "pipeline", "goes").out
    gone = daemon.cli("delete", "pipeline", "goes")
    assert gone.code == 1 and "goes" in gone.err
    assert daemon.cli("delete", "pipeline").code == 2


def test_a_stale_rev_is_a_conflict_and_exit_5(daemon):
    daemon.ok("apply", "-f", "-", input=pipeline("raced"))
    read = daemon.ok("get", "pipeline", "raced", "-o", "yaml").out
    daemon.ok("apply", "-f", "-", input=pipeline("raced", much="more"))
    stale = daemon.cli("apply", "-f", "-", input=read.replace("Nothing much", "Nothing less"))
    assert stale.code == 5
    assert "raced" in three_lines(stale)
    assert daemon.get("pipelines", "raced")["spec"]["doc"] == "Nothing more."


def test_if_match_and_if_none_match(daemon):
    body = yaml.safe_load(pipeline("etag"))
    path = daemon.path("pipelines", "etag")
    made = daemon.http("PUT", path, json=body, headers={"If-None-Match": "*"})
    assert made.status_code == 201
    assert daemon.http("PUT", path, json=body, headers={"If-None-Match": "*"}).status_code == 409
    etag = made.headers["ETag"]
    assert daemon.http("GET", path).headers["ETag"] == etag
    body["spec"]["doc"] = "Changed."
    changed = daemon.http("PUT", path, json=body, headers={"If-Match": etag})
    assert changed.status_code == 200 and changed.headers["ETag"] != etag
    body["spec"]["doc"] = "Changed again."
    assert daemon.http("PUT", path, json=body, headers={"If-Match": etag}).status_code == 409
    assert daemon.http("DELETE", path, headers={"If-Match": etag}).status_code == 409
    assert daemon.http("DELETE", path, headers={"If-Match": changed.headers["ETag"]}).status_code == 204
    assert daemon.http("PUT", path, json=body, headers={"If-Match": '"x"'}).status_code == 400


def test_racing_writers_lose_nothing(daemon):
    """Each adds one to a counter by read, change, write with rev; all additions must be there."""
    body = yaml.safe_load(pipeline("counter"))
    body["spec"]["params"] = {"n": "0"}
    path = daemon.path("pipelines", "counter")
    daemon.http("PUT", path, json=body)
    token, url = daemon.token, daemon.url + path

    def add(_):
        with requests.Session() as session:
            session.trust_env = False
            session.headers["Authorization"] = f"Bearer {token}"
            for _ in range(200):
                now = session.get(url).json()
                now["spec"]["params"]["n"] = str(int(now["spec"]["params"]["n"]) + 1)
                reply = session.put(url, json=now)
                if reply.status_code == 200:
                    return
                assert reply.status_code == 409, reply.text
        raise AssertionError("never got through")

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(24)))
    assert daemon.get("pipelines", "counter")["spec"]["params"]["n"] == "24"


def test_status_cannot_be_written_by_people(daemon):
    body = yaml.safe_load(pipeline("honest"))
    body["status"] = {"runs": 99, "latest": "forged"}
    daemon.http("PUT", daemon.path("pipelines", "honest"), json=body)
    assert daemon.get("pipelines", "honest").get("status", {}).get("runs") in (None, 0)


def test_a_frozen_field_stays(daemon):
    daemon.job(["/bin/true"], name="frozen")
    changed = daemon.put("Job", "frozen", {"type": "command", "command": ["/bin/false"]})
    assert changed.status_code in (400, 409) and "spec.command" in changed.text


def test_lists_come_in_pages(daemon):
    daemon.project("pages")
    for i in range(25):
        assert daemon.put("Pipeline", f"p{i:02}", {"steps": [{"name": "s", "uses": "command"}]}, project="pages",
                          metadata={"labels": {"even": str(i % 2 == 0).lower()}}).status_code == 201
    seen, after = [], ""
    while after is not None:
        page = daemon.http("GET", daemon.path("pipelines", project="pages") + f"?limit=10&after={after}").json()
        seen += [item["metadata"]["name"] for item in page["items"]]
        after = page.get("next")
    assert seen == [f"p{i:02}" for i in range(25)]
    even = daemon.http("GET", daemon.path("pipelines", project="pages") + "?labels=even=true").json()["items"]
    assert [item["metadata"]["name"] for item in even] == [f"p{i:02}" for i in range(0, 25, 2)]
    assert daemon.http("GET", daemon.path("pipelines", project="pages") + "?limit=0").status_code == 400


def test_a_project_that_holds_something_stays(daemon):
    daemon.project("full")
    daemon.ok("apply", "-f", "-", "-p", "full", input=pipeline("inside"))
    kept = daemon.cli("delete", "project", "full")
    assert kept.code == 5 and "inside" in kept.err
    daemon.ok("delete", "pipeline", "inside", "-p", "full")
    daemon.ok("delete", "project", "full")
    assert daemon.http("GET", "/api/v1/projects/full").status_code == 404


def test_names_are_checked(daemon):
    for name in ("UPPER", "-x", "x" * 64, "a b", "ü"):
        reply = daemon.put("Pipeline", name, {"steps": [{"name": "s", "uses": "command"}]})
        assert reply.status_code in (400, 413) and "name" in reply.text, name
    for path in ("..%2f..%2fetc", "%00", "%2e%2e"):
        reply = daemon.http("PUT", f"/api/v1/projects/default/pipelines/{path}", json=yaml.safe_load(pipeline("x")))
        assert reply.status_code in (400, 404, 405), path


def test_the_same_error_by_http_is_a_problem(daemon):
    reply = daemon.http("PUT", daemon.path("pipelines", "x"), json={"kind": "Pipeline"})
    assert reply.status_code == 400 and reply.headers["Content-Type"] == "application/problem+json"
    problem = reply.json()
    assert problem["status"] == 400 and problem["code"] == "INVALID"
    assert problem["type"].startswith("urn:dhow:problem:") and problem["requestId"] == reply.headers["X-Request-Id"]


def test_explain_needs_no_server(run_binary):
    told = run_binary("explain", token=None)
    assert told.code == 0 and "FeatureView" in told.out
    one = run_binary("explain", "pipeline")
    assert "concurrency" in one.out and "steps" in one.out
    assert run_binary("explain", "pipelin").code == 2
