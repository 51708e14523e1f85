/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Keeps what tracing costs the processes within the budget, and says what it was. */
#ifndef LEAKTOP_OVERHEAD_H
#define LEAKTOP_OVERHEAD_H

#include <stdbool.h>
#include <stdint.h>

#include "overhead/figures.h"
#include "probe/method.h"

struct kernel;
struct overhead;
struct tracee;
struct tracees;

struct overhead_options {
	enum probe_method method;
	double budget_pct;
	bool fixed; /* allocations are sampled as the user said, whatever it costs */
};

/* Measures what probes cost here, on a child of ours (some 0.1 s). @k is borrowed. NULL when
 * out of memory. */
struct overhead *overhead_new(const struct overhead_options *o, struct kernel *k);
void overhead_free(struct overhead *o);

/* To be called often; does something every GOVERNOR_STEP_S. */
void overhead_tick(struct overhead *o, const struct tracees *tracees);

/* Of one process, and of the one that pays most, at the longest interval of any. */
struct overhead_figures overhead_of(const struct overhead *o, const struct tracee *t);
struct overhead_figures overhead_of_all(const struct overhead *o, const struct tracees *tracees);

#endif
