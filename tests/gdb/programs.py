# SPDX-License-Identifier: GPL-2.0-or-later
"""The programs whose stacks are compared, and how each is built."""

import ctypes
import os
import shutil
import subprocess

SOURCES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "programs")
ADDR_NO_RANDOMIZE = 0x0040000  # <sys/personality.h>
LOW, HIGH = 1000000, 1999999  # as in programs/leak.h


class Skip(Exception):
    """The program cannot be had here."""


def tool(name, *others):
    for place in (name, *others):
        found = shutil.which(place)
        if found:
            return found
    raise Skip(f"no {name} here")


def source(name):
    return os.path.join(SOURCES, name)


def compile_with(compiler, args):
    done = subprocess.run([compiler, "-w", "-D_GNU_SOURCE", *args], capture_output=True,
                          text=True, check=False)
    if done.returncode:
        raise Skip("does not compile: " + done.stderr.strip().splitlines()[0])


class Program:
    """A C or C++ program built with @flags."""

    low, high = LOW, HIGH
    beside = None  # starts a process that talks to the program
    before_exec = None
    # Stacks may be cut: code without call frame information, or registers not followed.
    may_cut = False
    frees = False  # frees some of the blocks: leaktop then does not show their stacks

    def __init__(self, name, file, flags="-O2", compiler="gcc", arguments=()):
        self.name, self.file, self.flags = name, file, flags.split()
        self.compiler, self.arguments = compiler, list(arguments)

    def build(self, work):
        out = os.path.join(work, self.name)
        libs = ["-lpthread"] if self.compiler != "musl-gcc" else []
        compile_with(tool(self.compiler), [*self.flags, source(self.file), "-o", out, *libs])
        return [out, *self.arguments]


class WithLibrary(Program):
    """lazy.c and its library."""

    def build(self, work):
        lib = os.path.join(work, "liblazy.so")
        out = os.path.join(work, self.name)
        gcc = tool("gcc")
        compile_with(gcc, ["-O2", "-fPIC", "-shared", source("lazy_lib.c"), "-o", lib])
        compile_with(gcc, [*self.flags, source(self.file), "-o", out, lib, "-Wl,-rpath," + work])
        return [out]


class WithPlugins(Program):
    def build(self, work):
        libs = []
        for i, room in enumerate((100, 3000)):
            libs.append(os.path.join(work, f"plugin{i}.so"))
            compile_with(tool("gcc"), ["-O2", "-fPIC", "-shared", f"-DROOM={room}",
                                       source("plugin.c"), "-o", libs[i]])
        return super().build(work)[:1] + libs + self.arguments


class Rust(Program):
    def build(self, work):
        out = os.path.join(work, self.name)
        rustc = tool("rustc", os.path.expanduser("~/.cargo/bin/rustc"))
        done = subprocess.run([rustc, *self.flags, source(self.file), "-o", out],
                              capture_output=True, text=True, check=False)
        if done.returncode:
            raise Skip("does not compile: " + done.stderr.strip().splitlines()[0])
        return [out]


class Script(Program):
    """A script for an interpreter of the system."""

    def build(self, work):
        return [tool(self.compiler), *self.flags, source(self.file), *self.arguments]


class Frees(Script):
    frees = True


class Redis(Program):
    """A server whose allocator is jemalloc, told by a client what to store."""

    frees = True

    def build(self, work):
        self.socket = os.path.join(work, "socket")
        return [tool("redis-server"), "--port", "0", "--unixsocket", self.socket, "--save", "",
                "--appendonly", "no", "--dir", work]

    def beside(self):
        return subprocess.Popen(["/usr/bin/python3", source(self.file), self.socket])


class Compile(Program):
    """A compiler at work: whatever it allocates in a range of sizes."""

    low, high = 4000, 5000
    frees = True

    def build(self, work):
        return [tool(self.compiler), *self.flags, "-c", source(self.file), "-o",
                os.path.join(work, "out.o")]

    @staticmethod
    def before_exec():
        """Its tables are hashed by address: the same addresses as in gdb, please."""
        if ctypes.CDLL(None).personality(ADDR_NO_RANDOMIZE) < 0:
            raise OSError("personality")


class Query(Program):
    """A data base's page cache."""

    low, high = 65536, 80000
    frees = True

    def build(self, work):
        return [tool("sqlite3"), ":memory:",
                "pragma page_size=65536; create table t(x, y);"
                "with recursive n(i) as (select 1 union all select i + 1 from n where i < 3000)"
                " insert into t select i, hex(zeroblob(i % 500)) from n;"
                "create index a on t(y, x); create table u as select * from t order by y;"
                "update t set y = y || 'abc' where x % 2; delete from t where x % 7 = 0;"
                "create trigger g after insert on u begin insert into t values(new.x, 5); end;"
                "insert into u select x, y from t where x % 3 = 0;",
                ".system kill -KILL $PPID"]


