/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The mounts a process sees: /proc/PID/mountinfo. */
#ifndef LEAKTOP_MOUNTINFO_H
#define LEAKTOP_MOUNTINFO_H

#include <sys/types.h>

/* One line; the strings are unescaped and valid until the next call. */
struct mount {
	dev_t dev;
	const char *root;  /* what of the file system is mounted */
	const char *point; /* where, in the process's own view */
	const char *fs_type;
	const char *options; /* of the file system (not of the mount), with commas */
};

struct mount_iter;
/* @pid 0: our own. Returns 0 or negative errno (-ESRCH: gone). */
int mount_iter_new(pid_t pid, struct mount_iter **out);
/* 1 and a mount, 0 at the end, negative errno. Lines that make no sense are passed
 * over; a user name space may hold any number of mounts, so their number is bounded. */
int mount_iter_next(struct mount_iter *it, struct mount *out);
void mount_iter_free(struct mount_iter *it);

/* Parses one line (without its newline), which is changed. Returns 0 or -EINVAL. */
int mount_parse(char *line, struct mount *out);

/* What follows @dir in @path, from the slash on ("" if they are equal), or NULL if
 * @path is not @dir or below it. @dir may be "/". */
const char *path_below(const char *path, const char *dir);

#endif
