/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Keeps the BPF unwinder supplied: tells where each process has mapped which
 * object, and compiles the tables of objects when they are wanted, in a thread of
 * its own. Until a table is there, stacks that enter its object end, marked
 * UNWIND_PENDING; nobody waits.
 */
#ifndef LEAKTOP_UNWINDER_H
#define LEAKTOP_UNWINDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct addr_space;
struct kernel;
struct object;
struct unwinder;

/* @k is borrowed. Tables take @max_bytes of kernel memory at most; those least
 * recently used go when there is no room. 0 or negative errno. */
int unwinder_new(const struct kernel *k, size_t max_bytes, struct unwinder **out);
void unwinder_free(struct unwinder *u);

/* The process of @slot has the mappings of @as now. 0 or negative errno. */
int unwinder_update(struct unwinder *u, uint32_t slot, const struct addr_space *as);
void unwinder_forget(struct unwinder *u, uint32_t slot);

/* Where a frame that names a table lies (unwind_maps.h). 0 or negative errno. */
int unwinder_locate(struct unwinder *u, uint64_t frame, const struct object **object,
		    uint64_t *vaddr);

/* The other way: how frames name @vaddr of @object. */
int unwinder_frame(struct unwinder *u, const struct object *object, uint64_t vaddr,
		   uint64_t *frame);

/* Asks for the table that @frame lies in, where a stack had to end. */
void unwinder_want(struct unwinder *u, uint64_t frame);
/* Asks for the tables of all that @as maps, before a stack enters them; not when half
 * of the memory is taken. */
void unwinder_prefetch(struct unwinder *u, const struct addr_space *as);
/* Waits until all tables asked for are loaded; false if @timeout_ms were too few. */
bool unwinder_wait(struct unwinder *u, int timeout_ms);
/* To be called about once a second: notes which tables are in use and releases
 * those that no process has mapped for a while. */
void unwinder_tick(struct unwinder *u);

struct unwinder_stats {
	size_t tables, table_bytes; /* loaded now */
	size_t loading;		    /* asked for, not there yet */
	size_t evicted;		    /* taken out so far because memory was short */
	size_t mappings_left_out;   /* of processes with more than UNWIND_MAPPINGS_MAX */
	uint32_t rules;
};
void unwinder_stats(struct unwinder *u, struct unwinder_stats *out);

/* What a stack's end is called: "no_rule" in JSON, and for people. NULL for a
 * complete one. */
const char *unwind_result_name(uint32_t result);
const char *unwind_result_text(uint32_t result);

#endif
