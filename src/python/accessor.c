/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Goes through the instructions in the order they stand, as if no branch were taken, and
 * keeps which registers hold a known number. A word read from a known address is looked up
 * in the process: so an entry of the global offset table, which the dynamic linker filled
 * in, needs no relocation read. Thread-local variables of libraries are reached in the
 * ways of "ELF Handling For Thread-Local Storage" (Drepper): by __tls_get_addr() with the
 * address of {module, offset}, by a descriptor {function, argument}, or (initial exec) by
 * an offset from the fs base.
 */
#include "python/accessor.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include <Zydis/Zydis.h>

#include "python/binary.h"
#include "target/memory.h"

#define CODE_BYTES_MAX 256
#define INSTRUCTIONS_MAX 64
#define JUMPS_MAX 2 /* to another function that does the work */
#define REGISTERS 16
#define FIXED_OFFSET_MAX (1 << 30) /* larger: the argument of a descriptor is a pointer */

enum value_kind {
	VALUE_UNKNOWN = 0,
	VALUE_NUMBER,
	VALUE_BLOCK,  /* in the thread's block of module `number`, at `offset` */
	VALUE_OFFSET, /* what a descriptor returned: from the fs base, or as above */
};

struct value {
	enum value_kind kind;
	uint64_t number;
	int64_t offset;
	bool fixed; /* VALUE_OFFSET */
};

struct reader {
	const struct binary *binary;
	struct accessor *out;
	ZydisDecoder decoder;
	struct value registers[REGISTERS];
	/* The present instruction. */
	ZydisDecodedInstruction head;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	uint64_t next; /* address behind it, in the process */
};

/* NULL for what is no general register. */
static struct value *value_of(struct reader *r, ZydisRegister reg)
{
	ZydisRegister whole = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg);

	if (whole < ZYDIS_REGISTER_RAX || whole > ZYDIS_REGISTER_R15)
		return NULL;
	return &r->registers[whole - ZYDIS_REGISTER_RAX];
}

static struct value number(uint64_t n)
{
	return (struct value){.kind = VALUE_NUMBER, .number = n};
}

static void touch(struct accessor *a, uint64_t address)
{
	for (size_t i = 0; i < a->touched_count; i++) {
		if (a->touched[i] == address)
			return;
	}
	if (a->touched_count < ACCESSOR_TOUCHED_MAX)
		a->touched[a->touched_count++] = address;
}

/* Where a memory operand is, or what lea makes of it; the segment is not in it. */
static struct value address_of(struct reader *r, const ZydisDecodedOperand *op)
{
	int64_t move = op->mem.disp.has_displacement ? op->mem.disp.value : 0;
	struct value v = {0}, *base;

	if (op->mem.index != ZYDIS_REGISTER_NONE)
		return v;
	if (op->mem.base == ZYDIS_REGISTER_NONE)
		return number((uint64_t)move);
	if (op->mem.base == ZYDIS_REGISTER_RIP)
		return number(r->next + (uint64_t)move);
	base = value_of(r, op->mem.base);
	if (!base)
		return v;
	v = *base;
	if (v.kind == VALUE_NUMBER)
		v.number += (uint64_t)move;
	else
		v.offset = (int64_t)((uint64_t)v.offset + (uint64_t)move);
	return v;
}

static void set_tls(struct accessor *a, enum accessor_tls tls, uint64_t module, int64_t offset)
{
	if (a->tls)
		return;
	a->tls = tls;
	a->tls_module = module;
	a->tls_offset = offset;
}

/* Variables lie below the fs base; above it are the thread itself and the stack guard. */
static void read_thread_local(struct reader *r, const struct value *at)
{
	if (at->kind == VALUE_NUMBER && (int64_t)at->number < 0)
		set_tls(r->out, ACCESSOR_TLS_FIXED, 0, (int64_t)at->number);
	else if (at->kind == VALUE_OFFSET && at->fixed)
		set_tls(r->out, ACCESSOR_TLS_FIXED, 0, at->offset);
	else if (at->kind == VALUE_OFFSET)
		set_tls(r->out, ACCESSOR_TLS_MODULE, at->number, at->offset);
}

