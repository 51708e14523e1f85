/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Control groups, v1 and v2 and both at once. */
#ifndef LEAKTOP_CGROUP_H
#define LEAKTOP_CGROUP_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct cgroup_path {
	char path[PATH_MAX]; /* as in /proc/PID/cgroup, starts with '/' */
	bool v1;	     /* of the v1 memory controller (else of the v2 hierarchy) */
};

/*
 * The cgroup of @pid that tells most: the v1 memory controller's if there is
 * one and it is not "/", else v2's, else the deepest of any v1 hierarchy.
 * Returns 0 or negative errno (-ESRCH: gone).
 */
int cgroup_of(pid_t pid, struct cgroup_path *out);
/* Same, from the text of /proc/PID/cgroup. */
int cgroup_parse(const char *text, struct cgroup_path *out);

/* A directory in a cgroup file system, as the user named it. */
struct cgroup_dir;
/* @name: an absolute directory ("/sys/fs/cgroup/memory/x") or a path below any
 * cgroup mount ("x", "/system.slice/x"): all hierarchies that have it count.
 * Returns 0, -ENOENT if there is none, -ENOTDIR if it is no cgroup. */
int cgroup_dir_open(const char *name, struct cgroup_dir **out);
void cgroup_dir_free(struct cgroup_dir *d);
/* Whether @pid is in it or below it. 1, 0 or negative errno. */
int cgroup_dir_has(const struct cgroup_dir *d, pid_t pid);
/* Calls @fn for every process in it and below; a non-zero return of @fn stops
 * the walk and is returned. Depth and number of directories are bounded. */
int cgroup_dir_walk(const struct cgroup_dir *d, int (*fn)(pid_t pid, void *arg), void *arg);

#endif
