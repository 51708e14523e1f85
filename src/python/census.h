/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Counts the live objects of a CPython process by type, from outside: the pools of
 * pymalloc are found by their invariants in anonymous mappings, larger objects by the
 * collector's lists and by references to them. Nothing is written, nobody is stopped unless asked
 * for.
 */
#ifndef LEAKTOP_CENSUS_H
#define LEAKTOP_CENSUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct interpreter;

struct census_row {
	const char *name;
	uint64_t blocks, bytes; /* bytes: of their size classes, or as the object says */
};

struct census_gc_generation {
	uint64_t threshold, count;			/* as gc.get_threshold(), gc.get_count() */
	uint64_t collections, collected, uncollectable; /* as gc.get_stats() */
};

struct census {
	struct census_row *rows; /* by bytes, descending */
	size_t row_count;
	uint64_t blocks, bytes;		    /* in pools, all together */
	uint64_t large_blocks, large_bytes; /* above 512 bytes, so not in pools */
	uint64_t pools, pools_skipped;	    /* skipped: changed while they were read */
	uint64_t pool_free_bytes;	    /* of pools, in no live block */
	double seconds;			    /* the scan took */
	double stopped_seconds;		    /* the process stood still; 0 without freeze */
	bool gc_enabled, gc_known;
	struct census_gc_generation generations[3];
	int64_t garbage; /* len(gc.garbage); -1: unknown */
};

/*
 * 0, -ESRCH, -ENOTSUP (free-threaded), or another negative errno; with @freeze also those of
 * freezer_new(). Without pymalloc (PYTHONMALLOC=malloc; pools is 0) only what the collector
 * lists is counted. @freeze: the process is held by ptrace, without a signal, and runs on
 * afterwards whatever happens to us.
 *
 * Rows "(free list)" are objects that CPython keeps for reuse, "(unknown)" what is neither an
 * object nor a buffer that is known. Objects above 512 bytes are found by the collector's lists
 * or, if it does not track them (str, bytes, int), by references in what was found.
 */
int census_take(const struct interpreter *i, bool freeze, struct census **out);
void census_free(struct census *c);

#endif
