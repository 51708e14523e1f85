/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where glibc's malloc (2.28 and later, x86-64) keeps its memory in another process: its
 * arenas and the stretches of memory that each cuts into chunks.
 */
#ifndef LEAKTOP_GLIBC_HEAPS_H
#define LEAKTOP_GLIBC_HEAPS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define FASTBINS 10

struct glibc {
	pid_t pid;
	uint64_t main_arena;
	uint32_t bins_offset; /* in struct malloc_state */
};

/* 0, -ENOENT: no glibc, or nobody has called its malloc yet; -ESRCH, or another errno. */
int glibc_find(pid_t pid, struct glibc *out);

struct heap_arena {
	uint64_t address, top;
};

struct heap_segment {
	uint64_t start, end;   /* the first chunk; where the last one ends */
	uint64_t reserved_end; /* up to here nothing but this arena may have memory */
	uint64_t top;	       /* the arena's free chunk at the end; 0: there is none here */
	uint64_t info;	       /* struct heap_info; 0 in the main arena */
	uint32_t arena;	       /* index; 0 is the main one */
};

struct glibc_heaps {
	struct heap_arena *arenas;
	size_t arena_count;
	struct heap_segment *segments; /* by address */
	size_t segment_count;
};

/* 0, -EAGAIN: they do not add up now; -ESRCH, or another negative errno. */
int glibc_heaps_read(const struct glibc *g, struct glibc_heaps *out);
void glibc_heaps_release(struct glibc_heaps *h);

/* Whose reserved memory has @address, or NULL. */
const struct heap_segment *glibc_heaps_find(const struct glibc_heaps *h, uint64_t address);

/* The heads of an arena's fastbins, all 0 where this glibc has none. 0 or negative errno. */
int glibc_read_fastbins(const struct glibc *g, uint64_t arena, uint64_t out[FASTBINS]);

/* Where the address of @arena's top is stored. */
static inline uint64_t glibc_top_slot(const struct glibc *g, uint64_t arena)
{
	return arena + g->bins_offset - 16;
}

#endif
