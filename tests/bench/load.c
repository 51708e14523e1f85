/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "load.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

uint64_t load_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ULL + (uint64_t)t.tv_nsec;
}

void load_answer(uint64_t operations, uint64_t wall_ns, const struct latency *latency)
{
	printf("%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", operations, wall_ns,
	       latency_quantile_ns(latency, 0.5), latency_quantile_ns(latency, 0.99),
	       latency_quantile_ns(latency, 0.999));
	fflush(stdout);
}

void load_serve(uint64_t (*run)(uint64_t deadline_ns, struct latency *latency))
{
	static struct latency latency;
	char line[64];

	printf("ready %d\n", (int)getpid());
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		uint64_t begin = load_now_ns();
		uint64_t operations;

		memset(&latency, 0, sizeof(latency));
		operations = run(begin + (uint64_t)(1e9 * strtod(line, NULL)), &latency);
		load_answer(operations, load_now_ns() - begin, &latency);
	}
}
