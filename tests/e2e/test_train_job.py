# SPDX-License-Identifier: Apache-2.0
"""A network in the pipeline that trees were in: one line of the recipe differs, all other steps are as they were."""

import yaml
from flights import documents, sources_make, step


def network(made):
    train = step(made, "train")["with"]
    train["model"] = {"mlp": {"hidden": [64, 32]}}
    train["epochs"] = 2
    gate = step(made, "gate")["with"]
    gate["bounds"] = [b for b in gate["bounds"] if b["metric"] != "parityMaxAbs"]


def test_a_network_goes_the_way_of_trees(fresh):
    one = fresh.unstarted()
    sources_make(one.sources)
    one.start()
    recipe = one.sources / "recipe.yaml"
    recipe.write_text(yaml.safe_dump_all(documents(network).values(), sort_keys=False))
    assert one.cli("apply", "-f", recipe).code == 0
    done = one.cli("run", "late", seconds=400)
    assert done.code == 0, done.err
    version = one.cli("get", "modelversion", "late.1", "-o", "json").json()
    assert version["status"]["state"] == "passed" and version["spec"]["params"]["mlp"]["hidden"] == [64, 32]
    assert version["spec"]["facts"]["parityMaxRelative"] <= 1e-4
