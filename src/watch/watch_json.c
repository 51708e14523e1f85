/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One object a report, with the names of the JSON contract. What is not known is null. */
#include "watch/watch_report.h"

#include <errno.h>
#include <math.h>
#include <time.h>

#include "base/json_writer.h"

static void field_time(struct json_writer *w, double time_s)
{
	int64_t time_ms = time_s >= 0 && time_s < 253402300799.0 ? llround(time_s * 1000) : 0;
	time_t seconds = time_ms / 1000;
	char day[48], text[64];
	struct tm utc;

	if (!gmtime_r(&seconds, &utc) || !strftime(day, sizeof(day), "%Y-%m-%dT%H:%M:%S", &utc)) {
		json_field_null(w, "time");
		return;
	}
	snprintf(text, sizeof(text), "%s.%03uZ", day, (unsigned int)(time_ms % 1000));
	json_field_string(w, "time", text);
}

/* 0 is null. */
static void field_known(struct json_writer *w, const char *name, uint64_t value)
{
	if (value)
		json_field_u64(w, name, value);
	else
		json_field_null(w, name);
}

static void field_container(struct json_writer *w, const struct watch_container *c)
{
	json_key(w, "container");
	if (!c->id) {
		json_nil(w);
		return;
	}
	json_object_begin(w);
	json_field_string(w, "id", c->id);
	json_field_string(w, "name", c->name);
	json_field_string(w, "runtime", c->runtime);
	json_object_end(w);
}

static void field_interval(struct json_writer *w, const struct watch_trend *t)
{
	json_key(w, "growth_ci95");
	if (isnan(t->growth_low) || isnan(t->growth_high)) {
		json_nil(w);
		return;
	}
	json_array_begin(w);
	json_double(w, t->growth_low);
	json_double(w, t->growth_high);
	json_array_end(w);
}

static void put_trend(struct json_writer *w, const struct watch_trend *t)
{
	json_field_double(w, "growth_bytes_per_s", t->growth_bytes_per_s);
	field_interval(w, t);
	field_known(w, "limit_bytes", t->limit_bytes);
	json_field_string(w, "limit_of", t->limit_of);
	json_field_double(w, "seconds_to_limit", t->seconds_to_limit);
	json_field_bool(w, "suspicious", t->suspicious);
	json_field_string(w, "why", t->why);
}

static void put_process(struct json_writer *w, const struct watch_process *p)
{
	json_object_begin(w);
	json_field_s64(w, "pid", p->pid);
	json_field_string(w, "comm", p->comm);
	json_field_string(w, "exe", p->exe);
	field_container(w, &p->container);
	json_field_string(w, "cgroup", p->cgroup);
	json_field_string(w, "unit", p->unit);
	json_field_u64(w, "rss_bytes", p->rss_bytes);
	json_field_u64(w, "anon_bytes", p->anon_bytes);
	json_field_u64(w, "swap_bytes", p->swap_bytes);
	put_trend(w, &p->trend);
	json_object_end(w);
}

static void put_cgroup(struct json_writer *w, const struct watch_cgroup *g)
{
	json_object_begin(w);
	json_field_string(w, "cgroup", g->path);
	json_field_u64(w, "version", g->v1 ? 1 : 2);
	field_container(w, &g->container);
	json_field_string(w, "unit", g->unit);
	json_field_u64(w, "processes", g->processes);
	json_field_u64(w, "used_bytes", g->used_bytes);
	field_known(w, "own_limit_bytes", g->own_limit_bytes);
	put_trend(w, &g->trend);
	json_object_end(w);
}

static void field_host(struct json_writer *w, const struct watch_report *r)
{
	json_key(w, "host");
	json_object_begin(w);
	field_known(w, "total_bytes", r->host_total_bytes);
	field_known(w, "available_bytes", r->host_available_bytes);
	json_object_end(w);
}

static void field_overhead(struct json_writer *w, const struct watch_report *r)
{
	json_key(w, "overhead");
	json_object_begin(w);
	json_field_double(w, "tracer_cpu_pct", r->tracer_cpu_pct);
	json_field_u64(w, "tracer_rss_bytes", r->tracer_rss_bytes);
	json_object_end(w);
}

static void put_report(struct json_writer *w, const struct watch_report *r)
{
	json_object_begin(w);
	json_field_u64(w, "version", 1);
	field_time(w, r->time_s);
	json_field_double(w, "elapsed_s", r->elapsed_s);
	json_field_bool(w, "final", r->final);
	json_field_string(w, "mode", "watch");
	field_host(w, r);
	field_overhead(w, r);
	json_field_u64(w, "processes_left_out", r->left_out);
	json_key(w, "processes");
	json_array_begin(w);
	for (size_t i = 0; i < r->process_count; i++)
		put_process(w, &r->processes[i]);
	json_array_end(w);
	json_key(w, "cgroups");
	json_array_begin(w);
	for (size_t i = 0; i < r->cgroup_count; i++)
		put_cgroup(w, &r->cgroups[i]);
	json_array_end(w);
	json_object_end(w);
}

int watch_render_json(FILE *out, const struct watch_report *r,
		      const struct watch_format_options *options)
{
	struct json_writer *w = json_writer_new(out);

	(void)options;
	if (!w)
		return -ENOMEM;
	put_report(w, r);
	json_writer_free(w);
	putc('\n', out);
	return 0;
}
