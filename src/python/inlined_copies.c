/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The address is looked for first, as four bytes that hold it or their distance to it, for
 * that is a quick scan; then the instructions around are decoded. They are
 *	cmp $f, ...			in programs at a fixed place, or
 *	lea f(%rip), %r; cmp %r, ...	in libraries,
 * and behind them a branch that leads to an indirect call when the two differ. Without
 * that it is only somebody who asks which allocator is in use: _PyMem_PymallocEnabled()
 * in Objects/obmalloc.c, which decides about statistics.
 */
#include "python/inlined_copies.h"

#include <stdbool.h>
#include <string.h>

#include <Zydis/Zydis.h>

#define BACK_MAX 11  /* bytes of an instruction before its four bytes of address */
#define AHEAD_MAX 24 /* instructions that are looked at from one place */

struct scan {
	ZydisDecoder decoder;
	const uint8_t *text;
	size_t bytes;
};

struct insn {
	ZydisDecodedInstruction head;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
};

static bool decode(const struct scan *s, size_t at, struct insn *out)
{
	return at < s->bytes &&
	       ZYAN_SUCCESS(ZydisDecoderDecodeFull(&s->decoder, s->text + at, s->bytes - at,
						   &out->head, out->ops));
}

static ZydisRegister whole(const ZydisDecodedOperand *op)
{
	if (op->type != ZYDIS_OPERAND_TYPE_REGISTER)
		return ZYDIS_REGISTER_NONE;
	return ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, op->reg.value);
}

static bool writes(const struct insn *insn, ZydisRegister reg)
{
	uint8_t i;

	for (i = 0; i < insn->head.operand_count; i++) {
		if ((insn->ops[i].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) &&
		    whole(&insn->ops[i]) == reg)
			return true;
	}
	return false;
}

static bool jumps_to(const struct scan *s, size_t at, const struct insn *insn, size_t *target)
{
	const ZydisDecodedOperand *op = &insn->ops[0];
	ZyanU64 to;

	if (op->type != ZYDIS_OPERAND_TYPE_IMMEDIATE || !op->imm.is_relative ||
	    !ZYAN_SUCCESS(ZydisCalcAbsoluteAddress(&insn->head, op, at, &to)) || to >= s->bytes)
		return false;
	*target = (size_t)to;
	return true;
}

static bool calls_indirectly(const struct scan *s, size_t at)
{
	struct insn insn;
	unsigned int i;

	for (i = 0; i < AHEAD_MAX && decode(s, at, &insn); i++) {
		switch (insn.head.meta.category) {
		case ZYDIS_CATEGORY_CALL:
			return insn.ops[0].type != ZYDIS_OPERAND_TYPE_IMMEDIATE;
		case ZYDIS_CATEGORY_UNCOND_BR:
			if (!jumps_to(s, at, &insn, &at))
				return insn.ops[0].type != ZYDIS_OPERAND_TYPE_IMMEDIATE;
			continue;
		case ZYDIS_CATEGORY_RET:
			return false;
		default:
			at += insn.head.length;
		}
	}
	return false;
}

/* Behind a compare, at @at: whether there is an indirect call if it was not equal. */
static bool calls_otherwise(const struct scan *s, size_t at)
{
	struct insn insn;
	unsigned int i;
	size_t target;

	for (i = 0; i < AHEAD_MAX && decode(s, at, &insn); i++) {
		if (insn.head.mnemonic == ZYDIS_MNEMONIC_JZ)
			return calls_indirectly(s, at + insn.head.length);
		if (insn.head.mnemonic == ZYDIS_MNEMONIC_JNZ)
			return jumps_to(s, at, &insn, &target) && calls_indirectly(s, target);
		if (insn.head.meta.category != ZYDIS_CATEGORY_DATAXFER &&
		    insn.head.mnemonic != ZYDIS_MNEMONIC_LEA)
			return false;
		at += insn.head.length;
	}
	return false;
}

