/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Remembers what a thread's stack looked like outside of each run of Python's
 * evaluation loop, so that the next stack is walked only as far as it is new.
 *
 * Calls through C (a method of a class, a callback, an import) put a run of the loop
 * and a handful of C frames on the native stack for every layer of a program, and most
 * of these lie still while something allocates further in. The Python frames are read
 * every time. Where two runs in a row end whose callers have the registers of last time,
 * and the runs further out have the same frames, at the same places and instructions, the
 * C frames between those are taken to be what they were. What is known is never older
 * than the stack before. (One run is not enough: sort() may call the same key function from
 * two places. Of a million stacks of a mixed load 50 to 300 had a wrong return address in
 * such a C function; with two it was one in two millions.) Python frames are right in any
 * case.
 *
 * For this the hash of a stack is a sum over its frames, each times a power of a
 * constant: what is known of the outer part is added to what was found of the inner
 * one. A stack whose hash is not known yet is walked again, all of it, before it gets
 * a number; so is every one where check_outer says so, and those that differ are counted.
 */
#ifndef LEAKTOP_OUTER_BPF_H
#define LEAKTOP_OUTER_BPF_H

#include "maps.bpf.h"

/* Polynomial hashing modulo 2^64 with an odd base, and the base's inverse. */
#define HASH_BASE 0x9e3779b97f4a7c15ull
#define HASH_BASE_INVERSE 0xf1de83e19937733dull

#define OUTER_RUNS_MAX 64

static __always_inline void frames_hash_begin(struct frames_hash *h)
{
	h->sum = 0;
	h->power = h->inverse = 1;
	h->count = 0;
}

static __always_inline void frames_hash_add(struct frames_hash *h, __u64 value)
{
	h->sum += hash_step(0, value) * h->power;
	h->power *= HASH_BASE;
	h->inverse *= HASH_BASE_INVERSE;
	h->count++;
}

/* What was added to a hash since it was as @before. */
static __always_inline __u64 frames_hash_since(const struct frames_hash *h, __u64 before_sum,
					       __u64 before_inverse)
{
	return (h->sum - before_sum) * before_inverse;
}

/* One run of the loop: the registers of its caller, and what lies further out. */
struct outer_run {
	__u64 ip, sp, bp, bx;
	__u64 python;  /* hash of the Python frames */
	__u64 hash;    /* of all frames; until the walk is done, of those further in */
	__u64 inverse; /* until the walk is done */
	__u32 frames;  /* as hash */
	__u32 pad;
};

struct outer_stack {
	__u32 slot;
	__u32 generation; /* of the process' mappings */
	__u32 known;	  /* runs, outermost first, that are as in the stack before */
	__u32 forget;	  /* for this walk */
	__u32 used;	  /* in this walk: not all frames of the stack were looked at */
	__u32 first;	  /* of the walk's runs, innermost first, that was noted */
	__u32 near;	  /* the run before was as it was */
	__u32 pad;
	struct frames_hash python;
	/* The Python hash up to the end of each run, innermost first. */
	struct {
		__u64 sum, inverse;
	} ends[OUTER_RUNS_MAX];
	struct outer_run runs[OUTER_RUNS_MAX]; /* outermost first */
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct outer_stack);
} outer_stacks SEC(".maps");

static __always_inline void outer_python_begin(struct outer_stack *o)
{
	if (o)
		frames_hash_begin(&o->python);
}

static __always_inline void outer_python_frame(struct outer_stack *o, __u64 value)
{
	if (o)
		frames_hash_add(&o->python, value);
}

/* Run @n, counted from the innermost, ends here. */
static __always_inline void outer_python_end(struct outer_stack *o, __u32 n, __u64 place)
{
	if (!o)
		return;
	if (n >= OUTER_RUNS_MAX)
		return;
	frames_hash_add(&o->python, place);
	barrier_var(n);
	o->ends[n & (OUTER_RUNS_MAX - 1)].sum = o->python.sum;
	o->ends[n & (OUTER_RUNS_MAX - 1)].inverse = o->python.inverse;
}

/* Nothing is known any more if the mappings changed, or this is another program. */
static __always_inline void outer_begin(struct outer_stack *o, const struct unwind_state *u)
{
	o->used = o->first = o->near = 0;
	if (o->slot == u->slot && o->generation == u->generation)
		return;
	o->slot = u->slot;
	o->generation = u->generation;
	o->known = 0;
}

/*
 * The walk has come to the caller of the loop's run @n of @runs, counted from the
 * innermost. If this one and the one before are as they were, what lies further out is
 * added to @h, and true returned; else the walk is noted, to be known next time.
 */
static __always_inline bool outer_known(struct outer_stack *o, const struct unwind_state *u,
					struct frames_hash *h, __u32 n, __u32 runs)
{
	__u32 at = runs - 1 - n;
	struct outer_run *r = &o->runs[at & (OUTER_RUNS_MAX - 1)];
	__u64 python = frames_hash_since(&o->python, o->ends[n & (OUTER_RUNS_MAX - 1)].sum,
					 o->ends[n & (OUTER_RUNS_MAX - 1)].inverse);

	bool same = at < o->known && !o->forget && r->sp == u->sp && r->ip == u->ip &&
		    r->bp == u->bp && r->bx == u->bx && r->python == python;

	if (same && o->near) {
		h->sum += r->hash * h->power;
		h->count += r->frames;
		o->used = 1;
		return true;
	}
	o->near = same;
	r->ip = u->ip;
	r->sp = u->sp;
	r->bp = u->bp;
	r->bx = u->bx;
	r->python = python;
	r->hash = h->sum;
	r->inverse = h->inverse;
	r->frames = h->count;
	return false;
}

/* The walk is over, and noted the inner @noted of @runs. They are known from now on, if it
 * came to the @whole stack's end. */
__noinline int outer_end(struct outer_stack *o, const struct frames_hash *h, __u32 noted,
			 __u32 runs, int whole)
{
	if (!o || !h)
		return 0;
	o->known = whole ? runs - o->first : 0;
	for (__u32 n = 0; n < OUTER_RUNS_MAX; n++) {
		struct outer_run *r = &o->runs[(runs - 1 - n) & (OUTER_RUNS_MAX - 1)];

		if (!whole || n >= noted)
			break;
		if (n < o->first)
			continue;
		r->hash = frames_hash_since(h, r->hash, r->inverse);
		r->frames = h->count - r->frames;
	}
	return 0;
}

#endif
