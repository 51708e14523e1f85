/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * load_step RATE: the load of `reaction`. One thread that computes all the time and makes and
 * drops RATE blocks a second of its own CPU time beside that; each line on standard input is
 * a new rate. Ten times a second it prints "<monotonic ns> <cpu ns> <rounds> <blocks>", all
 * since its start. A round of computing is always the same work, so the rounds tell from
 * outside what a tracer takes away, whatever the tracer says.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "load.h"

#define LIVE 1024
#define ROUND_STEPS 4096
#define REPORT_NS 100000000ULL

static void *live[LIVE];
static uint64_t blocks, rounds;

static uint64_t cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000ULL + (uint64_t)t.tv_nsec;
}

/* Some 5 µs, one step after the other. */
static void compute(void)
{
	uint64_t x = rounds;

	for (int i = 0; i < ROUND_STEPS; i++) {
		x = x * 6364136223846793005ULL + 1442695040888963407ULL;
		__asm__ volatile("" : "+r"(x));
	}
	rounds++;
}

static __attribute__((noinline)) void replace_block(void)
{
	void **slot = &live[blocks % LIVE];

	free(*slot);
	*slot = malloc(16 + blocks * 2654435761ULL % 1024);
	blocks++;
}

/* Never waits; the rate stays when there is nothing to read. */
static int read_rate(double *rate)
{
	char line[64];
	ssize_t got = read(STDIN_FILENO, line, sizeof(line) - 1);

	if (got == 0)
		return -1;
	if (got > 0) {
		line[got] = '\0';
		*rate = strtod(line, NULL);
	}
	return 0;
}

static void report(uint64_t now)
{
	printf("%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", now, cpu_ns(), rounds, blocks);
	fflush(stdout);
}

/* One round, and the blocks that it owes: by rounds, so that a slow tracer sees no burst. */
static void turn(double rate, double round_s)
{
	static double owed;

	compute();
	for (owed += rate * round_s; owed >= 1; owed--)
		replace_block();
}

static double measure_round_s(void)
{
	uint64_t begin = cpu_ns();

	for (int i = 0; i < 20000; i++)
		compute();
	return 1e-9 * (double)(cpu_ns() - begin) / 20000;
}

int main(int argc, char **argv)
{
	double rate = argc > 1 ? strtod(argv[1], NULL) : 0;
	double round_s = measure_round_s();
	uint64_t next = load_now_ns();

	fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
	printf("ready %d\n", (int)getpid());
	fflush(stdout);
	for (;;) {
		uint64_t now = load_now_ns();

		turn(rate, round_s);
		if (now < next)
			continue;
		next = now + REPORT_NS;
		report(now);
		if (read_rate(&rate))
			return 0;
	}
}
