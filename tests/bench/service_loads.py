# SPDX-License-Identifier: GPL-2.0-or-later
"""The loads of `services`.

Each instance runs on private copies of the libraries that a tracer puts probes into: a
probe sits in a file's pages, and so would show in every other instance of that file.
An instance does nothing between two measurements.
"""
import bisect
import dataclasses
import glob
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time

import processes
from processes import Unusable

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.path.abspath(os.environ.get("BUILD", "build"))
PROGRAMS = os.path.join(BUILD, "bench")
PROBED = ("libc.so", "libstdc++.so", "libjemalloc.so", "libpython", "libload_store.so")
ANSWER_TIMEOUT_S = 60


@dataclasses.dataclass
class Sample:
    operations: int
    seconds: float
    p50_us: float = None
    p99_us: float = None
    p999_us: float = None


def find_program(name, patterns=()):
    path = shutil.which(name)
    for pattern in () if path else patterns:
        path = max(glob.glob(pattern), default=None)
    if not path:
        raise Unusable(f"{name} is not installed")
    return path


def bench_program(name):
    path = os.path.join(PROGRAMS, name)
    if not os.access(path, os.X_OK):
        raise Unusable(f"{path} is not built (make bench-services)")
    return path


def copy_libraries(program, folder):
    """Of what @program is linked with, what may be probed."""
    out = subprocess.run(["ldd", program], text=True, capture_output=True, check=True,
                         env=dict(os.environ, LD_LIBRARY_PATH=PROGRAMS)).stdout
    for line in out.splitlines():
        words = line.split()
        if len(words) > 2 and words[0].startswith(PROBED):
            target = os.path.join(folder, words[0])
            if not os.path.exists(target):
                shutil.copy(words[2], target)


def unprivileged_user():
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise Unusable("no unprivileged user to run it as")


def as_user(user):
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def hand_over(folder, user):
    os.chmod(folder, 0o755)
    os.chown(folder, user.pw_uid, user.pw_gid)


class Load:
    """One instance. @folder is its own, but for an untargeted one that shares the libraries
    of a traced one: then @libraries is that one's."""
    unit = "operations"
    python = False
    latency = "of an operation, closed loop"
    allocator = "libc.so.6"

    def __init__(self, folder, libraries=None):
        self.folder = folder
        self.libraries = libraries or folder
        self.processes = []

    def env(self, **more):
        return dict(os.environ, LD_LIBRARY_PATH=self.libraries, **more)

    def private_program(self, path):
        copy_libraries(path, self.libraries)
        target = os.path.join(self.libraries, os.path.basename(path))
        if not os.path.exists(target):
            shutil.copy(path, target)
        return target

    def allocator_path(self):
        return os.path.join(self.libraries, self.allocator)

    def start(self, command, **options):
        process = processes.start_talking(command, **options)
        self.processes.append(process)
        return process, processes.read_line(process, ANSWER_TIMEOUT_S).split()

    def traced_pids(self):
        return [self.processes[0].pid]

    def busy_pids(self):
        """Those whose CPU time is the load's."""
        return self.traced_pids()

    def ask(self, process, seconds):
        """As load.h describes."""
        try:
            print(seconds, file=process.stdin, flush=True)
        except BrokenPipeError:
            raise Unusable(f"the load ended ({process.wait()})") from None
        words = processes.read_line(process, ANSWER_TIMEOUT_S + 10 * seconds).split()
        operations, wall, *quantiles = [int(w) for w in words]
        return Sample(operations, 1e-9 * wall, *(1e-3 * q for q in quantiles))

    def measure(self, seconds):
        """Its Sample, which may only be filled in by finish()."""
        return self.ask(self.processes[-1], seconds)

    def finish(self):
        """No more measurements."""

    def stop(self):
        for process in reversed(self.processes):
            processes.end(process)


class Malloc1(Load):
    text = "a loop of malloc(64) and free, 1 thread"
    unit = "pairs"
    latency = "of 1,000 pairs"
    threads = 1

    def begin(self, _):
        program = self.private_program(bench_program("load_loop"))
        self.start([program, str(self.threads), "64"], env=self.env())


class Malloc4(Malloc1):
    text = "a loop of malloc(64) and free, 4 threads"
    threads = 4


