/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The JSON contract, one function an object. What leaktop does not know is
 * null; what a later feature brings is null or empty, and never invented.
 */
#include "report/formats.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include "account/snapshot.h"
#include "base/json_writer.h"
#include "probe_spec.h"
#include "sym/frame.h"

static void field_time(struct json_writer *w, double time_s)
{
	char day[48], text[64];
	int64_t time_ms;
	struct tm utc;
	time_t seconds;

	/* Years 1970 to 9999: what RFC 3339 can say of a running clock. */
	if (!(time_s >= 0 && time_s < 253402300799.0)) {
		json_field_null(w, "time");
		return;
	}
	time_ms = llround(time_s * 1000);
	seconds = time_ms / 1000;
	if (!gmtime_r(&seconds, &utc) || !strftime(day, sizeof(day), "%Y-%m-%dT%H:%M:%S", &utc)) {
		json_field_null(w, "time");
		return;
	}
	snprintf(text, sizeof(text), "%s.%03uZ", day, (unsigned int)(time_ms % 1000));
	json_field_string(w, "time", text);
}

static void field_known_bytes(struct json_writer *w, const char *name, int64_t size_bytes)
{
	if (size_bytes == UNKNOWN_BYTES)
		json_field_null(w, name);
	else
		json_field_s64(w, name, size_bytes);
}

static void put_allocator(struct json_writer *w, const struct coverage_allocator *a)
{
	json_object_begin(w);
	json_field_s64(w, "pid", a->pid);
	json_field_string(w, "object", a->object);
	json_field_string(w, "build_id", a->build_id);
	json_field_string(w, "allocator", a->allocator);
	json_key(w, "functions");
	json_array_begin(w);
	for (const char **f = a->functions; f && *f; f++)
		json_str(w, *f);
	json_array_end(w);
	json_field_string(w, "return_method", a->return_method);
	json_object_end(w);
}

static void put_python(struct json_writer *w, const struct coverage_python *c)
{
	static const char *const objects[] = {"none", "large-only", "full"};

	json_object_begin(w);
	json_field_s64(w, "pid", c->pid);
	json_field_string(w, "version", c->version && c->version[0] ? c->version : NULL);
	json_field_string(w, "objects", objects[c->objects]);
	json_field_string(w, "reason", c->reason);
	json_field_bool(w, "frames", c->frames);
	json_field_bool(w, "freelists", c->freelists);
	json_field_bool(w, "redirected", c->redirected);
	json_object_end(w);
}

static void field_coverage(struct json_writer *w, const struct snapshot *s)
{
	json_key(w, "coverage");
	json_object_begin(w);
	json_field_u64(w, "processes", s->process_count_covered);
	json_key(w, "allocators");
	json_array_begin(w);
	for (size_t i = 0; i < s->allocator_count; i++)
		put_allocator(w, &s->allocators[i]);
	json_array_end(w);
	json_key(w, "python");
	json_array_begin(w);
	for (size_t i = 0; i < s->python_count; i++)
		put_python(w, &s->pythons[i]);
	json_array_end(w);
	json_field_double(w, "stacks_complete_pct", s->stacks_complete_pct);
	json_object_end(w);
}

static void put_cut(struct json_writer *w, const struct snapshot_cut *c)
{
	json_object_begin(w);
	json_field_string(w, "object", c->object);
	json_field_string(w, "reason", c->name);
	json_field_u64(w, "count", c->count);
	json_object_end(w);
}

static void field_loss(struct json_writer *w, const struct snapshot_loss *loss)
{
	json_key(w, "loss");
	json_object_begin(w);
	json_field_u64(w, "alloc_events", loss->alloc_events);
	json_field_u64(w, "free_events", loss->free_events);
	json_field_u64(w, "live_map_full", loss->live_map_full);
	json_field_u64(w, "live_map_full_bytes", loss->live_map_full_bytes);
	json_field_u64(w, "stacks", loss->stacks);
	json_field_u64(w, "ring_full", loss->ring_full);
	json_field_u64(w, "missed_frees", loss->missed_frees);
	json_field_u64(w, "python_codes", loss->python_codes);
	if (loss->outer_same || loss->outer_differs) {
		json_field_u64(w, "outer_stacks_same", loss->outer_same);
		json_field_u64(w, "outer_stacks_differing", loss->outer_differs);
	}
	json_key(w, "unwind_errors");
	json_object_begin(w);
	for (size_t i = 0; i < loss->unwind_error_count; i++)
		json_field_u64(w, loss->unwind_errors[i].name, loss->unwind_errors[i].count);
	json_object_end(w);
	json_key(w, "unwind_errors_by_object");
	json_array_begin(w);
	for (size_t i = 0; i < loss->cut_count; i++)
		put_cut(w, &loss->cuts[i]);
	json_array_end(w);
	json_object_end(w);
}

