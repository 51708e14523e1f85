/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A directory for the files of one test, made and filled by shell commands. */
#ifndef LEAKTOP_TEST_SCRATCH_DIR_H
#define LEAKTOP_TEST_SCRATCH_DIR_H

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct scratch_dir {
	char path[64];
};

static inline int scratch_make(struct scratch_dir *d)
{
	strcpy(d->path, "/tmp/leaktop-test-XXXXXX");
	return mkdtemp(d->path) ? 0 : -1;
}

/* The status of @command, which runs there and writes what it says to "log". */
static inline int scratch_run(const struct scratch_dir *d, const char *command)
{
	char line[4096];

	snprintf(line, sizeof(line), "cd '%s' && { %s; } >>log 2>&1", d->path, command);
	return system(line);
}

static inline int scratch_remove(const struct scratch_dir *d)
{
	char line[128];

	snprintf(line, sizeof(line), "rm -rf '%s'", d->path);
	return system(line);
}

static inline const char *scratch_path(const struct scratch_dir *d, const char *name, char *path)
{
	snprintf(path, PATH_MAX, "%s/%s", d->path, name);
	return path;
}

static inline int scratch_open(const struct scratch_dir *d, const char *name, int flags)
{
	char path[PATH_MAX];

	return open(scratch_path(d, name, path), flags | O_CLOEXEC, 0600);
}

static inline int scratch_write(const struct scratch_dir *d, const char *name, const void *bytes,
				size_t size)
{
	int fd = scratch_open(d, name, O_WRONLY | O_CREAT | O_TRUNC);
	ssize_t n = write(fd, bytes, size);

	close(fd);
	return n == (ssize_t)size ? 0 : -1;
}

#endif
