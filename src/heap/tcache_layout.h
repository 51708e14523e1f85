/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a thread of glibc's malloc keeps its lists of cached chunks in, struct
 * tcache_perthread_struct (malloc/malloc.c): counts[], then entries[]. It is itself a chunk,
 * by whose size the versions are told apart.
 */
#ifndef LEAKTOP_TCACHE_LAYOUT_H
#define LEAKTOP_TCACHE_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define TCACHE_CHUNK_MAX 0x310
#define TCACHE_BINS_MAX 76
#define TCACHE_SMALL_BINS 64 /* bin i has chunks of 32 + 16 i bytes; later ones of many sizes */

struct tcache_layout {
	uint32_t chunk_bytes;
	uint16_t bins;
	uint16_t count_bytes;
	bool counts_room; /* the number is of chunks that may still come */
};

/* NULL: in a chunk of this size there is none. */
static inline const struct tcache_layout *tcache_layout_of_chunk(uint64_t chunk_bytes)
{
	static const struct tcache_layout layouts[] = {
		{0x250, 64, 1, false}, /* to 2.29 */
		{0x290, 64, 2, false}, /* to 2.41 */
		{0x300, 76, 2, true},
	};

	/* A rest too small for a chunk of its own stays with it. */
	for (size_t i = 0; i < sizeof(layouts) / sizeof(*layouts); i++)
		if (chunk_bytes - layouts[i].chunk_bytes <= 16)
			return &layouts[i];
	return NULL;
}

static inline uint64_t tcache_entry(const struct tcache_layout *l, const uint8_t *block,
				    unsigned int bin)
{
	uint64_t entry;

	memcpy(&entry, block + (size_t)l->bins * l->count_bytes + bin * 8, sizeof(entry));
	return entry;
}

/* How long the list of a bin may be. */
static inline uint32_t tcache_length(const struct tcache_layout *l, const uint8_t *block,
				     unsigned int bin)
{
	uint16_t count = 0;

	if (l->counts_room)
		return UINT16_MAX;
	memcpy(&count, block + (size_t)bin * l->count_bytes, l->count_bytes);
	return count;
}

/* Whether the block of a chunk can be one, and has anything in its lists. */
static inline bool tcache_looks_right(const uint8_t *block, uint64_t chunk_bytes)
{
	const struct tcache_layout *l = tcache_layout_of_chunk(chunk_bytes);
	bool any = false;

	for (unsigned int i = 0; l && i < l->bins; i++) {
		uint64_t entry = tcache_entry(l, block, i);

		if (entry & 15 || entry >> 47 || (entry && entry < 4096) ||
		    (entry && !tcache_length(l, block, i)))
			return false;
		any |= entry != 0;
	}
	return any;
}

#endif
