# SPDX-License-Identifier: Apache-2.0
"""dhow train --resume: what a checkpoint holds, at whatever step it was made, and what of the form it decides."""

import json
import shutil

import pytest
from training import Bench, cancer, result, tables


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tables(tmp_path_factory.mktemp("resume")))


def steps_of(folder):
    return sorted(int(p.name[5:]) for p in folder.glob("checkpoints/step-*"))


def state_of(folder, step):
    return json.loads((folder / f"checkpoints/step-{step}/state.json").read_text())


def cut_at(bench, whole, step, name):
    """The folder as it was when the training stood there."""
    folder = bench.folder / name
    shutil.copytree(bench.folder / whole / "checkpoints", folder / "checkpoints",
                    ignore=lambda _, names: [n for n in names if n.startswith("step-") and int(n[5:]) > step])
    best = state_of(folder, step)["bestStep"]
    if best:
        (folder / "checkpoints/best.json").write_text(json.dumps({"step": best}))
    else:
        (folder / "checkpoints/best.json").unlink()
    return folder


def test_an_epoch_ends_with_a_step_however_few_batches_are_left(bench):
    """7 batches an epoch, 5 a step: the other two make one, so that each epoch has its checkpoint and the best can be taken."""
    form = bench.form("uneven", **cancer(batchSize=64, epochs=12, optimizer={"accumulate": 5, "rate": 0.01}, checkpoint={"keep": 1000},
                                         earlyStop={"metric": "auc"}))
    out, err = bench.train(form, "-o", "json", "--dir", "uneven")
    assert steps_of(bench.folder / "uneven") == [7 * e for e in range(1, 13)]
    state = state_of(bench.folder / "uneven", 84)
    assert state["optimSteps"] == 24 and state["pending"] == 0
    facts = result(out)["facts"]
    assert facts["bestStep"] < 84 and f"the model of step {facts['bestStep']} is kept" in err
    rates = [json.loads(line) for line in (bench.folder / "uneven/metrics.jsonl").read_text().splitlines()]
    assert [r["value"] for r in rates if r["name"] == "train.rate"][-1] < 1e-9, "the schedule knows how many steps there are"


@pytest.mark.parametrize("threads", [1, 2])
def test_one_made_within_an_accumulation_goes_on_with_the_same_bits(bench, threads):
    form = bench.form("within", **cancer(
        model={"mlp": {"hidden": [16], "dropout": 0.2, "norm": "batch"}}, batchSize=64, epochs=4, deterministic=True, threads=threads,
        optimizer={"accumulate": 5, "ema": 0.9}, checkpoint={"every": 3, "keep": 1000}, evaluateEvery=2))
    whole = f"within-{threads}"
    bench.train(form, "-q", "--dir", whole)
    seen = set()
    for step in steps_of(bench.folder / whole)[:-1]:
        pending = state_of(bench.folder / whole, step)["pending"]
        if pending not in seen:
            seen.add(pending)
            cut = cut_at(bench, whole, step, f"{whole}-{step}")
            bench.train(form, "-q", "--dir", cut, "--resume")
            assert (cut / "model.onnx").read_bytes() == (bench.folder / whole / "model.onnx").read_bytes(), f"step {step}"
            if pending:
                err = bench.fails(form, "--dir", cut_at(bench, whole, step, f"{cut}-other"), "--resume", "--set", f"threads={3 - threads}")
                assert f"threads {threads}, this form says {3 - threads}" in err
    assert len(seen) >= 3, seen


def test_what_was_measured_is_the_checkpoints_not_measured_again(bench):
    form = bench.form("measured", **cancer(epochs=2, batchSize=32, precision="bf16", optimizer={"rate": 0.004}))
    bench.train(form, "-q", "--dir", "measured")
    out, err = bench.train(form, "-o", "json", "--dir", "measured", "--resume", "--set", "batchSize=auto", "--set", "precision=auto")
    run = result(out)
    assert run["facts"]["batchSize"] == 32 and run["facts"]["precision"] == "bf16" and "were tried" not in err
    assert run["params"]["rate"] == pytest.approx(0.004 * 0.5 ** 0.5), "the rate is that of 64 rows"
    assert "rate 0.00282843 instead of 0.004, for batches of 32 rows instead of 64" in err
    out, _ = bench.train(form, "-o", "json", "--dir", "measured", "--resume", "--set", "batchSize=0")
    assert result(out)["facts"]["batchSize"] == 32
    for change, says in (("batchSize=64", "batchSize 32, this form says 64"), ("precision=fp32", "precision bf16, this form says fp32"),
                         ("optimizer.accumulate=2", "optimizer.accumulate 1, this form says 2"), ("seed=2", "seed 1, this form says 2")):
        assert says in bench.fails(form, "--dir", "measured", "--resume", "--set", change)
