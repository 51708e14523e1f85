/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The cgroups that watched processes are in, and those above them. Each is read once a
 * pass, however many processes it has. */
#ifndef LEAKTOP_CGROUP_TABLE_H
#define LEAKTOP_CGROUP_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "target/container.h"
#include "watch/cgroup_memory.h"
#include "watch/growth.h"

struct watched_cgroup {
	char *path;
	bool v1;
	struct watched_cgroup *parent; /* NULL: the root, of which nothing is read */
	bool in_container;
	struct container container;
	char unit[256]; /* "": none */
	struct cgroup_usage usage;
	bool usage_known;   /* else all its figures mean nothing */
	uint32_t processes; /* watched ones, in itself */
	struct growth_history recent, longer;

	/* The table's own: */
	size_t hash;
	uint32_t references, name_tries;
	struct cgroup_memory *memory;
};

struct cgroup_table;
/* @recent_samples, @longer_samples: as of growth_history_init(). 0 or negative errno. */
int cgroup_table_new(uint32_t recent_samples, uint32_t longer_samples, struct cgroup_table **out);
void cgroup_table_free(struct cgroup_table *t);

/* The cgroup of @pid, a reference that cgroup_table_put() gives back. 0, -ESRCH, or -ENOSPC:
 * too many are held. */
int cgroup_table_get(struct cgroup_table *t, pid_t pid, struct watched_cgroup **out);
/* Accepts NULL. */
void cgroup_table_put(struct cgroup_table *t, struct watched_cgroup *g);

/* Reads them all. */
void cgroup_table_pass(struct cgroup_table *t, double time_s);

size_t cgroup_table_count(const struct cgroup_table *t);
const struct watched_cgroup *cgroup_table_at(const struct cgroup_table *t, size_t i);

#endif