static void field_figures(struct json_writer *w, const struct overhead_figures *f)
{
	json_field_double(w, "budget_pct", f->budget_pct);
	json_field_double(w, "measured_pct", f->measured_pct);
	json_field_string(w, "mode", f->mode);
	json_field_u64(w, "sampling_interval_bytes", f->interval_bytes);
	json_field_bool(w, "over_budget", f->over_budget);
}

static void field_overhead(struct json_writer *w, const struct snapshot_overhead *overhead)
{
	json_key(w, "overhead");
	json_object_begin(w);
	field_figures(w, &overhead->figures);
	json_field_u64(w, "probe_hits", overhead->probe_hits);
	json_field_double(w, "probe_hits_per_s", overhead->probe_hits_per_s);
	json_field_double(w, "tracer_cpu_pct", overhead->tracer_cpu_pct);
	json_field_u64(w, "unwind_tables", overhead->unwind.tables);
	json_field_u64(w, "unwind_table_bytes", overhead->unwind.table_bytes);
	json_field_u64(w, "unwind_tables_loading", overhead->unwind.loading);
	json_field_u64(w, "unwind_tables_evicted", overhead->unwind.evicted);
	json_field_u64(w, "unwind_mappings_left_out", overhead->unwind.mappings_left_out);
	json_field_u64(w, "unwind_rules", overhead->unwind.rules);
	json_field_u64(w, "tracer_rss_bytes", overhead->tracer_rss_bytes);
	json_object_end(w);
}

static void field_container(struct json_writer *w, const struct snapshot_process *p)
{
	json_key(w, "container");
	if (!p->container_id) {
		json_nil(w);
		return;
	}
	json_object_begin(w);
	json_field_string(w, "id", p->container_id);
	json_field_string(w, "name", p->container_name);
	json_field_string(w, "runtime", p->container_runtime);
	json_object_end(w);
}

static void field_interval(struct json_writer *w, const char *name, struct interval i)
{
	json_key(w, name);
	json_array_begin(w);
	json_double(w, i.low);
	json_double(w, i.high);
	json_array_end(w);
}

static void put_process(struct json_writer *w, const struct snapshot_process *p)
{
	json_object_begin(w);
	json_field_s64(w, "pid", p->pid);
	json_field_string(w, "comm", p->comm);
	json_field_string(w, "exe", p->exe);
	json_field_bool(w, "exited", p->exited);
	field_container(w, p);
	json_field_string(w, "cgroup", p->cgroup);
	json_field_string(w, "unit", p->unit);
	json_field_u64(w, "rss_bytes", p->rss_bytes);
	json_field_u64(w, "live_bytes", p->live_bytes);
	field_interval(w, "live_bytes_ci95", p->live_bytes_ci95);
	json_field_u64(w, "live_blocks", p->live_blocks);
	field_known_bytes(w, "python_live_bytes", p->python_live_bytes);
	field_interval(w, "python_live_bytes_ci95", p->python_live_bytes_ci95);
	json_field_u64(w, "python_live_blocks", p->python_live_blocks);
	json_field_u64(w, "mmap_live_bytes", p->mmap_live_bytes);
	json_field_u64(w, "mmap_live_blocks", p->mmap_live_blocks);
	field_known_bytes(w, "allocator_free_bytes", p->allocator_free_bytes);
	json_field_u64(w, "file_and_shared_bytes", p->file_and_shared_bytes);
	field_known_bytes(w, "untracked_bytes", p->untracked_bytes);
	json_field_double(w, "growth_bytes_per_s", p->growth_bytes_per_s);
	json_key(w, "overhead");
	json_object_begin(w);
	field_figures(w, &p->overhead);
	json_object_end(w);
	json_field_null(w, "limit_bytes");
	json_field_null(w, "seconds_to_limit");
	json_field_null(w, "verdict");
	json_object_end(w);
}

static void put_frame(struct json_writer *w, const struct frame *f)
{
	json_object_begin(w);
	json_field_string(w, "lang", f->lang == FRAME_PYTHON ? "python" : "native");
	json_field_string(w, "function", f->function);
	json_field_string(w, "file", f->file);
	if (f->line)
		json_field_u64(w, "line", f->line);
	else
		json_field_null(w, "line");
	json_field_string(w, "module", f->module);
	json_field_string(w, "build_id", f->build_id);
	if (f->has_offset)
		json_field_u64(w, "offset", f->offset);
	else
		json_field_null(w, "offset");
	json_field_bool(w, "inlined", f->inlined);
	json_object_end(w);
}

static const char *domain_name(enum probe_domain domain)
{
	switch (domain) {
	case DOMAIN_MALLOC:
		return "malloc";
	case DOMAIN_PYMALLOC:
		return "pymalloc";
	case DOMAIN_MMAP:
		return "mmap";
	case DOMAIN_COUNT:
		break;
	}
	return NULL;
}

