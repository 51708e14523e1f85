/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Through the procedure linkage table for the first time, and with a resolver that
 * allocates while the dynamic linker works. */
#include "leak.h"

void lib_leak(unsigned k);
int lib_chosen(int n);
void lib_call_back(void (*f)(unsigned), unsigned k);

static void back(unsigned k)
{
	lib_leak(k);
	LEAK(k + 1);
}

NOINLINE static int resolved_late(int n)
{
	char area[n];

	leak_sink = area;
	area[0] = 1;
	return lib_chosen(n) + area[0];
}

int main(int argc, char **argv)
{
	(void)argv;
	lib_leak(1);
	lib_leak(2);
	lib_call_back(back, 3);
	resolved_late(argc * 50);
	return 0;
}
