/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Opening a device may start it (a watchdog), opening a pipe may wait. So the path
 * is first resolved without opening what it names (O_PATH), and the very file that
 * was looked at is opened through /proc/self/fd.
 */
#include "sym/file_root.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "target/procfs.h"

#define TRIES 8

int file_root_open(pid_t pid, uint64_t start_ticks)
{
	char path[64];
	uint64_t ticks;
	int fd, err;

	if (pid <= 0)
		return -ESRCH;
	snprintf(path, sizeof(path), "/proc/%d/root", pid);
	fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	/* Asked afterwards: a number that is still its own was so before, too. */
	err = procfs_start_ticks(pid, &ticks);
	if (!err && ticks != start_ticks)
		err = -ESRCH;
	if (err) {
		close(fd);
		return err;
	}
	return fd;
}

int file_root_open_host(void)
{
	int fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

bool file_root_same(int a, int b)
{
	struct stat one, other;

	return !fstat(a, &one) && !fstat(b, &other) && one.st_dev == other.st_dev &&
	       one.st_ino == other.st_ino;
}

static int resolve(int root, const char *path, uint64_t flags)
{
	struct open_how how = {
		.flags = O_PATH | O_CLOEXEC | flags,
		.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
	};
	int i, fd = -1;

	/* EAGAIN: something was renamed while ".." was followed (openat2(2)). */
	for (i = 0; i < TRIES; i++) {
		fd = (int)syscall(SYS_openat2, root, path, &how, sizeof(how));
		if (fd >= 0 || errno != EAGAIN)
			break;
	}
	return fd < 0 ? -errno : fd;
}

static int reopen(int fd)
{
	char path[64];
	struct stat st;
	int opened;

	if (fstat(fd, &st))
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	/* Without O_NONBLOCK a lease on the file would make us wait for its holder. */
	opened = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	return opened < 0 ? -errno : opened;
}

static int open_with(int root, const char *path, uint64_t flags)
{
	int fd = resolve(root, path, flags), opened;

	if (fd < 0)
		return fd;
	opened = reopen(fd);
	close(fd);
	return opened;
}

int file_root_open_file(int root, const char *path)
{
	return open_with(root, path, 0);
}

int file_root_open_no_link(int root, const char *path)
{
	return open_with(root, path, O_NOFOLLOW);
}
