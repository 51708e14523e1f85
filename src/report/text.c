/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The report for a terminal, in the shape that memleak users know. The line
 * "N bytes in M allocations from stack" keeps exact figures and its wording,
 * also for one block, because people grep for it.
 */
#include "report/formats.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "account/snapshot.h"
#include "base/escape.h"
#include "probe_spec.h"
#include "report/units.h"
#include "sym/frame.h"

#define COMM_MAX_BYTES 16
#define COMM_COLUMNS 15
#define NAME_MAX_BYTES 512
#define PIDS_MAX 5	 /* of one stack */
#define PROCESSES_MAX 20 /* rows, unless verbose */
#define TYPES_SHOWN 4	 /* of one stack, unless verbose */

#define BOLD "1"
#define DIM "2"
#define RED "31"

struct text {
	FILE *out;
	const struct snapshot *s;
	bool color;
	bool verbose;
	bool pythons; /* some process runs Python */
};

static void color_on(const struct text *t, const char *code)
{
	if (t->color)
		fprintf(t->out, "\033[%sm", code);
}

static void color_off(const struct text *t)
{
	if (t->color)
		fputs("\033[0m", t->out);
}

static void put_name(const struct text *t, const char *name)
{
	escape_terminal(t->out, name, NAME_MAX_BYTES);
}

/* Growth in a field of @width columns; red when memory grows. */
static void put_growth(const struct text *t, int width, double bytes_per_s, const char *suffix)
{
	struct units_text growth = units_growth(bytes_per_s);
	bool red = growth.s[0] == '+';

	if (red)
		color_on(t, RED);
	fprintf(t->out, "%*s%s", width, growth.s, suffix);
	if (red)
		color_off(t);
}

/* NAN while no process has a figure. */
static double total_growth(const struct snapshot *s)
{
	double sum = NAN;

	for (size_t i = 0; i < s->process_count; i++)
		if (!isnan(s->processes[i].growth_bytes_per_s))
			sum = (isnan(sum) ? 0 : sum) + s->processes[i].growth_bytes_per_s;
	return sum;
}

static void put_clock(const struct text *t)
{
	char clock[16] = "--:--:--";
	struct tm local;
	time_t seconds;

	if (fabs(t->s->time_s) < 1e12) { /* false for not-a-number; localtime_r fails beyond */
		seconds = (time_t)t->s->time_s;
		if (localtime_r(&seconds, &local))
			strftime(clock, sizeof(clock), "%H:%M:%S", &local);
	}
	fprintf(t->out, "[%s] ", clock);
}

static void put_total_growth(const struct text *t)
{
	double growth = total_growth(t->s);
	const char *figure;
	struct units_text units;

	if (isnan(growth))
		return;
	units = units_growth(growth);
	figure = units.s + 1; /* the word says the sign */
	fputs("; ", t->out);
	if (units.s[0] == '+') {
		color_on(t, RED);
		fprintf(t->out, "growing %s/s", figure);
		color_off(t);
	} else if (units.s[0] == '-') {
		fprintf(t->out, "shrinking %s/s", figure);
	} else {
		fputs("steady", t->out);
	}
}

static bool nothing_outstanding(const struct snapshot *s)
{
	return s->total_live_blocks == 0 && s->total_live_bytes == 0 && s->stack_count == 0;
}

static void put_headline(const struct text *t)
{
	const struct snapshot *s = t->s;

	color_on(t, BOLD);
	put_clock(t);
	fprintf(t->out, "%s%s process%s, ", s->final ? "final report: " : "",
		units_count(s->process_count_covered).s, s->process_count_covered == 1 ? "" : "es");
	if (nothing_outstanding(s))
		fprintf(t->out, "no outstanding allocations (watched for %s)",
			units_duration(s->elapsed_s).s);
	else
		fprintf(t->out, "%s outstanding in %s block%s", units_bytes(s->total_live_bytes).s,
			units_count(s->total_live_blocks).s, s->total_live_blocks == 1 ? "" : "s");
	color_off(t);
	if (!nothing_outstanding(s))
		put_total_growth(t);
	putc('\n', t->out);
}

