/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What lives: per process and per (process, stack) sums of outstanding bytes.
 *
 * Heap blocks are not copied here. They stand in the live table that the BPF
 * programs share with us; a sweep of the table makes the sums. Stacks and
 * anonymous mappings come as events. So a block costs no memory in user space,
 * and a million of them cost one pass over 48 MB every report.
 */
#ifndef LEAKTOP_LEDGER_H
#define LEAKTOP_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "account/estimate.h"
#include "account/history.h"
#include "events.h"
#include "probe_spec.h"
#include "sym/frame.h"

struct addr_space;
struct block_list;
struct code_store;
struct cut_stacks;
struct kernel;
struct ledger;
struct unwinder;

struct ledger_stack {
	uint32_t id;
	uint32_t slot;
	uint64_t hash;	    /* the kernel side's, over addresses */
	uint64_t merged_id; /* over builds and offsets: equal across processes and runs */
	enum probe_domain domain;
	uint32_t result; /* enum unwind_result */
	bool python_cut; /* it has more Python frames */
	size_t frame_count;
	/* As of the last sweep: */
	struct estimate live;
	uint64_t oldest_birth_ns; /* UINT64_MAX: none */
	uint64_t allocated_bytes, allocated_blocks, freed_bytes, freed_blocks;
	struct history history; /* of live bytes */
	bool held;		/* some block is its, however young */
	bool retiring;		/* its number is being taken back */
	uint64_t idle_blocks;	/* allocated_blocks at the sweep before */
	struct frame_ref frames[];
};

struct ledger_process {
	uint32_t slot;
	pid_t pid;
	bool buried;	      /* gone; what it holds is dropped by the next sweep */
	struct estimate live; /* malloc, as of the last sweep */
	uint64_t mmap_bytes, mmap_blocks;
	struct estimate python;	       /* pymalloc; not among live */
	struct estimate unknown;       /* of these, under no stack */
	struct history history;	       /* of live, mmap and python bytes */
	struct addr_space *addr_space; /* borrowed */
	struct mappings *mappings;
	struct code_store *codes; /* NULL: it runs no Python */
	bool python_by_malloc;	  /* its objects are malloc's blocks (PYTHONMALLOC=malloc) */
	uint64_t refreshed_ns;	  /* when the address space was last read for a stack */
};

/* Both are borrowed. */
struct ledger *ledger_new(struct kernel *k, struct unwinder *u);
void ledger_free(struct ledger *l);

/* Opens an empty account. @as is borrowed until the process is buried. */
int ledger_process_open(struct ledger *l, uint32_t slot, pid_t pid, struct addr_space *as);
/* It runs CPython 3.@minor: stacks may have Python frames from now on. */
int ledger_python_open(struct ledger *l, uint32_t slot, int minor);
void ledger_python_by_malloc(struct ledger *l, uint32_t slot);
/* The process is gone: its blocks are no longer anybody's. */
void ledger_process_bury(struct ledger *l, uint32_t slot);
struct ledger_process *ledger_process(const struct ledger *l, uint32_t slot);

/* @count stacks of a process were incomplete; ledger_cuts() has the sums. */
void ledger_unwind_failed(struct ledger *l, const struct unwind_failure *f, uint64_t count);
const struct cut_stacks *ledger_cuts(const struct ledger *l);

/* EVENT_STACK, EVENT_CODE and EVENT_MAPPING; @size was checked by the caller. */
void ledger_event(struct ledger *l, const struct event *e, size_t size);

/* The next sweep lists the blocks of Python processes in @list (borrowed until then). */
void ledger_list_blocks(struct ledger *l, struct block_list *list);

/* Adds everything up anew. Blocks younger than @min_age_ns count for their
 * process and not for their stack. */
void ledger_sweep(struct ledger *l, uint64_t now_ns, uint64_t min_age_ns);
/* Only the clearing away of buried processes. */
bool ledger_has_buried(const struct ledger *l);
/* Numbers of stacks run short, and a sweep would free some. */
bool ledger_is_short(const struct ledger *l);

/* Iteration: ids and slots below the limits; NULL where there is none. */
uint32_t ledger_stack_limit(const struct ledger *l);
const struct ledger_stack *ledger_stack(const struct ledger *l, uint32_t id);
uint32_t ledger_slot_limit(const struct ledger *l);

#endif
