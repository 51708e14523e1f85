/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "watch/watched_process.h"

#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "watch/sample.h"

#define REFRESH_PASSES 64

struct watched_process *watched_process_new(struct cgroup_table *cgroups)
{
	struct watched_process *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->cgroups = cgroups;
	growth_history_init(&p->recent, RECENT_SAMPLES);
	growth_history_init(&p->longer, LONGER_SAMPLES);
	return p;
}

void watched_process_free(struct watched_process *p)
{
	if (!p)
		return;
	cgroup_table_put(p->cgroups, p->cgroup);
	free(p->exe);
	free(p);
}

/* Another executable has memory of its own: what was seen before does not count. */
static void refresh_exe(struct watched_process *p, pid_t pid)
{
	char exe[PATH_MAX];

	if (procfs_exe(pid, exe, sizeof(exe)) || (p->exe && !strcmp(p->exe, exe)))
		return;
	if (p->exe) {
		growth_history_init(&p->recent, RECENT_SAMPLES);
		growth_history_init(&p->longer, LONGER_SAMPLES);
	}
	free(p->exe);
	p->exe = strdup(exe);
}

static void refresh(struct watched_process *p, pid_t pid)
{
	struct watched_cgroup *cgroup;

	if (procfs_comm(pid, p->comm, sizeof(p->comm)) && !p->passes)
		p->comm[0] = '\0';
	refresh_exe(p, pid);
	if (cgroup_table_get(p->cgroups, pid, &cgroup))
		return;
	cgroup_table_put(p->cgroups, p->cgroup);
	p->cgroup = cgroup;
}

/* Soon after the start, when containers and shells set a process up; then by turns; and
 * when its memory shrinks, as it does by an exec. */
static bool is_refresh(const struct watched_process *p, pid_t pid, double held)
{
	uint32_t passes = p->passes;

	if (passes && held < p->held / 2)
		return true;
	if (passes < REFRESH_PASSES)
		return (passes & (passes - 1)) == 0;
	return ((uint32_t)pid + passes) % REFRESH_PASSES == 0;
}

void watched_process_add(struct watched_process *p, pid_t pid, const struct memory_sample *sample,
			 double time_s)
{
	double held = (double)sample->anon_bytes + (double)sample->swap_bytes;

	if (is_refresh(p, pid, held))
		refresh(p, pid);
	p->passes++;
	p->held = held;
	growth_history_add(&p->recent, time_s, held);
	growth_history_add(&p->longer, time_s, held);
}
