# SPDX-License-Identifier: GPL-2.0-or-later
"""Stacks: their frames, their names, and the tables behind them."""
import json
import os
import shutil
import subprocess
import sys
import time

import pytest

from leaktop import (BINARY, DETACH_S, INTERVAL_S, ROOT, Fixture, Leaktop, Process, assert_true, fixture_path,
                     losses, run_leaktop, wait_until)

KIB = 1024


def groups(report):
    return {g["name"]: g["live_bytes"] for g in report["groups"]}


def test_by_line():
    with Process([fixture_path("leaky_server")]) as server:
        server.line(10)
        _, out, _ = run_leaktop("-p", server.pid, "--by", "line", INTERVAL_S, "2")
        assert "Outstanding allocations by line" in out
        assert "leaky_server.c:" in out and "(remember_session)" in out


def test_by_function_means_the_programs_own():
    """What operator new allocates belongs to its caller."""
    with Fixture("cxx") as fixture, \
            Leaktop("-p", fixture.pid, "--format", "json", "--by", "function", "-T", "100",
                    INTERVAL_S) as tool:
        tool.first_report()
        fixture.go()
        truth = fixture.truth()
        names = groups(tool.final())
    assert not [n for n in names if n.startswith("operator new")], names
    assert names["leak_new()"] == truth["leak_new"]["bytes"]


def test_deleted_program(tmp_path):
    """The mapped file counts, not what has its name."""
    copy = tmp_path / "program"
    shutil.copy(fixture_path("allocs"), copy)
    with Fixture(copy) as fixture:
        copy.unlink()
        shutil.copy(fixture_path("cxx"), copy)
        with Leaktop("-p", fixture.pid, "--format", "json", "-T", "500",
                     INTERVAL_S) as tool:
            tool.first_report()
            fixture.go()
            truth = fixture.truth()
            assert_true(tool.final(), truth, fixture.pid)


def test_upgraded_library(tmp_path):
    """A library that is replaced on disk while its old version is in use."""
    library = tmp_path / "plugin.so"
    shutil.copy(fixture_path("plugin.so"), library)
    with Fixture("dlopen_host", library) as fixture, \
            Leaktop("-p", fixture.pid, "--format", "json", INTERVAL_S) as tool:
        tool.first_report()
        fixture.go()
        mapped = f"/proc/{fixture.pid}/maps"
        assert wait_until(lambda: str(library) in open(mapped, encoding="utf-8").read(), 5, 0.005)
        shutil.copy(fixture_path("cxx"), tmp_path / "newer")
        os.rename(tmp_path / "newer", library)
        truth = fixture.truth()
        report = tool.final()
    assert_true(report, truth)
    assert report["coverage"]["stacks_complete_pct"] > 50


@pytest.mark.alone
def test_tables_on_demand_within_a_bound():
    """A whole system whose tables do not fit: the oldest go, what is used comes back."""
    script = "import time\nkept = []\nwhile True:\n kept.append(bytes(2000))\n time.sleep(.001)"
    server = fixture_path("leaky_server")
    with Process([sys.executable, "-c", script]), Process([server]) as first, \
            Leaktop("-a", "--format", "json", "--unwind-memory", "300K", "1") as tool:
        first.line(10)
        reports = [tool.first_report()]
        for _ in range(8):
            reports.append(tool.report())
        reports.append(tool.final())
    bounds = [r["overhead"]["unwind_table_bytes"] for r in reports]
    assert max(bounds) <= 300 * KIB, bounds
    assert reports[-1]["overhead"]["unwind_tables"] > 0
    mine = [s for s in reports[-1]["stacks"] if first.pid in s["pids"]]
    assert any(s["frames"][-1]["function"] == "_start" for s in mine), mine[:2]
    for cut in reports[-1]["loss"]["unwind_errors_by_object"]:
        assert cut["count"] > 0 and cut["object"]


def test_tables_are_evicted():
    """Several interpreters, of which the bound holds one at a time."""
    need = [p for p in ("python3", "perl", "node", "ruby") if shutil.which(p)]
    loops = {"python3": "b=[]\nwhile 1: b.append(bytes(2000)); b=b[-9:]",
             "perl": "while (1) { $x = 'x' x (1000 + ($i++ % 9000)); undef $x; }",
             "node": "setInterval(() => Buffer.alloc(100000), 1)",
             "ruby": "loop { 'x' * 10000 }"}
    if len(need) < 2:
        pytest.skip("one interpreter is too few to fill the bound")
    flags = {"python3": "-c"}
    running = [Process([p, flags.get(p, "-e"), loops[p]]) for p in need]
    try:
        with Leaktop(*(x for p in running for x in ("-p", p.pid)), "--format", "json",
                     "--unwind-memory", "400K", "0.5") as tool:
            for _ in range(8):
                tool.report()
            report = tool.final()
    finally:
        for process in running:
            process.popen.kill()
            process.end()
    assert report["overhead"]["unwind_tables_evicted"] > 0, report["overhead"]
    assert report["overhead"]["unwind_table_bytes"] <= 400 * KIB


@pytest.mark.alone
def test_a_reader_that_does_not_read(processes):
    """Reports that nobody takes hold up no events: new stacks go on arriving. Each
    process brings stacks that fill half of the ring buffer."""
    for _ in range(6):
        processes.append(Fixture("churn", "--seconds", "1", "--stacks", "1024", "--threads", "1"))
    pids = ",".join(str(p.pid) for p in processes)
    # No thread of ours reads here.
    tool = subprocess.Popen([BINARY, "-p", pids, "--format", "json", "-T", "5000", "--ring-size",
                             "512K", "--duration", "8", "0.2"],
                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        os.set_blocking(tool.stdout.fileno(), False)
        assert wait_until(lambda: tool.stdout.read(1), 30), "no first report"
        for process in processes:
            process.go()
            time.sleep(0.5)
        os.set_blocking(tool.stdout.fileno(), True)
        reports = tool.stdout.read().decode().splitlines()
        assert tool.wait(DETACH_S) == 0
    finally:
        tool.kill()
        tool.wait()
    last = json.loads(reports[-1])
    assert last["final"] and len(reports) < 8 / 0.2
    assert losses({"loss": {**last["loss"], "ring_full": 0}}) == 0, last["loss"]


def test_against_gdb():
    """The same allocations seen by gdb: tests/gdb/run compares frame by frame."""
    if not shutil.which("gdb"):
        pytest.skip("gdb is not installed")
    programs = ["c-O2", "c-O3", "c-cet", "cxx", "recursion", "signals", "threads", "static"]
    done = subprocess.run([sys.executable, ROOT / "tests" / "gdb" / "run", BINARY, *programs],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=300, check=False)
    print(done.stdout[-3000:])
    assert done.returncode == 0
