/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A child process to look at: set up in some way, then waiting to be killed. */
#ifndef LEAKTOP_TEST_CHILD_H
#define LEAKTOP_TEST_CHILD_H

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* @setup (may be NULL) runs in the child; non-zero means it could not be done. Returns
 * the pid once it has run, or -1. */
static inline pid_t child_start(int (*setup)(const char *arg), const char *arg)
{
	char ready = 0;
	int fds[2];
	pid_t pid;

	if (pipe(fds) < 0)
		return -1;
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(fds[0]);
		if (setup && setup(arg))
			_exit(1);
		if (write(fds[1], "x", 1) != 1)
			_exit(1);
		close(fds[1]);
		for (;;)
			pause();
	}
	close(fds[1]);
	if (pid > 0 && read(fds[0], &ready, 1) != 1) {
		waitpid(pid, NULL, 0);
		pid = -1;
	}
	close(fds[0]);
	return pid;
}

/* The dynamic linker changes the mappings until the program proper waits. */
static inline void child_settle(pid_t pid)
{
	char path[64], text[512];
	const char *end;
	int tries;
	size_t n;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	for (tries = 0; tries < 5000; tries++) {
		f = fopen(path, "re");
		if (!f)
			return;
		n = fread(text, 1, sizeof(text) - 1, f);
		fclose(f);
		text[n] = '\0';
		end = strrchr(text, ')');
		if (end && strncmp(end, ") S", 3) == 0)
			return;
		usleep(1000);
	}
}

/* Runs @path with one argument, which must wait by itself. The pipe closes at the exec:
 * the pid is returned when the new program is in place and waits, or -1. */
static inline pid_t child_exec(const char *path, const char *arg)
{
	char failed;
	int fds[2];
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -1;
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execl(path, path, arg, (char *)NULL);
		if (write(fds[1], "x", 1) != 1)
			_exit(2);
		_exit(1);
	}
	close(fds[1]);
	if (pid > 0 && read(fds[0], &failed, 1) != 0) {
		waitpid(pid, NULL, 0);
		pid = -1;
	}
	close(fds[0]);
	if (pid > 0)
		child_settle(pid);
	return pid;
}

static inline void child_stop(pid_t pid)
{
	if (pid <= 0)
		return;
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static inline int write_file(const char *path, const char *text)
{
	FILE *f = fopen(path, "we");

	if (!f)
		return -1;
	fputs(text, f);
	return fclose(f);
}

/* A copy of an executable under another name. */
static inline int copy_program(const char *from, const char *to)
{
	char *argv[] = {(char *)"cp", (char *)from, (char *)to, NULL};
	int status = -1;
	pid_t pid;

	pid = fork();
	if (pid == 0) {
		execvp(argv[0], argv);
		_exit(1);
	}
	waitpid(pid, &status, 0);
	return status;
}

#endif
