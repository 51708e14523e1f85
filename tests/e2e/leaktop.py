# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs fixtures and leaktop, and compares what they say.

A test starts a Fixture (it prints "ready" and waits), attaches a Leaktop to it, waits for the first
report (so everything is attached), tells the fixture to go, and compares the last report with the
truth that the fixture printed.
"""
import collections
import json
import os
import pathlib
import queue
import re
import signal
import subprocess
import tempfile
import threading
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("LEAKTOP_BUILD", ROOT / "build"))
FIXTURES = pathlib.Path(os.environ.get("LEAKTOP_FIXTURES", BUILD / "fixtures"))
BINARY = pathlib.Path(os.environ.get("LEAKTOP", BUILD / "leaktop"))
LIBRARIES = pathlib.Path("/usr/lib/x86_64-linux-gnu")

SOAK = os.environ.get("LEAKTOP_SOAK") == "1"

# Between reports, where it does not matter how long: the first is how a test knows that
# everything is attached.
INTERVAL_S = "0.2"
ATTACH_S = 30
EXIT_S = 20
# Closing a hundred perf events takes the kernel most of a minute.
DETACH_S = 120


def fixture_path(name):
    path = FIXTURES / name
    if not path.exists():
        pytest.skip(f"fixture {name} was not built here (compiler for it missing?)")
    return path


def wait_until(condition, timeout=10, interval=0.05):
    """True as soon as condition() is true, False if it never was."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(interval)
    return bool(condition())


class Process:
    """A child process whose stdout is read line by line by a thread."""

    def __init__(self, argv, env=None, stdin=subprocess.PIPE, **options):
        self.argv = [str(a) for a in argv]
        self.stderr_file = tempfile.TemporaryFile(mode="w+")
        self.popen = subprocess.Popen(
            self.argv, stdin=stdin, stdout=subprocess.PIPE, stderr=self.stderr_file, text=True,
            env={**os.environ, **(env or {})}, **options)
        self.pid = self.popen.pid
        self.lines = queue.Queue()
        self.output = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.popen.stdout:
            self.output.append(line)
            self.lines.put(line)
        self.lines.put(None)

    def line(self, timeout):
        """The next line of stdout; None at its end."""
        try:
            line = self.lines.get(timeout=timeout)
        except queue.Empty:
            raise AssertionError(f"no line in {timeout} s from {self.describe()}") from None
        if line is None:
            self.lines.put(None)
            return None
        return line.rstrip("\n")

    @property
    def stderr(self):
        self.stderr_file.seek(0)
        return self.stderr_file.read()

    def describe(self):
        state = self.popen.poll()
        return f"{' '.join(self.argv)} (exit {state}, stderr {self.stderr[-2000:]!r})"

    def send(self, text):
        self.popen.stdin.write(text)
        self.popen.stdin.flush()

    def close_stdin(self):
        try:
            self.popen.stdin.close()
        except (BrokenPipeError, AttributeError):
            pass

    def signal(self, number):
        self.popen.send_signal(number)

    def wait(self, timeout=EXIT_S):
        return self.popen.wait(timeout)

    def end(self):
        """Whatever happened: it is gone afterwards."""
        self.close_stdin()
        if self.popen.poll() is None:
            try:
                self.popen.wait(0.1)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()


class Fixture(Process):
    """A program of tests/fixtures (or a path), ready to start."""

    def __init__(self, program, *args, preload=None, wait_ready=True, **options):
        env = {"LD_PRELOAD": str(preload)} if preload else {}
        env.update(options.pop("env", {}))
        path = program if "/" in str(program) else fixture_path(program)
        super().__init__([path, *args], env=env, **options)
        self.truths = {}
        # A pid namespace shows the fixture another number; then the test finds the real one.
        self.said_pid = self.wait_ready() if wait_ready else None

    def wait_ready(self, timeout=10):
        while True:
            line = self.line(timeout)
            assert line is not None, f"ended before it was ready: {self.describe()}"
            if line.startswith("ready"):
                return int(line.split()[1]) if " " in line else None

    def go(self):
        self.send("go\n")

    def truth(self, pid=None, timeout=60):
        """The truth of process @pid (default: the fixture itself); the others' are kept too."""
        pid = pid or self.said_pid
        while pid not in self.truths:
            line = self.line(timeout)
            assert line is not None, f"ended before it told the truth: {self.describe()}"
            if line.startswith('{"pid"'):  # leaktop, if it runs the fixture, writes here too
                said = json.loads(line)
                self.truths[said["pid"]] = said["truth"]
        return self.truths[pid]


def sampling(args):
    """Most tests compare figures to the byte; those of the budget say what they want."""
    given = {str(a) for a in args}
    traces = given & {"-p", "-n", "-a", "-c", "--", "--cgroup", "--container", "--unit"}
    return ("--sample", "exact") if traces and not given & {"watch", "doctor", "--sample"} else ()


