/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What tracing costs, as a report has it. */
#ifndef LEAKTOP_FIGURES_H
#define LEAKTOP_FIGURES_H

#include <stdbool.h>
#include <stdint.h>

struct overhead_figures {
	const char *mode; /* "exact", "sampled"; static storage */
	double budget_pct;
	double measured_pct;	 /* of the CPU time of the process; NAN: not measured yet */
	uint64_t interval_bytes; /* 0: every allocation is recorded */
	bool over_budget;	 /* nothing that can be done keeps it */
};

#endif