static const char *container_label(const struct snapshot_process *p)
{
	if (!p->container_id)
		return NULL;
	return p->container_name && p->container_name[0] ? p->container_name : p->container_id;
}

static void put_container(const struct text *t, const struct snapshot_process *p)
{
	const char *label = container_label(p);

	if (!label)
		return;
	fputs("  ", t->out);
	/* An id is known by its first 12 digits to docker and podman. */
	if (label == p->container_id && strlen(label) == 64 && !t->verbose)
		fprintf(t->out, "%.12s", label);
	else
		put_name(t, label);
}

/* Columns are counted as characters: an escaped name has one a byte. */
static void put_comm(const struct text *t, const char *comm)
{
	char *text = NULL;
	size_t size = 0, columns = 0;
	FILE *memory = open_memstream(&text, &size);

	if (!memory)
		return;
	escape_terminal(memory, comm ? comm : "?", COMM_MAX_BYTES);
	if (fclose(memory) == 0) {
		for (size_t i = 0; i < size; i++)
			columns += ((unsigned char)text[i] & 0xc0) != 0x80;
		fputs(text, t->out);
	}
	for (; columns < COMM_COLUMNS; columns++)
		putc(' ', t->out);
	free(text);
}

static struct units_text known_bytes(int64_t size_bytes)
{
	if (size_bytes == UNKNOWN_BYTES)
		return (struct units_text){"-"};
	return units_signed_bytes(size_bytes);
}

static void put_process(const struct text *t, const struct snapshot_process *p)
{
	fprintf(t->out, "%7d ", (int)p->pid);
	put_comm(t, p->comm);
	fprintf(t->out, "%11s", p->exited ? "(exited)" : units_bytes(p->rss_bytes).s);
	fprintf(t->out, "%11s", units_bytes(p->live_bytes).s);
	if (t->pythons)
		fprintf(t->out, "%11s", known_bytes(p->python_live_bytes).s);
	fprintf(t->out, "%11s", units_bytes(p->mmap_live_bytes).s);
	fprintf(t->out, "%12s", p->exited ? "-" : known_bytes(p->untracked_bytes).s);
	put_growth(t, 12, p->growth_bytes_per_s, "");
	put_container(t, p);
	putc('\n', t->out);
}

static int compare_held(const void *a, const void *b)
{
	const struct snapshot_process *p = *(const struct snapshot_process *const *)a;
	const struct snapshot_process *q = *(const struct snapshot_process *const *)b;
	uint64_t p_held = snapshot_process_held(p), q_held = snapshot_process_held(q);

	if (p_held != q_held)
		return p_held < q_held ? 1 : -1;
	return p->pid > q->pid ? 1 : p->pid < q->pid ? -1 : 0;
}

/* The line that sums: RSS is what stands right of it. */
static void put_process_sum(const struct text *t, const struct snapshot_process *p)
{
	bool free_known = p->allocator_free_bytes != UNKNOWN_BYTES;
	bool untracked_known = p->untracked_bytes != UNKNOWN_BYTES;

	if (p->exited)
		return;
	fprintf(t->out, "  pid %d: RSS %s = live %s", (int)p->pid, units_count(p->rss_bytes).s,
		units_count(p->live_bytes).s);
	if (p->python_live_bytes != UNKNOWN_BYTES)
		fprintf(t->out, " + python %s", units_signed_count(p->python_live_bytes).s);
	fprintf(t->out, " + mmap %s", units_count(p->mmap_live_bytes).s);
	fprintf(t->out, " + allocator free %s",
		free_known ? units_signed_count(p->allocator_free_bytes).s : "unknown");
	fprintf(t->out, " + file&shared %s", units_count(p->file_and_shared_bytes).s);
	fprintf(t->out, " + untracked %s bytes\n",
		untracked_known ? units_signed_count(p->untracked_bytes).s : "unknown");
}