/* Whether @reg is compared soon, from @at on, for that purpose. Jumps are not followed. */
static bool compared_soon(const struct scan *s, size_t at, ZydisRegister reg)
{
	struct insn insn;
	unsigned int i;

	for (i = 0; i < AHEAD_MAX && decode(s, at, &insn); i++) {
		at += insn.head.length;
		if (insn.head.mnemonic == ZYDIS_MNEMONIC_CMP &&
		    (whole(&insn.ops[0]) == reg || whole(&insn.ops[1]) == reg))
			return calls_otherwise(s, at);
		if (insn.head.mnemonic == ZYDIS_MNEMONIC_RET || writes(&insn, reg))
			return false;
	}
	return false;
}

/* The four bytes at @at are an immediate operand of what begins @back before. */
static bool is_immediate(const struct insn *insn, size_t back)
{
	return insn->head.length == back + 4 && insn->head.raw.imm[0].size == 32 &&
	       insn->head.raw.imm[0].offset == back;
}

static bool compares_immediate(const struct scan *s, size_t at)
{
	struct insn insn;
	size_t back;

	for (back = 1; back <= BACK_MAX && back <= at; back++) {
		if (!decode(s, at - back, &insn) || !is_immediate(&insn, back))
			continue;
		if (insn.head.mnemonic == ZYDIS_MNEMONIC_CMP && insn.head.operand_width == 64)
			return calls_otherwise(s, at + 4);
		if (insn.head.mnemonic == ZYDIS_MNEMONIC_MOV &&
		    whole(&insn.ops[0]) != ZYDIS_REGISTER_NONE &&
		    compared_soon(s, at + 4, whole(&insn.ops[0])))
			return true;
	}
	return false;
}

static bool compares_relative(const struct scan *s, size_t at)
{
	struct insn insn;

	return at >= 3 && decode(s, at - 3, &insn) && insn.head.length == 7 &&
	       insn.head.mnemonic == ZYDIS_MNEMONIC_LEA &&
	       insn.ops[1].mem.base == ZYDIS_REGISTER_RIP &&
	       compared_soon(s, at + 4, whole(&insn.ops[0]));
}

static bool is_one(const struct compared_function *functions, size_t count, uint64_t address)
{
	size_t i;

	for (i = 0; i < count; i++) {
		if (functions[i].address == address)
			return true;
	}
	return false;
}

/* A function may be given more than once. */
static void add_compare(struct compared_function *functions, size_t count, uint64_t address)
{
	size_t i;

	for (i = 0; i < count; i++)
		functions[i].compares += functions[i].address == address;
}

static void bounds(const struct compared_function *functions, size_t count, uint64_t *low,
		   uint64_t *high)
{
	size_t i;

	*low = UINT64_MAX;
	*high = 0;
	for (i = 0; i < count; i++) {
		if (functions[i].address < *low)
			*low = functions[i].address;
		if (functions[i].address > *high)
			*high = functions[i].address;
	}
}

static uint64_t distance_at(const struct scan *s, size_t at)
{
	int32_t value;

	memcpy(&value, s->text + at, sizeof(value));
	return (uint64_t)(int64_t)value;
}

void inlined_copies_count(const uint8_t *text, size_t bytes, uint64_t text_address,
			  struct compared_function *functions, size_t count)
{
	struct scan s = {.text = text, .bytes = bytes};
	uint64_t low, high, value, target;
	size_t i, at;

	for (i = 0; i < count; i++)
		functions[i].compares = 0;
	if (!ZYAN_SUCCESS(
		    ZydisDecoderInit(&s.decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64)))
		return;
	bounds(functions, count, &low, &high);
	for (at = 0; at + 4 <= bytes; at++) {
		value = distance_at(&s, at);
		target = text_address + at + 4 + value;
		if (value >= low && value <= high && is_one(functions, count, value) &&
		    compares_immediate(&s, at))
			add_compare(functions, count, value);
		if (target >= low && target <= high && is_one(functions, count, target) &&
		    compares_relative(&s, at))
			add_compare(functions, count, target);
	}
}
