/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sym/debug_file.h"

#include <errno.h>
#include <fcntl.h>
#include <gelf.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "sym/elf_file.h"

static int check_build_id(int fd, const char *build_id)
{
	char hex[BUILD_ID_HEX_BYTES];
	Elf *elf;
	int err;

	err = elf_file_open(fd, &elf);
	if (err)
		return err;
	err = elf_file_build_id(elf, hex);
	if (!err && strcmp(hex, build_id))
		err = -ENOENT;
	elf_end(elf);
	return err;
}

int debug_file_open(const char *root, const char *build_id)
{
	char path[PATH_MAX];
	int fd, n, err;

	if (strlen(build_id) < 4 || strspn(build_id, "0123456789abcdef") != strlen(build_id))
		return -EINVAL;
	n = snprintf(path, sizeof(path), "%s/.build-id/%.2s/%s.debug", root, build_id,
		     build_id + 2);
	if (n < 0 || (size_t)n >= sizeof(path))
		return -ENAMETOOLONG;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return -errno;
	err = check_build_id(fd, build_id);
	if (err) {
		close(fd);
		return err;
	}
	return fd;
}
