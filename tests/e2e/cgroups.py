# SPDX-License-Identifier: GPL-2.0-or-later
"""Control groups of the tests' own, on cgroup v1 and v2."""
import contextlib
import os
import pathlib
import time

import pytest


def mount_point(version):
    """Where a hierarchy of that version is mounted; for v1 the memory controller's or any other."""
    found = []
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        for line in mounts:
            _, where, kind, options, *_ = line.split()
            if kind == ("cgroup2" if version == 2 else "cgroup"):
                found.append(("memory" not in options.split(","), where))
    if not found:
        pytest.skip(f"no cgroup v{version} hierarchy is mounted")
    return pathlib.Path(min(found)[1])


def all_mount_points():
    """Every hierarchy in which a process has a place, as container engines use them all."""
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        return [pathlib.Path(line.split()[1]) for line in mounts
                if line.split()[2] in ("cgroup", "cgroup2")]


def join(directory, pid):
    (directory / "cgroup.procs").write_text(str(pid))


def remove(directory):
    """Its processes have ended; the kernel needs a moment to notice."""
    for path, _, _ in os.walk(directory, topdown=False):
        for _ in range(50):
            try:
                os.rmdir(path)
                break
            except FileNotFoundError:
                break
            except OSError:
                time.sleep(0.05)


@contextlib.contextmanager
def cgroup(version, name):
    directory = mount_point(version) / f"{name}-{os.getpid()}"
    directory.mkdir()
    try:
        yield directory
    finally:
        remove(directory)


@contextlib.contextmanager
def cgroup_everywhere(path):
    """The directory @path in every hierarchy: yields a function that puts a process into all."""
    directories = []
    made = []
    try:
        for top in all_mount_points():
            directory = top
            for part in pathlib.Path(path).parts:
                above, directory = directory, directory / part
                if not directory.exists():
                    directory.mkdir()
                    made.append(directory)
                for name in ("cpuset.cpus", "cpuset.mems"):
                    if (directory / name).exists() and not (directory / name).read_text().strip():
                        (directory / name).write_text((above / name).read_text())
            directories.append(directory)

        def put(pid):
            for directory in directories:
                (directory / "cgroup.procs").write_text(str(pid))
        yield put
    finally:
        for directory in reversed(made):
            remove(directory)
