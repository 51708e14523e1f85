# SPDX-License-Identifier: GPL-2.0-or-later
"""CPython under trace: it computes what it would have computed, and gets its memory back."""
import contextlib
import functools
import os
import random
import signal
import subprocess
import sys
import time

import pytest

import target_memory
from leaktop import DETACH_S, SOAK, Leaktop, wait_until
from python_target import SYSTEM, Target, process_of, python_of, pythons, watch
from pythons import find_pythons

ROUNDS = 200 if SOAK else 4
KILLS = 20 if SOAK else 3
LOAD_S = 120  # to end when told


@functools.lru_cache(None)
def digest_of(path):
    """What the load computes when nobody looks."""
    with Target("load.py", python=next(p for p in find_pythons() if p.path == path)) as load:
        return finish(load, start=True)


def finish(load, start=False):
    if start:
        load.send("go\n")
    load.send("stop\n")
    line = load.line(LOAD_S)
    assert line and not line.startswith("failed"), (line, load.describe())
    load.close_stdin()
    assert load.wait(LOAD_S) == 0, load.describe()
    return line.split()[0]


class Words:
    """The words of a waiting target that leaktop changes."""

    def __init__(self, target):
        self.pid = target.pid
        before = target_memory.snapshot(target.pid)
        with watch(target) as tool:
            changed = target_memory.changed_words(before, target_memory.snapshot(target.pid))
            self.redirected = python_of(tool.final(), target.pid)["redirected"]
        # CPython's reference tracer stays where there was none: it may be in use at any time.
        lasting = target_memory.changed_words(before, target_memory.snapshot(target.pid))
        assert len(lasting) <= 1 and not any(old for old, _ in lasting.values()), lasting
        assert bool(changed) == self.redirected
        self.before = {address: lasting[address][1] if address in lasting else words[0]
                       for address, words in changed.items()}
        self.ours = {address: words[1] for address, words in changed.items()}

    def now(self, pid=None):
        return target_memory.words(pid or self.pid, self.before)

    def assert_restored(self, pid=None):
        assert self.now(pid) == self.before

    def assert_harmless(self):
        wrong = {address: word for address, word in self.now().items()
                 if word not in (self.before[address], self.ours[address])}
        assert not wrong, (wrong, self.before, self.ours)


@contextlib.contextmanager
def loaded(python):
    """(a load at work, its words); in the end it must have computed the right thing."""
    expected = digest_of(python.path)
    with Target("load.py", python=python) as load:
        words = Words(load)
        load.send("go\n")
        yield load, words
        assert load.popen.poll() is None, f"the target died: {load.describe()}"
        words.assert_restored()
        assert finish(load) == expected


def run_to_end(load, number=signal.SIGINT):
    with Leaktop("-p", load.pid, "-j", "0.2") as tool:
        tool.first_report()
        tool.signal(number)
        while tool.report() is not None:
            pass
        assert tool.wait(DETACH_S) == 0, tool.describe()


def inside(python):
    return pytest.skip("its files are elsewhere") if python.root else python


@pytest.mark.parametrize("python", pythons(13))
def test_attach_and_detach(python):
    with loaded(inside(python)) as (load, words):
        for i in range(ROUNDS if python.path == SYSTEM.path or SOAK else 2):
            run_to_end(load, signal.SIGTERM if i % 2 else signal.SIGINT)
            words.assert_restored()
            assert load.popen.poll() is None, f"died in round {i}: {load.describe()}"


@pytest.mark.parametrize("python", pythons())
def test_kill(python):
    """Killed at any moment: the words are the old ones or lead to the same functions."""
    dice = random.Random(1)
    with loaded(inside(python)) as (load, words):
        for _ in range(KILLS):
            with Leaktop("-p", load.pid, "-j", "0.2") as tool:
                time.sleep(dice.uniform(0.05, 2))
                tool.signal(signal.SIGKILL)
                tool.wait()
            words.assert_harmless()
            time.sleep(0.1)
            assert load.popen.poll() is None, f"the target died: {load.describe()}"
        with Leaktop("-p", load.pid, "-j", "0.2") as tool:
            tool.first_report()
            assert not words.redirected or words.now() == words.ours
            tool.signal(signal.SIGKILL)
            tool.wait()
        assert words.now() == words.ours
        run_to_end(load)


ENDS = {"SIGINT": signal.SIGINT, "SIGTERM": signal.SIGTERM, "--duration": None}


def test_ways_to_end():
    with Target("objects.py") as target:
        words = Words(target)
        for number in ENDS.values():
            options = [] if number else ["--duration", "1"]
            with Leaktop("-p", target.pid, "-j", *options, "0.3") as tool:
                tool.first_report()
                assert words.now() == words.ours
                target.order("make 100")
                if number:
                    tool.signal(number)
                while tool.report() is not None:
                    pass
                assert tool.wait(DETACH_S) == 0
            words.assert_restored()


@contextlib.contextmanager
def forked(target, count):
    """Children of objects.py, at rest; they are ended afterwards."""
    children = []
    try:
        for _ in range(count):
            child = target.order("fork 100")
            assert child["died"] is None, f"wait status {child['died']:#x}"
            children.append(child["pid"])
        yield children
    finally:
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("python", pythons(8, 13))
@pytest.mark.parametrize("options", [[], ["--no-follow"]], ids=["followed", "--no-follow"])
def test_forked_children(python, options):
    """They inherit the redirected tables; those that outlive leaktop too are put right."""
    with Target("objects.py", python=python) as target:
        words = Words(target)
        with watch(target, *options) as tool, forked(target, 3) as children:
            assert all(words.now(pid) == words.ours for pid in children)
            report = tool.final()
            for pid in [target.pid, *children]:
                words.assert_restored(pid)
        assert bool(options) == ({p["pid"] for p in report["processes"]} == {target.pid})
        target.order("make 100")


