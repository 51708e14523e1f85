/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A call that falls into another function, or to where a jump brings another state,
 * does not return; nor does one after which the stack is wrong when the function
 * returns. What is learned so is true from the next round on.
 *
 * Code that JITs jump to, as V8's builtins, may work in the frame of its caller. It
 * shows when it goes back to a frame that it has not made; then nothing is known
 * of the stack in all of the function.
 */
#include "unwind/code_flow.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TABLE_ENTRIES_MAX (1u << 20) /* of all jump tables together */

enum edge {
	EDGE_FLOW,
	EDGE_CALL,
};

/* What is known along one straight line. */
struct path {
	const struct code_gap *gap;
	struct code_switch table;
	uint32_t call; /* the last call returns here, maybe behind the gap; or none */
	uint64_t callee;
	bool only_nops; /* since then */
};

void code_flow_release(struct code_flow *w)
{
	code_decoder_free(w->decoder);
	free(w->state);
	free(w->flags);
	free(w->borrowing);
	free(w->plain);
	free(w->queue);
	free(w->tried);
	free(w->found);
}

int code_flow_init(struct code_flow *w, const struct elf_image *image, const struct code_gaps *gaps)
{
	w->image = image;
	w->gaps = gaps;
	w->entries_left = TABLE_ENTRIES_MAX;
	w->state = calloc(gaps->bytes, sizeof(*w->state));
	w->flags = calloc(gaps->bytes, sizeof(*w->flags));
	w->plain = calloc(gaps->bytes, sizeof(*w->plain));
	w->borrowing = calloc(gaps->bytes, sizeof(*w->borrowing));
	w->queue = calloc(gaps->bytes, sizeof(*w->queue));
	w->tried = calloc(gaps->bytes, sizeof(*w->tried));
	w->found = calloc(gaps->bytes, sizeof(*w->found));
	if (!w->state || !w->flags || !w->plain || !w->borrowing || !w->queue || !w->tried ||
	    !w->found)
		return -ENOMEM;
	return code_decoder_new(&w->decoder);
}

void code_flow_learn(struct code_flow *w, uint32_t at, uint16_t flag)
{
	if (w->flags[at] & flag)
		return;
	w->flags[at] |= flag;
	w->again = true;
}

static void enqueue(struct code_flow *w, uint32_t at)
{
	if (w->flags[at] & QUEUED)
		return;
	w->flags[at] |= QUEUED;
	w->queue[w->queued++] = at;
}

static void fail(struct code_flow *w)
{
	if (w->trial)
		w->failed = true;
}

/* The last call, if there was one, does not return. */
static void learn_no_return(struct code_flow *w, const struct path *p)
{
	if (!w->trial && p->call < p->gap->last)
		code_flow_learn(w, p->call, NO_RETURN);
}

/* The stack is not as it should be: the last call cannot have returned. */
static void blame_call(struct code_flow *w, const struct path *p)
{
	fail(w);
	learn_no_return(w, p);
}

static bool is_external_no_return(const struct code_flow *w, uint64_t callee)
{
	uint32_t i;

	for (i = 0; i < w->no_return_count; i++) {
		if (w->no_returns[i] == callee)
			return true;
	}
	return false;
}

static bool never_back(const struct code_flow *w, uint64_t callee)
{
	uint32_t at = code_gaps_index(w->gaps, callee);

	return at == CODE_INDEX_NONE ? is_external_no_return(w, callee) : w->flags[at] & NEVER_BACK;
}

/* Nothing but another function, or a trap, stands behind the call. */
static void learn_never_back(struct code_flow *w, const struct path *p)
{
	uint32_t at = code_gaps_index(w->gaps, p->callee);

	if (w->trial || p->call == CODE_INDEX_NONE)
		return;
	learn_no_return(w, p);
	if (!p->callee)
		return;
	if (at != CODE_INDEX_NONE) {
		code_flow_learn(w, at, NEVER_BACK);
	} else if (w->no_return_count < NO_RETURNS_MAX && !is_external_no_return(w, p->callee)) {
		w->no_returns[w->no_return_count++] = p->callee;
		w->again = true;
	}
}

static bool reach_first(struct code_flow *w, uint32_t at, const struct code_state *s,
			enum edge edge)
{
	if (w->trial && ((w->flags[at] & INSIDE) || code_flow_trials(w, at) >= TRIALS_MAX ||
			 s->rsp == CODE_RSP_END)) {
		fail(w);
		return false;
	}
	w->tried[w->tried_count++] = at;
	w->flags[at] |= TRIED;
	w->state[at] = *s;
	w->flags[at] |= REACHED | (edge == EDGE_CALL ? BY_CALL : 0);
	return true;
}

/* Two paths with stacks of different depth arrive at @at. */
static bool reach_otherwise(struct code_flow *w, uint32_t at, const struct code_state *s,
			    enum edge edge)
{
	if (edge == EDGE_CALL) {
		code_flow_learn(w, at, NO_RETURN);
		return false;
	}
	if (w->flags[at] & BY_CALL) {
		code_flow_learn(w, at, NO_RETURN);
		w->flags[at] &= (uint16_t)~BY_CALL;
		w->state[at] = *s;
		return true;
	}
	fail(w);
	w->state[at] = code_state_meet(w->state[at], *s);
	return true;
}

