/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * loop PAIRS SIZE: prints "ready <pid>", then for each line on stdin
 * runs PAIRS times malloc(SIZE) and free, and prints the nanoseconds a pair by
 * the process's CPU time and by the clock: "<cpu> <wall>".
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static double now_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return 1e9 * (double)t.tv_sec + (double)t.tv_nsec;
}

static __attribute__((noinline)) void pairs(long count, size_t size)
{
	long i;

	for (i = 0; i < count; i++) {
		void *block = malloc(size);

		__asm__ volatile("" : "+r"(block) : : "memory");
		free(block);
	}
}

static void measure(long count, size_t size)
{
	double cpu = now_ns(CLOCK_PROCESS_CPUTIME_ID);
	double wall = now_ns(CLOCK_MONOTONIC);

	pairs(count, size);
	cpu = now_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu;
	wall = now_ns(CLOCK_MONOTONIC) - wall;
	printf("%.1f %.1f\n", cpu / (double)count, wall / (double)count);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	char line[64];
	long count;
	size_t size;

	if (argc < 3)
		return 2;
	count = strtol(argv[1], NULL, 10);
	size = strtoul(argv[2], NULL, 10);
	if (count < 1)
		return 2;
	printf("ready %d\n", (int)getpid());
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin))
		measure(count, size);
	return 0;
}
