# SPDX-License-Identifier: GPL-2.0-or-later
"""Who is traced: pids, names, cgroups, commands, and everything that starts, forks and ends."""
import json
import os
import pathlib
import shutil
import signal
import time

import pytest

from cgroups import cgroup, cgroup_everywhere, join
from leaktop import (BINARY, INTERVAL_S, LIBRARIES, Fixture, Leaktop, assert_total, assert_true,
                     fixture_path, held, live_by_function, reported_pids, together, wait_until)

JSON = ("--format", "json", "-T", "1000")
HEX = "c0ffee" + "0123456789abcdef" * 3 + "0123456789"


def attach(*target):
    tool = Leaktop(*target, *JSON, INTERVAL_S)
    tool.first_report()
    return tool


def copy_of(fixture, path):
    shutil.copy(fixture_path(fixture), path)
    return path


def wait_for_report(tool, shows, timeout=15):
    """The first of which shows(report) is true."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        report = tool.report()
        assert report is not None, f"ended: {tool.describe()}"
        if shows(report):
            return report
    raise AssertionError(f"no report shows it of {tool.describe()}")


def wait_for_pid(tool, pid):
    wait_for_report(tool, lambda report: pid in reported_pids(report))


def runs(report, pid, program):
    return any(p["pid"] == pid and p["exe"] == str(program) for p in report["processes"])


@pytest.mark.parametrize("form", ["list", "repeated"])
def test_several_pids(form):
    with Fixture("allocs", "leak") as a, Fixture("allocs_musl_static", "leak") as b, \
            Fixture("allocs", "leak") as bystander:
        target = (["-p", f"{a.pid},{b.pid}"] if form == "list" else ["-p", a.pid, "-p", b.pid])
        with attach(*target) as tool:
            for fixture in (a, b, bystander):
                fixture.go()
                fixture.truth()
            report = tool.final()
        assert_true(report, a.truth(), a.pid)
        assert_true(report, b.truth(), b.pid)
        assert bystander.pid not in reported_pids(report)


def test_name(tmp_path, processes):
    """A glob finds what runs, and what starts later."""
    early = Fixture(copy_of("allocs", tmp_path / "lt-name-early"), "leak")
    processes.append(early)
    with attach("-n", "lt-name-*") as tool:
        late = Fixture(copy_of("allocs", tmp_path / "lt-name-late"), "leak")
        processes.append(late)
        wait_for_pid(tool, late.pid)
        for fixture in (early, late):
            fixture.go()
            fixture.truth()
        report = tool.final()
    truths = [*early.truths.values(), *late.truths.values()]
    assert_true(report, together(*truths))
    for fixture in (early, late):
        assert_total(report, fixture.pid, fixture.truth())


def test_name_of_the_executable_behind_a_long_comm(tmp_path, processes):
    """comm is cut at 15 characters, the executable's name is not."""
    path = copy_of("allocs", tmp_path / "lt-a-name-much-longer-than-comm")
    fixture = Fixture(path, "leak")
    processes.append(fixture)
    with attach("-n", "lt-a-name-much-longer-than-comm") as tool:
        fixture.go()
        truth = fixture.truth()
        assert_true(tool.final(), truth, fixture.pid)


@pytest.mark.parametrize("version", [1, 2])
def test_cgroup(version):
    """Members, members of a group below, and one that joins later; nobody else."""
    with cgroup(version, "leaktop-test") as directory, \
            Fixture("allocs", "leak") as member, Fixture("allocs", "leak") as below, \
            Fixture("allocs", "leak") as joiner, Fixture("allocs", "leak") as outsider:
        try:
            (directory / "sub").mkdir()
            join(directory, member.pid)
            join(directory / "sub", below.pid)
            with attach("--cgroup", directory) as tool:
                join(directory, joiner.pid)
                wait_for_pid(tool, joiner.pid)
                for fixture in (member, below, joiner, outsider):
                    fixture.go()
                    fixture.truth()
                report = tool.final()
            members = (member, below, joiner)
            assert_true(report, together(*(t for f in members for t in f.truths.values())))
            for fixture in members:
                assert_total(report, fixture.pid, fixture.truth())
                # With both versions mounted the report shows the one that limits memory: v1.
                if version == 1:
                    assert "leaktop-test" in next(p["cgroup"] for p in report["processes"]
                                                  if p["pid"] == fixture.pid)
            assert outsider.pid not in reported_pids(report)
        finally:
            for fixture in (member, below, joiner):
                fixture.end()


