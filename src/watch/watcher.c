/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What grows is anonymous memory, with what of it is swapped out: that is where leaks are.
 * File pages are the kernel's to drop. Of a cgroup it is the working set, which has kernel
 * memory, tmpfs and shared memory in it too.
 *
 * A process can grow until the first of its cgroup, those above it and the host has no room
 * left. Only growth that is more than zero by its 95 % interval is given a time; it is the
 * time for this process or cgroup alone, if all others stay as they are.
 */
#include "watch/watcher.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/arena.h"
#include "report/units.h"
#include "target/procfs.h"
#include "target/selector.h"
#include "watch/cgroup_table.h"
#include "watch/growth.h"
#include "watch/sample.h"
#include "watch/watch_report.h"
#include "watch/watched_process.h"

#define LIMIT_DEPTH_MAX 64

struct watcher {
	const struct selector *selector;
	struct sampler *sampler;
	struct cgroup_table *cgroups;
	struct host_memory host; /* zeroes: unknown */
	double start_s, time_s;
	double cpu_s; /* ours, at start */
	bool started;
};

static bool wants(pid_t pid, void *arg)
{
	const struct watcher *w = arg;

	return !w->selector || selector_is_empty(w->selector) ||
	       selector_match(w->selector, pid) == 1;
}

static void release(void *process)
{
	watched_process_free(process);
}

