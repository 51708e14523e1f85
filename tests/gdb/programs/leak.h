/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Allocations that a test can tell apart by their sizes, and that no compiler removes. */
#ifndef LEAK_H
#define LEAK_H

#include <stdlib.h>

#define NOINLINE __attribute__((noinline, noclone))
#define LEAK_SIZE(k) (1000000ul + 1000ul * (k))

static void *volatile leak_sink;

/* An instruction after the call, so that it is no tail call. */
#define AFTER() __asm__ volatile("" ::: "memory")
#define LEAK(k)                                   \
	do {                                      \
		leak_sink = malloc(LEAK_SIZE(k)); \
		AFTER();                          \
	} while (0)

#endif
