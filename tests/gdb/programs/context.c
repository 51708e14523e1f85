/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Coroutines: stacks that begin in the middle of nowhere. */
#include <ucontext.h>

#include "leak.h"

static ucontext_t main_context, other;
static char room[65536];

NOINLINE static void deeper(unsigned k)
{
	LEAK(k);
}

static void coroutine(int k)
{
	deeper((unsigned)k);
	swapcontext(&other, &main_context);
	deeper((unsigned)k + 1);
}

int main(void)
{
	getcontext(&other);
	other.uc_stack.ss_sp = room;
	other.uc_stack.ss_size = sizeof(room);
	other.uc_link = &main_context;
	makecontext(&other, (void (*)(void))coroutine, 1, 1);
	swapcontext(&main_context, &other);
	LEAK(5);
	swapcontext(&main_context, &other);
	LEAK(6);
	return 0;
}
