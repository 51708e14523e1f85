/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "leak.h"

void lib_leak(unsigned k);
int lib_chosen(int n);
void lib_call_back(void (*f)(unsigned), unsigned k);

void lib_leak(unsigned k)
{
	LEAK(k);
}

void lib_call_back(void (*f)(unsigned), unsigned k)
{
	f(k);
	AFTER();
}

static int chosen(int n)
{
	LEAK(9);
	return n + 1;
}

static int (*choose(void))(int)
{
	LEAK(8);
	return chosen;
}

int lib_chosen(int n) __attribute__((ifunc("choose")));
