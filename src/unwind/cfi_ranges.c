/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "unwind/cfi_ranges.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "unwind/cfi_program.h"
#include "unwind/cfi_rule.h"
#include "unwind_table.h"

void cfi_ranges_release(struct cfi_ranges *r)
{
	free(r->ranges);
	free(r->rows);
	memset(r, 0, sizeof(*r));
}

/* Makes room for one more item in an array of at most UNWIND_ROWS_MAX. */
static int make_room(void **items, size_t item_bytes, uint32_t count, uint32_t *capacity)
{
	uint32_t more = *capacity ? 2 * *capacity : 1024;
	void *grown;

	if (count < *capacity)
		return 0;
	if (count >= UNWIND_ROWS_MAX)
		return -E2BIG;
	grown = realloc(*items, more * item_bytes);
	if (!grown)
		return -ENOMEM;
	*items = grown;
	*capacity = more;
	return 0;
}

int cfi_ranges_begin(struct cfi_ranges *r, uint32_t start, uint32_t end)
{
	void *items = r->ranges;
	int err;

	err = make_room(&items, sizeof(*r->ranges), r->count, &r->capacity);
	r->ranges = items;
	if (err)
		return err;
	r->ranges[r->count++] = (struct cfi_range){start, end, r->row_count, 0};
	return 0;
}

/* Adds a row to the last range, unless its rule is the one that holds already. */
static int add_row(struct cfi_ranges *r, uint32_t start, uint16_t rule)
{
	struct cfi_range *range = &r->ranges[r->count - 1];
	void *items = r->rows;
	int err;

	if (range->row_count && r->rows[r->row_count - 1].rule == rule)
		return 0;
	err = make_room(&items, sizeof(*r->rows), r->row_count, &r->row_capacity);
	r->rows = items;
	if (err)
		return err;
	r->rows[r->row_count++] = (struct cfi_range_row){start, rule};
	range->row_count++;
	return 0;
}

static uint16_t rule_id(struct cfi_ranges *r, struct unwind_rule rule)
{
	uint16_t id;

	/* No room for one more rule is like a rule that nobody knows. */
	if (rule_set_intern(r->rules, rule, r->rules_limit, &id))
		return UNWIND_RULE_UNKNOWN;
	return id;
}

int cfi_ranges_put(struct cfi_ranges *r, uint32_t start, struct unwind_rule rule)
{
	return add_row(r, start, rule_id(r, rule));
}

void cfi_ranges_end(struct cfi_ranges *r)
{
	struct cfi_range *range = &r->ranges[r->count - 1];

	if (range->row_count > 1 ||
	    (range->row_count && r->rows[range->first_row].rule != UNWIND_RULE_UNKNOWN))
		return;
	r->row_count = range->first_row;
	r->count--;
}

static uint32_t relative(const struct cfi_ranges *r, uint64_t vaddr)
{
	return (uint32_t)((vaddr < r->low ? r->low : vaddr) - r->bias);
}

static int add_rows(struct cfi_ranges *r, const struct cfi_fde *fde)
{
	struct cfi_program p;
	int more, err;

	cfi_program_begin(&p, fde->code, fde->code_vaddr, &fde->cie->factors, &fde->cie->initial,
			  fde->start, fde->end);
	while ((more = cfi_program_next(&p)) > 0) {
		if (p.row_end <= r->low)
			continue;
		err = cfi_ranges_put(r, relative(r, p.row_start),
				     cfi_rule(&p.state, fde->cie->signal));
		if (err)
			return err;
	}
	if (!more)
		return 0;
	r->bad++;
	return add_row(r, relative(r, p.row_start), UNWIND_RULE_UNKNOWN);
}

/* Whether one of the sorted ranges has a part of [start, end). */
static bool is_known(const struct cfi_ranges *r, uint32_t start, uint32_t end)
{
	uint32_t low = 0, high = r->sorted, middle;

	while (low < high) {
		middle = low + (high - low) / 2;
		if (r->ranges[middle].end <= start)
			low = middle + 1;
		else
			high = middle;
	}
	return low < r->sorted && r->ranges[low].start < end;
}

static int add_fde(struct cfi_ranges *r, struct cfi_fde *fde)
{
	uint32_t start, end;
	int err;

	if (fde->end > r->high)
		fde->end = r->high;
	if (fde->end <= r->low || fde->start >= fde->end)
		return 0;
	start = relative(r, fde->start);
	end = relative(r, fde->end);
	if (is_known(r, start, end))
		return 0;
	err = cfi_ranges_begin(r, start, end);
	return err ? err : add_rows(r, fde);
}

int cfi_ranges_add(struct cfi_ranges *r, const struct cfi_part *part)
{
	struct cfi_records *records;
	struct cfi_fde fde;
	int more, err;

	err = cfi_records_new(part, &records);
	if (err)
		return err;
	while ((more = cfi_records_next(records, &fde)) > 0) {
		err = add_fde(r, &fde);
		if (err)
			goto out;
	}
	err = more;
	r->bad += cfi_records_bad(records);
out:
	cfi_records_free(records);
	return err;
}

static bool in_order(const struct cfi_ranges *r)
{
	uint32_t i;

	for (i = 1; i < r->count; i++) {
		if (r->ranges[i - 1].start > r->ranges[i].start)
			return false;
	}
	return true;
}

static void merge(const struct cfi_range *from, struct cfi_range *to, uint32_t low, uint32_t middle,
		  uint32_t high)
{
	uint32_t a = low, b = middle, i;

	for (i = low; i < high; i++) {
		if (a < middle && (b == high || from[a].start <= from[b].start))
			to[i] = from[a++];
		else
			to[i] = from[b++];
	}
}

static uint32_t smaller(uint64_t a, uint32_t b)
{
	return a < b ? (uint32_t)a : b;
}

/* A merge sort: stable, and n log n whatever the input is. */
static int sort_ranges(struct cfi_ranges *r)
{
	struct cfi_range *from = r->ranges, *to = malloc(r->count * sizeof(*to)), *other;
	uint64_t width, low;

	if (!to)
		return -ENOMEM;
	for (width = 1; width < r->count; width *= 2) {
		for (low = 0; low < r->count; low += 2 * width)
			merge(from, to, (uint32_t)low, smaller(low + width, r->count),
			      smaller(low + 2 * width, r->count));
		other = from;
		from = to;
		to = other;
	}
	free(to);
	r->ranges = from;
	r->capacity = r->count;
	return 0;
}

static void end_overlaps(struct cfi_ranges *r)
{
	uint32_t i, kept = 0;

	for (i = 0; i < r->count; i++) {
		struct cfi_range *last = kept ? &r->ranges[kept - 1] : NULL;

		if (last && last->start == r->ranges[i].start)
			continue;
		if (last && last->end > r->ranges[i].start)
			last->end = r->ranges[i].start;
		r->ranges[kept++] = r->ranges[i];
	}
	r->count = kept;
}

int cfi_ranges_sort(struct cfi_ranges *r)
{
	int err;

	if (!in_order(r)) {
		err = sort_ranges(r);
		if (err)
			return err;
	}
	end_overlaps(r);
	r->sorted = r->count;
	return 0;
}
