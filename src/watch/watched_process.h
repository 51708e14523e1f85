/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One process of the watch: who it is, where it belongs, and the past of its memory. */
#ifndef LEAKTOP_WATCHED_PROCESS_H
#define LEAKTOP_WATCHED_PROCESS_H

#include <stdint.h>
#include <sys/types.h>

#include "target/procfs.h"
#include "watch/cgroup_table.h"
#include "watch/growth.h"

struct memory_sample;

/* 2 samples: the last two minutes; 128: the last two hours. */
#define RECENT_SAMPLES 2
#define LONGER_SAMPLES 128

struct watched_process {
	struct cgroup_table *cgroups;
	char comm[COMM_BYTES];
	char *exe;		       /* NULL: unknown */
	struct watched_cgroup *cgroup; /* NULL: unknown */
	struct growth_history recent, longer;
	double held; /* bytes, last */
	uint32_t passes;
};

/* @cgroups is borrowed. NULL when out of memory. */
struct watched_process *watched_process_new(struct cgroup_table *cgroups);
void watched_process_free(struct watched_process *p);
/* Looks up now and then what can change: names (exec) and the cgroup. */
void watched_process_add(struct watched_process *p, pid_t pid, const struct memory_sample *sample,
			 double time_s);

#endif
