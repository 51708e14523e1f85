# SPDX-License-Identifier: GPL-2.0-or-later
"""Python frames of stacks against what the interpreter says of itself at the allocation.

tests/fixtures/python/stacks_truth.py allocates blocks of unique sizes at thousands of stacks of
all kinds and writes down what sys._getframe() told there; here each of them is looked up in the
report and compared frame by frame.
"""
import collections
import os
import subprocess
import time

import pytest

from leaktop import Leaktop, wait_until
from pythons import Script, find_pythons

PYTHONS = find_pythons()

FRAMES_MAX = 64 # Python frames of a stack in a report
STACKS_MIN = 1000 # distinct ones that are to be right
FILE_BYTES, NAME_BYTES = 512, 256 # of which a report shows no more
SIZE_MIN = 100_000

Verdict = collections.namedtuple("Verdict", "record row error")


class Observed:
    """What leaktop saw of one run of the fixture."""

    def __init__(self, python, *kinds, options=(), command=None):
        self.version = python.version
        with Script(python, "stacks_truth.py", *kinds, command=command) as script:
            with Leaktop("-p", script.pid, "-j", "-T", "100000", "-z", SIZE_MIN, *options,
                         "3600") as tool:
                assert wait_until(lambda: "leaktop: tracing" in tool.stderr, 30), tool.describe()
                started = time.monotonic()
                script.go()
                self.seconds = time.monotonic() - started
                self.report = tool.final()
            self.truths = script.truths()
        self.by_size = {s["live_bytes"]: s for s in self.report["stacks"]
                        if s["live_blocks"] == 1}
        self.verdicts = [self.judge(r) for part in self.truths.values() for r in part]

    def judge(self, record):
        row = self.by_size.get(record["size"])
        return Verdict(record, row, difference(record, row))

    def wrong(self):
        return [v for v in self.verdicts if v.error]


def cut(text, room):
    """What of a str is shown: as many of its bytes as there is room for, as a str holds them."""
    width = 1 if max(text, default="") < "\u0100" else 2 if max(text) < "\U00010000" else 4
    shown = "".join("\ufffd" if c == "\0" or "\ud800" <= c <= "\udfff" else c
                    for c in text[:room // width])
    return shown if len(text) * width <= room else shown + "..."


def shown(frame):
    """A frame of the truth as a report has it."""
    file, function, line = frame
    return cut(file, FILE_BYTES), cut(function, NAME_BYTES), line


def python_frames(row):
    return [(f["file"], f["function"], f["line"]) for f in row["frames"] if f["lang"] == "python"]


def frame_text(frame):
    return f"{frame[1]} ({frame[0]}:{frame[2]})" if frame else "nothing"


def difference(record, row):
    """None if the row says the truth of the record."""
    if row is None:
        return "not in the report"
    true = [shown(f) for f in record["frames"]]
    got = python_frames(row)
    if record["kind"] == "too_long":
        # Right, or not known.
        true = [t if g[2] else (*t[:2], None) for t, g in zip(true, got)] + true[len(got):]
    whole = not row["incomplete"]
    wanted = true if whole else true[:len(got)]
    if got == wanted and (len(got) <= FRAMES_MAX):
        return None
    at = next((i for i, (a, b) in enumerate(zip(got, wanted)) if a != b),
              min(len(got), len(wanted)))
    pick = lambda frames: frame_text(frames[at] if at < len(frames) else None)
    return (f"frame {at} of {len(got)} (true {len(true)}, {row['incomplete'] or 'whole'}): "
            f"{pick(got)}, true {pick(true)}")


def by_kind(verdicts):
    """One line for each kind that has wrong stacks."""
    wrong, count = collections.defaultdict(list), collections.Counter()
    for v in verdicts:
        count[v.record["kind"]] += 1
        if v.error:
            wrong[v.record["kind"]].append(v.error)
    return "\n".join(f"{kind}: {len(errors)} of {count[kind]} wrong:\n    " + "\n    ".join(errors[:4])
                     for kind, errors in wrong.items())


@pytest.fixture(scope="module", params=PYTHONS, ids=[p.name for p in PYTHONS])
def observed(request):
    return Observed(request.param)


def test_frames(observed):
    assert len(observed.verdicts) - len(observed.wrong()) >= STACKS_MIN, by_kind(observed.verdicts)
    assert not observed.wrong(), by_kind(observed.verdicts)
