# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes a redis server allocate in several ways, then ends it."""
import socket
import sys
import time


def connect(path):
    for _ in range(600):
        s = socket.socket(socket.AF_UNIX)
        try:
            s.connect(path)
            return s
        except OSError:
            time.sleep(0.1)
    sys.exit("no server")


def say(s, *words):
    data = b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in words)
    s.sendall(b"*%d\r\n" % len(words) + data)
    return s.recv(1 << 16)


server = connect(sys.argv[1])
server.settimeout(100)
time.sleep(0.5)
say(server, b"SETRANGE", b"a", b"1000100", b"x")
say(server, b"APPEND", b"b", b"x" * 1002000)
say(server, b"SETBIT", b"c", b"8040000", b"1")
say(server, b"EVAL", b"redis.call('SETRANGE', 'd', 1006000, 'x')", b"0")
say(server, b"EVAL", b"kept = string.rep; redis.call('SET', 'e', string.rep('x', 1007000))", b"0")
say(server, b"MULTI")
say(server, b"SETRANGE", b"f", b"1008000", b"x")
say(server, b"EXEC")
say(server, b"LPUSH", b"g", b"x" * 1009000)
say(server, b"HSET", b"h", b"field", b"x" * 1010000)
try:
    say(server, b"SHUTDOWN", b"NOSAVE")
except OSError:
    pass
