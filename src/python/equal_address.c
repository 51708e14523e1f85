/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An equal address is one where a call begins and does just what it would do at the
 * function: no-operations that run into it, a jump to it, or what is behind its
 * endbr64 (Linux has no indirect branch tracking in user space that would miss it).
 *
 * x86 instructions can be read from any byte on, and what the processor does from an
 * address depends on nothing before it. Still only starts of instructions are taken as
 * the code before them has it: a breakpoint that somebody sets there, on the start of
 * one, must not lie in the middle of ours. Where instructions start is found by decoding
 * from many places some way back. Wherever one begins, decoding falls into step after a
 * few instructions; if all agree on an address, it is one.
 */
#include "python/equal_address.h"

#include <string.h>

#include <Zydis/Zydis.h>

#include "python/alloc_tables.h"

#define PADDING_MAX 31 /* bytes of no-ops before a function that are looked at */
#define SYNC_BYTES 192 /* from where decoding begins before an address */
#define SYNC_STARTS 16 /* from how many places */
#define ENDBR64_BYTES 4

static const uint8_t endbr64[ENDBR64_BYTES] = {0xf3, 0x0f, 0x1e, 0xfa};

struct code {
	ZydisDecoder decoder;
	const uint8_t *bytes;
	size_t count;
	uint64_t address;
};

static bool code_init(struct code *c, const uint8_t *text, size_t bytes, uint64_t text_address)
{
	c->bytes = text;
	c->count = bytes;
	c->address = text_address;
	return ZYAN_SUCCESS(
		ZydisDecoderInit(&c->decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64));
}

static bool code_decode(const struct code *c, size_t at, ZydisDecodedInstruction *out)
{
	return at < c->count && ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(
					&c->decoder, NULL, c->bytes + at, c->count - at, out));
}

/* 66 90 is XCHG by its name; 0f 1f is the NOP that takes an operand, and never reads it. */
static bool is_nop(const struct code *c, size_t at, const ZydisDecodedInstruction *insn)
{
	if (insn->mnemonic == ZYDIS_MNEMONIC_NOP)
		return insn->opcode == 0x90 || insn->opcode == 0x1f;
	return insn->length == 2 && c->bytes[at] == 0x66 && c->bytes[at + 1] == 0x90;
}

/* Whether decoding from @from on comes by @at. */
static bool passes(const struct code *c, size_t from, size_t at)
{
	ZydisDecodedInstruction insn;

	while (from < at)
		from += code_decode(c, from, &insn) ? insn.length : 1;
	return from == at;
}

static bool starts_instruction(const struct code *c, size_t at)
{
	size_t i;

	if (at < SYNC_BYTES + SYNC_STARTS)
		return passes(c, 0, at);
	for (i = 0; i < SYNC_STARTS; i++) {
		if (!passes(c, at - SYNC_BYTES - i, at))
			return false;
	}
	return true;
}

bool text_starts_instruction(const uint8_t *text, size_t bytes, uint64_t text_address,
			     uint64_t address)
{
	struct code c;

	return code_init(&c, text, bytes, text_address) && address >= text_address &&
	       address - text_address < bytes && starts_instruction(&c, address - text_address);
}

/* How many bytes of the two words differ: with one, a store can not be seen half done. */
static unsigned int bytes_that_differ(uint64_t a, uint64_t b)
{
	uint64_t x = a ^ b;
	unsigned int n = 0;

	for (; x; x >>= 8)
		n += (x & 0xff) != 0;
	return n;
}

/* Whether what lies from @from to @to are no-ops, whole ones. */
static bool all_nops(const struct code *c, size_t from, size_t to)
{
	ZydisDecodedInstruction insn;

	while (from < to) {
		if (!code_decode(c, from, &insn) || !is_nop(c, from, &insn))
			return false;
		from += insn.length;
	}
	return from == to;
}

static bool has_endbr64(const struct code *c, size_t at)
{
	return at <= c->count && c->count - at > ENDBR64_BYTES &&
	       !memcmp(c->bytes + at, endbr64, ENDBR64_BYTES);
}

