/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which blocks of glibc's malloc are held in another process. */
#ifndef LEAKTOP_MALLOC_BLOCKS_H
#define LEAKTOP_MALLOC_BLOCKS_H

#include <stddef.h>
#include <stdint.h>

#include "heap/block_state.h"
#include "heap/glibc_heaps.h"

/*
 * Answers questions, sorted by address and all with their addresses in the memory of @heaps.
 * Reads all heaps, at most @read_max bytes, and adds what was read to @read_bytes. 0, -ESRCH
 * or another negative errno.
 */
int malloc_blocks_ask(const struct glibc *g, const struct glibc_heaps *heaps,
		      struct block_question **sorted, size_t count, uint64_t read_max,
		      uint64_t *read_bytes);

/* Answers questions about blocks that have a mapping of their own and are not in a heap. */
int malloc_blocks_ask_mapped(const struct glibc *g, struct block_question **questions,
			     size_t count);

#endif