class Server(Load):
    text = "a C server, 6 allocations a request"
    unit = "requests"
    rate, connections = 10000, 16
    latency = "open loop, from the moment a request was due"

    def begin(self, _):
        program = self.private_program(bench_program("load_server"))
        _, (_, _, port) = self.start([program], env=self.env())
        self.start([bench_program("load_client"), port, str(self.rate), str(self.connections)])


class Cxx(Load):
    text = "a C++ service: maps, strings, objects; new and delete in a shared library"
    unit = "requests"

    def begin(self, _):
        program = self.private_program(bench_program("load_service"))
        self.start([program], env=self.env())


class Python(Load):
    text = "a Python service: mail, JSON, dataclasses, logging"
    unit = "requests"
    python = True
    interpreter = os.environ.get("BENCH_PYTHON", "/usr/bin/python3")

    def begin(self, variant):
        out = subprocess.run([self.interpreter, "-c", "import sys; print(sys.prefix)"], text=True,
                             capture_output=True, check=True).stdout
        program = self.private_program(os.path.realpath(self.interpreter))
        for name in ("load_service.py", "python_load.py"):
            shutil.copy(os.path.join(HERE, name), self.folder)
        self.start([program, os.path.join(self.folder, "load_service.py"),
                    str(variant.tracemalloc_frames)], env=self.env(PYTHONHOME=out.strip()))


