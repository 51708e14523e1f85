/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Address ranges with a value each; finds the range around an address. */
#ifndef LEAKTOP_RANGE_INDEX_H
#define LEAKTOP_RANGE_INDEX_H

#include <stddef.h>
#include <stdint.h>

struct range {
	uint64_t low, high; /* high is outside */
	uint64_t value;
};

struct range_index {
	struct range *items;
	size_t count, capacity;
};

void range_index_release(struct range_index *index);
/* 0, -E2BIG beyond a few million ranges, -ENOMEM. Empty ranges are left out. */
int range_index_add(struct range_index *index, uint64_t low, uint64_t high, uint64_t value);
/* Call it between the last add and the first find. */
void range_index_sort(struct range_index *index);
/* The innermost range around @address, or NULL. */
const struct range *range_index_find(const struct range_index *index, uint64_t address);

#endif
