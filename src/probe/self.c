/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Small functions in assembly, so that their first instruction is what it is
 * said to be whatever the compiler does.
 */
#include "probe/self.h"

#include <errno.h>
#include <link.h>
#include <stddef.h>

void self_nop(void);
void self_push(void);
void self_jump(void);
void self_call(void);
void self_stepped(void);

#define FUNCTION(name, body)                                                               \
	__asm__(".pushsection .text\n.globl " #name "\n.hidden " #name "\n.type " #name    \
		", %function\n.balign 16\n" #name ":\n" body "\n.size " #name ", .-" #name \
		"\n.popsection\n")

#if defined(__x86_64__)
FUNCTION(self_nop, "nop\nret");
FUNCTION(self_push, "push %rbp\npop %rbp\nret");
FUNCTION(self_jump, "jmp 1f\n1: ret");
FUNCTION(self_call, "call 1f\nret\n1: ret");
FUNCTION(self_stepped, "mov %rdi, %rax\nret");
#elif defined(__aarch64__)
FUNCTION(self_nop, "nop\nret");
FUNCTION(self_push, "stp x29, x30, [sp, #-16]!\nldp x29, x30, [sp], #16\nret");
FUNCTION(self_jump, "b 1f\n1: ret");
FUNCTION(self_call, "mov x9, x30\nbl 1f\nmov x30, x9\nret\n1: ret");
FUNCTION(self_stepped, "mov x0, x1\nret");
#endif

static const self_fn functions[SELF_FUNCTIONS] = {
	[SELF_NOP] = self_nop,	 [SELF_PUSH] = self_push,	[SELF_JUMP] = self_jump,
	[SELF_CALL] = self_call, [SELF_STEPPED] = self_stepped,
};

self_fn self_function(enum self_function which)
{
	return functions[which];
}

struct search {
	uintptr_t address;
	uint64_t offset;
};

/* The main program comes first in the walk, and only it is looked at. */
static int find_segment(struct dl_phdr_info *info, size_t size, void *arg)
{
	struct search *s = arg;

	(void)size;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *p = &info->dlpi_phdr[i];
		uintptr_t start = info->dlpi_addr + p->p_vaddr;

		if (p->p_type != PT_LOAD || s->address < start || s->address >= start + p->p_filesz)
			continue;
		s->offset = s->address - start + p->p_offset;
		return 1;
	}
	return -1;
}

int self_offset(enum self_function which, uint64_t *offset)
{
	struct search s = {.address = (uintptr_t)functions[which]};

	if (dl_iterate_phdr(find_segment, &s) != 1)
		return -ENOENT;
	*offset = s.offset;
	return 0;
}

int self_function_offset(uint64_t *offset)
{
	return self_offset(SELF_NOP, offset);
}
