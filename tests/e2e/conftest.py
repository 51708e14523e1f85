# SPDX-License-Identifier: GPL-2.0-or-later
"""What all end-to-end tests share: they need root, and they leave no process behind."""
import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import leaktop  # noqa: E402


def pytest_configure(config):
    config.addinivalue_line("markers", "alone: nothing else may run beside this test")
    # The shell ignores it for what runs beside it, and so would all that is started here.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    if os.geteuid() != 0:
        for item in items:
            item.add_marker(pytest.mark.skip(reason="end-to-end tests need root"))


def pytest_sessionstart(session):
    if not (leaktop.FIXTURES / "allocs").exists():
        pytest.exit(f"no fixtures in {leaktop.FIXTURES}: run `make fixtures` first", 1)


@pytest.fixture
def processes():
    """A list; what a test appends to it is ended afterwards, last first."""
    started = []
    yield started
    for process in reversed(started):
        process.end()


def bpftool(*words):
    """Its answer; an empty list if what was asked for is gone meanwhile."""
    done = subprocess.run(["bpftool", "-j", *words], stdout=subprocess.PIPE, text=True, check=False)
    assert not done.returncode or words[1] != "list", f"bpftool {words} failed"
    return json.loads(done.stdout or "[]") if not done.returncode else []


def bpf_objects():
    """All {(kind, id)} of the kernel."""
    return {(kind, item["id"]) for kind in ("link", "map", "prog")
            for item in bpftool(kind, "list")}


def bpf_objects_of_others():
    """{(kind, id)} that a living process holds which does not descend from this one."""
    found = set()
    for fdinfo in pathlib.Path("/proc").glob("[0-9]*/fdinfo"):
        pid = int(fdinfo.parent.name)
        try:
            if is_ours(pid):
                continue
            for fd in fdinfo.iterdir():
                for key, value in (l.split(":", 1) for l in fd.read_text().splitlines()
                                   if ":" in l):
                    if key in ("link_id", "map_id", "prog_id"):
                        found.add((key[:-3], int(value)))
        except OSError:
            continue  # it ended meanwhile
    return found | maps_inside(found)


def maps_inside(objects):
    """What the maps of maps among these hold; their owner need not."""
    found = set()
    for item in bpftool("map", "list"):
        if item["type"] in ("array_of_maps", "hash_of_maps") and ("map", item["id"]) in objects:
            rows = bpftool("map", "dump", "id", str(item["id"]))
            found |= {("map", inner_id(row)) for row in rows if "value" in row}
    return found


def inner_id(row):
    """Of a row of a map of maps, where bpftool shows the number's bytes."""
    return int.from_bytes(bytes(int(byte, 16) for byte in row["value"]), sys.byteorder)


def is_ours(pid):
    """Whether the process is this one or descends from it."""
    while pid > 1:
        if pid == os.getpid():
            return True
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        pid = int(stat.rsplit(")", 1)[1].split()[1])
    return False


@pytest.fixture
def bpf_leftovers():
    """A function: BPF links, maps and programs that are new since the start of the test, to be
    called when the test's own leaktop has ended.

    What another tracer on this machine holds does not count, nor what was not there yet at the
    first call: nobody makes more of ours then. A tracer may end between two looks, and the
    kernel takes its time to clean up, so that one look is not enough to say that something stays.
    """
    before = bpf_objects()
    suspects = None

    def leftovers():
        nonlocal suspects
        now = bpf_objects() - before
        suspects = now if suspects is None else suspects & now
        if suspects:
            suspects -= bpf_objects_of_others()
        return sorted(suspects)
    return leftovers
