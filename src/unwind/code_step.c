/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "unwind/code_step.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <Zydis/Zydis.h>

#define RSP_MAX (1 << 30) /* no frame is larger; sums of two stay in 32 bits */

struct code_decoder {
	ZydisDecoder zydis;
	ZydisDecodedInstruction head;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	uint64_t vaddr;
};

int code_decoder_new(struct code_decoder **out)
{
	struct code_decoder *d = calloc(1, sizeof(*d));

	if (!d)
		return -ENOMEM;
	if (!ZYAN_SUCCESS(ZydisDecoderInit(&d->zydis, ZYDIS_MACHINE_MODE_LONG_64,
					   ZYDIS_STACK_WIDTH_64))) {
		free(d);
		return -ENOMEM;
	}
	*out = d;
	return 0;
}

void code_decoder_free(struct code_decoder *d)
{
	free(d);
}

static ZydisRegister whole(ZydisRegister reg)
{
	return ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg);
}

static bool is_reg(const ZydisDecodedOperand *op, ZydisRegister reg)
{
	return op->type == ZYDIS_OPERAND_TYPE_REGISTER && op->reg.value == reg;
}

static bool is_imm(const ZydisDecodedOperand *op)
{
	return op->type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
}

/* RBP, RBX and RSP by their own numbers, all others as RAX. */
static enum unwind_reg followed(ZydisRegister reg)
{
	switch (whole(reg)) {
	case ZYDIS_REGISTER_RSP:
		return UNWIND_RSP;
	case ZYDIS_REGISTER_RBP:
		return UNWIND_RBP;
	case ZYDIS_REGISTER_RBX:
		return UNWIND_RBX;
	default:
		return UNWIND_RAX;
	}
}

static enum unwind_reg followed_op(const ZydisDecodedOperand *op)
{
	return op->type == ZYDIS_OPERAND_TYPE_REGISTER ? followed(op->reg.value) : UNWIND_RAX;
}

static bool knows_rsp(const struct code_state *s)
{
	return s->rsp > -RSP_MAX && s->rsp < RSP_MAX;
}

static void set_rsp(struct code_state *s, int64_t rsp)
{
	s->rsp = rsp > -RSP_MAX && rsp < RSP_MAX ? (int32_t)rsp : CODE_RSP_LOST;
}

/* The distance below the CFA of [rsp + x] or [rbp + x]. */
static bool place(const struct code_state *s, const ZydisDecodedOperand *op, int64_t *offset)
{
	if (op->type != ZYDIS_OPERAND_TYPE_MEMORY || op->mem.index != ZYDIS_REGISTER_NONE ||
	    (op->mem.segment != ZYDIS_REGISTER_SS && op->mem.segment != ZYDIS_REGISTER_DS))
		return false;
	if (op->mem.base == ZYDIS_REGISTER_RSP && knows_rsp(s))
		*offset = s->rsp - op->mem.disp.value;
	else if (op->mem.base == ZYDIS_REGISTER_RBP && s->frame != CODE_FRAME_NONE)
		*offset = s->frame - op->mem.disp.value;
	else
		return false;
	return *offset > -RSP_MAX && *offset < RSP_MAX;
}

/* rbp = CFA - @offset */
static void set_frame(struct code_state *s, int64_t offset)
{
	code_state_write(s, UNWIND_RBP);
	if (offset > INT16_MIN && offset <= INT16_MAX)
		s->frame = (int16_t)offset;
}

static bool do_stack_pointer(struct code_decoder *d, struct code_state *s)
{
	const ZydisDecodedOperand *op = d->ops;
	int64_t offset;

	switch (d->head.mnemonic) {
	case ZYDIS_MNEMONIC_ADD:
	case ZYDIS_MNEMONIC_SUB:
		if (!is_imm(&op[1]) || !knows_rsp(s))
			return false;
		offset = op[1].imm.value.s;
		set_rsp(s,
			d->head.mnemonic == ZYDIS_MNEMONIC_SUB ? s->rsp + offset : s->rsp - offset);
		return true;
	case ZYDIS_MNEMONIC_LEA:
		if (!place(s, &op[1], &offset))
			return false;
		set_rsp(s, offset);
		return true;
	case ZYDIS_MNEMONIC_MOV:
		if (!is_reg(&op[1], ZYDIS_REGISTER_RBP) || s->frame == CODE_FRAME_NONE)
			return false;
		set_rsp(s, s->frame);
		return true;
	default:
		return false;
	}
}

