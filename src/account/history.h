/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The recent past of one figure: what growth per second is computed from. */
#ifndef LEAKTOP_HISTORY_H
#define LEAKTOP_HISTORY_H

#include <stddef.h>
#include <stdint.h>

#define HISTORY_POINTS 32

struct history {
	double time_s[HISTORY_POINTS];
	double value[HISTORY_POINTS];
	size_t count; /* points ever added */
};

/* Zeroed memory is an empty history. Times must not go backwards. */
void history_add(struct history *h, double time_s, double value);

/* Slope of the least-squares line through the points kept, in units per
 * second; NAN with fewer than two points or no time between them. */
double history_slope(const struct history *h);

#endif