/* Whether there is something new at @at that has to be followed. */
static bool reach(struct code_flow *w, uint32_t at, const struct code_state *s, enum edge edge)
{
	struct code_state *known = &w->state[at], both;

	if (edge == EDGE_CALL && (w->flags[at] & NO_RETURN))
		return false;
	if (!(w->flags[at] & REACHED))
		return reach_first(w, at, s, edge);
	if (!(w->flags[at] & TRIED))
		w->returns = true;
	if (w->trial && !(w->flags[at] & TRIED)) {
		if (code_state_same(*known, *s))
			w->confirmed = true;
		else if (edge != EDGE_CALL)
			fail(w);
		return false;
	}
	both = code_state_meet(*known, *s);
	if (known->rsp != s->rsp && both.rsp != known->rsp)
		return reach_otherwise(w, at, s, edge);
	if (edge != EDGE_CALL)
		w->flags[at] &= (uint16_t)~BY_CALL;
	if (code_state_same(both, *known))
		return false;
	*known = both;
	return true;
}

/* Leaves the function for another one. */
static void leave(struct code_flow *w, const struct path *p, const struct code_state *s)
{
	w->returns = true;
	if (code_state_left(s))
		w->confirmed = true;
	else if (s->rsp != CODE_RSP_LOST && s->rsp != CODE_RSP_END && s->rsp != 8)
		blame_call(w, p);
	else
		fail(w);
}

static void jump(struct code_flow *w, const struct path *p, uint64_t target,
		 const struct code_state *s)
{
	uint32_t at = code_gaps_index(w->gaps, target);

	if (never_back(w, target))
		return;
	if (at == CODE_INDEX_NONE || (w->flags[at] & START))
		leave(w, p, s);
	else if (reach(w, at, s, EDGE_FLOW))
		enqueue(w, at);
}

/* Goes on to the next instruction; CODE_INDEX_NONE if there is none to go on with. */
static uint32_t fall(struct code_flow *w, const struct path *p, uint32_t at,
		     const struct code_state *s, enum edge edge)
{
	if (at < p->gap->last && !(w->flags[at] & START))
		return reach(w, at, s, edge) ? at : CODE_INDEX_NONE;
	if (p->call != CODE_INDEX_NONE && p->only_nops) {
		learn_never_back(w, p);
	} else {
		/* Assembly that goes on in the next function does so with a bare stack. */
		w->returns = true;
		if (!code_state_left(s))
			blame_call(w, p);
	}
	return CODE_INDEX_NONE;
}

static void take_address(struct code_flow *w, uint64_t vaddr)
{
	uint32_t at = code_gaps_index(w->gaps, vaddr);

	if (at != CODE_INDEX_NONE)
		w->flags[at] |= TAKEN;
}

static void call_target(struct code_flow *w, uint64_t target)
{
	uint32_t at = code_gaps_index(w->gaps, target);

	if (at == CODE_INDEX_NONE || (w->flags[at] & START))
		return;
	if (w->trial) {
		w->flags[at] |= TAKEN;
		return;
	}
	if (w->flags[at] & REACHED)
		w->again = true;
	w->flags[at] |= START;
	w->found[w->found_count++] = at;
}

static uint32_t call(struct code_flow *w, struct path *p, uint32_t next,
		     const struct code_step *step, struct code_state *s)
{
	/* A call of the next instruction gets at the program counter. */
	if (step->has_target && step->target == code_gaps_vaddr(w->gaps, next - 1) + 1) {
		code_state_push(s, UNWIND_RAX);
		return fall(w, p, next, s, EDGE_FLOW);
	}
	code_state_call(s);
	p->call = next;
	p->callee = step->has_target ? step->target : 0;
	p->only_nops = true;
	if (step->has_target) {
		call_target(w, step->target);
		if (never_back(w, step->target))
			return CODE_INDEX_NONE;
	}
	return fall(w, p, next, s, EDGE_CALL);
}

static uint64_t table_entry(const struct code_flow *w, const struct code_switch *t, uint32_t i)
{
	uint64_t address;
	int32_t offset;

	if (t->addresses) {
		memcpy(&address, w->table + i * sizeof(address), sizeof(address));
		return address;
	}
	memcpy(&offset, w->table + i * sizeof(offset), sizeof(offset));
	return t->offsets + (uint64_t)offset;
}

/* Whether the table could be read. */
static bool jump_by_table(struct code_flow *w, struct path *p, const struct code_state *s)
{
	const struct code_switch *t = &p->table;
	uint64_t vaddr = t->addresses ? t->addresses : t->offsets;
	size_t entry_bytes = t->addresses ? sizeof(uint64_t) : sizeof(int32_t);
	uint32_t i;

	if (!vaddr || !t->count || t->count > w->entries_left ||
	    elf_image_copy(w->image, vaddr, w->table, t->count * entry_bytes))
		return false;
	w->entries_left -= t->count;
	for (i = 0; i < t->count; i++) {
		if (code_gaps_index(w->gaps, table_entry(w, t, i)) == CODE_INDEX_NONE)
			return false;
	}
	for (i = 0; i < t->count; i++)
		jump(w, p, table_entry(w, t, i), s);
	return true;
}

