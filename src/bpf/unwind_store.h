/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The BPF unwinder's maps: rules, tables of objects, mappings of processes. */
#ifndef LEAKTOP_UNWIND_STORE_H
#define LEAKTOP_UNWIND_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "unwind_maps.h"

struct kernel;
struct unwind_store;

/* @k is borrowed. 0 or negative errno. The functions may be called from any
 * thread, each object of the maps from one at a time. */
int unwind_store_new(const struct kernel *k, struct unwind_store **out);
void unwind_store_free(struct unwind_store *s);

/* @rule is a struct unwind_rule in 64 bits; ids never change their rule. */
void unwind_store_rule(struct unwind_store *s, uint32_t id, uint64_t rule);

/* Words of a table, as unwind_maps.h lays them out, in @count pieces. */
struct word_piece {
	const uint32_t *words;
	size_t count;
};
/* Puts a table into the kernel, where nothing finds it yet. Returns a descriptor,
 * which the caller closes, or negative errno. */
int unwind_store_words(const struct word_piece *pieces, size_t count);

/* Makes tables to be found, @fds under @ids. Waits for grace periods, some 10 ms
 * each: one in all from Linux 6.8 on, one a table before. 0 or negative errno. */
int unwind_store_publish(struct unwind_store *s, const uint32_t *ids, const int *fds, size_t count);
void unwind_store_withdraw(struct unwind_store *s, uint32_t id);
/* Whether anything was looked up in the table since the last call. */
bool unwind_store_take_used(struct unwind_store *s, uint32_t id);
/* The id goes to another object: no file is known under it any more. */
void unwind_store_renew(struct unwind_store *s, uint32_t id);

int unwind_store_space(struct unwind_store *s, uint32_t slot, const struct unwind_mappings *m);
void unwind_store_forget(struct unwind_store *s, uint32_t slot);

#endif
