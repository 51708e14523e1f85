/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Hand-written functions, each with correct call frame information of an unusual kind. */
#include "leak.h"

NOINLINE void leak_here(unsigned k);
NOINLINE void leak_here(unsigned k)
{
	LEAK(k);
}

#define FUNCTION(name, body)                                                                    \
	void name(unsigned k);                                                                  \
	__asm__(".text\n.globl " #name "\n.type " #name ", @function"                           \
		"\n" #name ":\n.cfi_startproc\n" body ".cfi_endproc\n.size " #name ", .-" #name \
		"\n")

/* rbp holds anything. */
FUNCTION(scratch_rbp, "push %rbp\n.cfi_adjust_cfa_offset 8\n.cfi_rel_offset %rbp, 0\n"
		      "mov $0x1234567, %ebp\n"
		      "sub $16, %rsp\n.cfi_adjust_cfa_offset 16\n"
		      "call leak_here\n"
		      "add $16, %rsp\n.cfi_adjust_cfa_offset -16\n"
		      "pop %rbp\n.cfi_adjust_cfa_offset -8\n.cfi_restore %rbp\nret\n");
/* rbp saved far from the CFA. */
FUNCTION(far_rbp, "sub $4104, %rsp\n.cfi_adjust_cfa_offset 4104\n"
		  "mov %rbp, (%rsp)\n.cfi_rel_offset %rbp, 0\n"
		  "xor %ebp, %ebp\n"
		  "call leak_here\n"
		  "mov (%rsp), %rbp\n.cfi_restore %rbp\n"
		  "add $4104, %rsp\n.cfi_adjust_cfa_offset -4104\nret\n");
/* CFA by rbx, r12 and r13: the C library's and OpenSSL's assembly do so. */
#define BY(name, reg)                                                                             \
	FUNCTION(name, "push %" #reg "\n.cfi_adjust_cfa_offset 8\n.cfi_rel_offset %" #reg ", 0\n" \
		       "mov %rsp, %" #reg "\n.cfi_def_cfa_register %" #reg "\n"                   \
		       "and $-64, %rsp\nsub $64, %rsp\n"                                          \
		       "call leak_here\n"                                                         \
		       "mov %" #reg ", %rsp\n.cfi_def_cfa_register %rsp\n"                        \
		       "pop %" #reg "\n.cfi_adjust_cfa_offset -8\n.cfi_restore %" #reg "\nret\n")
BY(by_rbx, rbx);
BY(by_r12, r12);
BY(by_r13, r13);
/* CFA in memory, at rsp + 8: DW_OP_breg7 8, DW_OP_deref, DW_OP_plus_uconst 8. */
FUNCTION(by_memory, "mov %rsp, %rax\n"
		    "and $-64, %rsp\n.cfi_def_cfa_register %rax\n"
		    "sub $64, %rsp\n"
		    "mov %rax, 8(%rsp)\n"
		    ".cfi_escape 0x0f, 5, 0x77, 8, 0x06, 0x23, 8\n"
		    "call leak_here\n"
		    "mov 8(%rsp), %rsp\n.cfi_def_cfa %rsp, 8\nret\n");
/* rbp is kept in rbx: DW_CFA_register. */
FUNCTION(rbp_in_rbx, "push %rbx\n.cfi_adjust_cfa_offset 8\n.cfi_rel_offset %rbx, 0\n"
		     "mov %rbp, %rbx\n.cfi_register %rbp, %rbx\n"
		     "mov $99, %ebp\n"
		     "call leak_here\n"
		     "mov %rbx, %rbp\n.cfi_restore %rbp\n"
		     "pop %rbx\n.cfi_adjust_cfa_offset -8\n.cfi_restore %rbx\nret\n");
/* Two states remembered and restored. */
FUNCTION(remembered, "push %rbp\n.cfi_adjust_cfa_offset 8\n.cfi_rel_offset %rbp, 0\n"
		     "mov %rsp, %rbp\n.cfi_def_cfa_register %rbp\n"
		     "test %edi, %edi\n"
		     "jne 1f\n"
		     ".cfi_remember_state\n"
		     "leave\n.cfi_def_cfa %rsp, 8\nret\n"
		     "1:\n.cfi_restore_state\n"
		     "call leak_here\n"
		     "leave\n.cfi_def_cfa %rsp, 8\nret\n");

/* The caller of each: a frame that needs rbp. */
#define CALLER(name)                                       \
	NOINLINE static int call_##name(int n, unsigned k) \
	{                                                  \
		char room[n];                              \
		leak_sink = room;                          \
		room[0] = 1;                               \
		name(k);                                   \
		return room[0];                            \
	}

CALLER(scratch_rbp)
CALLER(far_rbp)
CALLER(by_rbx)
CALLER(by_r12)
CALLER(by_r13)
CALLER(by_memory)
CALLER(rbp_in_rbx)
CALLER(remembered)

int main(int argc, char **argv)
{
	(void)argv;
	call_scratch_rbp(argc * 100, 1);
	call_far_rbp(argc * 100, 2);
	call_by_rbx(argc * 100, 3);
	call_by_r12(argc * 100, 4);
	call_by_r13(argc * 100, 5);
	call_by_memory(argc * 100, 6);
	call_rbp_in_rbx(argc * 100, 7);
	call_remembered(argc * 100, 8);
	return 0;
}
