# SPDX-License-Identifier: GPL-2.0-or-later
"""What `services` attaches to its loads."""
import glob
import json
import os
import platform
import re
import shutil
import subprocess

import processes
from processes import Unusable

HERE = os.path.dirname(os.path.abspath(__file__))
READY_S = 60


class Tracer:
    """Attached when it is constructed, or Unusable."""

    def __init__(self, load, folder):
        self.load = load
        self.folder = folder
        self.processes = []

    def start(self, command, ready, number=0, **options):
        """Until @ready stands in what it says."""
        said = os.path.join(self.folder, f"said.{number}")
        with open(said, "w", encoding="utf-8") as f:
            process = processes.start(command, stdin=subprocess.DEVNULL, stdout=f,
                                      stderr=subprocess.STDOUT, **options)
        self.processes.append(process)

        def words():
            with open(said, encoding="utf-8", errors="replace") as f:
                return f.read()
        try:
            processes.wait_for(lambda: re.search(ready, words()), process, READY_S,
                               os.path.basename(command[0]))
        except Unusable as why:
            lines = [line for line in words().splitlines() if line.strip()]
            self.stop()
            raise Unusable(f"{why}: {lines[-1][:160]}" if lines else str(why)) from None

    def pids(self):
        return [pid for p in self.processes for pid in processes.descendants(p.pid)]

    def report(self):
        return {}

    def stop(self):
        for process in self.processes:
            processes.end(process)
        self.processes = []


class Leaktop(Tracer):
    program = None

    def __init__(self, load, folder, *options):
        super().__init__(load, folder)
        if not os.access(self.program, os.X_OK):
            raise Unusable(f"{self.program} is not there")
        self.reports = os.path.join(folder, "reports")
        self.start([self.program, "-j", "-w", self.reports, "-p",
                    ",".join(str(pid) for pid in load.traced_pids()), *options], r"\btracing\b")

    def report(self):
        """What its last report says of itself."""
        try:
            with open(self.reports, encoding="utf-8") as f:
                lines = f.read().splitlines(keepends=True)[-2:]
        except OSError:
            return {}
        for line in reversed(lines):
            if line.endswith("\n"):
                return json.loads(line).get("overhead", {})
        return {}


def kernel_headers(folder):
    """bcc compiles against the kernel's headers. Without those of the running kernel others
    will do for memleak, which uses nothing of them that changes; Debian has them in two
    parts that bcc can only find where they are installed, so they are put together."""
    if os.path.exists(f"/lib/modules/{platform.release()}/build"):
        return {}
    parts = sorted(glob.glob("/usr/src/linux-headers-*-common"))[-1:]
    parts += [p for common in parts for p in glob.glob(common.replace("-common", "-amd64"))]
    if len(parts) < 2:
        return {}
    target = os.path.join(folder, "headers")
    for part in parts:
        for below in ("include", "arch/x86/include"):
            os.makedirs(os.path.join(target, below), exist_ok=True)
            subprocess.run(["cp", "-rsf", os.path.join(part, below, "."),
                            os.path.join(target, below)], check=True)
    return {"BCC_KERNEL_SOURCE": target}


class Memleak(Tracer):
    """bcc's. It knows one process; of several each gets one."""

    def __init__(self, load, folder):
        super().__init__(load, folder)
        path = shutil.which("memleak-bpfcc") or "/usr/sbin/memleak-bpfcc"
        if not os.access(path, os.X_OK):
            raise Unusable("memleak-bpfcc is not installed (package bpfcc-tools)")
        env = dict(os.environ, PYTHONUNBUFFERED="1", **kernel_headers(folder))
        for number, pid in enumerate(load.traced_pids()):
            self.start([path, "-p", str(pid), "-O", load.allocator_path(), "5"], "Top 10 stacks",
                       number, env=env)


class Bpftrace(Tracer):
    def __init__(self, load, folder):
        super().__init__(load, folder)
        path = shutil.which("bpftrace")
        if not path:
            raise Unusable("bpftrace is not installed")
        with open(os.path.join(HERE, "outstanding.bt"), encoding="utf-8") as f:
            script = f.read().replace("ALLOCATOR", load.allocator_path())
        name = os.path.join(folder, "outstanding.bt")
        with open(name, "w", encoding="utf-8") as f:
            f.write(script)
        env = dict(os.environ, BPFTRACE_MAP_KEYS_MAX="200000")
        self.start([path, name], "(?m)^ready", env=env)


class Heaptrack(Tracer):
    """It injects a library, by gdb."""

    def __init__(self, load, folder):
        super().__init__(load, folder)
        for name in ("heaptrack", "gdb"):
            if not shutil.which(name):
                raise Unusable(f"{name} is not installed")
        for number, pid in enumerate(load.traced_pids()):
            self.start(["heaptrack", "-p", str(pid), "-o", os.path.join(folder, f"out.{number}")],
                       "injection finished", number, cwd=folder)
            self.check_injected(pid)

    def check_injected(self, pid):
        try:
            with open(f"/proc/{pid}/maps", encoding="utf-8") as f:
                if "libheaptrack_inject" in f.read():
                    return
            why = "it did not get its library into the process"
        except OSError:
            why = "it ended the process"
        self.load.stop()
        self.stop()
        raise Unusable(why)
