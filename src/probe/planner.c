/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The walk goes forward from the entry as long as every call of the function
 * passes exactly once and the arguments are still in their registers, and keeps
 * the cheapest place on the way. It ends at the first instruction that could
 * break one of these promises: anything that leaves the straight line, a write
 * to an argument register, a change of the stack pointer that cannot be
 * accounted for, or a place that a branch of the function comes back to.
 *
 * Bytes come from files of traced processes, so nothing is assumed of them. A
 * wrong place is worse than a dear one: in doubt the answer is the entry.
 */
#include "probe/planner.h"

#if defined(__x86_64__)

#include <string.h>

#include <Zydis/Zydis.h>

#define CODE_MAX 512	/* more than any prologue; bounds the work */
#define SP_WORDS_MAX 63 /* what a probe_spec can carry */

struct insn {
	ZydisDecodedInstruction head;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
};

struct function {
	const uint8_t *code;
	uint32_t len;
	uint64_t vaddr;
	ZydisDecoder decoder;
	uint8_t branch_target[CODE_MAX];
};

struct walk {
	enum plan_kind kind;
	bool multi_nop;
	unsigned int args;
	uint32_t sp_words;
	bool null_tested; /* the flags are those of `test rdi, rdi` */
	struct plan best;
};

static bool decode(const struct function *f, uint32_t offset, struct insn *out)
{
	return offset < f->len &&
	       ZYAN_SUCCESS(ZydisDecoderDecodeFull(&f->decoder, f->code + offset, f->len - offset,
						   &out->head, out->ops));
}

static void mark_branch_target(struct function *f, uint32_t offset, const struct insn *insn)
{
	ZyanU64 target;
	uint8_t i;

	for (i = 0; i < insn->head.operand_count_visible; i++) {
		const ZydisDecodedOperand *op = &insn->ops[i];

		if (op->type != ZYDIS_OPERAND_TYPE_IMMEDIATE || !op->imm.is_relative)
			continue;
		if (!ZYAN_SUCCESS(
			    ZydisCalcAbsoluteAddress(&insn->head, op, f->vaddr + offset, &target)))
			continue;
		if (target - f->vaddr < f->len)
			f->branch_target[target - f->vaddr] = 1;
	}
}

/* Data between instructions is skipped bytewise; what it yields by chance only
 * rules places out. */
static void mark_branch_targets(struct function *f)
{
	struct insn insn;
	uint32_t offset = 0;

	while (offset < f->len) {
		if (!decode(f, offset, &insn)) {
			offset++;
			continue;
		}
		mark_branch_target(f, offset, &insn);
		offset += insn.head.length;
	}
}

/* Not only the first byte: a 5-byte nop is overwritten as a whole by Linux 6.18. */
static bool is_branched_into(const struct function *f, uint32_t offset, uint32_t length)
{
	return memchr(f->branch_target + offset, 1, length) != NULL;
}

/*
 * The kernel compares with its own x86_nops[] bytes (arch/x86/include/asm/nops.h),
 * so another encoding of a nop is stepped; so are forms of nine bytes and more.
 */
static bool is_kernel_nop(const uint8_t *code, uint32_t length)
{
	static const char *const nops[] = {
		"\x66\x90",
		"\x0f\x1f\x00",
		"\x0f\x1f\x40\x00",
		"\x0f\x1f\x44\x00\x00",
		"\x66\x0f\x1f\x44\x00\x00",
		"\x0f\x1f\x80\x00\x00\x00\x00",
		"\x0f\x1f\x84\x00\x00\x00\x00\x00",
	};

	return length >= 2 && length <= 8 && memcmp(code, nops[length - 2], length) == 0;
}

/* The opcodes of branch_setup_xol_ops() and push_setup_xol_ops(), bare of any
 * prefix but the REX.B of push r8-r15: prefixed branches are refused or stepped. */
static enum insn_class classify(const uint8_t *code, uint32_t length, bool multi_nop)
{
	uint8_t op = code[0];

