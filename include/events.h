/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What travels through the ring buffer from the BPF programs to the loader:
 * new stacks, mappings, and the births and deaths of processes. Fixed widths,
 * no pointers.
 */
#ifndef LEAKTOP_EVENTS_H
#define LEAKTOP_EVENTS_H

#ifndef __VMLINUX_H__
#include <linux/types.h>
#endif

#include "unwind_maps.h"

#define STACK_FRAMES_MAX 127
#define STACK_ID_UNKNOWN 0u /* the stack could not be recorded; ids start at 1 */

enum event_kind {
	EVENT_STACK = 1,
	EVENT_MAPPING,
	EVENT_FORK,   /* a target has a new child */
	EVENT_EXEC,   /* a target, or with open targets any process, runs a new program */
	EVENT_EXIT,   /* the last thread of a target is gone */
	EVENT_DLOPEN, /* a target's mappings changed */
	EVENT_CGROUP, /* a process moved to another cgroup */
};

struct event {
	__u32 kind;
	__u32 proc; /* slot of the process, 0: none yet */
	__u32 pid;  /* thread group id in the initial pid namespace */
	union {
		__u32 parent_pid;   /* EVENT_FORK */
		__u32 link_changes; /* EVENT_DLOPEN: how many there were so far */
	};
	__u64 time_ns; /* CLOCK_MONOTONIC */
};

struct event_stack {
	struct event head;
	__u64 hash;
	__u32 stack_id;
	__u32 domain; /* enum probe_domain */
	__u32 frame_count;
	__u32 result;			/* enum unwind_result */
	__u64 frames[STACK_FRAMES_MAX]; /* see unwind_maps.h; innermost first, cut to frame_count */
};

/* One mmap, munmap, mremap or move of the program break that succeeded. */
struct event_mapping {
	struct event head; /* time_ns: when the call returned */
	__u64 begin_ns;	   /* when it was entered */
	__u64 old_address; /* range that is no more, length 0: none */
	__u64 old_length;
	__u64 new_address; /* range that came to be, length 0: none */
	__u64 new_length;
	__u32 stack_id;
	__u32 moves; /* 1: the new range continues the old one (mremap) */
};

/* Counters of the kernel side, one set a CPU. */
enum counter {
	COUNT_HITS = 0,	  /* probe programs run for a target */
	COUNT_ALLOC_LOST, /* allocations that could not be recorded */
	COUNT_FREE_LOST,  /* frees of mappings that could not be sent */
	COUNT_TABLE_FULL, /* allocations without a place in the live table */
	COUNT_TABLE_FULL_BYTES,
	COUNT_STACK_LOST,   /* blocks whose stack could not be recorded */
	COUNT_RING_FULL,    /* ring buffer reservations that failed */
	COUNT_MISSED_FREE,  /* blocks replaced by a new one at their address */
	COUNT_PROCESS_LOST, /* process events that could not be sent */
	COUNT_UNWIND,	    /* stacks captured, by enum unwind_result */
	COUNTERS = COUNT_UNWIND + UNWIND_RESULTS_MAX
};

_Static_assert(sizeof(struct event) == 24, "event is an interface");
_Static_assert(sizeof(struct event_stack) == 24 + 24 + 8 * STACK_FRAMES_MAX, "event_stack");
_Static_assert(sizeof(struct event_mapping) == 24 + 48, "event_mapping");

#endif