static double cpu_seconds(void)
{
	struct rusage u;

	if (getrusage(RUSAGE_SELF, &u))
		return NAN;
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

int watcher_new(const struct selector *selector, bool follow_children, struct watcher **out)
{
	struct watcher *w = calloc(1, sizeof(*w));
	struct sampler_options options = {
		.wants = wants,
		.release = release,
		.arg = w,
		.follow_children = follow_children,
	};
	int err;

	if (!w)
		return -ENOMEM;
	w->selector = selector;
	w->cpu_s = cpu_seconds();
	err = cgroup_table_new(RECENT_SAMPLES, LONGER_SAMPLES, &w->cgroups);
	if (!err)
		err = sampler_new(&options, &w->sampler);
	if (err) {
		watcher_free(w);
		return err;
	}
	*out = w;
	return 0;
}

void watcher_free(struct watcher *w)
{
	if (!w)
		return;
	sampler_free(w->sampler);
	cgroup_table_free(w->cgroups);
	free(w);
}

static int add_sample(struct watcher *w, struct sampled_process *s)
{
	if (!s->owner_data)
		s->owner_data = watched_process_new(w->cgroups);
	if (!s->owner_data)
		return -ENOMEM;
	watched_process_add(s->owner_data, s->pid, &s->memory, w->time_s);
	return 0;
}

int watcher_tick(struct watcher *w, double time_s)
{
	int err;

	if (!w->started)
		w->start_s = time_s;
	w->started = true;
	w->time_s = time_s;
	err = sampler_pass(w->sampler);
	for (size_t i = 0; !err && i < sampler_count(w->sampler); i++)
		err = add_sample(w, sampler_at(w->sampler, i));
	if (err)
		return err;
	cgroup_table_pass(w->cgroups, time_s);
	if (host_memory_read(&w->host))
		w->host = (struct host_memory){0};
	return 0;
}

size_t watcher_process_count(const struct watcher *w)
{
	return sampler_count(w->sampler);
}

/* What has least room, and how much. */
struct room {
	uint64_t limit_bytes, left_bytes;
	const char *of; /* NULL: nothing is known to have a limit */
};

static void room_of(const struct watcher *w, const struct watched_cgroup *g, struct room *out)
{
	*out = (struct room){0};
	if (w->host.total_bytes)
		*out = (struct room){w->host.total_bytes, w->host.available_bytes, "host"};
	for (int depth = 0; g && depth < LIMIT_DEPTH_MAX; g = g->parent, depth++) {
		const struct cgroup_usage *u = &g->usage;
		uint64_t left;

		if (!g->usage_known || u->limit_bytes == CGROUP_NO_LIMIT)
			continue;
		left = u->used_bytes < u->limit_bytes ? u->limit_bytes - u->used_bytes : 0;
		if (!out->of || left < out->left_bytes)
			*out = (struct room){u->limit_bytes, left, g->path};
	}
}

static const char *why(struct arena *a, const struct growth *g, const char *what)
{
	char text[160];

	switch (g->kind) {
	case GROWTH_STEADY:
		snprintf(text, sizeof(text), "%s rose throughout the last %s, by %s in all", what,
			 units_duration(g->span_s).s, units_bytes((uint64_t)g->rise_bytes).s);
		break;
	case GROWTH_ENDED:
		snprintf(text, sizeof(text), "%s rose, but not throughout the last %s", what,
			 units_duration(g->span_s).s);
		break;
	case GROWTH_RETURNS:
		snprintf(text, sizeof(text), "%s rises and falls back", what);
		break;
	default:
		return NULL;
	}
	return arena_strdup(a, text);
}

static void fill_trend(struct arena *a, const struct growth *g, const struct room *room,
		       const char *what, struct watch_trend *out)
{
	out->growth_bytes_per_s = g->slope.bytes_per_s;
	out->growth_low = g->slope.low;
	out->growth_high = g->slope.high;
	out->limit_bytes = room->limit_bytes;
	out->limit_of = arena_strdup(a, room->of);
	out->seconds_to_limit = NAN;
	if (room->of && g->slope.low > 0)
		out->seconds_to_limit = (double)room->left_bytes / g->slope.bytes_per_s;
	out->suspicious = g->kind == GROWTH_STEADY;
	out->why = why(a, g, what);
}

static void fill_container(struct arena *a, const struct watched_cgroup *g,
			   struct watch_container *out)
{
	if (!g || !g->in_container)
		return;
	out->id = arena_strdup(a, g->container.id);
	out->name = g->container.name[0] ? arena_strdup(a, g->container.name) : NULL;
	out->runtime = g->container.runtime;
}

static const char *unit_of(struct arena *a, const struct watched_cgroup *g)
{
	return g && g->unit[0] ? arena_strdup(a, g->unit) : NULL;
}

static void fill_process(const struct watcher *w, struct arena *a, const struct sampled_process *s,
			 struct watch_process *out)
{
	const struct watched_process *p = s->owner_data;
	struct growth growth;
	struct room room;

	out->pid = s->pid;
	out->comm = arena_strdup(a, p->comm);
	out->exe = arena_strdup(a, p->exe);
	fill_container(a, p->cgroup, &out->container);
	out->cgroup = p->cgroup ? arena_strdup(a, p->cgroup->path) : NULL;
	out->unit = unit_of(a, p->cgroup);
	out->rss_bytes = s->memory.rss_bytes;
	out->anon_bytes = s->memory.anon_bytes;
	out->swap_bytes = s->memory.swap_bytes;
	growth_judge_both(&p->recent, &p->longer, &growth);
	room_of(w, p->cgroup, &room);
	fill_trend(a, &growth, &room, "anonymous memory", &out->trend);
}

static void fill_cgroup(const struct watcher *w, struct arena *a, const struct watched_cgroup *g,
			struct watch_cgroup *out)
{
	struct growth growth;
	struct room room;

	out->path = arena_strdup(a, g->path);
	out->v1 = g->v1;
	fill_container(a, g, &out->container);
	out->unit = unit_of(a, g);
	out->processes = g->processes;
	out->used_bytes = g->usage.used_bytes;
	out->own_limit_bytes = g->usage.limit_bytes == CGROUP_NO_LIMIT ? 0 : g->usage.limit_bytes;
	growth_judge_both(&g->recent, &g->longer, &growth);
	room_of(w, g, &room);
	fill_trend(a, &growth, &room, "memory in use", &out->trend);
}

/* Negative: @x is to stand above @y. */
static int compare_trends(const struct watch_trend *x, const struct watch_trend *y)
{
	double x_low = fmax(x->growth_low, 0), y_low = fmax(y->growth_low, 0);

	if (x->suspicious != y->suspicious)
		return x->suspicious ? -1 : 1;
	if (x_low != y_low)
		return x_low > y_low ? -1 : 1;
	return 0;
}

static int compare_processes(const void *a, const void *b)
{
	const struct watch_process *x = a, *y = b;
	int order = compare_trends(&x->trend, &y->trend);

	if (order)
		return order;
	if (x->rss_bytes != y->rss_bytes)
		return x->rss_bytes > y->rss_bytes ? -1 : 1;
	return x->pid < y->pid ? -1 : x->pid > y->pid;
}

static int compare_cgroups(const void *a, const void *b)
{
	const struct watch_cgroup *x = a, *y = b;
	int order = compare_trends(&x->trend, &y->trend);

	if (order)
		return order;
	if (x->used_bytes != y->used_bytes)
		return x->used_bytes > y->used_bytes ? -1 : 1;
	return strcmp(x->path, y->path);
}

static int fill_processes(struct watcher *w, struct watch_report *r)
{
	size_t n = sampler_count(w->sampler);

	r->processes = arena_alloc(r->arena, n + 1, sizeof(*r->processes));
	if (!r->processes)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		const struct sampled_process *s = sampler_at(w->sampler, i);

		/* A zombie has no memory. */
		if (s->owner_data && s->memory.rss_bytes)
			fill_process(w, r->arena, s, &r->processes[r->process_count++]);
	}
	qsort(r->processes, r->process_count, sizeof(*r->processes), compare_processes);
	return 0;
}

