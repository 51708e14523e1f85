/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Decides on which instruction of a function a probe sits.
 *
 * A uprobe on an instruction that the kernel emulates costs one trap; on any
 * other it costs a single step out of line as well, six to eight times more in
 * a virtual machine. The planner decodes the first instructions (Zydis) and
 * picks the cheapest emulated one at which the argument registers still hold
 * the arguments.
 */
#ifndef LEAKTOP_PLANNER_H
#define LEAKTOP_PLANNER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What the kernel does with the probed instruction, cheapest first
 * (arch/x86/kernel/uprobes.c, branch_setup_xol_ops and push_setup_xol_ops). */
enum insn_class {
	INSN_NOP = 0, /* 0x90; multi-byte forms single-step before Linux 6.18 */
	INSN_PUSH,
	INSN_JUMP, /* jmp, jcc */
	INSN_CALL,
	INSN_STEPPED, /* anything else: single-stepped */
};

enum plan_kind {
	PLAN_ENTRY,	/* entry only: any straight-line place with the arguments intact */
	PLAN_RETURN,	/* a return probe too: the stack pointer must be untouched */
	PLAN_FREE_NULL, /* entry only, and a call with a NULL first argument may be missed */
};

struct plan {
	uint32_t offset;   /* from the start of the function */
	uint32_t sp_words; /* 8-byte words pushed before it */
	enum insn_class insn;
};

/*
 * @code holds the first @code_len bytes of the function, loaded at @vaddr;
 * @multi_nop says whether this kernel emulates multi-byte nops. Branches in
 * @code to a place inside it rule that place out. In doubt the answer is the
 * entry (offset 0). Never fails.
 */
struct plan plan_probe(const uint8_t *code, size_t code_len, uint64_t vaddr, enum plan_kind kind,
		       bool multi_nop);

/*
 * The same when it is known which arguments the probe reads: bit i of @args is
 * argument i. Places after a write to any other argument register count too
 * (tcmalloc's malloc is stepped without this).
 */
#define PLAN_ALL_ARGS 0x3fu
struct plan plan_probe_args(const uint8_t *code, size_t code_len, uint64_t vaddr,
			    enum plan_kind kind, bool multi_nop, unsigned int args);

const char *insn_class_name(enum insn_class c);

#endif
