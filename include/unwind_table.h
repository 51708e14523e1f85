/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unwind tables: what the BPF unwinder knows about a place in the code, compiled
 * from an object's call frame information. x86-64 only.
 *
 * A rule says how to find the caller from the registers of one frame. Rules are
 * few and shared by all objects: they are interned in one array and named by 16
 * bits. The table of an object is
 *
 *	first_row[blocks + 1]	index of the first row of each 64 KiB of code
 *	rows[]			low 16 bits of the address << 16 | rule
 *
 * Addresses are ELF virtual addresses less the table's bias, the lowest
 * executable PT_LOAD's address rounded down to 64 KiB. Rows are sorted, a row
 * holds until the next, and each block starts with a row at its first byte: a
 * look-up never leaves its block and always finds a row.
 *
 * The return address is at CFA-8 and the caller's rsp is the CFA in every rule;
 * code for which either is not so has the rule UNKNOWN.
 */
#ifndef LEAKTOP_UNWIND_TABLE_H
#define LEAKTOP_UNWIND_TABLE_H

#ifndef __VMLINUX_H__
#include <linux/types.h>
#endif

#define UNWIND_BLOCK_BITS 16
#define UNWIND_BLOCK_BYTES (1u << UNWIND_BLOCK_BITS)
#define UNWIND_BLOCKS_MAX (1u << 16) /* 4 GiB from the bias to the end of the code */
#define UNWIND_ROWS_MAX (1u << 23)   /* rows of one object */
#define UNWIND_RULES_MAX 65520u	     /* ids above are answers of another kind */

/* Two rules have fixed ids, so that memory of zeros says "unknown". */
#define UNWIND_RULE_UNKNOWN 0u
#define UNWIND_RULE_END 1u

/* DWARF's numbers of the registers (System V ABI, x86-64 supplement, 3.6.2). */
enum unwind_reg {
	UNWIND_RAX = 0,
	UNWIND_RDX = 1,
	UNWIND_RCX = 2,
	UNWIND_RBX = 3,
	UNWIND_RSI = 4,
	UNWIND_RDI = 5,
	UNWIND_RBP = 6,
	UNWIND_RSP = 7, /* 8 to 15: r8 to r15 */
};

/* How to find the CFA, the value of rsp before the call. `reg` and `offset` are the rule's. */
enum unwind_cfa {
	UNWIND_CFA_UNKNOWN = 0, /* no rule: stop, or try the frame pointer */
	UNWIND_CFA_END,		/* the outermost frame: nobody called it */
	UNWIND_CFA_REG,		/* reg + offset */
	UNWIND_CFA_DEREF,	/* *(reg + offset) + 8 * arg */
	UNWIND_CFA_PLT,		/* reg + offset + ((rip & 15) >= arg ? 8 : 0) */
	UNWIND_CFA_SIGNAL,	/* rt_sigreturn's restorer: all registers are in the sigcontext */
	UNWIND_CFA_FRAME_POINTER = 15, /* rbp + 16 if rbp is plausible: code nobody describes */
};

#define UNWIND_CFA(kind, reg) ((kind) << 4 | (reg))
/* The two that matter for speed. */
#define UNWIND_CFA_BY_RSP UNWIND_CFA(UNWIND_CFA_REG, UNWIND_RSP)
#define UNWIND_CFA_BY_RBP UNWIND_CFA(UNWIND_CFA_REG, UNWIND_RBP)

/*
 * Where the caller's value of a register that the ABI preserves is, in one byte:
 *	0		in the register itself, it was not touched
 *	1..127		at CFA - 8 * slot
 *	128..254	at rbp - 8 * (slot - 128): functions that realign their stack
 *	255		nowhere: it cannot be had
 */
#define UNWIND_SLOT_SAME 0u
#define UNWIND_SLOT_CFA_MAX 127u
#define UNWIND_SLOT_RBP 128u
#define UNWIND_SLOT_RBP_MAX 254u
#define UNWIND_SLOT_LOST 255u

struct unwind_rule {
	__u8 cfa; /* enum unwind_cfa << 4 | register */
	__u8 rbp; /* slot of the caller's rbp */
	__u8 rbx; /* slot of the caller's rbx: the CFA of the dynamic linker's trampolines needs it
		   */
	__u8 arg;
	__s32 offset;
};

_Static_assert(sizeof(struct unwind_rule) == 8, "unwind_rule is shared memory");

/*
 * The signal frame: offsets from rsp in the restorer, where rsp points to the
 * ucontext that the kernel pushed (struct ucontext and sigcontext in
 * arch/x86/include/uapi/asm). The caller is the interrupted function: look up
 * its pc itself, not pc - 1, and all its registers are known again.
 */
#define UNWIND_SIGNAL_R8 40 /* r9 to r15 follow, 8 bytes each */
#define UNWIND_SIGNAL_RDI 104
#define UNWIND_SIGNAL_RSI 112
#define UNWIND_SIGNAL_RBP 120
#define UNWIND_SIGNAL_RBX 128
#define UNWIND_SIGNAL_RDX 136
#define UNWIND_SIGNAL_RAX 144
#define UNWIND_SIGNAL_RCX 152
#define UNWIND_SIGNAL_RSP 160
#define UNWIND_SIGNAL_RIP 168

static inline __u32 unwind_row(__u32 pc, __u32 rule)
{
	return pc << 16 | (rule & 0xffff);
}

static inline __u32 unwind_row_rule(__u32 row)
{
	return row & 0xffff;
}

/* Rows up to this value start at or before @pc, when both are of one block. */
static inline __u32 unwind_row_limit(__u32 pc)
{
	return pc << 16 | 0xffff;
}

#endif
