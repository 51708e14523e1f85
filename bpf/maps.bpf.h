/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Maps and small helpers that the BPF files share. */
#ifndef LEAKTOP_MAPS_BPF_H
#define LEAKTOP_MAPS_BPF_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#include "events.h"
#include "live_table.h"
#include "probe_spec.h"
#include "python_walk.h"
#include "sampling.h"

/* Fixed before loading. */
const volatile __u32 self_tgid;		     /* leaktop itself is never a target */
const volatile __u32 bucket_count;	     /* of the live table */
const volatile __u64 size_min_bytes;	     /* -z */
const volatile __u64 size_max_bytes = ~0ull; /* -Z */
const volatile bool want_stacks = true;
const volatile bool adopt_all;	 /* -a: a process becomes a target by hitting a probe */
const volatile bool watch_execs; /* open targets: report every exec */
const volatile bool follow_forks = true;
const volatile bool check_outer;      /* see outer.bpf.h */
const volatile bool overcommit_never; /* vm.overcommit_memory is 2: small requests can fail */

const volatile struct sampling_tables sampling_tables_data;

/* Nanoseconds that a probe's hit takes on this machine, by class of the instruction, and
 * that its return trap takes in addition; the loader measures them. */
__u32 hit_ns[SPEC_INSNS];
__u32 return_ns[SPEC_INSNS];

/* Bumped by the loader when it takes stack ids back: empties the caches below. */
__u32 stack_generation = 1;
/* A command of ours that waits at its first dl-debug hook for probes; 0: none. */
__u32 stop_at_dlopen_tgid;
/* A command of ours that is to be stopped before CPython ends; 0: none. */
__u32 stop_at_end_tgid;

/* A process that is traced, keyed by thread group id. */
struct proc_info {
	__u32 slot;	    /* 1..LIVE_PROC_MAX, names the process in keys of the live table */
	__u32 link_changes; /* times that its dynamic linker reported a change */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768);
	__type(key, __u32);
	__type(value, struct proc_info);
} procs SEC(".maps");

/* Set once by the loader, when the first process that runs Python is traced. */
bool want_python;
__u32 next_python_serial = 1;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16384);
	__type(key, __u32); /* slot */
	__type(value, struct python_walk);
} python_walks SEC(".maps");

/* Process slots and stack ids never used so far; both start at 1, 0 means none. */
__u32 next_slot = 1;
__u32 next_stack_id = 1;

/* Those used before and handed back by the loader. */
struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, LIVE_PROC_MAX);
	__type(value, __u32);
} free_slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, STACK_IDS);
	__type(value, __u32);
} free_stack_ids SEC(".maps");

/*
 * Linux 6.13 and newer give a program with 64 bytes of stack or more a private
 * stack for each CPU (commit a76ab5731e32). Uprobe programs can be preempted there
 * by another thread that runs the same program on the same stack, which corrupts
 * both, and can crash the kernel. A program that contains a tail call is left on
 * the thread's own stack; the verifier removes the call itself. A map for each
 * attach type, as kernels compare it.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} no_session SEC(".maps"), no_probe SEC(".maps");

const volatile bool never;

#define USE_THREAD_STACK(ctx, map)                     \
	do {                                           \
		if (never)                             \
			bpf_tail_call(ctx, &(map), 0); \
	} while (0)

static __always_inline __u32 id_take(void *queue, __u32 *next, __u32 limit)
{
	__u32 id;

	if (!bpf_map_pop_elem(queue, &id))
		return id;
	if (*(volatile __u32 *)next >= limit)
		return 0;
	id = __sync_fetch_and_add(next, 1);
	return id < limit ? id : 0;
}

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct live_bucket);
} live SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, STACK_IDS);
	__type(key, __u32);
	__type(value, struct stack_counters);
} stack_counts SEC(".maps");

/* Both by slot. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, LIVE_PROC_MAX + 1);
	__type(key, __u32);
	__type(value, struct process_sampling);
} process_samplings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, LIVE_PROC_MAX + 1);
	__type(key, __u32);
	__type(value, struct process_costs);
} costs SEC(".maps");

struct stack_key {
	__u64 hash;
	__u32 slot;
	__u32 domain;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, STACK_IDS);
	__type(key, struct stack_key);
	__type(value, __u32);
} stack_table SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} ring SEC(".maps");

struct counters {
	__u64 values[COUNTERS];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counters);
} counts SEC(".maps");

/* uprobe programs can be preempted on their CPU: the addition must be atomic. */
static __always_inline void count_add(enum counter which, __u64 n)
{
	__u32 zero = 0;
	struct counters *c = bpf_map_lookup_elem(&counts, &zero);

	if (c)
		__sync_fetch_and_add(&c->values[which], n);
}

static __always_inline void count(enum counter which)
{
	count_add(which, 1);
}

