# SPDX-License-Identifier: GPL-2.0-or-later
"""The traced program of python_cost: `python_load.py TRACEMALLOC_FRAMES`.

Runs what each line on its standard input asks for, `LOAD DEPTH TIMES`, and answers
with the CPU nanoseconds that one time took. DEPTH is how many layers, each a call,
lie between the top and the work.
"""
import dataclasses
import email
import io
import json
import logging
import os
import sys
import time
import urllib.parse

LOG = logging.getLogger("bench")


@dataclasses.dataclass
class Customer:
    name: str
    city: str
    tags: list = dataclasses.field(default_factory=list)


class Order:
    def __init__(self, number, customer, lines):
        self.number = number
        self.customer = customer
        self.lines = lines
        self.total = sum(price * count for _, price, count in lines)

    def to_dict(self):
        return {"number": self.number, "customer": dataclasses.asdict(self.customer),
                "lines": [{"article": a, "price": p, "count": c} for a, p, c in self.lines],
                "total": self.total}


def objects(times):
    """Nothing but allocations and their frees: an object and the loop's number."""
    for _ in range(times):
        object()


def parse_request(number):
    """What a client sends: a header, and a query string."""
    text = (f"Host: shop.example\nUser-Agent: bench/{number % 7}\nAccept: text/html, */*\n"
            f"Cookie: session={number:08x}; theme=dark\nContent-Type: application/json\n\n")
    header = email.message_from_string(text)
    query = urllib.parse.parse_qs(f"page={number}&sort=price&tag=new&tag=caf%C3%A9")
    cookies = dict(part.strip().split("=", 1) for part in header["Cookie"].split(";"))
    return header, query, cookies


def handle(number):
    header, query, cookies = parse_request(number)
    customer = Customer(f"customer {number % 100}", "Zürich", query["tag"])
    order = Order(number, customer, [(f"article-{number + i}", i * 1.25, i) for i in range(8)])
    LOG.info("order %d of %s for %.2f", order.number, cookies["session"], order.total)
    body = json.dumps(order.to_dict(), indent=1 if number % 4 == 0 else None)
    back = json.loads(body)
    by_article = {line["article"]: line for line in back["lines"]}
    rows = []
    for name in sorted(by_article):
        line = by_article[name]
        rows.append("<td>%s</td><td>%d</td>" % (name.upper(), line["count"]))
    page = "\n".join(rows) + header["User-Agent"]
    return page.encode("utf-8").split(b"\n")


def service(times):
    """Requests to a small web service."""
    for number in range(times):
        handle(number)


class Layer:
    """As middleware is: it looks at the request, passes it on and looks at the answer."""

    def __init__(self, inner, name):
        self.inner = inner
        self.name = name
        self.calls = 0
        self.seconds = 0.0

    def __call__(self, work, times):
        begin = time.perf_counter()
        self.calls += 1
        if not callable(work):
            raise TypeError(f"{self.name}: {work!r} is no work")
        if times <= 0:
            return None
        try:
            if self.inner is not None:
                answer = self.inner(work, times)
            else:
                answer = work(times)
        except Exception:
            LOG.exception("%s failed", self.name)
            raise
        finally:
            self.seconds += time.perf_counter() - begin
        return answer


def layers(depth):
    top = None
    for i in range(depth):
        top = Layer(top, f"layer {i}")
    return top


def main():
    logging.basicConfig(stream=io.StringIO(), level=logging.INFO)
    frames = int(sys.argv[1])
    if frames:
        import tracemalloc
        tracemalloc.start(frames)
    print("ready", os.getpid(), flush=True)
    for line in sys.stdin:
        load, depth, times = line.split()
        work = {"objects": objects, "service": service}[load]
        top = layers(int(depth))
        begin = time.thread_time_ns()
        top(work, int(times))
        print((time.thread_time_ns() - begin) / int(times), flush=True)


main()
