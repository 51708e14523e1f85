/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "target/text_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define FIRST_BYTES 4096

static int open_regular(const char *path)
{
	struct stat st;
	int fd, err = 0;

	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0)
		err = -errno;
	else if (!S_ISREG(st.st_mode))
		err = -EINVAL;
	if (err) {
		close(fd);
		return err;
	}
	return fd;
}

/* Makes room for one more read and the NUL byte. The size of a file in /proc is 0, so
 * st_size cannot be asked. */
static int grow(char **buf, size_t *room)
{
	size_t larger = *room ? *room * 2 : FIRST_BYTES;
	char *p = realloc(*buf, larger);

	if (!p)
		return -ENOMEM;
	*buf = p;
	*room = larger;
	return 0;
}

int text_file_read(const char *path, size_t max_bytes, char **out, size_t *size_bytes)
{
	size_t used = 0, room = 0;
	char *buf = NULL;
	int fd, err = 0;
	ssize_t n;

	fd = open_regular(path);
	if (fd < 0)
		return fd;
	do {
		if (room - used < 2) {
			err = grow(&buf, &room);
			if (err)
				goto out;
		}
		n = read(fd, buf + used, room - used - 1);
		if (n < 0 && errno != EINTR) {
			err = -errno;
			goto out;
		}
		used += n > 0 ? (size_t)n : 0;
		if (used > max_bytes) {
			err = -EFBIG;
			goto out;
		}
	} while (n);
	buf[used] = '\0';
	*out = buf;
	buf = NULL;
	if (size_bytes)
		*size_bytes = used;
out:
	free(buf);
	close(fd);
	return err;
}
