/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Recursion, and what comes back from it: at depth 100, and deeper than leaktop follows. */
#include "leak.h"

static volatile int zero;

NOINLINE static int down(int depth, unsigned k);

NOINLINE static int sideways(int depth, unsigned k, long pad)
{
	char room[200];

	leak_sink = room;
	room[depth % 200] = (char)pad;
	return down(depth - 1, k) + room[zero];
}

NOINLINE static int down(int depth, unsigned k)
{
	int sum;

	if (!depth) {
		LEAK(k);
		return zero;
	}
	sum = depth % 3 ? down(depth - 1, k) : sideways(depth, k, depth);
	if (depth % 50 == 25)
		LEAK(k + (unsigned)depth);
	return sum + 1;
}

NOINLINE static int plainly(int depth, unsigned k)
{
	if (depth)
		return plainly(depth - 1, k) + depth;
	LEAK(k);
	return zero;
}

int main(void)
{
	down(1 + zero, 1);
	down(10 + zero, 2);
	down(50 + zero, 100);
	down(89 + zero, 200);
	plainly(100 + zero, 300);
	plainly(500 + zero, 301);
	return 0;
}
