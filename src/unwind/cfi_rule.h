/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LEAKTOP_CFI_RULE_H
#define LEAKTOP_CFI_RULE_H

#include <stdbool.h>

#include "unwind/cfi_program.h"
#include "unwind_table.h"

/*
 * The rule for @state; all zeros, the rule UNKNOWN, if no rule says it. @signal:
 * its CIE has the augmentation S.
 */
struct unwind_rule cfi_rule(const struct cfi_state *state, bool signal);

#endif