static void put_process_header(const struct text *t)
{
	bool containers = false;

	for (size_t i = 0; i < t->s->process_count; i++)
		containers |= t->s->processes[i].container_id != NULL;
	color_on(t, DIM);
	fprintf(t->out, "%7s %-15s%11s%11s", "PID", "COMM", "RSS", "live");
	if (t->pythons)
		fprintf(t->out, "%11s", "python");
	fprintf(t->out, "%11s%12s%12s%s", "mmap", "untracked", "growth/s",
		containers ? "  container" : "");
	color_off(t);
	putc('\n', t->out);
}

static int put_processes(const struct text *t)
{
	const struct snapshot *s = t->s;
	const struct snapshot_process **sorted;
	size_t rows = s->process_count;

	if (s->process_count == 0)
		return 0;
	sorted = calloc(s->process_count, sizeof(const struct snapshot_process *));
	if (!sorted)
		return -ENOMEM;
	for (size_t i = 0; i < s->process_count; i++)
		sorted[i] = &s->processes[i];
	qsort(sorted, s->process_count, sizeof(const struct snapshot_process *), compare_held);
	if (!t->verbose && rows > PROCESSES_MAX)
		rows = PROCESSES_MAX;
	put_process_header(t);
	for (size_t i = 0; i < rows; i++)
		put_process(t, sorted[i]);
	if (rows < s->process_count)
		fprintf(t->out, "        and %s more (all with -v)\n",
			units_count(s->process_count - rows).s);
	for (size_t i = 0; t->verbose && i < rows; i++)
		put_process_sum(t, sorted[i]);
	free(sorted);
	return 0;
}

static void put_source(const struct text *t, const struct frame *f)
{
	/* A Python file is often __init__.py: nothing without its folders. */
	bool whole = t->verbose || f->lang == FRAME_PYTHON;

	if (!f->file)
		return;
	fputs("  ", t->out);
	put_name(t, whole ? f->file : report_base_name(f->file));
	if (f->line)
		fprintf(t->out, ":%" PRIu32, f->line);
}

static void put_function(const struct text *t, const struct frame *f)
{
	if (!f->function) {
		fprintf(t->out, "0x%" PRIx64, f->has_offset ? f->offset : f->address);
		return;
	}
	put_name(t, f->function);
	if (f->inlined)
		fputs(" (inlined)", t->out);
	else if (f->lang == FRAME_NATIVE)
		fprintf(t->out, "+0x%" PRIx64, f->func_offset);
}

static void put_module(const struct text *t, const char *module)
{
	const char *name = report_base_name(module);

	putc(' ', t->out);
	color_on(t, DIM);
	/* "[vdso]" and "[anon]" bring brackets of their own. */
	if (name[0] != '[')
		putc('[', t->out);
	put_name(t, name);
	if (name[0] != '[')
		putc(']', t->out);
	color_off(t);
}

static void put_frame(const struct text *t, const struct frame *f)
{
	fputs("\t\t", t->out);
	if (t->verbose && f->lang == FRAME_NATIVE) {
		color_on(t, DIM);
		fprintf(t->out, "0x%016" PRIx64 "  ", f->has_offset ? f->offset : f->address);
		color_off(t);
	}
	put_function(t, f);
	if (f->module)
		put_module(t, f->module);
	put_source(t, f);
	putc('\n', t->out);
}

static void put_pids(const struct text *t, const struct snapshot_stack *stack)
{
	for (size_t i = 0; i < stack->pid_count && i < PIDS_MAX; i++)
		fprintf(t->out, "%s%d",
			i		       ? ", "
			: stack->pid_count > 1 ? "pids "
					       : "pid ",
			(int)stack->pids[i]);
	if (stack->pid_count > PIDS_MAX)
		fprintf(t->out, " and %s more", units_count(stack->pid_count - PIDS_MAX).s);
}

