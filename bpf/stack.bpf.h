/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Captures the user stack of an allocation and names it by a small number.
 *
 * It runs at the return of the allocating function: the instruction pointer is
 * then the return address, so the direct caller is the first frame whatever the
 * allocator does with its registers, and the frame pointer is the caller's.
 *
 * A stack travels to the loader once, before its number is first used; it
 * counts as known only after the ring buffer took it, so a full ring delays a
 * stack's name and never loses it for good.
 */
#ifndef LEAKTOP_STACK_BPF_H
#define LEAKTOP_STACK_BPF_H

#include "maps.bpf.h"
#include "outer.bpf.h"
#include "process.bpf.h"
#include "python.bpf.h"
#include "unwind.bpf.h"

#if defined(__TARGET_ARCH_x86)
/* So many frames at a time: the verifier follows every turn of a loop, and a part once. */
#define STACK_PART_FRAMES 16
#define STACK_PARTS_MAX 32

/* The walk came out of a run of the evaluation loop. True: what lies further out is known. */
__noinline int run_passed(struct task_state *task, struct outer_stack *outer)
{
	struct python_state *py;

	if (!task)
		return 0;
	py = &task->python;
	python_emit(task, 0);
	python_passed(py, &task->unwind);
	if (!outer)
		return 0;
	if (task->stack.frame_count)
		return outer_known(outer, &task->unwind, &task->hash, py->segment_next - 1,
				   py->segments);
	outer->first = py->segment_next;
	return 0;
}

/*
 * Up to STACK_PART_FRAMES native frames, and in place of those of Python's evaluation loop
 * what it runs. True: that was all. A global function, so that the verifier looks at it
 * once; @outer may be NULL.
 */
__noinline int stack_part(struct task_state *task, struct outer_stack *outer)
{
	struct unwind_state *u;
	struct python_state *py;
	struct event_stack *s;
	int done;

	if (!task)
		return 1;
	u = &task->unwind;
	py = &task->python;
	s = &task->stack;
	for (__u32 i = 0; i < STACK_PART_FRAMES; i++) {
		__u32 n, left;
		__u64 sp = u->sp;
		bool room;

		done = unwind_quick(u) ? 0 : unwind_step(u);
		n = s->frame_count;
		if (done == 2 && n)
			return 1;
		/* What is known of Python goes before native frames further out. */
		left = py->count - py->next;
		barrier_var(left);
		room = n < STACK_FRAMES_MAX && n + left < STACK_FRAMES_MAX;
		if (!room && !task->walk_on) {
			u->result = UNWIND_DEPTH;
			return 1;
		}
		/* It runs: code is there that we have not heard of yet. */
		if (done == 2 && u->result == UNWIND_NO_MAPPING)
			u->result = UNWIND_NOT_READY;
		if (!done && python_is_eval(py, u->frame, sp, u->sp)) {
			done = run_passed(task, outer);
			if (done)
				return 1;
			/* It may run nothing, and be all there is. */
			if (s->frame_count)
				continue;
		}
		frames_hash_add(&task->hash, u->frame);
		if (room) {
			s->frames[n] = u->frame;
			s->frame_count = n + 1;
		}
		if (done)
			return 1;
	}
	return 0;
}

/* The frames of the stack, what they hash to, and whether they are all. */
__noinline int stack_walk(struct task_state *task, struct outer_stack *outer)
{
	struct frames_hash *h;
	struct unwind_state *u;
	struct python_state *py;
	struct event_stack *s;
	bool used = false;
	int done = 0;

	if (!task)
		return 0;
	h = &task->hash;
	u = &task->unwind;
	py = &task->python;
	s = &task->stack;
	py->slot = task->slot;
	frames_hash_begin(h);
	s->frame_count = 0;
	if (outer)
		outer_begin(outer, u);
	python_collect(py, u, outer);
	if (outer && (!py->segments || py->segments > OUTER_RUNS_MAX || py->cut)) {
		outer->known = 0;
		outer = NULL;
	}
	task->walk_on = outer != NULL;
	for (int i = 0; i < STACK_PARTS_MAX && !done; i++)
		done = stack_part(task, outer);
	if (outer) {
		used = outer->used;
		outer_end(outer, h, py->segment_next - used, py->segments,
			  used || (done && u->result == UNWIND_COMPLETE &&
				   py->segment_next == py->segments));
	}
	if (used)
		u->result = UNWIND_COMPLETE;
	else if (py->next < py->count)
		python_emit(task, 1);
	if (u->result == UNWIND_COMPLETE && h->count > STACK_FRAMES_MAX)
		u->result = UNWIND_DEPTH;
	s->hash = hash_step(h->sum, h->count);
	/* What lies at its last address may be something else after the next change. */
	if (u->result == UNWIND_NOT_READY)
		s->hash = hash_step(s->hash, u->generation);
	s->python_cut = !used && (py->cut || py->next < py->count);
	s->result = u->result;
	if (u->result != UNWIND_COMPLETE)
		unwind_failed(task->slot, u->result, u->frame);
	return used;
}

/* With @outer, only as far as it is not known. True: there may be more frames than are in
 * the stack, and only its hash is to be relied on. */
static __always_inline bool stack_capture(void *ctx, struct task_state *task,
					  struct outer_stack *outer, bool at_entry)
{
	if (at_entry)
		unwind_begin_entry(&task->unwind, ctx, task->slot);
	else
		unwind_begin(&task->unwind, ctx, task->slot);
	return stack_walk(task, outer);
}

/* What is known of the current thread's stack; NULL if it runs no Python. */
static __always_inline struct outer_stack *stack_outer(__u32 slot)
{
	if (!want_python || !bpf_map_lookup_elem(&python_walks, &slot))
		return NULL;
	return bpf_task_storage_get(&outer_stacks, bpf_get_current_task_btf(), 0,
				    BPF_LOCAL_STORAGE_GET_F_CREATE);
}
#else
static __always_inline struct outer_stack *stack_outer(__u32 slot __attribute__((unused)))
{
	return NULL;
}

