/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "unwind/cfi_rule.h"

#define WORD 8

static bool saved_at_rsp(const struct cfi_where *w, int32_t offset)
{
	return w->how == CFI_SAVED_AT && w->reg == UNWIND_RSP && w->offset == offset;
}

/* glibc's and the vdso's restorers find every register in the sigcontext above rsp. */
static bool is_sigcontext(const struct cfi_state *s)
{
	const struct cfi_where *c = s->columns;

	return s->cfa.how == CFI_CFA_DEREF && s->cfa.reg == UNWIND_RSP &&
	       s->cfa.offset == UNWIND_SIGNAL_RSP && !s->cfa.arg &&
	       saved_at_rsp(&c[CFI_RETURN], UNWIND_SIGNAL_RIP) &&
	       saved_at_rsp(&c[CFI_RBP], UNWIND_SIGNAL_RBP) &&
	       saved_at_rsp(&c[CFI_RBX], UNWIND_SIGNAL_RBX) &&
	       (c[CFI_RSP].how == CFI_DEFAULT || saved_at_rsp(&c[CFI_RSP], UNWIND_SIGNAL_RSP));
}

static uint8_t slot(const struct cfi_where *w)
{
	bool from_cfa = w->how == CFI_SAVED;
	int64_t down = -(int64_t)w->offset;

	if (w->how == CFI_DEFAULT || w->how == CFI_SAME)
		return UNWIND_SLOT_SAME;
	if (down % WORD || (!from_cfa && (w->how != CFI_SAVED_AT || w->reg != UNWIND_RBP)))
		return UNWIND_SLOT_LOST;
	down /= WORD;
	if (from_cfa)
		return down > 0 && down <= UNWIND_SLOT_CFA_MAX ? (uint8_t)down : UNWIND_SLOT_LOST;
	return down >= 0 && down <= UNWIND_SLOT_RBP_MAX - UNWIND_SLOT_RBP
		       ? (uint8_t)(UNWIND_SLOT_RBP + down)
		       : UNWIND_SLOT_LOST;
}

static bool set_cfa(struct unwind_rule *rule, const struct cfi_cfa *cfa)
{
	rule->offset = cfa->offset;
	switch (cfa->how) {
	case CFI_CFA_REG:
		rule->cfa = UNWIND_CFA(UNWIND_CFA_REG, cfa->reg);
		return true;
	case CFI_CFA_DEREF:
		rule->cfa = UNWIND_CFA(UNWIND_CFA_DEREF, cfa->reg);
		rule->arg = (uint8_t)(cfa->arg / WORD);
		return !(cfa->arg % WORD) && cfa->arg / WORD <= UINT8_MAX;
	case CFI_CFA_PLT:
		rule->cfa = UNWIND_CFA(UNWIND_CFA_PLT, cfa->reg);
		rule->arg = (uint8_t)cfa->arg;
		return true;
	default:
		return false;
	}
}

struct unwind_rule cfi_rule(const struct cfi_state *state, bool signal)
{
	const struct unwind_rule unknown = {0};
	const struct cfi_where *ret = &state->columns[CFI_RETURN];
	struct unwind_rule rule = {0};

	if (signal && is_sigcontext(state)) {
		rule.cfa = UNWIND_CFA(UNWIND_CFA_SIGNAL, 0);
		return rule;
	}
	if (ret->how == CFI_UNDEFINED) {
		rule.cfa = UNWIND_CFA(UNWIND_CFA_END, 0);
		return rule;
	}
	if (signal || ret->how != CFI_SAVED || ret->offset != -WORD ||
	    state->columns[CFI_RSP].how != CFI_DEFAULT || !set_cfa(&rule, &state->cfa))
		return unknown;
	rule.rbp = slot(&state->columns[CFI_RBP]);
	rule.rbx = slot(&state->columns[CFI_RBX]);
	return rule;
}
