/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "python/address_runs.h"

#include <errno.h>
#include <stdlib.h>

int address_runs_add(struct address_runs *r, uint64_t start, uint64_t end)
{
	if (r->count && r->items[r->count - 1].end >= start) {
		if (end > r->items[r->count - 1].end)
			r->items[r->count - 1].end = end;
		return 0;
	}
	if (r->count == r->room) {
		size_t room = r->room ? r->room * 2 : 16;
		struct address_run *items = realloc(r->items, room * sizeof(*items));

		if (!items)
			return -ENOMEM;
		r->items = items;
		r->room = room;
	}
	r->items[r->count++] = (struct address_run){start, end};
	return 0;
}

static bool contains(const struct address_run *run, uint64_t address)
{
	return address >= run->start && address < run->end;
}

bool address_runs_have(struct address_runs *r, uint64_t address)
{
	size_t low = 0, high = r->count;

	if (r->last < r->count && contains(&r->items[r->last], address))
		return true;
	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (r->items[middle].end <= address)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == r->count || !contains(&r->items[low], address))
		return false;
	r->last = low;
	return true;
}

void address_runs_release(struct address_runs *r)
{
	free(r->items);
	*r = (struct address_runs){0};
}
