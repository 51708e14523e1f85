# SPDX-License-Identifier: GPL-2.0-or-later
"""Python frames of stacks against what the interpreter says of itself at the allocation.

tests/fixtures/python/stacks_truth.py allocates blocks of unique sizes at thousands of stacks of
all kinds and writes down what sys._getframe() told there; here each of them is looked up in the
report and compared frame by frame.
"""
import collections

import pytest

from leaktop import Leaktop, wait_until
from python_target import Target
from pythons import Script, find_pythons

PYTHONS = find_pythons()

SIZE_MIN = 100_000  # of the blocks that are looked up
FRAMES_MAX = 64  # Python frames of a stack in a report
FILE_BYTES, NAME_BYTES = 512, 256  # of which a report shows no more
STACKS_MIN = 1000  # distinct ones that have to be right
# Stacks on which another interpreter's evaluation loop is too, whose frames are not shown.
OTHERS = ("interpreter: ",)
# Kinds whose blocks are not the first to come from a library that was just loaded.
SETTLED = ("nesting", "plain", "generators", "async_await", "classes", "specialised", "short_lived",
           "same_but_the_line", "several_lines", "exceptions", "strange_names", "random_lines")
# With every object's allocation traced, what takes seconds.
SMALL = ("plain", "nesting", "threads", "recursion", "generators", "async_await", "classes",
         "tracing", "short_lived", "same_but_the_line", "callbacks", "ctypes_callbacks",
         "lock_released", "signals", "forked", "interpreters")

Verdict = collections.namedtuple("Verdict", "record row error")


class Observed:
    """What leaktop saw of one run of the fixture."""

    def __init__(self, python, *kinds, mode="stacks", command=None, env=None):
        self.version = python.version
        with Script(python, "stacks_truth.py", *kinds, command=command, env=env or {}) as script:
            with Leaktop("-p", script.pid, "-j", "-T", "100000", "-z", SIZE_MIN, "--python", mode,
                         "3600") as tool:
                assert wait_until(lambda: "leaktop: tracing" in tool.stderr, 30), tool.describe()
                script.go()
                self.report = tool.final()
            self.truths = script.truths()
        # A stack of one block is found by its size.
        rows = {s["live_bytes"]: s for s in self.report["stacks"] if s["live_blocks"] == 1}
        self.verdicts = [Verdict(r, rows.get(r["size"]), difference(r, rows.get(r["size"])))
                         for records in self.truths.values() for r in records]

    def of(self, *kinds):
        return [v for v in self.verdicts if v.record["kind"] in kinds and v.row]

    def assert_all_right(self, minimum):
        wrong = [v for v in self.verdicts if v.error]
        assert not wrong, f"{len(wrong)} of {len(self.verdicts)} stacks wrong:\n" + by_kind(wrong)
        assert len(self.verdicts) >= minimum


