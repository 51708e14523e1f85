/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The address ranges that FDEs describe, with the rules within each. */
#ifndef LEAKTOP_CFI_RANGES_H
#define LEAKTOP_CFI_RANGES_H

#include <stdint.h>

#include "unwind/cfi_records.h"
#include "unwind/rule_set.h"
#include "unwind_table.h"

/* Addresses are relative to the bias; `end` may be 2^32 - 1 at most. */
struct cfi_range {
	uint32_t start, end;
	uint32_t first_row, row_count;
};

struct cfi_range_row {
	uint32_t start;
	uint16_t rule;
};

struct cfi_ranges {
	uint64_t bias;
	uint64_t low, high; /* code outside is left out; high - bias fits in 32 bits */
	struct rule_set *rules;
	uint32_t rules_limit; /* the set may grow to so many */
	struct cfi_range *ranges;
	struct cfi_range_row *rows;
	uint32_t count, capacity;
	uint32_t row_count, row_capacity;
	uint32_t sorted; /* so many of the ranges are in order, and do not overlap */
	uint32_t bad;	 /* records that could not be read entirely */
};

void cfi_ranges_release(struct cfi_ranges *r);
/*
 * Adds what @part describes and the sorted ranges do not. 0, -E2BIG beyond
 * UNWIND_ROWS_MAX rows, -ENOMEM.
 */
int cfi_ranges_add(struct cfi_ranges *r, const struct cfi_part *part);
/* Begins a range that no other has a part of; what is put in it follows in order. */
int cfi_ranges_begin(struct cfi_ranges *r, uint32_t start, uint32_t end);
int cfi_ranges_put(struct cfi_ranges *r, uint32_t start, struct unwind_rule rule);
/* Takes the range back if nothing is known about any of it. */
void cfi_ranges_end(struct cfi_ranges *r);
/*
 * Sorts by start. Where two overlap the later start ends the earlier range; of
 * those with one start the first that was added stays. 0 or -ENOMEM.
 */
int cfi_ranges_sort(struct cfi_ranges *r);

#endif
