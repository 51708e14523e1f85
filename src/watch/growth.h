/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Whether a figure grows, how fast, and how sure that is: the recent past of the memory of
 * one process or cgroup, and judgements on it that depend on nothing else.
 */
#ifndef LEAKTOP_GROWTH_H
#define LEAKTOP_GROWTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GROWTH_POINTS 64
/* Less evidence than this says nothing: programs that start allocate. */
#define GROWTH_SPAN_MIN_S 60.0

/*
 * Each point is the mean of as many samples. A full history joins its points in pairs,
 * until a point stands for @samples_max samples; then the oldest points go.
 */
struct growth_history {
	double time_s[GROWTH_POINTS];
	double bytes[GROWTH_POINTS];
	float high[GROWTH_POINTS];	      /* the highest level in each point */
	double time_sum, bytes_sum, high_now; /* of the point that is not full yet */
	double last;
	uint32_t count, pending;
	uint32_t samples_a_point, samples_max;
};

void growth_history_init(struct growth_history *h, uint32_t samples_max);
/* Times must not go backwards. */
void growth_history_add(struct growth_history *h, double time_s, double bytes);
/* The seconds between its first and its last point. */
double growth_history_span(const struct growth_history *h);

struct growth_slope {
	double bytes_per_s; /* NAN: too early, as the others */
	double low, high;   /* 95 % interval */
};

enum growth_kind {
	GROWTH_TOO_EARLY = 0,
	GROWTH_FLAT,	/* nothing that would be distinguishable from noise */
	GROWTH_ENDED,	/* it rose, at once or for a while, and rises no more */
	GROWTH_RETURNS, /* it rises and falls again */
	GROWTH_STEADY,	/* it rises throughout, to where it has not been before */
};

struct growth {
	struct growth_slope slope;
	enum growth_kind kind;
	double span_s;	   /* what was looked at */
	double rise_bytes; /* over that */
};

/* From one history alone. */
void growth_judge(const struct growth_history *h, struct growth *out);
/*
 * From the last minutes and from the last hours. The recent growth is what is told, unless
 * only the longer history can tell a slow growth from noise.
 */
void growth_judge_both(const struct growth_history *recent, const struct growth_history *longer,
		       struct growth *out);

#endif
