/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * There is no DWARF stack machine in the BPF unwinder; the few forms that occur
 * are recognised:
 *
 *	breg R o			restorers of signal frames, realigned stacks
 *	breg R o, deref			the same, as a CFA
 *	breg R o, deref, plus_uconst a	assembly that keeps the old rsp on its stack
 *	breg rsp o, breg rip 0, lit15, and, lit N, ge, lit3, shl, plus
 *					lazy PLTs: one slot pushes at byte N of 16
 */
#include "unwind/cfi_expression.h"

#include <dwarf.h>

#include "unwind_table.h"

#define RETURN_COLUMN 16

static bool next_is(struct byte_reader *r, uint8_t op)
{
	if (!reader_left(r) || *r->at != op)
		return false;
	r->at++;
	return true;
}

static bool at_end(const struct byte_reader *r)
{
	return !r->bad && !reader_left(r);
}

static bool read_breg(struct byte_reader *r, uint8_t *reg, int32_t *offset)
{
	uint8_t op = reader_u8(r);
	int64_t value;

	if (op < DW_OP_breg0 || op > DW_OP_breg16)
		return false;
	value = reader_sleb128(r);
	if (value != (int32_t)value)
		return false;
	*reg = op - DW_OP_breg0;
	*offset = (int32_t)value;
	return !r->bad;
}

static bool read_plt(struct byte_reader *r, int32_t *threshold)
{
	uint8_t reg, lit;
	int32_t offset;

	if (!read_breg(r, &reg, &offset) || reg != RETURN_COLUMN || offset ||
	    !next_is(r, DW_OP_lit15) || !next_is(r, DW_OP_and))
		return false;
	lit = reader_u8(r);
	if (lit < DW_OP_lit0 || lit > DW_OP_lit15)
		return false;
	*threshold = lit - DW_OP_lit0;
	return next_is(r, DW_OP_ge) && next_is(r, DW_OP_lit3) && next_is(r, DW_OP_shl) &&
	       next_is(r, DW_OP_plus) && at_end(r);
}

static bool read_deref(struct byte_reader *r, int32_t *added)
{
	uint64_t value;

	if (!next_is(r, DW_OP_deref))
		return false;
	*added = 0;
	if (next_is(r, DW_OP_plus_uconst)) {
		value = reader_uleb128(r);
		if (value > INT32_MAX)
			return false;
		*added = (int32_t)value;
	}
	return at_end(r);
}

struct cfi_cfa cfi_expression_cfa(struct byte_reader expression)
{
	struct byte_reader r = expression;
	struct cfi_cfa cfa = {0};

	cfa.how = CFI_CFA_OTHER;
	if (!read_breg(&r, &cfa.reg, &cfa.offset) || cfa.reg == RETURN_COLUMN)
		return cfa;
	expression = r;
	if (at_end(&r))
		cfa.how = CFI_CFA_REG;
	else if (read_deref(&r, &cfa.arg))
		cfa.how = CFI_CFA_DEREF;
	else if (read_plt(&expression, &cfa.arg))
		cfa.how = CFI_CFA_PLT;
	return cfa;
}

struct cfi_where cfi_expression_where(struct byte_reader expression)
{
	struct byte_reader *r = &expression;
	struct cfi_where where = {0};

	next_is(r, DW_OP_drop); /* the CFA, which is pushed before */
	where.how = read_breg(r, &where.reg, &where.offset) && at_end(r) ? CFI_SAVED_AT : CFI_OTHER;
	return where;
}
