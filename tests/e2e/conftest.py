# SPDX-License-Identifier: GPL-2.0-or-later
"""What all end-to-end tests share: they need root, and they leave no process behind."""
import json
import os
import pathlib
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import leaktop  # noqa: E402


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


def bpf_objects():
    """All {(kind, id)} of the kernel."""
    found = set()
    for kind in ("link", "map", "prog"):
        out = subprocess.run(["bpftool", "-j", kind, "list"], stdout=subprocess.PIPE, text=True,
                             check=True).stdout
        found |= {(kind, item["id"]) for item in json.loads(out or "[]")}
    return found


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
    return found


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
    """A function: BPF links, maps and programs that are new since the start of the test.

    What another tracer on this machine holds does not count.
    """
    before = bpf_objects()

    def leftovers():
        new = bpf_objects() - before
        return sorted(new - bpf_objects_of_others()) if new else []
    return leftovers
