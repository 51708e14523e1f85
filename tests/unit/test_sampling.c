/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The arithmetic of sampling (include/sampling.h) against libm, and its estimates against
 * what was allocated. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>

#include "base/sampling_tables.h"

static struct sampling_tables tables;

static int setup(void **state)
{
	(void)state;
	sampling_tables_fill(&tables);
	return 0;
}

static void assert_near(double value, double expected, double relative)
{
	if (fabs(value - expected) > relative * fabs(expected) + 1)
		fail_msg("%.9g instead of %.9g", value, expected);
}

static void intervals(void **state)
{
	(void)state;
	assert_int_equal(sampling_rate_of(0), 0);
	assert_int_equal(sampling_interval(&tables, 0), 0);
	for (double bytes = 64; bytes < 4e9; bytes *= 1.37)
		assert_near((double)sampling_interval(&tables, sampling_rate_of(bytes)), bytes,
			    0.002);
	assert_int_equal(sampling_rate_of(1e30), SAMPLING_RATE_MAX);
	assert_true(sampling_rate_of(0.5) > 0); /* not what means "every allocation" */
	assert_int_equal(sampling_interval(&tables, SAMPLING_RATE_MAX), 1ull << 32);
}

static void weights(void **state)
{
	(void)state;
	for (double bytes = 64; bytes < 4.2e9; bytes *= 1.61) {
		uint32_t rate = sampling_rate_of(bytes);
		double interval = (double)sampling_interval(&tables, rate);

		for (double size = 1; size < 1e13; size *= 1.27) {
			uint64_t s = (uint64_t)size;
			double p = -expm1(-(double)s / interval);

			assert_near((double)sampling_weight(&tables, s, rate), (double)s / p, 3e-4);
			assert_near(sampling_probability(&tables, s, rate), p, 1e-9);
		}
	}
	assert_int_equal(sampling_weight(&tables, 12345, 0), 12345);
}

static void shares(void **state)
{
	struct sampling_share s = sampling_share(&tables, 100, 0, 0);
	uint32_t rate = sampling_rate_of(65536);

	(void)state;
	assert_int_equal(s.bytes, 100);
	assert_int_equal(s.blocks_256, 256);
	s = sampling_share(&tables, 0, 0, 0);
	assert_int_equal(s.bytes, 0);
	assert_int_equal(s.blocks_256, 256);
	s = sampling_share(&tables, 0, rate, 0);
	assert_int_equal(s.bytes, 0);
	assert_near((double)s.blocks_256 / 256, 65536, 1e-3);
	s = sampling_share(&tables, 64, rate, 0);
	assert_near((double)s.blocks_256 / 256, 1024, 1e-3);
	for (uint32_t duty = 0; duty <= SAMPLING_DUTY_MAX; duty++) {
		double times = exp2(duty / 16.0);

		s = sampling_share(&tables, 64, rate, duty);
		assert_near((double)s.bytes, 65568 * times, 1e-3);
		s = sampling_share(&tables, 1 << 20, 0, duty);
		assert_near((double)s.bytes, (1 << 20) * times, 1e-3);
		assert_near((double)s.blocks_256, 256 * times, 5e-3);
	}
	/* What no process has. */
	s = sampling_share(&tables, UINT64_MAX, rate, 16);
	assert_true(s.bytes == UINT64_MAX && s.blocks_256 == 256);
	s = sampling_share(&tables, (1ull << 47) - 1, SAMPLING_RATE_MAX, SAMPLING_DUTY_MAX);
	assert_true(s.bytes >= (1ull << 47) - 1);
}

static void gaps_are_logarithms(void **state)
{
	const uint32_t some[] = {0,	      1,	   2,		3,	    5,
				 255,	      256,	   65535,	65536,	    0x7fffffff,
				 0x80000000u, 0x80000001u, 0xfffffffeu, 0xffffffffu};

	(void)state;
	for (size_t i = 0; i < sizeof(some) / sizeof(*some); i++)
		assert_near((double)sampling_gap(&tables, 1 << 20, some[i]),
			    -(1 << 20) * log(((double)some[i] + 1) / 4294967296.0), 1e-4);
	for (uint64_t r = 0; r < 0x100000000ull; r += 65521)
		assert_near((double)sampling_gap(&tables, 1 << 20, (uint32_t)r),
			    -(1 << 20) * log(((double)r + 1) / 4294967296.0), 1e-4);
}

/* xorshift64* (Vigna, 2014). */
static uint32_t random_32(uint64_t *x)
{
	*x ^= *x >> 12;
	*x ^= *x << 25;
	*x ^= *x >> 27;
	return (uint32_t)(*x * 0x2545f4914f6cdd1dull >> 32);
}

/* Estimates of what a program of blocks of many sizes allocated, each with another seed,
 * the interval changing on the way: right in the mean. */
static void estimates_are_unbiased(void **state)
{
	const double intervals_bytes[] = {4096, 65536, 1 << 20};
	double bytes_error = 0, blocks_error = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= 200; seed++) {
		uint64_t dice = seed * 0x9e3779b97f4a7c15ull, gap = 0, true_bytes = 0;
		uint64_t bytes = 0, blocks_256 = 0, sizes = 88172645463325252ull;
		uint32_t rate = 0;
		const int count = 40000;

		for (int i = 0; i < count; i++) {
			uint64_t size = 256 + (1ull << random_32(&sizes) % 18) % 50000 +
					random_32(&sizes) % 64;
			uint32_t now = sampling_rate_of(intervals_bytes[i / 1000 % 3]);

			true_bytes += size;
			if (now != rate) {
				rate = now;
				gap = sampling_gap(&tables, sampling_interval(&tables, rate),
						   random_32(&dice));
			}
			if (gap >= size) {
				gap -= size;
				continue;
			}
			gap = sampling_gap(&tables, sampling_interval(&tables, rate),
					   random_32(&dice));
			bytes += sampling_share(&tables, size, rate, 0).bytes;
			blocks_256 += sampling_share(&tables, size, rate, 0).blocks_256;
		}
		bytes_error += ((double)bytes - (double)true_bytes) / (double)true_bytes / 200;
		blocks_error += ((double)blocks_256 / 256 - count) / count / 200;
	}
	if (fabs(bytes_error) > 0.003 || fabs(blocks_error) > 0.04)
		fail_msg("mean error of bytes %.4f, of blocks %.4f", bytes_error, blocks_error);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(intervals),
		cmocka_unit_test(weights),
		cmocka_unit_test(shares),
		cmocka_unit_test(gaps_are_logarithms),
		cmocka_unit_test(estimates_are_unbiased),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
