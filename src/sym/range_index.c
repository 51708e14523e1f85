/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sym/range_index.h"

#include <errno.h>
#include <stdlib.h>

#define RANGES_MAX (4u << 20)
#define LOOK_BACK_MAX 64 /* ranges that may lie inside another one */

void range_index_release(struct range_index *index)
{
	free(index->items);
	*index = (struct range_index){0};
}

int range_index_add(struct range_index *index, uint64_t low, uint64_t high, uint64_t value)
{
	if (low >= high)
		return 0;
	if (index->count >= RANGES_MAX)
		return -E2BIG;
	if (index->count == index->capacity) {
		size_t capacity = index->capacity ? 2 * index->capacity : 64;
		struct range *items = reallocarray(index->items, capacity, sizeof(*items));

		if (!items)
			return -ENOMEM;
		index->items = items;
		index->capacity = capacity;
	}
	index->items[index->count++] = (struct range){low, high, value};
	return 0;
}

/* Of two ranges from one address the shorter one comes last and is found first. */
static int compare(const void *left, const void *right)
{
	const struct range *a = left, *b = right;

	if (a->low != b->low)
		return a->low < b->low ? -1 : 1;
	if (a->high != b->high)
		return a->high > b->high ? -1 : 1;
	return a->value < b->value ? -1 : a->value > b->value;
}

void range_index_sort(struct range_index *index)
{
	if (index->count)
		qsort(index->items, index->count, sizeof(*index->items), compare);
}

const struct range *range_index_find(const struct range_index *index, uint64_t address)
{
	size_t low = 0, high = index->count;
	size_t steps;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (index->items[middle].low <= address)
			low = middle + 1;
		else
			high = middle;
	}
	for (steps = 0; low > 0 && steps < LOOK_BACK_MAX; steps++) {
		if (address < index->items[--low].high)
			return &index->items[low];
	}
	return NULL;
}
