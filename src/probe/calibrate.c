/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "probe/calibrate.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CALLS 800
#define ROUNDS 4 /* the best of these: a measurement can only be disturbed upwards */

/* The child that is probed; it answers a function's number with its time. */
struct subject {
	pid_t pid;
	int socket;
};

/* A program works between two allocations, and what it needs is no longer in the first cache
 * after a trap, nor the kernel's code before it. */
#define WORK_BYTES (48 * 1024)
#define LINE_BYTES 64

static void work(const volatile char *memory)
{
	for (size_t i = 0; i < WORK_BYTES; i += LINE_BYTES)
		(void)memory[i];
}

static double time_calls(enum self_function which)
{
	static char memory[WORK_BYTES];
	self_fn fn = self_function(which);
	double best = INFINITY;

	for (int round = 0; round < ROUNDS; round++) {
		struct timespec a, b;
		double ns;

		clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a);
		for (int i = 0; i < CALLS; i++) {
			work(memory);
			fn();
		}
		clock_gettime(CLOCK_THREAD_CPUTIME_ID, &b);
		ns = (double)(b.tv_sec - a.tv_sec) * 1e9 + (double)(b.tv_nsec - a.tv_nsec);
		best = fmin(best, ns / CALLS);
	}
	return best;
}

static void subject_main(int socket)
{
	unsigned char which;

	while (read(socket, &which, 1) == 1 && which < SELF_FUNCTIONS) {
		double ns = time_calls((enum self_function)which);

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

static double subject_time(const struct subject *s, enum self_function which)
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
			 const double untraced_ns[SELF_FUNCTIONS], double out[SELF_FUNCTIONS])
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
		out[i] = subject_time(s, (enum self_function)i) - untraced_ns[i];
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
		untraced_ns[i] = subject_time(&subject, (enum self_function)i);
		out->return_ns[i] = NAN;
	}
	probed_times(&subject, ATTACH_UPROBE_MULTI, untraced_ns, out->entry_ns);
	if (method == METHOD_SESSION)
		probed_times(&subject, ATTACH_UPROBE_SESSION, untraced_ns, out->return_ns);
	subject_end(&subject);
	return 0;
}
