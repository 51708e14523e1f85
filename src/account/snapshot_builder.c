/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "account/snapshot_builder.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "account/block_list.h"
#include "account/cut_stacks.h"
#include "account/ledger.h"
#include "account/stack_rows.h"
#include "base/arena.h"
#include "bpf/kernel.h"
#include "probe/prober.h"
#include "sym/object.h"
#include "python/code_store.h"
#include "python/interpreter.h"
#include "python/types.h"
#include "sym/perf_map.h"
#include "target/process.h"
#include "unwind/unwinder.h"

#define CUTS_MAX 20 /* kinds of incomplete stacks shown */

struct snapshot_builder {
	const struct kernel *kernel;
	const struct ledger *ledger;
	struct unwinder *unwinder;
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
					      struct unwinder *u, const char *return_method)
{
	struct snapshot_builder *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	b->kernel = k;
	b->ledger = l;
	b->unwinder = u;
	b->return_method = return_method;
	b->start_s = b->last_s = clock_s(CLOCK_MONOTONIC);
	b->last_cpu_s = own_cpu_s();
	return b;
}

void snapshot_builder_free(struct snapshot_builder *b)
{
	free(b);
}

void snapshot_stack_release(struct snapshot_stack *st)
{
	perf_map_unref(st->perf_map);
	for (size_t i = 0; i < st->ref_count; i++)
		python_code_unref(st->refs[i].code);
	st->perf_map = NULL;
	st->ref_count = 0;
}

void snapshot_free(struct snapshot *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < s->stack_count; i++)
		snapshot_stack_release(&s->stacks[i]);
	for (size_t i = 0; i < s->typing_count; i++) {
		free(s->typings[i].blocks);
		free(s->typings[i].rows);
		free(s->typings[i].shares);
	}
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
	s->loss.python_codes = counters[COUNT_CODE_LOST];
	s->loss.outer_same = counters[COUNT_OUTER_SAME];
	s->loss.outer_differs = counters[COUNT_OUTER_DIFFERS];
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

static int by_count(const void *a, const void *b)
{
	const struct snapshot_cut *x = a, *y = b;

	return (x->count < y->count) - (x->count > y->count);
}

static int fill_cuts(const struct snapshot_builder *b, struct snapshot *s)
{
	const struct cut_stacks *cuts = ledger_cuts(b->ledger);
	size_t n = cut_stacks_count(cuts);

	s->loss.cuts = arena_alloc(s->arena, n + 1, sizeof(*s->loss.cuts));
	if (!s->loss.cuts)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		const struct cut_stack *c = cut_stacks_at(cuts, i);
		const char *name = unwind_result_name(c->result);

		if (name)
			s->loss.cuts[s->loss.cut_count++] =
				(struct snapshot_cut){arena_strdup(s->arena, c->object), name,
						      unwind_result_text(c->result), c->count};
	}
	qsort(s->loss.cuts, s->loss.cut_count, sizeof(*s->loss.cuts), by_count);
	if (s->loss.cut_count > CUTS_MAX)
		s->loss.cut_count = CUTS_MAX;
	return 0;
}

static void fill_overhead(struct snapshot_builder *b, struct snapshot *s, double now_s,
			  uint64_t hits)
{
	double elapsed_s = now_s - b->last_s, cpu_s = own_cpu_s();
	struct process_rss rss = {0};

	procfs_rss(getpid(), &rss);
	unwinder_stats(b->unwinder, &s->overhead.unwind);
	s->overhead.probe_hits = hits;
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
	out->overhead = subject->overhead;
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
		out->live_bytes = account->live.bytes;
		out->live_blocks = estimate_blocks(&account->live);
		out->live_bytes_ci95 = estimate_bytes_ci95(&account->live);
		out->mmap_live_bytes = account->mmap_bytes;
		out->mmap_live_blocks = account->mmap_blocks;
		out->growth_bytes_per_s = history_slope(&account->history);
	}
	out->python_live_bytes = subject->python ? 0 : UNKNOWN_BYTES;
	if (subject->python && account) {
		out->python_live_bytes = (int64_t)account->python.bytes;
		out->python_live_blocks = estimate_blocks(&account->python);
		out->python_live_bytes_ci95 = estimate_bytes_ci95(&account->python);
	}
	if (!subject->exited)
		procfs_rss(p->pid, &rss);
	out->rss_bytes = rss.rss_bytes;
	out->file_and_shared_bytes = rss.file_bytes + rss.shmem_bytes;
	out->allocator_free_bytes = UNKNOWN_BYTES;
	out->untracked_bytes = (int64_t)(rss.rss_bytes - out->file_and_shared_bytes) -
			       (int64_t)snapshot_process_held(out);
}

