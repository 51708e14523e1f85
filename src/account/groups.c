/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "account/groups.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "account/snapshot.h"
#include "base/arena.h"
#include "base/hash.h"
#include "target/procfs.h"

#define LABEL_BYTES 8192

/* One line a container (or a process); processes of no container are "(host)". */
static const char *group_name(const struct snapshot_process *p, enum snapshot_group_by by,
			      char *buf, size_t size)
{
	if (by == GROUP_PROCESS) {
		snprintf(buf, size, "%s[%d]", p->comm ? p->comm : "", p->pid);
		return buf;
	}
	if (p->container_name)
		return p->container_name;
	return p->container_id ? p->container_id : "(host)";
}

/* Groups while they are put together, found by name. */
struct grouping {
	struct snapshot *s;
	uint32_t *index; /* hash of the name -> group + 1, 0: empty */
	size_t index_size;
};

/* Room for @n groups. */
static int grouping_init(struct grouping *g, struct snapshot *s, size_t n)
{
	g->s = s;
	for (g->index_size = 64; g->index_size < 2 * n; g->index_size *= 2)
		;
	g->index = calloc(g->index_size, sizeof(*g->index));
	s->groups = arena_alloc(s->arena, n + 1, sizeof(*s->groups));
	return g->index && s->groups ? 0 : -ENOMEM;
}

static struct snapshot_group *group_find(struct grouping *g, const char *name)
{
	size_t at = hash_text_fnv(name) & (g->index_size - 1);
	struct snapshot_group *group;

	for (; g->index[at]; at = (at + 1) & (g->index_size - 1)) {
		group = &g->s->groups[g->index[at] - 1];
		if (!strcmp(group->name, name))
			return group;
	}
	group = &g->s->groups[g->s->group_count];
	group->name = arena_strdup(g->s->arena, name);
	if (!group->name)
		return NULL;
	group->growth_bytes_per_s = NAN;
	g->index[at] = (uint32_t)++g->s->group_count;
	return group;
}

static void group_add(struct grouping *g, const char *name, uint64_t bytes, uint64_t blocks,
		      double growth)
{
	struct snapshot_group *group = group_find(g, name);

	if (!group)
		return;
	group->live_bytes += bytes;
	group->live_blocks += blocks;
	if (isnan(group->growth_bytes_per_s))
		group->growth_bytes_per_s = growth;
	else if (!isnan(growth))
		group->growth_bytes_per_s += growth;
}

static int group_processes(struct snapshot *s, enum snapshot_group_by by)
{
	struct grouping g = {0};
	int err = grouping_init(&g, s, s->process_count);
	char buf[COMM_BYTES + 16];

	for (size_t i = 0; !err && i < s->process_count; i++) {
		const struct snapshot_process *p = &s->processes[i];

		group_add(&g, group_name(p, by, buf, sizeof(buf)), snapshot_process_held(p),
			  p->live_blocks + p->mmap_live_blocks + p->python_live_blocks,
			  p->growth_bytes_per_s);
	}
	free(g.index);
	return err;
}

static bool starts_with(const char *s, const char *prefix)
{
	return s && !strncmp(s, prefix, strlen(prefix));
}

/* Code that allocates because its caller asked for it. */
static bool is_go_between(const struct frame *f)
{
	static const char *const functions[] = {"operator new",
						"std::", "__gnu_cxx::", "void* std::"};
	static const char *const modules[] = {"libc.so",   "libc-2.",  "libstdc++.so",
					      "libc++.so", "ld-musl-", "libc.musl-"};
	const char *slash = f->module ? strrchr(f->module, '/') : NULL;

	if (f->interpreter)
		return true;
	for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++)
		if (starts_with(f->function, functions[i]))
			return true;
	for (size_t i = 0; slash && i < sizeof(modules) / sizeof(modules[0]); i++)
		if (starts_with(slash + 1, modules[i]))
			return true;
	return false;
}

/* NULL: the stack has no frame. */
static const struct frame *own_frame(const struct snapshot_stack *st)
{
	for (size_t i = 0; i < st->frame_count; i++)
		if (!is_go_between(&st->frames[i]))
			return &st->frames[i];
	return st->frame_count ? &st->frames[0] : NULL;
}

/* "file.c:12 (function)", or what there is of it. */
static const char *frame_label(const struct frame *f, enum snapshot_group_by by, char *buf,
			       size_t size)
{
	const char *function = f && f->function ? f->function : NULL;

	if (!f)
		return "[unknown]";
	if (by == GROUP_FUNCTION && function)
		return function;
	if (by == GROUP_LINE && f->file && function)
		snprintf(buf, size, "%s:%" PRIu32 " (%s)", f->file, f->line, function);
	else if (by == GROUP_LINE && f->file)
		snprintf(buf, size, "%s:%" PRIu32, f->file, f->line);
	else if (function)
		snprintf(buf, size, "%s+0x%" PRIx64 " [%s]", function, f->func_offset,
			 f->module ? f->module : "?");
	else
		snprintf(buf, size, "0x%" PRIx64 " [%s]", f->has_offset ? f->offset : f->address,
			 f->module ? f->module : "?");
	return buf;
}

static int group_frames(struct snapshot *s, enum snapshot_group_by by)
{
	struct grouping g = {0};
	int err = grouping_init(&g, s, s->stack_count);
	char buf[LABEL_BYTES];

	for (size_t i = 0; !err && i < s->stack_count; i++) {
		const struct snapshot_stack *st = &s->stacks[i];

		group_add(&g, frame_label(own_frame(st), by, buf, sizeof(buf)), st->live_bytes,
			  st->live_blocks, st->growth_bytes_per_s);
	}
	free(g.index);
	return err;
}

static int group_types(struct snapshot *s)
{
	struct grouping g = {0};
	int err = grouping_init(&g, s, s->type_count);

	for (size_t i = 0; !err && i < s->type_count; i++)
		group_add(&g, s->types[i].name, s->types[i].bytes, s->types[i].blocks, NAN);
	free(g.index);
	return err;
}

static int compare_groups(const void *a, const void *b)
{
	const struct snapshot_group *x = a, *y = b;

	if (x->live_bytes != y->live_bytes)
		return (x->live_bytes < y->live_bytes) - (x->live_bytes > y->live_bytes);
	return strcmp(x->name, y->name);
}

static int group_by(struct snapshot *s, enum snapshot_group_by by)
{
	if (by == GROUP_STACK)
		return 0;
	if (by == GROUP_TYPE)
		return group_types(s);
	if (by == GROUP_FUNCTION || by == GROUP_LINE)
		return group_frames(s, by);
	return group_processes(s, by);
}

/* The stacks beyond the top have served; their references go. */
static void cut_stacks(struct snapshot *s)
{
	for (size_t i = s->request.top; i < s->stack_count; i++)
		snapshot_stack_release(&s->stacks[i]);
	if (s->stack_count > s->request.top)
		s->stack_count = s->request.top;
}

int groups_fill(struct snapshot *s)
{
	static const char *const kinds[] = {NULL,      "function",  "line",
					    "process", "container", "type"};
	int err = group_by(s, s->request.group_by);

	if (err)
		return err;
	s->group_kind = kinds[s->request.group_by];
	if (s->group_count)
		qsort(s->groups, s->group_count, sizeof(*s->groups), compare_groups);
	if (s->group_count > s->request.top)
		s->group_count = s->request.top;
	cut_stacks(s);
	return 0;
}