/* What the instruction reads at @op. */
static struct value load(struct reader *r, const ZydisDecodedOperand *op)
{
	struct value at = address_of(r, op);
	uint64_t word;

	if (op->mem.segment == ZYDIS_REGISTER_FS) {
		read_thread_local(r, &at);
		return (struct value){0};
	}
	if (at.kind == VALUE_BLOCK)
		set_tls(r->out, ACCESSOR_TLS_MODULE, at.number, at.offset);
	if (at.kind != VALUE_NUMBER)
		return (struct value){0};
	touch(r->out, at.number);
	if (op->size != 64 || memory_read_u64(binary_pid(r->binary), at.number, &word))
		return (struct value){0};
	return number(word);
}

static struct value source(struct reader *r, const ZydisDecodedOperand *op)
{
	struct value *v;

	if (op->type == ZYDIS_OPERAND_TYPE_MEMORY)
		return r->head.mnemonic == ZYDIS_MNEMONIC_LEA ? address_of(r, op) : load(r, op);
	if (op->type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
		/* Of four bytes it may be the address of something in a program without PIE. */
		return number(op->size == 32 ? (uint32_t)op->imm.value.u : op->imm.value.u);
	}
	v = op->type == ZYDIS_OPERAND_TYPE_REGISTER ? value_of(r, op->reg.value) : NULL;
	return v ? *v : (struct value){0};
}

static bool is_move(const struct reader *r)
{
	return r->head.mnemonic == ZYDIS_MNEMONIC_MOV || r->head.mnemonic == ZYDIS_MNEMONIC_LEA;
}

