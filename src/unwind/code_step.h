/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One machine instruction: where it leads, and what it does to a code_state. */
#ifndef LEAKTOP_CODE_STEP_H
#define LEAKTOP_CODE_STEP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "unwind/code_state.h"

enum code_step_flow {
	CODE_NEXT = 0,
	CODE_JUMP,
	CODE_BRANCH,
	CODE_CALL,
	CODE_RETURN,
	CODE_LEAVE, /* a jump by register or memory */
	CODE_STOP,
};

#define CODE_SWITCH_MAX 4096 /* entries of a jump table */

/* What the instructions before it told of a jump table; zeros when nothing. */
struct code_switch {
	uint64_t pointer[16]; /* general registers that hold an address */
	uint64_t offsets;     /* of 32-bit offsets from itself, one of which was loaded */
	uint64_t addresses;   /* of 64-bit addresses, one of which is jumped to */
	uint32_t count;	      /* entries, by the last comparison; 0: not known */
};

struct code_step {
	uint8_t length;
	bool plain;   /* leads to the next; all that it may change is one general register: */
	int8_t wrote; /* its number, -1 for none */
	bool nop;
	bool borrows;	 /* takes the stack back to a frame that is not of this function */
	bool trap;	 /* never to be reached: hlt, ud2, int3 */
	uint8_t flow;	 /* enum code_step_flow */
	bool has_target; /* of a jump or a branch; of a call also the word that holds it */
	uint64_t target;
	uint64_t pointer; /* an address that it makes, 0 if none */
};

struct code_decoder;

/* 0 or -ENOMEM. */
int code_decoder_new(struct code_decoder **out);
void code_decoder_free(struct code_decoder *d);

/*
 * Decodes what stands at @code, which is @vaddr in memory, and changes *state and *table to
 * what is true behind it. False if it is no instruction.
 */
bool code_step(struct code_decoder *d, const uint8_t *code, size_t bytes, uint64_t vaddr,
	       struct code_state *state, struct code_switch *table, struct code_step *out);

#endif
