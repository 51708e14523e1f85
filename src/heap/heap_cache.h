/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The free chunks of glibc's malloc that look as if they were in use: those that threads
 * keep for themselves (tcache) and those in fastbins.
 */
#ifndef LEAKTOP_HEAP_CACHE_H
#define LEAKTOP_HEAP_CACHE_H

#include <stdint.h>

#include "heap/heap_walk.h"

enum heap_cached {
	HEAP_CACHED_NOT = 0,
	HEAP_CACHED_TCACHE,
	HEAP_CACHED_FASTBIN,
	HEAP_CACHED_UNSURE, /* the list it would be in could not be read to its end */
};

struct heap_cache;

/*
 * Reads the lists of the tcaches, which lie in the chunks @tcaches (a walk finds them), and
 * of all fastbins. Each is read twice, and what is in both is taken. 0 or negative errno.
 */
int heap_cache_new(const struct glibc *g, const struct glibc_heaps *heaps,
		   const struct heap_chunk *tcaches, size_t count, struct heap_cache **out);
void heap_cache_free(struct heap_cache *c);

/* Of a used chunk in a segment of arena @arena. */
enum heap_cached heap_cache_look(const struct heap_cache *c, const struct heap_chunk *chunk,
				 uint32_t arena);

#endif
