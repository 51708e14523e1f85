# SPDX-License-Identifier: GPL-2.0-or-later
"""Real programs under load while leaktop watches the whole system."""
import os
import pathlib
import pwd
import shutil
import socket
import subprocess
import time

import pytest

from leaktop import Leaktop, Process, reported_pids, wait_until

# Their stacks are whole if tables and mappings are read in time.
pytestmark = pytest.mark.alone

LOAD_S = 5


def need(*programs):
    for program in programs:
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def answers(port):
    with socket.socket() as s:
        s.settimeout(0.2)
        return s.connect_ex(("127.0.0.1", port)) == 0


def watched(load, *target):
    """Runs the command `load` under leaktop: (its output, last report)."""
    with Leaktop(*target, "--format", "json", "-T", "50", "2") as tool:
        tool.first_report()
        done = subprocess.run([str(a) for a in load], stdout=subprocess.PIPE, text=True,
                              stderr=subprocess.STDOUT, timeout=180, check=False)
        assert done.returncode == 0, done.stdout[-2000:]
        report = tool.final()
    return done.stdout, report


def assert_sensible(report, pid):
    assert pid in reported_pids(report)
    process = next(p for p in report["processes"] if p["pid"] == pid)
    assert 0 <= process["live_bytes"] < 8 * process["rss_bytes"] + (64 << 20)
    assert report["stacks"]
    named = [s for s in report["stacks"] if any(f["function"] for f in s["frames"])]
    assert len(named) >= len(report["stacks"]) / 2


def complete(report):
    """The share of whole stacks; those cut are told, by reason."""
    share = report["coverage"]["stacks_complete_pct"]
    print(f"{share:.2f} % complete", report["loss"]["unwind_errors"],
          report["loss"]["unwind_errors_by_object"][:5])
    return share


SERVICE = """
import http.server, json, sys
kept = []
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        kept.append(json.dumps({"numbers": list(range(300)), "path": self.path * 50}).encode())
        self.send_response(200)
        self.send_header("Content-Length", str(len(kept[-1])))
        self.end_headers()
        self.wfile.write(kept[-1])
    def log_message(self, *args):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""
CLIENT = """
import sys, urllib.request
for i in range(1000):
    urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/{i}").read()
