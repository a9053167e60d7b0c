# SPDX-License-Identifier: Apache-2.0
"""What a Deployment's spec asks of the server beside answering: sequences with a state, ensembles, the response cache, priorities
and limits, as Triton's clients and requests meet them."""

import queue
import time

import numpy as np
import pytest
import requests
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from drill import figures
from onnx import helper
from serving import linear, model_of, slow
from test_clients import refused
from tritonclient.utils import InferenceServerException

from conftest import eventually


class Client:
    """tritonclient over HTTP and over gRPC alike: named arrays in, named arrays out."""

    def __init__(self, daemon, of):
        self.daemon, self.of = daemon, of
        more = {"concurrency": 8} if of is triton_http else {}
        self.client = of.InferenceServerClient(daemon.url.removeprefix("http://"), **more)

    @property
    def headers(self):
        """A new one each time: tritonclient writes into it."""
        return {"authorization": f"Bearer {self.daemon.token}"}

    def tensors(self, inputs):
        kinds = {"float32": "FP32", "int32": "INT32", "int64": "INT64"}
        return [self.of.InferInput(name, value.shape, kinds[value.dtype.name]).set_data_from_numpy(value)
                for name, value in inputs.items()]

    def infer(self, model, inputs, **more):
        return self.client.infer(model, self.tensors(inputs), headers=self.headers, **more)

    def statistics(self, model):
        more = {"as_json": True} if self.of is triton_grpc else {}
        return self.client.get_inference_statistics(model, headers=self.headers, **more)["model_stats"][0]


@pytest.fixture(params=[triton_http, triton_grpc], ids=["http", "grpc"])
def client(request, served):
    one = Client(served, request.param)
    yield one
    one.client.close()


def column(*values):
    return np.array(values, np.float32).reshape(-1, 1)


def running_sum():
    """y is the sum of all x of the sequence; told is whether the server says that it begins and ends here."""
    each = ("FP32", ["N", 1])
    nodes = [helper.make_node("Add", ["x", "sum"], ["y"]), helper.make_node("Identity", ["y"], ["next"]),
             helper.make_node("Concat", ["first", "last"], ["told"], axis=1)]
    return model_of(nodes, {name: each for name in ("x", "sum", "first", "last")},
                    {"y": each, "next": each, "told": ("FP32", ["N", 2])})


def scaled(factor):
    nodes = [helper.make_node("Mul", ["x", "factor"], ["y"])]
    return model_of(nodes, {"x": ("FP32", ["N", 3])}, {"y": ("FP32", ["N", 3])}, {"factor": np.float32([factor])})


MODEL, W, B = linear()
X = np.random.default_rng(8).standard_normal((2, 4)).astype(np.float32)
SEQUENCE = {"maxSequences": 2, "idle": "1s", "state": [{"input": "sum", "output": "next"}],
            "controls": [{"input": "first", "kind": "start"}, {"input": "last", "kind": "end"}]}


@pytest.fixture(scope="module")
def served(daemon):
    daemon.deploy_onnx("sums", running_sum(), sequence=SEQUENCE)
    daemon.deploy_onnx("linear", MODEL)
    daemon.deploy_onnx("tenfold", scaled(10))
    reply = daemon.put("Deployment", "both", {"ensemble": {"outputs": ["answer"], "steps": [
        {"name": "score", "deployment": "linear", "inputs": {"x": "rows"}, "outputs": {"y": "scores"}},
        {"name": "scale", "deployment": "tenfold", "inputs": {"x": "scores"}, "outputs": {"y": "answer"}}]}})
    assert reply.ok, reply.text
    eventually(lambda: daemon.http("GET", "/v2/models/both/ready").status_code == 200, 20, what="the ensemble")
    return daemon


# ---- sequences ----

@pytest.mark.parametrize("ids", [(71, 72), ("walk", "ride")], ids=["numbers", "texts"])
def test_each_sequence_has_its_own_state(client, ids):
    def step(which, x, **more):
        got = client.infer("sums", {"x": column(x)}, sequence_id=ids[which], **more)
        return float(got.as_numpy("y")[0, 0]), [bool(v) for v in got.as_numpy("told")[0]]
    assert step(0, 1, sequence_start=True) == (1, [True, False])
    assert step(1, 100, sequence_start=True) == (100, [True, False])
    assert step(0, 2) == (3, [False, False])
    assert step(1, 200) == (300, [False, False])
    assert step(0, 3, sequence_end=True) == (6, [False, True])
    assert step(1, 300, sequence_end=True) == (600, [False, True])
    status, told = refused(client.infer, "sums", {"x": column(1)}, sequence_id=ids[0])
    assert status in ("400", "StatusCode.INVALID_ARGUMENT") and "START" in told, "it has ended"
    assert step(0, 5, sequence_start=True, sequence_end=True) == (5, [True, True])


