# SPDX-License-Identifier: Apache-2.0
"""No request without a decision: every operation of /openapi.json × {no token, a stranger's project, each role}."""

import http.client
import re
import time

import pytest

from conftest import eventually, plural_of

ROLES = ("viewer", "consumer", "editor", "operator", "approver", "admin", "auditor")
READERS = {"viewer", "editor", "operator", "approver", "admin", "auditor"}
MAKERS = {"editor", "admin"}
RUNNERS = {"operator", "admin"}
USERS = {"consumer", "editor", "operator", "admin"}
# The table of who may do what, written a second time: by the whole permission, else by its verb.
MAY = {
    "tokens.read": {"admin"}, "tokens.create": {"admin"}, "tokens.delete": {"admin"},
    "audit.read": {"auditor", "admin"}, "projects.create": {"admin"}, "projects.delete": {"admin"},
    "whoami.read": set(ROLES), "model.read": set(ROLES), "server.operate": {"admin"},
    "read": READERS, "list": READERS, "watch": READERS,
    "create": MAKERS, "update": MAKERS, "delete": MAKERS, "run": MAKERS, "write": MAKERS,
    "cancel": RUNNERS, "deploy": RUNNERS, "promote": RUNNERS, "rollback": RUNNERS,
    "operate": RUNNERS,
    "infer": USERS, "online": USERS, "approve": {"approver", "admin"}, "export": {"editor", "operator", "admin"},
}
PUBLIC = {"/healthz", "/readyz", "/v2", "/v2/health/live", "/v2/health/ready", "/openapi.json", "/schema/v1.json"}
OURS, THEIRS = "default", "elsewhere"


def roles_of(permission):
    return MAY.get(permission) or MAY[permission.split(".")[-1]]


def operations(document):
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield method.upper(), path, operation


@pytest.fixture(scope="module")
def all_operations(daemon):
    return list(operations(daemon.http("GET", "/openapi.json", token=None).json()))


@pytest.fixture(scope="module")
def tokens(daemon):
    daemon.project(THEIRS)
    made = {role: daemon.make_token([role], name=role)["token"] for role in ROLES}
    made["stranger"] = daemon.make_token(["admin"], project=THEIRS, name="stranger")["token"]
    return made


def concrete(path, project=OURS):
    return re.sub(r"\{[^}]*\}", "no-such-thing", path.replace("{project}", project))


def ask(daemon, method, path, token):
    """Any request of this operation; what it would do must not be done, so its body is no document."""
    body = "{}" if method in ("POST", "PUT", "PATCH") else None
    with daemon.http(method, path, token=token, data=body, headers={"Content-Type": "application/json"},
                     stream=True, timeout=10) as reply:
        return reply.status_code


def test_the_description_covers_what_is_served(all_operations):
    paths = {path for _, path, _ in all_operations}
    assert PUBLIC <= paths
    for wanted in ("/api/v1/tokens", "/api/v1/audit", "/api/v1/watch", "/metrics",
                   "/api/v1/projects/{project}/jobs/{name}/logs", "/api/v1/projects/{project}/lineage",
                   "/v2/models/{model}/infer"):
        assert wanted in paths or any(re.sub(r"\{\w+\}", "{}", p) == re.sub(r"\{\w+\}", "{}", wanted) for p in paths)
    assert len(all_operations) > 60


def test_every_operation_names_its_permission(all_operations):
    for method, path, operation in all_operations:
        permission = operation["x-permission"]
        assert permission == "public" or roles_of(permission), f"{method} {path}"
        assert operation["summary"], f"{method} {path} says nothing"
        assert (operation["security"] == []) == (permission == "public"), f"{method} {path}"


def test_only_the_known_paths_are_public(all_operations):
    assert {path for _, path, operation in all_operations if operation["x-permission"] == "public"} == PUBLIC


def test_without_a_token_everything_else_is_401(daemon, all_operations):
    for method, path, operation in all_operations:
        status = ask(daemon, method, concrete(path), None)
        if operation["x-permission"] == "public":
            assert status in (200, 400, 503), f"{method} {path}: {status}"
        else:
            assert status == 401, f"{method} {path}: {status}"


def test_strangers_learn_nothing_about_paths(daemon):
    assert ask(daemon, "GET", "/nothing/here", None) == 401
    assert ask(daemon, "PATCH", "/api/v1/whoami", None) == 401
    refused = daemon.http("GET", "/api/v1/whoami", token=None)
    assert refused.headers["WWW-Authenticate"].startswith("Bearer")
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert refused.json()["code"] == "UNAUTHORIZED"


