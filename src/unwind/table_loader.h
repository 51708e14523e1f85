/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Compiles the tables that are wanted and puts them into the kernel, in a thread of
 * its own and within a bound of memory.
 */
#ifndef LEAKTOP_TABLE_LOADER_H
#define LEAKTOP_TABLE_LOADER_H

#include <stdbool.h>
#include <stddef.h>

#include "unwind/table_set.h"

struct table_loader;
struct unwind_store;
struct unwinder_stats;

/* @store is borrowed. 0 or negative errno. */
int table_loader_new(struct unwind_store *store, size_t max_bytes, struct table_loader **out);
void table_loader_free(struct table_loader *l);

/* The tables are shared with the thread: they belong to whoever holds the lock. */
struct table_set *table_loader_lock(struct table_loader *l);
void table_loader_unlock(struct table_loader *l);

/* Asks for a table; with the lock. @t: NULL for none. @urgent: a stack waits for it. */
void table_loader_want(struct table_loader *l, struct table *t, bool urgent);
/* Whether less than half of the memory is taken; with the lock. */
bool table_loader_has_room(const struct table_loader *l);

/* As in unwinder.h; without the lock. */
bool table_loader_wait(struct table_loader *l, int timeout_ms);
void table_loader_tick(struct table_loader *l);
void table_loader_stats(struct table_loader *l, struct unwinder_stats *out);

#endif
