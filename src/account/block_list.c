/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "account/block_list.h"

#include <stdlib.h>

static int grow(struct block_list *l)
{
	size_t capacity = l->capacity ? l->capacity * 2 : 4096;
	struct listed_block *items;

	if (capacity > BLOCK_LIST_MAX)
		return -1;
	items = realloc(l->items, capacity * sizeof(*items));
	if (!items)
		return -1;
	l->items = items;
	l->capacity = capacity;
	return 0;
}

void block_list_add(struct block_list *l, const struct listed_block *b)
{
	if (l->count == l->capacity && grow(l)) {
		l->left_out++;
		return;
	}
	l->items[l->count++] = *b;
}

void block_list_release(struct block_list *l)
{
	free(l->items);
	*l = (struct block_list){0};
}
