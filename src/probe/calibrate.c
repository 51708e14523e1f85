/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "probe/calibrate.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* The best of some rounds: a measurement can only be disturbed upwards. */
#define ROUNDS 4
#define LINE_BYTES 64

/*
 * A program works between two allocations, and then neither what the kernel needs is in the
 * caches nor, after the trap, what the program needs. Little work leaves them in the second
 * cache; after much, nothing is where it was.
 */
#define LITTLE_BYTES (48u << 10)
#define LITTLE_CALLS 800
#define MUCH_BYTES (3u << 20)
#define MUCH_CALLS 101
#define MUCH 0x80 /* in a message, beside the function's number */

/* The child that is probed; it answers a function's number with its time. */
struct subject {
	pid_t pid;
	int socket;
};

static void work(const volatile char *memory, size_t bytes)
{
	for (size_t i = 0; i < bytes; i += LINE_BYTES)
		(void)memory[i];
}

static char memory[MUCH_BYTES];

static double clock_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static double time_after_little(self_fn fn)
{
	double best = INFINITY;

	for (int round = 0; round < ROUNDS; round++) {
		double begin_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);

		for (int i = 0; i < LITTLE_CALLS; i++) {
			work(memory, LITTLE_BYTES);
			fn();
		}
		best = fmin(best, clock_ns(CLOCK_THREAD_CPUTIME_ID) - begin_ns);
	}
	return best / LITTLE_CALLS;
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* The work takes longer than the call, and not always the same: the call alone is timed, by
 * a clock that is read without the kernel. */
static double time_after_much(self_fn fn)
{
	double ns[MUCH_CALLS];

	for (int i = 0; i < MUCH_CALLS; i++) {
		double begin_ns;

		work(memory, MUCH_BYTES);
		begin_ns = clock_ns(CLOCK_MONOTONIC);
		fn();
		ns[i] = clock_ns(CLOCK_MONOTONIC) - begin_ns;
	}
	qsort(ns, MUCH_CALLS, sizeof(*ns), by_size);
	return ns[MUCH_CALLS / 2];
}

static void subject_main(int socket)
{
	unsigned char message;

	while (read(socket, &message, 1) == 1 && (message & ~MUCH) < SELF_FUNCTIONS) {
		self_fn fn = self_function((enum self_function)(message & ~MUCH));
		double ns = message & MUCH ? time_after_much(fn) : time_after_little(fn);

		if (write(socket, &ns, sizeof(ns)) != sizeof(ns))
			break;
	}
	_exit(0);
}

static int subject_start(struct subject *s)
{
	int sockets[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets))
		return -errno;
	s->pid = fork();
	if (s->pid == 0) {
		close(sockets[0]);
		subject_main(sockets[1]);
	}
	close(sockets[1]);
	s->socket = sockets[0];
	if (s->pid > 0)
		return 0;
	close(s->socket);
	return -errno;
}

static void subject_end(struct subject *s)
{
	close(s->socket);
	waitpid(s->pid, NULL, 0);
}

static double subject_time(const struct subject *s, int which)
{
	unsigned char message = (unsigned char)which;
	double ns;

	if (write(s->socket, &message, 1) != 1 || read(s->socket, &ns, sizeof(ns)) != sizeof(ns))
		return NAN;
	return ns;
}

/* Added time of a call to each function, all probed by one link: to take a link off takes
 * longer than to measure. */
static void probed_times(const struct subject *s, int attach_type,
			 const double untraced_ns[SELF_FUNCTIONS], double out[SELF_FUNCTIONS],
			 double *after_work_ns)
{
	uint64_t offsets[SELF_FUNCTIONS], cookies[SELF_FUNCTIONS] = {0};
	int prog = uprobe_empty_program(attach_type), link = -1;
	bool found = true;

	for (int i = 0; i < SELF_FUNCTIONS; i++) {
		found &= !self_offset((enum self_function)i, &offsets[i]);
		out[i] = NAN;
	}
	if (prog >= 0 && found)
		link = uprobe_multi_link(prog, attach_type, 0, s->pid, "/proc/self/exe", offsets,
					 cookies, SELF_FUNCTIONS);
	for (int i = 0; link >= 0 && i < SELF_FUNCTIONS; i++)
		out[i] = subject_time(s, i) - untraced_ns[i];
	if (link >= 0 && after_work_ns)
		*after_work_ns = subject_time(s, SELF_PUSH | MUCH) - *after_work_ns;
	if (link >= 0)
		close(link);
	if (prog >= 0)
		close(prog);
}

int calibrate(enum probe_method method, struct calibration *out)
{
	double untraced_ns[SELF_FUNCTIONS];
	struct subject subject;
	int err;

	if (method == METHOD_PERF)
		return -ENOTSUP;
	err = subject_start(&subject);
	if (err)
		return err;
	for (int i = 0; i < SELF_FUNCTIONS; i++) {
		untraced_ns[i] = subject_time(&subject, i);
		out->return_ns[i] = NAN;
	}
	/* First without probes; what is left there is the difference. */
	out->after_work_ns = subject_time(&subject, SELF_PUSH | MUCH);
	probed_times(&subject, ATTACH_UPROBE_MULTI, untraced_ns, out->entry_ns,
		     &out->after_work_ns);
	out->after_work_ns -= out->entry_ns[SELF_PUSH];
	if (method == METHOD_SESSION)
		probed_times(&subject, ATTACH_UPROBE_SESSION, untraced_ns, out->return_ns, NULL);
	subject_end(&subject);
	return 0;
}
