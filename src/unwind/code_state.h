/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where a function's caller is, as far as its machine code tells. */
#ifndef LEAKTOP_CODE_STATE_H
#define LEAKTOP_CODE_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "unwind_table.h"

#define CODE_RSP_LOST INT32_MIN
#define CODE_RSP_END INT32_MAX /* the outermost function: no caller */
#define CODE_FRAME_NONE INT16_MIN

/*
 * A preserved register: 0, it holds the caller's value; 1 to CODE_SAVED_MAX, so
 * does it, and the word at CFA - 8 * n too; with CODE_CHANGED, only that word does.
 */
#define CODE_SAVED_MAX 126u
#define CODE_CHANGED 128u
#define CODE_VALUE_LOST 255u

struct code_state {
	int32_t rsp;   /* CFA - rsp, or one of the above */
	int16_t frame; /* CFA - rbp, if rbp points into the frame */
	uint8_t rbp, rbx;
};

static inline struct code_state code_state_entry(void)
{
	return (struct code_state){.rsp = 8, .frame = CODE_FRAME_NONE};
}

/* Nothing is known. */
static inline struct code_state code_state_lost(void)
{
	return (struct code_state){.rsp = CODE_RSP_LOST,
				   .frame = CODE_FRAME_NONE,
				   .rbp = CODE_VALUE_LOST,
				   .rbx = CODE_VALUE_LOST};
}

static inline bool code_state_same(struct code_state a, struct code_state b)
{
	return a.rsp == b.rsp && a.frame == b.frame && a.rbp == b.rbp && a.rbx == b.rbx;
}

/* Whether a function may return, or leave for another one, from here. */
static inline bool code_state_left(const struct code_state *s)
{
	return s->rsp == 8 && !(s->rbp & CODE_CHANGED) && !(s->rbx & CODE_CHANGED);
}

/* What holds where two paths meet. */
struct code_state code_state_meet(struct code_state a, struct code_state b);

/* Changes of a state; an offset is a distance below the CFA. */
void code_state_write(struct code_state *s, enum unwind_reg reg);
void code_state_load(struct code_state *s, enum unwind_reg reg, int32_t offset);
void code_state_store(struct code_state *s, enum unwind_reg reg, int32_t offset);
/* @reg: UNWIND_RBP or UNWIND_RBX; UNWIND_RAX for anything else. */
void code_state_push(struct code_state *s, enum unwind_reg reg);
void code_state_pop(struct code_state *s, enum unwind_reg reg);
/* The callee writes below rsp. */
void code_state_call(struct code_state *s);

/* Whether rbp is a frame pointer as compilers use it. */
static inline bool code_state_framed(const struct code_state *s)
{
	return s->frame == 16 && (s->rbp & ~CODE_CHANGED) == 2;
}

/* All zeros, the rule UNKNOWN, if no rule says it. */
struct unwind_rule code_state_rule(const struct code_state *s);

#endif
