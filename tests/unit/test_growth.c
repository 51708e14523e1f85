/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Series of known shape, many of each: how often the interval holds the true slope, how
 * often something else than a growth is called one, and how soon a growth is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <stdio.h>

#include "watch/growth.h"

#define KIB 1024.0
#define MIB (1024.0 * 1024)
#define BASE (100 * MIB)
#define PAGE 4096.0
#define RECENT_SAMPLES 2
#define LONGER_SAMPLES 128
#define SERIES 200
#define REPORT_S 5

struct series;
typedef double shape_fn(const struct series *s, double t);

struct series {
	shape_fn *shape;
	double a, b, c;	    /* parameters of the shape */
	double deviation;   /* of the noise */
	double correlation; /* of one sample's noise with the next one's */
};

static uint64_t seed = 88172645463325252u;

static double uniform(double low, double high)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return low + (high - low) * (double)(seed >> 11) / 9007199254740992.0;
}

static double normal(void)
{
	return sqrt(-2 * log(1 - uniform(0, 1))) * cos(2 * M_PI * uniform(0, 1));
}

struct run {
	struct series series;
	struct growth_history recent, longer;
	double time_s, noise;
};

static void run_init(struct run *r, const struct series *s)
{
	r->series = *s;
	growth_history_init(&r->recent, RECENT_SAMPLES);
	growth_history_init(&r->longer, LONGER_SAMPLES);
	r->time_s = 1000;
	r->noise = s->deviation * normal();
}

/* One second, more or less, as the watcher takes them. */
static void run_step(struct run *r)
{
	const struct series *s = &r->series;
	double kept = s->correlation, bytes;

	r->time_s += uniform(0.8, 1.2);
	r->noise = kept * r->noise + sqrt(1 - kept * kept) * s->deviation * normal();
	bytes = BASE + s->shape(s, r->time_s - 1000) + r->noise;
	bytes = floor(bytes / PAGE) * PAGE;
	growth_history_add(&r->recent, r->time_s, bytes);
	growth_history_add(&r->longer, r->time_s, bytes);
}

static void run_to(struct run *r, double age_s)
{
	while (r->time_s - 1000 < age_s)
		run_step(r);
}

static bool run_alarms(const struct run *r)
{
	struct growth g;

	growth_judge_both(&r->recent, &r->longer, &g);
	return g.kind == GROWTH_STEADY;
}

/* Whether any report from @from_s to @to_s calls it a growth. */
static bool ever_alarms(const struct series *s, double from_s, double to_s)
{
	struct run r;

	run_init(&r, s);
	for (run_to(&r, from_s); r.time_s - 1000 < to_s; run_to(&r, r.time_s - 1000 + REPORT_S))
		if (run_alarms(&r))
			return true;
	return false;
}

static double line(const struct series *s, double t)
{
	return s->a * t;
}

static double step(const struct series *s, double t)
{
	return t < s->b ? 0 : s->a;
}

/* Rises for @b seconds to @a. */
static double ramp(const struct series *s, double t)
{
	return s->a * fmin(t / s->b, 1);
}

static double filling(const struct series *s, double t)
{
	return s->a * (1 - exp(-t / s->b));
}

/* Teeth of height @a, @b seconds long, of which @c have passed at the start. */
static double saw(const struct series *s, double t)
{
	return s->a * fmod(t + s->c, s->b) / s->b;
}

/* @a bytes every @b seconds. */
static double bursts(const struct series *s, double t)
{
	return s->a * floor(t / s->b);
}

/* After a high of @a that lasts @b seconds, @c a second. */
static double after_a_high(const struct series *s, double t)
{
	return t < s->b ? s->a : s->c * (t - s->b);
}

static double coverage(double slope, double deviation, double correlation, double age_s)
{
	struct series s = {line, slope, 0, 0, deviation, correlation};
	int covered = 0;

	for (int i = 0; i < 500; i++) {
		struct growth g;
		struct run r;

		run_init(&r, &s);
		run_to(&r, age_s);
		growth_judge(&r.recent, &g);
		covered += g.slope.low <= slope && slope <= g.slope.high;
	}
	return covered / 500.0;
}

