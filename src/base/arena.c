/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/arena.h"

#include <stdalign.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_BYTES 65536

struct chunk {
	struct chunk *next;
	size_t used, size;
	alignas(max_align_t) char data[];
};

struct arena {
	struct chunk *chunks;
};

struct arena *arena_new(void)
{
	return calloc(1, sizeof(struct arena));
}

void arena_free(struct arena *a)
{
	if (!a)
		return;
	while (a->chunks) {
		struct chunk *c = a->chunks;

		a->chunks = c->next;
		free(c);
	}
	free(a);
}

static struct chunk *chunk_with(struct arena *a, size_t bytes)
{
	struct chunk *c = a->chunks;
	size_t size = bytes > CHUNK_BYTES ? bytes : CHUNK_BYTES;

	if (c && c->size - c->used >= bytes)
		return c;
	c = calloc(1, sizeof(*c) + size);
	if (!c)
		return NULL;
	c->size = size;
	c->next = a->chunks;
	a->chunks = c;
	return c;
}

void *arena_alloc(struct arena *a, size_t count, size_t size)
{
	size_t align = alignof(max_align_t), bytes;
	struct chunk *c;
	void *p;

	if (__builtin_mul_overflow(count, size, &bytes) || bytes > SIZE_MAX / 2)
		return NULL;
	bytes = (bytes + align - 1) / align * align;
	c = chunk_with(a, bytes);
	if (!c)
		return NULL;
	p = c->data + c->used;
	c->used += bytes;
	return p;
}

char *arena_strdup(struct arena *a, const char *s)
{
	size_t size = s ? strlen(s) + 1 : 0;
	char *copy = s ? arena_alloc(a, size, 1) : NULL;

	if (copy)
		memcpy(copy, s, size);
	return copy;
}
