/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "account/snapshot_builder.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "account/ledger.h"
#include "account/stack_rows.h"
#include "base/arena.h"
#include "bpf/kernel.h"
#include "probe/prober.h"
#include "sym/object.h"
#include "target/process.h"
#include "unwind/unwinder.h"

struct snapshot_builder {
	const struct kernel *kernel;
	const struct ledger *ledger;
	struct symbolizer *symbolizer;
	const char *return_method;
	double start_s; /* monotonic, as all below but where said */
	double last_s;	/* of the snapshot before this */
	double last_cpu_s;
	uint64_t last_hits;
};

static double clock_s(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double own_cpu_s(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

struct snapshot_builder *snapshot_builder_new(const struct kernel *k, const struct ledger *l,
					      struct symbolizer *sym, const char *return_method)
{
	struct snapshot_builder *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	b->kernel = k;
	b->ledger = l;
	b->symbolizer = sym;
	b->return_method = return_method;
	b->start_s = b->last_s = clock_s(CLOCK_MONOTONIC);
	b->last_cpu_s = own_cpu_s();
	return b;
}

void snapshot_builder_free(struct snapshot_builder *b)
{
	free(b);
}

void snapshot_free(struct snapshot *s)
{
	if (s)
		arena_free(s->arena);
}

static void fill_loss(struct snapshot *s, const uint64_t counters[COUNTERS])
{
	s->loss.alloc_events = counters[COUNT_ALLOC_LOST] + counters[COUNT_PROCESS_LOST];
	s->loss.free_events = counters[COUNT_FREE_LOST];
	s->loss.live_map_full = counters[COUNT_TABLE_FULL];
	s->loss.live_map_full_bytes = counters[COUNT_TABLE_FULL_BYTES];
	s->loss.stacks = counters[COUNT_STACK_LOST];
	s->loss.ring_full = counters[COUNT_RING_FULL];
	s->loss.missed_frees = counters[COUNT_MISSED_FREE];
}

static void fill_unwinding(struct snapshot *s, const uint64_t counters[COUNTERS])
{
	uint64_t total = 0;

	for (uint32_t i = 0; i < UNWIND_RESULTS; i++) {
		uint64_t n = counters[COUNT_UNWIND + i];
		const char *name = unwind_result_name(i);

		total += n;
		if (n && name)
			s->loss.unwind_errors[s->loss.unwind_error_count++] =
				(struct snapshot_unwind_error){name, n};
	}
	s->stacks_complete_pct =
		total ? 100.0 * (double)counters[COUNT_UNWIND + UNWIND_COMPLETE] / (double)total
		      : NAN;
}

static void fill_overhead(struct snapshot_builder *b, struct snapshot *s, double now_s,
			  uint64_t hits)
{
	double elapsed_s = now_s - b->last_s, cpu_s = own_cpu_s();
	struct process_rss rss = {0};

	procfs_rss(getpid(), &rss);
	s->overhead.mode = "exact";
	s->overhead.probe_hits = hits;
	s->overhead.measured_pct = NAN;
	s->overhead.tracer_rss_bytes = rss.rss_bytes;
	if (elapsed_s > 0) {
		s->overhead.probe_hits_per_s = (double)(hits - b->last_hits) / elapsed_s;
		s->overhead.tracer_cpu_pct = 100 * (cpu_s - b->last_cpu_s) / elapsed_s;
	}
	b->last_s = now_s;
	b->last_cpu_s = cpu_s;
	b->last_hits = hits;
}

static void fill_process(struct snapshot_builder *b, struct arena *a,
			 const struct snapshot_subject *subject, struct snapshot_process *out)
{
	const struct process *p = subject->process;
	const struct ledger_process *account = ledger_process(b->ledger, subject->slot);
	struct process_rss rss = {0};

	out->pid = p->pid;
	out->exited = subject->exited;
	out->comm = arena_strdup(a, p->comm);
	out->exe = arena_strdup(a, p->exe);
	out->cgroup = arena_strdup(a, p->cgroup.path);
	out->unit = p->unit[0] ? arena_strdup(a, p->unit) : NULL;
	if (p->in_container) {
		out->container_id = arena_strdup(a, p->container.id);
		out->container_name =
			p->container.name[0] ? arena_strdup(a, p->container.name) : NULL;
		out->container_runtime = p->container.runtime;
	}
	if (account) {
		out->live_bytes = account->live_bytes;
		out->live_blocks = account->live_blocks;
		out->mmap_live_bytes = account->mmap_bytes;
		out->mmap_live_blocks = account->mmap_blocks;
		out->growth_bytes_per_s = history_slope(&account->history);
	}
	if (!subject->exited)
		procfs_rss(p->pid, &rss);
	out->rss_bytes = rss.rss_bytes;
	out->file_and_shared_bytes = rss.file_bytes + rss.shmem_bytes;
	out->allocator_free_bytes = UNKNOWN_BYTES;
	out->untracked_bytes = (int64_t)(rss.rss_bytes - out->file_and_shared_bytes) -
			       (int64_t)(out->live_bytes + out->mmap_live_bytes);
}

static int compare_processes(const void *a, const void *b)
{
	const struct snapshot_process *x = a, *y = b;
	uint64_t lx = x->live_bytes + x->mmap_live_bytes, ly = y->live_bytes + y->mmap_live_bytes;

	return lx != ly ? (lx < ly) - (lx > ly) : (x->pid > y->pid) - (x->pid < y->pid);
}

static int fill_processes(struct snapshot_builder *b, struct snapshot *s,
			  const struct snapshot_subject *subjects, size_t count)
{
	s->processes = arena_alloc(s->arena, count + 1, sizeof(*s->processes));
	if (!s->processes)
		return -1;
	for (size_t i = 0; i < count; i++) {
		struct snapshot_process *p = &s->processes[s->process_count++];

		fill_process(b, s->arena, &subjects[i], p);
		s->total_live_bytes += p->live_bytes + p->mmap_live_bytes;
		s->total_live_blocks += p->live_blocks + p->mmap_live_blocks;
		s->process_count_covered += !subjects[i].exited;
	}
	qsort(s->processes, s->process_count, sizeof(*s->processes), compare_processes);
	return 0;
}

/* The functions that have probes: no guard for exceptions, no operator new. */
static const char **site_names(struct arena *a, const struct alloc_sites *sites, bool throwing)
{
	const char **names = arena_alloc(a, sites->count + 1, sizeof(*names));

	for (size_t i = 0, n = 0; names && i < sites->count; i++) {
		const struct alloc_func *func = sites->items[i].func;

		if (func->spec.op != OP_UNWIND && (throwing || !alloc_func_throws(func)))
			names[n++] = arena_strdup(a, sites->items[i].symbol);
	}
	return names;
}

static void cover_subject(struct snapshot_builder *b, struct snapshot *s,
			  const struct snapshot_subject *subject)
{
	bool throwing =
		attachments_guarded(subject->attachments) || !strcmp(b->return_method, "session");

	for (size_t i = 0; i < attachments_count(subject->attachments); i++) {
		const struct object_probes *o = attachments_at(subject->attachments, i);
		struct coverage_allocator *c = &s->allocators[s->allocator_count];

		if (!o->sites.count)
			continue;
		c->pid = subject->process->pid;
		c->object = arena_strdup(s->arena, object_path(o->object));
		c->build_id = arena_strdup(s->arena, object_build_id(o->object));
		c->allocator = o->sites.allocator ? o->sites.allocator : "custom";
		c->functions = site_names(s->arena, &o->sites, throwing);
		c->return_method = b->return_method;
		s->allocator_count += c->functions && c->functions[0];
	}
}

static int fill_coverage(struct snapshot_builder *b, struct snapshot *s,
			 const struct snapshot_subject *subjects, size_t count)
{
	size_t room = 0;

	for (size_t i = 0; i < count; i++)
		room += attachments_count(subjects[i].attachments);
	s->allocators = arena_alloc(s->arena, room + 1, sizeof(*s->allocators));
	if (!s->allocators)
		return -1;
	for (size_t i = 0; i < count; i++) {
		if (!subjects[i].exited)
			cover_subject(b, s, &subjects[i]);
	}
	return 0;
}

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

static struct snapshot_group *group_find(struct snapshot *s, const char *name)
{
	struct snapshot_group *g;

	for (size_t i = 0; i < s->group_count; i++) {
		if (!strcmp(s->groups[i].name, name))
			return &s->groups[i];
	}
	g = &s->groups[s->group_count];
	g->name = arena_strdup(s->arena, name);
	if (!g->name)
		return NULL;
	s->group_count++;
	return g;
}

static void group_add(struct snapshot *s, const char *name, uint64_t bytes, uint64_t blocks,
		      double growth)
{
	struct snapshot_group *g = group_find(s, name);

	if (!g)
		return;
	g->live_bytes += bytes;
	g->live_blocks += blocks;
	g->growth_bytes_per_s += growth;
}

static int group_processes(struct snapshot *s, enum snapshot_group_by by)
{
	char buf[COMM_BYTES + 16];

	s->groups = arena_alloc(s->arena, s->process_count + 1, sizeof(*s->groups));
	if (!s->groups)
		return -1;
	for (size_t i = 0; i < s->process_count; i++) {
		const struct snapshot_process *p = &s->processes[i];

		group_add(s, group_name(p, by, buf, sizeof(buf)),
			  p->live_bytes + p->mmap_live_bytes, p->live_blocks + p->mmap_live_blocks,
			  p->growth_bytes_per_s);
	}
	return 0;
}

static int group_functions(struct snapshot *s)
{
	s->groups = arena_alloc(s->arena, s->stack_count + 1, sizeof(*s->groups));
	if (!s->groups)
		return -1;
	for (size_t i = 0; i < s->stack_count; i++) {
		const struct snapshot_stack *st = &s->stacks[i];
		const char *name = "[unknown]";

		if (st->frame_count && st->frames[0].function)
			name = st->frames[0].function;
		else if (st->frame_count && st->frames[0].module)
			name = st->frames[0].module;
		group_add(s, name, st->live_bytes, st->live_blocks, st->growth_bytes_per_s);
	}
	return 0;
}

static int compare_groups(const void *a, const void *b)
{
	const struct snapshot_group *x = a, *y = b;

	if (x->live_bytes != y->live_bytes)
		return (x->live_bytes < y->live_bytes) - (x->live_bytes > y->live_bytes);
	return strcmp(x->name, y->name);
}

static int fill_groups(struct snapshot *s, const struct snapshot_request *request)
{
	static const char *const kinds[] = {NULL, "function", "process", "container"};
	int err = 0;

	s->group_kind = kinds[request->group_by];
	if (request->group_by == GROUP_FUNCTION)
		err = group_functions(s);
	else if (request->group_by != GROUP_STACK)
		err = group_processes(s, request->group_by);
	if (err)
		return err;
	if (s->group_count)
		qsort(s->groups, s->group_count, sizeof(*s->groups), compare_groups);
	if (s->group_count > request->top)
		s->group_count = request->top;
	if (s->stack_count > request->top)
		s->stack_count = request->top;
	return 0;
}

static int fill_stacks(struct snapshot_builder *b, struct snapshot *s,
		       const struct snapshot_request *request)
{
	/* A sum over functions needs the first frame of every stack. */
	size_t top = request->group_by == GROUP_FUNCTION ? SIZE_MAX : request->top;

	return stack_rows_fill(b->ledger, b->symbolizer, s, request->sort == SORT_GROWTH, top);
}

struct snapshot *snapshot_build(struct snapshot_builder *b, const struct snapshot_request *request,
				const struct snapshot_subject *subjects, size_t subject_count)
{
	double now_s = clock_s(CLOCK_MONOTONIC);
	struct arena *arena = arena_new();
	uint64_t counters[COUNTERS];
	struct snapshot *s = arena ? arena_alloc(arena, 1, sizeof(*s)) : NULL;

	if (!s)
		goto fail;
	s->arena = arena;
	s->time_s = clock_s(CLOCK_REALTIME);
	s->elapsed_s = now_s - b->start_s;
	s->final = request->final;
	kernel_counters(b->kernel, counters);
	fill_loss(s, counters);
	fill_unwinding(s, counters);
	fill_overhead(b, s, now_s, counters[COUNT_HITS]);
	if (fill_processes(b, s, subjects, subject_count) ||
	    fill_coverage(b, s, subjects, subject_count) || fill_stacks(b, s, request) ||
	    fill_groups(s, request))
		goto fail;
	return s;
fail:
	arena_free(arena);
	return NULL;
}
