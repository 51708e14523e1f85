/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * load_loop THREADS SIZE: threads that do nothing but malloc(SIZE) and free. An operation
 * is such a pair; the latency is that of a batch of a thousand.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "load.h"

#define BATCH 1000
#define MAX_THREADS 64

struct worker {
	pthread_t thread;
	uint64_t pairs;
	struct latency latency;
};

/* The threads stay for the life of the program, as a service's do. */
static struct worker workers[MAX_THREADS];
static unsigned long thread_count;
static size_t block_size;
static uint64_t deadline;
static pthread_barrier_t begin, end;

static __attribute__((noinline)) void batch(void)
{
	for (int i = 0; i < BATCH; i++) {
		void *block = malloc(block_size);

		__asm__ volatile("" : "+r"(block) : : "memory");
		free(block);
	}
}

static void work(struct worker *w)
{
	uint64_t now = load_now_ns();

	w->pairs = 0;
	w->latency = (struct latency){0};
	while (now < deadline) {
		uint64_t before = now;

		batch();
		now = load_now_ns();
		latency_add(&w->latency, now - before);
		w->pairs += BATCH;
	}
}

static void *worker_main(void *arg)
{
	for (;;) {
		pthread_barrier_wait(&begin);
		work(arg);
		pthread_barrier_wait(&end);
	}
	return NULL;
}

static uint64_t run(uint64_t deadline_ns, struct latency *latency)
{
	uint64_t pairs = 0;

	deadline = deadline_ns;
	pthread_barrier_wait(&begin);
	pthread_barrier_wait(&end);
	for (unsigned long i = 0; i < thread_count; i++) {
		pairs += workers[i].pairs;
		latency_merge(latency, &workers[i].latency);
	}
	return pairs;
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	thread_count = strtoul(argv[1], NULL, 10);
	block_size = strtoul(argv[2], NULL, 10);
	if (!thread_count || thread_count > MAX_THREADS)
		return 2;
	pthread_barrier_init(&begin, NULL, (unsigned int)thread_count + 1);
	pthread_barrier_init(&end, NULL, (unsigned int)thread_count + 1);
	for (unsigned long i = 0; i < thread_count; i++) {
		if (pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]))
			return 1;
	}
	load_serve(run);
	return 0;
}