/* " (+10.0 KiB/s, oldest 12.3 s, pid 4711)", without what is not known. */
static void put_stack_facts(const struct text *t, const struct snapshot_stack *stack)
{
	const char *separator = " (";

	if (!isnan(stack->growth_bytes_per_s)) {
		fputs(separator, t->out);
		put_growth(t, 0, stack->growth_bytes_per_s, "/s");
		separator = ", ";
	}
	if (!isnan(stack->oldest_s)) {
		fprintf(t->out, "%soldest %s", separator, units_duration(stack->oldest_s).s);
		separator = ", ";
	}
	if (stack->pid_count > 0) {
		fputs(separator, t->out);
		put_pids(t, stack);
		separator = ", ";
	}
	if (separator[0] == ',')
		putc(')', t->out);
}

/* The interpreter's own functions are left out, unless verbose: the lines of Python
 * that they run say more. */
static void put_frames(const struct text *t, const struct snapshot_stack *stack)
{
	size_t hidden = 0;

	for (size_t i = 0; i < stack->frame_count; i++) {
		const struct frame *f = &stack->frames[i];

		if (f->interpreter && !t->verbose) {
			hidden++;
			continue;
		}
		put_frame(t, f);
	}
	if (hidden && hidden == stack->frame_count)
		put_frame(t, &stack->frames[0]);
}

/* "types: 1,814 x app.Connection (101.5 KiB), 12 x dict (2.7 KiB)" */
static void put_types(const struct text *t, const struct snapshot_stack *stack)
{
	size_t n = t->verbose || stack->type_count <= TYPES_SHOWN ? stack->type_count : TYPES_SHOWN;

	if (!n)
		return;
	fputs("\t\ttypes: ", t->out);
	for (size_t i = 0; i < n; i++) {
		const struct snapshot_type *type = &stack->types[i];

		fprintf(t->out, "%s%s x ", i ? ", " : "", units_count(type->blocks).s);
		put_name(t, type->name);
		fprintf(t->out, " (%s)", units_bytes(type->bytes).s);
	}
	if (n < stack->type_count)
		fprintf(t->out, " and %s more", units_count(stack->type_count - n).s);
	putc('\n', t->out);
}

/* " (11,000 to 13,700)": nothing where it is a point. */
static void put_interval(const struct text *t, const struct interval *i)
{
	if (i->high > i->low)
		fprintf(t->out, " (%s to %s)", units_count((uint64_t)i->low).s,
			units_count((uint64_t)i->high).s);
}

static void put_stack(const struct text *t, const struct snapshot_stack *stack)
{
	putc('\t', t->out);
	color_on(t, BOLD);
	fprintf(t->out, "%" PRIu64 " bytes", stack->live_bytes);
	put_interval(t, &stack->live_bytes_ci95);
	fprintf(t->out, " in %" PRIu64 " %s from stack", stack->live_blocks,
		stack->domain == DOMAIN_MMAP ? "mappings" : "allocations");
	color_off(t);
	put_stack_facts(t, stack);
	putc('\n', t->out);
	put_types(t, stack);
	put_frames(t, stack);
	if (stack->incomplete) {
		fputs("\t\t[stack cut: ", t->out);
		put_name(t, stack->incomplete);
		fputs("]\n", t->out);
	} else if (stack->frame_count == 0) {
		fputs("\t\t[no stack]\n", t->out);
	}
}

static void put_stacks(const struct text *t)
{
	const struct snapshot *s = t->s;

	if (s->stack_count == 0) {
		if (!nothing_outstanding(s))
			fputs("no stacks to show\n", t->out);
		return;
	}
	color_on(t, BOLD);
	fprintf(t->out, "Top %s stack%s with outstanding allocations (of %s):",
		units_count(s->stack_count).s, s->stack_count == 1 ? "" : "s",
		units_count(s->stack_count_all).s);
	color_off(t);
	putc('\n', t->out);
	for (size_t i = 0; i < s->stack_count; i++)
		put_stack(t, &s->stacks[i]);
}

static void put_group(const struct text *t, const struct snapshot_group *g)
{
	fprintf(t->out, "%20s %14s", units_count(g->live_bytes).s, units_count(g->live_blocks).s);
	put_growth(t, 14, g->growth_bytes_per_s, "");
	fputs("  ", t->out);
	put_name(t, g->name ? g->name : "(none)");
	putc('\n', t->out);
}