static void field_pids(struct json_writer *w, const struct snapshot_stack *stack)
{
	json_key(w, "pids");
	json_array_begin(w);
	for (size_t i = 0; i < stack->pid_count; i++)
		json_s64(w, stack->pids[i]);
	json_array_end(w);
}

static void field_frames(struct json_writer *w, const struct snapshot_stack *stack)
{
	json_key(w, "frames");
	json_array_begin(w);
	for (size_t i = 0; i < stack->frame_count; i++)
		put_frame(w, &stack->frames[i]);
	json_array_end(w);
}

static void field_types(struct json_writer *w, const struct snapshot_type *types, size_t count)
{
	json_key(w, "types");
	json_array_begin(w);
	for (size_t i = 0; i < count; i++) {
		json_object_begin(w);
		json_field_string(w, "name", types[i].name);
		json_field_u64(w, "blocks", types[i].blocks);
		json_field_u64(w, "bytes", types[i].bytes);
		json_object_end(w);
	}
	json_array_end(w);
}

static void put_stack(struct json_writer *w, const struct snapshot_stack *stack, size_t rank)
{
	char id[17];

	snprintf(id, sizeof(id), "%016" PRIx64, stack->id);
	json_object_begin(w);
	json_field_u64(w, "rank", rank);
	json_field_string(w, "id", id);
	field_pids(w, stack);
	json_field_u64(w, "live_bytes", stack->live_bytes);
	field_interval(w, "live_bytes_ci95", stack->live_bytes_ci95);
	json_field_u64(w, "live_blocks", stack->live_blocks);
	field_interval(w, "live_blocks_ci95", stack->live_blocks_ci95);
	json_field_double(w, "growth_bytes_per_s", stack->growth_bytes_per_s);
	json_field_u64(w, "allocated_bytes", stack->allocated_bytes);
	json_field_u64(w, "allocated_blocks", stack->allocated_blocks);
	json_field_u64(w, "freed_bytes", stack->freed_bytes);
	json_field_u64(w, "freed_blocks", stack->freed_blocks);
	json_field_double(w, "oldest_s", stack->oldest_s);
	json_field_string(w, "domain", domain_name(stack->domain));
	field_types(w, stack->types, stack->type_count);
	json_field_null(w, "verdict");
	json_field_string(w, "incomplete", stack->incomplete);
	field_frames(w, stack);
	json_object_end(w);
}

static void field_processes(struct json_writer *w, const struct snapshot *s)
{
	json_key(w, "processes");
	json_array_begin(w);
	for (size_t i = 0; i < s->process_count; i++)
		put_process(w, &s->processes[i]);
	json_array_end(w);
}

static void field_stacks(struct json_writer *w, const struct snapshot *s)
{

	json_field_u64(w, "stacks_total", s->stack_count_all);
	json_key(w, "stacks");
	json_array_begin(w);
	for (size_t i = 0; i < s->stack_count; i++)
		put_stack(w, &s->stacks[i], i + 1);
	json_array_end(w);
}

static void field_groups(struct json_writer *w, const struct snapshot *s)
{
	json_field_string(w, "group_kind", s->group_kind);
	json_key(w, "groups");
	json_array_begin(w);
	for (size_t i = 0; i < s->group_count; i++) {
		const struct snapshot_group *g = &s->groups[i];

		json_object_begin(w);
		json_field_string(w, "name", g->name);
		json_field_u64(w, "live_bytes", g->live_bytes);
		json_field_u64(w, "live_blocks", g->live_blocks);
		json_field_double(w, "growth_bytes_per_s", g->growth_bytes_per_s);
		json_object_end(w);
	}
	json_array_end(w);
}

static void put_snapshot(struct json_writer *w, const struct snapshot *s)
{
	json_object_begin(w);
	json_field_u64(w, "version", 1);
	field_time(w, s->time_s);
	json_field_double(w, "elapsed_s", s->elapsed_s);
	json_field_bool(w, "final", s->final);
	json_field_u64(w, "total_live_bytes", s->total_live_bytes);
	json_field_u64(w, "total_live_blocks", s->total_live_blocks);
	field_coverage(w, s);
	field_loss(w, &s->loss);
	field_overhead(w, &s->overhead);
	field_processes(w, s);
	field_stacks(w, s);
	if (s->group_kind)
		field_groups(w, s);
	json_object_end(w);
}

static int render(FILE *out, const struct snapshot *s, const struct report_options *options)
{
	struct json_writer *w = json_writer_new(out);

	(void)options;
	if (!w)
		return -ENOMEM;
	put_snapshot(w, s);
	json_writer_free(w);
	putc('\n', out);
	return 0;
}

int report_write_json(FILE *out, const struct snapshot *s, const struct report_options *options)
{
	return report_write_whole(out, s, options, render);
}
