# SPDX-License-Identifier: GPL-2.0-or-later
"""Processes that do not outlive the bench, and what they cost."""
import ctypes
import os
import select
import signal
import subprocess
import time

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)
_started = []


class Unusable(Exception):
    """Cannot be measured here, for the reason given."""


def _end_with_parent():
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def start(command, **options):
    """A Popen in a session of its own, so that end() reaches what it starts in turn."""
    process = subprocess.Popen(command, text=True, start_new_session=True,
                               preexec_fn=_end_with_parent, **options)
    _started.append(process)
    return process


def start_talking(command, **options):
    return start(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options)


def _signal(process, number):
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        pass


def end(process, number=signal.SIGTERM):
    """Its whole session; politely first."""
    if process in _started:
        _started.remove(process)
    _signal(process, signal.SIGCONT)
    _signal(process, number)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        pass
    _signal(process, signal.SIGKILL)
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream:
            try:
                stream.close()
            except BrokenPipeError:
                pass


def end_all():
    for process in reversed(list(_started)):
        end(process)


def end_all_on_signals():
    def leave(number, _):
        raise SystemExit(128 + number)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, leave)


def read_line(process, timeout_s):
    """The next line of a process that writes whole lines and waits for an answer to each."""
    ready, _, _ = select.select([process.stdout], [], [], timeout_s)
    line = process.stdout.readline() if ready else None
    if not line:
        state = "does not answer" if line is None else f"ended ({process.wait()})"
        raise Unusable(f"the load {state}")
    return line


def wait_for(condition, process, timeout_s, what):
    """Until @condition() is true; Unusable if @process ends before or it takes too long."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if process.poll() is not None:
            raise Unusable(f"{what} ended ({process.returncode})")
        if time.monotonic() > deadline:
            raise Unusable(f"{what} was not ready after {timeout_s} s")
        time.sleep(0.05)


def children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as f:
            return [int(word) for word in f.read().split()]
    except OSError:
        return []


def descendants(pid):
    found = [pid]
    for p in found:
        found += children(p)
    return found


def cpu_ns(pid):
    """CPU time of a process to the nanosecond, its ended threads too: its CPU clock
    (clock_getcpuclockid, whose value is the same on all Linux)."""
    return time.clock_gettime_ns((~pid << 3) | 2)


def sum_cpu_ns(pids):
    total = 0
    for pid in pids:
        try:
            total += cpu_ns(pid)
        except OSError:
            pass
    return total


def rss_bytes(pid):
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    except OSError:
        return 0
