# SPDX-License-Identifier: Apache-2.0
"""Golden stories: tests/golden/*.md are pages of commands with what they print, each page against a daemon of its own.
`make golden` writes what is printed now; the diff is what a reviewer reads.

A ```console block holds commands after "$ " (lines after "> " go on) and then their output, both streams as they came;
a last line such as [3] is the exit code, if it is not 0. A page's commands run in one shell, in the daemon's folder of
sources. What differs from run to run has a word of VARIES instead."""

import os
import re
import subprocess

import pytest
from conftest import DHOW, ROOT

STORIES = sorted((ROOT / "tests" / "golden").glob("*.md"))
REWRITE = os.environ.get("DHOW_GOLDEN") == "rewrite"
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.S | re.M)
SECONDS = 120
CELL = r"(?<=  )%s(?=  |$)"
VARIES = [(re.compile(pattern, re.M), word) for pattern, word in (
    (r"\bdhow_[0-9a-f]{12}_[\w-]{43}", "TOKEN"),
    (r"\b[0-9a-f]{64}\b", "HASH"),
    (r"\b[0-9a-f]{12}\b", "ID"),
    (r"\bjob-01[0-9a-z]{24}\b", "job-ID"),
    (r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", "TIME"),
    (r"\b127\.0\.0\.1:\d+", "ADDRESS"),
    (r"(?<=^  id: )\d+$|(?<=^  rev: )\d+$", "N"),
    (CELL % r"\d+[smhd]", "AGE"),
    (r"\b\d+\.\ds$", "SECONDS"),
    (r"\b0\.\d{3,}\b", "NUMBER"),
    (r"\brev \d+, not \d+", "rev N, not M"),
)]


def steady(text):
    """The text without what varies. A cell of a table keeps its width."""
    for pattern, word in VARIES:
        padded = re.compile(f"(?:{pattern.pattern})( *)", re.M)
        text = padded.sub(lambda m, w=word: w.ljust(len(m[0])) if len(m[1]) > 1 else w + m[1], text)
    return "\n".join(line.rstrip() for line in text.splitlines())


def commands_of(block):
    """[command, expected output] of each."""
    found = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append([line[2:], []])
        elif line.startswith("> ") and not found[-1][1]:
            found[-1][0] += "\n" + line[2:]
        else:
            found[-1][1].append(line)
    return [(command, "\n".join(lines)) for command, lines in found]


def shown(commands):
    text = ""
    for command, output in commands:
        text += "$ " + command.replace("\n", "\n> ") + "\n" + (output + "\n" if output else "")
    return text


def run_all(commands, one):
    """What each of them prints, in one shell."""
    end = "\x1e"
    script = "".join(f"{command}\necho \"{end}$?\"\n" for command in commands)
    env = {**one.env(), "PATH": f"{DHOW.parent}:{os.environ['PATH']}", "DHOW_SERVER": one.url, "LANG": "C.UTF-8",
           "DHOW_TOKEN_FILE": str(one.token_file)}
    done = subprocess.run(["bash", "-c", script], cwd=one.sources, env=env, text=True, timeout=SECONDS, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    parts = re.split(f"{end}(\\d+)\n", done.stdout)
    assert len(parts) == 2 * len(commands) + 1, f"the shell ended early:\n{done.stdout[-2000:]}"
    here = f"{one.sources}/"
    return [steady(output.replace(here, "") + ("" if output.endswith("\n") or not output else "\n") + ("" if code == "0" else f"[{code}]"))
            for output, code in zip(parts[::2], parts[1::2])]


@pytest.mark.parametrize("story", STORIES, ids=lambda p: p.stem)
def test_the_story_is_told_as_written(story, fresh):
    text = story.read_text()
    told = [commands_of(block) for block in BLOCK.findall(text)]
    assert told, f"{story.name} has no ```console block"
    one = fresh()
    printed = iter(run_all([command for block in told for command, _ in block], one))
    now = [[(command, next(printed)) for command, _ in block] for block in told]
    if REWRITE:
        blocks = iter(now)
        story.write_text(BLOCK.sub(lambda _: f"```console\n{shown(next(blocks))}```", text))
        return
    for was, is_now in zip(told, now):
        assert shown(is_now) == shown(was), f"{story.name}: `make golden` writes it anew, if this is right"


def test_there_are_stories():
    assert len(STORIES) >= 8
