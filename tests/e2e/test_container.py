# SPDX-License-Identifier: GPL-2.0-or-later
"""Real containers, if an engine is here: one of two of the same image is shown, by name."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tarfile
import time

import pytest

from leaktop import INTERVAL_S, Fixture, Leaktop, assert_true, fixture_path, leak_function, reported_pids

IMAGE = "localhost/leaktop-test:1"
# Without CAP_SYS_RESOURCE an engine cannot raise limits, so they are given as they are.
RUN = ["run", "-d", "--network", "none", "--ulimit", "nofile=1024:1024",
       "--ulimit", "nproc=4096:4096"]


def engine_or_skip(name):
    if not shutil.which(name):
        pytest.skip(f"{name} is not installed")
    info = subprocess.run([name, "info"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=60, check=False)
    if info.returncode:
        pytest.skip(f"{name} does not work here: {info.stdout.strip().splitlines()[-1]}")
    return [name, "--runtime", "runc"] if name == "podman" and shutil.which("runc") else [name]


def call(*argv):
    done = subprocess.run([str(a) for a in argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{argv}: {done.stderr}"
    return done.stdout.strip()


@pytest.fixture(params=["podman", "docker"])
def engine(request, tmp_path):
    """An engine with our image: a root that holds static programs and nothing else."""
    command = engine_or_skip(request.param)
    archive = tmp_path / "root.tar"
    with tarfile.open(archive, "w") as tar:
        for name in ("allocs_musl_static", "leaky_server_musl_static"):
            tar.add(fixture_path(name), arcname=name)
    call(*command, "import", archive, IMAGE)
    yield command
    subprocess.run([*command, "rmi", "-f", IMAGE], stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL, timeout=60, check=False)


class Container:
    def __init__(self, engine, name, *argv):
        self.engine, self.name = engine, f"{name}-{os.getpid()}"
        done = subprocess.run([*engine, *RUN, "--name", self.name, IMAGE, *argv], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60,
                              check=False)
        if done.returncode:
            self.remove()
            pytest.skip(f"{engine[0]} cannot run a container here: {done.stderr.strip()[-300:]}")
        self.id = done.stdout.strip()
        self.pid = int(call(*engine, "inspect", "-f", "{{.State.Pid}}", self.name))

    def logs(self):
        return call(*self.engine, "logs", self.name)

    def remove(self):
        """Killed first: an engine asks the first process to end, and gives it ten seconds."""
        for verb in (["kill"], ["rm", "-f"]):
            subprocess.run([*self.engine, *verb, self.name], stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL, timeout=60, check=False)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.remove()


def assert_alone(report, one, two, engine):
    shown = next(p for p in report["processes"] if p["pid"] == one.pid)
    assert shown["container"]["id"] == one.id
    assert shown["container"]["name"] == one.name
    assert shown["container"]["runtime"] == pathlib.Path(engine[0]).name
    assert two.pid not in reported_pids(report)
    assert all(s["pids"] == [one.pid] for s in report["stacks"])


@pytest.mark.parametrize("by", ["name", "id prefix"])
def test_one_of_two_containers(engine, by):
    with Container(engine, "lt-one", "/leaky_server_musl_static") as one, \
            Container(engine, "lt-two", "/leaky_server_musl_static") as two:
        target = one.name if by == "name" else one.id[:12]
        with Leaktop("--container", target, "--format", "json", "1") as tool:
            tool.first_report()
            tool.report()
            report = tool.final()
        assert_alone(report, one, two, engine)
        top = report["stacks"][0]
        assert "remember_session" in [f["function"] for f in top["frames"]]
        assert top["live_bytes"] > 50 * 1024


def test_exact_in_a_container(engine):
    """No stdin there: SIGUSR1 starts the fixture, its log tells the truth."""
    with Container(engine, "lt-exact", "/allocs_musl_static", "leak") as box:
        with Leaktop("--container", box.name, "--format", "json", "-T", "1000",
                     INTERVAL_S) as tool:
            tool.first_report()
            os.kill(box.pid, signal.SIGUSR1)
            end = time.monotonic() + 10
            while '{"pid":1,' not in box.logs() and time.monotonic() < end:
                time.sleep(0.1)
            report = tool.final()
        lines = [json.loads(l) for l in box.logs().splitlines() if l.startswith("{")]
        truth = next(l["truth"] for l in lines if l["pid"] == 1)
        assert_true(report, truth, box.pid)


def test_processes_outside_are_not_shown(engine):
    """A program of the same file on the host is none of the container's."""
    with Container(engine, "lt-early", "/leaky_server_musl_static") as box, \
            Fixture("allocs_musl_static", "leak") as outside:
        with Leaktop("--container", box.name, "--format", "json", "--by", "container",
                     INTERVAL_S) as tool:
            tool.first_report()
            outside.go()
            outside.truth()
            report = tool.final()
        assert outside.pid not in reported_pids(report)
        assert not any(leak_function(s) for s in report["stacks"])