def test_a_request_of_no_sequence_is_refused(client):
    status, told = refused(client.infer, "sums", {"x": column(1)})
    assert status in ("400", "StatusCode.INVALID_ARGUMENT") and "correlation ID" in told


def test_there_are_so_many_sequences_at_once(client):
    for i in (81, 82):
        client.infer("sums", {"x": column(1)}, sequence_id=i, sequence_start=True)
    status, _ = refused(client.infer, "sums", {"x": column(1)}, sequence_id=83, sequence_start=True)
    assert status in ("503", "StatusCode.UNAVAILABLE")

    def room():     # once one of them is idle for a second
        try:
            return client.infer("sums", {"x": column(4)}, sequence_id=83, sequence_start=True, sequence_end=True)
        except InferenceServerException:
            return None
    assert eventually(room, 10, 0.1).as_numpy("y")[0, 0] == 4
    eventually(lambda: not refused_start(client), 10, 0.1, "room for the tests that follow")


def refused_start(client):
    try:
        for i in (91, 92):
            client.infer("sums", {"x": column(1)}, sequence_id=i, sequence_start=True, sequence_end=True)
    except InferenceServerException as e:
        return e
    return None


def test_a_stream_carries_sequences_in_order(served):
    answers = queue.Queue()
    client = Client(served, triton_grpc)
    with client.client as stream:
        stream.start_stream(lambda result, error: answers.put((result, error)), headers=client.headers)
        for i in range(10):
            for which in (101, 102):
                stream.async_stream_infer("sums", client.tensors({"x": column(which * i)}), request_id=f"{which}/{i}",
                                          sequence_id=which, sequence_start=i == 0, sequence_end=i == 9)
        got = {}
        for _ in range(20):
            result, error = answers.get(timeout=20)
            assert error is None, error
            got[result.get_response().id] = float(result.as_numpy("y")[0, 0])
        stream.stop_stream()
    assert got == {f"{which}/{i}": which * i * (i + 1) / 2 for which in (101, 102) for i in range(10)}


# ---- ensembles ----

def test_an_ensemble_answers_as_its_steps_would(client):
    got = client.infer("both", {"rows": X})
    np.testing.assert_allclose(got.as_numpy("answer"), 10 * (X @ W + B), rtol=1e-5)
    told = client.client.get_model_metadata("both", headers=client.headers)
    inputs = told["inputs"] if isinstance(told, dict) else [{"name": one.name} for one in told.inputs]
    assert [one["name"] for one in inputs] == ["rows"]


def test_an_ensemble_counts_for_itself_and_for_its_steps(client):
    def counted():
        return [int(client.statistics(name)["inference_stats"]["success"]["count"]) for name in ("both", "linear", "tenfold")]
    before = counted()
    for _ in range(3):
        client.infer("both", {"rows": X})
    assert [after - first for after, first in zip(counted(), before)] == [3, 3, 3]


def test_an_ensemble_says_what_is_wrong(client):
    status, told = refused(client.infer, "both", {"rows": X[:, :3]})
    assert status in ("400", "StatusCode.INVALID_ARGUMENT") and "rows" in told
    status, told = refused(client.infer, "both", {"x": X})
    assert status in ("400", "StatusCode.INVALID_ARGUMENT") and "'x'" in told


# ---- the response cache ----

