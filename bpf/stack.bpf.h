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
#include "process.bpf.h"
#include "python.bpf.h"
#include "unwind.bpf.h"

#if defined(__TARGET_ARCH_x86)
/* Native frames, and in place of those of Python's evaluation loop what it runs. A global
 * function, so that the verifier looks at it once and not for every caller. */
__noinline int stack_walk(struct task_state *task)
{
	struct unwind_state *u;
	struct python_state *py;
	struct event_stack *s;
	int done;

	if (!task)
		return 0;
	u = &task->unwind;
	py = &task->python;
	s = &task->stack;
	py->slot = task->slot;
	python_collect(py, u);
	s->frame_count = 0;
	s->hash = 0;
	for (__u32 i = 0; i < STACK_FRAMES_MAX; i++) {
		__u32 n, left;
		__u64 sp = u->sp;

		done = unwind_quick(u) ? 0 : unwind_step(u);
		n = s->frame_count;
		if (done == 2 && i)
			break;
		/* What is known of Python goes before native frames further out. */
		left = py->count - py->next;
		barrier_var(left);
		if (n >= STACK_FRAMES_MAX || n + left >= STACK_FRAMES_MAX) {
			u->result = UNWIND_DEPTH;
			break;
		}
		/* It runs: code is there that we have not heard of yet. */
		if (done == 2 && u->result == UNWIND_NO_MAPPING)
			u->result = UNWIND_NOT_READY;
		if (!done && python_is_eval(py, u->frame, sp, u->sp)) {
			python_emit(py, s, 0);
			/* It may run nothing, and be all there is. */
			if (s->frame_count)
				continue;
		}
		s->frames[n] = u->frame;
		s->hash = hash_step(s->hash, u->frame);
		s->frame_count = n + 1;
		if (done)
			break;
	}
	if (py->next < py->count)
		python_emit(py, s, 1);
	/* What lies at its last address may be something else after the next change. */
	if (u->result == UNWIND_NOT_READY)
		s->hash = hash_step(s->hash, u->generation);
	s->python_cut = py->cut || py->next < py->count;
	s->result = u->result;
	if (u->result != UNWIND_COMPLETE)
		unwind_failed(task->slot, u->result, u->frame);
	return 0;
}

static __always_inline void stack_capture(void *ctx, struct task_state *task, bool at_entry)
{
	if (at_entry)
		unwind_begin_entry(&task->unwind, ctx, task->slot);
	else
		unwind_begin(&task->unwind, ctx, task->slot);
	stack_walk(task);
}
#else
/* No tables for this architecture yet: the kernel's walk along frame pointers. */
static __always_inline void stack_capture(void *ctx, struct task_state *task,
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

/* Asked where a function has just returned, or with @at_entry where it is entered. */
static __always_inline __u32 stack_id_of(void *ctx, struct task_state *task, __u32 tgid,
					 __u32 domain, bool at_entry)
{
	struct event_stack *s = &task->stack;
	__u32 cached, id, *known;
	struct stack_key key = {};

	if (want_stacks) {
		stack_capture(ctx, task, at_entry);
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
	key.hash = s->hash;
	key.slot = task->slot;
	key.domain = domain;
	known = bpf_map_lookup_elem(&stack_table, &key);
	if (known) {
		id = *known;
	} else {
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
