/* SPDX-License-Identifier: GPL-2.0-or-later */
/* CLOCK_MONOTONIC, which the kernel side's events bear too. */
#ifndef LEAKTOP_CLOCK_H
#define LEAKTOP_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t clock_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* For condition variables that use this clock. */
static inline struct timespec clock_deadline(int timeout_ms)
{
	uint64_t end_ns = clock_now_ns() + (uint64_t)timeout_ms * 1000000u;

	return (struct timespec){(time_t)(end_ns / 1000000000u), (long)(end_ns % 1000000000u)};
}

#endif
