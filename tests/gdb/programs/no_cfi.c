/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Code without call frame information among code with it. */
#include "leak.h"

NOINLINE void leak_here(unsigned k);
NOINLINE void leak_here(unsigned k)
{
	LEAK(k);
}

void framed(unsigned k);
void zero_rbp(unsigned k);
__asm__(".text\n"
	".type framed, @function\n"
	"framed:\n"
	"	push %rbp\n"
	"	mov %rsp, %rbp\n"
	"	sub $48, %rsp\n"
	"	call leak_here\n"
	"	leave\n"
	"	ret\n"
	"	.skip 64, 0x90\n"
	".type zero_rbp, @function\n"
	"zero_rbp:\n"
	"	push %rbp\n"
	"	xor %ebp, %ebp\n"
	"	call leak_here\n"
	"	pop %rbp\n"
	"	ret\n"
	"	.skip 64, 0x90\n");

int main(void)
{
	framed(1);
	AFTER();
	zero_rbp(2);
	AFTER();
	return 0;
}
