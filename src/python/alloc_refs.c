/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * To 3.11 a table is a static variable without a name in a stripped binary, but
 * PyObject_Malloc and the like are exported, and all that they do is to call what is in
 * it (Objects/obmalloc.c). So PyObject_Malloc refers to its word 1 (and with ctx to its
 * word 0), PyObject_Calloc to word 2, and so on: the address on which all four agree is
 * the table, however the compiler arranged the functions or what else it inlined there.
 */
#include "python/alloc_refs.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include <Zydis/Zydis.h>

#include "python/binary.h"

#define FUNCTION_BYTES_MAX 4096u
#define REFS_MAX 128u

struct refs {
	uint64_t vaddr[REFS_MAX];
	size_t count;
};

struct function {
	ZydisDecoder decoder;
	uint8_t code[FUNCTION_BYTES_MAX];
	size_t bytes, at;
	uint64_t vaddr;
};

struct insn {
	ZydisDecodedInstruction head;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	uint64_t vaddr;
};

static int function_read(const struct binary *b, const char *name, struct function *f)
{
	uint64_t bytes;
	int err;

	err = binary_symbol(b, name, &f->vaddr, &bytes);
	if (err)
		return err;
	f->bytes = bytes < FUNCTION_BYTES_MAX ? bytes : FUNCTION_BYTES_MAX;
	f->at = 0;
	if (!f->bytes || !ZYAN_SUCCESS(ZydisDecoderInit(&f->decoder, ZYDIS_MACHINE_MODE_LONG_64,
							ZYDIS_STACK_WIDTH_64)))
		return -ENOENT;
	return binary_copy(b, f->vaddr, f->code, f->bytes);
}

static bool function_next(struct function *f, struct insn *out)
{
	if (f->at >= f->bytes ||
	    !ZYAN_SUCCESS(ZydisDecoderDecodeFull(&f->decoder, f->code + f->at, f->bytes - f->at,
						 &out->head, out->ops)))
		return false;
	out->vaddr = f->vaddr + f->at;
	f->at += out->head.length;
	return true;
}

/* The address of an operand that names one; 0 for others. */
static uint64_t fixed_address(const struct insn *insn, const ZydisDecodedOperand *op)
{
	ZyanU64 address;

	if (op->type != ZYDIS_OPERAND_TYPE_MEMORY || op->mem.index != ZYDIS_REGISTER_NONE ||
	    op->mem.segment == ZYDIS_REGISTER_FS || op->mem.segment == ZYDIS_REGISTER_GS)
		return 0;
	if (op->mem.base != ZYDIS_REGISTER_RIP && op->mem.base != ZYDIS_REGISTER_NONE)
		return 0;
	if (!ZYAN_SUCCESS(ZydisCalcAbsoluteAddress(&insn->head, op, insn->vaddr, &address)))
		return 0;
	return address;
}

static bool refs_has(const struct refs *r, uint64_t vaddr)
{
	size_t i;

	for (i = 0; i < r->count; i++) {
		if (r->vaddr[i] == vaddr)
			return true;
	}
	return false;
}

static void refs_add(struct refs *r, const struct insn *insn)
{
	uint64_t vaddr;
	uint8_t i;

	for (i = 0; i < insn->head.operand_count_visible; i++) {
		vaddr = fixed_address(insn, &insn->ops[i]);
		if (vaddr && !(vaddr & 7) && !refs_has(r, vaddr) && r->count < REFS_MAX)
			r->vaddr[r->count++] = vaddr;
	}
}

static int refs_read(const struct binary *b, const char *function, struct refs *out)
{
	struct function f;
	struct insn insn;
	int err;

	out->count = 0;
	err = function_read(b, function, &f);
	if (err)
		return err;
	while (function_next(&f, &insn))
		refs_add(out, &insn);
	return 0;
}

/* 0: some function does not refer to its word in a table at @table; else 1, and 1 more for
 * each that refers to ctx too. */
static unsigned int agreement(const struct refs refs[VERBS], uint64_t table)
{
	unsigned int verb, score = 1;

	for (verb = 0; verb < VERBS; verb++) {
		if (!refs_has(&refs[verb], table + 8 + 8 * verb))
			return 0;
		score += refs_has(&refs[verb], table);
	}
	return score;
}

static bool is_among(uint64_t table, const uint64_t *found, unsigned int count)
{
	unsigned int i;

	for (i = 0; i < count; i++) {
		if (found[i] == table)
			return true;
	}
	return false;
}

/*
 * The next of @found. What is too large for pymalloc goes to the raw functions, and where
 * these are inlined the table of raw is agreed on as well; it has been found by then.
 */
static int find_agreed(const struct refs refs[VERBS], uint64_t *found, unsigned int count)
{
	unsigned int score, best = 0;
	uint64_t table;
	size_t i;

	for (i = 0; i < refs[VERB_MALLOC].count; i++) {
		table = refs[VERB_MALLOC].vaddr[i] - 8;
		score = is_among(table, found, count) ? 0 : agreement(refs, table);
		if (score && score == best)
			found[count] = 0;
		if (score > best) {
			best = score;
			found[count] = table;
		}
	}
	return best && found[count] ? 0 : -ENOENT;
}

int alloc_refs_tables(const struct binary *b, uint64_t tables[ALLOC_DOMAINS])
{
	static const char *const names[ALLOC_DOMAINS][VERBS] = {
		{"PyMem_RawMalloc", "PyMem_RawCalloc", "PyMem_RawRealloc", "PyMem_RawFree"},
		{"PyMem_Malloc", "PyMem_Calloc", "PyMem_Realloc", "PyMem_Free"},
		{"PyObject_Malloc", "PyObject_Calloc", "PyObject_Realloc", "PyObject_Free"},
	};
	uint64_t found[ALLOC_DOMAINS];
	struct refs refs[VERBS];
	unsigned int domain, verb;
	int err = 0;

	for (domain = 0; !err && domain < ALLOC_DOMAINS; domain++) {
		for (verb = 0; !err && verb < VERBS; verb++)
			err = refs_read(b, names[domain][verb], &refs[verb]);
		if (!err)
			err = find_agreed(refs, found, domain);
	}
	if (!err)
		memcpy(tables, found, sizeof(found));
	return err;
}