static void the_interval_holds_the_slope(void **state)
{
	static const struct {
		double slope, deviation, correlation, age_s;
	} rows[] = {
		{0, 1 * MIB, 0, 120},	       {50 * KIB, 1 * MIB, 0, 120},
		{50 * KIB, 1 * MIB, 0, 25},    {-20 * KIB, 200 * KIB, 0, 60},
		{50 * KIB, 1 * MIB, 0.5, 120}, {1 * MIB, 1 * MIB, 0.8, 200},
		{0, 1 * MIB, 0.5, 60},	       {5 * KIB, 20 * KIB, 0, 400},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		double c = coverage(rows[i].slope, rows[i].deviation, rows[i].correlation,
				    rows[i].age_s);

		print_message("slope %.0f noise %.0f correlation %.1f %.0f s: %.1f %%\n",
			      rows[i].slope, rows[i].deviation, rows[i].correlation, rows[i].age_s,
			      100 * c);
		assert_true(c >= 0.93 && c <= 0.999);
	}
}

static void the_slope_is_exact_without_noise(void **state)
{
	struct growth_history h;
	struct growth g;

	(void)state;
	growth_history_init(&h, 4);
	for (int i = 0; i < 300; i++)
		growth_history_add(&h, i, 1e9 + 51200.0 * i);
	growth_judge(&h, &g);
	assert_true(fabs(g.slope.bytes_per_s - 51200) < 0.01);
	assert_true(fabs(g.slope.low - 51200) < 0.01 && fabs(g.slope.high - 51200) < 0.01);
	assert_int_equal(g.kind, GROWTH_STEADY);
}

static void too_early_says_nothing(void **state)
{
	struct growth_history h;
	struct growth g;

	(void)state;
	growth_history_init(&h, RECENT_SAMPLES);
	growth_judge(&h, &g);
	assert_true(isnan(g.slope.bytes_per_s));
	assert_int_equal(g.kind, GROWTH_TOO_EARLY);
	for (int i = 0; i < 58; i++)
		growth_history_add(&h, i, i * MIB);
	growth_judge(&h, &g);
	assert_int_equal(g.kind, GROWTH_TOO_EARLY);
	assert_true(fabs(g.slope.bytes_per_s - MIB) < 1);
}

static void times_that_stand_still_do_not_divide(void **state)
{
	struct growth_history h;
	struct growth g;

	(void)state;
	growth_history_init(&h, RECENT_SAMPLES);
	for (int i = 0; i < 200; i++)
		growth_history_add(&h, 7, i);
	growth_judge(&h, &g);
	assert_true(isnan(g.slope.bytes_per_s));
	assert_int_equal(g.kind, GROWTH_TOO_EARLY);
}

static void joined_points_keep_the_whole_time(void **state)
{
	struct growth_history h;

	(void)state;
	growth_history_init(&h, LONGER_SAMPLES);
	for (int i = 0; i < 4096; i++)
		growth_history_add(&h, i, i);
	assert_true(growth_history_span(&h) > 4000);
	for (int i = 4096; i < 40000; i++)
		growth_history_add(&h, i, i);
	assert_true(growth_history_span(&h) > 7900 && growth_history_span(&h) <= 8192);
	assert_true(h.bytes[h.count - 1] > 39700);
}

/* False alarms among SERIES series; each is looked at every five seconds for long. */
static int false_alarms(struct series (*make)(void), double from_s, double to_s)
{
	int alarms = 0;

	for (int i = 0; i < SERIES; i++) {
		struct series s = make();

		alarms += ever_alarms(&s, from_s, to_s);
	}
	return alarms;
}

static struct series make_noise(void)
{
	return (struct series){line, 0, 0, 0, uniform(0.1, 5) * MIB, 0};
}

static struct series make_red_noise(void)
{
	return (struct series){line, 0, 0, 0, uniform(0.1, 5) * MIB, uniform(0.3, 0.9)};
}

static struct series make_step(void)
{
	return (struct series){step, uniform(1, 50) * MIB, uniform(1, 500),
			       0,    uniform(0, 1) * MIB,  uniform(0, 0.5)};
}

static struct series make_start_up(void)
{
	return (struct series){ramp, uniform(10, 200) * MIB, uniform(2, 50),
			       0,    uniform(0, 1) * MIB,    uniform(0, 0.5)};
}

