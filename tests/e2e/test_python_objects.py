# SPDX-License-Identifier: GPL-2.0-or-later
"""CPython: every object is seen, at its line, with its type, and seen to go."""
import functools
import json
import os
import subprocess

import pytest

import target_memory
from leaktop import SOAK, Leaktop, losses
from python_target import (SYSTEM, Target, count_types, newest_report, process_of, python_of,
                           pythons, stacks_at, watch)
from pythons import SCRIPTS, Python

# Of every thousand objects one may go unseen.
ENOUGH = 0.999
KINDS = 19
FEW = 1000  # of each kind
WHOLE = "full"
PART = "large-only"


@functools.lru_cache(None)
def undisturbed_truth():
    """What FEW objects of each kind are, when no allocator but CPython's own is in use."""
    with Target("objects.py") as target:
        return target.order(f"make {FEW}")


def unseen(report, truth, domain="pymalloc", types=True):
    """One line for each kind of which the report does not say the truth."""
    wrong = []
    for name, row in truth.items():
        stacks = [s for s in stacks_at(report, "objects.py", row["line"]) if s["domain"] == domain]
        blocks, typed = sum(s["live_blocks"] for s in stacks), count_types(stacks)
        said = f"{name}: {blocks} blocks of {row['blocks']}, {typed} of {row['objects']}"
        # A few blocks are those of the line's own work.
        if not ENOUGH * row["blocks"] - 3 <= blocks <= row["blocks"] / ENOUGH + 10:
            wrong.append("blocks: " + said)
        of_type = typed.get(row["type"], 0)
        if types and not ENOUGH * row["objects"] - 1 <= of_type <= row["objects"] / ENOUGH + 3:
            wrong.append("types: " + said)
    return wrong


def assert_seen(report, truth, **options):
    wrong = unseen(report, truth, **options)
    assert not wrong, f"{len(wrong)} of {2 * len(truth)} wrong:\n" + "\n".join(wrong)
    assert losses(report) == 0, report["loss"]


def live_blocks(report, pid):
    process = process_of(report, pid)
    return process["live_blocks"] + process["python_live_blocks"]


@pytest.mark.parametrize("python", pythons(8, 12, 13))
def test_every_object(python):
    """Each kind by its line, its count and its type; and none is left when all are freed."""
    objects = 1_000_000 if SOAK else 200_000 if python.path == SYSTEM.path else 20_000
    with Target("objects.py", python=python) as target, \
            watch(target, "--max-blocks", "4M" if SOAK else "1M") as tool:
        empty = target.order("free")["blocks"]
        truth = target.order(f"make {objects // KINDS}")
        report = newest_report(tool)
        assert python_of(report, target.pid)["objects"] == WHOLE
        assert_seen(report, truth)
        kept = target.order("free")["blocks"] - empty
        report = tool.final()
        assert abs(live_blocks(report, target.pid) - kept) < 100, f"CPython says {kept} are left"


def observe(target, *options, during=()):
    """Gives orders while it is watched, makes FEW objects and frees them: a report of what was
    seen, and the blocks that are said to be left."""
    with watch(target, *options) as tool:
        for command in during:
            target.order(command)
        target.order("free")
        start = live_blocks(newest_report(tool), target.pid)
        target.order(f"make {FEW}")
        report = newest_report(tool)
        target.order("free")
        final = tool.final()
    target.order("make 10")  # it lives and works
    assert losses(final) == 0, final["loss"]
    return report, live_blocks(final, target.pid) - start


def test_raw_allocator():
    """PYTHONMALLOC=malloc: each object is a block of the C library's."""
    with Target("objects.py", env={"PYTHONMALLOC": "malloc"}) as target:
        report, left = observe(target)
    said = python_of(report, target.pid)
    assert said["objects"] == WHOLE and "PYTHONMALLOC=malloc" in said["reason"]
    assert_seen(report, undisturbed_truth(), domain="malloc")
    assert left < 100


DEBUG = [{"PYTHONMALLOC": "debug"}, {"PYTHONMALLOC": "malloc_debug"}, {"PYTHONDEVMODE": "1"}]


@pytest.mark.parametrize("env", DEBUG, ids=str)
def test_debug_allocator(env):
    with Target("objects.py", env=env) as target:
        report, left = observe(target)
    said = python_of(report, target.pid)
    assert "debug" in said["reason"]
    if said["objects"] == WHOLE:
        assert_seen(report, undisturbed_truth(), types=False)
    assert left < 100


TRACEMALLOC = {
    "on": (["-X", "tracemalloc=25"], [], []),
    "started": ([], [], ["trace 5"]),
    "stopped": ([], ["trace 5"], ["untrace"]),
    "started and stopped": ([], [], ["trace 1", "make 10", "untrace"]),
}


@pytest.mark.parametrize("when", TRACEMALLOC)
def test_tracemalloc(when):
    """On before, started, stopped while leaktop is attached: no object is missed."""
    options, before, during = TRACEMALLOC[when]
    with Target("objects.py", options=options) as target:
        for command in before:
            target.order(command)
        report, left = observe(target, during=during)
        said = python_of(report, target.pid)
        assert said["objects"] == WHOLE
        assert bool(options or before) == ("tracemalloc" in (said["reason"] or ""))
        assert_seen(report, undisturbed_truth())
        assert left < 1000  # tracemalloc keeps something for itself


UNTOUCHED = {"--no-redirect": "--no-redirect", "--python=stacks": "--python stacks",
             "--python=off": None, "-a": "named with"}


