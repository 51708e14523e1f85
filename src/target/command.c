/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "target/command.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct command {
	pid_t pid;
	bool held; /* under ptrace, stopped or on its way to a stop */
	bool ended;
};

/* In the child: the errno of a failed exec goes back through the pipe, which an
 * exec that works closes. */
static void child_exec(char *const argv[], int report_fd)
{
	sigset_t none;
	int err;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	/* Should we be killed while it is stopped, it goes on. */
	prctl(PR_SET_PDEATHSIG, SIGCONT);
	signal(SIGPIPE, SIG_DFL); /* ours is ignored, and that outlives an exec */
	if (!ptrace(PTRACE_TRACEME, 0, NULL, NULL))
		execvp(argv[0], argv);
	err = errno;
	if (write(report_fd, &err, sizeof(err)) < 0)
		_exit(126);
	_exit(127);
}

/* Waits for the SIGTRAP that an exec under ptrace ends with. */
static int wait_exec(struct command *c, int report_fd)
{
	int status, err;

	if (read(report_fd, &err, sizeof(err)) == sizeof(err)) {
		waitpid(c->pid, &status, 0);
		c->ended = true;
		return -err;
	}
	if (waitpid(c->pid, &status, 0) < 0)
		return -errno;
	if (!WIFSTOPPED(status)) {
		c->ended = true;
		return -ECHILD;
	}
	c->held = true;
	return 0;
}

int command_start(char *const argv[], struct command **out)
{
	struct command *c = calloc(1, sizeof(*c));
	int fds[2], err;

	if (!c)
		return -ENOMEM;
	if (pipe2(fds, O_CLOEXEC)) {
		err = -errno;
		free(c);
		return err;
	}
	c->pid = fork();
	if (c->pid == 0)
		child_exec(argv, fds[1]);
	err = c->pid < 0 ? -errno : 0;
	close(fds[1]);
	if (!err)
		err = wait_exec(c, fds[0]);
	close(fds[0]);
	if (err) {
		command_free(c);
		return err;
	}
	*out = c;
	return 0;
}

void command_free(struct command *c)
{
	if (!c)
		return;
	if (c->held && !c->ended) {
		kill(c->pid, SIGKILL);
		waitpid(c->pid, NULL, 0);
	}
	free(c);
}

pid_t command_pid(const struct command *c)
{
	return c->pid;
}

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* One change of state. 1: held at our SIGSTOP, 0: ended, -EAGAIN: go on waiting. */
static int handle_stop(struct command *c, int status)
{
	int sig;

	if (!WIFSTOPPED(status)) {
		c->ended = true;
		c->held = false;
		return 0;
	}
	sig = WSTOPSIG(status);
	if (sig == SIGSTOP)
		return 1;
	ptrace(PTRACE_CONT, c->pid, NULL, (void *)(intptr_t)(sig == SIGTRAP ? 0 : sig));
	return -EAGAIN;
}

int command_run_to_stop(struct command *c, int timeout_ms)
{
	const struct timespec pause = {.tv_nsec = 200000};
	int64_t deadline = now_ms() + timeout_ms;
	int status, result;
	pid_t pid;

	if (ptrace(PTRACE_CONT, c->pid, NULL, NULL))
		return -errno;
	while (now_ms() < deadline) {
		pid = waitpid(c->pid, &status, WNOHANG);
		if (pid < 0)
			return -errno;
		if (pid == 0) {
			nanosleep(&pause, NULL);
			continue;
		}
		result = handle_stop(c, status);
		if (result != -EAGAIN)
			return result;
	}
	/* Only a stopped tracee can be let go. */
	kill(c->pid, SIGSTOP);
	while (waitpid(c->pid, &status, 0) == c->pid) {
		result = handle_stop(c, status); /* other signals come first, or its end */
		if (result == 1)
			command_release(c);
		if (result != -EAGAIN)
			break;
	}
	return 0;
}

void command_release(struct command *c)
{
	if (!c->held)
		return;
	ptrace(PTRACE_DETACH, c->pid, NULL, NULL);
	c->held = false;
}

void command_continue(struct command *c)
{
	if (!c->ended)
		kill(c->pid, SIGCONT);
}

bool command_has_ended(struct command *c)
{
	if (!c->ended && !c->held && waitpid(c->pid, NULL, WNOHANG) == c->pid)
		c->ended = true;
	return c->ended;
}