/* No tables for this architecture yet: the kernel's walk along frame pointers. */
static __always_inline bool stack_capture(void *ctx, struct task_state *task,
					  struct outer_stack *outer __attribute__((unused)),
					  bool at_entry __attribute__((unused)))
{
	struct event_stack *s = &task->stack;
	long bytes = bpf_get_stack(ctx, s->frames, sizeof(s->frames), BPF_F_USER_STACK);
	__u32 n = bytes > 0 ? (__u32)bytes / 8 : 0;
	__u64 hash = 0;

	s->result = n >= STACK_FRAMES_MAX ? UNWIND_DEPTH
		    : n > 1		  ? UNWIND_COMPLETE
					  : UNWIND_NO_FRAME;
	if (n <= 1) {
		s->frames[0] = PT_REGS_IP((struct pt_regs *)ctx);
		n = 1;
	}
	for (__u32 i = 0; i < STACK_FRAMES_MAX; i++) {
		if (i >= n)
			break;
		hash = hash_step(hash, s->frames[i]);
	}
	s->hash = hash;
	s->frame_count = n;
	return false;
}
#endif

/* Gives a stack that nobody has seen a number and sends it. */
__noinline __u32 stack_announce(struct task_state *task, __u32 tgid)
{
	struct event_stack *s;
	struct stack_key key = {};
	__u32 id, bytes, *known;

	if (!task)
		return STACK_ID_UNKNOWN;
	s = &task->stack;
	key.hash = s->hash;
	key.slot = task->slot;
	key.domain = s->domain;
	id = id_take(&free_stack_ids, &next_stack_id, STACK_IDS);
	if (!id) {
		count(COUNT_STACK_LOST);
		return STACK_ID_UNKNOWN;
	}
	for (__u32 i = 0; i < STACK_FRAMES_MAX; i++) {
		if (i >= s->frame_count)
			break;
		if (python_frame_is(s->frames[i]))
			code_announce(task->slot, tgid, s->frames[i]);
	}
	event_init(&s->head, EVENT_STACK, task->slot, tgid);
	s->stack_id = id;
	bytes = (s->frame_count & STACK_FRAMES_MAX) * 8 + (sizeof(*s) - sizeof(s->frames));
	if (bytes > sizeof(*s) || bpf_ringbuf_output(&ring, s, bytes, 0)) {
		bpf_map_push_elem(&free_stack_ids, &id, 0);
		count(COUNT_RING_FULL);
		count(COUNT_STACK_LOST);
		return STACK_ID_UNKNOWN;
	}
	if (!bpf_map_update_elem(&stack_table, &key, &id, BPF_NOEXIST))
		return id;
	/* Another thread announced it meanwhile, or the table is full: our number
	 * was sent and serves this block; it is not given out again. */
	known = bpf_map_lookup_elem(&stack_table, &key);
	return known ? *known : id;
}

/* The number of the stack that was captured; 0 if it has none yet. */
static __always_inline __u32 stack_number(struct task_state *task, __u32 domain)
{
	struct event_stack *s = &task->stack;
	struct stack_key key = {.hash = s->hash, .slot = task->slot, .domain = domain};
	__u32 *known = bpf_map_lookup_elem(&stack_table, &key);

	return known ? *known : 0;
}

/* All of a stack, where a part of it was taken to be as it was. */
static __always_inline void stack_again(void *ctx, struct task_state *task,
					struct outer_stack *outer, bool at_entry)
{
	__u64 hash = task->stack.hash;
	__u32 result = task->stack.result;

	if (outer)
		outer->forget = 1;
	stack_capture(ctx, task, outer, at_entry);
	if (outer)
		outer->forget = 0;
	/* A walk may fail for a reason that passes: the kernel's lock is busy. */
	if (check_outer && task->stack.result == result)
		count(task->stack.hash == hash ? COUNT_OUTER_SAME : COUNT_OUTER_DIFFERS);
}

/* Asked where a function has just returned, or with @at_entry where it is entered. */
static __always_inline __u32 stack_id_of(void *ctx, struct task_state *task, __u32 tgid,
					 __u32 domain, bool at_entry)
{
	struct event_stack *s = &task->stack;
	struct outer_stack *outer = NULL;
	bool partial = false;
	__u32 cached, id;

	if (want_stacks) {
		outer = stack_outer(task->slot);
		partial = stack_capture(ctx, task, outer, at_entry);
		if (partial && check_outer) {
			stack_again(ctx, task, outer, at_entry);
			partial = false;
		}
		count(COUNT_UNWIND + (s->result & (UNWIND_RESULTS_MAX - 1)));
	} else {
		s->hash = 1;
		s->frame_count = 0;
		s->result = 0;
	}
	cached = (s->hash ^ domain) & (STACK_CACHE - 1);
	if (task->cache[cached].hash == s->hash && task->cache[cached].domain == domain &&
	    task->cache[cached].generation == stack_generation)
		return task->cache[cached].stack_id;
	id = stack_number(task, domain);
	if (!id && partial) {
		stack_again(ctx, task, outer, at_entry);
		cached = (s->hash ^ domain) & (STACK_CACHE - 1);
		id = stack_number(task, domain);
	}
	if (!id) {
		s->domain = domain;
		id = stack_announce(task, tgid);
	}
	if (id) {
		task->cache[cached].hash = s->hash;
		task->cache[cached].stack_id = id;
		task->cache[cached].domain = domain;
		task->cache[cached].generation = stack_generation;
	}
	return id;
}

#endif
