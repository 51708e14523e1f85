/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The rules of all objects, each once, under 16-bit ids that never change. */
#ifndef LEAKTOP_RULE_SET_H
#define LEAKTOP_RULE_SET_H

#include <stdint.h>

#include "unwind_table.h"

struct rule_set;

/* Holds UNWIND_RULE_UNKNOWN and UNWIND_RULE_END already. 0 or -ENOMEM. */
int rule_set_new(struct rule_set **out);
void rule_set_free(struct rule_set *s);

/* 0, or -ENOSPC if @rule is new and there are already @limit (UNWIND_RULES_MAX at most) rules. */
int rule_set_intern(struct rule_set *s, struct unwind_rule rule, uint32_t limit, uint16_t *id);
uint32_t rule_set_count(const struct rule_set *s);
/* @id is below the count. */
struct unwind_rule rule_set_get(const struct rule_set *s, uint32_t id);

#endif