/* One step of a multiply-xorshift hash (constants of MurmurHash3's finalizer). */
static __always_inline __u64 hash_step(__u64 hash, __u64 value)
{
	hash = (hash ^ value) * 0xff51afd7ed558ccdull;
	return hash ^ hash >> 32;
}

/* A call of an allocating function that has not returned. */
struct call {
	__u64 slot_sp; /* address of its return address */
	__u64 spec;    /* attach cookie */
	__u64 size_bytes;
	__u64 pointer;	 /* old block, out-parameter, or address of the mapping */
	__u64 new_bytes; /* mremap: the new length */
	__u64 begin_ns;
	struct live_block old; /* realloc: the block taken out at entry */
	__u32 has_old;
	__u16 rate; /* at which it was sampled */
	__u8 duty;
	__u8 sampled;
};

struct unwind_cached {
	__u64 check; /* tag xor data */
	__u64 data;
};

/* The frames of a stack (outer.bpf.h). */
struct frames_hash {
	__u64 sum;
	__u64 power, inverse; /* of the base, for the next frame */
	__u64 count;
};

#define UNWIND_WINDOW_WORDS 256		  /* to read one word costs nearly as much */
#define UNWIND_NO_WINDOW (1ull << 63)	  /* a window_start that no address is near to */
#define UNWIND_FRAME_BYTES_MAX (1u << 20) /* a frame pointer further away is none */

/* The registers of one frame, and the piece of stack around it. */
struct unwind_state {
	__u64 ip, sp, bp, bx;
	__u64 frame;
	__u64 window_start;
	__u64 window_bytes;
	__u64 window[UNWIND_WINDOW_WORDS];
	__u32 slot;
	__u32 generation;
	__u32 exact;  /* ip is an interrupted instruction, not a return address */
	__u32 result; /* enum unwind_result */
};

/* Runs of the evaluation loop: those that tidy up after their last frame run none. */
#define PYTHON_SEGMENTS_MAX (2 * PYTHON_FRAMES_MAX)

/* Python frames of a thread, innermost first (python.bpf.h). */
struct python_state {
	__u64 frame;  /* where the walk stands */
	__u64 cframe; /* the same on the native stack, where the version has it */
	__u64 eval_start, eval_end;
	__u64 anchor; /* of the next run, as below */
	__u64 window_start;
	__u64 window_bytes;
	__u64 window[UNWIND_WINDOW_WORDS];
	__u32 slot;
	__u32 count;	/* of frames */
	__u32 segments; /* runs of the evaluation loop */
	__u32 cut;	/* there are more than PYTHON_FRAMES_MAX */
	__u32 next;	/* the first frame, and segment, that is not in the stack yet */
	__u32 segment_next;
	__u64 frames[PYTHON_FRAMES_MAX];
	__u32 cframe_previous; /* where a CFrame names the next; PYTHON_NONE: see anchors */
	__u32 pad;
	/* Of each run: an address in the native frame of the loop (0: none is known) if CFrames
	 * do not tell, and where it ends, one past its last frame. */
	__u64 anchors[PYTHON_SEGMENTS_MAX];
	__u8 ends[PYTHON_SEGMENTS_MAX];
};

#define CALLS_MAX 4
#define STACK_CACHE 16

/*
 * State of one thread. Uprobe programs can be preempted, and the next thread on
 * the CPU runs the same programs, so scratch space is here and not per CPU.
 */
struct task_state {
	__u32 slot; /* of its process, 0: not looked up yet */
	__u32 depth;
	__u64 fresh_block; /* pymalloc gave it out last; 0: it has become an object */
	/* sampling.bpf.h */
	__u64 gap_bytes; /* to the next sample */
	__u32 gap_rate;	 /* of which it is a gap */
	__u32 hits;	 /* that are not in `costs` yet, and what they took */
	__u32 probe_ns;
	__u32 record_ns;
	__u64 wrapper_slot_sp; /* a call that was not sampled and may call another; 0: none */
	__u64 wrapper_bytes;
	__u64 wrapper_ip; /* where it was entered */
	struct call calls[CALLS_MAX];
	struct {
		__u64 hash;
		__u32 stack_id;
		__u32 generation;
		__u32 domain;
		__u32 pad;
	} cache[STACK_CACHE];
	struct unwind_state unwind;
	struct python_state python;
	struct frames_hash hash; /* of what the walk has come by */
	__u64 walk_on;		 /* also where no more frames fit */
	struct event_stack stack;
};

/* From Linux 7 on the kernel has no more than 8 KiB for one, its own words included (it takes
 * them by kmalloc_nolock()). */
_Static_assert(sizeof(struct task_state) <= 8192 - 256, "task storage");

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct task_state);
} tasks SEC(".maps");

#endif