def test_child_of_one_that_ended():
    """Its parent is gone when leaktop ends."""
    with Target("objects.py") as target:
        words = Words(target)
        with watch(target, "--no-follow") as tool, forked(target, 1) as [child]:
            target.send("exit\n")
            target.wait()
            # Then there is nothing left for it to do.
            assert tool.wait(DETACH_S) == 0
            words.assert_restored(child)


def test_target_that_ends_meanwhile():
    """At any moment of attaching or detaching."""
    dice = random.Random(2)
    for i in range(40 if SOAK else 3):
        with Target("objects.py") as target:
            with Leaktop("-p", target.pid, "-j", "0.2") as tool:
                if i % 2:
                    tool.first_report()
                    tool.signal(signal.SIGINT)
                time.sleep(dice.uniform(0, 0.6))
                target.close_stdin()
                assert target.wait() == 0, target.describe()
                assert tool.wait(DETACH_S) in (0, 1), tool.describe()
                assert "AddressSanitizer" not in tool.stderr


THREADS = """
import os, sys, threading
stop = False
bad = []
def work(seed):
    kept = {}
    n = 0
    while not stop:
        n += 1
        kept[n % 1000] = [str(n * seed), (n, seed), {n: bytearray(n % 700)}]
        if kept[n % 1000][0] != str(n * seed) or len(kept[n % 1000][2][n]) != n % 700:
            bad.append(n)
threads = [threading.Thread(target=work, args=(i + 1,)) for i in range(4)]
print("ready", os.getpid(), flush=True)
sys.stdin.readline()
[t.start() for t in threads]
sys.stdin.readline()
stop = True
[t.join() for t in threads]
print("bad" if bad else "good", flush=True)
"""


def test_threads_that_allocate(tmp_path):
    script = tmp_path / "threads.py"
    script.write_text(THREADS)
    with Target(script) as target:
        words = Words(target)
        target.send("go\n")
        for _ in range(50 if SOAK else 3):
            run_to_end(target)
            words.assert_restored()
        target.send("stop\n")
        assert target.line(60) == "good"
        target.close_stdin()
        assert target.wait() == 0


EMBEDDED = """
#include <Python.h>
#include <stdio.h>
#include <unistd.h>

int main(void)
{
	char line[80];

	Py_Initialize();
	printf("ready %d\\n", getpid());
	fflush(stdout);
	if (!fgets(line, sizeof(line), stdin))
		return 1;
	PyRun_SimpleString("kept = [bytearray(100) for i in range(5000)]");
	puts("done");
	fflush(stdout);
	if (!fgets(line, sizeof(line), stdin))
		Py_Finalize();
	return 0;
}
"""


def test_embedded(tmp_path):
    """In a program of another name, the interpreter is a library."""
    built = [p for p in find_pythons() if "/.pyenv/" in p.path]
    if not built:
        pytest.skip("no Python to embed")
    (tmp_path / "host.c").write_text(EMBEDDED)
    flags = subprocess.run([built[-1].path + "-config", "--includes", "--ldflags", "--embed"],
                           stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    libraries = [f[2:] for f in flags if f.startswith("-L")]
    subprocess.run(["cc", tmp_path / "host.c", "-o", tmp_path / "host", *flags,
                    *(f"-Wl,-rpath,{path}" for path in libraries)], check=True, timeout=60)
    with Target.of([tmp_path / "host"]) as target:
        words = Words(target)
        with watch(target) as tool:
            target.send("go\n")
            assert target.line(30) == "done"
            report = tool.final()
        words.assert_restored()
        assert python_of(report, target.pid)["objects"] == "full"
        assert process_of(report, target.pid)["python_live_blocks"] >= 10_000
        target.close_stdin()
        assert target.wait() == 0, target.describe()


TESTS = ["test_dict", "test_list", "test_gc", "test_threading", "test_json", "test_re"]


@pytest.mark.skipif(not SOAK, reason="CPython's own tests: LEAKTOP_SOAK=1")
@pytest.mark.parametrize("python", [p for p in find_pythons() if "/.pyenv/" in p.path],
                         ids=lambda p: p.name)
def test_cpythons_own_tests(python, tmp_path):
    """The same ones pass with leaktop coming and going as without it."""
    command = python.command("-m", "test", "-q", *TESTS)
    alone = subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, timeout=600,
                           stderr=subprocess.STDOUT, text=True, check=False)
    with open(tmp_path / "out", "w", encoding="utf-8") as out, \
            subprocess.Popen(command, cwd=tmp_path, stdout=out, stderr=out) as traced:
        runs = 0
        while traced.poll() is None:
            with Leaktop("-p", traced.pid, "-j", "--duration", "2", "1") as tool:
                assert wait_until(lambda: tool.popen.poll() is not None, DETACH_S)
            runs += 1
    said = (tmp_path / "out").read_text(encoding="utf-8", errors="replace")
    assert traced.returncode == alone.returncode, said[-3000:]
    assert runs > 1
    print(python.name, alone.returncode, runs, said[-200:], file=sys.stderr)
