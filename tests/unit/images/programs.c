/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Stacks to be captured: each mode gets into its position and allocates MARK
 * bytes, where the capture stops it.
 */
#include <alloca.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MARK 4711
#define NOINLINE __attribute__((noinline, noclone))

static void *volatile kept;

static NOINLINE int mark(void)
{
	kept = malloc(MARK);
	return kept != NULL;
}

static int compare(const void *a, const void *b)
{
	static int calls;

	if (++calls == 5)
		mark();
	return *(const int *)a - *(const int *)b;
}

static NOINLINE int sort(void)
{
	int values[] = {7, 3, 9, 1, 8, 2, 6};

	qsort(values, sizeof(values) / sizeof(*values), sizeof(*values), compare);
	return values[0];
}

static NOINLINE int recurse(int depth)
{
	volatile int held = depth;
	int below = depth ? recurse(depth - 1) : mark();

	return below + held;
}

/* A variable-length frame, and one that is aligned to more than the ABI promises and
 * has arguments on the stack: found through a pointer that is itself on the stack. */
static NOINLINE int align(int a, int b, int c, int d, int e, int f, int g, int n)
{
	char *low = alloca((size_t)n);
	char wide[128] __attribute__((aligned(64)));

	memset(low, a, (size_t)n);
	memset(wide, b + c + d + e + f, sizeof(wide));
	kept = wide;
	mark();
	return low[n - 1] + wide[g];
}

static NOINLINE int vary(int n)
{
	char bytes[n];

	memset(bytes, n, (size_t)n);
	kept = bytes;
	return align(n, 1, 2, 3, 4, 5, 6, n) + bytes[n / 2];
}

static void on_signal(int number)
{
	(void)number;
	mark();
}

static void handle(int flags)
{
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = flags};

	sigaction(SIGUSR1, &action, NULL);
}

static NOINLINE int take_signal(void)
{
	handle(0);
	return raise(SIGUSR1);
}

static NOINLINE int take_signal_elsewhere(void)
{
	static char bytes[65536];
	stack_t there = {.ss_sp = bytes, .ss_size = sizeof(bytes)};

	sigaltstack(&there, NULL);
	handle(SA_ONSTACK);
	return raise(SIGUSR1);
}

static void *thread_main(void *arg)
{
	(void)arg;
	sort();
	return NULL;
}

static NOINLINE int start_thread(void)
{
	pthread_t thread;

	pthread_create(&thread, NULL, thread_main, NULL);
	return pthread_join(thread, NULL);
}

/* Code made at run time, with a frame pointer: push rbp; mov rbp, rsp; call rdi; leave; ret */
static NOINLINE int run_generated(void)
{
	static const uint8_t code[] = {0x55, 0x48, 0x89, 0xe5, 0xff, 0xd7, 0xc9, 0xc3};
	uint8_t *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED)
		return 1;
	memcpy(page, code, sizeof(code));
	return ((int (*)(int (*)(void)))(void *)page)(mark)-1;
}

/* The capture sends SIGUSR1 when the PLT or the vdso is entered. */
static NOINLINE int wait_for_signal(void)
{
	struct timespec now;

	handle(0);
	clock_gettime(CLOCK_MONOTONIC, &now);
	return getppid() < 0;
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "";

	if (!strcmp(mode, "sort"))
		return sort();
	if (!strcmp(mode, "recurse"))
		return recurse(atoi(argv[2]));
	if (!strcmp(mode, "vary"))
		return vary(atoi(argv[2]));
	if (!strcmp(mode, "signal"))
		return take_signal();
	if (!strcmp(mode, "altstack"))
		return take_signal_elsewhere();
	if (!strcmp(mode, "thread"))
		return start_thread();
	if (!strcmp(mode, "generated"))
		return run_generated();
	return wait_for_signal();
}
