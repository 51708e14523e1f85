/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Who a process is. Read once when it becomes a target, so that it can still be
 * named when it is gone. */
#ifndef LEAKTOP_PROCESS_H
#define LEAKTOP_PROCESS_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "target/cgroup.h"
#include "target/container.h"
#include "target/procfs.h"

struct process {
	pid_t pid;
	uint64_t start_ticks; /* with the pid, its identity */
	char comm[COMM_BYTES];
	char exe[PATH_MAX];
	struct cgroup_path cgroup;
	bool in_container;
	struct container container;
	char unit[256]; /* "": none */
};

/* Returns 0 or -ESRCH; what cannot be read otherwise stays empty. */
int process_read(pid_t pid, struct process *out);
/* A child that has just been forked: what it shares with @parent is taken from
 * there (NULL: everything is read), which is quick. Returns 0 or -ESRCH. */
int process_read_child(pid_t pid, const struct process *parent, struct process *out);
/* Whether the pid still is this process. */
bool process_is_alive(const struct process *p);

#endif
