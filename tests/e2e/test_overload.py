# SPDX-License-Identifier: GPL-2.0-or-later
"""Never a false leak: whatever is lost under load, what was freed is not shown as held."""
import signal
import time

import pytest

from leaktop import SOAK, Fixture, Leaktop, held, losses, wait_until

# At full speed, for which each needs the machine for itself.
pytestmark = pytest.mark.alone

SECONDS = 60 if SOAK else 6


def churn_under(tool_options, *churn_options, during=None):
    """(last report while it ran, report after everything was freed)."""
    with Fixture("churn", "--threads", "4", "--seconds", str(SECONDS), *churn_options) as churn, \
            Leaktop("-p", churn.pid, "--format", "json", "-T", "1000", *tool_options,
                    "1") as tool:
        tool.first_report()
        churn.go()
        if during:
            during(tool, churn)
        said = churn.line(6 * SECONDS + 60)
        assert said and said.startswith("done"), churn.describe()
        print(f"pairs of malloc and free: {said.split()[1]} in {SECONDS} s")
        running = tool.report()
        report = tool.final()
        assert churn.popen.poll() is None
    print(f"loss: {report['loss']}")
    return running, report


def assert_nothing_held(report):
    assert held(report) == []
    assert all(p["live_bytes"] == 0 for p in report["processes"])


def test_full_speed():
    _, report = churn_under([])
    assert_nothing_held(report)


def test_small_ring():
    _, report = churn_under(["--ring-size", "65536"])
    assert_nothing_held(report)


def test_small_ring_and_a_tracer_that_stands_still():
    """Nobody empties the ring for two seconds, so it does overflow."""
    def stop_for_a_while(tool, _):
        for _ in range(2):
            time.sleep(1)
            tool.signal(signal.SIGSTOP)
            time.sleep(2)
            tool.signal(signal.SIGCONT)

    _, report = churn_under(["--ring-size", "65536"], "--stacks", "4096", "--hold", "20000",
                            during=stop_for_a_while)
    assert_nothing_held(report)
    assert losses(report) > 0, "an overflow that is not counted"


def test_full_live_map():
    """4,096 blocks live at a time, room for 1,000."""
    _, report = churn_under(["--max-blocks", "1000"])
    assert_nothing_held(report)
    assert report["loss"]["live_map_full"] > 0


def test_many_stacks():
    _, report = churn_under([], "--stacks", "30000", "--hold", "30000")
    assert_nothing_held(report)


def test_full_live_map_still_shows_what_fits_and_says_what_does_not():
    """A leak beyond the bound is not invisible: the loss is counted."""
    with Fixture("allocs", "leak") as fixture, \
            Leaktop("-p", fixture.pid, "--format", "json", "--max-blocks", "100", "1") as tool:
        tool.first_report()
        fixture.go()
        truth = fixture.truth()
        report = tool.final()
    blocks = sum(r["blocks"] or 0 for r in truth.values() if r["domain"] == "malloc")
    assert blocks > 150
    assert report["loss"]["live_map_full"] > 0
    assert sum(p["live_bytes"] for p in report["processes"]) > 0


def test_memory_of_leaktop_is_bounded():
    """Many stacks and blocks do not make it grow without end."""
    with Fixture("churn", "--threads", "2", "--seconds", str(SECONDS), "--stacks", "30000",
                 "--hold", "60000") as churn, \
            Leaktop("-p", churn.pid, "--format", "json", "1") as tool:
        tool.first_report()
        churn.go()
        assert churn.line(6 * SECONDS + 60).startswith("done")
        wait_until(lambda: False, 1)
        with open(f"/proc/{tool.pid}/status", encoding="ascii") as status:
            peak = next(int(l.split()[1]) for l in status if l.startswith("VmHWM"))
        report = tool.final()
    print(f"peak memory of leaktop: {peak} KiB")
    assert peak < 400 * 1024
    assert report["overhead"]["tracer_rss_bytes"] is None or \
        report["overhead"]["tracer_rss_bytes"] < 400 * 1024 * 1024
