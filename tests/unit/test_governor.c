/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The governor against simulated processes: what it costs them, how soon it is within the
 * budget, and whether it keeps still. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>

#include "base/sampling_tables.h"
#include "overhead/governor.h"

#define BUDGET_PCT 2.0

/* A process that does the same all the time. */
struct load {
	double allocations_per_s;
	double size_bytes;
	double cpu; /* its own, of one CPU */
	double hit_ns, record_ns;
};

static struct sampling_tables tables;

static int setup(void **state)
{
	(void)state;
	sampling_tables_fill(&tables);
	return 0;
}

/* One step; returns what tracing took, in per cent of the process' CPU time. */
static double step(struct governor *g, const struct load *l)
{
	double p = sampling_probability(&tables, (uint64_t)l->size_bytes, g->rate);
	double calls = l->allocations_per_s * GOVERNOR_STEP_S;
	struct governor_input in = {
		.elapsed_s = GOVERNOR_STEP_S,
		.probe_s = 2 * calls * l->hit_ns / 1e9,
		.record_s = calls * p * l->record_ns / 1e9,
		.budget_pct = BUDGET_PCT,
	};

	in.cpu_s = l->cpu * GOVERNOR_STEP_S + in.probe_s + in.record_s;
	governor_step(g, &in);
	return 100 * (in.probe_s + in.record_s) / in.cpu_s;
}

static double steps(struct governor *g, const struct load *l, double seconds)
{
	double pct = 0;

	for (double s = 0; s < seconds; s += GOVERNOR_STEP_S)
		pct = step(g, l);
	return pct;
}

static const struct load quiet = {500, 200, 0.3, 500, 2000};
static const struct load busy = {12000, 200, 0.9, 500, 2500};
static const struct load hot = {2e6, 100, 1.0, 500, 2500};

static void what_is_cheap_is_exact(void **state)
{
	const struct load sleeping = {100, 1000, 0.0001, 500, 3000};
	struct governor g = {0};

	(void)state;
	steps(&g, &sleeping, 20);
	assert_int_equal(g.rate, 0);
	assert_false(g.over_budget);
}

static void the_budget_is_kept(void **state)
{
	struct governor g = {0};
	double pct;

	(void)state;
	pct = steps(&g, &busy, 3);
	if (pct > BUDGET_PCT)
		fail_msg("%.2f %%", pct);
	assert_true(g.rate > 0);
	assert_false(g.over_budget);
}

static void a_hundred_times_the_load(void **state)
{
	const struct load more = {200000, 200, 15, 500, 2000};
	struct governor g = {0};
	double pct;

	(void)state;
	steps(&g, &quiet, 20);
	pct = steps(&g, &more, 2);
	if (pct > BUDGET_PCT)
		fail_msg("%.2f %% after two seconds", pct);
	steps(&g, &quiet, 120);
	assert_int_equal(g.rate, 0);
}

static void it_keeps_still(void **state)
{
	struct governor g = {0};
	uint32_t rate;
	int changes = 0;

	(void)state;
	steps(&g, &busy, 30);
	rate = g.rate;
	for (int i = 0; i < 600; i++) {
		step(&g, &busy);
		changes += g.rate != rate;
		rate = g.rate;
	}
	if (changes > 2)
		fail_msg("%d changes in five minutes", changes);
}

static void a_load_that_comes_and_goes(void **state)
{
	struct governor g = {0};
	uint32_t rate;
	int changes = 0;

	(void)state;
	steps(&g, &busy, 10);
	rate = g.rate;
	for (int i = 0; i < 60; i++) {
		steps(&g, i % 2 ? &busy : &quiet, 2);
		changes += g.rate != rate;
		rate = g.rate;
	}
	if (changes > 6)
		fail_msg("%d changes", changes);
}

/* Where the hits alone are too dear, recording is held to a part of them, and it is said. */
static void what_cannot_be_kept(void **state)
{
	struct governor g = {0};

	(void)state;
	steps(&g, &hot, 10);
	assert_true(g.over_budget);
	assert_true(g.rate > 0 && g.rate < SAMPLING_RATE_MAX);
	assert_true(g.measured_pct > 50);
}

static void strange_inputs(void **state)
{
	static const double values[] = {0, 1e-300, 1, 1e300, -1, INFINITY, NAN};
	const size_t n = sizeof(values) / sizeof(*values);

	(void)state;
	for (size_t i = 0; i < n * n * n * n; i++) {
		struct governor g = {.rate = (uint32_t)i % 3 * 4000};
		struct governor_input in = {.elapsed_s = values[i % n],
					    .cpu_s = values[i / n % n],
					    .probe_s = values[i / n / n % n],
					    .record_s = values[i / n / n / n % n],
					    .budget_pct = 2};

		governor_step(&g, &in);
		assert_true(g.rate <= SAMPLING_RATE_MAX);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_cheap_is_exact),
		cmocka_unit_test(the_budget_is_kept),
		cmocka_unit_test(a_hundred_times_the_load),
		cmocka_unit_test(it_keeps_still),
		cmocka_unit_test(a_load_that_comes_and_goes),
		cmocka_unit_test(what_cannot_be_kept),
		cmocka_unit_test(strange_inputs),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
