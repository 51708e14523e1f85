/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "account/estimate.h"

#include <math.h>

#include "base/sampling_tables.h"

#define Z95 1.959964 /* of the normal distribution */

void estimate_add(struct estimate *e, const struct sampling_tables *t, uint64_t size_bytes,
		  uint32_t rate, uint32_t duty)
{
	struct sampling_share share = sampling_share(t, size_bytes, rate, duty);
	double p = sampling_probability(t, size_bytes, rate) * exp2(-(double)duty / 16);
	double bytes = (double)share.bytes, blocks = (double)share.blocks_256 / 256;

	e->bytes += share.bytes;
	e->blocks_256 += share.blocks_256;
	e->recorded++;
	e->bytes_variance += bytes * bytes * (1 - p);
	e->blocks_variance += blocks * blocks * (1 - p);
	e->bytes_step = fmax(e->bytes_step, bytes * (1 - p));
	e->blocks_step = fmax(e->blocks_step, blocks * (1 - p));
}

void estimate_merge(struct estimate *e, const struct estimate *other)
{
	e->bytes += other->bytes;
	e->blocks_256 += other->blocks_256;
	e->recorded += other->recorded;
	e->bytes_variance += other->bytes_variance;
	e->blocks_variance += other->blocks_variance;
	e->bytes_step = fmax(e->bytes_step, other->bytes_step);
	e->blocks_step = fmax(e->blocks_step, other->blocks_step);
}

uint64_t estimate_blocks(const struct estimate *e)
{
	return (e->blocks_256 + 128) / 256;
}

/* Quantile of the gamma distribution with this mean and variance, by the cube root that is
 * nearly normal (Wilson and Hilferty, PNAS 17, 1931). */
static double gamma_quantile(double mean, double variance, double z)
{
	double shape = mean * mean / variance;
	double root = 1 - 1 / (9 * shape) + z / (3 * sqrt(shape));

	return root > 0 ? mean * root * root * root : 0;
}

static struct interval interval_of(double sum, double variance, double step)
{
	struct interval i = {sum, sum};

	/* Rounding leaves a trace of what was recorded for certain. */
	if (!(variance > 1e-12 * sum * sum) || !(step > 0))
		return i;
	i.low = fmin(sum, gamma_quantile(sum, variance, -Z95));
	i.high = fmax(sum, gamma_quantile(sum + step, variance + step * step, Z95));
	return i;
}

struct interval estimate_bytes_ci95(const struct estimate *e)
{
	return interval_of((double)e->bytes, e->bytes_variance, e->bytes_step);
}

struct interval estimate_blocks_ci95(const struct estimate *e)
{
	return interval_of((double)e->blocks_256 / 256, e->blocks_variance, e->blocks_step);
}
