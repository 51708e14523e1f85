# SPDX-License-Identifier: GPL-2.0-or-later
"""CPython: every object is seen, at its line, with its type, and seen to go."""
import contextlib
import json
import pathlib
import subprocess

import pytest

import target_memory
from leaktop import ROOT, SOAK, Fixture, Leaktop, losses, wait_until

SCRIPTS = ROOT / "tests" / "fixtures" / "python"
SYSTEM = "/usr/bin/python3"
# Of every thousand objects one may go unseen.
ENOUGH = 0.999
# Kept by CPython of each type for the next one to come.
FREE_LISTS = 20000
KINDS = 19


def pyenv(version):
    return max(pathlib.Path.home().glob(f".pyenv/versions/{version}.*/bin/python3"), default=None)


def need(version):
    path = pyenv(version)
    if not path:
        pytest.skip(f"no Python {version}")
    return path


class Objects(Fixture):
    """objects.py, which obeys commands."""

    def __init__(self, python=SYSTEM, options=(), **more):
        super().__init__(python, *options, SCRIPTS / "objects.py", **more)

    def order(self, command, timeout=120):
        self.send(command + "\n")
        line = self.line(timeout)
        assert line is not None, f"ended at {command!r}: {self.describe()}"
        return json.loads(line)


@contextlib.contextmanager
def watch(process, *options):
    with Leaktop("-p", process.pid, "-j", "-T", "1000", *options, "1") as tool:
        tool.first_report()
        yield tool


def python_of(report, pid):
    return next(c for c in report["coverage"]["python"] if c["pid"] == pid)


def process_of(report, pid):
    return next(p for p in report["processes"] if p["pid"] == pid)


def stacks_of(report, line, script="objects.py"):
    """Those with this line of the script anywhere."""
    return [s for s in report["stacks"]
            if any(f["lang"] == "python" and f["line"] == line and f["file"].endswith(script)
                   for f in s["frames"])]


def count_types(stacks):
    """{type: blocks}"""
    found = {}
    for stack in stacks:
        for row in stack["types"]:
            found[row["name"]] = found.get(row["name"], 0) + row["blocks"]
    return found


def unseen(report, truth, times=1):
    """One line for each kind of which the report says something else than the truth."""
    wrong = []
    for name, row in truth.items():
        stacks = stacks_of(report, row["line"])
        blocks, typed = sum(s["live_blocks"] for s in stacks), count_types(stacks)
        said = f"{name}: {blocks} blocks of {row['blocks']}, {typed} of {row['objects']}"
        # Some blocks are those of the line's own work.
        if not ENOUGH <= (blocks + 3) / (times * row["blocks"]) <= 2 - ENOUGH + 10 / row["blocks"]:
            wrong.append("blocks: " + said)
        if not ENOUGH <= typed.get(row["type"], 0) / (times * row["objects"]) <= 2 - ENOUGH:
            wrong.append("type: " + said)
    return wrong


def assert_seen(report, truth, times=1):
    wrong = unseen(report, truth, times)
    assert not wrong, f"{len(wrong)} of {2 * len(truth)} wrong:\n" + "\n".join(wrong)
    assert losses(report) == 0, report["loss"]


def counted(report, pid):
    return process_of(report, pid)["python_live_blocks"]


@pytest.mark.parametrize("python", [SYSTEM, "3.8", "3.12", "3.13"])
def test_every_object(python):
    """Each kind by its line, its count and its type; and none is left when all are freed."""
    objects = 200_000 if python == SYSTEM else 20_000
    if SOAK:
        objects = 1_000_000
    with Objects(python if python == SYSTEM else need(python)) as target, \
            watch(target, "--max-blocks", "4M" if SOAK else "1M") as tool:
        empty = target.order("free")["blocks"]
        truth = target.order(f"make {objects // KINDS}")
        tool.first_report()
        report = tool.first_report()
        assert python_of(report, target.pid)["objects"] == "full"
        assert_seen(report, truth)
        kept = target.order("free")["blocks"] - empty
        report = tool.final()
        assert abs(counted(report, target.pid) - kept) < 100, f"CPython says {kept} are left"
        left = {name: count_types(stacks_of(report, row["line"])) for name, row in truth.items()}
        assert sum(sum(t.values()) for t in left.values()) < FREE_LISTS, left
