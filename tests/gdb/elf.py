# SPDX-License-Identifier: GPL-2.0-or-later
"""The little of ELF that the comparison needs: addresses, symbols, what has call frame
information. On purpose not leaktop's own code."""

import bisect
import struct
import subprocess

PT_LOAD = 1


class Elf:
    def __init__(self, path):
        self.path = path
        with open(path, "rb") as f:
            self.data = f.read()
        if self.data[:5] != b"\x7fELF\x02":
            raise ValueError(path + ": not a 64-bit ELF file")
        phoff = struct.unpack_from("<Q", self.data, 32)[0]
        phentsize, phnum = struct.unpack_from("<HH", self.data, 54)
        self.loads, self.code = [], []
        for i in range(phnum):
            kind, flags, offset, vaddr, _, filesz = struct.unpack_from(
                "<IIQQQQ", self.data, phoff + i * phentsize)
            if kind == PT_LOAD:
                self.loads.append((offset, vaddr, filesz))
                if flags & 1:  # PF_X
                    self.code.append((offset, vaddr, filesz))
        self._ranges = None

    def vaddr(self, file_offset):
        """Of code: one page of a file may be in several segments."""
        for offset, vaddr, filesz in self.code:
            if offset <= file_offset < offset + filesz:
                return file_offset - offset + vaddr
        return None

    def functions(self, names):
        """{name: virtual address} of those of @names that are defined here."""
        found = {}
        for option in (["-D"], []):
            out = subprocess.run(["nm", "--defined-only"] + option + [self.path],
                                 capture_output=True, text=True, check=False).stdout
            for line in out.splitlines():
                words = line.split()
                if len(words) == 3 and words[1] in "TtWi":
                    name = words[2].split("@")[0]
                    if name in names:
                        found.setdefault(name, int(words[0], 16))
        return found

    def _sections(self):
        shoff = struct.unpack_from("<Q", self.data, 40)[0]
        shentsize, shnum, names = struct.unpack_from("<3H", self.data, 58)
        rows = [struct.unpack_from("<IIQQQQ", self.data, shoff + i * shentsize)
                for i in range(shnum)]
        for name, _, _, vaddr, offset, size in rows:
            at = rows[names][4] + name
            yield self.data[at:self.data.index(0, at)], vaddr, offset, size

    def _records(self, offset, size):
        """(position, position of the CIE pointer, CIE pointer) of each record."""
        at = offset
        while at + 8 < offset + size:
            length = struct.unpack_from("<I", self.data, at)[0]
            if length in (0, 0xFFFFFFFF):
                return
            yield at, at + 4, struct.unpack_from("<I", self.data, at + 4)[0]
            at += 4 + length

    def _encoding(self, cie):
        """How the CIE's FDEs write addresses (DW_EH_PE_...)."""
        end = self.data.index(0, cie + 9)
        augmentation = self.data[cie + 9:end]
        if not augmentation.startswith(b"z"):
            return 0
        at = end + 1
        for _ in range(4):  # alignments, return address register, length: all are LEB128
            while self.data[at] & 0x80:
                at += 1
            at += 1
        for letter in augmentation[1:]:
            if letter == ord("R"):
                return self.data[at]
            if letter == ord("P"):
                at += {0: 8, 4: 8, 3: 4, 0xB: 4, 0xC: 8}[self.data[at] & 0xF]
            if letter != ord("S"):
                at += 1
        return 0

    def _eh_frame(self, vaddr, offset, size):
        for _, at, pointer in self._records(offset, size):
            if not pointer:
                continue
            encoding = self._encoding(at - pointer)
            form = "<iI" if encoding & 0xF in (3, 0xB) else "<qQ"
            start, length = struct.unpack_from(form, self.data, at + 4)
            if encoding & 0x70 == 0x10:  # DW_EH_PE_pcrel
                start += vaddr + at + 4 - offset
            yield start, start + length

    def _debug_frame(self, offset, size):
        for _, at, pointer in self._records(offset, size):
            if pointer != 0xFFFFFFFF:
                start, length = struct.unpack_from("<QQ", self.data, at + 4)
                yield start, start + length

    def _load_ranges(self):
        ranges = []
        for name, vaddr, offset, size in self._sections():
            if name == b".eh_frame":
                ranges += self._eh_frame(vaddr, offset, size)
            elif name == b".debug_frame":
                ranges += self._debug_frame(offset, size)
        self._ranges = sorted(ranges)

    def covered(self, vaddr):
        """Whether call frame information is there for @vaddr."""
        if self._ranges is None:
            self._load_ranges()
        i = bisect.bisect_right(self._ranges, (vaddr, 1 << 64)) - 1
        return i >= 0 and vaddr < self._ranges[i][1]
