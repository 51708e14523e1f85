/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which container or systemd unit a cgroup path belongs to: one row a runtime. */
#ifndef LEAKTOP_CONTAINER_H
#define LEAKTOP_CONTAINER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct container {
	char id[80];	     /* as in the cgroup path */
	char name[128];	     /* "" if unknown */
	const char *runtime; /* "docker", "podman", "containerd", "cri-o", "lxc", "nspawn", "runc",
				"crun"; static storage */
};

/* From the path alone; name is filled in only where the path holds it (LXC,
 * nspawn). False if the path is of no container. The innermost one counts. */
bool container_from_cgroup(const char *cgroup_path, struct container *out);

/*
 * The container of @pid, with its name from the runtime's own files where they
 * can be read. @cgroup_path as from cgroup_of(). 1 found, 0 none, or negative
 * errno. Files of runtimes are hostile: sizes are bounded.
 */
int container_of_process(pid_t pid, const char *cgroup_path, struct container *out);

/* Whether the user's @wanted is this container: its full name, or a prefix of
 * its id of at least 3 characters, or a prefix of its name. */
bool container_matches(const struct container *c, const char *wanted);

/* Copies the innermost "NAME.service" or "NAME.scope" of the path (systemd's
 * \xNN escapes kept); false if there is none. */
bool unit_from_cgroup(const char *cgroup_path, char *buf, size_t size);

#endif
