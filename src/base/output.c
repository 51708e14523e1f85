/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

int output_open(const char *path, FILE **out)
{
	FILE *file;
	int fd, err;

	if (!path) {
		*out = stdout;
		return 0;
	}
	/* We are root: create nothing that others can read, write through no link. */
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	file = fd < 0 ? NULL : fdopen(fd, "w");
	if (file) {
		*out = file;
		return 0;
	}
	err = -errno;
	log_error("cannot write to %s: %s", path, strerror(-err));
	if (fd >= 0)
		close(fd);
	return err;
}

void output_close(FILE *out)
{
	if (out && out != stdout)
		fclose(out);
}

static int write_flushed(FILE *out, const char *text, size_t size)
{
	errno = 0;
	if (fwrite(text, 1, size, out) != size || fflush(out))
		return errno ? -errno : -EIO;
	return 0;
}

int output_whole(FILE *out, output_render_fn *render, const void *what)
{
	char *text = NULL;
	size_t size = 0;
	FILE *memory = open_memstream(&text, &size);
	bool failed;
	int err;

	if (!memory)
		return -ENOMEM;
	err = render(memory, what);
	failed = ferror(memory);
	if (fclose(memory) || failed)
		err = -ENOMEM;
	if (!err)
		err = write_flushed(out, text, size);
	free(text);
	return err;
}
