/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The stacks of a snapshot: the ledger's, merged over processes and ranked. */
#ifndef LEAKTOP_STACK_ROWS_H
#define LEAKTOP_STACK_ROWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ledger;
struct snapshot;

/* Fills s->stacks with the best @top rows and s->stack_count_all. @row_of_stack (may be
 * NULL) has ledger_stack_limit() entries and gets the row of each stack, UINT32_MAX: in
 * none. 0 or -ENOMEM. */
int stack_rows_fill(const struct ledger *l, struct snapshot *s, bool by_growth, size_t top,
		    uint32_t *row_of_stack);

#endif
