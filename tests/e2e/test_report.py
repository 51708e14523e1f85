# SPDX-License-Identifier: GPL-2.0-or-later
"""What the report looks like and what its options do."""
import functools
import json
import re
import shutil
import time

import pytest

from leaktop import (INTERVAL_S, Fixture, Leaktop, assert_total, assert_true, fixture_path, held,
                     run_leaktop)

REPORT_KEYS = {"version", "time", "elapsed_s", "final", "coverage", "loss", "overhead",
               "processes", "stacks"}
COVERAGE_KEYS = {"processes", "allocators", "python", "stacks_complete_pct"}
LOSS_KEYS = {"alloc_events", "free_events", "live_map_full", "stacks", "unwind_errors"}
OVERHEAD_KEYS = {"budget_pct", "measured_pct", "mode", "sampling_interval_bytes",
                 "probe_hits_per_s", "tracer_cpu_pct", "tracer_rss_bytes"}
PROCESS_KEYS = {"pid", "comm", "exe", "container", "cgroup", "unit", "rss_bytes", "live_bytes",
                "python_live_bytes", "mmap_live_bytes", "allocator_free_bytes",
                "file_and_shared_bytes", "untracked_bytes", "growth_bytes_per_s", "limit_bytes",
                "seconds_to_limit", "verdict"}
STACK_KEYS = {"rank", "id", "pids", "live_bytes", "live_bytes_ci95", "live_blocks",
              "growth_bytes_per_s", "allocated_bytes", "freed_bytes", "oldest_s", "domain", "types",
              "verdict", "frames"}
FRAME_KEYS = {"lang", "function", "file", "line", "module", "build_id", "offset", "inlined"}


@functools.lru_cache(None)
def leak_report(*options, wait_s=0.0, program="allocs"):
    """(report, truth, pid) of a leaking fixture; tests of the same options look at the same."""
    with Fixture(program, "leak") as fixture, \
            Leaktop("-p", fixture.pid, "--format", "json", *options, INTERVAL_S) as tool:
        tool.first_report()
        fixture.go()
        truth = fixture.truth()
        time.sleep(wait_s)
        return tool.final(), truth, fixture.pid


def text_of(*args, server="leaky_server", timeout=60):
    with Fixture(server) as fixture:
        code, out, err = run_leaktop("-p", fixture.pid, *args, timeout=timeout)
    assert code == 0, err
    return out


def test_text_names_the_leak():
    out = text_of(INTERVAL_S, "3")
    assert "remember_session" in out
    assert "leaky_server.c:" in out
    assert re.search(r"\d+ bytes in \d+ allocations from stack", out)
    assert "\033[" not in out, "colours although it is no terminal"


def test_count_of_reports():
    """INTERVAL COUNT: that many, a second apart."""
    start = time.monotonic()
    out = text_of("--format", "json", "1", "3")
    assert 2.5 < time.monotonic() - start < 15
    reports = [json.loads(l) for l in out.splitlines()]
    assert len(reports) == 3
    assert [r["final"] for r in reports] == [False, False, True]
    assert reports[0]["elapsed_s"] < reports[1]["elapsed_s"] < reports[2]["elapsed_s"]


def test_duration():
    start = time.monotonic()
    out = text_of("--format", "json", "--duration", "2", "60")
    assert 1.5 < time.monotonic() - start < 15
    assert json.loads(out.splitlines()[-1])["final"]


def test_json_contract():
    report, _, pid = leak_report("-T", "1000")
    assert report["version"] == 1
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", report["time"])
    assert REPORT_KEYS <= report.keys()
    assert COVERAGE_KEYS <= report["coverage"].keys()
    assert LOSS_KEYS <= report["loss"].keys()
    assert OVERHEAD_KEYS <= report["overhead"].keys()
    assert report["overhead"]["mode"] == "exact"
    for process in report["processes"]:
        assert PROCESS_KEYS <= process.keys()
    for stack in report["stacks"]:
        assert STACK_KEYS <= stack.keys()
        assert stack["domain"] in ("malloc", "mmap")
        assert stack["live_bytes_ci95"] in (None, [stack["live_bytes"], stack["live_bytes"]])
        for frame in stack["frames"]:
            assert FRAME_KEYS <= frame.keys()
    allocators = report["coverage"]["allocators"]
    libc = next(a for a in allocators if a["pid"] == pid and "libc.so" in a["object"])
    assert libc["allocator"] == "glibc"
    assert {"malloc", "free", "realloc", "calloc"} <= set(libc["functions"])
    assert [s["rank"] for s in report["stacks"]] == list(range(1, len(report["stacks"]) + 1))
    live = [s["live_bytes"] for s in report["stacks"]]
    assert live == sorted(live, reverse=True)