uint64_t snapshot_process_held(const struct snapshot_process *p)
{
	uint64_t python =
		p->python_live_bytes == UNKNOWN_BYTES ? 0 : (uint64_t)p->python_live_bytes;

	return p->live_bytes + p->mmap_live_bytes + python;
}

static int compare_processes(const void *a, const void *b)
{
	const struct snapshot_process *x = a, *y = b;
	uint64_t lx = snapshot_process_held(x), ly = snapshot_process_held(y);

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
		s->total_live_bytes += snapshot_process_held(p);
		s->total_live_blocks +=
			p->live_blocks + p->mmap_live_blocks + p->python_live_blocks;
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

static void cover_python(struct snapshot *s, const struct snapshot_subject *subject)
{
	struct coverage_python *c = &s->pythons[s->python_count];

	if (!subject->python)
		return;
	*c = *subject->python;
	c->pid = subject->process->pid;
	c->version = arena_strdup(s->arena, subject->python->version);
	s->python_count++;
}

static int fill_coverage(struct snapshot_builder *b, struct snapshot *s,
			 const struct snapshot_subject *subjects, size_t count)
{
	size_t room = 0;

	for (size_t i = 0; i < count; i++)
		room += attachments_count(subjects[i].attachments);
	s->allocators = arena_alloc(s->arena, room + 1, sizeof(*s->allocators));
	s->pythons = arena_alloc(s->arena, count + 1, sizeof(*s->pythons));
	if (!s->allocators || !s->pythons)
		return -1;
	for (size_t i = 0; i < count; i++) {
		cover_python(s, &subjects[i]);
		if (!subjects[i].exited)
			cover_subject(b, s, &subjects[i]);
	}
	return 0;
}

/* A sum over functions needs the first frames of every stack. */
static bool wants_all_stacks(const struct snapshot_request *request)
{
	return request->group_by == GROUP_FUNCTION || request->group_by == GROUP_LINE;
}

static int typing_init(struct snapshot *s, const struct snapshot_subject *subject, size_t count,
		       bool sampled)
{
	struct snapshot_typing *t = &s->typings[s->typing_count++];
	struct interpreter *copy = arena_alloc(s->arena, 1, sizeof(*copy));

	t->start_ticks = subject->process->start_ticks;
	t->debug_heads = subject->python && subject->python->debug_heads;
	t->blocks = calloc(count + 1, sizeof(*t->blocks));
	t->rows = calloc(count + 1, sizeof(*t->rows));
	t->shares = sampled ? calloc(count + 1, sizeof(*t->shares)) : NULL;
	if (!copy || !t->blocks || !t->rows || (sampled && !t->shares))
		return -ENOMEM;
	*copy = *subject->interpreter;
	t->interpreter = copy;
	return 0;
}

/* PYTHONMALLOC=debug has two words before what the program uses, and one behind
 * (Objects/obmalloc.c, _PyMem_DebugRawAlloc()). */
#define DEBUG_HEAD_BYTES 16
#define DEBUG_BYTES 24

static struct typed_block block_to_type(const struct snapshot_typing *t,
					const struct listed_block *b)
{
	struct typed_block typed = {b->address, b->size_bytes, TYPE_UNKNOWN};

	if (t->debug_heads && b->size_bytes > DEBUG_BYTES) {
		typed.address += DEBUG_HEAD_BYTES;
		typed.size_bytes -= DEBUG_BYTES;
	}
	return typed;
}

/* Deals the blocks out to their processes. */
static void typings_deal(struct snapshot *s, const struct sampling_tables *tables,
			 const struct block_list *blocks, const uint32_t *typing_of_slot,
			 const uint32_t *row_of_stack)
{
	for (size_t i = 0; i < blocks->count; i++) {
		const struct listed_block *b = &blocks->items[i];
		struct snapshot_typing *t;

		if (!typing_of_slot[b->slot])
			continue;
		t = &s->typings[typing_of_slot[b->slot] - 1];
		t->blocks[t->count] = block_to_type(t, b);
		if (t->shares)
			t->shares[t->count] =
				sampling_share(tables, b->size_bytes, b->rate, b->duty);
		t->rows[t->count++] = row_of_stack[b->stack_id & (STACK_IDS - 1)];
	}
}

/* What is to be looked at, by the process it belongs to. */
static int fill_typings(const struct snapshot_builder *b, struct snapshot *s,
			const struct snapshot_subject *subjects, size_t count,
			const struct block_list *blocks, const uint32_t *row_of_stack)
{
	bool sampled = false;
	size_t slots = LIVE_PROC_MAX + 1;
	uint32_t *counts = calloc(2 * slots, sizeof(*counts)), *typing_of_slot = counts + slots;
	int err = counts ? 0 : -ENOMEM;

	s->typings = arena_alloc(s->arena, count + 1, sizeof(*s->typings));
	if (!s->typings)
		err = -ENOMEM;
	for (size_t i = 0; !err && i < blocks->count; i++) {
		counts[blocks->items[i].slot]++;
		sampled |= blocks->items[i].rate || blocks->items[i].duty;
	}
	for (size_t i = 0; !err && i < count; i++) {
		if (!subjects[i].interpreter || !counts[subjects[i].slot])
			continue;
		err = typing_init(s, &subjects[i], counts[subjects[i].slot], sampled);
		typing_of_slot[subjects[i].slot] = (uint32_t)s->typing_count;
	}
	if (!err)
		typings_deal(s, kernel_sampling_tables(b->kernel), blocks, typing_of_slot,
			     row_of_stack);
	s->blocks_untyped = blocks->left_out;
	free(counts);
	return err;
}

static int fill_stacks(const struct snapshot_builder *b, struct snapshot *s,
		       const struct snapshot_subject *subjects, size_t count,
		       const struct block_list *blocks)
{
	uint32_t *row_of_stack = malloc(STACK_IDS * sizeof(*row_of_stack));
	int err = row_of_stack ? 0 : -ENOMEM;

	if (!err) {
		memset(row_of_stack, 0xff, STACK_IDS * sizeof(*row_of_stack));
		err = stack_rows_fill(b->ledger, s, s->request.sort == SORT_GROWTH,
				      wants_all_stacks(&s->request) ? SIZE_MAX : s->request.top,
				      row_of_stack);
	}
	if (!err)
		err = fill_typings(b, s, subjects, count, blocks, row_of_stack);
	free(row_of_stack);
	return err;
}

struct snapshot *snapshot_build(struct snapshot_builder *b, const struct snapshot_request *request,
				const struct overhead_figures *overhead,
				const struct snapshot_subject *subjects, size_t subject_count,
				const struct block_list *blocks)
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
	s->request = *request;
	s->final = request->final;
	kernel_counters(b->kernel, counters);
	fill_loss(s, counters);
	fill_unwinding(s, counters);
	s->overhead.figures = *overhead;
	fill_overhead(b, s, now_s, counters[COUNT_HITS]);
	if (fill_processes(b, s, subjects, subject_count) ||
	    fill_coverage(b, s, subjects, subject_count) || fill_cuts(b, s) ||
	    fill_stacks(b, s, subjects, subject_count, blocks))
		goto fail;
	return s;
fail:
	if (s)
		snapshot_free(s);
	else
		arena_free(arena);
	return NULL;
}
