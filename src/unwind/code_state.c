/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "unwind/code_state.h"

#include <stddef.h>

#define WORD 8
#define RED_ZONE 128 /* below rsp, and safe from signals (System V ABI, 3.2.2) */

static bool is_saved(uint8_t value)
{
	return value != CODE_VALUE_LOST && (value & ~CODE_CHANGED);
}

static int32_t saved_at(uint8_t value)
{
	return is_saved(value) ? WORD * (int32_t)(value & ~CODE_CHANGED) : 0;
}

static uint8_t *value_of(struct code_state *s, enum unwind_reg reg)
{
	if (reg == UNWIND_RBP)
		return &s->rbp;
	return reg == UNWIND_RBX ? &s->rbx : NULL;
}

static uint8_t meet_value(uint8_t a, uint8_t b)
{
	if (a == b)
		return a;
	if (!(a & CODE_CHANGED) && !(b & CODE_CHANGED))
		return 0;
	return is_saved(a) && saved_at(a) == saved_at(b) ? a | CODE_CHANGED : CODE_VALUE_LOST;
}

struct code_state code_state_meet(struct code_state a, struct code_state b)
{
	a.rsp = a.rsp == b.rsp ? a.rsp : CODE_RSP_LOST;
	a.frame = a.frame == b.frame ? a.frame : CODE_FRAME_NONE;
	a.rbp = meet_value(a.rbp, b.rbp);
	a.rbx = meet_value(a.rbx, b.rbx);
	return a;
}

void code_state_write(struct code_state *s, enum unwind_reg reg)
{
	uint8_t *value = value_of(s, reg);

	if (reg == UNWIND_RBP)
		s->frame = CODE_FRAME_NONE;
	if (reg == UNWIND_RSP)
		s->rsp = CODE_RSP_LOST;
	if (value)
		*value = is_saved(*value) ? *value | CODE_CHANGED : CODE_VALUE_LOST;
}

void code_state_load(struct code_state *s, enum unwind_reg reg, int32_t offset)
{
	uint8_t *value = value_of(s, reg);
	bool restored = value && is_saved(*value) && saved_at(*value) == offset;

	code_state_write(s, reg);
	if (restored)
		*value = 0;
}

void code_state_store(struct code_state *s, enum unwind_reg reg, int32_t offset)
{
	uint8_t *value = value_of(s, reg);

	if (value && !*value && offset > WORD && !(offset % WORD) &&
	    offset <= WORD * (int32_t)CODE_SAVED_MAX && offset <= s->rsp + RED_ZONE)
		*value = (uint8_t)(offset / WORD);
}

static bool is_known(int32_t rsp)
{
	return rsp != CODE_RSP_LOST && rsp != CODE_RSP_END;
}

/* What was saved in words from @offset down is there no more. */
static void overwrite(struct code_state *s, int32_t low, int32_t high)
{
	int i;

	for (i = 0; i < 2; i++) {
		uint8_t *value = i ? &s->rbp : &s->rbx;
		int32_t at = saved_at(*value);

		if (at && at >= low && at <= high)
			*value = *value & CODE_CHANGED ? CODE_VALUE_LOST : 0;
	}
}

void code_state_push(struct code_state *s, enum unwind_reg reg)
{
	if (!is_known(s->rsp))
		return;
	s->rsp += WORD;
	overwrite(s, s->rsp, s->rsp);
	code_state_store(s, reg, s->rsp);
}

void code_state_pop(struct code_state *s, enum unwind_reg reg)
{
	int32_t rsp = s->rsp;

	if (is_known(rsp)) {
		code_state_load(s, reg, rsp);
		s->rsp = rsp - WORD;
	} else {
		code_state_write(s, reg);
	}
}

void code_state_call(struct code_state *s)
{
	if (is_known(s->rsp))
		overwrite(s, s->rsp + 1, INT32_MAX);
}

static uint8_t slot(uint8_t value)
{
	if (value == CODE_VALUE_LOST)
		return UNWIND_SLOT_LOST;
	return (uint8_t)(value & ~CODE_CHANGED);
}

struct unwind_rule code_state_rule(const struct code_state *s)
{
	struct unwind_rule rule = {.rbp = slot(s->rbp), .rbx = slot(s->rbx)};

	if (s->rsp == CODE_RSP_END)
		return (struct unwind_rule){.cfa = UNWIND_CFA(UNWIND_CFA_END, 0)};
	if (s->frame != CODE_FRAME_NONE && (code_state_framed(s) || s->rsp == CODE_RSP_LOST)) {
		rule.cfa = UNWIND_CFA_BY_RBP;
		rule.offset = s->frame;
		return rule;
	}
	/* Nearer than a word, the return address is not where it was any more. */
	if (s->rsp < WORD || s->rsp % WORD)
		return (struct unwind_rule){0};
	rule.cfa = UNWIND_CFA_BY_RSP;
	rule.offset = s->rsp;
	return rule;
}
