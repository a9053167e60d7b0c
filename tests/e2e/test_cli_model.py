# SPDX-License-Identifier: Apache-2.0
"""What a user of a model server asks at the terminal: predictions in every form, what is served, how fast it answers."""

import csv
import io
import json
import re
import subprocess

import numpy as np
import pytest
import serving
from conftest import DHOW, eventually

ROWS = np.random.default_rng(7).standard_normal((7, 4)).astype(np.float32).round(3)


@pytest.fixture(scope="module")
def served(daemon):
    model, daemon.w, daemon.b = serving.linear()
    daemon.deploy_onnx("lin", model)
    daemon.deploy_onnx("two", serving.sum_and_difference())
    daemon.deploy_onnx("text", serving.same("BYTES"))
    daemon.deploy_onnx("wide", serving.same("INT64"))
    return daemon


def table(text):
    return list(csv.reader(io.StringIO(text)))


def numbers(rows):
    return np.array([[float(cell) for cell in row] for row in rows])


def sheet(**more):
    """ROWS as a CSV, with further columns around them."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["who", *[f"x.{i}" for i in range(4)], *more])
    for i, row in enumerate(ROWS):
        writer.writerow([f'"{i}", they said', *row, *[values[i] for values in more.values()]])
    return out.getvalue()


# ---- predict ----

@pytest.mark.parametrize("binary", [[], ["--binary"]], ids=["json", "binary"])
@pytest.mark.parametrize("batch", ["1", "3", "1000"])
def test_a_csv_gets_its_scores_beside(served, batch, binary):
    done = served.ok("predict", "lin", "--csv", "-", "--batch", batch, "-o", "csv", *binary, input=sheet(label=list("abcdefg")))
    head, *rows = table(done.out)
    assert head == ["who", "x.0", "x.1", "x.2", "x.3", "label", "y.0", "y.1", "y.2"]
    assert [row[0] for row in rows] == [f'"{i}", they said' for i in range(len(ROWS))]
    assert [row[5] for row in rows] == list("abcdefg")
    assert numbers(row[6:] for row in rows) == pytest.approx(ROWS @ served.w + served.b, abs=1e-5)


def test_a_csv_is_asked_for_in_batches(served):
    def asked():
        stats = served.http("GET", "/v2/models/lin/stats").json()["model_stats"][0]
        return np.array([stats["inference_stats"]["success"]["count"], stats["inference_count"]])
    before = asked()
    served.ok("predict", "lin", "--csv", "-", "--batch", "3", input=sheet())
    assert list(asked() - before) == [3, len(ROWS)]


def test_a_csv_of_a_file_names_the_inputs(served):
    (served.folder / "two.csv").write_text("b,note,a\r\n1,,10\r\n-2,x,20\r\n")
    rows = served.ok("predict", "two", "--csv", str(served.folder / "two.csv"), "-o", "json").json()
    assert rows == [{"b": 1, "note": None, "a": 10, "sum": 11, "difference": 9},
                    {"b": -2, "note": "x", "a": 20, "sum": 18, "difference": 22}]
    assert served.ok("predict", "two", "--csv", str(served.folder / "two.csv")).out.splitlines() == [
        "b   note  a   sum  difference", "1   -     10  11   9", "-2  x     20  18   22"]


@pytest.mark.parametrize("text, wrong", [
    ("x.0,x.1,x.2\n1,2,3\n", "no column 'x.3'"),
    ("x.0,x.1,x.2,x.3\n1,2,three,4\n", "'three' is not"),
    ("x.0,x.1,x.2,x.3\n1,2,3\n", "row 1 of the CSV has 3 cells"),
    ("x.0,x.1,x.2,x.3\n", "no rows"),
    ('x.0,x.1,x.2,x.3\n"1,2,3,4\n', "a quote has no end"),
])
def test_a_wrong_csv_is_told(served, text, wrong):
    done = served.cli("predict", "lin", "--csv", "-", input=text)
    assert done.code == 2 and wrong in done.err and not done.out


@pytest.mark.parametrize("values", ["[1,2,3,4,5,6,7,8]", "[[1,2,3,4],[5,6,7,8]]"])
@pytest.mark.parametrize("binary", [[], ["--binary"]], ids=["json", "binary"])
def test_the_shape_of_an_input_is_inferred(served, values, binary):
    reply = served.ok("predict", "lin", "--input", f"x={values}", "-o", "json", *binary).json()
    got, x = reply["outputs"][0], np.arange(1, 9).reshape(2, 4)
    assert got["shape"] == [2, 3]
    assert got["data"] == pytest.approx((x @ served.w + served.b).ravel(), abs=1e-4)


@pytest.mark.parametrize("binary", [[], ["--binary"]], ids=["json", "binary"])
def test_values_keep_their_type(served, binary):
    big = [2**62 + 1, -2**53 - 1]
    reply = served.ok("predict", "wide", "-i", f"x={json.dumps(big)}", "-o", "json", *binary).json()
    assert reply["outputs"][0]["data"] == big
    words = ["grün, \"quoted\"", ""]
    reply = served.ok("predict", "text", "-i", f"x={json.dumps(words)}", "-o", "json", *binary).json()
    assert reply["outputs"][0]["data"] == words


@pytest.mark.parametrize("arguments, wrong", [
    (["-i", "x=[1,2,3]"], "3 values do not fill input 'x'"),
    (["-i", "z=1"], "there is no input 'z'"),
    (["-i", "x=[1,2,3,true]"], "'true' is not"),
    (["-i", "x"], "NAME=VALUES"),
    (["-d", "{\"inputs\":[]}"], "missing"),
    ([], "predict needs one of"),
    (["-d", "{}", "-i", "x=1"], "predict needs one of"),
])
def test_an_error_says_what_the_model_takes(served, arguments, wrong):
    done = served.cli("predict", "lin", *arguments)
    assert done.code == 2 and wrong in done.err
    assert "hint:  lin takes x FP32[-1,4]" in done.err


def test_a_body_comes_by_stdin_or_file(served):
    body = {"inputs": [{"name": name, "datatype": "INT32", "shape": [2], "data": data}
                       for name, data in (("a", [5, 7]), ("b", [1, 2]))]}
    (served.folder / "body.json").write_text(json.dumps(body))
    for source in (["-f", "-"], ["-f", str(served.folder / "body.json")], ["-d", f"@{served.folder}/body.json"]):
        done = served.ok("predict", "two", *source, "-o", "csv", input=json.dumps(body))
        assert table(done.out) == [["sum", "difference"], ["6", "4"], ["9", "5"]]


def test_a_version_is_chosen(served):
    assert "version 1" in served.ok("predict", "lin", "--version", "1", "-i", "x=[1,2,3,4]").out
    assert served.cli("predict", "lin", "--version", "9", "-i", "x=[1,2,3,4]").code == 1


def test_another_project_is_asked(served):
    project = served.project("elsewhere")
    done = served.cli("predict", "lin", "-i", "x=[1,2,3,4]", project=project)
    assert done.code == 1 and "'lin' is not found" in done.err
    assert served.ok("model", "list", "-o", "csv", project=project).out.splitlines() == ["NAME,VERSION,STATE,REASON"]


def test_a_csv_by_key_is_scored(trained):
    """Columns that are no keys pass; the same scores as one by one."""
    import flights
    head = ["origin", "destination", "date", "ts", "distance", "flight"]
    rows = [["ATL", "ORD", "2001-06-15T17:00", "2001-06-15T23:00", "606", "a"],
            ["ORD", "ATL", "2001-06-15T17:00", "2001-06-15T23:00", "606", "b"]]
    text = "\n".join(",".join(row) for row in [head, *rows]) + "\n"
    got_head, *got = table(trained.ok("predict", "late", "--csv", "-", "-o", "csv", input=text).out)
    assert got_head[:6] == head and [row[:6] for row in got] == rows
    for row in got:
        keys = [f"--key={name}={value}" for name, value in zip(head[:5], row)]
        alone = trained.ok("predict", "late", *keys, "-o", "json").json()["outputs"][0]["data"]
        assert float(row[6]) == pytest.approx(alone[0], rel=1e-5)


def test_keys_come_by_grpc_too(trained):
    """As a parameter of text, in place of inputs: the answer of the same keys by REST."""
    grpc = pytest.importorskip("tritonclient.grpc")
    keys = {"origin": ["ATL", "ORD"], "destination": ["ORD", "ATL"], "date": ["2001-06-15T17:00"] * 2,
            "ts": ["2001-06-15T23:00"] * 2, "distance": [606, 606]}
    rest = trained.http("POST", "/v2/models/late/infer", json={"entities": keys}).json()["outputs"][0]["data"]
    with grpc.InferenceServerClient(trained.url.removeprefix("http://")) as client:
        def ask(inputs, text):
            return client.infer("late", inputs, parameters={"entities": text}, headers={"authorization": f"Bearer {trained.token}"})
        answer = ask([], json.dumps(keys))
        got = answer.as_numpy(answer.get_response().outputs[0].name).ravel()
        assert got == pytest.approx(rest, rel=1e-6)
        x = grpc.InferInput("features", [1, 1], "FP32")
        x.set_data_from_numpy(np.zeros((1, 1), np.float32))
        for inputs, text, why in (([], "no JSON", "JSON"), ([], "[]", "entities"), ([x], json.dumps(keys), "either inputs")):
            with pytest.raises(Exception, match=why):
                ask(inputs, text)


# ---- model ----

def test_what_is_served_is_listed(served):
    served.ok("model", "unload", "wide")
    rows = {row[0]: row[1:] for row in table(served.ok("model", "list", "-o", "csv").out)[1:]}
    assert rows["lin"] == ["1", "READY", ""]
    assert rows["wide"][1:] == ["UNAVAILABLE", "unloaded"]
    served.ok("model", "load", "wide")


@pytest.mark.parametrize("arguments", [["list", "lin"], ["stats"], ["wash", "lin"]])
def test_model_names_what_it_takes(served, arguments):
    assert served.cli("model", *arguments).code == 2


@pytest.mark.parametrize("protocol", ["rest", "binary", "grpc"])
def test_bench_reports_what_the_server_counted(served, protocol):
    def counted():
        return served.http("GET", "/v2/models/lin/stats").json()["model_stats"][0]["inference_stats"]["success"]["count"]
    before = counted()
    levels = served.ok("model", "bench", "lin", "--protocol", protocol, "--concurrency", "1,3,20", "--threads", "2",
                       "--seconds", "0.3", "--percentile", "50,99.9", "-o", "json").json()
    assert [level["concurrency"] for level in levels] == [1, 3, 20]
    for level in levels:
        assert 0 < level["p50us"] <= level["p99.9us"] <= level["maxUs"] and level["errors"] == {}
        assert level["requestsPerSecond"] == pytest.approx(level["requests"] / 0.3) and level["serverCpuUs"] > 0
    assert 0 < sum(level["requests"] for level in levels) <= counted() - before


@pytest.mark.parametrize("protocol, full", [("rest", "429"), ("grpc", "RESOURCE_EXHAUSTED")])
def test_what_an_overloaded_server_refuses_is_counted_apart(served, protocol, full):
    name = f"few-{protocol}"
    served.deploy_onnx(name, serving.linear()[0], limits={"perSecond": 20, "burst": 1})
    level, = served.ok("model", "bench", name, "--protocol", protocol, "--concurrency", "4", "--seconds", "1",
                       "-o", "json").json()
    assert 0 < level["requests"] < 50
    assert list(level["errors"]) == [full] and level["errors"][full] > 0


@pytest.mark.parametrize("protocol, body", [("rest", b"{}"), ("grpc", b"\x0a\x03lin")])
def test_a_request_that_always_fails_is_an_error(served, protocol, body):
    (served.folder / "bad").write_bytes(body)
    done = served.cli("model", "bench", "lin", "--protocol", protocol, "--body", str(served.folder / "bad"), "--seconds", "0.1")
    assert done.code == 1 and "each request failed" in done.err
    assert ("400" if protocol == "rest" else "INVALID_ARGUMENT") in done.err


def test_the_curve_has_bars(served):
    lines = served.ok("model", "bench", "two", "--concurrency", "1,2", "--seconds", "0.1").out.splitlines()
    assert lines[0].split()[:2] == ["CLIENTS", "REQUESTS/S"]
    bars = [re.findall("[▏▎▍▌▋▊▉█]+", line) for line in lines[1:3]]
    assert all(len(row) == 2 for row in bars), lines
    for column in zip(*bars):  # the rates, the times: the largest fills its bar, and the other may be as large
        assert max(bar.count("█") for bar in column) == 20


@pytest.mark.parametrize("words, found", [
    ("dhow predict lin --c", "--csv"), ("dhow model bench lin --per", "--percentile"), ("dhow predict --pro", "--project"),
    ("dhow model be", "bench"), ("dhow predict l", "lin"), ("dhow pred", "predict"),
])
def test_the_shell_completes_from_the_tables(served, words, found):
    script = (f'PATH={DHOW.parent}:$PATH; eval "$(dhow completion bash)"; COMP_WORDS=({words}); '
              'COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _dhow; echo "${COMPREPLY[@]}"')
    env = {**served.env(), "DHOW_SERVER": served.url, "DHOW_TOKEN": served.token}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=env, check=True)
    assert done.stdout.split() == [found] and not done.stderr


# ---- describe ----

def test_shares_and_intervals_are_drawn(served):
    served.deploy_onnx("arms", serving.linear(seed=2)[0])
    served.deploy_onnx("arms", serving.linear(seed=3)[0])
    served.put("Deployment", "arms", {"model": "arms", "abTest": {"a": "arms.1", "b": "arms.2", "share": 0.25,
                                                                   "maxRequests": 600}})

    def status():
        return served.get("deployments", "arms").get("status", {})
    eventually(lambda: len([t for t in status().get("traffic", []) if t.get("state") == "ready"]) == 2, what="both arms")
    told = []
    for i in range(600):  # a hundred of each arm are needed
        request = {"id": f"r{i}", "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
        assert served.http("POST", "/v2/models/arms/infer", json=request).ok
        told.append({"id": f"r{i}", "value": i % 2})
    served.http("POST", served.path("deployments", "arms", "outcomes"), json={"outcomes": told})
    eventually(lambda: "high" in status().get("abTest", {}).get("b", {}), what="intervals")
    listed = served.ok("get", "deployments").out
    assert "arms.1 75%" in listed and "arms.2 25%" in listed
    lines = served.ok("describe", "deployment", "arms").out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("TRAFFIC "))
    bars = [line.count("█") for line in lines[at + 1:at + 3]]
    assert sorted(bars) == [7, 22]  # of 30, the rest in eighths
    at = next(i for i, line in enumerate(lines) if line.startswith("ABTEST "))
    assert all(line.count("├") == line.count("●") == line.count("┤") == 1 for line in lines[at + 1:at + 3])


@pytest.mark.parametrize("protocol", ["binary", "grpc"])
@pytest.mark.parametrize("kind", ["FP16", "BF16"])
def test_bench_makes_up_halves(served, kind, protocol):
    name = f"half-{kind.lower()}"
    served.deploy_onnx(name, serving.same(kind))
    level, = served.ok("model", "bench", name, "--protocol", protocol, "--concurrency", "2", "--seconds", "0.2", "-o", "json").json()
    assert level["requests"] > 0 and level["errors"] == {}, level
    refused = served.cli("model", "bench", name, "--protocol", "rest", "--seconds", "0.1")
    assert refused.code == 1 and "JSON does not carry" in refused.err
