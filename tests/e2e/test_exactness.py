# SPDX-License-Identifier: GPL-2.0-or-later
"""Every allocation function, from a known stack, to the byte and the block."""
import pytest

from leaktop import INTERVAL_S, LIBRARIES, SOAK, Fixture, Leaktop, assert_true, held, losses

VARIANTS = [
    ("allocs", None), ("allocs_static", None), ("allocs_static_pie", None),
    ("allocs_musl", None), ("allocs_musl_static", None),
    ("allocs", "libjemalloc.so.2"), ("allocs", "libtcmalloc.so.4"), ("allocs", "libmimalloc.so.2"),
    ("cxx", None), ("cxx_static", None),
    ("cxx", "libjemalloc.so.2"), ("cxx", "libtcmalloc.so.4"), ("cxx", "libmimalloc.so.2"),
]
# How `coverage` names the way returns are seen.
METHODS = {"session": "session", "multi": "uretprobe", "perf": "uretprobe"}
# Detaching perf events is slow: only a few programs, unless there is time.
LEAKS = [(name, preload, method) for name, preload in VARIANTS for method in METHODS
         if SOAK or method != "perf"
         or (name, preload) in [("allocs", None), ("allocs_static", None), ("cxx", None)]]


def trace(name, preload, mode, method, *extra):
    """(report, fixture) after the fixture did its work and while it is still there."""
    library = None
    if preload:
        library = LIBRARIES / preload
        if not library.exists():
            pytest.skip(f"{library} is not installed")
    with Fixture(name, mode, *extra, preload=library) as fixture, \
            Leaktop("-p", fixture.pid, "--format", "json", "-T", "1000", "--probe-method", method,
                    INTERVAL_S) as tool:
        tool.first_report()
        fixture.go()
        fixture.truth()
        report = tool.final()
        assert fixture.popen.poll() is None, "the fixture did not survive"
    return report, fixture


def need_operator_new(report, preload, method):
    """An allocator's own operator new: without sessions it takes BPF that may write user memory."""
    if method == "session" or not preload:
        return
    for allocator in report["coverage"]["allocators"]:
        if any(f.startswith("_Znwm") for f in allocator["functions"]
               if "nothrow" not in f):
            return
    if preload != "libjemalloc.so.2" or report["processes"][0]["comm"].startswith("cxx"):
        pytest.skip(f"this kernel does not let {method} trace operator new of {preload}; "
                    "leaktop says so")


@pytest.mark.parametrize("name, preload, method", LEAKS)
def test_leak(name, preload, method):
    report, fixture = trace(name, preload, "leak", method)
    assert {a["return_method"] for a in report["coverage"]["allocators"]} == {METHODS[method]}
    need_operator_new(report, preload, method)
    for pid, truth in fixture.truths.items():
        assert_true(report, truth, pid)
    assert losses(report) == 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name, preload", [v for v in VARIANTS if v[0].startswith("cxx")])
def test_exception_through_operator_new(name, preload, method):
    """A diverted return address must not end the unwinding: std::terminate kills the target."""
    if method == "perf" and preload and not SOAK:
        pytest.skip("perf events of preloaded allocators: LEAKTOP_SOAK=1")
    report, fixture = trace(name, preload, "leak", method, "throw")
    need_operator_new(report, preload, method)
    assert_true(report, fixture.truth(), fixture.pid)


@pytest.mark.parametrize("name, preload", VARIANTS)
def test_clean(name, preload):
    report, fixture = trace(name, preload, "clean", "auto")
    for pid in fixture.truths:
        assert held(report, pid) == []
    for process in report["processes"]:
        assert process["live_bytes"] == 0
        assert process["mmap_live_bytes"] == 0
    assert losses(report) == 0


@pytest.mark.parametrize("prefix", ["je", "rjem", "xy"])
def test_prefixed_allocator(prefix):
    """je_ and _rjem_ are known; any other prefix is told with -S."""
    extra = ["-S", "xy_"] if prefix == "xy" else []
    with Fixture(f"prefixed_{prefix}") as fixture, \
            Leaktop("-p", fixture.pid, "--format", "json", "-T", "1000", *extra,
                    INTERVAL_S) as tool:
        tool.first_report()
        fixture.go()
        truth = fixture.truth()
        assert_true(tool.final(), truth, fixture.pid)
