# SPDX-License-Identifier: GPL-2.0-or-later
"""What all end-to-end tests share: they need root, and they leave no process behind."""
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


@pytest.fixture
def bpf_leftovers():
    """A function: the BPF links and maps that exist now and did not at the start of the test."""
    def ids(kind):
        out = subprocess.run(["bpftool", kind, "list"], stdout=subprocess.PIPE, text=True,
                             check=True).stdout
        return {line.split(":")[0] for line in out.splitlines() if line[:1].isdigit()}

    before = {kind: ids(kind) for kind in ("link", "map", "prog")}

    def leftovers():
        return {kind: sorted(ids(kind) - old) for kind, old in before.items() if ids(kind) - old}
    return leftovers
