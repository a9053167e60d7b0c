# SPDX-License-Identifier: Apache-2.0
"""The commands that README.md, docs/tutorial/ and a guide tell people to type, typed here: each block fenced as ```sh, in order,
against a daemon of the page's own with a part of the real flights. Blocks marked ```sh skip are not run: they install,
build, or start the daemon."""

import os
import re
import subprocess

import pytest
from conftest import DHOW, ROOT
from flights import sources_make

PAGES = [ROOT / "README.md", ROOT / "docs" / "guides" / "serving-at-scale.md", *sorted((ROOT / "docs" / "tutorial").glob("*.md"))]
FENCE = re.compile(r"^```(\w*) *([^\n]*)\n(.*?)^```$", re.S | re.M)
LINK = re.compile(r"\]\(([^)#:\s]+)(#[^)]*)?\)")
BLOCK_SECONDS = 600


def blocks(page):
    """(line, text) of each block that is to be run."""
    text = page.read_text()
    for found in FENCE.finditer(text):
        language, mark, body = found.groups()
        assert mark in ("", "skip"), f"{page.name}: ```{language} {mark} is no mark"
        if language == "sh" and mark != "skip":
            yield text.count("\n", 0, found.start()) + 2, body


@pytest.fixture(scope="module")
def flights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    sources_make(folder)
    return folder


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_what_the_page_says_works(page, fresh, flights):
    one = fresh.unstarted()
    one.sources.rmdir()
    one.sources.symlink_to(flights)
    one.start()
    env = {**one.env(), "PATH": f"{DHOW.parent}:{os.environ['PATH']}", "DHOW_SERVER": one.url,
           "DHOW_TOKEN_FILE": str(one.token_file), "DATA": str(one.data)}
    ran = 0
    for line, body in blocks(page):
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", body], cwd=ROOT, env=env, text=True, timeout=BLOCK_SECONDS,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert done.returncode == 0, f"{page.name}:{line}: exit {done.returncode}\n{body}\n{done.stdout[-4000:]}"
        ran += 1
    assert ran > 0, f"{page.name} has nothing to run"


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").rglob("*.md"))],
                         ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for target, _ in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}, which is not there"
