/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What unwind_cost probes. Prints "ready PID" and the addresses of its sites.
 * For each line "SITE SHAPE DEPTH CALLS" on stdin it reaches that site CALLS
 * times, and prints the nanoseconds of CPU time it took and how many calls it
 * were.
 *
 * Shape r: DEPTH functions with frames of several sizes call each other, along
 * one of PATHS ways, anew for each call. Shape q: the last one sorts, and it is
 * the comparison of qsort() that reaches the site, so that the C library stands
 * in the midst of the stack.
 *
 * All this in a thread, whose stack ends two frames of the C library further on
 * (so there are stacks as small as 5), and has readable memory above for whoever
 * copies stacks.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define noinline __attribute__((noinline))
#define PATHS 64
#define WARM_UP_CALLS 64
#define STACK_BYTES (256u << 10)
#define ABOVE_BYTES (64u << 10)

typedef void (*reach_fn)(void);

/* Stacks are unwound by the instruction before the place where they are taken, as
 * if it were a return address: it has to be of the same function, so two no-ops. */
#define SITE(n)                                                                               \
	void site_##n(void);                                                                  \
	static noinline __attribute__((aligned(64))) void reach_##n(void)                     \
	{                                                                                     \
		__asm__ volatile("nop\n.globl site_" #n "\nsite_" #n ": nop" : : : "memory"); \
	}
SITE(0)
SITE(1)
SITE(2)
SITE(3)
SITE(4)
SITE(5)

static const struct {
	reach_fn reach, site;
} sites[] = {{reach_0, site_0}, {reach_1, site_1}, {reach_2, site_2},
	     {reach_3, site_3}, {reach_4, site_4}, {reach_5, site_5}};
#define SITES (sizeof(sites) / sizeof(sites[0]))

/* What the last function of a way does, and what a comparison does. */
static reach_fn at_the_end, at_comparison;
static unsigned long calls;

static int compare(const void *a, const void *b)
{
	calls++;
	at_comparison();
	return *(const int *)a - *(const int *)b;
}

static noinline void sort(void)
{
	int numbers[] = {3, 1, 4, 1, 5, 9, 2, 6};

	qsort(numbers, sizeof(numbers) / sizeof(numbers[0]), sizeof(numbers[0]), compare);
}

static uint64_t next_way(uint64_t way)
{
	way = (way ^ way >> 29) * 0xbf58476d1ce4e5b9ull;
	return way ^ way >> 32;
}

typedef unsigned long (*level_fn)(unsigned int depth, uint64_t way);
#define LEVELS 16
static const level_fn levels[LEVELS];

static inline __attribute__((always_inline)) unsigned long go_on(unsigned int depth, uint64_t way)
{
	uint64_t next = next_way(way);

	/* Two places to call from. */
	if (way & 64)
		return levels[next % LEVELS](depth - 1, next) * 2;
	return levels[next % LEVELS](depth - 1, next) ^ depth;
}

static inline __attribute__((always_inline)) unsigned long level(unsigned int depth, uint64_t way,
								 char *room)
{
	unsigned long sum = 0;

	__asm__ volatile("" : : "r"(room) : "memory");
	if (depth)
		sum = go_on(depth, way);
	else
		at_the_end();
	__asm__ volatile("" : : "r"(room) : "memory");
	return sum + 1;
}

#define LEVEL(n, bytes)                                                           \
	static noinline unsigned long level_##n(unsigned int depth, uint64_t way) \
	{                                                                         \
		char room[bytes];                                                 \
                                                                                  \
		return level(depth, way, room);                                   \
	}
LEVEL(0, 8)
LEVEL(1, 24)
LEVEL(2, 40)
LEVEL(3, 56)
LEVEL(4, 8)
LEVEL(5, 72)
LEVEL(6, 24)
LEVEL(7, 120)
LEVEL(8, 16)
LEVEL(9, 200)
LEVEL(10, 8)
LEVEL(11, 88)
LEVEL(12, 32)
LEVEL(13, 264)
LEVEL(14, 16)

/* One that has a frame pointer in any build. */
static noinline unsigned long level_15(unsigned int depth, uint64_t way)
{
	return level(depth, way, __builtin_alloca((way & 31) + 40));
}

static const level_fn levels[LEVELS] = {
	level_0, level_1, level_2,  level_3,  level_4,	level_5,  level_6,  level_7,
	level_8, level_9, level_10, level_11, level_12, level_13, level_14, level_15,
};

static double cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return 1e9 * (double)t.tv_sec + (double)t.tv_nsec;
}

/* Inlined, as one frame more would make the smallest stack 6 deep. */
static inline __attribute__((always_inline)) void reach_times(unsigned int depth,
							      unsigned long count)
{
	calls = 0;
	for (unsigned long i = 0; calls < count; i++) {
		uint64_t way = next_way((i % PATHS + 1) * 0x9e3779b97f4a7c15ull);

		if (at_the_end != sort)
			calls++;
		levels[way % LEVELS](depth, way);
	}
}

static void *obey(void *arg)
{
	unsigned int site, depth;
	unsigned long count;
	char line[64], shape;
	double start;

	(void)arg;
	while (fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "%u %c %u %lu", &site, &shape, &depth, &count) != 4 ||
		    site >= SITES)
			exit(2);
		at_comparison = sites[site].reach;
		at_the_end = shape == 'q' ? sort : at_comparison;
		for (int measured = 0; measured < 2; measured++) {
			start = cpu_ns();
			reach_times(depth, measured ? count : WARM_UP_CALLS);
		}
		printf("%.0f %lu\n", cpu_ns() - start, calls);
		fflush(stdout);
	}
	return NULL;
}

int main(void)
{
	char *stack = mmap(NULL, STACK_BYTES + ABOVE_BYTES, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	pthread_attr_t attr;
	pthread_t thread;

	if (stack == MAP_FAILED || pthread_attr_init(&attr) ||
	    pthread_attr_setstack(&attr, stack, STACK_BYTES))
		return 2;
	printf("ready %d", (int)getpid());
	for (size_t i = 0; i < SITES; i++)
		printf(" %lx", (unsigned long)sites[i].site);
	printf("\n");
	fflush(stdout);
	if (pthread_create(&thread, &attr, obey, NULL))
		return 2;
	return pthread_join(thread, NULL) ? 2 : 0;
}
