/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The slope is the median of the slopes between all pairs of points (H. Theil, "A
 * rank-invariant method of linear and polynomial regression analysis", 1950), which one
 * step or some outliers do not move. Its interval lies between two order statistics of
 * those slopes, as far apart as Kendall's S varies for points without a trend:
 * n(n - 1)(2n + 5)/18 (P. K. Sen, "Estimates of the regression coefficient based on
 * Kendall's tau", Journal of the American Statistical Association 63, 1968). Ties would
 * make that smaller; they are left out, so the interval is rather too wide.
 *
 * Memory is not white noise: what is held now is mostly held in the next second too.
 * Correlation of neighbours makes S vary more. As in K. H. Hamed and A. R. Rao, "A modified
 * Mann-Kendall trend test for autocorrelated data", Journal of Hydrology 204, 1998, its
 * variance is that of fewer, independent points; here by the first coefficient alone,
 * (1 + r)/(1 - r), with r made larger by what a short series underestimates it.
 *
 * A slope is no leak yet. A single step in the middle has a significant trend by any of
 * these tests, a cache that has filled too. So a growth must also
 *  - be there in each quarter of the time (of which a step lifts only one),
 *  - go on in the second half and the last third (a cache that fills slows down),
 *  - not have been given back: no fall of more than half the rise (a collector's sawtooth),
 *  - reach above all that was held in the quarter of an hour before.
 * What cannot be told: the first tooth of a saw is a growth until it falls.
 *
 * Samples are to be taken at irregular times: regular ones would meet a collector that runs
 * by the clock always in nearly the same phase, and see a slow growth that is none.
 */
#include "watch/growth.h"

#include <math.h>
#include <string.h>

#define PAIRS (GROWTH_POINTS * (GROWTH_POINTS - 1) / 2)
#define SLOPE_POINTS_MIN 4
#define JUDGE_POINTS_MIN 16
#define Z_95 1.960
/* Each report of hours is a test, so a single one must be surer. */
#define Z_SURE 3.5
#define CORRELATION_MAX 0.95
/* Under this, a rise may be a kernel's batched counters (lib/percpu_counter.c: 32 pages for
 * each CPU, and memcg's stock of 64). */
#define RISE_MIN_BYTES (256.0 * 1024)
#define QUARTERS 4
#define BLOCKS 16
/* Parts of the mean, that each part of the time must reach. */
#define QUARTER_SHARE_MIN 0.5
#define HALF_SLOPE_MIN 0.6
#define HALF_LOW_MIN 0.3
#define THIRD_SLOPE_MIN 0.5
#define FALL_SHARE_MAX 0.5
#define HIGH_SHARE_MIN 0.25
#define HIGH_REACH_S 900.0

/* A part of a history. */
struct points {
	const double *time_s, *bytes;
	size_t count;
};

void growth_history_init(struct growth_history *h, uint32_t samples_max)
{
	memset(h, 0, sizeof(*h));
	h->samples_a_point = 1;
	h->samples_max = samples_max;
}

static void join_pairs(struct growth_history *h)
{
	for (size_t i = 0; i < GROWTH_POINTS / 2; i++) {
		h->time_s[i] = (h->time_s[2 * i] + h->time_s[2 * i + 1]) / 2;
		h->bytes[i] = (h->bytes[2 * i] + h->bytes[2 * i + 1]) / 2;
		h->high[i] = fmaxf(h->high[2 * i], h->high[2 * i + 1]);
	}
	h->count = GROWTH_POINTS / 2;
	h->samples_a_point *= 2;
}

static void drop_oldest(struct growth_history *h)
{
	h->count--;
	memmove(h->time_s, h->time_s + 1, h->count * sizeof(h->time_s[0]));
	memmove(h->bytes, h->bytes + 1, h->count * sizeof(h->bytes[0]));
	memmove(h->high, h->high + 1, h->count * sizeof(h->high[0]));
}

void growth_history_add(struct growth_history *h, double time_s, double bytes)
{
	if (h->count == GROWTH_POINTS && !h->pending) {
		if (h->samples_a_point < h->samples_max)
			join_pairs(h);
		else
			drop_oldest(h);
	}
	h->time_sum += time_s;
	h->bytes_sum += bytes;
	/* What stood for one sample only is no level that memory was at. */
	h->high_now = fmax(h->high_now, fmin(bytes, h->last));
	h->last = bytes;
	if (++h->pending < h->samples_a_point)
		return;
	h->time_s[h->count] = h->time_sum / h->pending;
	h->bytes[h->count] = h->bytes_sum / h->pending;
	h->high[h->count] = (float)h->high_now;
	h->count++;
	h->time_sum = h->bytes_sum = h->high_now = 0;
	h->pending = 0;
}

double growth_history_span(const struct growth_history *h)
{
	return h->count ? h->time_s[h->count - 1] - h->time_s[0] : 0;
}

static void swap_values(double *a, double *b)
{
	double t = *a;

	*a = *b;
	*b = t;
}

/* The @k-th smallest; orders @v a little. Hoare's selection. */
static double nth_smallest(double *v, size_t count, size_t k)
{
	size_t low = 0, high = count - 1;

	while (low < high) {
		double pivot = v[low + (high - low) / 2];
		size_t i = low, j = high;

		for (;;) {
			while (v[i] < pivot)
				i++;
			while (v[j] > pivot)
				j--;
			if (i >= j)
				break;
			swap_values(&v[i++], &v[j--]);
		}
		if (k <= j)
			high = j;
		else
			low = j + 1;
	}
	return v[k];
}

static double median(double *v, size_t count)
{
	double upper = nth_smallest(v, count, count / 2);

	return count % 2 ? upper : (upper + nth_smallest(v, count, count / 2 - 1)) / 2;
}

static double median_of(const double *v, size_t count)
{
	double copy[GROWTH_POINTS];

	memcpy(copy, v, count * sizeof(*v));
	return median(copy, count);
}

static size_t pair_slopes(const struct points *p, double *slopes)
{
	size_t n = 0;

	for (size_t i = 0; i < p->count; i++) {
		for (size_t k = i + 1; k < p->count; k++) {
			double time_s = p->time_s[k] - p->time_s[i];

			if (time_s > 0)
				slopes[n++] = (p->bytes[k] - p->bytes[i]) / time_s;
		}
	}
	return n;
}

/* Of neighbours, when the line of this slope is taken off: 0 to CORRELATION_MAX. */
static double correlation(const struct points *p, double slope)
{
	double mean = 0, variance = 0, covariance = 0, last = 0, n = (double)p->count, r;

	for (size_t i = 0; i < p->count; i++)
		mean += (p->bytes[i] - slope * (p->time_s[i] - p->time_s[0])) / n;
	for (size_t i = 0; i < p->count; i++) {
		double rest = p->bytes[i] - slope * (p->time_s[i] - p->time_s[0]) - mean;

		variance += rest * rest;
		covariance += i ? rest * last : 0;
		last = rest;
	}
	if (!(variance > 0) || p->count < 8)
		return 0;
	/* The estimate of a detrended series is too low by (2 + 4r)/n (Kendall, Marriott and
	 * Pope, 1954). */
	r = (n * covariance / variance + 2) / (n - 4);
	return fmin(fmax(r, 0), CORRELATION_MAX);
}

/* Standard deviation of S of points without a trend, whose neighbours correlate by @r. */
static double s_deviation(size_t count, double r)
{
	double n = (double)count;

	return sqrt(n * (n - 1) * (2 * n + 5) / 18 * (1 + r) / (1 - r));
}

/* The order statistic of @slopes that is @s below (or, negative, above) the middle in S. */
static double slope_beside(double *slopes, size_t count, double s)
{
	double rank = ((double)count - s) / 2 - (s > 0 ? 1 : 0);

	return nth_smallest(slopes, count, (size_t)fmin(fmax(rank, 0), (double)(count - 1)));
}

static bool is_constant(const struct points *p)
{
	for (size_t i = 1; i < p->count; i++)
		if (p->bytes[i] != p->bytes[0])
			return false;
	return true;
}

/* @sure: the lower end of an interval that is wider than the 95 %. */
static void estimate(const struct points *p, struct growth_slope *out, double *sure)
{
	double slopes[PAIRS], deviation;
	size_t n;

	*out = (struct growth_slope){NAN, NAN, NAN};
	*sure = NAN;
	if (p->count < SLOPE_POINTS_MIN)
		return;
	if (is_constant(p)) {
		*out = (struct growth_slope){0, 0, 0};
		*sure = 0;
		return;
	}
	n = pair_slopes(p, slopes);
	if (!n)
		return;
	out->bytes_per_s = median(slopes, n);
	deviation = s_deviation(p->count, correlation(p, out->bytes_per_s));
	out->low = slope_beside(slopes, n, Z_95 * deviation);
	out->high = slope_beside(slopes, n, -Z_95 * deviation);
	*sure = slope_beside(slopes, n, Z_SURE * deviation);
}

/* Medians of equal parts of the time, oldest first. */
static void part_medians(const struct points *p, size_t parts, double *out)
{
	for (size_t i = 0; i < parts; i++) {
		size_t from = i * p->count / parts, to = (i + 1) * p->count / parts;

		out[i] = median_of(p->bytes + from, to - from);
	}
}

static bool rises_in_each_quarter(const struct points *p)
{
	double level[QUARTERS], mean;

	part_medians(p, QUARTERS, level);
	mean = (level[QUARTERS - 1] - level[0]) / (QUARTERS - 1);
	for (size_t i = 1; i < QUARTERS; i++)
		if (level[i] - level[i - 1] < QUARTER_SHARE_MIN * mean)
			return false;
	return mean > 0;
}

/* From point @from on. */
static void estimate_end(const struct points *p, size_t from, struct growth_slope *out)
{
	struct points end = {p->time_s + from, p->bytes + from, p->count - from};
	double sure;

	estimate(&end, out, &sure);
}

static bool goes_on(const struct points *p, double slope)
{
	struct growth_slope half, third;

	estimate_end(p, p->count / 2, &half);
	if (!(half.low >= HALF_LOW_MIN * slope) || half.bytes_per_s < HALF_SLOPE_MIN * slope)
		return false;
	estimate_end(p, p->count * 2 / 3, &third);
	return third.bytes_per_s >= THIRD_SLOPE_MIN * slope;
}

/* The deepest fall, of blocks' medians so that noise is none. */
static double deepest_fall(const struct points *p)
{
	double level[BLOCKS], high, fall = 0;

	part_medians(p, BLOCKS, level);
	high = level[0];
	for (size_t i = 1; i < BLOCKS; i++) {
		high = fmax(high, level[i]);
		fall = fmax(fall, high - level[i]);
	}
	return fall;
}

static enum growth_kind kind_of(const struct points *p, const struct growth *g, double sure)
{
	double fall;

	if (p->count < JUDGE_POINTS_MIN || g->span_s < GROWTH_SPAN_MIN_S || isnan(sure))
		return GROWTH_TOO_EARLY;
	fall = deepest_fall(p);
	if (sure <= 0 || g->rise_bytes < RISE_MIN_BYTES)
		return fall >= RISE_MIN_BYTES && fall > FALL_SHARE_MAX * g->rise_bytes
			       ? GROWTH_RETURNS
			       : GROWTH_FLAT;
	if (fall > FALL_SHARE_MAX * g->rise_bytes)
		return GROWTH_RETURNS;
	if (!rises_in_each_quarter(p) || !goes_on(p, g->slope.bytes_per_s))
		return GROWTH_ENDED;
	return GROWTH_STEADY;
}

void growth_judge(const struct growth_history *h, struct growth *out)
{
	struct points p = {h->time_s, h->bytes, h->count};
	double sure;

	estimate(&p, &out->slope, &sure);
	out->span_s = growth_history_span(h);
	out->rise_bytes = out->slope.bytes_per_s * out->span_s;
	out->kind = kind_of(&p, out, sure);
}

/* Whether the end of @recent, which rose by @rise_bytes, is above all that @longer knows of
 * the time before it. */
static bool is_new_high(const struct growth_history *recent, const struct growth_history *longer,
			double rise_bytes)
{
	size_t last = recent->count / QUARTERS;
	double level = median_of(recent->bytes + recent->count - last, last);

	level -= HIGH_SHARE_MIN * rise_bytes;
	for (size_t i = 0; i < longer->count; i++) {
		double age_s = recent->time_s[0] - longer->time_s[i];

		if (age_s > 0 && age_s < HIGH_REACH_S && longer->high[i] >= level)
			return false;
	}
	return true;
}

/* A cheap look that spares most histories the dear one. */
static bool may_be_steady(const struct growth_history *h)
{
	struct points p = {h->time_s, h->bytes, h->count};

	return p.count >= JUDGE_POINTS_MIN && rises_in_each_quarter(&p);
}

void growth_judge_both(const struct growth_history *recent, const struct growth_history *longer,
		       struct growth *out)
{
	struct growth slow;

	growth_judge(recent, out);
	if (out->kind == GROWTH_STEADY) {
		if (!is_new_high(recent, longer, out->rise_bytes))
			out->kind = GROWTH_RETURNS;
		return;
	}
	if (longer->samples_a_point <= recent->samples_a_point || !may_be_steady(longer))
		return;
	growth_judge(longer, &slow);
	if (slow.kind == GROWTH_STEADY)
		*out = slow;
}