"""


def test_python_service():
    with Process(["/usr/bin/python3", "-c", SERVICE]) as server:
        port = server.line(20)
        _, report = watched(["/usr/bin/python3", "-c", CLIENT, port], "-p", server.pid)
        assert_sensible(report, server.pid)
        assert complete(report) >= 99
        bottoms = {s["frames"][-1]["function"] for s in report["stacks"] if not s["incomplete"]}
        assert bottoms & {"_start", "__clone3", "clone3", "__GI___clone3", "clone", "__clone"}, bottoms


def test_node_service():
    """JavaScript: the JIT's code by its perf map, V8's builtins by their machine code."""
    need("node")
    script = ("const http = require('http'), kept = []; function remember() "
              "{ kept.push(Buffer.alloc(20000)); } const s = http.createServer((q, r) => "
              "{ remember(); r.end('x'); }).listen(0, '127.0.0.1', () => "
              "console.log(s.address().port))")
    with Process(["node", "--perf-basic-prof", "-e", script]) as server:
        port = server.line(20)
        time.sleep(1)
        _, report = watched(["/usr/bin/python3", "-c", CLIENT, port], "-p", server.pid)
        assert_sensible(report, server.pid)
        assert complete(report) >= 98
    named = [s for s in report["stacks"] for f in s["frames"]
             if (f["function"] or "").startswith("JS:")]
    assert named, "no frame is named by the perf map"
    pathlib.Path(f"/tmp/perf-{server.pid}.map").unlink(missing_ok=True)


def test_compile_job(tmp_path):
    """Each process is over in less than a second; the tables serve the next one."""
    need("clang")
    folder = pathlib.Path(__file__).parents[1] / "fixtures"
    job = f"for i in 1 2 3 4 5 6; do clang -O2 -c {folder}/churn.c -o {tmp_path}/x.o; done"
    with Leaktop("--format", "json", "--", "sh", "-c", job) as tool:
        report = tool.report(180)
    assert complete(report) >= 90


def test_redis(tmp_path):
    need("redis-server", "redis-benchmark", "redis-cli")
    port = free_port()
    with Process(["redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir",
                  tmp_path, "--appendonly", "no"]) as server:
        assert wait_until(lambda: answers(port)), server.describe()
        out, report = watched(["redis-benchmark", "-p", port, "-n", "30000", "-r", "10000", "-q",
                               "-t", "set,get,lpush,incr"], "-a")
        print(out.replace("\r", "\n")[-400:])
        assert_sensible(report, server.pid)
        redis = next(a for a in report["coverage"]["allocators"]
                     if a["pid"] == server.pid and a["allocator"] == "jemalloc")
        assert "malloc" in redis["functions"] or "je_malloc" in redis["functions"]
        pong = subprocess.run(["redis-cli", "-p", str(port), "ping"], stdout=subprocess.PIPE,
                              text=True, check=True).stdout
        assert pong.strip() == "PONG"
        # What is live grew by the keys: 10,000 of them at the very least.
        process = next(p for p in report["processes"] if p["pid"] == server.pid)
        assert process["live_bytes"] > 300_000
        _, report = watched(["redis-benchmark", "-p", port, "-n", "20000", "-r", "10000", "-q",
                             "-t", "set,lpush,hset"], "-p", server.pid)
        assert complete(report) >= 99
        assert server.popen.poll() is None


NGINX_CONF = """
daemon off; pid {dir}/pid; error_log {dir}/error.log; user root; worker_processes 2;
events {{ worker_connections 256; }}
http {{ access_log off; client_body_temp_path {dir}/b; proxy_temp_path {dir}/p;
fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s; root {dir}/www;
server {{ listen 127.0.0.1:{port}; gzip on; gzip_types *; }} }}
"""


def test_nginx(tmp_path):
    need("nginx", "wrk")
    port = free_port()
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "index.html").write_text("<p>hello</p>" * 500)
    (tmp_path / "conf").write_text(NGINX_CONF.format(dir=tmp_path, port=port))
    with Process(["nginx", "-c", tmp_path / "conf", "-e", tmp_path / "error.log"]) as server:
        assert wait_until(lambda: answers(port)), server.describe()
        out, report = watched(["wrk", "-t", "1", "-c", "16", "-d", f"{LOAD_S}s",
                               f"http://127.0.0.1:{port}/"], "-a")
        print(out)
        assert "Non-2xx" not in out
        assert "Socket errors" not in out
        assert any(p["comm"] == "nginx" for p in report["processes"])
        log = (tmp_path / "error.log").read_text()
        assert "exited on signal" not in log and "[alert]" not in log, log
        assert server.popen.poll() is None
        server.signal(15)
        assert server.wait() == 0


def postgres_programs():
    need("pgbench", "psql")
    folder = max(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), default=None)
    if not folder or not (folder / "initdb").exists():
        pytest.skip("initdb is not installed")
    try:
        return folder, pwd.getpwnam("postgres")
    except KeyError:
        pytest.skip("no user postgres")


def test_postgresql(tmp_path_factory):
    """Prefork: each session is a process of its own that comes and goes."""
    folder, user = postgres_programs()
    data = tmp_path_factory.mktemp("pg")
    for path in (data, data.parent, data.parent.parent):
        os.chmod(path, 0o755)
    home = data / "db"
    home.mkdir(mode=0o700)
    os.chown(home, user.pw_uid, user.pw_gid)
    as_user = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    port = free_port()
    subprocess.run([*as_user, folder / "initdb", "-D", home, "-A", "trust", "-U", "postgres"],
                   check=True, stdout=subprocess.DEVNULL, cwd=home, timeout=120)
    with Process([*as_user, folder / "postgres", "-D", home, "-p", port, "-k", home, "-h",
                  "127.0.0.1"], cwd=home) as server:
        assert wait_until(lambda: answers(port), 20), server.describe()
        time.sleep(1)
        connect = ["-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "postgres"]
        subprocess.run(["pgbench", "-i", "-q", *connect], check=True, timeout=120,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        out, report = watched(["pgbench", "-c", "4", "-T", str(LOAD_S), *connect], "-a")
        print(out)
        assert "aborted" not in out
        assert any(p["comm"].startswith("postgres") for p in report["processes"])
        _, report = watched(["pgbench", "-c", "2", "-T", "5", *connect], "-p", server.pid)
        assert complete(report) >= 99
        server.signal(2)
        assert server.wait(30) == 0
        said = server.stderr
        assert "terminated by signal" not in said and "PANIC" not in said, said[-2000:]
