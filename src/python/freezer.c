/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "python/freezer.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define THREADS_MAX 65536
#define WAIT_NS 200000
#define WAITS_MAX 5000 /* a second in all */

struct freezer {
	pid_t tracer;
	int fd; /* closing it ends the tracer */
};

struct held_threads {
	pid_t tids[THREADS_MAX];
	size_t count, stopped; /* the first ones have stopped */
};

static bool is_held(const struct held_threads *h, pid_t tid)
{
	for (size_t i = 0; i < h->count; i++)
		if (h->tids[i] == tid)
			return true;
	return false;
}

static int hold(struct held_threads *h, pid_t tid)
{
	if (h->count == THREADS_MAX)
		return -E2BIG;
	if (ptrace(PTRACE_SEIZE, tid, NULL, NULL))
		return errno == ESRCH ? 0 : -errno;
	h->tids[h->count++] = tid;
	return ptrace(PTRACE_INTERRUPT, tid, NULL, NULL) && errno != ESRCH ? -errno : 0;
}

/* Seizes threads that are new; their number, or negative errno. */
static int hold_new(pid_t pid, struct held_threads *h)
{
	size_t before = h->count;
	struct dirent *entry;
	char path[64];
	int err = 0;
	DIR *tasks;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	tasks = opendir(path);
	if (!tasks)
		return errno == ENOENT ? -ESRCH : -errno;
	while (!err && (entry = readdir(tasks))) {
		pid_t tid = atoi(entry->d_name);

		if (tid > 0 && !is_held(h, tid))
			err = hold(h, tid);
	}
	closedir(tasks);
	return err ? err : (int)(h->count - before);
}

static int wait_stopped(struct held_threads *h, int *waits)
{
	const struct timespec wait = {0, WAIT_NS};

	while (h->stopped < h->count) {
		int status;
		pid_t tid = waitpid(h->tids[h->stopped], &status, __WALL | WNOHANG);

		/* Any stop is as good; one that is gone is, too. */
		if (tid) {
			h->stopped++;
			continue;
		}
		if (!(*waits)--)
			return -ETIMEDOUT;
		nanosleep(&wait, NULL);
	}
	return 0;
}

static int hold_all(pid_t pid)
{
	struct held_threads *h = calloc(1, sizeof(*h));
	int waits = WAITS_MAX, n = h ? 1 : -ENOMEM;

	/* Threads can be born until all stand still. */
	while (n > 0) {
		n = hold_new(pid, h);
		if (n > 0) {
			int err = wait_stopped(h, &waits);

			n = err ? err : n;
		}
	}
	if (!n && !h->count)
		n = -ESRCH;
	free(h);
	return n;
}

/* The child: says how it went and stays until nobody holds the other end. */
static void __attribute__((noreturn)) run_tracer(pid_t pid, int fd)
{
	int err;
	char end;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	err = hold_all(pid);
	if (write(fd, &err, sizeof(err)) == sizeof(err) && !err)
		while (read(fd, &end, 1) < 0 && errno == EINTR)
			;
	_exit(0);
}

int freezer_new(pid_t pid, struct freezer **out)
{
	struct freezer *f = malloc(sizeof(*f));
	int fds[2], err = 0;

	if (!f)
		return -ENOMEM;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds)) {
		err = -errno;
		free(f);
		return err;
	}
	f->fd = fds[0];
	f->tracer = fork();
	if (f->tracer == 0) {
		close(fds[0]);
		run_tracer(pid, fds[1]);
	}
	if (f->tracer < 0)
		err = -errno;
	close(fds[1]);
	if (!err && read(f->fd, &err, sizeof(err)) != sizeof(err))
		err = -EIO;
	if (err) {
		freezer_free(f);
		return err;
	}
	*out = f;
	return 0;
}

void freezer_free(struct freezer *f)
{
	if (!f)
		return;
	close(f->fd);
	while (f->tracer > 0 && waitpid(f->tracer, NULL, 0) < 0 && errno == EINTR)
		;
	free(f);
}
