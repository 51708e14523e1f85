/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "watch/cgroup_table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "target/cgroup.h"

#define CGROUPS_MAX 4096
#define DEPTH_MAX 64
/* A runtime may write the name after the first process has started. */
#define NAME_TRIES_MAX 8

struct cgroup_table {
	struct cgroup_mounts *mounts;
	struct watched_cgroup **rows;
	size_t count, room;
	uint32_t recent_samples, longer_samples;
};

int cgroup_table_new(uint32_t recent_samples, uint32_t longer_samples, struct cgroup_table **out)
{
	struct cgroup_table *t = calloc(1, sizeof(*t));
	int err;

	if (!t)
		return -ENOMEM;
	t->recent_samples = recent_samples;
	t->longer_samples = longer_samples;
	err = cgroup_mounts_read(&t->mounts);
	if (err) {
		free(t);
		return err;
	}
	*out = t;
	return 0;
}

static void row_free(struct watched_cgroup *g)
{
	if (!g)
		return;
	cgroup_memory_free(g->memory);
	free(g->path);
	free(g);
}

void cgroup_table_free(struct cgroup_table *t)
{
	if (!t)
		return;
	for (size_t i = 0; i < t->count; i++)
		row_free(t->rows[i]);
	free(t->rows);
	cgroup_mounts_free(t->mounts);
	free(t);
}

static struct watched_cgroup *find(const struct cgroup_table *t, const struct cgroup_path *path)
{
	size_t hash = hash_text_fnv(path->path);

	for (size_t i = 0; i < t->count; i++) {
		struct watched_cgroup *g = t->rows[i];

		if (g->hash == hash && g->v1 == path->v1 && !strcmp(g->path, path->path))
			return g;
	}
	return NULL;
}

static void find_names(struct watched_cgroup *g, pid_t pid)
{
	if (g->name_tries >= NAME_TRIES_MAX || (g->in_container && g->container.name[0]))
		return;
	/* Most are in no container, which does not change. */
	if (g->name_tries && !g->in_container)
		return;
	g->name_tries++;
	g->in_container = container_of_process(pid, g->path, &g->container) == 1;
}

static bool make_room(struct cgroup_table *t)
{
	size_t room = t->room ? t->room * 2 : 64;
	struct watched_cgroup **rows;

	if (t->count < t->room)
		return true;
	rows = realloc(t->rows, room * sizeof(*rows));
	if (!rows)
		return false;
	t->rows = rows;
	t->room = room;
	return true;
}

static int append(struct cgroup_table *t, const struct cgroup_path *path, pid_t pid,
		  struct watched_cgroup **out)
{
	struct watched_cgroup *g;

	if (t->count >= CGROUPS_MAX)
		return -ENOSPC;
	g = calloc(1, sizeof(*g));
	if (!g || !make_room(t) || !(g->path = strdup(path->path))) {
		row_free(g);
		return -ENOMEM;
	}
	g->v1 = path->v1;
	g->hash = hash_text_fnv(g->path);
	growth_history_init(&g->recent, t->recent_samples);
	growth_history_init(&g->longer, t->longer_samples);
	find_names(g, pid);
	if (!unit_from_cgroup(g->path, g->unit, sizeof(g->unit)))
		g->unit[0] = '\0';
	if (strcmp(g->path, "/") && cgroup_memory_open(t->mounts, path, &g->memory))
		g->memory = NULL;
	t->rows[t->count++] = g;
	*out = g;
	return 0;
}

/* The path of the cgroup above; false for the root. */
static bool go_up(struct cgroup_path *path)
{
	char *slash = strrchr(path->path, '/');

	if (!slash || !path->path[1])
		return false;
	slash[slash == path->path] = '\0';
	return true;
}

/* Takes a reference to the cgroup and, where it is new, to those above it. */
static int reference(struct cgroup_table *t, struct cgroup_path *path, pid_t pid, int depth,
		     struct watched_cgroup **out)
{
	struct watched_cgroup *g = find(t, path);
	int err = 0;

	if (!g) {
		err = append(t, path, pid, &g);
		if (!err && depth < DEPTH_MAX && go_up(path))
			reference(t, path, pid, depth + 1, &g->parent);
	}
	if (err)
		return err;
	g->references++;
	*out = g;
	return 0;
}

int cgroup_table_get(struct cgroup_table *t, pid_t pid, struct watched_cgroup **out)
{
	struct cgroup_path path;
	int err = cgroup_of(pid, &path);

	if (!err)
		err = reference(t, &path, pid, 0, out);
	if (err)
		return err;
	(*out)->processes++;
	find_names(*out, pid);
	return 0;
}

static void drop(struct cgroup_table *t, struct watched_cgroup *g)
{
	for (size_t i = 0; i < t->count; i++) {
		if (t->rows[i] == g) {
			t->rows[i] = t->rows[--t->count];
			break;
		}
	}
	row_free(g);
}

void cgroup_table_put(struct cgroup_table *t, struct watched_cgroup *g)
{
	struct watched_cgroup *parent;

	if (!g)
		return;
	g->processes--;
	for (; g && !--g->references; g = parent) {
		parent = g->parent;
		drop(t, g);
	}
}

static void read_row(struct watched_cgroup *g, double time_s)
{
	g->usage_known = g->memory && !cgroup_memory_read(g->memory, &g->usage);
	if (!g->usage_known)
		return;
	growth_history_add(&g->recent, time_s, (double)g->usage.used_bytes);
	growth_history_add(&g->longer, time_s, (double)g->usage.used_bytes);
}

void cgroup_table_pass(struct cgroup_table *t, double time_s)
{
	for (size_t i = 0; i < t->count; i++)
		read_row(t->rows[i], time_s);
}

size_t cgroup_table_count(const struct cgroup_table *t)
{
	return t->count;
}

const struct watched_cgroup *cgroup_table_at(const struct cgroup_table *t, size_t i)
{
	return t->rows[i];
}
