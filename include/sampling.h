/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sampling by bytes: which allocations are recorded, and what a recorded one stands for.
 *
 * With an interval of R bytes, the bytes that a thread allocates are a line on which points
 * lie as in a Poisson process, R apart in the mean; an allocation with a point in it is
 * recorded. So one of s bytes is with probability p = 1 - e^(-s/R), whatever came before it
 * and whenever R changes, and stands for 1/p blocks and s/p bytes: sums of these have the
 * true sums as their means (Horvitz and Thompson, J. Am. Stat. Assoc. 47, 1952). Large
 * blocks are hardly ever missed. tcmalloc's and jemalloc's heap profilers sample so too.
 *
 * Both sides compute in whole numbers by the same tables, so that what was added for a
 * block is what is taken off for it. An interval is carried as its rate: 256 times its
 * binary logarithm, 0 for every allocation. A block recorded while probes are there for a
 * fraction of the time (windows) stands for so many more: 2^(duty/16) times.
 */
#ifndef LEAKTOP_SAMPLING_H
#define LEAKTOP_SAMPLING_H

#ifndef __VMLINUX_H__
#include <linux/types.h>
#endif

#define SAMPLING_RATE_MAX (32u * 256) /* 4 GiB */
#define SAMPLING_DUTY_MAX 160u	      /* one thousandth of the time */

/* sampling_tables.h fills it. Fractions are of 2^24, but powers of 2^16. */
struct sampling_tables {
	__u32 ratio[258]; /* x / (1 - e^-x) at x = i/16: a weight in intervals */
	__u32 log[258];	  /* ln(1 + i/256) */
	__u32 power[256]; /* 2^(i/256) */
};

#define SAMPLING_LN2 11629080u /* of 2^24 */

/* Bytes of the interval; 0: every allocation is recorded. */
static inline __u64 sampling_interval(const struct sampling_tables *t, __u32 rate)
{
	return rate ? (__u64)t->power[rate & 255] << (rate >> 8 & 63) >> 16 : 0;
}

/* Bytes that a block of @size recorded at @rate stands for: size / p; at least R. */
static inline __u64 sampling_weight(const struct sampling_tables *t, __u64 size, __u32 rate)
{
	__u64 interval = sampling_interval(t, rate), x, ratio;
	__u32 i;

	if (!interval || size >> 4 >= interval)
		return size;
	x = (size << 16) / interval;
	i = x >> 12 & 255;
	ratio = t->ratio[i] + ((__u64)(t->ratio[i + 1] - t->ratio[i]) * (x & 4095) >> 12);
	return interval * ratio >> 24;
}

/* What one recorded block stands for. */
struct sampling_share {
	__u64 bytes;
	__u64 blocks_256; /* blocks, times 256 */
};

#define SAMPLING_BYTES_MAX (1ull << 46) /* beyond this, nothing is left to estimate */

static inline struct sampling_share sampling_share(const struct sampling_tables *t, __u64 size,
						   __u32 rate, __u32 duty)
{
	/* An empty block is sampled as one of a byte. */
	__u64 one = size ? size : 1, weight = sampling_weight(t, one, rate);
	struct sampling_share share;

	if (duty && weight < SAMPLING_BYTES_MAX)
		weight = (weight * t->power[(duty & 15) << 4] >> 16) << (duty >> 4 & 15);
	share.bytes = size ? weight : 0;
	share.blocks_256 = weight < SAMPLING_BYTES_MAX ? (weight << 8) / one : 256;
	return share;
}

/* Bytes to the next point, from 32 random bits: -R ln(u), u in (0, 1]. */
static inline __u64 sampling_gap(const struct sampling_tables *t, __u64 interval, __u32 random)
{
	__u64 u = (__u64)random + 1, log;
	__u32 halvings = 0, i;

	/* u = 2^(32 - halvings) * (1 + f): its top bit is moved to place 32. */
	for (__u32 step = 16; step; step >>= 1) {
		if (u >> (33 - step))
			continue;
		u <<= step;
		halvings += step;
	}
	if (!(u >> 32)) {
		u <<= 1;
		halvings++;
	}
	i = u >> 24 & 255;
	log = t->log[i] + ((__u64)(t->log[i + 1] - t->log[i]) * (u & 0xffffff) >> 24);
	return interval * (halvings * (__u64)SAMPLING_LN2 - log) >> 24;
}

/* How the blocks of one process are sampled now: written by the loader at any time. */
struct process_sampling {
	__u16 rate;
	__u8 duty;
	__u8 pad[5];
};

/* What tracing one process has cost, counted by the kernel side. */
struct process_costs {
	__u64 hits;	 /* of probes */
	__u64 probe_ns;	 /* their traps and what every hit takes, by calibration */
	__u64 record_ns; /* what recording took beyond that, measured */
	__u64 pad;
};

_Static_assert(sizeof(struct process_sampling) == 8, "process_sampling is shared memory");
_Static_assert(sizeof(struct process_costs) == 32, "process_costs is shared memory");

#endif
