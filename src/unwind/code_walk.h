/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Follows the control flow through gaps, with the state of the stack at each instruction. */
#ifndef LEAKTOP_CODE_WALK_H
#define LEAKTOP_CODE_WALK_H

#include <stdbool.h>
#include <stdint.h>

#include "unwind/code_gaps.h"
#include "unwind/code_state.h"
#include "unwind/elf_image.h"

struct code_walk;

/* @gaps and @image are borrowed. 0 or -ENOMEM. */
int code_walk_new(const struct elf_image *image, const struct code_gaps *gaps,
		  struct code_walk **out);
void code_walk_free(struct code_walk *w);

/* A function starts at @vaddr; @outermost: nobody calls it. Ignored outside the gaps. */
void code_walk_add_start(struct code_walk *w, uint64_t vaddr, bool outermost);
void code_walk_run(struct code_walk *w);

/* The state at the instruction that starts at @index; false if none is known to start there. */
bool code_walk_state(const struct code_walk *w, uint32_t index, struct code_state *out);
/* Whether a call returns to @index. */
bool code_walk_is_return(const struct code_walk *w, uint32_t index);
/* Whether @index is within a known instruction, its first byte or another. */
bool code_walk_is_known(const struct code_walk *w, uint32_t index);

#endif
