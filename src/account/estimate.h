/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sums over blocks of which some were recorded (include/sampling.h), and how far from the
 * truth they may be. An estimate is a sum of independent terms w, each there with
 * probability p: its variance is estimated by the sum of w^2 (1 - p) (Horvitz and Thompson
 * 1952). Its interval of confidence is that of Fay and Feuer for weighted sums of Poisson
 * counts (Statistics in Medicine 16, 1997), by gamma distributions with this mean and
 * variance and, upwards, with room for one more term: it covers the truth also where a
 * handful of blocks was recorded, and is a point where all were.
 */
#ifndef LEAKTOP_ESTIMATE_H
#define LEAKTOP_ESTIMATE_H

#include <stdint.h>

#include "sampling.h"

/* Zeroed memory is the sum of nothing, which is known exactly. */
struct estimate {
	uint64_t bytes;
	uint64_t blocks_256; /* blocks, times 256 */
	uint64_t recorded;   /* terms */
	double bytes_variance, blocks_variance;
	double bytes_step,
		blocks_step; /* the most that one more term would be, if one is missing */
};

/* Adds a block of @size_bytes that was recorded at @rate and @duty. */
void estimate_add(struct estimate *e, const struct sampling_tables *t, uint64_t size_bytes,
		  uint32_t rate, uint32_t duty);
/* Adds a sum over other blocks. */
void estimate_merge(struct estimate *e, const struct estimate *other);
uint64_t estimate_blocks(const struct estimate *e);

struct interval {
	double low, high;
};

/* In which the truth lies 95 times in a hundred. */
struct interval estimate_bytes_ci95(const struct estimate *e);
struct interval estimate_blocks_ci95(const struct estimate *e);

#endif
