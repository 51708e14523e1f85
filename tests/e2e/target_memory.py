# SPDX-License-Identifier: GPL-2.0-or-later
"""The writable memory of a process that waits: what leaktop changes in it, word by word."""
import os
import re
import struct

from leaktop import wait_until

MAPPING = re.compile(r"(\w+)-(\w+) (\S+) \w+ \S+ (\d+)\s*(.*)")
WORD_BYTES = 8


def writable_mappings(pid):
    """[(start, end)] of all that the process could write to."""
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape") as maps:
        rows = [MAPPING.match(line).groups() for line in maps]
    return [(int(start, 16), int(end, 16)) for start, end, rights, _, _ in rows if "w" in rights]


def waits_for_input(pid):
    """In read(0, ...), where it changes nothing itself."""
    with open(f"/proc/{pid}/syscall", encoding="ascii") as syscall:
        return syscall.read().split()[:2] == ["0", "0x0"]


def snapshot(pid):
    """{address: bytes} of its writable mappings."""
    assert wait_until(lambda: waits_for_input(pid), interval=0.01), f"{pid} does not wait"
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        return {start: os.pread(memory.fileno(), end - start, start)
                for start, end in writable_mappings(pid)}


def changed_words(before, after):
    """{address: (old, new)} of aligned words; the mappings must be the same."""
    assert {a: len(b) for a, b in before.items()} == {a: len(b) for a, b in after.items()}
    found = {}
    for start, old in before.items():
        new = after[start]
        if old == new:
            continue
        for offset in range(0, len(old), WORD_BYTES):
            pair = old[offset:offset + WORD_BYTES], new[offset:offset + WORD_BYTES]
            if pair[0] != pair[1]:
                found[start + offset] = tuple(struct.unpack("<Q", word)[0] for word in pair)
    return found


def words(pid, addresses):
    """{address: value}"""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        return {address: struct.unpack("<Q", os.pread(memory.fileno(), WORD_BYTES, address))[0]
                for address in addresses}