def test_frames_have_places_and_leave_the_allocator_out():
    report, _, _ = leak_report("-T", "1000")
    stack = next(s for s in report["stacks"]
                 if any(f["function"] == "leak_malloc" for f in s["frames"]))
    first = stack["frames"][0]
    assert first["function"] == "leak_malloc"
    assert first["file"].endswith("allocs_standard.c")
    assert first["line"] > 0
    assert first["module"].endswith("/allocs")
    assert first["lang"] == "native"
    names = [f["function"] for f in stack["frames"]]
    assert names[1:3] == ["run_standard", "main"]


def test_cxx_names_are_demangled():
    report, _, _ = leak_report("-T", "1000", program="cxx")
    names = {f["function"] for s in report["stacks"] for f in s["frames"]}
    assert any(n and n.startswith("app::Session::leak_session_create") for n in names)
    assert not any(n and n.startswith("_Z") for n in names)


def test_rss_line_sums():
    report, _, pid = leak_report("-T", "1000")
    process = next(p for p in report["processes"] if p["pid"] == pid)
    parts = ["live_bytes", "python_live_bytes", "mmap_live_bytes", "allocator_free_bytes",
             "file_and_shared_bytes", "untracked_bytes"]
    assert process["rss_bytes"] == sum(process[p] or 0 for p in parts)


def test_process_totals_are_the_truth():
    report, truth, pid = leak_report("-T", "1000")
    assert_total(report, pid, truth)


def test_top():
    report, truth, _ = leak_report("-T", "3")
    assert len(report["stacks"]) == 3
    assert report["stacks"][0]["live_bytes"] >= max(
        r["bytes"] for r in truth.values() if r["domain"] == "malloc") / 2


def test_sizes():
    """-z and -Z count only blocks of a size."""
    report, _, pid = leak_report("-T", "1000", "-z", "100000", "-Z", "250000")
    by_size = [s for s in report["stacks"] if s["domain"] == "malloc" and s["live_bytes"]]
    assert [s["live_bytes"] for s in by_size] == [200001]
    assert pid in by_size[0]["pids"]


def test_older():
    """-o leaves the young out."""
    report, _, _ = leak_report("-T", "1000", "-o", "60000")
    assert held(report) == []
    report, truth, pid = leak_report("-T", "1000", "-o", "500", wait_s=1.5)
    assert_true(report, truth, pid)


@pytest.mark.alone  # how fast a program leaks depends on what runs beside it
def test_sort_by_growth():
    with Fixture("leaky_server") as server:
        code, out, err = run_leaktop("-p", server.pid, "--format", "json", "--sort", "growth", "1",
                                     "5")
    assert code == 0, err
    stacks = json.loads(out.splitlines()[-1])["stacks"]
    assert "remember_session" in [f["function"] for f in stacks[0]["frames"]]
    growth = [s["growth_bytes_per_s"] for s in stacks if s["growth_bytes_per_s"] is not None]
    assert growth == sorted(growth, reverse=True)
    assert 60 * 1024 < growth[0] < 140 * 1024


@pytest.mark.parametrize("by, expected", [("function", "remember_session"),
                                          ("process", "leaky_server"), ("container", "")])
def test_by(by, expected):
    assert expected in text_of("--by", by, INTERVAL_S, "2")


def test_write_to_file(tmp_path):
    path = tmp_path / "report.json"
    out = text_of("--format", "json", "-w", path, INTERVAL_S, "2")
    assert out == ""
    reports = [json.loads(l) for l in path.read_text().splitlines()]
    assert reports[-1]["final"]


def test_folded():
    """One stack a line, outermost first, a number at the end: what flame graph tools read."""
    lines = text_of("--format", "folded", INTERVAL_S, "1").splitlines()
    assert lines
    for line in lines:
        assert re.fullmatch(r".+ \d+", line)
    leak = next(l for l in lines if "remember_session" in l)
    names = leak.rsplit(" ", 1)[0].split(";")
    where = [i for i, n in enumerate(names) if "remember_session" in n][0]
    assert any("request_answer" in n for n in names[:where])


def test_quiet():
    with Fixture("leaky_server") as server:
        code, out, err = run_leaktop("-p", server.pid, "-q", INTERVAL_S, "1")
    assert code == 0
    assert err == ""
    assert "remember_session" in out


def test_color():
    assert "\033[" in text_of("--color", "always", INTERVAL_S, "1")
    assert "\033[" not in text_of("--color", "never", INTERVAL_S, "1")


def test_clean_program_is_said_to_be_clean():
    with Fixture("allocs", "clean") as fixture, Leaktop("-p", fixture.pid, INTERVAL_S) as tool:
        assert tool.line(30)
        fixture.go()
        fixture.truth()
        tool.signal(2)
        tool.wait()
        text = "".join(tool.output)
    assert "no outstanding allocations" in text[text.index("final report"):]


def test_terminal_escapes_of_a_target_do_not_reach_the_terminal(tmp_path):
    """A process may call itself anything."""
    evil = "lt\033[31mred"
    path = tmp_path / evil
    shutil.copy(fixture_path("leaky_server"), path)
    with Fixture(path) as server:
        code, out, err = run_leaktop("-p", server.pid, INTERVAL_S, "1")
    assert code == 0
    assert "\033" not in out + err
