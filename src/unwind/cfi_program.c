/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Only four columns are kept: the registers by which a CFA is found over a call
 * (rsp, rbp, and rbx in the dynamic linker's trampolines) and the return address.
 * Instructions for the others are read and forgotten.
 */
#include "unwind/cfi_program.h"

#include <dwarf.h>
#include <errno.h>

#include "unwind/cfi_expression.h"
#include "unwind/cfi_pointer.h"
#include "unwind_table.h"

#define RETURN_COLUMN 16 /* System V ABI, x86-64 supplement, figure 3.36 */
#define OPERAND_MASK 0x3f

/* CFI_COLUMNS: not one that is kept. */
static enum cfi_column column_of(uint64_t reg)
{
	switch (reg) {
	case UNWIND_RBX:
		return CFI_RBX;
	case UNWIND_RBP:
		return CFI_RBP;
	case UNWIND_RSP:
		return CFI_RSP;
	case RETURN_COLUMN:
		return CFI_RETURN;
	default:
		return CFI_COLUMNS;
	}
}

/* Offsets that a stack cannot have become one that no factor makes right again. */
static int64_t to_signed(uint64_t value)
{
	return value > INT32_MAX ? INT64_MAX : (int64_t)value;
}

static void set_where(struct cfi_program *p, uint64_t reg, struct cfi_where where)
{
	enum cfi_column c = column_of(reg);

	if (c != CFI_COLUMNS)
		p->state.columns[c] = where;
}

static void set_how(struct cfi_program *p, uint64_t reg, enum cfi_how how)
{
	set_where(p, reg, (struct cfi_where){.how = how});
}

/* A saved register's place; one too far to be true cannot be found. */
static void set_saved(struct cfi_program *p, uint64_t reg, int64_t factored)
{
	int64_t offset;

	if (__builtin_mul_overflow(factored, p->factors->data, &offset) ||
	    offset != (int32_t)offset)
		set_how(p, reg, CFI_OTHER);
	else
		set_where(p, reg, (struct cfi_where){CFI_SAVED, 0, (int32_t)offset});
}

static void restore(struct cfi_program *p, uint64_t reg)
{
	enum cfi_column c = column_of(reg);

	if (c != CFI_COLUMNS)
		p->state.columns[c] = p->initial->columns[c];
}

static void set_cfa(struct cfi_program *p, uint64_t reg, int64_t offset)
{
	if (reg > 15 || offset != (int32_t)offset)
		p->state.cfa = (struct cfi_cfa){.how = CFI_CFA_OTHER};
	else
		p->state.cfa = (struct cfi_cfa){CFI_CFA_REG, (uint8_t)reg, (int32_t)offset, 0};
}

static int64_t factored_sleb128(struct cfi_program *p)
{
	int64_t value;

	if (__builtin_mul_overflow(reader_sleb128(&p->code), p->factors->data, &value))
		p->bad = true;
	return value;
}

static void op_nop(struct cfi_program *p)
{
	(void)p;
}

static void advance(struct cfi_program *p, uint64_t delta)
{
	uint64_t bytes, at;

	if (__builtin_mul_overflow(delta, p->factors->code, &bytes) ||
	    __builtin_add_overflow(p->at, bytes, &at))
		p->bad = true;
	else
		p->at = at;
}

static void op_advance_loc1(struct cfi_program *p)
{
	advance(p, reader_u8(&p->code));
}

static void op_advance_loc2(struct cfi_program *p)
{
	advance(p, reader_u16(&p->code));
}

static void op_advance_loc4(struct cfi_program *p)
{
	advance(p, reader_u32(&p->code));
}

static void op_advance_loc8(struct cfi_program *p)
{
	advance(p, reader_u64(&p->code));
}

static void op_set_loc(struct cfi_program *p)
{
	uint64_t vaddr = p->code_vaddr + (uint64_t)(p->code.at - p->code_start);
	uint64_t at = cfi_pointer_read(&p->code, p->factors->encoding, vaddr, 0);

	if (at < p->at)
		p->bad = true;
	else
		p->at = at;
}

static void op_offset_extended(struct cfi_program *p)
{
	uint64_t reg = reader_uleb128(&p->code);

	set_saved(p, reg, to_signed(reader_uleb128(&p->code)));
}

static void op_offset_extended_sf(struct cfi_program *p)
{
	uint64_t reg = reader_uleb128(&p->code);

	set_saved(p, reg, reader_sleb128(&p->code));
}

static void op_negative_offset_extended(struct cfi_program *p)
{
	uint64_t reg = reader_uleb128(&p->code);

	set_saved(p, reg, -to_signed(reader_uleb128(&p->code)));
}

static void op_restore_extended(struct cfi_program *p)
{
	restore(p, reader_uleb128(&p->code));
}

static void op_undefined(struct cfi_program *p)
{
	set_how(p, reader_uleb128(&p->code), CFI_UNDEFINED);
}

static void op_same_value(struct cfi_program *p)
{
	set_how(p, reader_uleb128(&p->code), CFI_SAME);
}

static void op_register(struct cfi_program *p)
{
	uint64_t reg = reader_uleb128(&p->code);

	reader_uleb128(&p->code);
	set_how(p, reg, CFI_OTHER);
}

/* DW_CFA_val_offset and _sf: both operands are LEB128 numbers of one shape. */
static void op_val_offset(struct cfi_program *p)
{
	uint64_t reg = reader_uleb128(&p->code);
	int64_t factored = reader_sleb128(&p->code);

	set_how(p, reg, reg == UNWIND_RSP && !factored ? CFI_DEFAULT : CFI_OTHER);
}

static void op_remember_state(struct cfi_program *p)
{
	if (p->depth == CFI_REMEMBERED_MAX)
		p->bad = true;
	else
		p->remembered[p->depth++] = p->state;
}

static void op_restore_state(struct cfi_program *p)
{
	if (!p->depth)
		p->bad = true;
	else
		p->state = p->remembered[--p->depth];
}

static void op_def_cfa(struct cfi_program *p)
{
	uint64_t reg = reader_uleb128(&p->code);

	set_cfa(p, reg, to_signed(reader_uleb128(&p->code)));
}

static void op_def_cfa_sf(struct cfi_program *p)
{
	uint64_t reg = reader_uleb128(&p->code);

	set_cfa(p, reg, factored_sleb128(p));
}

/* What follows changes a CFA that is a register and an offset; any other is lost. */
static void change_cfa(struct cfi_program *p, uint64_t reg, int64_t offset)
{
	if (p->state.cfa.how == CFI_CFA_REG)
		set_cfa(p, reg, offset);
	else
		p->state.cfa = (struct cfi_cfa){.how = CFI_CFA_OTHER};
}

static void op_def_cfa_register(struct cfi_program *p)
{
	change_cfa(p, reader_uleb128(&p->code), p->state.cfa.offset);
}

static void op_def_cfa_offset(struct cfi_program *p)
{
	change_cfa(p, p->state.cfa.reg, to_signed(reader_uleb128(&p->code)));
}

static void op_def_cfa_offset_sf(struct cfi_program *p)
{
	change_cfa(p, p->state.cfa.reg, factored_sleb128(p));
}

static struct byte_reader block(struct cfi_program *p)
{
	return reader_take(&p->code, reader_uleb128(&p->code));
}

static void op_def_cfa_expression(struct cfi_program *p)
{
	p->state.cfa = cfi_expression_cfa(block(p));
}

static void op_expression(struct cfi_program *p)
{
	uint64_t reg = reader_uleb128(&p->code);

	set_where(p, reg, cfi_expression_where(block(p)));
}

static void op_val_expression(struct cfi_program *p)
{
	uint64_t reg = reader_uleb128(&p->code);

	block(p);
	set_how(p, reg, CFI_OTHER);
}

/* Says how many bytes of arguments were pushed; the CFA's offset knows already. */
static void op_args_size(struct cfi_program *p)
{
	reader_uleb128(&p->code);
}

static void (*const ops[64])(struct cfi_program *) = {
	[DW_CFA_nop] = op_nop,
	[DW_CFA_set_loc] = op_set_loc,
	[DW_CFA_advance_loc1] = op_advance_loc1,
	[DW_CFA_advance_loc2] = op_advance_loc2,
	[DW_CFA_advance_loc4] = op_advance_loc4,
	[DW_CFA_offset_extended] = op_offset_extended,
	[DW_CFA_restore_extended] = op_restore_extended,
	[DW_CFA_undefined] = op_undefined,
	[DW_CFA_same_value] = op_same_value,
	[DW_CFA_register] = op_register,
	[DW_CFA_remember_state] = op_remember_state,
	[DW_CFA_restore_state] = op_restore_state,
	[DW_CFA_def_cfa] = op_def_cfa,
	[DW_CFA_def_cfa_register] = op_def_cfa_register,
	[DW_CFA_def_cfa_offset] = op_def_cfa_offset,
	[DW_CFA_def_cfa_expression] = op_def_cfa_expression,
	[DW_CFA_expression] = op_expression,
	[DW_CFA_offset_extended_sf] = op_offset_extended_sf,
	[DW_CFA_def_cfa_sf] = op_def_cfa_sf,
	[DW_CFA_def_cfa_offset_sf] = op_def_cfa_offset_sf,
	[DW_CFA_val_offset] = op_val_offset,
	[DW_CFA_val_offset_sf] = op_val_offset,
	[DW_CFA_val_expression] = op_val_expression,
	[DW_CFA_MIPS_advance_loc8] = op_advance_loc8,
	[DW_CFA_GNU_args_size] = op_args_size,
	[DW_CFA_GNU_negative_offset_extended] = op_negative_offset_extended,
};

/* Returns whether it was understood and entirely there. */
static bool step(struct cfi_program *p)
{
	uint8_t byte = reader_u8(&p->code), operand = byte & OPERAND_MASK;

	switch (byte & ~OPERAND_MASK) {
	case DW_CFA_advance_loc:
		advance(p, operand);
		break;
	case DW_CFA_offset:
		set_saved(p, operand, to_signed(reader_uleb128(&p->code)));
		break;
	case DW_CFA_restore:
		restore(p, operand);
		break;
	default:
		if (!ops[operand])
			return false;
		ops[operand](p);
	}
	return !p->bad && !p->code.bad;
}

void cfi_program_begin(struct cfi_program *p, struct byte_reader code, uint64_t code_vaddr,
		       const struct cfi_factors *factors, const struct cfi_state *initial,
		       uint64_t start, uint64_t end)
{
	p->code = code;
	p->code_start = code.at;
	p->code_vaddr = code_vaddr;
	p->factors = factors;
	p->initial = initial;
	p->state = *initial;
	p->depth = 0;
	p->bad = false;
	p->row_start = p->row_end = p->at = start;
	p->end = end;
}

int cfi_program_next(struct cfi_program *p)
{
	p->row_start = p->row_end;
	if (p->row_start >= p->end)
		return 0;
	while (p->at == p->row_start && reader_left(&p->code)) {
		if (!step(p))
			return -EINVAL;
	}
	p->row_end = p->at == p->row_start || p->at > p->end ? p->end : p->at;
	return 1;
}
