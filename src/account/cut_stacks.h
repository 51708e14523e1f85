/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How often stacks could not be followed to their end, by object and reason. */
#ifndef LEAKTOP_CUT_STACKS_H
#define LEAKTOP_CUT_STACKS_H

#include <stddef.h>
#include <stdint.h>

struct cut_stacks;

struct cut_stack {
	const char *object; /* path of what the last frame lies in, or "[anon]" and the like */
	uint32_t result;    /* enum unwind_result */
	uint64_t count;	    /* of allocations */
};

struct cut_stacks *cut_stacks_new(void);
void cut_stacks_free(struct cut_stacks *c);

/* @object is copied. Kinds beyond some hundreds are counted as "[others]". */
void cut_stacks_add(struct cut_stacks *c, const char *object, uint32_t result, uint64_t count);

/* In no order. */
size_t cut_stacks_count(const struct cut_stacks *c);
const struct cut_stack *cut_stacks_at(const struct cut_stacks *c, size_t i);

#endif
