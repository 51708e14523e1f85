/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a cgroup's memory files say, of v1 and v2 hierarchies. */
#ifndef LEAKTOP_CGROUP_MEMORY_H
#define LEAKTOP_CGROUP_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

struct cgroup_path;

#define CGROUP_NO_LIMIT UINT64_MAX

struct cgroup_usage {
	/* With all below it, without what the kernel would drop first when it is short:
	 * usage less inactive file pages, the "working set" of Kubernetes. */
	uint64_t used_bytes;
	uint64_t limit_bytes; /* its own; CGROUP_NO_LIMIT */
};

/* Where the hierarchies are mounted. */
struct cgroup_mounts;
/* 0 or negative errno; to find none is no error. */
int cgroup_mounts_read(struct cgroup_mounts **out);
void cgroup_mounts_free(struct cgroup_mounts *m);

/* The open files of one cgroup. */
struct cgroup_memory;
/* 0, -ENOENT (no such cgroup, or without a memory controller) or another negative errno. */
int cgroup_memory_open(const struct cgroup_mounts *m, const struct cgroup_path *path,
		       struct cgroup_memory **out);
void cgroup_memory_free(struct cgroup_memory *c);
/* 0 or negative errno (-ENODEV, -ENOENT: it has been removed). */
int cgroup_memory_read(const struct cgroup_memory *c, struct cgroup_usage *out);

#endif