/* Registers that the instruction writes hold nothing known behind it. */
static void forget_written(struct reader *r)
{
	for (int i = 0; i < r->head.operand_count; i++) {
		const ZydisDecodedOperand *op = &r->ops[i];
		struct value *v;

		if (op->type != ZYDIS_OPERAND_TYPE_REGISTER ||
		    !(op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
			continue;
		v = value_of(r, op->reg.value);
		if (v)
			*v = (struct value){0};
	}
}

static void step_move(struct reader *r)
{
	struct value v = source(r, &r->ops[1]), *to;

	if (v.kind == VALUE_NUMBER)
		touch(r->out, v.number);
	if (r->ops[0].type == ZYDIS_OPERAND_TYPE_MEMORY)
		load(r, &r->ops[0]);
	forget_written(r);
	to = r->ops[0].type == ZYDIS_OPERAND_TYPE_REGISTER ? value_of(r, r->ops[0].reg.value)
							   : NULL;
	if (to && r->ops[0].size >= 32)
		*to = v;
}

static void step_other(struct reader *r)
{
	for (int i = 0; i < r->head.operand_count_visible; i++) {
		if (r->ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
			load(r, &r->ops[i]);
	}
	forget_written(r);
}

/* struct tlsdesc in glibc's sysdeps/x86_64/dl-tlsdesc.h; musl's src/ldso/x86_64/tlsdesc.s. */
static struct value call_descriptor(struct reader *r, uint64_t at)
{
	pid_t pid = binary_pid(r->binary);
	struct value v = {.kind = VALUE_OFFSET};
	uint64_t argument, index[2];

	if (memory_read_u64(pid, at + 8, &argument))
		return (struct value){0};
	v.offset = (int64_t)argument;
	v.fixed = v.offset > -FIXED_OFFSET_MAX && v.offset < FIXED_OFFSET_MAX;
	if (v.fixed)
		return v;
	if (memory_read(pid, argument, index, sizeof(index)))
		return (struct value){0};
	v.number = index[0];
	v.offset = (int64_t)index[1];
	return v;
}

/* If it is __tls_get_addr() that is called, RDI is the address of {module, offset}; if it is
 * something else, nobody reads the "block" that it returns, or what is read proves wrong. */
static struct value call_result(struct reader *r)
{
	const struct value *argument = value_of(r, ZYDIS_REGISTER_RDI);
	const struct value *descriptor = value_of(r, ZYDIS_REGISTER_RAX);
	uint64_t index[2];

	if (r->ops[0].type == ZYDIS_OPERAND_TYPE_MEMORY &&
	    r->ops[0].mem.base == ZYDIS_REGISTER_RAX && descriptor->kind == VALUE_NUMBER)
		return call_descriptor(r, descriptor->number);
	if (argument->kind != VALUE_NUMBER ||
	    memory_read(binary_pid(r->binary), argument->number, index, sizeof(index)))
		return (struct value){0};
	return (struct value){VALUE_BLOCK, index[0], (int64_t)index[1], false};
}

static void step_call(struct reader *r)
{
	static const ZydisRegister clobbered[] = {
		ZYDIS_REGISTER_RCX, ZYDIS_REGISTER_RDX, ZYDIS_REGISTER_RSI, ZYDIS_REGISTER_RDI,
		ZYDIS_REGISTER_R8,  ZYDIS_REGISTER_R9,	ZYDIS_REGISTER_R10, ZYDIS_REGISTER_R11,
	};
	struct value result = call_result(r);

	for (size_t i = 0; i < sizeof(clobbered) / sizeof(*clobbered); i++)
		*value_of(r, clobbered[i]) = (struct value){0};
	*value_of(r, ZYDIS_REGISTER_RAX) = result;
}

/* Goes on at @address, up to a return (0) or a jump (its target, 0 if not known). */
static uint64_t read_code(struct reader *r, uint64_t address, const uint8_t *code, size_t bytes)
{
	size_t at = 0;

	for (int i = 0; i < INSTRUCTIONS_MAX && at < bytes; i++) {
		if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&r->decoder, code + at, bytes - at,
							 &r->head, r->ops)))
			return 0;
		at += r->head.length;
		r->next = address + at;
		if (r->head.mnemonic == ZYDIS_MNEMONIC_RET)
			return 0;
		if (r->head.mnemonic == ZYDIS_MNEMONIC_JMP)
			return r->ops[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE
				       ? r->next + (uint64_t)r->ops[0].imm.value.s
				       : 0;
		if (r->head.mnemonic == ZYDIS_MNEMONIC_CALL)
			step_call(r);
		else if (is_move(r))
			step_move(r);
		else
			step_other(r);
	}
	return 0;
}

/* The text is taken from the file: in the process there may be breakpoints in it. */
static size_t copy_code(const struct binary *b, uint64_t vaddr, uint8_t *code, size_t bytes)
{
	while (bytes && binary_copy(b, vaddr, code, bytes))
		bytes /= 2;
	return bytes;
}

int accessor_read(const struct binary *b, const char *function, struct accessor *out)
{
	struct accessor a = {0};
	struct reader r = {.binary = b, .out = &a};
	uint8_t code[CODE_BYTES_MAX];
	uint64_t vaddr, bytes;
	int err;

	err = binary_symbol(b, function, &vaddr, &bytes);
	if (err)
		return err;
	if (!ZYAN_SUCCESS(
		    ZydisDecoderInit(&r.decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64)))
		return -EINVAL;
	if (!bytes || bytes > sizeof(code))
		bytes = sizeof(code);
	for (int i = 0; vaddr && i <= JUMPS_MAX; i++) {
		size_t room = copy_code(b, vaddr, code, bytes);
		uint64_t address = read_code(&r, vaddr + binary_bias(b), code, room);

		vaddr = address ? address - binary_bias(b) : 0;
		bytes = sizeof(code);
	}
	*out = a;
	return 0;
}
