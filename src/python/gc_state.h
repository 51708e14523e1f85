/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The state of CPython's cyclic collector. struct _gc_runtime_state changes also within a
 * minor version, so its parts are recognised by what they must be: rings of objects,
 * pointers to lists (Include/internal/pycore_gc.h, to 3.8 pycore_pymem.h, from 3.14
 * pycore_interp_structs.h).
 */
#ifndef LEAKTOP_GC_STATE_H
#define LEAKTOP_GC_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "python/census.h"

struct interpreter;

#define GC_RINGS_MAX 256 /* four of each interpreter */

struct gc_state {
	bool enabled;
	struct census_gc_generation generations[3];
	int64_t garbage; /* len(gc.garbage) */
	/* Heads of the rings of tracked objects, of all interpreters. */
	uint64_t rings[GC_RINGS_MAX];
	size_t ring_count;
};

/*
 * Of the main interpreter; rings of all. 0; -EAGAIN: a collection has the rings apart, try
 * again; -ENOENT: not recognised; -ENOTSUP: free-threaded; or another negative errno.
 */
int gc_state_read(const struct interpreter *i, struct gc_state *out);

/* What struct _gc_runtime_state looks like, in bytes from the first generation on. */
struct gc_shape {
	uint32_t first;	    /* of the first generation itself, from the start of the state */
	uint32_t enabled;   /* from the start of the state */
	uint32_t permanent; /* ring of gc.freeze() */
	uint32_t stats;	    /* three times {collections, collected, uncollectable}, or */
	bool stats_apart;   /* from 3.15 a pointer to struct gc_stats */
	uint32_t collecting, garbage;
};

/* From a copy of the @bytes of the state at @address: what the words alone can tell. False:
 * it does not look like one. */
bool gc_shape_find(const uint8_t *state, size_t bytes, uint64_t address, int minor,
		   struct gc_shape *out);

#endif
