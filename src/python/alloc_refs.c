/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * To 3.11 a table is a static variable without a name in a stripped binary, but
 * PyObject_Malloc and the like are exported, and all that they do is to call what is in
 * it (Objects/obmalloc.c). So PyObject_Malloc refers to its word 1 (and with ctx to its
 * word 0), PyObject_Calloc to word 2, and so on: the address on which all four agree is
 * the table, however the compiler arranged the functions or what else it inlined there.
 *
 * PyRefTracer_GetTracer (Objects/object.c) returns _PyRuntime.ref_tracer.tracer_func and
 * stores the word behind it, tracer_data. In position independent code the address of
 * _PyRuntime comes from the global offset table first.
 */
#include "python/alloc_refs.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>

#include <Zydis/Zydis.h>

#include "python/exports.h"
#include "unwind/elf_image.h"

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

static int function_read(const struct elf_image *image, const struct export *e, struct function *f)
{
	f->bytes = e->bytes < FUNCTION_BYTES_MAX ? e->bytes : FUNCTION_BYTES_MAX;
	f->at = 0;
	f->vaddr = e->vaddr;
	if (!f->bytes || !ZYAN_SUCCESS(ZydisDecoderInit(&f->decoder, ZYDIS_MACHINE_MODE_LONG_64,
							ZYDIS_STACK_WIDTH_64)))
		return -ENOENT;
	return elf_image_copy(image, e->vaddr, f->code, f->bytes);
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

static int refs_read(const struct elf_image *image, const struct export *e, struct refs *out)
{
	struct function f;
	struct insn insn;
	int err;

	out->count = 0;
	err = function_read(image, e, &f);
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

int alloc_refs_tables(const struct elf_image *image, uint64_t tables[ALLOC_DOMAINS])
{
	struct export exports[ALLOC_DOMAINS * VERBS] = {
		{.name = "PyMem_RawMalloc"},  {.name = "PyMem_RawCalloc"},
		{.name = "PyMem_RawRealloc"}, {.name = "PyMem_RawFree"},
		{.name = "PyMem_Malloc"},     {.name = "PyMem_Calloc"},
		{.name = "PyMem_Realloc"},    {.name = "PyMem_Free"},
		{.name = "PyObject_Malloc"},  {.name = "PyObject_Calloc"},
		{.name = "PyObject_Realloc"}, {.name = "PyObject_Free"},
	};
	uint64_t found[ALLOC_DOMAINS];
	struct refs refs[VERBS];
	unsigned int domain, verb;
	int err;

	err = exports_find(image, exports, ALLOC_DOMAINS * VERBS);
	for (domain = 0; !err && domain < ALLOC_DOMAINS; domain++) {
		for (verb = 0; !err && verb < VERBS; verb++)
			err = refs_read(image, &exports[domain * VERBS + verb], &refs[verb]);
		if (!err)
			err = find_agreed(refs, found, domain);
	}
	if (err)
		return err;
	for (domain = 0; domain < ALLOC_DOMAINS; domain++)
		tables[domain] = found[domain];
	return 0;
}

/* The address that a load reads: fixed, or some way behind _PyRuntime, which a register
 * holds that was loaded from a fixed address. */
static uint64_t load_address(const struct insn *insn, ZydisRegister runtime_in, uint64_t runtime)
{
	const ZydisDecodedOperand *op = &insn->ops[1];

	if (op->type != ZYDIS_OPERAND_TYPE_MEMORY)
		return 0;
	if (runtime_in != ZYDIS_REGISTER_NONE && op->mem.base == runtime_in &&
	    op->mem.index == ZYDIS_REGISTER_NONE)
		return runtime + (uint64_t)op->mem.disp.value;
	return fixed_address(insn, op);
}

/* What the function loaded last into rax before it returns, if it loaded the word behind
 * it too. */
static int find_returned(struct function *f, uint64_t runtime, uint64_t *vaddr)
{
	ZydisRegister base = ZYDIS_REGISTER_NONE;
	struct refs loads = {.count = 0};
	uint64_t address, last = 0;
	struct insn insn;

	while (function_next(f, &insn) && insn.head.mnemonic != ZYDIS_MNEMONIC_RET) {
		if (insn.head.mnemonic != ZYDIS_MNEMONIC_MOV || insn.head.operand_width != 64 ||
		    insn.ops[0].type != ZYDIS_OPERAND_TYPE_REGISTER)
			continue;
		address = load_address(&insn, base, runtime);
		if (address && loads.count < REFS_MAX)
			loads.vaddr[loads.count++] = address;
		if (insn.ops[1].type == ZYDIS_OPERAND_TYPE_MEMORY &&
		    insn.ops[1].mem.base == ZYDIS_REGISTER_RIP)
			base = insn.ops[0].reg.value;
		else if (insn.ops[0].reg.value == base)
			base = ZYDIS_REGISTER_NONE;
		if (insn.ops[0].reg.value == ZYDIS_REGISTER_RAX)
			last = address;
	}
	if (!last || !refs_has(&loads, last + 8))
		return -ENOENT;
	*vaddr = last;
	return 0;
}

int alloc_refs_tracer(const struct elf_image *image, uint32_t *offset)
{
	struct export exports[] = {{.name = "PyRefTracer_GetTracer"}, {.name = "_PyRuntime"}};
	const struct export *runtime = &exports[1];
	struct function f;
	uint64_t vaddr;
	int err;

	err = exports_find(image, exports, 2);
	if (!err)
		err = function_read(image, &exports[0], &f);
	if (!err)
		err = find_returned(&f, runtime->vaddr, &vaddr);
	if (err)
		return err;
	if (vaddr < runtime->vaddr || runtime->bytes < 16 ||
	    vaddr - runtime->vaddr > runtime->bytes - 16 || (vaddr & 7) ||
	    vaddr - runtime->vaddr > UINT32_MAX)
		return -ENOENT;
	*offset = (uint32_t)(vaddr - runtime->vaddr);
	return 0;
}