def cut(text, room):
    """What of a str is shown: as many of its bytes as there is room for, as a str holds them."""
    widest = max(text, default="a")
    width = 1 if widest < "\u0100" else 2 if widest < "\U00010000" else 4
    shown = "".join("\ufffd" if c == "\0" or "\ud800" <= c <= "\udfff" else c
                    for c in text[:room // width])
    return shown if len(text) * width <= room else shown + "..."


def as_shown(frame):
    """A frame of the truth as a report has it."""
    file, function, line = frame
    return cut(file, FILE_BYTES), cut(function, NAME_BYTES), line


def python_frames(row):
    return [(f["file"], f["function"], f["line"]) for f in row["frames"] if f["lang"] == "python"]


def frame_text(frames, at):
    if at >= len(frames):
        return "nothing"
    file, function, line = frames[at]
    return f"{function} ({file}:{line})"


def difference(record, row):
    """None if the row says the truth of the record."""
    if row is None:
        return "not in the report"
    true = [as_shown(f) for f in record["frames"]]
    got = python_frames(row)
    if record["kind"] == "too_long":  # right, or not known
        true = [t if g[2] else (*t[:2], None) for t, g in zip(true, got)] + true[len(got):]
    if got == true[:FRAMES_MAX]:
        if len(true) <= FRAMES_MAX or row["incomplete"]:
            return None
        return f"{len(true)} frames were cut to {len(got)} without a mark"
    at = next((i for i, (a, b) in enumerate(zip(got, true)) if a != b), min(len(got), len(true)))
    return (f"frame {at} of {len(got)} (true {len(true)}; {row['incomplete'] or 'whole'}): "
            f"{frame_text(got, at)}, true {frame_text(true, at)}")


def by_kind(wrong):
    """One paragraph for each kind that has wrong stacks."""
    kinds = collections.defaultdict(list)
    for v in wrong:
        kinds[v.record["kind"]].append(v.error)
    return "\n".join(f"{kind}: {len(errors)} wrong:\n    " + "\n    ".join(errors[:4])
                     for kind, errors in kinds.items())


@pytest.fixture(scope="module", params=PYTHONS, ids=[p.name for p in PYTHONS])
def observed(request):
    """One run with all kinds for each interpreter, for all of these tests."""
    return Observed(request.param)


def test_frames(observed):
    """File, function and line of every frame of every stack."""
    observed.assert_all_right(STACKS_MIN)
    covered = observed.report["coverage"]["python"][0]
    assert covered["frames"] and covered["version"].startswith("%d.%d.%d" % observed.version)
    assert {"", "child"} <= set(observed.truths)


def test_whole(observed):
    """Nothing is said to be missing where nothing is."""
    wrong = [(v.record["kind"], v.row["incomplete"]) for v in observed.of(*SETTLED)
             if v.row["incomplete"] and len(v.row["frames"]) < 120]
    assert not wrong, wrong[:10]


def test_no_loop_is_left(observed):
    """Every run of the evaluation loop is replaced by the frames that it ran."""
    left = [v.record["kind"] for v in observed.verdicts
            if v.row and not v.row["incomplete"] and not v.record["kind"].startswith(OTHERS)
            and any((f["function"] or "").startswith("_PyEval_EvalFrameDefault")
                    for f in v.row["frames"])]
    assert not left, collections.Counter(left)


def neighbours(row):
    """(Python function, its caller in Python, frames from the one to the other)."""
    at = [i for i, f in enumerate(row["frames"]) if f["lang"] == "python"]
    name = lambda i: row["frames"][i]["function"].rsplit(".", 1)[-1]
    return [(name(a), name(b), row["frames"][a + 1:b]) for a, b in zip(at, at[1:])]


def test_native_frames_between(observed):
    """Python called by C called by Python reads in this order."""
    called_by_c = plain_calls = 0
    for v in observed.verdicts:
        if not v.row or v.row["incomplete"]:
            continue
        for callee, caller, between in neighbours(v.row):
            if callee.startswith("cb_"):
                assert between, (callee, caller, v.record)
                called_by_c += 1
            # From 3.11 on, a call from Python to Python needs no C.
            if callee.startswith("py_") and caller.startswith("py_"):
                assert bool(between) == (observed.version < (3, 11)), (callee, caller, v.record)
                plain_calls += 1
    assert called_by_c > 50 and plain_calls > 1000


def test_callback_of_a_library(observed):
    """qsort() of the C library, by ctypes: its frames are between the two functions."""
    found = 0
    for v in observed.of("ctypes_callbacks"):
        for callee, caller, between in neighbours(v.row):
            if (callee, caller) == ("cb_qsort", "call_qsort"):
                modules = [(f["module"] or "").rsplit("/", 1)[-1] for f in between]
                libc = next(i for i, m in enumerate(modules) if m.startswith("libc"))
                assert any("ctypes" in m or "ffi" in m for m in modules[:libc]), modules
                assert any("ctypes" in m or "ffi" in m for m in modules[libc:]), modules
                found += 1
    assert found >= 2


def test_line_tables_that_are_too_long(observed):
    """Beyond what is read of them lines are unknown; test_frames saw that none is wrong."""
    lines = [f[2] for v in observed.of("too_long") for f in python_frames(v.row) if f[1] == "long"]
    assert None in lines and any(lines)


@pytest.mark.parametrize("python", PYTHONS, ids=[p.name for p in PYTHONS])
def test_with_objects(python):
    """The same when every object's allocation is traced; a forked child lives on."""
    observed = Observed(python, *SMALL, mode="auto")
    observed.assert_all_right(STACKS_MIN)
    assert "child" in observed.truths, "the forked child died"


@pytest.mark.parametrize("static", (False, True), ids=("shared", "static"))
@pytest.mark.parametrize("python", PYTHONS, ids=[p.name for p in PYTHONS])
def test_embedded(python, static, tmp_path):
    """In a program that is not python, by libpython or with all of it built in."""
    version = python.version
    program, env = python.embed(tmp_path, static)
    observed = Observed(python, "plain", "nesting", "threads", "generators", "callbacks",
                        command=[program], env=env)
    assert observed.version == version
    observed.assert_all_right(700)
    for v in observed.of("plain"):
        names = [f["function"] for f in v.row["frames"] if f["lang"] == "native"]
        assert "run_embedded_script" in names and "main" in names, names


@pytest.mark.parametrize("python", PYTHONS, ids=[p.name for p in PYTHONS])
def test_greenlets(python):
    if python.version and not python.has_module("greenlet"):
        pytest.skip(f"{python.name} has no greenlet")
    Observed(python, "greenlets").assert_all_right(20)


@pytest.mark.parametrize("python", PYTHONS, ids=[p.name for p in PYTHONS])
def test_what_is_remembered_is_true(python):
    """The outer part of a stack is taken from the one before; here each is walked again."""
    with Target("load.py", python=python) as load:
        load.send("go\n")
        with Leaktop("-p", load.pid, "-j", "5", "1",
                     env={"LEAKTOP_CHECK_STACKS": "1"}) as tool:
            loss = tool.last_report()["loss"]
        load.send("stop\n")
        assert not (load.line(60) or "failed").startswith("failed"), load.describe()
    same, differing = loss.get("outer_stacks_same", 0), loss.get("outer_stacks_differing", 0)
    # From 3.15 on one run of the loop is all that the threads of this load need.
    assert same > 10_000 or python.version >= (3, 15)
    # bpf/outer.bpf.h says where a C function's frame may be taken for another's.
    assert differing * 50_000 <= same
