/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "target/process.h"

#include <errno.h>
#include <string.h>

int process_read(pid_t pid, struct process *out)
{
	memset(out, 0, sizeof(*out));
	out->pid = pid;
	if (procfs_start_ticks(pid, &out->start_ticks))
		return -ESRCH;
	if (procfs_comm(pid, out->comm, sizeof(out->comm)))
		out->comm[0] = '\0';
	if (procfs_exe(pid, out->exe, sizeof(out->exe)))
		out->exe[0] = '\0';
	if (cgroup_of(pid, &out->cgroup))
		return 0;
	out->in_container = container_of_process(pid, out->cgroup.path, &out->container) == 1;
	if (!unit_from_cgroup(out->cgroup.path, out->unit, sizeof(out->unit)))
		out->unit[0] = '\0';
	return 0;
}

int process_read_child(pid_t pid, const struct process *parent, struct process *out)
{
	uint64_t ticks;

	if (!parent)
		return process_read(pid, out);
	if (procfs_start_ticks(pid, &ticks))
		return -ESRCH;
	*out = *parent;
	out->pid = pid;
	out->start_ticks = ticks;
	return 0;
}

bool process_is_alive(const struct process *p)
{
	uint64_t ticks;

	return !procfs_start_ticks(p->pid, &ticks) && ticks == p->start_ticks;
}
