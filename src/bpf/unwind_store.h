/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The BPF unwinder's maps: rules, tables of objects, mappings of processes. */
#ifndef LEAKTOP_UNWIND_STORE_H
#define LEAKTOP_UNWIND_STORE_H

#include <stddef.h>
#include <stdint.h>

#include "unwind_maps.h"

struct kernel;
struct unwind_store;

/* @k is borrowed. 0 or negative errno. */
int unwind_store_new(const struct kernel *k, struct unwind_store **out);
void unwind_store_free(struct unwind_store *s);

/* @rule is a struct unwind_rule in 64 bits; ids never change their rule. */
void unwind_store_rule(struct unwind_store *s, uint32_t id, uint64_t rule);

/* Words of a table, as unwind_maps.h lays them out, in @count pieces. Waits for a
 * grace period, some 10 ms. 0 or negative errno. */
struct word_piece {
	const uint32_t *words;
	size_t count;
};
int unwind_store_table(struct unwind_store *s, uint32_t table, const struct word_piece *pieces,
		       size_t count);

int unwind_store_space(struct unwind_store *s, uint32_t slot, const struct unwind_mappings *m);
void unwind_store_forget(struct unwind_store *s, uint32_t slot);

#endif
