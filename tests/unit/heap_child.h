/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A program whose heap is to be read: it allocates and frees in patterns, in threads,
 * writes which blocks it holds and which it has freed to a file, and waits. It calls glibc's
 * malloc by the names that a sanitizer leaves alone.
 */
#ifndef LEAKTOP_TEST_HEAP_CHILD_H
#define LEAKTOP_TEST_HEAP_CHILD_H

#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

extern void *__libc_malloc(size_t bytes);
extern void *__libc_calloc(size_t count, size_t bytes);
extern void *__libc_realloc(void *block, size_t bytes);
extern void *__libc_valloc(size_t bytes);
extern void __libc_free(void *block);

struct heap_truth {
	uint64_t address, size_bytes;
	uint64_t held;
};

#define HEAP_SLOTS 20000
#define HEAP_FREED (1u << 18)
#define HEAP_THREADS 6

struct heap_slot {
	unsigned char *block;
	size_t bytes;
};

struct heap_worker {
	unsigned int nth, operations;
	uint64_t random;
	bool leaves, for_ever;
	struct heap_slot slots[HEAP_SLOTS];
	struct heap_truth freed[HEAP_FREED];
	size_t freed_count;
	struct heap_worker *other; /* whose blocks it frees as well, once that one is done */
	volatile int state;	   /* 1: filled, 2: done */
};

static inline uint64_t heap_random(struct heap_worker *w)
{
	w->random ^= w->random << 13;
	w->random ^= w->random >> 7;
	w->random ^= w->random << 17;
	return w->random;
}

static inline size_t heap_size(struct heap_worker *w)
{
	uint64_t r = heap_random(w) >> 8, kind = r % 100;

	r /= 100;
	if (kind < 45)
		return 1 + r % 128;
	if (kind < 75)
		return 1 + r % 1100;
	if (kind < 96)
		return 1 + r % 9000;
	if (kind < 99)
		return 1 + r % 60000;
	return 140000 + r % 100000;
}

static inline void heap_free_slot(struct heap_worker *w, struct heap_slot *s)
{
	w->freed[w->freed_count++ % HEAP_FREED] =
		(struct heap_truth){(uintptr_t)s->block, s->bytes, 0};
	__libc_free(s->block);
	s->block = NULL;
}

static inline void heap_fill_slot(struct heap_worker *w, struct heap_slot *s)
{
	uint64_t kind = heap_random(w) >> 8;

	s->bytes = heap_size(w);
	if (kind % 16 == 0)
		s->block = __libc_calloc(1, s->bytes);
	else
		s->block = __libc_malloc(s->bytes);
	/* Others keep what was there, and with it the headers of chunks that are no more. */
	if (kind % 3 == 0)
		memset(s->block, (int)(kind >> 16), s->bytes);
}

static inline void heap_resize_slot(struct heap_worker *w, struct heap_slot *s)
{
	size_t bytes = heap_size(w);
	unsigned char *block = __libc_realloc(s->block, bytes);

	if (block != s->block)
		w->freed[w->freed_count++ % HEAP_FREED] =
			(struct heap_truth){(uintptr_t)s->block, s->bytes, 0};
	*s = (struct heap_slot){block, bytes};
}

static inline void heap_churn(struct heap_worker *w)
{
	/* A few slots change all the time, most seldom: mixed lifetimes. */
	uint64_t r = heap_random(w) >> 8;
	struct heap_slot *s = &w->slots[r % 4 ? r / 4 % 500 : r / 4 % HEAP_SLOTS];

	if (!s->block)
		heap_fill_slot(w, s);
	else if (heap_random(w) >> 8 & 7)
		heap_free_slot(w, s);
	else
		heap_resize_slot(w, s);
}

static inline void heap_free_some(struct heap_worker *w, struct heap_worker *of, unsigned int from,
				  unsigned int step)
{
	for (unsigned int i = from; i < HEAP_SLOTS; i += step)
		if (of->slots[i].block)
			heap_free_slot(w, &of->slots[i]);
}

static inline void *heap_work(void *arg)
{
	struct heap_worker *w = arg;

	for (unsigned int i = 0; i < w->operations; i++)
		heap_churn(w);
	/* From the 600th on: what is held for sure while the first go on. */
	w->state = 1;
	while (w->for_ever) {
		struct heap_slot *s = &w->slots[heap_random(w) >> 8 & 511];

		if (!s->block)
			heap_fill_slot(w, s);
		else
			heap_free_slot(w, s);
	}
	heap_free_some(w, w, w->nth, 3);
	while (w->other && w->other->state < 1)
		usleep(1000);
	if (w->nth % 2)
		heap_free_some(w, w, HEAP_SLOTS * 2 / 3, 1);
	w->state = 2;
	while (!w->leaves)
		pause();
	return NULL;
}

static inline void heap_write(FILE *f, const struct heap_worker *w)
{
	for (size_t i = w->for_ever ? 600 : 0; i < HEAP_SLOTS; i++) {
		struct heap_truth t = {(uintptr_t)w->slots[i].block, w->slots[i].bytes, 1};

		if (t.address)
			fwrite(&t, sizeof(t), 1, f);
	}
	for (size_t i = 0; !w->for_ever && i < w->freed_count && i < HEAP_FREED; i++)
		fwrite(&w->freed[i], sizeof(w->freed[i]), 1, f);
}