def test_another_projects_paths_are_not_there(daemon, all_operations, tokens):
    seen = 0
    for method, path, operation in all_operations:
        if "{project}" in path:
            status = ask(daemon, method, concrete(path), tokens["stranger"])
            assert status == 404, f"{method} {path}: {status}"
            seen += 1
    assert seen > 40


THINGS = [
    ("Source", {"path": "there.csv", "format": "csv"}),
    ("Dataset", {"sources": ["there"], "query": "SELECT id, moment, thing, value FROM there", "id": "id", "eventTime": "moment",
                 "expect": [{"rule": "schema", "columns": {"id": "BIGINT", "moment": "TIMESTAMP", "thing": "VARCHAR", "value": "DOUBLE"}}]}),
    ("Entity", {"keys": ["thing"]}),
    ("FeatureView", {"dataset": "there", "entity": "there", "windows": ["1h"], "ttl": "1d",
                     "aggregates": [{"name": "n", "function": "count"}]}),
    ("FeatureService", {"views": ["there"]}),
    ("TrainingSet", {"dataset": "there", "service": "there", "label": "value"}),
    ("Model", {}),
    ("Deployment", {"model": "there"}),
    ("Monitor", {"deployment": "there"}),
    ("Job", {"type": "command", "command": ["/bin/true"]}),
    ("Pipeline", {"steps": [{"name": "s", "uses": "ingest", "with": {"dataset": "there"}}]}),
]
PLURAL, NAME = {"Entity": "entities"}, {"TrainingSet": "there_rows"}     # where it is not the usual one


@pytest.fixture(scope="module")
def things(daemon, tokens):
    """One of each kind that people make, in our project only."""
    (daemon.sources / "there.csv").write_text("id,moment,thing,value\n1,2001-01-01 00:00:00,a,1.5\n")
    for kind, spec in THINGS:
        made = daemon.put(kind, NAME.get(kind, "there"), spec, plural=PLURAL.get(kind))
        assert made.status_code == 201, made.text
    return daemon


def test_what_is_there_in_another_project_is_404_too(things, all_operations, tokens):
    """Every operation with names that exist: by our project's path, and by the stranger's own."""
    def names(path, project):
        name = "there_rows" if "/trainingsets/" in path else "there"
        return re.sub(r"\{[^}]*\}", name, path.replace("{project}", project))

    seen = 0
    for method, path, operation in all_operations:
        if operation["x-permission"] == "public" or "{" not in path.replace("{project}", ""):
            continue
        if "sharedmemory" in path:
            continue            # nobody has any
        for project in (OURS, THEIRS) if "{project}" in path else (None,):
            if project == THEIRS and method == "PUT":
                continue        # makes one of its own
            status = ask(things, method, names(path, project or ""), tokens["stranger"])
            refused = (404,) if project != THEIRS else (404, 400, 415)      # its own path, and a body that is none
            assert status in refused, f"{method} {path} in {project}: {status}"
            seen += 1
    assert seen > 100
    for kind, _ in THINGS:
        plural = PLURAL.get(kind, plural_of(kind))
        assert things.get(plural, NAME.get(kind, "there"))["kind"] == kind, f"{kind} is gone"
        assert things.get(plural, project=THEIRS)["items"] == []


def test_a_reference_does_not_reach_into_another_project(things, tokens):
    for kind, spec in THINGS:
        if kind in ("Source", "Entity", "Model", "Job", "Pipeline"):
            continue            # these refer to nothing
        made = things.put(kind, NAME.get(kind, "there"), spec, project=THEIRS, plural=PLURAL.get(kind), token=tokens["stranger"])
        assert made.status_code == 400 and "there is no" in made.text, f"{kind}: {made.status_code} {made.text}"


def test_a_project_sees_its_own_lists_only(things, tokens):
    """Routes without a project in their path."""
    ours = things.make_token(["viewer"], name="secret-reader")
    stranger = tokens["stranger"]
    assert things.http("DELETE", f"/api/v1/tokens/{ours['id']}", token=stranger).status_code == 404
    assert things.http("GET", "/api/v1/whoami", token=ours["token"]).status_code == 200
    for path in ("/api/v1/projects", "/api/v1/tokens", "/api/v1/audit", "/api/v1/events", "/v2/models"):
        reply = things.http("GET", path, token=stranger)
        assert reply.status_code == 200 and OURS not in reply.text and "secret-reader" not in reply.text, path


def test_a_strangers_404_is_the_one_of_nothing(daemon, tokens):
    """What exists and what does not look the same from outside."""
    daemon.job(["/bin/true"], name="hidden")

    def seen(project):
        reply = daemon.http("GET", daemon.path("jobs", "hidden", project=project), token=tokens["stranger"])
        answer = reply.json()
        answer.pop("requestId")
        return reply.status_code, {k: str(v).replace(project, "P") for k, v in answer.items()}

    assert seen("default") == seen("never-made")
    assert seen("default")[0] == 404


