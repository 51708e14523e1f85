# SPDX-License-Identifier: GPL-2.0-or-later
"""What cannot be done is said in one line, with the right exit code, and leaves nothing."""
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile

import pytest

from leaktop import BINARY, INTERVAL_S, Fixture, Leaktop, run_leaktop, wait_until

NO_PID = 4194303


def one_line(stderr):
    lines = stderr.strip().splitlines()
    assert len(lines) == 1, f"not one line: {stderr!r}"
    return lines[0]


@pytest.fixture(autouse=True)
def nothing_left(bpf_leftovers):
    yield
    assert wait_until(lambda: not bpf_leftovers()), f"left attached: {bpf_leftovers()}"


@pytest.mark.parametrize("args", [
    ["--no-such-option"], ["-p"], ["-p", "abc"], ["-p", "-1"], ["-p", "1,"], ["-p", "1", "x"],
    ["-p", "1", "0"], ["-p", "1", "-5"], ["-p", "1", "1", "2", "3"], ["-p", "1", "-T", "many"],
    ["-p", "1", "--format", "nosuch"], ["-p", "1", "--sort", "nosuch"],
    ["-p", "1", "--by", "nosuch"], ["-p", "1", "--color", "nosuch"], ["-p", "1", "-o", "old"],
    ["-p", "1", "-z", "-1"], ["-p", "1", "-z", "10", "-Z", "5"], ["-p", "1", "--duration", "-3"],
    ["-p", "1", "--ring-size", "x"], ["-p", "1", "--max-blocks", "-4"],
    ["-p", "1", "--probe-method", "nosuch"], ["nosuchcommand"], ["--"],
], ids=" ".join)
def test_usage(args):
    code, out, err = run_leaktop(*args)
    assert code == 2, err
    assert out == ""
    assert one_line(err)


@pytest.mark.parametrize("args, named", [
    (["-p", NO_PID], str(NO_PID)),
    (["-p", f"{os.getpid()},{NO_PID}"], str(NO_PID)),
    (["--container", "lt-no-such"], "lt-no-such"),
    (["--unit", "lt-no-such"], "lt-no-such"),
    (["--cgroup", "/sys/fs/cgroup/lt-no-such"], "lt-no-such"),
    (["--cgroup", "/tmp"], "/tmp"),
    (["-n", "lt-no-such-name"], "lt-no-such-name"),
    (["-p", "2"], "2"),
], ids=lambda v: " ".join(map(str, v)) if isinstance(v, list) else "")
def test_missing_target(args, named):
    code, out, err = run_leaktop(*args, INTERVAL_S, "1")
    assert code == 1, err
    assert out == ""
    assert named in one_line(err)


def test_zombie():
    with subprocess.Popen(["true"]) as child:
        assert wait_until(lambda: b") Z " in pathlib.Path(f"/proc/{child.pid}/stat").read_bytes())
        code, _, err = run_leaktop("-p", child.pid, INTERVAL_S, "1")
    assert code == 1
    one_line(err)


def test_no_root():
    """Run from a folder that anybody can read."""
    if not shutil.which("setpriv"):
        pytest.skip("setpriv is not installed")
    if not BINARY.exists():
        pytest.skip(f"{BINARY} was not built")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        copy = shutil.copy(BINARY, folder)
        done = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", copy,
                               "-p", str(os.getpid()), "1", "1"], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "root" in one_line(done.stderr)


def test_32_bit_target():
    with Fixture("leaky_server_m32") as server:
        code, out, err = run_leaktop("-p", server.pid, INTERVAL_S, "1")
    assert code == 1
    assert out == ""
    assert "32-bit" in one_line(err)


def test_target_without_allocator():
    with Fixture("noalloc") as fixture:
        code, out, err = run_leaktop("-p", fixture.pid, INTERVAL_S, "1")
    assert code == 1
    assert out == ""
    assert "alloc" in one_line(err)


def test_report_to_a_closed_pipe():
    with Fixture("leaky_server") as server, \
            subprocess.Popen([BINARY, "-p", str(server.pid), "0.2"], stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE) as tool:
        assert tool.stdout.readline()
        tool.stdout.close()
        try:
            assert tool.wait(10) == 0
        finally:
            tool.kill()
        said = tool.stderr.read().decode()
    assert "ipe" not in said, said


def test_output_that_cannot_be_written():
    with Fixture("leaky_server") as server:
        code, out, err = run_leaktop("-p", server.pid, "-w", "/nonexistent/dir/file", INTERVAL_S, "1")
    assert code == 1
    assert out == ""
    assert "/nonexistent/dir/file" in one_line(err)


def test_full_disk():
    """A report that was not written is not success."""
    with Fixture("leaky_server") as server:
        code, _, err = run_leaktop("-p", server.pid, "-w", "/dev/full", INTERVAL_S, "1")
    assert code == 1
    assert "/dev/full" in err


def test_object_that_is_none():
    with Fixture("leaky_server") as server:
        code, _, err = run_leaktop("-p", server.pid, "-O", "/etc/passwd", INTERVAL_S, "1")
    assert code == 1
    assert "/etc/passwd" in one_line(err)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_bring_the_last_report(number):
    with Fixture("leaky_server") as server, \
            Leaktop("-p", server.pid, "--format", "json", INTERVAL_S) as tool:
        tool.first_report()
        tool.signal(number)
        assert tool.last_report()["final"]


def test_signal_while_attaching():
    """Ctrl-C before the first report: no error, nothing left."""
    with Fixture("leaky_server") as server, Leaktop("-p", server.pid, "60") as tool:
        wait_until(lambda: False, 0.1)
        tool.signal(signal.SIGINT)
        assert tool.wait() in (0, 1, -signal.SIGINT)


@pytest.mark.parametrize("option", ["--help", "--version", "-h"])
def test_help(option):
    code, out, err = run_leaktop(option)
    assert code == 0
    assert "leaktop" in out
    assert err == ""


def test_doctor():
    code, out, _ = run_leaktop("doctor")
    assert code == 0
    assert "BTF" in out
    with Fixture("allocs", "leak") as fixture:
        code, out, err = run_leaktop("doctor", "-p", fixture.pid)
    assert code == 0, err
    assert "malloc" in out and "free" in out
