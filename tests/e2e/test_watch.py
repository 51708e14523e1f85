# SPDX-License-Identifier: GPL-2.0-or-later
"""leaktop watch: who grows, how fast, until when; nothing is probed."""
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time

import pytest

from cgroups import cgroup, join, mount_point
from leaktop import EXIT_S, Fixture, Leaktop, Process, fixture_path, run_leaktop, wait_until
from test_container import IMAGE, RUN, call, engine_or_skip

MIB = 1 << 20
# Evidence of a minute is needed before anything is called suspicious.
EVIDENCE_S = 66

# Touches as many pages a second as asked for; a rate of 0 holds what it has.
GROW = """
import mmap, sys, time
rate, most = float(sys.argv[1]), int(sys.argv[2])
m = mmap.mmap(-1, most + mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
if hasattr(m, "madvise") and hasattr(mmap, "MADV_NOHUGEPAGE"):
    m.madvise(mmap.MADV_NOHUGEPAGE)
print("ready", flush=True)
start, done = time.monotonic(), 0
while True:
    want = min(int((time.monotonic() - start) * rate), most)
    while done < want:
        m[done] = 1
        done += mmap.PAGESIZE
    time.sleep(0.02)
"""


@contextlib.contextmanager
def grower(rate, most=256 * MIB):
    with Process([sys.executable, "-c", GROW, rate, most]) as process:
        assert process.line(10) == "ready"
        yield process


def process_of(report, pid):
    return next(p for p in report["processes"] if p["pid"] == pid)


def assert_interval_holds(row, rate):
    low, high = row["growth_ci95"]
    assert low <= row["growth_bytes_per_s"] <= high
    # Sleeping makes its true rate a little lower than asked for.
    assert low * 0.97 <= rate <= high * 1.03, row
    assert abs(row["growth_bytes_per_s"] - rate) < 0.05 * rate, row


def holds_bpf(pid):
    """Whether the process has a descriptor of a BPF map, program or link, or of a perf event."""
    links = [os.readlink(f) for f in pathlib.Path(f"/proc/{pid}/fd").iterdir() if f.is_symlink()]
    return any("bpf" in link or "perf_event" in link for link in links)


def test_growing_child_is_on_top():
    with grower(200 << 10) as growing, grower(0) as steady:
        with Leaktop("watch", "--no-escalate", "-p", f"{growing.pid},{steady.pid}", "-j",
                     "5") as tool:
            first = tool.first_report()
            assert first["mode"] == "watch" and first["version"] == 1
            assert not any(p["suspicious"] for p in first["processes"])
            assert not holds_bpf(tool.pid)
            time.sleep(EVIDENCE_S)
            last = tool.final()
    assert last["final"] and last["elapsed_s"] > EVIDENCE_S
    top = last["processes"][0]
    assert top["pid"] == growing.pid and top["suspicious"]
    assert "rose throughout" in top["why"]
    assert_interval_holds(top, 200 << 10)
    assert top["anon_bytes"] > EVIDENCE_S * (200 << 10) * 0.9
    other = process_of(last, steady.pid)
    assert not other["suspicious"] and other["seconds_to_limit"] is None
    assert last["overhead"]["tracer_cpu_pct"] < 2


def test_what_grows_is_traced():
    """Another leaktop names the line, and is gone when the watch is."""
    with Fixture("steady", "--rate", 2000, "--count", 10_000_000, "--leak-every", 4) as target:
        target.go()
        with Leaktop("watch", "-p", target.pid, "-j", "5") as tool:
            traced = None
            while traced is None:
                report = tool.report(120)
                traced = None if report.get("mode") == "watch" else report
            assert "memory grows; tracing it" in tool.stderr
            children = subprocess.run(["pgrep", "-P", str(tool.pid)], stdout=subprocess.PIPE,
                                      text=True, check=False).stdout.split()
            assert len(children) == 1
            tool.signal(signal.SIGTERM)
            assert tool.wait(EXIT_S) == 0
            assert not pathlib.Path(f"/proc/{children[0]}").exists()
    assert traced["processes"][0]["pid"] == target.pid
    assert traced["overhead"]["budget_pct"] == 2
    assert any(f["function"].startswith("leak_") for s in traced["stacks"][:3]
               for f in s["frames"] if f["function"])


