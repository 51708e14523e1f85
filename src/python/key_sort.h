/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sorts millions of addresses with something attached, quicker than qsort(3). */
#ifndef LEAKTOP_KEY_SORT_H
#define LEAKTOP_KEY_SORT_H

#include <stddef.h>
#include <stdint.h>

struct keyed {
	uint64_t key, value;
};

/* By key, ascending; equal keys stay in order. 0 or -ENOMEM. */
int key_sort(struct keyed *items, size_t count);

#endif