class Redis(Load):
    text = "Redis, SET of 512 bytes to 10,000 keys, 16 connections, by redis-benchmark"
    unit = "commands"
    allocator = "libjemalloc.so.2"
    latency = "closed loop, by redis-benchmark"

    def begin(self, _):
        server = find_program("redis-server")
        self.client = find_program("redis-benchmark")
        user = unprivileged_user()
        hand_over(self.folder, user)
        self.socket = os.path.join(self.folder, "socket")
        self.processes.append(processes.start(
            [self.private_program(server), "--port", "0", "--unixsocket", self.socket,
             "--save", "", "--appendonly", "no", "--dir", self.folder],
            env=self.env(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            **as_user(user)))
        processes.wait_for(self.answers, self.processes[0], 20, "redis-server")
        self.per_second = self.benchmark(2000).operations

    def answers(self):
        with socket.socket(socket.AF_UNIX) as s:
            try:
                s.connect(self.socket)
                s.sendall(b"PING\r\n")
                return s.recv(64) == b"+PONG\r\n"
            except OSError:
                return False

    def benchmark(self, count):
        client = processes.start(
            [self.client, "-s", self.socket, "-c", "16", "-n", str(count), "-r", "10000",
             "-d", "512", "-t", "set", "--csv"], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        try:
            out, _ = client.communicate(timeout=ANSWER_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise Unusable("redis-benchmark does not end") from None
        finally:
            processes.end(client)
        if self.processes[0].poll() is not None:
            raise Unusable(f"the load ended ({self.processes[0].returncode})")
        # "test","rps","avg_latency_ms","min_latency_ms","p50","p95","p99","max"
        fields = [word.strip('"') for word in out.splitlines()[-1].split(",")]
        rate = float(fields[1])
        return Sample(count, count / rate, 1e3 * float(fields[4]), 1e3 * float(fields[6]))

    def measure(self, seconds):
        """redis-benchmark takes a number: as many as the last run did in that time."""
        sample = self.benchmark(max(200, int(self.per_second * seconds)))
        self.per_second = sample.operations / sample.seconds
        return sample


class PostgreSQL(Load):
    text = "PostgreSQL, pgbench -S, 2 clients, simple protocol"
    unit = "transactions"
    latency = "closed loop, by pgbench's log"
    clients = 2
    template = None
    bin = ("/usr/lib/postgresql/*/bin/", "/usr/pgsql-*/bin/", "/usr/bin/")

    def begin(self, _):
        self.user = unprivileged_user()
        if not PostgreSQL.template or not os.path.exists(PostgreSQL.template):
            self.make_template()
        hand_over(self.folder, self.user)
        data = os.path.join(self.folder, "data")
        subprocess.run(["cp", "-a", PostgreSQL.template, data], check=True)
        self.start_server(data)
        self.start_clients()

    def tool(self, name):
        return find_program(name, [folder + name for folder in self.bin])

    def run_tool(self, name, *arguments):
        done = subprocess.run([self.tool(name), *arguments], text=True, capture_output=True,
                              cwd="/", env=dict(os.environ, LC_ALL="C"), **as_user(self.user))
        if done.returncode:
            raise Unusable(f"{name}: {(done.stderr or done.stdout).strip().splitlines()[-1]}")

    def make_template(self):
        """One cluster with the tables of pgbench, for all instances to copy."""
        folder = os.path.join(os.path.dirname(os.path.dirname(self.folder)), "pg")
        os.mkdir(folder)
        hand_over(folder, self.user)
        data = os.path.join(folder, "data")
        self.run_tool("initdb", "-D", data, "-U", "bench", "-A", "trust", "-N", "--no-locale")
        maker = PostgreSQL(folder)
        maker.user = self.user
        maker.start_server(data)
        try:
            self.run_tool("createdb", "-h", folder, "-U", "bench", "bench")
            self.run_tool("pgbench", "-h", folder, "-U", "bench", "-i", "-q", "-s", "2", "bench")
        finally:
            maker.stop()
        PostgreSQL.template = data

    def start_server(self, data):
        postgres = self.tool("postgres")
        copy_libraries(postgres, self.libraries)
        options = ("listen_addresses=", f"unix_socket_directories={self.folder}", "fsync=off",
                   "autovacuum=off", "shared_buffers=64MB", "jit=off")
        server = processes.start(
            [postgres, "-D", data, *(word for o in options for word in ("-c", o))],
            env=self.env(), cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, **as_user(self.user))
        self.processes.append(server)
        ready = [self.tool("pg_isready"), "-q", "-h", self.folder]
        processes.wait_for(lambda: not subprocess.run(ready, check=False).returncode, server, 30,
                           "postgres")

    def start_clients(self):
        """They are there all the time, and stopped between measurements: a tracer that knows
        no children can then be given the processes that serve them."""
        self.log = os.path.join(self.folder, "log")
        pgbench = processes.start(
            [self.tool("pgbench"), "-h", self.folder, "-U", "bench", "-n", "-S",
             "-c", str(self.clients), "-T", "1000000", "-l", "--log-prefix", self.log, "bench"],
            cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, **as_user(self.user))
        self.processes.append(pgbench)
        processes.wait_for(lambda: len(self.backends()) == self.clients, pgbench, 20, "pgbench")
        self.log += f".{pgbench.pid}"
        pgbench.send_signal(signal.SIGSTOP)
        self.measured = []

    def backends(self):
        def serves(pid):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as f:
                    return b"bench bench" in f.read()
            except OSError:
                return False
        return [pid for pid in processes.children(self.processes[0].pid) if serves(pid)]

    def traced_pids(self):
        return self.backends()

    def busy_pids(self):
        return self.backends()

    def measure(self, seconds):
        if len(self.backends()) != self.clients:
            raise Unusable("its backends ended")
        pgbench = self.processes[1]
        begin = time.time()
        pgbench.send_signal(signal.SIGCONT)
        time.sleep(seconds)
        pgbench.send_signal(signal.SIGSTOP)
        sample = Sample(0, time.time() - begin)
        self.measured.append((begin, sample))
        return sample

    def finish(self):
        """The log is written by the page, so only after a while it has all that was done."""
        pgbench = self.processes[1]
        pgbench.send_signal(signal.SIGCONT)
        time.sleep(0.5)
        pgbench.send_signal(signal.SIGSTOP)
        done = self.read_log()
        starts = [start for start, _, _ in done]
        for begin, sample in self.measured:
            first = bisect.bisect_left(starts, begin)
            last = bisect.bisect_left(starts, begin + sample.seconds)
            durations = sorted(d for _, d, end in done[first:last] if end < begin + sample.seconds)
            sample.operations = len(durations)
            if durations:
                at = [durations[int(q * len(durations))] for q in (0.5, 0.99, 0.999)]
                sample.p50_us, sample.p99_us, sample.p999_us = at

    def read_log(self):
        """(start, microseconds, end) of the transactions, in order. One that was under way while
        pgbench stood still started before a measurement, or ended after it."""
        done = []
        with open(self.log, encoding="ascii") as f:
            for line in f:
                if line.endswith("\n"):
                    # client, number, microseconds, script, seconds and microseconds of its end
                    _, _, duration, _, second, micro = line.split()[:6]
                    end = int(second) + 1e-6 * int(micro)
                    done.append((end - 1e-6 * int(duration), int(duration), end))
        return sorted(done)


LOADS = {"malloc-1": Malloc1, "malloc-4": Malloc4, "server": Server, "cxx": Cxx,
         "python": Python, "redis": Redis, "postgresql": PostgreSQL}