static void jump_somewhere(struct code_flow *w, struct path *p, uint32_t at,
			   const struct code_state *s)
{
	if (jump_by_table(w, p, s))
		return;
	w->returns = true;
	w->flags[at] |= SWITCH;
}

static uint32_t follow(struct code_flow *w, struct path *p, uint32_t at,
		       const struct code_step *step, struct code_state *s)
{
	uint32_t next = at + step->length;

	switch (step->flow) {
	case CODE_BRANCH:
		if (step->has_target)
			jump(w, p, step->target, s);
		return fall(w, p, next, s, EDGE_FLOW);
	case CODE_JUMP:
		if (step->has_target)
			jump(w, p, step->target, s);
		return CODE_INDEX_NONE;
	case CODE_CALL:
		return call(w, p, next, step, s);
	case CODE_RETURN:
		if (s->rsp == CODE_RSP_END && !w->trial && !(w->flags[w->start] & OUTERMOST))
			code_flow_learn(w, w->start, NO_END);
		leave(w, p, s);
		return CODE_INDEX_NONE;
	case CODE_LEAVE:
		jump_somewhere(w, p, at, s);
		return CODE_INDEX_NONE;
	case CODE_STOP:
		if (step->trap && p->call == at)
			learn_never_back(w, p);
		return CODE_INDEX_NONE;
	default:
		return fall(w, p, next, s, EDGE_FLOW);
	}
}

/* Marks the bytes of an instruction; a trial may not cut into what is known. */
static void cover(struct code_flow *w, uint32_t at, uint8_t length)
{
	uint32_t i;

	for (i = at + 1; i < at + length; i++) {
		if (w->trial && (w->flags[i] & REACHED))
			fail(w);
		w->flags[i] |= INSIDE;
	}
}

static bool step_at(struct code_flow *w, struct path *p, uint32_t at, struct code_state *s,
		    struct code_step *step)
{
	uint16_t known = w->plain[at];

	if (known) {
		*step = (struct code_step){.length = (uint8_t)(known >> 8), .plain = true};
		if (known & 0xff)
			p->table.pointer[(known & 0xff) - 1] = 0;
		return true;
	}
	if (!code_step(w->decoder, w->gaps->code + at, p->gap->last - at,
		       w->gaps->bias + p->gap->start + (at - p->gap->first), s, &p->table, step))
		return false;
	if (step->plain && !step->nop)
		w->plain[at] = (uint16_t)(step->length << 8 | (step->wrote + 1));
	if (step->pointer)
		take_address(w, step->pointer);
	return true;
}

static void learn_borrowing(struct code_flow *w)
{
	fail(w);
	if (w->trial || w->borrowing[w->start])
		return;
	w->borrowing[w->start] = true;
	w->again = true;
}

static uint32_t advance(struct code_flow *w, struct path *p, uint32_t at)
{
	struct code_state s = w->state[at];
	struct code_step step;

	if (!step_at(w, p, at, &s, &step)) {
		w->returns = true;
		blame_call(w, p);
		return CODE_INDEX_NONE;
	}
	cover(w, at, step.length);
	if (s.rsp == CODE_RSP_END && (w->flags[w->start] & NO_END)) {
		s = w->state[at];
		code_state_write(&s, UNWIND_RBP);
	}
	if (s.rsp < 0 && s.rsp != CODE_RSP_LOST)
		blame_call(w, p);
	/* The return address was taken from the stack: nobody knows where it is. */
	if (s.rsp < 8 && s.rsp != CODE_RSP_LOST)
		s = code_state_lost();
	if (step.borrows)
		learn_borrowing(w);
	if (!step.nop)
		p->only_nops = false;
	return follow(w, p, at, &step, &s);
}

static void run_path(struct code_flow *w, uint32_t at)
{
	struct path p = {.gap = code_gaps_of(w->gaps, at), .call = CODE_INDEX_NONE};

	while (at != CODE_INDEX_NONE && !w->failed)
		at = advance(w, &p, at);
}

static void run_queue(struct code_flow *w)
{
	uint32_t at;

	while (w->queued) {
		at = w->queue[--w->queued];
		w->flags[at] &= (uint16_t)~QUEUED;
		if (!w->failed)
			run_path(w, at);
	}
}

void code_flow_run(struct code_flow *w, uint32_t at, struct code_state s)
{
	uint32_t i;

	w->start = at;
	w->returns = false;
	w->tried_count = 0;
	if (reach(w, at, &s, EDGE_FLOW))
		enqueue(w, at);
	run_queue(w);
	for (i = 0; i < w->tried_count; i++)
		w->flags[w->tried[i]] &= (uint16_t)~TRIED;
}

bool code_flow_look(struct code_flow *w, const struct code_gap *gap, uint32_t at,
		    struct code_step *out)
{
	struct path p = {.gap = gap};
	struct code_state ignored = code_state_entry();

	return step_at(w, &p, at, &ignored, out);
}
