/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One walk along the control flow, from one instruction, for code_walk.c. */
#ifndef LEAKTOP_CODE_FLOW_H
#define LEAKTOP_CODE_FLOW_H

#include <stdbool.h>
#include <stdint.h>

#include "unwind/code_gaps.h"
#include "unwind/code_state.h"
#include "unwind/code_step.h"
#include "unwind/elf_image.h"

#define TRIALS_MAX 7u /* of one instruction */
#define NO_RETURNS_MAX 64u

/* What is known of a byte. */
enum {
	REACHED = 1 << 0,    /* an instruction starts here */
	INSIDE = 1 << 1,     /* a byte of one that is not its first */
	BY_CALL = 1 << 2,    /* only a call that returns leads here */
	NO_RETURN = 1 << 3,  /* the call before this does not return */
	START = 1 << 4,	     /* a function starts here */
	OUTERMOST = 1 << 5,  /* that nobody calls */
	NEVER_BACK = 1 << 6, /* and that does not return */
	TAKEN = 1 << 7,	     /* its address is used */
	QUEUED = 1 << 8,
	SWITCH = 1 << 9, /* jumps nobody knows where to */
	TRIED = 1 << 10, /* in the current trial */
	GUESSED = 1 << 11,
	TRIAL_SHIFT = 12, /* three bits: trials that failed */
	NO_END = 1 << 15, /* a start: it zeroes rbp, and returns nevertheless */
	ROUND_FLAGS = REACHED | INSIDE | BY_CALL | QUEUED | SWITCH,
};

struct code_flow {
	const struct elf_image *image;
	const struct code_gaps *gaps;
	struct code_decoder *decoder;
	/* One each byte. */
	struct code_state *state;
	uint16_t *flags;
	bool *borrowing;		 /* a start: it works in the frame of its caller */
	uint16_t *plain;		 /* of plain instructions: length << 8 | register + 1 */
	uint32_t *queue, *tried, *found; /* found: starts to follow in this round still */
	uint32_t queued, tried_count, found_count;
	uint32_t entries_left;
	uint64_t no_returns[NO_RETURNS_MAX]; /* functions outside that do not return */
	uint32_t no_return_count;
	bool again; /* something was learned: one more round */
	/* The function that is being followed: */
	uint32_t start;
	bool returns; /* or may */
	bool trial, failed, confirmed;
	uint8_t table[CODE_SWITCH_MAX * sizeof(uint64_t)];
};

static inline uint32_t code_flow_trials(const struct code_flow *w, uint32_t at)
{
	return w->flags[at] >> TRIAL_SHIFT & TRIALS_MAX;
}

/* Borrows @image and @gaps. 0 or -ENOMEM; released in any case. */
int code_flow_init(struct code_flow *w, const struct elf_image *image,
		   const struct code_gaps *gaps);
void code_flow_release(struct code_flow *w);

/* Follows what the instruction at @at, reached with @s, leads to. */
void code_flow_run(struct code_flow *w, uint32_t at, struct code_state s);
/* The instruction at @at of @gap. False if there is none. */
bool code_flow_look(struct code_flow *w, const struct code_gap *gap, uint32_t at,
		    struct code_step *out);
/* One more round is needed if @flag is new. */
void code_flow_learn(struct code_flow *w, uint32_t at, uint16_t flag);

#endif
