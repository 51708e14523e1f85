# SPDX-License-Identifier: GPL-2.0-or-later
"""Sampled figures against the truth, and the budget that decides how much is sampled."""
import math
import statistics

import pytest

from leaktop import LIBRARIES, Fixture, Leaktop, live_by_function, losses, together
from python_target import Target, newest_report, pythons, stacks_at

LEAKS = ("leak_malloc", "leak_calloc", "leak_realloc")


def trace(options, *sample, fixture="steady", preload=None):
    """(report, truth of the fixture) after its work."""
    with Fixture(fixture, *options, preload=preload) as target, \
            Leaktop("-p", target.pid, "-j", "-T", "1000", *sample, "1") as tool:
        tool.first_report()
        target.go()
        truth = target.truth()
        return tool.final(), truth


def total_of(report, names):
    return sum(s["live_bytes"] for s in report["stacks"]
               if any(f["function"] in names for f in s["frames"]))


def covered(report, truth):
    """Of each leaking function: whether its bytes and blocks lie in their intervals."""
    found = []
    for name, row in truth.items():
        stacks = [s for s in report["stacks"]
                  if any(f["function"] == name for f in s["frames"])]
        if not stacks:
            found += [row["bytes"] == 0] * 2
            continue
        assert len(stacks) == 1, name
        for key in ("bytes", "blocks"):
            low, high = stacks[0][f"live_{key}_ci95"]
            found.append(low - 1 <= row[key] <= high + 1)
    return found


@pytest.mark.parametrize("interval", (4096, 32768))
def test_estimates(interval):
    """Unbiased, and as far off as the intervals say; the rest of the program is not seen."""
    errors, inside = [], []
    for seed in range(4):
        report, truth = trace(["--count", 80_000, "--leak-every", 20, "--seed", seed],
                              "--sample", interval)
        true = sum(row["bytes"] for row in truth.values())
        errors.append(total_of(report, LEAKS) / true - 1)
        inside += covered(report, truth)
        assert report["overhead"]["mode"] == "sampled"
        assert report["overhead"]["sampling_interval_bytes"] == pytest.approx(interval, rel=0.01)
        assert report["total_live_bytes"] == total_of(report, LEAKS), live_by_function(report)
        assert losses(report) == 0
    # 4,000 blocks of 1 KB on the average: what samples of them scatter by.
    sigma = math.sqrt(interval / 4_000_000)
    assert abs(statistics.mean(errors)) < 4 * sigma / math.sqrt(len(errors)), errors
    assert sum(inside) >= 0.8 * len(inside), inside


@pytest.mark.parametrize("sample", ("exact", "2048", "65536"))
def test_clean_twin(sample):
    """Nothing is left of a program that frees all it allocated, however it is sampled."""
    report, _ = trace(["--count", 200_000], "--sample", sample)
    assert report["total_live_bytes"] == 0, report["stacks"]
    assert losses(report) == 0


@pytest.mark.parametrize("preload", ("libjemalloc.so.2", "libtcmalloc.so.4", "libmimalloc.so.2"))
def test_other_allocators(preload):
    """calloc may call malloc, and either is to be seen once."""
    library = LIBRARIES / preload
    if not library.exists():
        pytest.skip(f"{library} is not installed")
    report, truth = trace(["--count", 100_000, "--leak-every", 10], "--sample", 4096,
                          preload=library)
    for name, row in truth.items():
        sigma = math.sqrt(4096 / row["bytes"])
        assert total_of(report, [name]) == pytest.approx(row["bytes"], rel=4 * sigma), name


def test_large_blocks_are_never_missed():
    """Every allocation of a known function, most far above the interval."""
    with Fixture("allocs", "leak") as fixture, \
            Leaktop("-p", fixture.pid, "-j", "-T", "1000", "--sample", "16", "1") as tool:
        tool.first_report()
        fixture.go()
        fixture.truth()
        report = tool.final()
        truth = together(*fixture.truths.values())
    seen = live_by_function(report)
    for name, row in truth.items():
        if row["bytes"] >= 1000 and row["domain"] == "malloc":
            assert seen[name][0] == pytest.approx(row["bytes"], rel=0.15), name


@pytest.mark.alone  # time is measured
def test_budget_is_kept_by_sampling():
    """A program that pays too much is sampled within seconds, and the report says so."""
    with Fixture("steady", "--rate", 30_000, "--count", 300_000, "--leak-every", 50) as target, \
            Leaktop("-p", target.pid, "-j", "-v", "--sample", "auto", "--max-overhead", "30",
                    "0.5") as tool:
        tool.first_report()
        target.go()
        reports = [tool.report() for _ in range(12)]
        truth = target.truth()
        final = tool.final()
    modes = [r["overhead"]["mode"] for r in reports]
    assert "sampled" in modes, [r["overhead"] for r in reports]
    assert final["overhead"]["budget_pct"] == 30
    true = sum(row["bytes"] for row in truth.values())
    assert total_of(final, LEAKS) == pytest.approx(true, rel=0.5)
    process = final["processes"][0]
    assert process["overhead"]["mode"] in modes and process["overhead"]["measured_pct"] > 0
    low, high = process["live_bytes_ci95"]
    assert low <= process["live_bytes"] <= high


@pytest.mark.alone  # time is measured
def test_a_quiet_program_is_exact():
    with Fixture("steady", "--rate", 100, "--count", 400, "--leak-every", 3) as target, \
            Leaktop("-p", target.pid, "-j", "--sample", "auto", "0.5") as tool:
        tool.first_report()
        target.go()
        truth = target.truth()
        final = tool.final()
    assert final["overhead"]["mode"] == "exact"
    assert total_of(final, LEAKS) == sum(row["bytes"] for row in truth.values())


@pytest.mark.alone  # time is measured
def test_over_budget_is_said():
    """Where the hits alone cost more than the budget."""
    with Fixture("steady", "--count", 6_000_000) as target, \
            Leaktop("-p", target.pid, "--sample", "auto", "--max-overhead", "1", "1") as tool:
        tool.line(30)
        target.go()
        text = []
        while not any("over budget" in line for line in text) and len(text) < 200:
            text.append(tool.line(30) or "")
    assert any("over budget" in line for line in text), text


def test_forked_children_are_sampled_alike():
    with Fixture("forker") as target, \
            Leaktop("-p", target.pid, "-j", "--sample", "8192", "0.5") as tool:
        tool.first_report()
        target.go()
        reports = [tool.report() for _ in range(3)]
    for report in reports:
        for process in report["processes"]:
            assert process["overhead"]["sampling_interval_bytes"] == pytest.approx(8192, rel=0.01)


@pytest.mark.parametrize("python", pythons())
def test_python_objects(python):
    """Objects, and what they hold beyond pymalloc, are seen once each; types are weighed."""
    with Target("connections.py", python=python) as target, \
            Leaktop("-p", target.pid, "-j", "-T", "1000", "--sample", "2048", "0.3") as tool:
        tool.first_report()
        target.send("4000\n")
        assert target.line(60) == "done", target.describe()
        report = newest_report(tool)
        process = next(p for p in report["processes"] if p["pid"] == target.pid)
        types = {}
        for stack in report["stacks"]:
            for t in stack["types"]:
                name = t["name"].rpartition(".")[2]
                types[name] = types.get(name, 0) + t["blocks"]
    assert process["python_live_bytes"] > 0
    assert types["Connection"] == pytest.approx(4000, rel=0.35), types
