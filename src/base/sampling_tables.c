/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/sampling_tables.h"

#include <math.h>
#include <stddef.h>

#define FRACTION 16777216.0 /* 2^24 */
#define LENGTH(array) (sizeof(array) / sizeof(*(array)))

void sampling_tables_fill(struct sampling_tables *out)
{
	for (size_t i = 0; i < LENGTH(out->ratio); i++) {
		double x = (double)i / 16;

		out->ratio[i] = (uint32_t)lrint(FRACTION * (i ? x / -expm1(-x) : 1));
	}
	for (size_t i = 0; i < LENGTH(out->log); i++)
		out->log[i] = (uint32_t)lrint(FRACTION * log1p((double)i / 256));
	for (size_t i = 0; i < LENGTH(out->power); i++)
		out->power[i] = (uint32_t)lrint(65536 * exp2((double)i / 256));
}

uint32_t sampling_rate_of(double interval_bytes)
{
	double rate = interval_bytes > 0 ? 256 * log2(interval_bytes) : 0;

	if (!(rate >= 1))
		return interval_bytes > 0;
	return rate < SAMPLING_RATE_MAX ? (uint32_t)lrint(rate) : SAMPLING_RATE_MAX;
}

double sampling_probability(const struct sampling_tables *t, uint64_t size_bytes, uint32_t rate)
{
	double one = size_bytes ? (double)size_bytes : 1;

	return rate ? -expm1(-one / (double)sampling_interval(t, rate)) : 1;
}