static void put_groups(const struct text *t)
{
	const struct snapshot *s = t->s;
	const char *kind = s->group_kind;

	if (s->group_count == 0) {
		if (!nothing_outstanding(s))
			fprintf(t->out, "no outstanding allocations by %s to show\n", kind);
		return;
	}
	color_on(t, BOLD);
	fprintf(t->out, "Outstanding allocations by %s, top %s:", kind,
		units_count(s->group_count).s);
	color_off(t);
	putc('\n', t->out);
	color_on(t, DIM);
	fprintf(t->out, "%20s %14s%14s  %s", "bytes", "blocks", "growth/s", kind);
	color_off(t);
	putc('\n', t->out);
	for (size_t i = 0; i < s->group_count; i++)
		put_group(t, &s->groups[i]);
}

static void put_loss(const struct text *t, const char *before, uint64_t count, const char *noun,
		     const char *after)
{
	if (count == 0)
		return;
	fprintf(t->out, "lost: %s%s %s%s%s\n", before, units_count(count).s, noun,
		count == 1 ? "" : "s", after);
}

static void put_losses(const struct text *t)
{
	const struct snapshot_loss *loss = &t->s->loss;
	char table_full[96];

	snprintf(table_full, sizeof(table_full), " (%s) not tracked; raise --max-blocks",
		 units_bytes(loss->live_map_full_bytes).s);
	put_loss(t, "live table full: ", loss->live_map_full, "allocation", table_full);
	put_loss(t, "", loss->alloc_events, "allocation", " not recorded: not in this report");
	put_loss(t, "", loss->free_events, "free",
		 " not recorded: the blocks may still be shown as outstanding");
	put_loss(t, "stacks of ", loss->stacks, "block",
		 " not recorded: counted, but without frames");
	put_loss(t, "ring buffer full ", loss->ring_full, "time",
		 ": nothing lost, delivered later");
	put_loss(t, "names of ", loss->python_codes, "Python function",
		 " not recorded: frames without a name");
	put_loss(t, "", loss->missed_frees, "free",
		 " not seen: noticed when the address was used again, so not shown");
}

static void put_allocator(const struct text *t, const struct coverage_allocator *a)
{
	fprintf(t->out, "  pid %d: ", (int)a->pid);
	put_name(t, a->allocator ? a->allocator : "unknown allocator");
	fputs(" in ", t->out);
	put_name(t, a->object ? a->object : "?");
	fprintf(t->out, " (returns by %s):", a->return_method ? a->return_method : "?");
	for (const char **f = a->functions; f && *f; f++) {
		putc(' ', t->out);
		put_name(t, *f);
	}
	putc('\n', t->out);
}

/* Where stacks end too early, and why. */
static void put_cuts(const struct text *t)
{
	const struct snapshot_loss *loss = &t->s->loss;

	for (size_t i = 0; i < loss->cut_count; i++) {
		const struct snapshot_cut *c = &loss->cuts[i];

		fprintf(t->out, "  %s cut in ", units_count(c->count).s);
		put_name(t, c->object ? c->object : "?");
		fprintf(t->out, ": %s\n", c->why ? c->why : c->name);
	}
}

static const char *const python_objects[] = {"native stacks only", "objects above 512 bytes only",
					     "all objects"};

static void put_python(const struct text *t, const struct coverage_python *c, size_t more)
{
	fprintf(t->out, "  pid %d", (int)c->pid);
	if (more)
		fprintf(t->out, " and %s more", units_count(more).s);
	fputs(": CPython ", t->out);
	put_name(t, c->version && c->version[0] ? c->version : "(version unknown)");
	fprintf(t->out, ", %s", python_objects[c->objects]);
	if (c->reason) {
		fputs(": ", t->out);
		put_name(t, c->reason);
	}
	putc('\n', t->out);
}

static bool is_alike(const struct coverage_python *a, const struct coverage_python *b)
{
	return a->objects == b->objects && a->reason == b->reason &&
	       !strcmp(a->version ? a->version : "", b->version ? b->version : "");
}

