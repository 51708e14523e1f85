/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "latency.h"

#include <stddef.h>

/* The first two octaves are exact, those above have LATENCY_STEPS steps each. */
static size_t bucket_of(uint64_t ns)
{
	unsigned int shift = 0;
	size_t bucket;

	if (ns >= LATENCY_STEPS)
		shift = 63 - (unsigned int)__builtin_clzll(ns) - 7;
	bucket = (size_t)shift * LATENCY_STEPS + (size_t)(ns >> shift);
	return bucket < LATENCY_OCTAVES * LATENCY_STEPS ? bucket
							: LATENCY_OCTAVES * LATENCY_STEPS - 1;
}

static uint64_t middle_of(size_t bucket)
{
	size_t shift = bucket / LATENCY_STEPS;
	uint64_t steps = bucket % LATENCY_STEPS;

	if (shift)
		shift--;
	if (bucket >= LATENCY_STEPS)
		steps += LATENCY_STEPS;
	return (steps << shift) + ((1ULL << shift) >> 1);
}

void latency_add(struct latency *l, uint64_t duration_ns)
{
	l->buckets[bucket_of(duration_ns)]++;
	l->count++;
}

void latency_merge(struct latency *l, const struct latency *from)
{
	for (size_t i = 0; i < LATENCY_OCTAVES * LATENCY_STEPS; i++)
		l->buckets[i] += from->buckets[i];
	l->count += from->count;
}

uint64_t latency_quantile_ns(const struct latency *l, double fraction)
{
	uint64_t wanted = (uint64_t)(fraction * (double)l->count);
	uint64_t seen = 0;

	if (!l->count)
		return 0;
	for (size_t i = 0; i < LATENCY_OCTAVES * LATENCY_STEPS; i++) {
		seen += l->buckets[i];
		if (seen > wanted)
			return middle_of(i);
	}
	return middle_of(LATENCY_OCTAVES * LATENCY_STEPS - 1);
}
