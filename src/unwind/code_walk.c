/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The control flow is followed from known starts in rounds, since some things are
 * known only at the end of one: where other functions start, and which calls do
 * not return.
 *
 * Then the code that nothing led to is tried: as what a jump through a table that
 * could not be read leads to, or as a function that is known by a pointer only. Such
 * a trial counts if it never contradicts what is known, and arrives at a return
 * with the stack as it should be, or at known code with the same state.
 */
#include "unwind/code_walk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "unwind/code_flow.h"

#define ROUNDS_MAX 4
#define SCANS 3 /* addresses that one finds are tried by the next; the last tries anything */

struct code_walk {
	struct code_flow flow;
};

void code_walk_free(struct code_walk *walk)
{
	if (!walk)
		return;
	code_flow_release(&walk->flow);
	free(walk);
}

int code_walk_new(const struct elf_image *image, const struct code_gaps *gaps,
		  struct code_walk **out)
{
	struct code_walk *walk = calloc(1, sizeof(*walk));
	int err;

	if (!walk)
		return -ENOMEM;
	err = code_flow_init(&walk->flow, image, gaps);
	if (err) {
		code_walk_free(walk);
		return err;
	}
	*out = walk;
	return 0;
}

void code_walk_add_start(struct code_walk *walk, uint64_t vaddr, bool outermost)
{
	struct code_flow *w = &walk->flow;
	uint32_t at = code_gaps_index(w->gaps, vaddr);

	if (at != CODE_INDEX_NONE)
		w->flags[at] |= outermost ? START | OUTERMOST : START;
}

static void run_start(struct code_flow *w, uint32_t at)
{
	struct code_state s = code_state_entry();

	if (w->flags[at] & REACHED)
		return;
	if (w->flags[at] & OUTERMOST)
		s.rsp = CODE_RSP_END;
	if (w->borrowing[at])
		s = code_state_lost();
	code_flow_run(w, at, s);
	if (!w->returns)
		code_flow_learn(w, at, NEVER_BACK);
}

static void run_round(struct code_flow *w)
{
	uint32_t i;

	w->again = false;
	for (i = 0; i < w->gaps->bytes; i++)
		w->flags[i] &= (uint16_t)~ROUND_FLAGS;
	for (i = 0; i < w->gaps->bytes; i++) {
		if (w->flags[i] & START)
			run_start(w, i);
	}
	while (w->found_count)
		run_start(w, w->found[--w->found_count]);
}

static void undo_trial(struct code_flow *w)
{
	uint32_t i, k;

	for (i = 0; i < w->tried_count; i++) {
		uint32_t at = w->tried[i], trials = code_flow_trials(w, at);

		w->flags[at] &= (uint16_t) ~(ROUND_FLAGS | TRIALS_MAX << TRIAL_SHIFT);
		w->flags[at] |= (uint16_t)((trials + 1) << TRIAL_SHIFT);
		for (k = at + 1; k < w->gaps->bytes && k < at + 15 && (w->flags[k] & INSIDE); k++)
			w->flags[k] &= (uint16_t)~INSIDE;
	}
}

/* Whether the code at @at may be what runs in state *@s. */
static bool try(struct code_flow *w, uint32_t at, struct code_state s, bool confirmed)
{
	bool good;

	w->trial = true;
	w->failed = false;
	w->confirmed = confirmed;
	code_flow_run(w, at, s);
	good = !w->failed && w->confirmed;
	w->trial = false;
	w->failed = false;
	if (!good)
		undo_trial(w);
	return good;
}

/* Functions begin with these; nothing else does: push of a register, sub from rsp. */
static bool is_prologue(const struct code_flow *w, uint32_t at, uint32_t end)
{
	static const uint8_t endbr64[] = {0xf3, 0x0f, 0x1e, 0xfa};
	const uint8_t *code = w->gaps->code;

	if (end - at > sizeof(endbr64) && !memcmp(code + at, endbr64, sizeof(endbr64)))
		at += sizeof(endbr64);
	if (end - at < 4)
		return false;
	if (code[at] == 0x41)
		at++;
	return (code[at] & 0xf8) == 0x50 ||
	       (code[at] == 0x48 && (code[at + 1] == 0x83 || code[at + 1] == 0x81) &&
		code[at + 2] == 0xec);
}

struct scan {
	const struct code_gap *gap;
	struct code_state jumped; /* at a jump nobody knows where to, in the function before */
	bool has_jumped;
	bool fresh;  /* code that the code before does not lead to */
	bool likely; /* try only what looks like a function */
};

static bool try_both(struct code_flow *w, const struct scan *scan, uint32_t at)
{
	bool likely = (w->flags[at] & TAKEN) || is_prologue(w, at, scan->gap->last);

	if (scan->likely && !likely)
		return false;
	if (!scan->likely && scan->has_jumped && try(w, at, scan->jumped, false))
		return true;
	if (!try(w, at, code_state_entry(), likely))
		return false;
	w->flags[at] |= GUESSED;
	return true;
}

/* Behind the known instruction at @at. */
static uint32_t pass_known(struct code_flow *w, struct scan *scan, uint32_t at)
{
	if (w->flags[at] & (START | GUESSED))
		scan->has_jumped = false;
	if (w->flags[at] & SWITCH) {
		scan->jumped = w->state[at];
		scan->has_jumped = true;
	}
	scan->fresh = true;
	for (at++; at < scan->gap->last && (w->flags[at] & INSIDE) && !(w->flags[at] & REACHED);)
		at++;
	return at;
}

static uint32_t pass_unknown(struct code_flow *w, struct scan *scan, uint32_t at)
{
	struct code_step step;
	uint32_t end;

	if (!code_flow_look(w, scan->gap, at, &step)) {
		scan->fresh = false;
		return at + 1;
	}
	if (!step.nop && !step.trap) {
		if ((scan->fresh || (w->flags[at] & TAKEN)) && try_both(w, scan, at))
			return at;
		scan->fresh = step.flow == CODE_JUMP || step.flow == CODE_RETURN ||
			      step.flow == CODE_LEAVE;
	}
	end = at + step.length;
	for (at++; at < end && !(w->flags[at] & REACHED);)
		at++;
	return at;
}

static void scan_gap(struct code_flow *w, const struct code_gap *gap, bool likely)
{
	struct scan scan = {.gap = gap, .fresh = true, .likely = likely};
	uint32_t at = gap->first;

	while (at < gap->last) {
		if (w->flags[at] & REACHED)
			at = pass_known(w, &scan, at);
		else
			at = pass_unknown(w, &scan, at);
	}
}

void code_walk_run(struct code_walk *walk)
{
	struct code_flow *w = &walk->flow;
	uint32_t i, round;

	w->again = true;
	for (i = 0; i < ROUNDS_MAX && w->again; i++)
		run_round(w);
	for (round = 0; round < SCANS; round++) {
		for (i = 0; i < w->gaps->count; i++)
			scan_gap(w, &w->gaps->gaps[i], round < SCANS - 1);
	}
}

bool code_walk_state(const struct code_walk *walk, uint32_t index, struct code_state *out)
{
	if (!(walk->flow.flags[index] & REACHED))
		return false;
	*out = walk->flow.state[index];
	return true;
}

bool code_walk_is_return(const struct code_walk *walk, uint32_t index)
{
	return walk->flow.flags[index] & BY_CALL;
}

bool code_walk_is_known(const struct code_walk *walk, uint32_t index)
{
	return walk->flow.flags[index] & (REACHED | INSIDE);
}