@pytest.mark.alone
def test_nothing_is_written():
    """While it waits for input a process changes none of its memory itself."""
    with Target("objects.py") as target:
        before = target_memory.snapshot(target.pid)
        with watch(target) as tool:
            redirected = target_memory.changed_words(before, target_memory.snapshot(target.pid))
            said = python_of(tool.final(), target.pid)
        # This is how it looks where leaktop does write.
        assert bool(redirected) == said["redirected"]
        assert not target_memory.changed_words(before, target_memory.snapshot(target.pid))
        for option, reason in UNTOUCHED.items():
            untouched(target, option, reason, redirected)


def untouched(target, option, reason, redirected):
    before = target_memory.snapshot(target.pid)
    words = target_memory.words(target.pid, redirected)
    who = ["-a"] if option == "-a" else ["-p", target.pid, *option.split("=")]
    with Leaktop(*who, "-j", "-T", "100000", "0.5") as tool:
        tool.first_report()
        tool.first_report()
        assert not target_memory.changed_words(before, target_memory.snapshot(target.pid)), option
        target.order("free")
        truth = target.order(f"make {FEW}")
        assert target_memory.words(target.pid, redirected) == words
        report = tool.final()
    assert target_memory.words(target.pid, redirected) == words
    assert_part(report, python_of(report, target.pid), truth, reason, bool(redirected))


def assert_part(report, said, truth, reason, inlined):
    """Only large objects are seen, and `coverage` says so."""
    large = ["large_bytes", "huge_bytes"]
    if not reason:
        assert said is None
        return
    assert said["frames"]
    if inlined:
        assert said["objects"] == PART and reason in said["reason"]
    wrong = unseen(report, {k: truth[k] for k in large}, domain="malloc", types=False)
    assert not wrong or not inlined, wrong
    assert not inlined or len(unseen(report, truth)) > len(truth)


@pytest.mark.parametrize("version", ["2.7", "3.6", "3.7"])
def test_unsupported_version(version):
    """Its native stacks are there, and why there is no more."""
    found = sorted((SCRIPTS.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python"))
    if not found:
        pytest.skip(f"no Python {version}")
    with Target("old.py", python=Python(str(found[-1]))) as target, watch(target) as tool:
        target.send("go\n")
        assert target.line(20) == "done"
        report = tool.final()
        said = python_of(report, target.pid)
        assert said["objects"] == "none" and said["version"].startswith(version)
        assert "not supported" in said["reason"] and not said["frames"]
        assert live_blocks(report, target.pid) >= 2000
        assert not [f for s in report["stacks"] for f in s["frames"] if f["lang"] == "python"]


# Lines whose objects are no lists, dicts, tuples or floats, which come from free lists.
PLAIN_LINES = {"text", "payload", "joined", "big"}


@pytest.mark.parametrize("python", pythons(13))
def test_lines_are_those_of_tracemalloc(python):
    """The same bytes at the same lines; but for free lists: what they give to a line is counted
    at the line that had it first, and in the sum nothing is missing."""
    env = {**os.environ, "PYTHONHASHSEED": "0"}
    if python.root:
        pytest.skip("tracemalloc's side runs outside of any root")
    out = subprocess.run(python.command(SCRIPTS / "lines.py", "tracemalloc"), env=env,
                         stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout
    truth, names = json.loads(out)["lines"], json.loads(out)["names"]
    with Target("lines.py", python=python, env=env) as target, \
            watch(target, "--by", "line") as tool:
        target.send("go\n")
        assert target.line(60) == "done"
        report = tool.final()
    assert losses(report) == 0, report["loss"]
    found = bytes_by_line(report)
    wrong = [(name, found.get(line, 0), truth[line][0]) for line, name in names.items()
             if not explained(name, found.get(line, 0), truth[line])]
    assert not wrong, wrong
    total = sum(size for size, _ in truth.values())
    assert abs(sum(found[line] for line in found if line in truth) - total) < 0.01 * total
    plain = [line for line in sorted(truth, key=lambda l: -truth[l][0])
             if names.get(line) in PLAIN_LINES]
    assert plain == sorted(plain, key=lambda line: -found[line])


def bytes_by_line(report):
    assert report["group_kind"] == "line"
    return {row["name"].split("lines.py:")[1].split(" ")[0]: row["live_bytes"]
            for row in report["groups"] if "lines.py:" in row["name"]}


def explained(name, size, truth):
    """A list is at most 72 bytes, a dict, tuple, or float no more."""
    true_size, blocks = truth
    if name in PLAIN_LINES:
        return abs(size - true_size) <= 0.005 * true_size
    return true_size - 72 * blocks <= size <= 1.005 * true_size


@pytest.mark.parametrize("python", pythons(8, 12, 13))
def test_types_of_a_leak(python):
    count = 2000
    with Target("connections.py", python=python) as target, watch(target, "--by", "type") as tool:
        target.send(f"{count}\n")
        assert target.line(60) == "done"
        report = tool.final()
    groups = {row["name"]: row["live_blocks"] for row in report["groups"]}
    assert report["group_kind"] == "type"
    for name, least in {"__main__.Connection": count, "bytearray": count, "bytearray data": count,
                        "dict": 0.97 * count, "dict keys": 1.4 * count, "str": 2 * count}.items():
        assert groups.get(name, 0) >= least, (name, groups)
    assert groups["__main__.Connection"] == count
    assert groups["bytearray data"] <= count + 1
    data = [s for s in report["stacks"] if s["types"] and s["types"][0]["name"] == "bytearray data"]
    assert sum(s["live_blocks"] for s in data) >= count
    inner = next(f for f in data[0]["frames"] if f["lang"] == "python")
    assert inner["function"].endswith("__init__") and inner["file"].endswith("connections.py")
