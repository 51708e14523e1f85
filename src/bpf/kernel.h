/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The kernel side, loaded: BPF programs, maps and the shared live table behind
 * plain functions. Nothing is pinned: when this process ends, however it ends,
 * the kernel takes everything back.
 */
#ifndef LEAKTOP_KERNEL_H
#define LEAKTOP_KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "events.h"
#include "live_table.h"
#include "probe/method.h"
#include "probe_spec.h"
#include "python_walk.h"
#include "sampling.h"

struct kernel;

struct kernel_options {
	enum probe_method method; /* not METHOD_AUTO */
	uint64_t ring_bytes;	  /* rounded up to a power of two, at least a page */
	uint64_t max_blocks;	  /* live blocks to hold; memory is 48 bytes each */
	uint64_t size_min_bytes, size_max_bytes;
	uint32_t sampling_rate; /* of processes that are new (sampling.h); 0: exact */
	bool stacks;		/* record stacks; else bytes are kept by process only */
	bool all;		/* every process that hits a probe is a target */
	bool watch_execs;	/* report every exec and cgroup move, not only those of targets */
	bool follow_forks;	/* children of targets become targets */
};

/* Loads and attaches what is no uprobe. Returns 0 or negative errno; the one
 * message that explains a failure has been logged. */
int kernel_open(const struct kernel_options *options, struct kernel **out);
void kernel_close(struct kernel *k);

/* Programs that probes are attached to; a descriptor, owned by @k. */
enum kernel_program {
	PROGRAM_SESSION,
	PROGRAM_ENTRY,
	PROGRAM_RETURN,
	PROGRAM_FREE,
	PROGRAM_DLOPEN,
	PROGRAM_OBJECT,
	PROGRAM_GUARD, /* NULL unless kernel_guard_load() succeeded */
};
struct bpf_program *kernel_program(const struct kernel *k, enum kernel_program which);

/* Loads, once, the program that lets exceptions pass through return probes
 * (bpf/guard.bpf.c). -EPERM where the kernel allows no writing to user memory. */
int kernel_guard_load(struct kernel *k);

/* Maps for unwind_store.h. */
enum kernel_map {
	MAP_UNWIND_RULES,
	MAP_UNWIND_TABLES,
	MAP_UNWIND_SPACES,
	MAP_UNWIND_USED,
	MAP_UNWIND_CODE,
};
int kernel_map_fd(const struct kernel *k, enum kernel_map which);

/* The process of @slot runs CPython: its Python frames are taken too, until the slot is
 * released. Children get it by fork. 0 or negative errno. */
int kernel_python_set(struct kernel *k, uint32_t slot, const struct python_walk *walk);

/* Readable when events wait. */
int kernel_event_fd(const struct kernel *k);
/* Hands waiting events to @fn, some thousands at most, so that events that keep
 * coming leave time for other work; @size is checked against the kind. Returns
 * whether there may be more. */
bool kernel_drain(struct kernel *k, void (*fn)(void *arg, const struct event *e, size_t size),
		  void *arg);

/* Makes @tgid a target; @slot names it in keys and events. It may be one already,
 * made by the kernel side, whose event still waits. -ENOSPC: no slot is free. */
int kernel_process_add(struct kernel *k, pid_t tgid, uint32_t *slot);
/* Forgets @tgid, unless it stands under another slot by now. */
void kernel_process_remove(struct kernel *k, pid_t tgid, uint32_t slot);
/* The slot under which @tgid stands now, 0: none. */
uint32_t kernel_process_slot(const struct kernel *k, pid_t tgid);
/* How often @tgid's dynamic linker reported a change of its libraries so far. */
uint32_t kernel_link_changes(const struct kernel *k, pid_t tgid);
/* Hands slots and stack ids back once nothing refers to them. A stack of a living
 * process is retired first, and released when it is sure that no thread holds
 * its id any more. */
void kernel_slot_release(struct kernel *k, uint32_t slot);
void kernel_stack_retire(struct kernel *k, uint32_t stack_id, uint32_t slot, uint64_t hash,
			 uint32_t domain);
void kernel_stack_release(struct kernel *k, uint32_t stack_id, uint32_t slot, uint64_t hash,
			  uint32_t domain);

/* A block as a sweep shows it. */
struct live_entry {
	uint32_t slot;
	uint64_t address;
	struct live_block block;
};
/* Calls @fn for every live block; when it returns false the block is removed. */
void kernel_sweep(struct kernel *k, bool (*fn)(void *arg, const struct live_entry *e), void *arg);

/* Hands over the counts of incomplete stacks since the last call. */
void kernel_take_failures(struct kernel *k,
			  void (*fn)(void *arg, const struct unwind_failure *f, uint64_t count),
			  void *arg);

/* How the process of @slot is sampled from now on; what it has cost since it has the slot. */
void kernel_sampling_set(struct kernel *k, uint32_t slot, struct process_sampling s);
struct process_sampling kernel_sampling(const struct kernel *k, uint32_t slot);
struct process_costs kernel_costs(const struct kernel *k, uint32_t slot);
/* What a hit on an instruction of each class takes, and a return trap in addition. */
void kernel_hit_costs_set(struct kernel *k, const uint32_t hit_ns[SPEC_INSNS],
			  const uint32_t return_ns[SPEC_INSNS]);
/* Of what was recorded (sampling.h); borrowed. */
const struct sampling_tables *kernel_sampling_tables(const struct kernel *k);

struct stack_counters kernel_stack_counters(const struct kernel *k, uint32_t stack_id);
void kernel_counters(const struct kernel *k, uint64_t out[COUNTERS]);
uint64_t kernel_table_bytes(const struct kernel *k);

/* The next time @tgid's dynamic linker reports its libraries it gets SIGSTOP. */
void kernel_stop_at_dlopen(struct kernel *k, pid_t tgid);
/* The same when CPython in it ends; EVENT_PYTHON_END tells of it. */
void kernel_stop_at_end(struct kernel *k, pid_t tgid);

#endif