def test_children_are_followed_unless_told_not_to():
    script = f"{sys.executable} -c {json.dumps('import time; time.sleep(60)')} & echo $!; wait"
    with Process(["sh", "-c", script]) as shell:
        child = int(shell.line(10))
        try:
            for options, expected in ((), {shell.pid, child}), (("--no-follow",), {shell.pid}):
                code, out, _ = run_leaktop("watch", "-p", shell.pid, *options, "-j", "1", "2")
                assert code == 0
                last = json.loads(out.splitlines()[-1])
                assert {p["pid"] for p in last["processes"]} == expected
        finally:
            os.kill(child, signal.SIGKILL)


def test_no_target_watches_everything_but_itself():
    with grower(0) as process:
        with Leaktop("--format", "json", "0.5") as tool:
            report = tool.first_report()
            pids = {p["pid"] for p in report["processes"]}
            assert process.pid in pids and os.getpid() in pids and tool.pid not in pids
            assert tool.final()["mode"] == "watch"


def test_text_has_top_rows():
    code, out, err = run_leaktop("watch", "-T", "2", "1", "2")
    assert code == 0, err
    reports = re.split(r"^(?=\[\d\d:)", out, flags=re.M)[1:]
    assert len(reports) == 2 and "final report" in reports[1]
    lines = reports[1].splitlines()
    rows = [l for l in lines if re.match(r" *\d+ \S", l)]
    assert "watched for" in lines[0] and 2 <= len(rows) <= 4
    assert "and" in reports[1] and "more (-T)" in reports[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_brings_the_last_report(number, tmp_path):
    out = tmp_path / "report.json"
    with Leaktop("watch", "-q", "-j", "-w", out, "60") as tool:
        assert wait_until(out.exists)
        time.sleep(0.3)
        tool.signal(number)
        assert tool.wait(EXIT_S) == 0
        assert tool.stderr == ""
    assert json.loads(out.read_text())["final"]
    assert out.stat().st_mode & 0o777 == 0o600


def test_ends_with_its_targets_and_after_its_time():
    with grower(0) as process:
        with Leaktop("watch", "-p", process.pid, "-j", "1") as tool:
            tool.first_report()
            process.end()
            last = tool.last_report()
            assert last["processes"] == []
    start = time.monotonic()
    code, out, _ = run_leaktop("watch", "-j", "--duration", "1.5", "60")
    assert code == 0 and len(out.splitlines()) == 1
    assert 1.4 < time.monotonic() - start < 5


@pytest.mark.parametrize("args, code, words", [
    (["watch", "-p", "999999999"], 1, "999999999"),
    (["watch", "-n", "no-such-name-*"], 1, "is not there"),
    (["watch", "-f"], 2, "stacks"),
    (["watch", "--", "true"], 2, "runs no command"),
])
def test_errors(args, code, words):
    done, out, err = run_leaktop(*args)
    assert done == code and words in err and out == ""


def limit_files(directory):
    """The file that limits memory in that cgroup, or a skip."""
    for name in ("memory.max", "memory.limit_in_bytes"):
        if (directory / name).exists():
            return directory / name
    pytest.skip("no memory controller in this cgroup hierarchy")
    return None


def memory_version():
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        v1 = any(l.split()[2] == "cgroup" and "memory" in l.split()[3].split(",") for l in mounts)
    if v1:
        return 1
    if "memory" not in (mount_point(2) / "cgroup.subtree_control").read_text().split():
        pytest.skip("the memory controller is in no cgroup hierarchy here")
    return 2


def test_limit_of_a_cgroup_above_counts():
    with cgroup(memory_version(), "lt-watch") as outer:
        limit_files(outer).write_text(str(64 * MIB))
        inner = outer / "inner"
        inner.mkdir()
        with grower(1 * MIB, 40 * MIB) as process:
            join(inner, process.pid)
            with Leaktop("watch", "--no-escalate", "--cgroup", f"/{outer.name}/inner", "-j", "1") as tool:
                time.sleep(15)
                last = tool.final()
    row = process_of(last, process.pid)
    assert row["limit_bytes"] == 64 * MIB and row["limit_of"].endswith(outer.name)
    # 64 MiB less what the interpreter holds and the 15 MiB that are touched by now.
    assert 15 < row["seconds_to_limit"] < 64
    names = {g["cgroup"].rsplit("/", 1)[1]: g for g in last["cgroups"]}
    assert names[outer.name]["own_limit_bytes"] == 64 * MIB
    assert names["inner"]["own_limit_bytes"] is None
    assert names["inner"]["limit_bytes"] == 64 * MIB


class LimitedContainer:
    """The leaking server, which cannot have more than a few MiB."""

    def __init__(self, engine, limit):
        self.engine, self.name = engine, f"lt-watch-{os.getpid()}"
        argv = [*engine, *RUN, "--memory", str(limit), "--memory-swap", str(limit), "--name",
                self.name, IMAGE, "/leaky_server_musl_static"]
        done = subprocess.run(argv, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              timeout=60, check=False)
        if done.returncode:
            self.remove()
            pytest.skip(f"{engine[0]} cannot limit memory here: {done.stderr.strip()[-300:]}")
        self.id = done.stdout.strip()
        self.pid = int(call(*engine, "inspect", "-f", "{{.State.Pid}}", self.name))

    def remove(self):
        subprocess.run([*self.engine, "rm", "-f", self.name], stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, timeout=60, check=False)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.remove()


@pytest.fixture(params=["podman", "docker"])
def engine(request, tmp_path):
    command = engine_or_skip(request.param)
    archive = tmp_path / "root.tar"
    name = "leaky_server_musl_static"
    with tarfile.open(archive, "w") as tar:
        tar.add(fixture_path(name), arcname=name)
    call(*command, "import", archive, IMAGE)
    yield command
    subprocess.run([*command, "rmi", "-f", IMAGE], stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL, timeout=60, check=False)


def has_ended(pid):
    stat = pathlib.Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_time_to_limit_of_a_container(engine):
    """What is foretold half way against the moment at which the kernel kills it."""
    limit = 12 * MIB
    with LimitedContainer(engine, limit) as box:
        with Leaktop("watch", "--no-escalate", "--container", box.name, "-j", "1") as tool:
            report = tool.first_report()
            while report["elapsed_s"] < 45:
                assert not has_ended(box.pid), "killed before anything could be foretold"
                report = tool.report()
            foretold = time.monotonic()
            row = process_of(report, box.pid)
            group = next(g for g in report["cgroups"] if g["own_limit_bytes"])
            assert wait_until(lambda: has_ended(box.pid), timeout=300, interval=0.2)
            actual = time.monotonic() - foretold
    assert row["container"]["name"] == box.name and row["container"]["id"] == box.id
    assert row["limit_bytes"] == group["own_limit_bytes"] == limit
    assert abs(row["seconds_to_limit"] - actual) < 0.2 * actual, (row, group, actual)
    assert abs(group["seconds_to_limit"] - actual) < 0.2 * actual, (group, actual)


def test_tells_nothing_of_kernel_threads():
    if not shutil.which("ps"):
        pytest.skip("ps is not installed")
    threads = {int(p) for p in call("ps", "--ppid", "2", "-o", "pid=").split()}
    _, out, _ = run_leaktop("watch", "-j", "1", "1")
    assert not threads & {p["pid"] for p in json.loads(out)["processes"]}
