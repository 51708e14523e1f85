# SPDX-License-Identifier: GPL-2.0-or-later
"""Python programs of tests/fixtures/python that do what they are told, line by line."""
import contextlib
import json
import shutil

import pytest

from leaktop import Leaktop, Process
from pythons import SCRIPTS, Python, find_pythons

SYSTEM = Python("/usr/bin/python3")


def pythons(*versions):
    """Parameters: the system's, one of each of these minor versions of 3, and all that
    LEAKTOP_PYTHONS names."""
    found = find_pythons()
    chosen = [p for p in found if p.path == SYSTEM.path or "/.pyenv/" not in p.path]
    for minor in versions:
        chosen += [p for p in found if f"/.pyenv/versions/3.{minor}." in p.path][-1:]
    return [pytest.param(p, id=p.name) for p in chosen]


class Target(Process):
    """A script that has said "ready" and waits for a line."""

    def __init__(self, script, *args, python=SYSTEM, options=(), **more):
        path = SCRIPTS / script
        if python.root:
            shutil.copy(path, python.root / "tmp")
            path = f"/tmp/{script}"
        self.start(python.command(*options, path, *args), **more)

    @classmethod
    def of(cls, command, **options):
        """Any other program that behaves like one."""
        target = cls.__new__(cls)
        target.start(command, **options)
        return target

    def start(self, command, **options):
        Process.__init__(self, command, **options)
        line = self.line(20)
        assert line and line.startswith("ready"), self.describe()

    def order(self, command, timeout=120):
        """The answer of objects.py to a command."""
        self.send(command + "\n")
        line = self.line(timeout)
        assert line is not None, f"ended at {command!r}: {self.describe()}"
        return json.loads(line)


@contextlib.contextmanager
def watch(target, *options):
    """leaktop at a target, attached, with reports all the time."""
    with Leaktop("-p", target.pid, "-j", "-T", "1000", *options, "0.3") as tool:
        tool.first_report()
        yield tool


def newest_report(tool):
    """One of which no part is older than the call."""
    while not tool.lines.empty():
        tool.first_report()
    tool.first_report()
    return tool.first_report()


def python_of(report, pid):
    """What `coverage` says of it; None: nothing."""
    return next((c for c in report["coverage"]["python"] if c["pid"] == pid), None)


def process_of(report, pid):
    return next(p for p in report["processes"] if p["pid"] == pid)


def stacks_at(report, script, line):
    """Those with this line of the script anywhere in them."""
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
