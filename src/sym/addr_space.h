/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The executable mappings of one process, kept after it is gone: which object
 * and which offset an address belongs to.
 */
#ifndef LEAKTOP_ADDR_SPACE_H
#define LEAKTOP_ADDR_SPACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct addr_space;
struct object;
struct object_table;
struct perf_map;

/* @objects is borrowed and must outlive the address space. */
struct addr_space *addr_space_new(pid_t pid, struct object_table *objects);
void addr_space_free(struct addr_space *as);

/* Reads /proc/PID/maps again; what was known of a dead process is kept. The caller
 * knows that nothing changed since @since_ns (CLOCK_MONOTONIC; 0: nothing is known).
 * Returns 0 or negative errno (-ESRCH: gone). */
int addr_space_refresh_since(struct addr_space *as, uint64_t since_ns);
int addr_space_refresh(struct addr_space *as);

/* Names of its JIT's code, kept when the process is gone: borrowed, NULL if it writes
 * none. Looked for at the first call that finds the process alive, and then at most
 * once a second until it is there. */
struct perf_map *addr_space_perf_map(struct addr_space *as);

struct addr_location {
	struct object *object; /* NULL: no ELF file there; the vdso has one */
	uint64_t vaddr;	       /* ELF virtual address in @object */
	const char *name; /* path, "[vdso]", "[heap]", "[anon]"; lives with the address space */
};

/* The mappings, of now and of the past, sorted by address. */
size_t addr_space_count(const struct addr_space *as);
/* @where tells of the mapping's first byte. False if it is of the past. */
bool addr_space_at(const struct addr_space *as, size_t i, uint64_t *start, uint64_t *end,
		   struct addr_location *where);

/* 0, or -ENOENT if nothing executable is known there (then a refresh may help). */
int addr_space_find(const struct addr_space *as, uint64_t address, struct addr_location *out);
/* The same for code that ran at @time_ns (CLOCK_MONOTONIC) and that the kernel side did
 * not know: after what is there was first read of, it was something else, and before it
 * is sure to lie there it may have been. Then it is "[unknown]". */
int addr_space_find_at(const struct addr_space *as, uint64_t address, uint64_t time_ns,
		       struct addr_location *out);

#endif
