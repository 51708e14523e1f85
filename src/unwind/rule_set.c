/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Objects choose their rules, and could choose them so that all hash to one place
 * and each look-up walks over all of them; hence a hash that they cannot foresee.
 */
#include "unwind/rule_set.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define SLOTS (1u << 17) /* at most half full */

struct rule_set {
	uint64_t multiplier; /* odd */
	uint32_t count;
	struct unwind_rule rules[UNWIND_RULES_MAX];
	uint16_t slots[SLOTS]; /* open addressing; 0, which needs no slot, is an empty one */
};

static const struct unwind_rule rule_end = {.cfa = UNWIND_CFA(UNWIND_CFA_END, 0)};

int rule_set_new(struct rule_set **out)
{
	struct rule_set *s = calloc(1, sizeof(*s));
	uint16_t id;

	if (!s)
		return -ENOMEM;
	/* A sandbox may forbid it; where we are loaded is a secret too. */
	if (getrandom(&s->multiplier, sizeof(s->multiplier), GRND_NONBLOCK) < 0)
		s->multiplier = (uintptr_t)s;
	s->multiplier |= 1;
	s->count = 1; /* rule 0, all zeros, is UNWIND_RULE_UNKNOWN */
	rule_set_intern(s, rule_end, UNWIND_RULES_MAX, &id);
	*out = s;
	return 0;
}

void rule_set_free(struct rule_set *s)
{
	free(s);
}

/* Multiply-shift: universal for a random odd multiplier (Dietzfelbinger et al., 1997). */
static uint32_t first_slot(const struct rule_set *s, uint64_t bits)
{
	return (uint32_t)(bits * s->multiplier >> 47);
}

int rule_set_intern(struct rule_set *s, struct unwind_rule rule, uint32_t limit, uint16_t *id)
{
	uint64_t bits;
	uint32_t i;

	memcpy(&bits, &rule, sizeof(bits));
	if (!bits) {
		*id = UNWIND_RULE_UNKNOWN;
		return 0;
	}
	for (i = first_slot(s, bits); s->slots[i]; i = (i + 1) % SLOTS) {
		if (!memcmp(&s->rules[s->slots[i]], &rule, sizeof(rule))) {
			*id = s->slots[i];
			return 0;
		}
	}
	if (s->count >= limit || s->count >= UNWIND_RULES_MAX)
		return -ENOSPC;
	s->rules[s->count] = rule;
	s->slots[i] = (uint16_t)s->count;
	*id = (uint16_t)s->count++;
	return 0;
}

uint32_t rule_set_count(const struct rule_set *s)
{
	return s->count;
}

struct unwind_rule rule_set_get(const struct rule_set *s, uint32_t id)
{
	return s->rules[id];
}