static bool zeroes(const struct code_decoder *d)
{
	const ZydisDecodedOperand *op = d->ops;

	if (d->head.mnemonic == ZYDIS_MNEMONIC_XOR)
		return op[1].type == ZYDIS_OPERAND_TYPE_REGISTER &&
		       op[0].reg.value == op[1].reg.value;
	return d->head.mnemonic == ZYDIS_MNEMONIC_MOV && is_imm(&op[1]) && !op[1].imm.value.u;
}

static bool do_frame_pointer(struct code_decoder *d, struct code_state *s)
{
	const ZydisDecodedOperand *op = d->ops;
	int64_t offset;

	/* So the ABI (3.4.1) wants the outermost frame marked. */
	if (zeroes(d) && (!s->rbp || s->rbp == CODE_VALUE_LOST)) {
		s->rsp = CODE_RSP_END;
		return true;
	}
	if (d->head.mnemonic == ZYDIS_MNEMONIC_MOV && is_reg(&op[1], ZYDIS_REGISTER_RSP) &&
	    knows_rsp(s)) {
		set_frame(s, s->rsp);
		return true;
	}
	if (d->head.mnemonic == ZYDIS_MNEMONIC_LEA && place(s, &op[1], &offset)) {
		set_frame(s, offset);
		return true;
	}
	return false;
}

/* Moves of the two registers from and to the frame. */
static bool do_move(struct code_decoder *d, struct code_state *s)
{
	const ZydisDecodedOperand *op = d->ops;
	enum unwind_reg reg;
	int64_t offset;

	if (d->head.mnemonic != ZYDIS_MNEMONIC_MOV || d->head.operand_width != 64)
		return false;
	reg = followed_op(&op[1]);
	if (reg != UNWIND_RAX && place(s, &op[0], &offset)) {
		code_state_store(s, reg, (int32_t)offset);
		return true;
	}
	reg = followed_op(&op[0]);
	if (reg != UNWIND_RAX && reg != UNWIND_RSP && place(s, &op[1], &offset)) {
		code_state_load(s, reg, (int32_t)offset);
		return true;
	}
	return false;
}

static bool do_push_pop(struct code_decoder *d, struct code_state *s)
{
	bool whole_word = d->head.operand_width == 64;

	switch (d->head.mnemonic) {
	case ZYDIS_MNEMONIC_PUSH:
	case ZYDIS_MNEMONIC_PUSHFQ:
		if (whole_word)
			code_state_push(s, followed_op(&d->ops[0]));
		else
			code_state_write(s, UNWIND_RSP);
		return true;
	case ZYDIS_MNEMONIC_POP:
	case ZYDIS_MNEMONIC_POPFQ:
		code_state_pop(s, followed_op(&d->ops[0]));
		if (!whole_word || followed_op(&d->ops[0]) == UNWIND_RSP)
			code_state_write(s, UNWIND_RSP);
		return true;
	case ZYDIS_MNEMONIC_LEAVE:
		s->rsp = s->frame == CODE_FRAME_NONE ? CODE_RSP_LOST : s->frame;
		code_state_pop(s, UNWIND_RBP);
		return true;
	default:
		return false;
	}
}