	if (length == 1 && op == 0x90)
		return INSN_NOP;
	if (multi_nop && is_kernel_nop(code, length))
		return INSN_NOP;
	if (length == 1 && op >= 0x50 && op <= 0x57)
		return INSN_PUSH;
	if (length == 2 && op == 0x41 && code[1] >= 0x50 && code[1] <= 0x57)
		return INSN_PUSH;
	if (op == 0xeb || op == 0xe9 || (op >= 0x70 && op <= 0x7f))
		return INSN_JUMP;
	if (op == 0x0f && length == 6 && code[1] >= 0x80 && code[1] <= 0x8f)
		return INSN_JUMP;
	if (op == 0xe8)
		return INSN_CALL;
	return INSN_STEPPED;
}

static ZydisRegister written_register(const ZydisDecodedOperand *op)
{
	if (op->type != ZYDIS_OPERAND_TYPE_REGISTER ||
	    !(op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
		return ZYDIS_REGISTER_NONE;
	return ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, op->reg.value);
}

static bool writes_register(const struct insn *insn, ZydisRegister reg)
{
	uint8_t i;

	for (i = 0; i < insn->head.operand_count; i++)
		if (written_register(&insn->ops[i]) == reg)
			return true;
	return false;
}

static bool writes_argument(const struct insn *insn, unsigned int args)
{
	static const ZydisRegister regs[] = {ZYDIS_REGISTER_RDI, ZYDIS_REGISTER_RSI,
					     ZYDIS_REGISTER_RDX, ZYDIS_REGISTER_RCX,
					     ZYDIS_REGISTER_R8,	 ZYDIS_REGISTER_R9};
	size_t i;

	for (i = 0; i < sizeof(regs) / sizeof(regs[0]); i++)
		if ((args >> i & 1) && writes_register(insn, regs[i]))
			return true;
	return false;
}

static bool writes_flags(const struct insn *insn)
{
	const ZydisAccessedFlags *f = insn->head.cpu_flags;

	return f && (f->modified | f->set_0 | f->set_1 | f->undefined);
}

static bool tests_first_argument(const struct insn *insn)
{
	return insn->head.mnemonic == ZYDIS_MNEMONIC_TEST &&
	       insn->ops[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
	       insn->ops[0].reg.value == ZYDIS_REGISTER_RDI &&
	       insn->ops[1].type == ZYDIS_OPERAND_TYPE_REGISTER &&
	       insn->ops[1].reg.value == ZYDIS_REGISTER_RDI;
}

static bool leaves_line(const struct insn *insn)
{
	switch (insn->head.meta.category) {
	case ZYDIS_CATEGORY_CALL:
	case ZYDIS_CATEGORY_COND_BR:
	case ZYDIS_CATEGORY_INTERRUPT:
	case ZYDIS_CATEGORY_RET:
	case ZYDIS_CATEGORY_SYSCALL:
	case ZYDIS_CATEGORY_SYSRET:
	case ZYDIS_CATEGORY_SYSTEM:
	case ZYDIS_CATEGORY_UNCOND_BR:
		return true;
	default:
		return writes_register(insn, ZYDIS_REGISTER_RIP) ||
		       insn->head.mnemonic == ZYDIS_MNEMONIC_UD0 ||
		       insn->head.mnemonic == ZYDIS_MNEMONIC_UD1 ||
		       insn->head.mnemonic == ZYDIS_MNEMONIC_UD2;
	}
}

/* Words that @insn takes on the stack, or more than fit when it is unclear. */
static uint32_t stack_growth(const struct insn *insn)
{
	const ZydisDecodedOperand *op = insn->ops;

	if (!writes_register(insn, ZYDIS_REGISTER_RSP))
		return 0;
	if (insn->head.mnemonic == ZYDIS_MNEMONIC_PUSH &&
	    !(insn->head.attributes & ZYDIS_ATTRIB_HAS_OPERANDSIZE))
		return 1;
	if (insn->head.mnemonic == ZYDIS_MNEMONIC_SUB &&
	    op[0].type == ZYDIS_OPERAND_TYPE_REGISTER && op[0].reg.value == ZYDIS_REGISTER_RSP &&
	    op[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE && op[1].imm.value.s >= 0 &&
	    op[1].imm.value.s <= SP_WORDS_MAX * 8 && op[1].imm.value.s % 8 == 0)
		return (uint32_t)op[1].imm.value.s / 8;
	return SP_WORDS_MAX + 1;
}

/* Whether a probe may sit behind @insn. */
static bool walk_past(struct walk *w, const struct insn *insn)
{
	uint32_t words = stack_growth(insn);

	if (leaves_line(insn))
		return w->kind == PLAN_FREE_NULL && w->null_tested &&
		       insn->head.mnemonic == ZYDIS_MNEMONIC_JZ;
	if (writes_argument(insn, w->args))
		return false;
	if (words > 0 && (w->kind == PLAN_RETURN || w->sp_words + words > SP_WORDS_MAX))
		return false;
	w->sp_words += words;
	if (tests_first_argument(insn))
		w->null_tested = true;
	else if (writes_flags(insn))
		w->null_tested = false;
	return true;
}

static unsigned int cost_rank(enum insn_class c)
{
	return c == INSN_NOP ? INSN_PUSH : c; /* one trap each, a tie */
}

static void walk_consider(struct walk *w, uint32_t offset, enum insn_class c)
{
	if (cost_rank(c) < cost_rank(w->best.insn))
		w->best = (struct plan){.offset = offset, .sp_words = w->sp_words, .insn = c};
}

static void walk(struct walk *w, const struct function *f)
{
	struct insn insn;
	uint32_t offset = 0;

	while (decode(f, offset, &insn)) {
		bool joined = is_branched_into(f, offset, insn.head.length);

		/* Behind a loop's head no place is passed exactly once a call. */
		if (joined && offset > 0)
			return;
		walk_consider(w, offset,
			      classify(f->code + offset, insn.head.length, w->multi_nop));
		if (joined || !walk_past(w, &insn))
			return;
		offset += insn.head.length;
	}
}

/*
 * Linux 6.18 replaces a probed 5-byte nop by a call to a trampoline that it maps near by
 * (arch/x86/kernel/uprobes.c, can_optimize()). A forked child has the call and not the
 * mapping, and dies of it. What follows the nop is passed as often.
 */
static bool is_nop5(const struct function *f, uint32_t at)
{
	static const uint8_t nop5[] = {0x0f, 0x1f, 0x44, 0x00, 0x00};

	return at < f->len && f->len - at > sizeof(nop5) &&
	       !memcmp(f->code + at, nop5, sizeof(nop5));
}

static void pass_nop5(const struct function *f, struct plan *plan)
{
	struct insn insn;

	while (is_nop5(f, plan->offset)) {
		plan->offset += 5;
		plan->insn = decode(f, plan->offset, &insn)
				     ? classify(f->code + plan->offset, insn.head.length, false)
				     : INSN_STEPPED;
	}
}

struct plan plan_probe_args(const uint8_t *code, size_t code_len, uint64_t vaddr,
			    enum plan_kind kind, bool multi_nop, unsigned int args)
{
	struct walk w = {.kind = kind, .multi_nop = multi_nop, .args = args};
	struct function f = {.code = code, .vaddr = vaddr};

	w.best.insn = INSN_STEPPED;
	f.len = code_len < CODE_MAX ? (uint32_t)code_len : CODE_MAX;
	if (ZYAN_SUCCESS(ZydisDecoderInit(&f.decoder, ZYDIS_MACHINE_MODE_LONG_64,
					  ZYDIS_STACK_WIDTH_64))) {
		mark_branch_targets(&f);
		walk(&w, &f);
		pass_nop5(&f, &w.best);
	}
	return w.best;
}

#else

struct plan plan_probe_args(const uint8_t *code, size_t code_len, uint64_t vaddr,
			    enum plan_kind kind, bool multi_nop, unsigned int args)
{
	(void)code;
	(void)code_len;
	(void)vaddr;
	(void)kind;
	(void)multi_nop;
	(void)args;
	return (struct plan){.insn = INSN_STEPPED};
}

#endif

/* A free is known by its first argument alone; of the others any may matter. */
struct plan plan_probe(const uint8_t *code, size_t code_len, uint64_t vaddr, enum plan_kind kind,
		       bool multi_nop)
{
	return plan_probe_args(code, code_len, vaddr, kind, multi_nop,
			       kind == PLAN_FREE_NULL ? 1 : PLAN_ALL_ARGS);
}

const char *insn_class_name(enum insn_class c)
{
	switch (c) {
	case INSN_NOP:
		return "nop";
	case INSN_PUSH:
		return "push";
	case INSN_JUMP:
		return "jump";
	case INSN_CALL:
		return "call";
	case INSN_STEPPED:
		return "stepped";
	}
	return "unknown";
}
