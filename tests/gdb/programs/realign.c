/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Frames that align the stack: the canonical frame address is then in memory. */
#include <alloca.h>
#include <immintrin.h>
#include <string.h>

#include "leak.h"

static volatile int zero;

NOINLINE static void touch(void *p)
{
	leak_sink = p;
}

NOINLINE static float vectors(int n, unsigned k)
{
	__m256 v[4];
	float sum = 0, f[8] __attribute__((aligned(32)));

	for (int i = 0; i < 4; i++)
		v[i] = _mm256_set1_ps((float)(n + i));
	touch(v);
	LEAK(k);
	for (int i = 0; i < 4; i++) {
		_mm256_store_ps(f, v[i]);
		sum += f[zero];
	}
	return sum;
}

NOINLINE static float vectors_and_alloca(int n, unsigned k)
{
	__m256 v = _mm256_set1_ps((float)n);
	float f[8] __attribute__((aligned(64)));
	char *p = alloca((size_t)n);

	memset(p, 1, (size_t)n);
	touch(&v);
	touch(p);
	LEAK(k);
	_mm256_store_ps(f, v);
	touch(f);
	return vectors(n, k + 1) + f[0] + p[0];
}

/* Alignment with arguments on the stack: the realigned frame needs a second base. */
NOINLINE static double stack_arguments(long a, long b, long c, long d, long e, long f, long g,
				       long h, int n, unsigned k)
{
	char page[64] __attribute__((aligned(128)));

	memset(page, n, sizeof(page));
	touch(page);
	LEAK(k);
	return (double)(a + b + c + d + e + f + g + h) + page[zero] + vectors_and_alloca(n, k + 1);
}

int main(void)
{
	vectors(3 + zero, 1);
	vectors_and_alloca(100 + zero, 10);
	stack_arguments(1, 2, 3, 4, 5, 6, 7, 8, 77 + zero, 20);
	return 0;
}
