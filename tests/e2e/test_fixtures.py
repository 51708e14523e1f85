# SPDX-License-Identifier: GPL-2.0-or-later
"""The fixtures themselves: do they hold what they say? Needs no leaktop and no BPF."""
import collections
import subprocess

import pytest

from leaktop import LIBRARIES, LEAK_NAME, Fixture, fixture_path

PRELOADS = ["libjemalloc.so.2", "libtcmalloc.so.4", "libmimalloc.so.2"]
VARIANTS = ["allocs", "allocs_static", "allocs_static_pie", "allocs_musl", "allocs_musl_static",
            "cxx", "cxx_static"]


def symbols(path):
    """[(address, size, name)] of the functions of an object."""
    out = subprocess.run(["nm", "-SC", "--defined-only", path], stdout=subprocess.PIPE, text=True,
                         check=True).stdout
    rows = (line.split(None, 3) for line in out.splitlines())
    return [(int(r[0], 16), int(r[1], 16), r[3]) for r in rows if len(r) == 4 and r[2] in "tTwW"]


def innermost(pcs, functions):
    for pc in pcs:
        for address, size, name in functions:
            if address < pc <= address + size and LEAK_NAME.search(name):
                return LEAK_NAME.search(name).group()
    return None


def witnessed(dump, functions):
    """{function: (bytes, blocks)} of a dump of libwitness.so."""
    sums = collections.Counter()
    counts = collections.Counter()
    for line in dump.read_text().splitlines():
        size, *pcs = line.split()
        function = innermost([int(pc, 16) for pc in pcs], functions)
        sums[function] += int(size)
        counts[function] += 1
    return {f: (sums[f], counts[f]) for f in counts}


@pytest.mark.parametrize("mode", ["leak", "clean"])
@pytest.mark.parametrize("name", ["allocs", "cxx"])
def test_truth_is_what_a_witness_sees(name, mode, tmp_path):
    dump = tmp_path / "dump"
    with Fixture(name, mode, "throw", preload=fixture_path("libwitness.so"),
                 env={"WITNESS_OUT": str(dump)}) as fixture:
        fixture.go()
        truth = fixture.truth()
        fixture.close_stdin()
        assert fixture.wait() == 0
    seen = witnessed(dump, symbols(fixture_path(name)))
    seen.pop(None, None)
    expected = {f: (row["bytes"], row["blocks"]) for f, row in truth.items()
                if row["domain"] == "malloc" and row["blocks"]}
    assert seen == expected


@pytest.mark.parametrize("mode", ["leak", "clean"])
@pytest.mark.parametrize("name, preload", [(v, None) for v in VARIANTS]
                         + [(v, p) for v in ("allocs", "cxx") for p in PRELOADS])
def test_every_variant_runs(name, preload, mode):
    library = LIBRARIES / preload if preload else None
    if library and not library.exists():
        pytest.skip(f"{library} is not installed")
    with Fixture(name, mode, "throw", preload=library) as fixture:
        fixture.go()
        truth = fixture.truth()
        assert truth
        fixture.close_stdin()
        assert fixture.wait() == 0
    total = sum(row["bytes"] for row in truth.values())
    assert (total > 0) if mode == "leak" else (total == 0)
    if preload and name == "allocs":
        native = {"libjemalloc.so.2": "leak_sdallocx", "libtcmalloc.so.4": "leak_tc_valloc",
                  "libmimalloc.so.2": "leak_mi_recalloc"}[preload]
        assert native in truth, "the library's own interface was not exercised"


def test_mappings_are_what_the_kernel_says():
    """The bytes of domain mmap equal the growth of the process's private mappings."""
    with Fixture("allocs_musl_static", "leak") as fixture:
        before = mapped(fixture.pid)
        fixture.go()
        truth = fixture.truth()
        grown = mapped(fixture.pid) - before
        malloc = sum(r["bytes"] for r in truth.values() if r["domain"] == "malloc")
        mmap = sum(r["bytes"] for r in truth.values() if r["domain"] == "mmap")
    # musl's malloc takes pages for its groups: at least the bytes, at most half again.
    assert mmap + malloc <= grown <= mmap + 1.5 * malloc + 200 * 1024


def mapped(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return next(int(l.split()[1]) * 1024 for l in status if l.startswith("VmData"))


def test_forked_children_have_truths_of_their_own():
    with Fixture("forker", "3") as fixture:
        fixture.go()
        fixture.truth()
        workers = [t for p, t in fixture.truths.items() if p != fixture.pid]
    assert sorted(t["leak_worker"]["bytes"] for t in workers) == [1000, 2002, 3006]


def test_churn_frees_everything(tmp_path):
    dump = tmp_path / "dump"
    with Fixture("churn", "--threads", "2", "--seconds", "1", "--hold", "64", "--stacks", "16",
                 preload=fixture_path("libwitness.so"), env={"WITNESS_OUT": str(dump)}) as fixture:
        fixture.go()
        assert int(fixture.line(20).split()[1]) > 100
        fixture.close_stdin()
        assert fixture.wait() == 0
    seen = witnessed(dump, symbols(fixture_path("churn")))
    assert not [f for f in seen if f], seen


@pytest.mark.parametrize("name", ["prefixed_je", "prefixed_rjem", "prefixed_xy"])
def test_prefixed(name):
    with Fixture(name) as fixture:
        fixture.go()
        assert fixture.truth()["leak_prefixed_malloc"] == {"bytes": 1705, "blocks": 10,
                                                           "domain": "malloc"}


def test_dlopen_host():
    with Fixture("dlopen_host", fixture_path("plugin.so")) as fixture:
        fixture.go()
        assert fixture.truth()["leak_plugin"]["bytes"] == 5500


def test_execer_becomes_the_other():
    with Fixture("execer", fixture_path("allocs"), "leak") as fixture:
        fixture.go()
        assert fixture.line(5) == "leaked"
        assert fixture.wait_ready() == fixture.pid
        fixture.go()
        assert fixture.wait_ready() == fixture.pid
        fixture.go()
        assert fixture.truth()["leak_malloc"]["blocks"] == 8


def test_loop_prints_two_figures():
    with Fixture("loop", "100000", "64") as fixture:
        fixture.go()
        cpu, wall = map(float, fixture.line(10).split())
    assert 0 < cpu and 0 < wall


def test_leaky_server_leaks_100_kib_a_second():
    with Fixture("leaky_server", preload=None, wait_ready=False) as fixture:
        assert fixture.line(5).startswith("ready")
        before = mapped(fixture.pid)
        try:
            fixture.wait(4)
        except subprocess.TimeoutExpired:
            pass
        assert 200 * 1024 < mapped(fixture.pid) - before < 800 * 1024