class Leaktop(Process):
    def __init__(self, *args, **options):
        if not BINARY.exists():
            pytest.skip(f"{BINARY} was not built")
        super().__init__([BINARY, *sampling(args), *args], stdin=options.pop("stdin", subprocess.DEVNULL), **options)

    def report(self, timeout=ATTACH_S):
        """The next JSON report; None when there are no more."""
        line = self.line(timeout)
        if line is None:
            self.skip_if_unsupported()
            return None
        return json.loads(line)

    def first_report(self):
        """Waits until everything is attached."""
        report = self.report()
        assert report is not None, f"no report from {self.describe()}"
        return report

    def final(self):
        """Stops it as Ctrl-C does and returns the last report."""
        if self.popen.poll() is None:
            self.signal(signal.SIGINT)
        return self.last_report()

    def last_report(self):
        while True:
            report = self.report(EXIT_S)
            assert report is not None, f"no final report from {self.describe()}"
            if report["final"]:
                break
        assert self.wait(DETACH_S) == 0, f"failed: {self.describe()}"
        return report

    def skip_if_unsupported(self):
        if self.wait() == 1 and "not supported by this kernel" in self.stderr:
            pytest.skip(self.stderr.strip())


def run_leaktop(*args, timeout=60, **options):
    """Runs it to its end: (exit code, stdout, stderr)."""
    if not BINARY.exists():
        pytest.skip(f"{BINARY} was not built")
    done = subprocess.run([str(BINARY), *sampling(args), *map(str, args)], stdin=subprocess.DEVNULL, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout,
                          check=False, **options)
    return done.returncode, done.stdout, done.stderr


# What a report says, by function.

Sum = collections.namedtuple("Sum", "bytes blocks domains")
LEAK_NAME = re.compile(r"\bleak_\w+")


def leak_function(stack):
    """The innermost function of a fixture in the stack, None if there is none."""
    for frame in stack["frames"]:
        found = LEAK_NAME.search(frame["function"] or "")
        if found:
            return found.group()
    return None


def live_by_function(report, pid=None):
    """{leaking function: Sum} over the stacks of one process (or of all)."""
    sums = {}
    for stack in report["stacks"]:
        if pid is not None and pid not in stack["pids"]:
            continue
        name = leak_function(stack)
        if name is None:
            continue
        old = sums.get(name, Sum(0, 0, frozenset()))
        sums[name] = Sum(old.bytes + stack["live_bytes"], old.blocks + stack["live_blocks"],
                         old.domains | {stack["domain"]})
    return sums


def differences(report, truth, pid=None):
    """One line for each function of which the report does not say the truth."""
    sums = live_by_function(report, pid)
    lines = []
    for function, row in truth.items():
        got = sums.pop(function, Sum(0, 0, frozenset()))
        if got.bytes != row["bytes"] or (row["blocks"] is not None and got.blocks != row["blocks"]):
            lines.append(f"{function}: reported {got.bytes} bytes in {got.blocks} blocks, "
                         f"true {row['bytes']} in {row['blocks']}")
        elif got.bytes and got.domains != {row["domain"]}:
            lines.append(f"{function}: reported as {sorted(got.domains)}, is {row['domain']}")
    lines += [f"{function}: reported {got.bytes} bytes in {got.blocks} blocks, not in the truth"
              for function, got in sums.items() if got.bytes or got.blocks]
    return lines


def assert_true(report, truth, pid=None):
    wrong = differences(report, truth, pid)
    assert not wrong, f"{len(wrong)} of {len(truth)} functions wrong:\n" + "\n".join(wrong)


def held(report, pid=None):
    """The stacks that hold anything, as short texts."""
    return [f"{s['live_bytes']} bytes in {s['live_blocks']} blocks ({s['domain']}): "
            + " < ".join(f["function"] or "?" for f in s["frames"][:8])
            for s in report["stacks"]
            if (s["live_bytes"] or s["live_blocks"]) and (pid is None or pid in s["pids"])]


def together(*truths):
    """The truth of several processes of one program: a report joins their equal stacks."""
    total = {}
    for truth in truths:
        for function, row in truth.items():
            old = total.setdefault(function, {**row, "bytes": 0, "blocks": 0})
            old["bytes"] += row["bytes"]
            old["blocks"] = None if row["blocks"] is None else old["blocks"] + row["blocks"]
    return total


def assert_total(report, pid, truth):
    """The process's own totals."""
    process = next(p for p in report["processes"] if p["pid"] == pid)
    for key, domain in (("live_bytes", "malloc"), ("mmap_live_bytes", "mmap")):
        assert process[key] == sum(r["bytes"] for r in truth.values() if r["domain"] == domain)


def losses(report):
    """The sum of all counters of things lost."""
    loss = report["loss"]
    return sum(v for v in loss.values() if isinstance(v, (int, float)))


def reported_pids(report):
    return {p["pid"] for p in report["processes"]}