/* All that it writes, when nothing better is known of it. */
static void do_writes(struct code_decoder *d, struct code_state *s)
{
	uint8_t i;

	for (i = 0; i < d->head.operand_count; i++) {
		if (d->ops[i].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
			code_state_write(s, followed_op(&d->ops[i]));
	}
}

static bool borrows_frame(const struct code_decoder *d, const struct code_state *s)
{
	bool back =
		d->head.mnemonic == ZYDIS_MNEMONIC_LEAVE ||
		(d->head.mnemonic == ZYDIS_MNEMONIC_MOV && is_reg(&d->ops[0], ZYDIS_REGISTER_RSP) &&
		 is_reg(&d->ops[1], ZYDIS_REGISTER_RBP));

	return back && knows_rsp(s) && s->frame == CODE_FRAME_NONE && !s->rbp;
}

static void change(struct code_decoder *d, struct code_state *s)
{
	enum unwind_reg reg = followed_op(&d->ops[0]);
	bool written = d->ops[0].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;

	/* The outermost frame stays it whatever happens. */
	if (s->rsp == CODE_RSP_END || do_push_pop(d, s) || do_move(d, s))
		return;
	if (written && reg == UNWIND_RSP && do_stack_pointer(d, s))
		return;
	if (written && reg == UNWIND_RBP && do_frame_pointer(d, s))
		return;
	do_writes(d, s);
}

/* Whether it may change a state, whatever the state is. */
static bool may_change(const struct code_decoder *d)
{
	uint8_t i;

	for (i = 0; i < d->head.operand_count; i++) {
		const ZydisDecodedOperand *op = &d->ops[i];

		if (followed_op(op) != UNWIND_RAX &&
		    (op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
			return true;
	}
	return d->head.mnemonic == ZYDIS_MNEMONIC_MOV && followed_op(&d->ops[1]) != UNWIND_RAX &&
	       d->ops[0].type == ZYDIS_OPERAND_TYPE_MEMORY;
}

static bool rip_address(struct code_decoder *d, const ZydisDecodedOperand *op, uint64_t *out)
{
	return op->type == ZYDIS_OPERAND_TYPE_MEMORY && op->mem.base == ZYDIS_REGISTER_RIP &&
	       ZYAN_SUCCESS(ZydisCalcAbsoluteAddress(&d->head, op, d->vaddr, out));
}

/* Of a general register; -1 for others. */
static int number_of(ZydisRegister reg)
{
	reg = whole(reg);
	return ZydisRegisterGetClass(reg) == ZYDIS_REGCLASS_GPR64 ? ZydisRegisterGetId(reg) : -1;
}

/* Forgets what the registers that it writes pointed to. False if they are many. */
static bool forget_written(struct code_decoder *d, struct code_switch *t, int8_t *wrote)
{
	int n, count = 0;
	uint8_t i;

	*wrote = -1;
	for (i = 0; i < d->head.operand_count; i++) {
		const ZydisDecodedOperand *op = &d->ops[i];

		if (op->type != ZYDIS_OPERAND_TYPE_REGISTER ||
		    !(op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
			continue;
		n = number_of(op->reg.value);
		if (n < 0)
			continue;
		t->pointer[n] = 0;
		*wrote = (int8_t)n;
		count++;
	}
	return count < 2;
}

static void follow_offsets(const ZydisDecodedOperand *op, struct code_switch *t)
{
	int n;

	t->offsets = 0;
	if (op->type != ZYDIS_OPERAND_TYPE_MEMORY || op->mem.scale != 4 || op->mem.disp.value)
		return;
	n = number_of(op->mem.base);
	if (n >= 0)
		t->offsets = t->pointer[n];
}

static void follow_count(const ZydisDecodedOperand *op, struct code_switch *t)
{
	t->count = 0;
	if (is_imm(&op[1]) && op[0].type == ZYDIS_OPERAND_TYPE_REGISTER && op[1].imm.value.s >= 0 &&
	    op[1].imm.value.s < CODE_SWITCH_MAX)
		t->count = (uint32_t)op[1].imm.value.s + 1;
}

/*
 * cmp $max, %b; ja default; lea table(%rip), %a; movslq (%a, %b, 4), %b; add %a, %b; jmp *%b
 * Whether it is one of these, or makes an address in some other way.
 */
static bool follow_table(struct code_decoder *d, struct code_switch *t, struct code_step *out)
{
	const ZydisDecodedOperand *op = d->ops;
	bool few;
	int n;

	if (d->head.mnemonic == ZYDIS_MNEMONIC_CMP)
		follow_count(op, t);
	if (d->head.mnemonic == ZYDIS_MNEMONIC_MOVSXD)
		follow_offsets(&op[1], t);
	few = forget_written(d, t, &out->wrote);
	n = op[0].type == ZYDIS_OPERAND_TYPE_REGISTER ? number_of(op[0].reg.value) : -1;
	if (d->head.mnemonic == ZYDIS_MNEMONIC_LEA && n >= 0 &&
	    rip_address(d, &op[1], &out->pointer))
		t->pointer[n] = out->pointer;
	else if (d->head.mnemonic == ZYDIS_MNEMONIC_MOV && n >= 0 && is_imm(&op[1]))
		out->pointer = op[1].imm.value.u;
	return !few || out->pointer || d->head.mnemonic == ZYDIS_MNEMONIC_CMP ||
	       d->head.mnemonic == ZYDIS_MNEMONIC_MOVSXD;
}

static bool is_trap(const struct code_decoder *d)
{
	switch (d->head.mnemonic) {
	case ZYDIS_MNEMONIC_HLT:
	case ZYDIS_MNEMONIC_INT3:
	case ZYDIS_MNEMONIC_UD0:
	case ZYDIS_MNEMONIC_UD1:
	case ZYDIS_MNEMONIC_UD2:
		return true;
	default:
		return false;
	}
}

/* A direct target, or the word in memory that holds a call's. */
static void find_target(struct code_decoder *d, struct code_step *out)
{
	const ZydisDecodedOperand *op = &d->ops[0];

	if (is_imm(op) && op->imm.is_relative)
		out->has_target = ZYAN_SUCCESS(
			ZydisCalcAbsoluteAddress(&d->head, op, d->vaddr, &out->target));
	else if (out->flow == CODE_CALL)
		out->has_target = rip_address(d, op, &out->target);
}

static void find_absolute_table(struct code_decoder *d, struct code_switch *t)
{
	const ZydisDecodedOperand *op = &d->ops[0];

	t->addresses = 0;
	if (op->type != ZYDIS_OPERAND_TYPE_MEMORY)
		return;
	t->offsets = 0;
	if (op->mem.base == ZYDIS_REGISTER_NONE && op->mem.scale == 8 && op->mem.disp.value > 0)
		t->addresses = (uint64_t)op->mem.disp.value;
}

static enum code_step_flow flow_of(const struct code_decoder *d)
{
	switch (d->head.meta.category) {
	case ZYDIS_CATEGORY_CALL:
		return d->head.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR ? CODE_STOP : CODE_CALL;
	case ZYDIS_CATEGORY_COND_BR:
		return CODE_BRANCH;
	case ZYDIS_CATEGORY_RET:
	case ZYDIS_CATEGORY_SYSRET:
		return d->head.mnemonic == ZYDIS_MNEMONIC_RET ? CODE_RETURN : CODE_STOP;
	case ZYDIS_CATEGORY_UNCOND_BR:
		if (d->head.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
			return CODE_STOP;
		return is_imm(&d->ops[0]) ? CODE_JUMP : CODE_LEAVE;
	default:
		if (d->head.mnemonic == ZYDIS_MNEMONIC_XBEGIN)
			return CODE_BRANCH;
		return is_trap(d) ? CODE_STOP : CODE_NEXT;
	}
}

bool code_step(struct code_decoder *d, const uint8_t *code, size_t bytes, uint64_t vaddr,
	       struct code_state *state, struct code_switch *table, struct code_step *out)
{
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&d->zydis, code, bytes, &d->head, d->ops)))
		return false;
	d->vaddr = vaddr;
	memset(out, 0, sizeof(*out));
	out->length = d->head.length;
	out->flow = (uint8_t)flow_of(d);
	out->trap = is_trap(d);
	out->nop = d->head.mnemonic == ZYDIS_MNEMONIC_NOP ||
		   (d->head.mnemonic == ZYDIS_MNEMONIC_XCHG && d->head.length == 2 &&
		    code[0] == 0x66 && code[1] == 0x90);
	if (out->flow != CODE_NEXT) {
		find_target(d, out);
		if (out->flow == CODE_LEAVE)
			find_absolute_table(d, table);
		return true;
	}
	out->plain = !follow_table(d, table, out) && !may_change(d);
	if (!out->plain) {
		out->borrows = borrows_frame(d, state);
		change(d, state);
	}
	return true;
}
