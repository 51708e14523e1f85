/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A Python process that runs a script, prints a line when it is ready, and waits. */
#ifndef LEAKTOP_TEST_PYTHON_CHILD_H
#define LEAKTOP_TEST_PYTHON_CHILD_H

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

struct python_child {
	pid_t pid;
	char line[4096]; /* what it printed */
};

static inline bool python_child_start(struct python_child *c, const char *path, const char *script)
{
	int out[2];
	FILE *f;

	if (pipe(out) < 0)
		return false;
	fflush(NULL);
	c->pid = fork();
	if (c->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(out[1], STDOUT_FILENO);
		close(out[0]);
		close(out[1]);
		execl(path, path, "-c", script, (char *)NULL);
		_exit(127);
	}
	close(out[1]);
	f = fdopen(out[0], "r");
	if (f && fgets(c->line, sizeof(c->line), f)) {
		fclose(f);
		return true;
	}
	if (f)
		fclose(f);
	waitpid(c->pid, NULL, 0);
	return false;
}

static inline void python_child_stop(const struct python_child *c)
{
	kill(c->pid, SIGKILL);
	waitpid(c->pid, NULL, 0);
}

/* Calls @check with /usr/bin/python3 and those that LEAKTOP_PYTHONS names (paths with ':'
 * between them). */
static inline void python_child_each(void (*check)(const char *path))
{
	const char *named = getenv("LEAKTOP_PYTHONS");
	char *list = named ? strdup(named) : NULL, *rest = NULL;

	check("/usr/bin/python3");
	for (char *path = list ? strtok_r(list, ":", &rest) : NULL; path;
	     path = strtok_r(NULL, ":", &rest))
		check(path);
	free(list);
}

#endif
