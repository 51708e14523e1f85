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
#define STACK_IDS 65536	    /* stacks known at a time, a power of two */
#define STACK_ID_UNKNOWN 0u /* the stack could not be recorded; ids start at 1 */

enum event_kind {
	EVENT_STACK = 1,
	EVENT_MAPPING,
	EVENT_FORK,	  /* a target has a new child */
	EVENT_EXEC,	  /* a target, or with open targets any process, runs a new program */
	EVENT_EXIT,	  /* the last thread of a target is gone */
	EVENT_DLOPEN,	  /* a target's mappings changed */
	EVENT_CGROUP,	  /* a process moved to another cgroup */
	EVENT_PYTHON_END, /* a command of ours is stopped before it takes its objects down */
	EVENT_CODE,	  /* a Python code object that a stack is about to show */
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
	__u32 result;	  /* enum unwind_result */
	__u32 python_cut; /* 1: there are more Python frames than were taken */
	__u32 pad;
	__u64 frames[STACK_FRAMES_MAX]; /* see unwind_maps.h, python_walk.h;
					   innermost first, cut to frame_count */
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

#define CODE_FILE_BYTES 512
#define CODE_NAME_BYTES 256
#define CODE_LINES_BYTES 1024
#define CODE_PIECES_MAX 32 /* of a line table */

/* The raw contents of a compact str object: 1, 2 or 4 bytes a code point. */
struct event_string {
	__u32 length; /* code points of the whole string */
	__u32 state;  /* PyASCIIObject.state: interned, kind, compact, ascii */
	__u32 bytes;  /* copied */
};

/* A code object as it is now: sent before the first stack that shows it, in pieces if
 * its line table is long. Only the first piece has names. */
struct event_code {
	struct event head;
	__u64 code; /* address */
	__u32 first_line;
	__u32 piece;	   /* 0, 1, ...: this part of the line table */
	__u32 lines_total; /* size of the whole line table */
	__u32 lines_bytes; /* in this piece */
	struct event_string file;
	struct event_string name; /* qualified where the version has it */
	__u8 file_data[CODE_FILE_BYTES];
	__u8 name_data[CODE_NAME_BYTES];
	__u8 lines[CODE_LINES_BYTES];
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
	COUNT_CODE_LOST,    /* Python code objects that could not be announced */
	COUNT_PROCESS_LOST, /* process events that could not be sent */
	/* with check_outer: stacks whose outer part was known and walked again (outer.bpf.h) */
	COUNT_OUTER_SAME,
	COUNT_OUTER_DIFFERS,
	COUNT_UNWIND, /* stacks captured, by enum unwind_result */
	COUNTERS = COUNT_UNWIND + UNWIND_RESULTS_MAX
};

_Static_assert(sizeof(struct event) == 24, "event is an interface");
_Static_assert(sizeof(struct event_stack) == 24 + 32 + 8 * STACK_FRAMES_MAX, "event_stack");
_Static_assert(sizeof(struct event_code) == 24 + 24 + 24 + 512 + 256 + 1024, "event_code");
_Static_assert(sizeof(struct event_mapping) == 24 + 48, "event_mapping");

#endif
