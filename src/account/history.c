/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "account/history.h"

#include <math.h>

void history_add(struct history *h, double time_s, double value)
{
	size_t at = h->count++ % HISTORY_POINTS;

	h->time_s[at] = time_s;
	h->value[at] = value;
}

double history_slope(const struct history *h)
{
	size_t n = h->count < HISTORY_POINTS ? h->count : HISTORY_POINTS;
	double mean_t = 0, mean_v = 0, covariance = 0, variance = 0;

	for (size_t i = 0; i < n; i++) {
		mean_t += h->time_s[i] / (double)n;
		mean_v += h->value[i] / (double)n;
	}
	for (size_t i = 0; i < n; i++) {
		double t = h->time_s[i] - mean_t;

		covariance += t * (h->value[i] - mean_v);
		variance += t * t;
	}
	return n >= 2 && variance > 0 ? covariance / variance : NAN;
}
