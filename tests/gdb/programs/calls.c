/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Ordinary functions: many registers, big frames, cold parts, every allocator function. */
#include <malloc.h>
#include <stdio.h>
#include <string.h>

#include "leak.h"

static volatile int zero;

NOINLINE static long many_registers(const long *v, long n)
{
	long a = v[0], b = v[1], c = v[2], d = v[3], e = v[4], f = v[5];

	for (long i = 0; i < n; i++) {
		a += b * i;
		b ^= c + i;
		c += d ^ a;
		d -= e;
		e += f * a;
		f ^= b;
	}
	leak_sink = malloc(LEAK_SIZE(1) + (size_t)zero * (size_t)(a + b + c + d + e + f));
	return a + b + c + d + e + f + n;
}

NOINLINE static int big_frame(int k)
{
	char big[40000];

	memset(big, k, sizeof(big));
	LEAK(2);
	return big[zero + k];
}

NOINLINE static int medium_frame(int k)
{
	char medium[1016];

	memset(medium, k, sizeof(medium));
	return big_frame(k) + medium[zero];
}

__attribute__((cold, noinline)) static void unlikely(int k)
{
	LEAK(3);
	if (k)
		leak_sink = NULL;
}

NOINLINE static int has_cold_part(int k)
{
	if (__builtin_expect(k != 0, 0)) {
		unlikely(k);
		leak_sink = calloc(1, LEAK_SIZE(4));
		unlikely(zero);
		abort();
	}
	return k + 1;
}

NOINLINE static void early_return(int k, char *p)
{
	if (!k)
		return;
	LEAK(5);
	for (int i = 0; i < k; i++) {
		p[i] = (char)i;
		if (i == 3)
			leak_sink = realloc(NULL, LEAK_SIZE(6));
	}
	puts(p);
}

NOINLINE static int many_arguments(long a, long b, long c, long d, long e, long f, long g, long h,
				   long i)
{
	LEAK(7);
	return (int)(a + b + c + d + e + f + g + h + i);
}

NOINLINE static void others(void)
{
	void *p;

	leak_sink = aligned_alloc(64, LEAK_SIZE(8) / 64 * 64);
	AFTER();
	if (!posix_memalign(&p, 128, LEAK_SIZE(9)))
		leak_sink = p;
	leak_sink = memalign(4096, LEAK_SIZE(10));
	AFTER();
	leak_sink = realloc(malloc(10), LEAK_SIZE(11));
	AFTER();
}

NOINLINE static void through_pointer(void (*f)(void))
{
	f();
	AFTER();
	LEAK(12);
}

NOINLINE static void string_copy(void)
{
	char *text = malloc(LEAK_SIZE(13));

	memset(text, 'x', 1000000 + 13000 - 1);
	text[1000000 + 13000 - 1] = 0;
	leak_sink = text;
	leak_sink = strndup(text, 1000000 + 12500);
	AFTER();
}

int main(void)
{
	long v[6] = {1, 2, 3, 4, 5, 6};
	char text[32] = {0};

	leak_sink = v;
	many_registers(v, 5 + zero);
	medium_frame(zero + 1);
	has_cold_part(zero);
	unlikely(zero);
	early_return(5 + zero, text);
	many_arguments(1, 2, 3, 4, 5, 6, 7, 8, 9);
	through_pointer(others);
	string_copy();
	LEAK(14);
	return 0;
}