def test_the_same_question_is_answered_from_the_cache(client):
    name = f"kept-{client.of.__name__.split('.')[-1]}"
    client.daemon.deploy_onnx(name, MODEL, cache={"size": "1Mi", "ttl": "1h"})

    def hits():
        stats = client.statistics(name)["inference_stats"]
        return [int(stats[how].get("count", 0)) for how in ("cache_hit", "cache_miss")]
    for _ in range(3):
        np.testing.assert_allclose(client.infer(name, {"x": X}).as_numpy("y"), X @ W + B, rtol=1e-5)
    assert hits() == [2, 1]
    np.testing.assert_allclose(client.infer(name, {"x": X + 1}).as_numpy("y"), (X + 1) @ W + B, rtol=1e-5)
    assert hits() == [2, 2]
    told = {k: v for k, v in figures(client.daemon, "nv_cache_num_hits_per_model").items() if f'"{name}"' in k}
    assert list(told.values()) == [2]
    run = client.statistics(name)["inference_stats"]["compute_infer"]
    assert int(run["count"]) == 2, "a hit runs nothing"


# ---- order and limits ----

def test_who_has_priority_goes_first(served):
    """While one request is at work for seconds, others come and wait."""
    served.deploy_onnx("ordered", slow(6000), instances=1, runtime="onnx", batching={"priorities": 2, "defaultPriority": 2})
    long, short, done, sent = np.ones((200, 256), np.float32), np.ones((1, 256), np.float32), queue.Queue(), []
    client = Client(served, triton_grpc)

    def count(name):
        return sum(value for labels, value in figures(served, name).items() if '"ordered"' in labels)

    def come():  # the first one is there, and does not wait any more; the others do
        return count("dhow_inference_in_flight") > len(sent) and count("nv_inference_pending_request_count") == len(sent)
    with client.client as calls:
        def ask(name, x, **more):
            calls.async_infer("ordered", client.tensors({"x": x}), lambda result, error: done.put((name, error)),
                              headers=client.headers, **more)
            eventually(come, 20, 0.005, f"the place of {name} in the queue")
            sent.append(name)
        ask("first", long)
        for i in range(3):
            ask(f"low{i}", short, **({"priority": 2} if i else {}))
        ask("high", short, priority=1)
        order = [done.get(timeout=120) for _ in range(5)]
    assert all(error is None for _, error in order), order
    assert [name for name, _ in order] == ["first", "high", "low0", "low1", "low2"]


def test_a_full_queue_sheds(client):
    """What waits already is answered; the next one is told to come again."""
    name = f"full-{client.of.__name__.split('.')[-1]}"
    client.daemon.deploy_onnx(name, slow(6000), instances=1, runtime="onnx", batching={"queue": 1})
    held = Client(client.daemon, triton_grpc)
    done = queue.Queue()

    def there(n):
        found = figures(client.daemon, "dhow_inference_in_flight")
        return sum(value for labels, value in found.items() if f'"{name}"' in labels) == n
    with held.client as calls:
        for n in (1, 2):
            calls.async_infer(name, held.tensors({"x": np.ones((200, 256), np.float32)}),
                              lambda result, error: done.put(error), headers=held.headers)
            eventually(lambda n=n: there(n), 20, 0.005, what=f"request {n}")
        status, told = refused(client.infer, name, {"x": np.ones((1, 256), np.float32)})
        assert status in ("429", "StatusCode.UNAVAILABLE") and "Exceeds maximum queue size" in told
        assert [done.get(timeout=120) for _ in range(2)] == [None, None]


def test_a_token_has_a_rate(client):
    name = f"few-{client.of.__name__.split('.')[-1]}"
    client.daemon.deploy_onnx(name, MODEL, limits={"perSecond": 1, "burst": 3})
    answered, told = 0, []
    for _ in range(12):
        try:
            client.infer(name, {"x": X})
            answered += 1
        except InferenceServerException as e:
            told.append(str(e.status()))
    assert 3 <= answered < 12 and set(told) <= {"429", "StatusCode.RESOURCE_EXHAUSTED"}
    client.infer("linear", {"x": X})     # others are not held to it
    failed = figures(client.daemon, "nv_inference_request_failure")
    assert sum(v for k, v in failed.items() if f'"{name}"' in k) == len(told)

    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 4], "data": X.ravel().tolist()}]}

    def post():
        return requests.post(f"{client.daemon.url}/v2/models/{name}/infer", json=body, headers=client.headers, timeout=10)
    for _ in range(20):
        over = post()
        if over.status_code != 200:
            break
    assert over.status_code == 429 and int(over.headers["Retry-After"]) >= 1 and set(over.json()) == {"error"}
    time.sleep(int(over.headers["Retry-After"]))
    assert eventually(post, 5).status_code == 200, "as Retry-After says"
