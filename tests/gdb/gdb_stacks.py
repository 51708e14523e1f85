# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs inside gdb: stops the program at each allocation whose size is wanted and writes
every stack, one JSON object a line, to $STACKS_OUT. Physical frames only."""

import json
import os
import sys

import gdb

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from elf import Elf  # pylint: disable=wrong-import-position

MIN, MAX = int(os.environ["STACKS_MIN"]), int(os.environ["STACKS_MAX"])
SIZES = {
    "malloc": "$rdi", "calloc": "$rdi * $rsi", "realloc": "$rsi", "memalign": "$rsi",
    "aligned_alloc": "$rsi", "posix_memalign": "$rdx",
}
VIRTUAL = (gdb.INLINE_FRAME, gdb.TAILCALL_FRAME)
AT_ENTRY = 9


def mappings(pid):
    rows = []
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as f:
        for line in f:
            words = line.rstrip("\n").split(None, 5)
            start, end = (int(x, 16) for x in words[0].split("-"))
            rows.append((start, end, int(words[2], 16), words[5] if len(words) > 5 else ""))
    return rows


def entry(pid):
    with open(f"/proc/{pid}/auxv", "rb") as f:
        raw = f.read()
    for i in range(0, len(raw) - 15, 16):
        if int.from_bytes(raw[i:i + 8], "little") == AT_ENTRY:
            return int.from_bytes(raw[i + 8:i + 16], "little")
    raise gdb.GdbError("no AT_ENTRY")


def break_at_allocators(pid):
    seen, names = set(), {}
    for start, _, offset, path in mappings(pid):
        if not path.startswith("/") or path in seen:
            continue
        seen.add(path)
        elf = Elf(path)
        for name, vaddr in elf.functions(SIZES).items():
            first = next(v for o, v, _ in elf.loads if o & ~4095 == offset)
            address = start + vaddr - (first & ~4095)
            if address in names:
                continue
            names[address] = name
            size = SIZES[name]
            gdb.execute(f"break *{address:#x} if {size} >= {MIN} && {size} <= {MAX}",
                        to_string=True)
    return names


def is_allocator(frame):
    name = frame.name() or ""
    return name in SIZES or name.startswith(("operator new", "__libc_calloc", "__libc_malloc",
                                             "__libc_realloc", "default_calloc",
                                             "default_malloc", "_Znwm", "_Znam"))


def place(rows, pc):
    for start, end, offset, path in rows:
        if start <= pc < end:
            return path, pc - start + offset
    return "", None


def walk(rows):
    """The stack above the allocator, how many of its first frames belong to allocators,
    whether none of these is one of ours, and why gdb stopped if by an error."""
    frames, exact, outer, head = [], False, True, 0
    frame = gdb.newest_frame().older()
    while frame is not None and frame.is_valid():
        if frame.type() not in VIRTUAL:
            if len(frames) == head and is_allocator(frame):
                head += 1
                outer = outer and frame.name() not in SIZES
            path, offset = place(rows, frame.pc() - (0 if exact else 1))
            frames.append({"path": path, "offset": offset, "name": frame.name(),
                           "signal": frame.type() == gdb.SIGTRAMP_FRAME})
            # A signal frame's caller did not call: its pc is the interrupted instruction.
            exact = frame.type() == gdb.SIGTRAMP_FRAME
        last, frame = frame, frame.older()
    reason = last.unwind_stop_reason()
    failed = reason >= gdb.FRAME_UNWIND_UNAVAILABLE
    return frames, head, outer, gdb.frame_stop_reason_string(reason) if failed else None


def main():
    for setting in ("pagination off", "confirm off", "debuginfod enabled off",
                    "backtrace past-main on", "breakpoint pending on", "width 0",
                    "backtrace limit unlimited", "print symbol off"):
        gdb.execute("set " + setting)
    gdb.execute("handle all nostop noprint pass", to_string=True)
    gdb.execute("handle SIGTRAP SIGINT stop noprint nopass", to_string=True)
    gdb.execute("starti", to_string=True)
    pid = gdb.selected_inferior().pid
    if gdb.newest_frame().pc() != entry(pid):  # a static program is there already
        gdb.execute(f"tbreak *{entry(pid):#x}", to_string=True)
        gdb.execute("continue", to_string=True)
    names = break_at_allocators(pid)
    if not names:
        raise gdb.GdbError("no allocator found")
    # Libraries' constructors ran before the entry; nothing is said of them.
    last = None
    with open(os.environ["STACKS_OUT"], "w", encoding="utf-8") as out:
        while True:
            gdb.execute("continue", to_string=True)
            if not gdb.selected_inferior().pid:
                break
            frame = gdb.newest_frame()
            name = names.get(frame.pc())
            if not name:
                raise gdb.GdbError(f"stopped at {frame.pc():#x} for no known reason")
            frames, head, outer, error = walk(mappings(pid))
            # One allocator's function jumped to another: the same call again.
            here = (gdb.selected_thread().num, int(gdb.parse_and_eval("$rsp")), frames)
            again = last and last[0] != name and last[1] == here
            last = (name, here)
            if outer and not again:
                size = int(gdb.parse_and_eval(SIZES[name]))
                json.dump({"size": size, "frames": frames, "head": head, "error": error}, out)
                out.write("\n")
                out.flush()


try:
    main()
except gdb.error as e:
    if "exited" not in str(e) and "not being run" not in str(e):
        print("gdb:", e, file=sys.stderr)
        gdb.execute("kill")
        gdb.execute("quit 1")
gdb.execute("quit 0")