@pytest.mark.parametrize("role", ROLES)
def test_each_role_may_what_its_table_says(daemon, all_operations, tokens, role):
    for method, path, operation in all_operations:
        permission = operation["x-permission"]
        if permission == "public":
            continue
        status = ask(daemon, method, concrete(path), tokens[role])
        if permission == "projects.delete":
            assert status == 403, "a project is deleted by those with all projects only"
        elif role in roles_of(permission):
            assert status not in (401, 403), f"{role} is kept from {method} {path} ({permission}): {status}"
        else:
            assert status == 403, f"{role} got {status} from {method} {path} ({permission})"


def test_roles_really_do_and_do_not(daemon, tokens):
    """The same, by what happens and not by a status alone."""
    daemon.put("Job", "seen", {"type": "command", "command": ["/bin/true"]})
    spec = {"type": "command", "command": ["/bin/true"]}
    for role in ROLES:
        name = f"by-{role}"
        made = daemon.put("Job", name, spec, token=tokens[role])
        there = daemon.http("GET", daemon.path("jobs", name)).status_code == 200
        assert (made.status_code == 201) == there == (role in MAKERS), role
        read = daemon.http("GET", daemon.path("jobs", "seen"), token=tokens[role])
        assert (read.status_code == 200) == (role in READERS), role
        if role not in READERS:
            assert "command" not in read.text


def test_a_projects_admin_makes_no_token_for_others(daemon, tokens):
    asked = {"name": "x", "project": OURS, "roles": ["viewer"]}
    assert daemon.http("POST", "/api/v1/tokens", token=tokens["stranger"], json=asked).status_code == 404
    asked["project"] = "*"
    assert daemon.http("POST", "/api/v1/tokens", token=tokens["stranger"], json=asked).status_code == 404
    listed = daemon.http("GET", "/api/v1/tokens", token=tokens["stranger"]).json()["items"]
    assert listed and all(t["project"] == THEIRS for t in listed)
    assert daemon.http("PUT", "/api/v1/projects/mine", token=tokens["stranger"], json={}).status_code == 404


def test_scopes_narrow_a_token(daemon):
    narrow = daemon.make_token(["admin"], scopes=["jobs.read"])["token"]
    assert daemon.http("GET", daemon.path("jobs"), token=narrow).status_code == 200
    assert daemon.http("GET", daemon.path("pipelines"), token=narrow).status_code == 403
    assert daemon.put("Job", "narrow", {"type": "command", "command": ["/bin/true"]}, token=narrow).status_code == 403
    wide = {"name": "x", "roles": ["admin"]}
    assert daemon.http("POST", "/api/v1/tokens", token=narrow, json=wide).status_code == 403


def test_a_revoked_token_dies_at_once(daemon):
    made = daemon.make_token(["viewer"])
    assert daemon.http("GET", daemon.path("jobs"), token=made["token"]).status_code == 200
    assert daemon.http("DELETE", f"/api/v1/tokens/{made['id']}").status_code == 204
    for _ in range(20):     # whichever loop or worker answers
        assert daemon.http("GET", daemon.path("jobs"), token=made["token"]).status_code == 401


def test_an_expired_token_dies(daemon):
    made = daemon.make_token(["viewer"], lifetime="1s")
    assert daemon.http("GET", daemon.path("jobs"), token=made["token"]).status_code == 200
    time.sleep(1.1)
    refused = daemon.http("GET", daemon.path("jobs"), token=made["token"])
    assert refused.status_code == 401 and "expired" in refused.json()["detail"]


def test_a_revoked_token_ends_its_watch(daemon):
    made = daemon.make_token(["viewer"])
    with daemon.http("GET", "/api/v1/watch", token=made["token"], stream=True, timeout=10) as stream:
        assert stream.status_code == 200
        daemon.http("DELETE", f"/api/v1/tokens/{made['id']}")
        for _ in stream.iter_content(None):     # a time-out is the failure
            pass


@pytest.mark.parametrize("token", ["x", "dhow_", "dhow_000000000000_" + "A" * 43, "dhow_' or 1=1 --", "é" * 40, "a" * 4000])
def test_made_up_tokens_are_401(daemon, token):
    reply = daemon.http("GET", daemon.path("jobs"), token=token.encode())
    assert reply.status_code == 401
    assert len(token) < 5 or token not in reply.text


