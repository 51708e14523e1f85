/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How one process is traced so that its budget is kept: pure decisions from what was
 * measured.
 *
 * Tracing costs a process what every hit of a probe takes, whether the allocation is
 * recorded or not, and what recording takes, which is in proportion to how many are. A step
 * compares both with the budget. If they exceed it, the interval is raised at once, by the
 * factor that is missing; so one or two steps follow any rise of the load. It is lowered by
 * half at a time, after the costs were under half of the budget for some seconds: a load
 * that comes and goes leaves it where it is.
 *
 * A budget is a part of the CPU time that the process uses, but at least a hundredth of a
 * CPU: one that uses little of it is better seen exactly, and nobody has less for it.
 */
#ifndef LEAKTOP_GOVERNOR_H
#define LEAKTOP_GOVERNOR_H

#include <stdbool.h>
#include <stdint.h>

#define GOVERNOR_STEP_S 0.5

/* Zeroed memory is a process that is traced exactly and was not measured yet. */
struct governor {
	uint32_t rate;	     /* sampling.h */
	double measured_pct; /* of the process' CPU time, of late; 0 until a step was made */
	double late_s, late_cpu_s, late_cost_s; /* of the last seconds, fading */
	double calm_s;				/* for how long the costs have been low */
	bool over_budget;			/* even with hardly anything recorded */
};

/* What happened since the step before. */
struct governor_input {
	double elapsed_s;
	double cpu_s;	 /* that the process used, tracing included */
	double probe_s;	 /* of which hits of probes */
	double record_s; /* and recording */
	double budget_pct;
};

/* One step; @g->rate is what is to hold from now on. */
void governor_step(struct governor *g, const struct governor_input *in);

#endif
