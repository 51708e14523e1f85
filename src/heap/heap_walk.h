/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Walks the chunks of glibc's heaps in another process, from outside and while it runs.
 */
#ifndef LEAKTOP_HEAP_WALK_H
#define LEAKTOP_HEAP_WALK_H

#include <stdbool.h>
#include <stdint.h>

#include "heap/glibc_heaps.h"

#define CHUNK_HEADER 16 /* a chunk begins so many bytes before the block */

enum heap_chunk_kind {
	HEAP_CHUNK_UNKNOWN = 0, /* it, or all from it to the segment's end, does not add up */
	HEAP_CHUNK_USED,	/* or kept in a tcache or a fastbin: see heap_cache.h */
	HEAP_CHUNK_FREE,	/* in a bin */
	HEAP_CHUNK_TOP,		/* the free rest at the end of an arena */
	HEAP_CHUNK_FENCE,	/* glibc's own mark at the end of a heap, to the segment's end */
};

struct heap_chunk {
	uint64_t address; /* of its header */
	uint64_t size_bytes;
	enum heap_chunk_kind kind;
	bool maybe_tcache; /* used, and it looks like what a thread keeps its tcache lists in */
};

struct heap_walk;

/* @g and @heaps are borrowed. At most @read_max bytes of the process are read. */
int heap_walk_new(const struct glibc *g, const struct glibc_heaps *heaps, uint64_t read_max,
		  struct heap_walk **out);
void heap_walk_free(struct heap_walk *w);

/* Goes to the start of a segment of the heaps. */
void heap_walk_start(struct heap_walk *w, const struct heap_segment *segment);
/*
 * 1 and the next chunk of the segment, 0 at its end, -ESRCH or another negative errno. In
 * a process that stands still the chunks cover the segment. Otherwise one may begin before
 * the end of the last, if they became one meanwhile.
 */
int heap_walk_next(struct heap_walk *w, struct heap_chunk *out);

uint64_t heap_walk_read_bytes(const struct heap_walk *w);

#endif
