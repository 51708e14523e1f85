/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Intervals of confidence of estimates: how often the truth lies in them. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdbool.h>

#include "account/estimate.h"
#include "base/sampling_tables.h"

#define RUNS 2000

static struct sampling_tables tables;

static int setup(void **state)
{
	(void)state;
	sampling_tables_fill(&tables);
	return 0;
}

/* xorshift64* (Vigna, 2014). */
static double random_unit(uint64_t *x)
{
	*x ^= *x >> 12;
	*x ^= *x << 25;
	*x ^= *x >> 27;
	return (double)(*x * 0x2545f4914f6cdd1dull >> 11) / 9007199254740992.0;
}

static void everything_recorded(void **state)
{
	struct estimate e = {0};
	struct interval i;

	(void)state;
	for (uint64_t size = 0; size < 1000; size++)
		estimate_add(&e, &tables, size, 0, 0);
	i = estimate_bytes_ci95(&e);
	assert_int_equal(e.bytes, 499500);
	assert_true(i.low == 499500 && i.high == 499500);
	i = estimate_blocks_ci95(&e);
	assert_int_equal(estimate_blocks(&e), 1000);
	assert_true(i.low == 1000 && i.high == 1000);
	e = (struct estimate){0};
	i = estimate_bytes_ci95(&e);
	assert_true(i.low == 0 && i.high == 0);
}

static void blocks_too_large_to_be_missed(void **state)
{
	struct estimate e = {0};
	struct interval i;

	(void)state;
	for (int n = 0; n < 10; n++)
		estimate_add(&e, &tables, 1 << 20, sampling_rate_of(4096), 0);
	i = estimate_bytes_ci95(&e);
	assert_int_equal(e.bytes, 10 << 20);
	assert_true(i.low == i.high);
}

static void sums_of_sums(void **state)
{
	struct estimate all = {0}, part[2] = {{0}, {0}};
	uint32_t rate = sampling_rate_of(65536);

	(void)state;
	for (uint64_t size = 1; size < 5000; size += 7) {
		estimate_add(&all, &tables, size, rate, 8);
		estimate_add(&part[size % 2], &tables, size, rate, 8);
	}
	estimate_merge(&part[0], &part[1]);
	assert_int_equal(all.bytes, part[0].bytes);
	assert_int_equal(all.blocks_256, part[0].blocks_256);
	assert_int_equal(all.recorded, part[0].recorded);
	assert_true(fabs(all.bytes_variance - part[0].bytes_variance) < 1e-9 * all.bytes_variance);
	assert_true(all.bytes_step == part[0].bytes_step);
}

struct coverage {
	double bytes, blocks; /* fraction of the runs */
	double error;	      /* mean, of bytes */
};

/* @count blocks of sizes from @small to @large, recorded at an interval and for a part of
 * the time. */
static struct coverage cover(int count, double small, double large, double interval_bytes,
			     uint32_t duty)
{
	struct coverage c = {0};
	uint32_t rate = interval_bytes > 0 ? sampling_rate_of(interval_bytes) : 0;
	uint64_t dice = 0x9e3779b97f4a7c15ull;

	for (int run = 0; run < RUNS; run++) {
		struct estimate e = {0};
		struct interval bytes, blocks;
		double truth = 0;

		for (int i = 0; i < count; i++) {
			double size = floor(small * pow(large / small, (double)i / count));
			double p = sampling_probability(&tables, (uint64_t)size, rate) *
				   exp2(-(double)duty / 16);

			truth += size;
			if (random_unit(&dice) < p)
				estimate_add(&e, &tables, (uint64_t)size, rate, duty);
		}
		bytes = estimate_bytes_ci95(&e);
		blocks = estimate_blocks_ci95(&e);
		c.bytes += (e.recorded && bytes.low <= truth * 1.0001 &&
			    truth <= bytes.high * 1.0001) /
			   (double)RUNS;
		c.blocks += (e.recorded && blocks.low <= count * 1.0001 &&
			     count <= blocks.high * 1.0001) /
			    (double)RUNS;
		c.error += ((double)e.bytes - truth) / truth / RUNS;
	}
	return c;
}

static void the_truth_is_in_the_interval(void **state)
{
	static const struct {
		int count;
		double small, large, interval_bytes;
		uint32_t duty;
		bool mixed; /* hardly any of the many small ones is seen: their number is not known
			     */
	} cases[] = {
		{1000, 2000, 2000, 65536, 0, false},   {1000, 64, 64, 4096, 0, false},
		{3000, 16, 100000, 65536, 0, true},    {300, 100, 1000000, 524288, 0, true},
		{200, 30000, 300000, 65536, 0, false}, {5000, 100, 100, 65536, 0, false},
		{1000, 2000, 2000, 16384, 48, false},  {2000, 64, 5000, 4096, 64, false},
		{500, 64, 64, 0, 64, false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct coverage c = cover(cases[i].count, cases[i].small, cases[i].large,
					  cases[i].interval_bytes, cases[i].duty);

		if (fabs(c.error) > 0.03)
			fail_msg("case %zu: mean error %.4f", i, c.error);
		if (c.bytes < 0.93 || c.bytes > 0.995 ||
		    (!cases[i].mixed && (c.blocks < 0.90 || c.blocks > 0.995)))
			fail_msg("case %zu: bytes covered in %.3f, blocks in %.3f of the runs", i,
				 c.bytes, c.blocks);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(everything_recorded),
		cmocka_unit_test(blocks_too_large_to_be_missed),
		cmocka_unit_test(sums_of_sums),
		cmocka_unit_test(the_truth_is_in_the_interval),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
