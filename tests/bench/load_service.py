# SPDX-License-Identifier: GPL-2.0-or-later
"""The Python service of `services`: `load_service.py TRACEMALLOC_FRAMES`.

The requests of python_load.py, ten calls deep, spoken to as load.h describes.
"""
import io
import sys
import time

# It runs what its input asks for when it is imported, which is nothing here; it starts
# tracemalloc and says "ready", too.
LINES, sys.stdin = sys.stdin, io.StringIO()
import python_load

DEPTH = 10


def quantile(ordered, fraction):
    return ordered[min(int(fraction * len(ordered)), len(ordered) - 1)]


def run(seconds, top):
    durations = []
    begin = now = time.perf_counter_ns()
    while now < begin + seconds * 1e9:
        before = now
        top(lambda times: python_load.handle(len(durations)), 1)
        now = time.perf_counter_ns()
        durations.append(now - before)
    durations.sort()
    print(len(durations), now - begin, *(quantile(durations, q) for q in (0.5, 0.99, 0.999)),
          flush=True)


def main():
    top = python_load.layers(DEPTH)
    for line in LINES:
        run(float(line), top)


main()
