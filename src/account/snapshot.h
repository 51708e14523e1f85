/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What one report says: everything in it is plain data, complete and immutable,
 * so that a report format never asks a BPF map or a process. The fields follow
 * the JSON contract. A snapshot owns all it points to. It is built while tracing
 * goes on, without names, which take time (snapshot_builder.h), then named and
 * grouped by whoever shows it (snapshot_names.h).
 */
#ifndef LEAKTOP_SNAPSHOT_H
#define LEAKTOP_SNAPSHOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "account/estimate.h"
#include "overhead/figures.h"
#include "probe_spec.h"
#include "python/coverage.h"
#include "sym/frame.h"
#include "unwind/unwinder.h"

struct arena;
struct interpreter;
struct perf_map;
struct typed_block;

#define UNKNOWN_BYTES INT64_MIN /* in an int64_t field: not measured */

struct coverage_allocator {
	pid_t pid;
	const char *object;	   /* path in the target */
	const char *build_id;	   /* NULL: none */
	const char *allocator;	   /* "glibc", ... */
	const char **functions;	   /* NULL-terminated */
	const char *return_method; /* "session" or "uretprobe" */
};

struct snapshot_unwind_error {
	const char *name; /* as in JSON */
	uint64_t count;	  /* of allocations */
};

/* Stacks that end before their outermost frame. */
struct snapshot_cut {
	const char *object; /* what the last frame lies in */
	const char *name;   /* the reason, as in JSON */
	const char *why;    /* and for people */
	uint64_t count;	    /* of allocations */
};

struct snapshot_loss {
	uint64_t alloc_events;	/* allocations that could not be recorded */
	uint64_t free_events;	/* frees that could not be recorded */
	uint64_t live_map_full; /* allocations not tracked because the live table was full */
	uint64_t live_map_full_bytes;
	uint64_t stacks;    /* blocks whose stack could not be recorded */
	uint64_t ring_full; /* times the ring buffer had no room (retried later) */
	uint64_t
		missed_frees; /* blocks whose address was given out again: they were freed unseen */
	uint64_t outer_same, outer_differs; /* checks of remembered stacks (bpf/outer.bpf.h) */
	uint64_t python_codes;		    /* times that a Python function could not be named */
	struct snapshot_unwind_error unwind_errors[16];
	size_t unwind_error_count;
	struct snapshot_cut *cuts; /* the most frequent ones first, some at most */
	size_t cut_count;
};

struct snapshot_overhead {
	struct overhead_figures figures; /* of what the targets pay */
	uint64_t probe_hits;
	double probe_hits_per_s;
	double tracer_cpu_pct; /* leaktop's own CPU time, per cent of one CPU */
	uint64_t tracer_rss_bytes;
	struct unwinder_stats unwind;
};

struct snapshot_process {
	pid_t pid;
	bool exited;
	struct overhead_figures overhead;
	const char *comm;
	const char *exe;
	const char *container_id;   /* NULL: in no container */
	const char *container_name; /* NULL: unknown */
	const char *container_runtime;
	const char *cgroup;
	const char *unit; /* NULL: none */
	uint64_t rss_bytes;
	uint64_t live_bytes; /* domain malloc */
	uint64_t live_blocks;
	uint64_t mmap_live_bytes;
	uint64_t mmap_live_blocks;
	int64_t python_live_bytes; /* domain pymalloc, UNKNOWN_BYTES: runs no Python */
	uint64_t python_live_blocks;
	struct interval live_bytes_ci95, python_live_bytes_ci95;
	int64_t allocator_free_bytes;
	uint64_t file_and_shared_bytes;
	int64_t untracked_bytes;   /* negative: allocated but never touched */
	double growth_bytes_per_s; /* of all that is outstanding; NAN: too early */
};

/* All outstanding bytes of a process. */
uint64_t snapshot_process_held(const struct snapshot_process *p);

/* Outstanding blocks of one type of Python objects, or of one kind of buffers. */
struct snapshot_type {
	const char *name;
	uint64_t blocks;
	uint64_t bytes;
};

/* The blocks of one Python process, to be looked at (snapshot_types.h). */
struct snapshot_typing {
	const struct interpreter *interpreter;
	uint64_t start_ticks;
	bool debug_heads;	    /* the blocks listed lie behind them (coverage_python) */
	struct typed_block *blocks; /* malloc'ed */
	uint32_t *rows; /* malloc'ed: which of the snapshot's stacks, UINT32_MAX: none */
	struct sampling_share *shares; /* malloc'ed: what each stands for; NULL: for itself */
	size_t count;
};

struct snapshot_stack {
	uint64_t id; /* over (build id, offset) of all frames: equal across processes and runs */
	pid_t *pids;
	size_t pid_count;
	uint64_t live_bytes;
	uint64_t live_blocks;
	struct interval live_bytes_ci95, live_blocks_ci95;
	double growth_bytes_per_s; /* NAN: too early */
	uint64_t allocated_bytes;  /* since attachment */
	uint64_t allocated_blocks;
	uint64_t freed_bytes;
	uint64_t freed_blocks;
	double oldest_s;
	enum probe_domain domain;
	struct snapshot_type *types; /* most bytes first; of Python objects */
	size_t type_count;
	const char *incomplete; /* why the stack may be cut, NULL: complete */
	/* Innermost first: where they lie, and after snapshot_name() as people read them. */
	const struct frame_ref *refs;
	size_t ref_count;
	struct perf_map *perf_map; /* for names of code made at run time; a reference, or NULL */
	struct frame *frames;
	size_t frame_count;
};

enum snapshot_sort {
	SORT_LIVE = 0,
	SORT_GROWTH,
};

enum snapshot_group_by {
	GROUP_STACK = 0,
	GROUP_FUNCTION,
	GROUP_LINE,
	GROUP_PROCESS,
	GROUP_CONTAINER,
	GROUP_TYPE,
};

struct snapshot_request {
	size_t top;
	enum snapshot_sort sort;
	enum snapshot_group_by group_by;
	bool final;
};

/* A row of `--by function|line|type|process|container`; `--by stack` uses the stacks. */
struct snapshot_group {
	const char *name;
	uint64_t live_bytes;
	uint64_t live_blocks;
	double growth_bytes_per_s;
};

struct snapshot {
	struct arena *arena; /* holds everything below */
	double time_s;	     /* wall clock, seconds since the epoch */
	double elapsed_s;    /* since attachment */
	struct snapshot_request request;
	bool final;

	struct coverage_allocator *allocators;
	size_t allocator_count;
	struct coverage_python *pythons;
	size_t python_count;
	size_t process_count_covered;
	double stacks_complete_pct;

	struct snapshot_loss loss;
	struct snapshot_overhead overhead;

	struct snapshot_process *processes;
	size_t process_count;
	struct snapshot_stack *stacks; /* sorted, best first, cut to --top */
	size_t stack_count;
	size_t stack_count_all;	       /* before the cut */
	struct snapshot_group *groups; /* sorted, cut to --top; empty for --by stack */
	size_t group_count;
	const char *group_kind; /* "function", "line", "type", "process", "container"; NULL for --by
				   stack */

	struct snapshot_typing *typings;
	size_t typing_count;
	uint64_t blocks_untyped;     /* left out, because there were too many */
	struct snapshot_type *types; /* of all processes together, most bytes first */
	size_t type_count;

	uint64_t total_live_bytes; /* all stacks, of all domains */
	uint64_t total_live_blocks;
};

void snapshot_free(struct snapshot *s);
/* Lets go of what the stack refers to outside of the arena. */
void snapshot_stack_release(struct snapshot_stack *st);

#endif
