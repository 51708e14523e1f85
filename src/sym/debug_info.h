/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Lines and inlined calls of one ELF file, by its DWARF. */
#ifndef LEAKTOP_DEBUG_INFO_H
#define LEAKTOP_DEBUG_INFO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct debug_info;

/* Strings live as long as the debug_info. */
struct source_frame {
	const char *function; /* mangled, if there is such a name; NULL: unknown */
	uint64_t start;	      /* of the function, unless it is inlined; 0: unknown */
	const char *file;     /* NULL: unknown */
	uint32_t line;	      /* 0: unknown */
	bool inlined;
};

/*
 * @supplement_fd: the file that @fd shares DWARF with (dwz), -1: none. Both are needed
 * during the call only. Returns 0, -ENOENT if the file has no DWARF or should have a
 * supplement, -E2BIG if it is more than @max_bytes, or another negative errno.
 * Not read: split units (.dwo, .dwp), of which the lines are known but neither functions
 * nor inlined calls; .zdebug sections; supplements without .debug_info (libdw wants it).
 */
int debug_info_new(int fd, int supplement_fd, uint64_t max_bytes, struct debug_info **out);
/* Whether debug_info_new() would find any. */
bool debug_info_exists(int fd);
void debug_info_free(struct debug_info *d);

/* Size of its sections, which are in memory as long as it lives. */
uint64_t debug_info_bytes(const struct debug_info *d);

/* Frames at @vaddr, innermost first, the function itself last. Returns their
 * number, at most @max, 0 if nothing is known. */
size_t debug_info_find(struct debug_info *d, uint64_t vaddr, struct source_frame *frames,
		       size_t max);

#endif
