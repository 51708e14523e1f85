/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A radix sort, lowest digit first; digits that are the same everywhere are skipped. */
#include "python/key_sort.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define DIGIT_BITS 11
#define DIGIT_VALUES (1u << DIGIT_BITS)

static unsigned int digit_of(uint64_t key, unsigned int shift)
{
	return key >> shift & (DIGIT_VALUES - 1);
}

/* Moves @from to @to, ordered by one digit; false: all have the same, nothing moved. */
static bool sort_digit(const struct keyed *from, struct keyed *to, size_t count, unsigned int shift)
{
	size_t place[DIGIT_VALUES] = {0}, sum = 0;

	for (size_t i = 0; i < count; i++)
		place[digit_of(from[i].key, shift)]++;
	if (place[digit_of(from[0].key, shift)] == count)
		return false;
	for (unsigned int d = 0; d < DIGIT_VALUES; d++) {
		size_t n = place[d];

		place[d] = sum;
		sum += n;
	}
	for (size_t i = 0; i < count; i++)
		to[place[digit_of(from[i].key, shift)]++] = from[i];
	return true;
}

int key_sort(struct keyed *items, size_t count)
{
	struct keyed *other, *from = items, *to, *swap;

	if (count < 2)
		return 0;
	other = to = malloc(count * sizeof(*other));
	if (!other)
		return -ENOMEM;
	for (unsigned int shift = 0; shift < 64; shift += DIGIT_BITS) {
		if (!sort_digit(from, to, count, shift))
			continue;
		swap = from;
		from = to;
		to = swap;
	}
	if (from != items)
		memcpy(items, from, count * sizeof(*items));
	free(other);
	return 0;
}