/* Where an unconditional direct jump at @at leads to. */
static bool jump_target(const struct code *c, size_t at, uint64_t *target)
{
	int32_t distance;

	if (at + 2 <= c->count && c->bytes[at] == 0xeb) {
		*target = c->address + at + 2 + (uint64_t)(int64_t)(int8_t)c->bytes[at + 1];
		return true;
	}
	if (at + 5 > c->count || c->bytes[at] != 0xe9)
		return false;
	memcpy(&distance, c->bytes + at + 1, sizeof(distance));
	*target = c->address + at + 5 + (uint64_t)(int64_t)distance;
	return true;
}

/* Behind the no-ops at @at; 0 if they do not end. */
static uint64_t behind_nops(const struct code *c, size_t at)
{
	ZydisDecodedInstruction insn;
	size_t start = at;

	while (at - start <= PADDING_MAX) {
		if (!code_decode(c, at, &insn))
			return 0;
		if (!is_nop(c, at, &insn))
			return c->address + at;
		at += insn.length;
	}
	return 0;
}

/* The function that a call to @at gets into, in one of the ways that are known here. */
static uint64_t leads_to(const struct code *c, size_t at)
{
	uint64_t target;

	if (jump_target(c, at, &target)) {
		if (target >= c->address && target - c->address < c->count)
			return target;
		return c->address + at;
	}
	if (at >= ENDBR64_BYTES && has_endbr64(c, at - ENDBR64_BYTES))
		return c->address + at - ENDBR64_BYTES;
	target = behind_nops(c, at);
	return target ? target : c->address + at;
}

struct choice {
	uint64_t function, best; /* best: 0 is none */
	unsigned int rank;
};

/* Instructions that kernels emulate, so that a probe there costs a tenth: nop, push of a
 * register, jmp (arch/x86/kernel/uprobes.c). */
static bool is_cheap(const struct code *c, size_t at)
{
	uint8_t byte = c->bytes[at];

	if (byte == 0x41 && at + 1 < c->count)
		byte = c->bytes[at + 1];
	return byte == 0x90 || (byte & 0xf8) == 0x50 || byte == 0xe9 || byte == 0xeb;
}

/* The first of several as good is kept. What would not be known again is none. */
static void choice_offer(struct choice *choice, const struct code *c, size_t at)
{
	uint64_t address = c->address + at;
	unsigned int rank = bytes_that_differ(address, choice->function) +
			    (is_cheap(c, at) ? 0 : sizeof(uint64_t));

	if ((choice->best && rank >= choice->rank) || leads_to(c, at) != choice->function)
		return;
	choice->best = address;
	choice->rank = rank;
}

static void offer_padding(const struct code *c, size_t at, struct choice *choice)
{
	size_t back;

	for (back = 1; back <= PADDING_MAX && back <= at; back++) {
		if (all_nops(c, at - back, at) && starts_instruction(c, at - back))
			choice_offer(choice, c, at - back);
	}
}

static void offer_jumps(const struct code *c, struct choice *choice)
{
	uint64_t target;
	size_t at;

	for (at = 0; at < c->count; at++) {
		if (jump_target(c, at, &target) && target == choice->function &&
		    starts_instruction(c, at))
			choice_offer(choice, c, at);
	}
}

uint64_t equal_address(const uint8_t *text, size_t bytes, uint64_t text_address, uint64_t function)
{
	struct choice choice = {.function = function};
	uint64_t at = function - text_address;
	struct code c;

	if (function < text_address || at >= bytes || !code_init(&c, text, bytes, text_address))
		return 0;
	offer_padding(&c, at, &choice);
	if (has_endbr64(&c, at))
		choice_offer(&choice, &c, at + ENDBR64_BYTES);
	if (!choice.best || choice.rank > 1)
		offer_jumps(&c, &choice);
	return choice.best;
}

uint64_t equal_target(const uint8_t *text, size_t bytes, uint64_t text_address, uint64_t address)
{
	struct code c;

	if (address < text_address || address - text_address >= bytes ||
	    !code_init(&c, text, bytes, text_address))
		return address;
	return leads_to(&c, address - text_address);
}
