# SPDX-License-Identifier: GPL-2.0-or-later
"""kill -9 of leaktop at any moment harms no target and leaves no probe and no map."""
import os
import signal
import subprocess
import time

import pytest

from leaktop import INTERVAL_S, LIBRARIES, Fixture, Leaktop, wait_until

TIMES = 20
SECONDS = 120  # more than that takes


def code_of(pid, object_name, symbols, size=64):
    """The first bytes of functions in the memory of a process: a breakpoint would show."""
    with open(f"/proc/{pid}/maps", encoding="ascii") as maps:
        base = min(int(l.split("-")[0], 16) for l in maps if l.rstrip().endswith(object_name))
    out = subprocess.run(["nm", "-D", "--defined-only", LIBRARIES / object_name],
                         stdout=subprocess.PIPE, text=True, check=True).stdout
    addresses = {l.split()[2].split("@")[0]: int(l.split()[0], 16) for l in out.splitlines()
                 if len(l.split()) == 3}
    memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
    try:
        return {s: os.pread(memory, size, base + addresses[s]) for s in symbols}
    finally:
        os.close(memory)


@pytest.mark.parametrize("method", ["auto", "multi"])
def test_kill(method, bpf_leftovers):
    symbols = ["malloc", "free", "calloc", "realloc"]
    with Fixture("churn", "--threads", "2", "--seconds", str(SECONDS)) as churn:
        before = code_of(churn.pid, "libc.so.6", symbols)
        churn.go()
        for i in range(TIMES):
            with Leaktop("-p", churn.pid, "--format", "json", "--probe-method", method,
                         "0.2") as tool:
                if i % 4:
                    tool.first_report()
                else:
                    time.sleep(0.04 * i)  # somewhere in the middle of attaching
                tool.signal(signal.SIGKILL)
                tool.wait()
            assert churn.popen.poll() is None, f"the target died: {churn.describe()}"
        assert wait_until(lambda: not bpf_leftovers()), f"left: {bpf_leftovers()}"
        assert wait_until(lambda: code_of(churn.pid, "libc.so.6", symbols) == before), \
            "breakpoints are left in the target"
        churn.send("stop\n")
        said = churn.line(60)
        assert said and int(said.split()[1]) > 0
        churn.close_stdin()
        assert churn.wait() == 0


def test_normal_end_leaves_nothing(bpf_leftovers):
    with Fixture("churn", "--threads", "2", "--seconds", "2") as churn:
        before = code_of(churn.pid, "libc.so.6", ["malloc", "free"])
        with Leaktop("-p", churn.pid, "--format", "json", INTERVAL_S) as tool:
            tool.first_report()
            churn.go()
            assert churn.line(60).startswith("done")
            assert code_of(churn.pid, "libc.so.6", ["malloc", "free"]) != before
            tool.final()
        assert wait_until(lambda: not bpf_leftovers()), f"left: {bpf_leftovers()}"
        assert code_of(churn.pid, "libc.so.6", ["malloc", "free"]) == before


def test_bystander_has_no_breakpoint():
    """Links carry a pid filter: another process with the same libc is not touched."""
    with Fixture("churn") as target, Fixture("churn") as bystander:
        before = code_of(bystander.pid, "libc.so.6", ["malloc", "free"])
        with Leaktop("-p", target.pid, "--format", "json", INTERVAL_S) as tool:
            tool.first_report()
            assert code_of(bystander.pid, "libc.so.6", ["malloc", "free"]) == before
            assert code_of(target.pid, "libc.so.6", ["malloc", "free"]) != before