/* One line for processes of which the same is to be said; the first stands for them. */
static void put_python_once(const struct text *t, size_t i)
{
	const struct coverage_python *all = t->s->pythons;
	size_t more = 0;

	for (size_t j = 0; j < t->s->python_count; j++) {
		if (j == i || !is_alike(&all[i], &all[j]))
			continue;
		if (j < i)
			return;
		more++;
	}
	put_python(t, &all[i], more);
}

/* What is not seen is said always, the rest on demand. */
static void put_pythons(const struct text *t)
{
	bool freelists = false, held = false;

	for (size_t i = 0; i < t->s->process_count; i++)
		held |= t->s->processes[i].python_live_blocks > 0;
	for (size_t i = 0; i < t->s->python_count; i++) {
		const struct coverage_python *c = &t->s->pythons[i];

		if (t->verbose)
			put_python(t, c, 0);
		else if (c->objects != PYTHON_OBJECTS_FULL)
			put_python_once(t, i);
		freelists |= c->freelists && c->objects == PYTHON_OBJECTS_FULL;
	}
	if (freelists && held)
		fputs("  note: headers of dict, list, tuple, float and frames can carry the line "
		      "of an "
		      "earlier user\n  (CPython keeps freed ones in freelists); buffers, strings "
		      "and instances carry their own\n",
		      t->out);
}

static void put_coverage(const struct text *t)
{
	const struct snapshot *s = t->s;

	fprintf(t->out, "coverage: %s process%s, %s %% of stacks complete\n",
		units_count(s->process_count_covered).s, s->process_count_covered == 1 ? "" : "es",
		units_decimal(s->stacks_complete_pct).s);
	put_cuts(t);
	for (size_t i = 0; i < s->allocator_count; i++)
		put_allocator(t, &s->allocators[i]);
}

/* That figures are estimates is not for -v only. */
static void put_sampling(const struct text *t)
{
	const struct overhead_figures *f = &t->s->overhead.figures;

	if (f->interval_bytes)
		fprintf(t->out,
			"sampled: one allocation in %s is recorded; sizes are estimates, with the "
			"range that holds the truth 95 times in 100\n",
			units_bytes(f->interval_bytes).s);
	if (f->over_budget)
		fprintf(t->out,
			"over budget: tracing takes %s %% of a process' CPU time, more than the "
			"%s %% of --max-overhead\n",
			units_decimal(f->measured_pct).s, units_decimal(f->budget_pct).s);
}

static void put_overhead(const struct text *t)
{
	const struct snapshot_overhead *overhead = &t->s->overhead;

	fprintf(t->out, "overhead: %s probe hits/s", units_decimal(overhead->probe_hits_per_s).s);
	if (!isnan(overhead->figures.measured_pct))
		fprintf(t->out, " costing at most %s %% of a process' CPU time (budget %s %%)",
			units_decimal(overhead->figures.measured_pct).s,
			units_decimal(overhead->figures.budget_pct).s);
	fprintf(t->out, "; leaktop itself %s %% of one CPU, RSS %s",
		units_decimal(overhead->tracer_cpu_pct).s,
		units_bytes(overhead->tracer_rss_bytes).s);
	fprintf(t->out, "; unwind tables of %s objects, %s\n",
		units_count(overhead->unwind.tables).s,
		units_bytes(overhead->unwind.table_bytes).s);
}

static int render(FILE *out, const struct snapshot *s, const struct report_options *options)
{
	struct text t = {.out = out, .s = s, .pythons = s->python_count > 0};
	int err;

	if (options) {
		t.color = options->color;
		t.verbose = options->verbose;
	}
	put_headline(&t);
	err = put_processes(&t);
	if (err)
		return err;
	if (s->group_kind)
		put_groups(&t);
	else
		put_stacks(&t);
	put_losses(&t);
	put_sampling(&t);
	put_pythons(&t);
	if (t.verbose) {
		put_coverage(&t);
		put_overhead(&t);
	}
	putc('\n', out);
	return 0;
}

int report_write_text(FILE *out, const struct snapshot *s, const struct report_options *options)
{
	return report_write_whole(out, s, options, render);
}