def may_cut(program):
    program.may_cut = True
    return program


PROGRAMS = [
    Program("c-O2", "calls.c", "-O2"),
    Program("c-O3", "calls.c", "-O3 -fomit-frame-pointer"),
    Program("c-O0", "calls.c", "-O0 -g"),
    Program("c-Os", "calls.c", "-Os -g"),
    Program("c-O2-fp", "calls.c", "-O2 -fno-omit-frame-pointer"),
    Program("c-cet", "calls.c", "-O2 -fcf-protection=full"),
    Program("c-now", "calls.c", "-O2 -Wl,-z,now"),
    Program("c-lazy", "calls.c", "-O2 -Wl,-z,lazy -no-pie"),
    Program("c-debug-frame", "calls.c", "-O2 -g -fno-asynchronous-unwind-tables "
            "-fno-unwind-tables"),
    Program("c-lld", "calls.c", "-O2 -fuse-ld=lld"),
    Program("c-gold", "calls.c", "-O2 -fuse-ld=gold"),
    Program("c-clang", "calls.c", "-O2", "clang"),
    Program("recursion", "recursion.c", "-O2 -fno-optimize-sibling-calls"),
    Program("alloca", "alloca.c"),
    Program("realign", "realign.c", "-O2 -mavx"),
    Program("realign-O0", "realign.c", "-O0 -mavx -mstackrealign"),
    Program("realign-clang", "realign.c", "-O2 -mavx -mstackrealign", "clang"),
    Program("stackrealign", "calls.c", "-O2 -mstackrealign"),
    Program("tailcall", "tailcall.c"),
    Program("callbacks", "callbacks.c"),
    Program("signals", "signals.c"),
    Program("threads", "threads.c"),
    may_cut(Program("assembly", "assembly.c")),
    may_cut(Program("context", "context.c")),
    may_cut(Program("no-cfi", "no_cfi.c")),
    WithLibrary("plt-lazy", "lazy.c", "-O2 -Wl,-z,lazy"),
    WithLibrary("plt-now", "lazy.c", "-O2 -Wl,-z,now"),
    WithLibrary("plt-cet", "lazy.c", "-O2 -Wl,-z,lazy -fcf-protection=full -Wl,-z,ibtplt"),
    may_cut(WithPlugins("plugin", "plugin_host.c", "-O2", arguments=["300"])),
    may_cut(WithPlugins("plugin-at-once", "plugin_host.c", "-O2", arguments=["0"])),
    Program("static-calls", "calls.c", "-O2 -static"),
    Program("static-pie", "callbacks.c", "-O2 -static-pie"),
    Program("static-signals", "signals.c", "-O2 -static"),
    Program("static-threads", "threads.c", "-O2 -static"),
    Program("c++-O2", "exceptions.cc", "-O2", "g++"),
    Program("c++-O0", "exceptions.cc", "-O0 -g", "g++"),
    Program("c++-clang", "exceptions.cc", "-O2", "clang++"),
    Program("c++-static", "exceptions.cc", "-O2 -static", "g++"),
    may_cut(Program("musl-calls", "calls.c", "-O2", "musl-gcc")),
    may_cut(Program("musl-callbacks", "callbacks.c", "-O2", "musl-gcc")),
    may_cut(Program("musl-signals", "signals.c", "-O2", "musl-gcc")),
    may_cut(Program("musl-threads", "threads.c", "-O2", "musl-gcc")),
    may_cut(Program("musl-static", "calls.c", "-O2 -static", "musl-gcc")),
    may_cut(Program("musl-static-signals", "signals.c", "-O2 -static", "musl-gcc")),
    Rust("rust", "panics.rs", "-O"),
    Rust("rust-debug", "panics.rs", "-g"),
    Script("python3", "service.py", "-I", "/usr/bin/python3"),
    Script("perl", "service.pl", "", "/usr/bin/perl"),
    Frees("bash", "service.sh", "", "/bin/bash"),
    Redis("redis", "redis_client.py"),
    Query("sqlite3", ""),
    Compile("clang", "calls.c", "-O2 -g", "clang"),
    may_cut(Script("node", "service.js", "--single-threaded", "/usr/bin/node")),
]