/* Slices and their like, which hold cgroups only and limit nothing, are left out. */
static bool is_shown(const struct watched_cgroup *g)
{
	return g->usage_known && (g->processes || g->usage.limit_bytes != CGROUP_NO_LIMIT);
}

static int fill_cgroups(const struct watcher *w, struct watch_report *r)
{
	size_t n = cgroup_table_count(w->cgroups);

	r->cgroups = arena_alloc(r->arena, n + 1, sizeof(*r->cgroups));
	if (!r->cgroups)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		const struct watched_cgroup *g = cgroup_table_at(w->cgroups, i);

		if (is_shown(g))
			fill_cgroup(w, r->arena, g, &r->cgroups[r->cgroup_count++]);
	}
	qsort(r->cgroups, r->cgroup_count, sizeof(*r->cgroups), compare_cgroups);
	return 0;
}

static void fill_own_cost(const struct watcher *w, struct watch_report *r)
{
	struct process_rss rss;

	r->tracer_cpu_pct = NAN;
	if (r->elapsed_s > 0)
		r->tracer_cpu_pct = 100 * (cpu_seconds() - w->cpu_s) / r->elapsed_s;
	if (!procfs_rss(getpid(), &rss))
		r->tracer_rss_bytes = rss.rss_bytes;
}

int watcher_report(struct watcher *w, bool final, struct watch_report **out)
{
	struct watch_report *r = calloc(1, sizeof(*r));
	struct timespec now;
	int err = -ENOMEM;

	if (!r)
		return err;
	r->arena = arena_new();
	if (r->arena)
		err = fill_processes(w, r);
	if (!err)
		err = fill_cgroups(w, r);
	if (err) {
		watch_report_free(r);
		return err;
	}
	clock_gettime(CLOCK_REALTIME, &now);
	r->time_s = (double)now.tv_sec + (double)now.tv_nsec / 1e9;
	r->elapsed_s = w->time_s - w->start_s;
	r->final = final;
	r->host_total_bytes = w->host.total_bytes;
	r->host_available_bytes = w->host.available_bytes;
	r->left_out = sampler_left_out(w->sampler);
	fill_own_cost(w, r);
	*out = r;
	return 0;
}

/* Puts @s where it belongs among the @count best. */
static size_t insert(struct watch_suspect *best, size_t count, size_t room,
		     const struct watch_suspect *s)
{
	size_t at = count;

	while (at && best[at - 1].score < s->score)
		at--;
	if (at == room)
		return count;
	if (count == room)
		count--;
	memmove(&best[at + 1], &best[at], (count - at) * sizeof(*best));
	best[at] = *s;
	return count + 1;
}

size_t watcher_most_suspicious(struct watcher *w, struct watch_suspect *out, size_t room)
{
	size_t count = 0;

	for (size_t i = 0; i < sampler_count(w->sampler); i++) {
		const struct sampled_process *s = sampler_at(w->sampler, i);
		const struct watched_process *p = s->owner_data;
		struct growth g;

		if (!p || !s->memory.rss_bytes)
			continue;
		growth_judge_both(&p->recent, &p->longer, &g);
		if (g.kind == GROWTH_STEADY)
			count = insert(
				out, count, room,
				&(struct watch_suspect){s->pid, s->start_ticks, g.slope.low});
	}
	return count;
}
