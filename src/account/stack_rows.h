/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The stacks of a snapshot: the ledger's, merged over processes and ranked. */
#ifndef LEAKTOP_STACK_ROWS_H
#define LEAKTOP_STACK_ROWS_H

#include <stdbool.h>
#include <stddef.h>

struct ledger;
struct snapshot;

/* Fills s->stacks with the best @top rows and s->stack_count_all. 0 or -ENOMEM. */
int stack_rows_fill(const struct ledger *l, struct snapshot *s, bool by_growth, size_t top);

#endif
