/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Puts empty probes on malloc and free of a process's C library and holds them
 * until its standard input closes: the floor that a tracer's cost is compared to.
 *
 *	probe_cost entries PID    entry, return and free at the functions' first instructions
 *	probe_cost planned PID    a session on malloc, free where the planner puts it
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "probe/method.h"
#include "probe/planner.h"
#include "probe/prober.h"
#include "sym/object.h"

static const struct alloc_site *site_named(const struct alloc_sites *sites, const char *name)
{
	for (size_t i = 0; i < sites->count; i++) {
		if (!strcmp(sites->items[i].symbol, name))
			return &sites->items[i];
	}
	return NULL;
}

static int hold(int attach_type, unsigned int flags, pid_t pid, const struct object *o,
		uint64_t offset)
{
	uint64_t cookie = 0;
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", object_fd(o));
	fd = uprobe_multi_link(uprobe_empty_program(attach_type), attach_type, flags, pid, path,
			       &offset, &cookie, 1);
	if (fd < 0)
		fprintf(stderr, "probe_cost: %s\n", strerror(-fd));
	return fd;
}

static uint64_t planned(const struct alloc_site *site, enum plan_kind kind)
{
	return site->offset + plan_probe_args(site->code, site->code_len, site->vaddr, kind, false,
					      alloc_func_args(site->func))
				      .offset;
}

static int attach(const char *how, pid_t pid, const struct object_probes *o)
{
	const struct alloc_site *alloc = site_named(&o->sites, "malloc");
	const struct alloc_site *release = site_named(&o->sites, "free");

	if (!alloc || !release)
		return -ENOENT;
	if (!strcmp(how, "entries")) {
		if (hold(ATTACH_UPROBE_MULTI, UPROBE_MULTI_RETURN, pid, o->object, alloc->offset) <
			    0 ||
		    hold(ATTACH_UPROBE_MULTI, 0, pid, o->object, alloc->offset) < 0)
			return -EINVAL;
		return hold(ATTACH_UPROBE_MULTI, 0, pid, o->object, release->offset);
	}
	if (hold(ATTACH_UPROBE_SESSION, 0, pid, o->object, planned(alloc, PLAN_RETURN)) < 0)
		return -EINVAL;
	return hold(ATTACH_UPROBE_MULTI, 0, pid, o->object, planned(release, PLAN_FREE_NULL));
}

int main(int argc, char **argv)
{
	struct prober_options options = {.method = METHOD_SESSION};
	struct object_table *objects = object_table_new();
	struct prober *prober = prober_new(NULL, objects, &options);
	pid_t pid = argc == 3 ? atoi(argv[2]) : 0;
	struct attachments *a = attachments_new(prober, pid);
	char byte;

	if (pid <= 0 || prober_update(prober, a, pid) < 0)
		return 2;
	for (size_t i = 0; i < attachments_count(a); i++) {
		const struct object_probes *o = attachments_at(a, i);

		if (!o->sites.has_malloc)
			continue;
		if (attach(argv[1], pid, o) < 0)
			return 1;
		puts("ready");
		fflush(stdout);
		while (read(STDIN_FILENO, &byte, 1) > 0)
			;
		return 0;
	}
	return 1;
}