SHAPES = [
    # target option, cgroup, what the process's container or unit must be
    (["--container", HEX[:12]], f"docker/{HEX}", HEX),
    (["--container", HEX], f"system.slice/docker-{HEX}.scope", HEX),
    (["--container", HEX[:12]], f"libpod_parent/libpod-{HEX}", HEX),
    (["--container", HEX[:12]], f"machine.slice/libpod-{HEX}.scope/container", HEX),
    (["--container", HEX[:12]],
     f"kubepods.slice/kubepods-besteffort.slice/cri-containerd-{HEX}.scope", HEX),
    (["--container", HEX[:12]], f"kubepods/besteffort/pod1234/{HEX}", HEX),
    (["--container", "lt-box"], "lxc.payload.lt-box/system.slice", "lt-box"),
    (["--container", "lt-box"], "machine.slice/machine-lt\\x2dbox.scope", "lt-box"),
    (["--container", "lt-box"], "machine.slice/systemd-nspawn@lt-box.service/payload", "lt-box"),
    (["--unit", "lt-web.service"], "system.slice/lt-web.service", "lt-web.service"),
    (["--unit", "lt-web"], "system.slice/lt-web.service", "lt-web.service"),
]


@pytest.mark.parametrize("target, path, expected", SHAPES, ids=[s[1].replace(HEX, "ID")
                                                             for s in SHAPES])
def test_container_and_unit_by_cgroup_shape(target, path, expected):
    """Recognised by the cgroup alone, as engines name it; no engine runs here."""
    with Fixture("allocs_musl_static", "leak") as fixture, \
            Fixture("allocs_musl_static", "leak") as outsider, cgroup_everywhere(path) as put:
        try:
            put(fixture.pid)
            with attach(*target) as tool:
                for f in (fixture, outsider):
                    f.go()
                    f.truth()
                report = tool.final()
            assert_true(report, fixture.truth(), fixture.pid)
            assert outsider.pid not in reported_pids(report)
            shown = next(p for p in report["processes"] if p["pid"] == fixture.pid)
            if target[0] == "--unit":
                assert shown["unit"] == expected
            else:
                assert expected in (shown["container"]["id"], shown["container"]["name"])
        finally:
            fixture.end()


class Command(Fixture):
    """leaktop running a fixture: both write to one stdout."""

    def __init__(self, *args):
        if not BINARY.exists():
            pytest.skip(f"{BINARY} was not built")
        super().__init__(BINARY, *args)

    def last_report(self):
        self.wait()
        time.sleep(0.1)
        reports = [l for l in self.output if l.startswith('{"version"')]
        assert reports, f"no report from {self.describe()}"
        return json.loads(reports[-1])


@pytest.mark.parametrize("name", ["allocs", "allocs_static", "allocs_musl", "cxx"])
def test_command(name):
    """-- CMD is traced from its first instruction; the report at its end shows what it held."""
    with Command(*JSON, "60", "--", fixture_path(name), "leak") as tool:
        tool.go()
        truth = tool.truth()
        tool.close_stdin()
        report = tool.last_report()
        assert tool.wait() == 0
    assert report["final"]
    assert_true(report, truth, tool.said_pid)


def test_command_option():
    with Command(*JSON, "-c", f"{fixture_path('allocs')} leak", "60") as tool:
        tool.go()
        truth = tool.truth()
        tool.close_stdin()
        report = tool.last_report()
    assert_true(report, truth, tool.said_pid)


def test_command_that_does_not_exist():
    with Leaktop("--", "/nonexistent/program") as tool:
        assert tool.wait() == 1
        assert len(tool.stderr.strip().splitlines()) == 1


def test_fork():
    """Workers are followed; each has a ledger of its own, and none inherits the master's."""
    with Fixture("forker", "4") as fixture, attach("-p", fixture.pid) as tool:
        fixture.go()
        fixture.truth()
        report = tool.final()
    assert len(fixture.truths) == 5
    assert_true(report, together(*fixture.truths.values()))
    for pid, truth in fixture.truths.items():
        assert_total(report, pid, truth)


def test_no_follow():
    with Fixture("forker", "2") as fixture, attach("-p", fixture.pid, "--no-follow") as tool:
        fixture.go()
        truth = fixture.truth()
        report = tool.final()
    assert_true(report, truth, fixture.pid)
    assert reported_pids(report) == {fixture.pid}