static inline struct heap_worker *heap_workers_new(uint64_t seed, unsigned int operations,
						   bool for_ever)
{
	struct heap_worker *w = mmap(NULL, HEAP_THREADS * sizeof(*w), PROT_READ | PROT_WRITE,
				     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	for (unsigned int i = 0; w != MAP_FAILED && i < HEAP_THREADS; i++) {
		w[i].nth = i;
		w[i].operations = operations;
		w[i].random = seed * 7919 + i + 88172645463325252ull;
		w[i].leaves = i == 0 || i == 4;
		w[i].for_ever = for_ever && i;
		w[i].other = i ? &w[i - 1] : NULL;
	}
	return w == MAP_FAILED ? NULL : w;
}

static inline void heap_tell(FILE *f, const void *block, size_t bytes, uint64_t held)
{
	struct heap_truth t = {(uintptr_t)block, bytes, held};

	fwrite(&t, sizeof(t), 1, f);
}

/* Takes pages out of the middle of a heap, or makes them zeroes. */
static inline void heap_tear(const struct heap_worker *w)
{
	for (unsigned int i = 100; i < HEAP_SLOTS; i += 1000) {
		void *page = (void *)((uintptr_t)w->slots[i].block & ~4095ul);

		if (page && i % 2000 == 100)
			munmap(page, 4096);
		else if (page)
			madvise(page, 8192, MADV_DONTNEED);
	}
}

#define HEAP_EITHER 2 /* nobody can tell */

/* One block of each kind, all in order. */
static inline void heap_kinds(FILE *f)
{
	enum {
		COUNT = 9
	};
	unsigned char *small[COUNT], *big[COUNT], *block, *next;

	/* Seven go to the tcache, two to a fastbin, or to the tcache as well. */
	for (int i = 0; i < COUNT; i++)
		small[i] = __libc_malloc(56);
	for (int i = 0; i < COUNT; i++)
		big[i] = __libc_malloc(3000);
	block = __libc_malloc(200);
	heap_tell(f, block, 200, 1);
	for (int i = 0; i < COUNT; i++) {
		__libc_free(small[i]);
		heap_tell(f, small[i], 56, 0);
	}
	/* Become one, then parts of others. */
	for (int i = 0; i < COUNT; i++) {
		__libc_free(big[i]);
		heap_tell(f, big[i], 3000, 0);
	}
	block = __libc_malloc(7000);
	heap_tell(f, block, 7000, 1);
	/* Own mappings, of all sizes as to pages. */
	for (size_t bytes = 200000; bytes < 205000; bytes += 8)
		heap_tell(f, __libc_malloc(bytes), bytes, 1);
	block = __libc_malloc(3 << 20);
	next = __libc_malloc(5 << 20);
	heap_tell(f, next, 5 << 20, 1);
	heap_tell(f, block, 3 << 20, 0);
	__libc_free(block);
	block = __libc_valloc(5000);
	heap_tell(f, block, 5000, 1);
	/* Shrunk in place without our knowledge. */
	block = __libc_malloc(20000);
	if (__libc_realloc(block, 600) == block)
		heap_tell(f, block, 20000, HEAP_EITHER);
	block = __libc_calloc(1, 1);
	heap_tell(f, block, 0, 1);
	/* Merged into the top. */
	block = __libc_malloc(30000);
	next = __libc_malloc(40000);
	__libc_free(block);
	__libc_free(next);
	heap_tell(f, block, 30000, 0);
	heap_tell(f, next, 40000, 0);
}

static inline int heap_kinds_main(const char *file)
{
	static char buffer[1 << 16];
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s.new", file);
	f = fopen(path, "we");
	if (!f)
		return 1;
	setvbuf(f, buffer, _IOFBF, sizeof(buffer));
	heap_kinds(f);
	fflush(f);
	rename(path, file);
	for (;;)
		pause();
}

/* What main() does last in the child: never returns but for errors. @file appears when all is
 * ready. @mode: "still", "trim" (main's top is given back), "running",
 * "kinds", or "torn" (pages of the heaps are not there any more). */
static inline int heap_child_main(const char *file, uint64_t seed, const char *mode)
{
	bool for_ever = !strcmp(mode, "running");
	pthread_t threads[HEAP_THREADS];
	struct heap_worker *w;
	char path[512];
	FILE *f;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (!strcmp(mode, "kinds"))
		return heap_kinds_main(file);
	w = heap_workers_new(seed, 150000, for_ever);
	if (!w)
		return 1;
	for (unsigned int i = 1; i < HEAP_THREADS; i++)
		if (pthread_create(&threads[i], NULL, heap_work, &w[i]))
			return 1;
	heap_work(&w[0]);
	for (unsigned int i = 1; i < HEAP_THREADS; i++)
		while (w[i].state < (for_ever ? 1 : 2))
			usleep(1000);
	/* Blocks of other threads go to this thread's cache, then to their arenas. */
	if (!for_ever) {
		pthread_join(threads[4], NULL);
		heap_free_some(&w[0], &w[3], 1, 7);
	}
	if (!strcmp(mode, "trim")) {
		heap_free_some(&w[0], &w[0], HEAP_SLOTS / 2, 1);
		malloc_trim(0);
	}
	for (unsigned int i = 0; i < HEAP_THREADS && !strcmp(mode, "torn"); i++)
		heap_tear(&w[i]);
	snprintf(path, sizeof(path), "%s.new", file);
	f = fopen(path, "we");
	if (!f)
		return 1;
	for (unsigned int i = 0; i < HEAP_THREADS; i++)
		heap_write(f, &w[i]);
	fclose(f);
	rename(path, file);
	for (;;)
		pause();
}

#endif
