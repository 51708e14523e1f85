/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "overhead/governor.h"

#include <math.h>

#include "base/sampling_tables.h"

#define IDLE_BUDGET 0.01 /* of a CPU */
#define AIM 0.8		 /* of the budget */
#define CALM 0.4
#define CALM_S 4.0
/* What recording may take where the hits alone exceed the budget: a part of these. */
#define RECORD_OF_HITS 0.1
/* The interval to begin with is of some small blocks. */
#define FIRST_INTERVAL_BYTES 256.0
#define LAST_INTERVAL_BYTES 1024.0 /* below, every block is recorded */
#define FACTOR_MAX 64.0
#define SMOOTH_S 2.0

static double interval_bytes(uint32_t rate)
{
	return rate ? exp2((double)rate / 256) : 0;
}

static void raise_interval(struct governor *g, double factor)
{
	double interval = interval_bytes(g->rate);

	factor = fmin(factor, FACTOR_MAX);
	g->rate = sampling_rate_of((interval > 0 ? interval : FIRST_INTERVAL_BYTES) * factor);
	g->calm_s = 0;
}

static void lower_interval(struct governor *g)
{
	double interval = interval_bytes(g->rate) / 2;

	g->rate = interval < LAST_INTERVAL_BYTES ? 0 : sampling_rate_of(interval);
	g->calm_s = 0;
}

/* Sums of late: a process that uses little CPU time is told of it in steps of 10 ms. */
static void measure(struct governor *g, const struct governor_input *in, double cost_s)
{
	double keep = exp(-in->elapsed_s / SMOOTH_S);

	g->late_s = keep * g->late_s + in->elapsed_s;
	g->late_cpu_s = keep * g->late_cpu_s + fmax(0, in->cpu_s);
	g->late_cost_s = keep * g->late_cost_s + cost_s;
	g->measured_pct = g->late_cpu_s > 0 ? fmin(100, 100 * g->late_cost_s / g->late_cpu_s) : 0;
}

void governor_step(struct governor *g, const struct governor_input *in)
{
	double cost_s = in->probe_s + in->record_s, cpu_s, budget_s, left_s;

	if (!(in->elapsed_s > 0))
		return;
	measure(g, in, cost_s);
	cpu_s = fmax(in->cpu_s, g->late_cpu_s / g->late_s * in->elapsed_s);
	budget_s = fmax(in->budget_pct / 100 * cpu_s, IDLE_BUDGET * in->elapsed_s);
	left_s = fmax(AIM * budget_s - in->probe_s, RECORD_OF_HITS * in->probe_s);
	g->over_budget = in->probe_s > budget_s;
	if (cost_s > budget_s && in->record_s > left_s) {
		raise_interval(g, in->record_s / left_s);
		return;
	}
	if (cost_s > CALM * budget_s || !g->rate) {
		g->calm_s = 0;
		return;
	}
	g->calm_s += in->elapsed_s;
	if (g->calm_s >= CALM_S)
		lower_interval(g);
}