@pytest.mark.parametrize("program", ["allocs", "allocs_static"])
def test_exec(program):
    """What was held before the exec is gone with it; the new program is traced."""
    with Fixture("execer", fixture_path(program), "leak") as fixture, \
            attach("-p", fixture.pid) as tool:
        fixture.go()
        assert fixture.line(10) == "leaked"
        fixture.wait_ready()
        before = wait_for_report(tool, lambda r: live_by_function(r).get("leak_before_exec"))
        assert live_by_function(before)["leak_before_exec"].bytes == 100 * 1000
        fixture.go()
        fixture.wait_ready()
        # With its probes: they are set before anything is said of it.
        wait_for_report(tool, lambda r: runs(r, fixture.pid, fixture_path(program)))
        fixture.go()
        truth = fixture.truth()
        report = tool.final()
    assert_true(report, truth, fixture.pid)


def test_dlopen():
    with Fixture("dlopen_host", fixture_path("plugin.so")) as fixture, \
            attach("-p", fixture.pid) as tool:
        fixture.go()
        truth = fixture.truth()
        assert_true(tool.final(), truth, fixture.pid)


def test_allocator_loaded_late():
    library = LIBRARIES / "libmimalloc.so.2"
    if not library.exists():
        pytest.skip(f"{library} is not installed")
    with Fixture("dlopen_host", fixture_path("plugin.so"), library) as fixture, \
            attach("-p", fixture.pid) as tool:
        fixture.go()
        truth = fixture.truth()
        assert_true(tool.final(), truth, fixture.pid)


def test_target_that_vanishes():
    """A line, not an error; what it held is not shown as if it were still held."""
    with Fixture("allocs", "leak") as fixture, attach("-p", fixture.pid) as tool:
        fixture.go()
        fixture.truth()
        fixture.popen.kill()
        fixture.popen.wait()
        wait_until(lambda: tool.popen.poll() is not None, 3)
        report = tool.final()
    assert tool.popen.returncode == 0
    assert report["final"]


def test_one_of_two_vanishes():
    with Fixture("allocs", "leak") as gone, Fixture("allocs", "leak") as stays, \
            attach("-p", f"{gone.pid},{stays.pid}") as tool:
        for fixture in (gone, stays):
            fixture.go()
            fixture.truth()
        gone.popen.kill()
        gone.popen.wait()
        tool.report()
        tool.report()
        report = tool.final()
        assert_true(report, stays.truth(), stays.pid)
        assert not held(report, gone.pid)


def test_short_lived_processes():
    """Hundreds of children come and go; nothing of theirs stays."""
    with Fixture("many_procs", "300") as fixture, attach("-p", fixture.pid) as tool:
        fixture.go()
        truth = fixture.truth(timeout=120)
        tool.report()
        tool.report()
        report = tool.final()
    assert_true(report, truth, fixture.pid)
    assert "leak_short_lived" not in live_by_function(report)


def children(pid):
    return [int(c) for c in
            pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_other_pid_and_mount_namespace(tmp_path):
    """The program's file is on a mount that only the target sees, and its pid there is another."""
    script = ('mount -t tmpfs none "$1" && cp "$2" "$1/hidden-program" && '
              'exec unshare -p -f --mount-proc "$1/hidden-program" leak')
    with Fixture("/usr/bin/unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh",
                 tmp_path, fixture_path("allocs")) as fixture:
        pid = children(fixture.pid)[0]
        assert not (tmp_path / "hidden-program").exists()
        with attach("-p", pid) as tool:
            fixture.go()
            truth = fixture.truth()
            report = tool.final()
        os.kill(pid, signal.SIGKILL)
    assert_true(report, truth, pid)


def test_deleted_program(tmp_path, processes):
    """As after an upgrade: the file of the running program is gone."""
    path = copy_of("allocs_static", tmp_path / "lt-deleted")
    fixture = Fixture(path, "leak")
    processes.append(fixture)
    path.unlink()
    with attach("-p", fixture.pid) as tool:
        fixture.go()
        truth = fixture.truth()
        assert_true(tool.final(), truth, fixture.pid)


@pytest.mark.alone
def test_whole_system():
    with Fixture("allocs", "leak") as a, Fixture("allocs_musl_static", "leak") as b, \
            attach("-a") as tool:
        for fixture in (a, b):
            fixture.go()
            fixture.truth()
        report = tool.final()
        assert_true(report, a.truth(), a.pid)
        assert_true(report, b.truth(), b.pid)
    assert tool.pid not in reported_pids(report), "it traced itself"