static struct series make_saw(void)
{
	double period_s = uniform(1, 55);

	return (struct series){
		saw, uniform(2, 50) * MIB, period_s, uniform(0, period_s), uniform(0, 1) * MIB, 0};
}

static struct series make_slow_saw(void)
{
	double period_s = uniform(55, 600);

	/* It has fallen once before the first look. */
	return (struct series){
		saw, uniform(5, 50) * MIB, period_s, period_s * 0.5, uniform(0, 0.3) * MIB, 0};
}

static struct series make_filling(void)
{
	return (struct series){filling, uniform(5, 200) * MIB, uniform(1, 40),
			       0,	uniform(0, 1) * MIB,   0};
}

static void what_is_no_growth_is_not_called_one(void **state)
{
	static const struct {
		const char *name;
		struct series (*make)(void);
		double from_s, to_s;
	} rows[] = {
		{"noise", make_noise, 60, 600},
		{"noise that remembers", make_red_noise, 60, 600},
		{"one step", make_step, 60, 600},
		{"start-up, then flat", make_start_up, 60, 600},
		{"saw", make_saw, 60, 600},
		{"slow saw", make_slow_saw, 320, 2000},
		{"cache filled", make_filling, 300, 600},
	};
	bool failed = false;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		int alarms = false_alarms(rows[i].make, rows[i].from_s, rows[i].to_s);

		print_message("%s: %d false alarms in %d series\n", rows[i].name, alarms, SERIES);
		failed |= alarms >= SERIES / 100;
	}
	assert_false(failed);
}

static void a_growth_is_seen_within_two_minutes(void **state)
{
	static const struct {
		double deviation, correlation;
		int at_least; /* of SERIES */
	} rows[] = {
		{0.1 * MIB, 0, SERIES * 99 / 100},
		{0.5 * MIB, 0, SERIES * 98 / 100},
		{1.0 * MIB, 0, SERIES * 90 / 100},
		{0.5 * MIB, 0.5, SERIES * 90 / 100},
	};
	bool failed = false;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct series s = {line, 50 * KIB, 0, 0, rows[i].deviation, rows[i].correlation};
		int seen = 0;

		for (int k = 0; k < SERIES; k++)
			seen += ever_alarms(&s, 60, 121);
		print_message("noise %.0f, correlation %.1f: %d of %d seen\n", rows[i].deviation,
			      rows[i].correlation, seen, SERIES);
		failed |= seen < rows[i].at_least;
	}
	assert_false(failed);
}

static bool alarms_at(const struct series *s, double age_s)
{
	struct run r;

	run_init(&r, s);
	run_to(&r, age_s);
	return run_alarms(&r);
}

static void slow_growth_takes_the_longer_history(void **state)
{
	const struct series slow = {line, 1 * KIB, 0, 0, 1 * MIB, 0};
	const struct series burst = {bursts, 8 * MIB, 60, 0, 0.5 * MIB, 0};
	const struct series high = {after_a_high, 500 * MIB, 60, 200 * KIB, 0.2 * MIB, 0};

	(void)state;
	assert_false(alarms_at(&slow, 300));
	assert_true(alarms_at(&slow, 2 * 3600));
	assert_true(alarms_at(&burst, 1200));
	assert_false(alarms_at(&high, 300));
	assert_true(alarms_at(&high, 1800));
}

static void a_growth_that_stops_is_cleared(void **state)
{
	const struct series s = {ramp, 300 * 100 * KIB, 300, 0, 100 * KIB, 0};

	(void)state;
	assert_true(alarms_at(&s, 299));
	assert_false(alarms_at(&s, 360));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_interval_holds_the_slope),
		cmocka_unit_test(the_slope_is_exact_without_noise),
		cmocka_unit_test(too_early_says_nothing),
		cmocka_unit_test(times_that_stand_still_do_not_divide),
		cmocka_unit_test(joined_points_keep_the_whole_time),
		cmocka_unit_test(what_is_no_growth_is_not_called_one),
		cmocka_unit_test(a_growth_is_seen_within_two_minutes),
		cmocka_unit_test(slow_growth_takes_the_longer_history),
		cmocka_unit_test(a_growth_that_stops_is_cleared),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
