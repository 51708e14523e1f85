/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Calls that are jumps, calls that never return, and calls that end their function. */
#include <setjmp.h>

#include "leak.h"

static volatile int zero;
static jmp_buf back;

NOINLINE static void *last(unsigned long size)
{
	return malloc(size); /* a jump: the caller of this is who called */
}

NOINLINE static void *middle(unsigned long size)
{
	leak_sink = NULL;
	return last(size + (unsigned long)zero);
}

__attribute__((noreturn, noinline)) static void gone(unsigned k)
{
	LEAK(k);
	longjmp(back, 1);
}

/* Its call is its last instruction: the return address belongs to the next function. */
__attribute__((noreturn, noinline)) static void ends_in_call(unsigned k)
{
	char room[100];

	leak_sink = room;
	gone(k);
}

NOINLINE static int tail_to_callback(int (*f)(int), int n)
{
	return f(n + zero);
}

NOINLINE static int callback(int n)
{
	LEAK(5);
	return n + 1;
}

int main(void)
{
	leak_sink = middle(LEAK_SIZE(1));
	AFTER();
	leak_sink = last(LEAK_SIZE(2));
	AFTER();
	if (!setjmp(back))
		ends_in_call(3);
	if (!setjmp(back))
		gone(4);
	return tail_to_callback(callback, zero) - 1;
}
