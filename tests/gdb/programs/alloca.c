/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <alloca.h>
#include <string.h>

#include "leak.h"

static volatile int zero;

NOINLINE static int inner(char *p, unsigned k)
{
	LEAK(k);
	return p[0];
}

NOINLINE static int by_alloca(int n, unsigned k)
{
	char *p = alloca((size_t)n);

	memset(p, 1, (size_t)n);
	LEAK(k);
	return inner(p, k + 1) + p[n - 1];
}

NOINLINE static int by_vla(int n, unsigned k)
{
	char a[n], b[2 * n];

	memset(a, 1, sizeof(a));
	memset(b, 1, sizeof(b));
	LEAK(k);
	return by_alloca(n + a[0], k + 1) + inner(b, k + 10) + a[n - 1];
}

NOINLINE static int in_loop(int n, unsigned k)
{
	int sum = 0;

	for (int i = 1; i < n; i++) {
		char *p = alloca((size_t)i * 100);

		memset(p, i, (size_t)i * 100);
		sum += p[zero] + inner(p, k + (unsigned)i);
	}
	return sum;
}

int main(void)
{
	by_alloca(10 + zero, 1);
	by_vla(333 + zero, 20);
	by_vla(20000 + zero, 40);
	in_loop(2 + zero, 60);
	return 0;
}
