/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A root directory to open files in: ours, or that of a target, which may have laid
 * out links, pipes and devices for whoever opens its files.
 */
#ifndef LEAKTOP_FILE_ROOT_H
#define LEAKTOP_FILE_ROOT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* The root of the process that has this pid and start time, as a descriptor that is
 * only good for the functions below. -ESRCH: that process is gone. */
int file_root_open(pid_t pid, uint64_t start_ticks);
/* Ours. */
int file_root_open_host(void);
/* Whether both are the same directory. */
bool file_root_same(int a, int b);

/*
 * Opens @path for reading as a process with that root would: symbolic links and ".."
 * do not lead out of it. Only regular files; anything else is not even opened.
 * A descriptor, -EINVAL if it is no regular file, or another negative errno.
 * No limit in time: a file system that hangs, hangs the caller.
 */
int file_root_open_file(int root, const char *path);
/* The same, but what @path names itself must be no link: -EINVAL. */
int file_root_open_no_link(int root, const char *path);

#endif
