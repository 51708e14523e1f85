/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef BENCH_LATENCY_H
#define BENCH_LATENCY_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A histogram of durations, of fixed size and within 0.8 % everywhere. */
#define LATENCY_STEPS 128
#define LATENCY_OCTAVES 40

struct latency {
	uint64_t count;
	uint64_t buckets[LATENCY_OCTAVES * LATENCY_STEPS];
};

void latency_add(struct latency *l, uint64_t duration_ns);
void latency_merge(struct latency *l, const struct latency *from);

/* The duration that @fraction of all stay at or below; 0 if there are none. */
uint64_t latency_quantile_ns(const struct latency *l, double fraction);

#ifdef __cplusplus
}
#endif

#endif
