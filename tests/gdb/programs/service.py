# SPDX-License-Identifier: GPL-2.0-or-later
import ctypes
import functools
import json
import os
import re
import signal
import threading
import time

time.sleep(0.5)  # the extension modules are loaded
libc = ctypes.CDLL(None)
libc.malloc.argtypes = [ctypes.c_size_t]
libc.malloc.restype = ctypes.c_void_p
keep = []


def leak(k):
    keep.append(bytearray(1000000 + 1000 * k))


def recurse(depth, k):
    if depth:
        return recurse(depth - 1, k)
    return leak(k)


class Item:
    def __init__(self, n):
        self.n = n

    def __lt__(self, other):
        if not Item.done:
            Item.done = True
            leak(4)
        return self.n < other.n

    def __del__(self):
        if self.n == 3:
            leak(5)

    done = False


def generate():
    leak(6)
    yield 1
    leak(7)


COMPARE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int),
                           ctypes.POINTER(ctypes.c_int))
called = []


@COMPARE
def compare(a, b):
    if not called:
        called.append(1)
        leak(10)
        libc.malloc(1000000 + 11000)
    return a[0] - b[0]


def on_signal(signo, frame):
    leak(12)


def in_thread():
    leak(13)
    libc.malloc(1000000 + 14000)


leak(1)
recurse(1, 2)
recurse(20, 3)
items = [Item(i % 5) for i in range(5, 0, -1)]
items.sort()
del items
list(generate())
libc.malloc(1000000 + 9000)
numbers = (ctypes.c_int * 20)(*range(20, 0, -1))
libc.qsort(numbers, 20, 4, compare)
signal.signal(signal.SIGUSR1, on_signal)
os.kill(os.getpid(), signal.SIGUSR1)
thread = threading.Thread(target=in_thread)
thread.start()
thread.join()
json.loads('{"a": 1}', object_hook=lambda o: leak(15))
re.sub("x", lambda m: leak(16) or "y", "axb")
functools.reduce(lambda a, b: leak(17), [1, 2])
keep.append(b"x" * (1000000 + 18000))
keep.append("x" * (1000000 + 19000))
eval(compile("leak(20)", "<text>", "exec"))
try:
    raise ValueError
except ValueError:
    leak(21)
finally:
    leak(22)
os._exit(0)
