# SPDX-License-Identifier: GPL-2.0-or-later
"""The Python interpreters of this machine, and programs run by them.

/usr/bin/python3 always; the newest that pyenv built (LEAKTOP_SOAK=1: all); and what
LEAKTOP_PYTHONS names: paths between colons, where PATH@ROOT is a python that is run by
chroot in the directory ROOT.
"""
import json
import os
import pathlib
import shutil
import subprocess
import tempfile

import pytest

from leaktop import ROOT, SOAK, Process

OLDEST = (3, 8)
SCRIPTS = ROOT / "tests" / "fixtures" / "python"
VERSION = "import sys; print('%d %d %d' % sys.version_info[:3])"
# What a program needs to embed it: include path, library path, name, prefix.
CONFIG = """
import sys, sysconfig
get = sysconfig.get_config_var
for value in (sysconfig.get_paths()["include"], get("LIBDIR"), get("LIBPL"),
              get("VERSION"), sys.base_prefix, get("LIBS"), get("SYSLIBS")):
    print(value or "")
"""


class Python:
    """One interpreter."""

    def __init__(self, path, root=None):
        self.path = path
        self.root = pathlib.Path(root) if root else None
        self.known_version = None

    @property
    def name(self):
        """For the parameters of tests."""
        return f"{self.path}@{self.root}" if self.root else self.path

    def command(self, *args):
        enter = ["chroot", self.root] if self.root else []
        return [*enter, self.path, *args]

    @property
    def version(self):
        """(3, 11, 2); the test is skipped if it does not run."""
        if not self.known_version:
            try:
                out = subprocess.run(self.command("-c", VERSION), stdout=subprocess.PIPE,
                                     timeout=20, text=True, check=True).stdout
            except (OSError, subprocess.SubprocessError) as error:
                pytest.skip(f"{self.name} does not run: {error}")
            self.known_version = tuple(map(int, out.split()))
        if self.known_version < OLDEST:
            pytest.skip(f"{self.name} is older than what is followed")
        return self.known_version


    def has_module(self, name):
        done = subprocess.run(self.command("-c", f"import {name}"), timeout=20, check=False,
                              stderr=subprocess.DEVNULL)
        return done.returncode == 0

    def embed(self, folder, static=False):
        """A program that embeds it: (path, environment to run it in)."""
        if self.root:
            pytest.skip("not built in a chroot")
        assert self.version
        out = subprocess.run(self.command("-c", CONFIG), stdout=subprocess.PIPE, timeout=20,
                             text=True, check=True).stdout
        include, libraries, config, version, prefix, libs, system = out.split("\n")[:7]
        # A static library lies in either; python3 may be linked against none.
        archive = next((p for p in (pathlib.Path(d) / f"libpython{version}.a"
                                    for d in (config, libraries)) if p.exists()), None)
        if not (pathlib.Path(include) / "Python.h").exists() or (static and not archive):
            pytest.skip(f"the headers or the library of {self.name} are not installed")
        program = pathlib.Path(folder) / f"embed-{version}{'-static' if static else ''}"
        library = [archive, "-no-pie", "-rdynamic", *libs.split(), *system.split(), "-lz", "-lexpat", "-lm"] \
            if static else [f"-L{libraries}", f"-lpython{version}", f"-Wl,-rpath,{libraries}"]
        done = subprocess.run(["cc", "-O1", "-g", f"-I{include}", SCRIPTS / "embed.c", "-o", program,
                               *library], stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            pytest.skip(f"{self.name} cannot be embedded: {done.stderr[-300:]}")
        return program, {"PYTHONHOME": prefix}


def minor_of(path):
    """Of VERSIONS/3.12.1/bin/python3."""
    return int(path.parts[-3].split(".")[1])


def find_pythons():
    """All of them, the system's first."""
    found = [Python("/usr/bin/python3")]
    for entry in filter(None, os.environ.get("LEAKTOP_PYTHONS", "").split(":")):
        path, _, root = entry.partition("@")
        found.append(Python(path, root or None))
    built = pathlib.Path.home() / ".pyenv" / "versions"
    own = sorted((p for p in built.glob("3.*/bin/python3") if minor_of(p) >= OLDEST[1]), key=minor_of)
    # The suite has a quarter of an hour: the newest of many.
    kept = own if SOAK else own[-1:]
    return found + [Python(str(p)) for p in kept]


class Script(Process):
    """A script of tests/fixtures/python that tells its truth in JSON files.

    It says "ready", waits for a line, says "done", and ends when its input does.
    """

    def __init__(self, python, name, *args, command=None, **options):
        tmp = python.root / "tmp" if python.root else None
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="leaktop-python-", dir=tmp))
        for script in SCRIPTS.glob("*.py"):
            shutil.copy(script, self.folder)
        inside = self.folder.relative_to(python.root) if python.root else self.folder
        inside = pathlib.Path("/") / inside
        env = {"PYTHONUTF8": "1", "PYTHONDONTWRITEBYTECODE": "1", **options.pop("env", {})}
        command = command or python.command()
        super().__init__([*command, inside / name, inside / "truth.json", *args], env=env,
                         **options)
        line = self.line(20)
        assert line and line.startswith("ready"), self.describe()

    def go(self, timeout=120):
        self.send("go\n")
        assert self.line(timeout) == "done", self.describe()

    def truths(self):
        """{part of the file's name: what was recorded}: "" of the program itself."""
        found = {}
        for path in sorted(self.folder.glob("truth.json*")):
            if path.suffix != ".end":
                part = path.name[len("truth.json"):].lstrip(".")
                found[part] = json.loads(path.read_text(encoding="ascii"))["records"]
        return found

    def end(self):
        super().end()
        shutil.rmtree(self.folder, ignore_errors=True)
