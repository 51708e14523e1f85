/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * .gnu_debugdata ("MiniDebugInfo" of Fedora and its relatives): a small ELF file,
 * compressed by xz, with the symbols of a stripped file that are not in its .dynsym.
 */
#ifndef LEAKTOP_MINI_DEBUG_H
#define LEAKTOP_MINI_DEBUG_H

/* Compressed, unpacked, and what the unpacking may use (xz -9 needs 65 MiB). */
#define MINI_DEBUG_PACKED_MAX (32u << 20)
#define MINI_DEBUG_BYTES_MAX (64u << 20)
#define MINI_DEBUG_MEMORY_MAX (80u << 20)

/*
 * Unpacks that of @fd. A descriptor of a file in memory, -ENOENT if there is none,
 * -E2BIG beyond the limits, -EINVAL if it is damaged, or another negative errno.
 */
int mini_debug_open(int fd);

#endif