def test_another_secret_with_the_same_id_is_401(daemon):
    good = daemon.make_token(["viewer"])["token"]
    other = good[:-1] + ("A" if good[-1] != "A" else "B")
    assert daemon.http("GET", daemon.path("jobs"), token=other).status_code == 401


def raw(daemon, method, path, headers, body=None):
    host, port = daemon.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in headers:
        connection.putheader(name, value)
    if body is not None:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    reply = connection.getresponse()
    status = reply.status
    reply.read()
    connection.close()
    return status


def test_a_hostile_host_is_refused(daemon):
    """DNS rebinding: a page of evil.example whose name now means 127.0.0.1."""
    port = daemon.url.rsplit(":", 1)[1]
    bearer = ("Authorization", f"Bearer {daemon.token}")
    for host in ("evil.example", f"evil.example:{port}", "10.0.0.1", f"127.0.0.1.evil.example:{port}", "localhost.evil"):
        assert raw(daemon, "GET", "/api/v1/whoami", [("Host", host), bearer]) == 403, host
        assert raw(daemon, "GET", "/healthz", [("Host", host)]) == 403, host
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}"):
        assert raw(daemon, "GET", "/api/v1/whoami", [("Host", host), bearer]) == 200, host
    assert raw(daemon, "GET", "/api/v1/whoami", [bearer]) == 400
    assert raw(daemon, "GET", "/healthz", [("Host", f"127.0.0.1:{port}"), ("Host", "evil.example")]) == 400


def test_a_hostile_origin_may_not_write(daemon):
    port = daemon.url.rsplit(":", 1)[1]
    host, bearer = ("Host", f"127.0.0.1:{port}"), ("Authorization", f"Bearer {daemon.token}")
    path = daemon.path("jobs", "by-a-page")
    for origin in ("http://evil.example", "null", f"http://127.0.0.1:{int(port) + 1}", f"https://localhost:{port}.evil"):
        assert raw(daemon, "DELETE", path, [host, bearer, ("Origin", origin)]) == 403, origin
    assert raw(daemon, "DELETE", path, [host, bearer, ("Origin", f"http://127.0.0.1:{port}")]) == 404


def test_the_command_line_says_4_when_it_may_not(daemon, tokens):
    no_token = daemon.cli("get", "jobs", token=None)
    assert no_token.code == 4 and "hint:" in no_token.err
    wrong = daemon.cli("get", "jobs", token="dhow_000000000000_" + "A" * 43)
    assert wrong.code == 4
    may_not = daemon.cli("run", "--", "/bin/true", token=tokens["viewer"])
    assert may_not.code == 4 and "editor" in may_not.err


def test_tokens_by_command_line(daemon):
    made = daemon.ok("token", "create", "ci", "--role", "editor", "--expires", "30d")
    secret = made.out.strip()
    assert re.fullmatch(r"dhow_[0-9a-f]{12}_\S{43}", secret), made
    me = daemon.http("GET", "/api/v1/whoami", token=secret).json()
    assert me["name"] == "ci" and me["roles"] == ["editor"] and me["project"] == "default"
    assert secret.split("_")[1] in daemon.ok("token", "list").out
    assert secret not in daemon.ok("token", "list", "-o", "json").out
    daemon.ok("token", "revoke", secret.split("_")[1])
    assert daemon.cli("get", "jobs", token=secret).code == 4


def test_refusals_are_in_the_audit_log(fresh):
    one = fresh()
    viewer = one.make_token(["viewer"], name="viewer")["token"]
    one.http("DELETE", one.path("jobs", "seen"), token=viewer)
    one.http("GET", one.path("jobs", "seen"), token=None)

    def outcomes():
        entries = one.http("GET", "/api/v1/audit?limit=50").json()["items"]
        return {(e["who"], e["outcome"]) for e in entries}

    eventually(lambda: {("viewer", "FORBIDDEN"), ("anonymous", "UNAUTHORIZED")} <= outcomes(), 5)


def test_a_flood_of_refusals_does_not_fill_the_log(fresh):
    one = fresh()
    for _ in range(500):
        assert one.http("GET", one.path("jobs"), token=None).status_code == 401
    time.sleep(0.5)
    entries = one.http("GET", "/api/v1/audit?limit=1000").json()["items"]
    assert 0 < sum(e["outcome"] == "UNAUTHORIZED" for e in entries) < 250


def test_secrets_are_kept_as_hashes(daemon):
    made = daemon.make_token(["viewer"])["token"]
    secret = made.split("_", 2)[2].encode()
    for file in daemon.data.rglob("*"):
        if file.is_file() and file.stat().st_size < 64 << 20:
            assert secret not in file.read_bytes(), f"a token lies in {file.name}"
    assert secret.decode() not in daemon.log_text()
