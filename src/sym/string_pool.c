/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sym/string_pool.h"

#include <search.h>
#include <stdlib.h>
#include <string.h>

/* What tsearch() and malloc() spend on a string besides its bytes. */
#define NODE_BYTES 48

struct string_pool {
	void *root;
	size_t bytes, max_bytes;
};

static int compare(const void *a, const void *b)
{
	return strcmp(a, b);
}

struct string_pool *string_pool_new(size_t max_bytes)
{
	struct string_pool *pool = calloc(1, sizeof(*pool));

	if (pool)
		pool->max_bytes = max_bytes;
	return pool;
}

void string_pool_free(struct string_pool *pool)
{
	if (!pool)
		return;
	tdestroy(pool->root, free);
	free(pool);
}

const char *string_pool_add(struct string_pool *pool, const char *s)
{
	char **found, *copy;
	size_t bytes;

	if (!s)
		return NULL;
	found = tfind(s, &pool->root, compare);
	if (found)
		return *found;

	bytes = strlen(s) + 1 + NODE_BYTES;
	if (bytes > pool->max_bytes - pool->bytes)
		return NULL;
	copy = strdup(s);
	if (!copy)
		return NULL;
	if (!tsearch(copy, &pool->root, compare)) {
		free(copy);
		return NULL;
	}
	pool->bytes += bytes;
	return copy;
}
