/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "census.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/escape.h"
#include "base/log.h"
#include "python/census.h"
#include "python/interpreter.h"
#include "python/type_names.h"
#include "report/units.h"

#define NAME_BYTES_MAX 255
#define FIND_TRIES 50
#define FIND_WAIT_NS 100000000
#define GROWTH_ROWS_MAX 40

/* The highest counts so far, by number of the name. */
struct peaks {
	struct type_names *names;
	uint64_t *counts;
	uint32_t room;
};

struct growth {
	const struct census_row *row;
	uint64_t more;
};

static int peaks_make_room(struct peaks *p)
{
	uint32_t room = type_names_count(p->names);
	uint64_t *counts;

	if (room <= p->room)
		return 0;
	counts = realloc(p->counts, room * 2 * sizeof(*counts));
	if (!counts)
		return -ENOMEM;
	memset(counts + p->room, 0, (room * 2 - p->room) * sizeof(*counts));
	p->counts = counts;
	p->room = room * 2;
	return 0;
}

/* By how many @row is above its peak, which it then is. */
static int peaks_raise(struct peaks *p, const struct census_row *row, uint64_t *more)
{
	uint32_t number = type_names_number(p->names, row->name);
	int err = number ? peaks_make_room(p) : -ENOMEM;

	if (err)
		return err;
	*more = row->blocks > p->counts[number] ? row->blocks - p->counts[number] : 0;
	p->counts[number] += *more;
	return 0;
}

static void print_name(FILE *out, const char *name)
{
	escape_terminal(out, name, NAME_BYTES_MAX);
	fputc('\n', out);
}

static void print_head(FILE *out, const struct interpreter *i, const struct census *c)
{
	fprintf(out, "process %d, CPython %s: %s blocks, %s in %s pools (%s of them free)", i->pid,
		i->version, units_count(c->blocks).s, units_bytes(c->bytes).s,
		units_count(c->pools).s, units_bytes(c->pool_free_bytes).s);
	fprintf(out, ", %s larger, %s; took %.3f s", units_count(c->large_blocks).s,
		units_bytes(c->large_bytes).s, c->seconds);
	if (c->stopped_seconds > 0)
		fprintf(out, ", of which it was stopped %.3f s", c->stopped_seconds);
	fputc('\n', out);
	if (!c->pools)
		fprintf(out, "no pools of pymalloc (PYTHONMALLOC?): only what the collector "
			     "tracks is counted\n");
	if (c->pools_skipped)
		fprintf(out, "%s pools not counted: they kept changing while they were read\n",
			units_count(c->pools_skipped).s);
}

static void print_collector(FILE *out, const struct census *c)
{
	if (!c->gc_known) {
		fprintf(out, "collector: not recognised; objects above 512 bytes not counted\n");
		return;
	}
	fprintf(out, "collector %s, garbage ", c->gc_enabled ? "enabled" : "DISABLED");
	if (c->garbage < 0)
		fprintf(out, "unknown\n");
	else
		fprintf(out, "%s\n", units_count((uint64_t)c->garbage).s);
	fprintf(out, "%12s %10s %10s %12s %12s %14s\n", "generation", "threshold", "count",
		"collections", "collected", "uncollectable");
	for (int g = 0; g < 3; g++) {
		const struct census_gc_generation *n = &c->generations[g];

		fprintf(out, "%12d %10s %10s %12s %12s %14s\n", g, units_count(n->threshold).s,
			units_count(n->count).s, units_count(n->collections).s,
			units_count(n->collected).s, units_count(n->uncollectable).s);
	}
}

static void print_rows(FILE *out, const struct census *c)
{
	fprintf(out, "%14s %14s  %s\n", "count", "bytes", "type");
	for (size_t i = 0; i < c->row_count; i++) {
		fprintf(out, "%14s %14s  ", units_count(c->rows[i].blocks).s,
			units_count(c->rows[i].bytes).s);
		print_name(out, c->rows[i].name);
	}
}

static int compare_growth(const void *a, const void *b)
{
	const struct growth *x = a, *y = b;

	if (x->more != y->more)
		return x->more < y->more ? 1 : -1;
	return strcmp(x->row->name, y->row->name);
}

static void print_time(FILE *out)
{
	time_t now = time(NULL);
	struct tm tm;
	char text[32];

	if (localtime_r(&now, &tm) && strftime(text, sizeof(text), "%H:%M:%S", &tm))
		fprintf(out, "%s ", text);
}

static void print_growth(FILE *out, const struct growth *rows, size_t count, const struct census *c)
{
	fputc('\n', out);
	print_time(out);
	fprintf(out, "%s blocks, %s; took %.3f s%s\n", units_count(c->blocks).s,
		units_bytes(c->bytes).s, c->seconds, count ? "" : "; nothing has grown");
	for (size_t i = 0; i < count && i < GROWTH_ROWS_MAX; i++) {
		fprintf(out, "%14s %14s  ", units_count(rows[i].row->blocks).s,
			units_signed_count((int64_t)rows[i].more).s);
		print_name(out, rows[i].row->name);
	}
	if (count > GROWTH_ROWS_MAX)
		fprintf(out, "%zu more have grown\n", count - GROWTH_ROWS_MAX);
}

/* @out NULL: only the peaks are raised. */
static int show_growth(FILE *out, const struct census *c, struct peaks *p)
{
	struct growth *rows = calloc(c->row_count + 1, sizeof(*rows));
	size_t count = 0;
	int err = rows ? 0 : -ENOMEM;

	for (size_t i = 0; !err && i < c->row_count; i++) {
		rows[count].row = &c->rows[i];
		err = peaks_raise(p, &c->rows[i], &rows[count].more);
		count += !err && rows[count].more;
	}
	if (!err && out) {
		qsort(rows, count, sizeof(*rows), compare_growth);
		print_growth(out, rows, count, c);
	}
	free(rows);
	return err;
}

static void wait_seconds(double seconds)
{
	struct timespec wait = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};

	nanosleep(&wait, NULL);
}

/* It may just be starting. */
static int find_interpreter(pid_t pid, struct interpreter *out)
{
	struct interpreter_problem problem = {0};
	int err = interpreter_find(pid, out, &problem);

	for (int n = 0; err == -EAGAIN && n < FIND_TRIES; n++) {
		wait_seconds(FIND_WAIT_NS / 1e9);
		err = interpreter_find(pid, out, &problem);
	}
	if (err == -ENOENT)
		log_error("process %d runs no CPython", pid);
	else if (err == -ENOTSUP)
		log_error("process %d: %s", pid, problem.reason);
	else if (err == -ESRCH)
		log_error("no process %d", pid);
	else if (err)
		log_error("cannot find the interpreter of process %d: %s", pid, strerror(-err));
	return err;
}

static void explain(pid_t pid, int err, bool freeze)
{
	if (err == -ENOTSUP)
		log_error("process %d: no census of free-threaded CPython", pid);
	else if (err == -EPERM && freeze)
		log_error("process %d cannot be stopped: another tracer has it", pid);
	else if (err == -ETIMEDOUT && freeze)
		log_error("process %d does not stop; it runs on", pid);
	else
		log_error("no census of process %d: %s", pid, strerror(-err));
}

/* Table @nth. -ESRCH: the process has ended. */
static int show_table(const struct interpreter *i, unsigned long nth, bool freeze, struct peaks *p,
		      FILE *out)
{
	struct census *c;
	int err = census_take(i, freeze, &c);

	if (err)
		return err;
	if (nth == 0) {
		print_head(out, i, c);
		print_collector(out, c);
		print_rows(out, c);
	}
	err = show_growth(nth ? out : NULL, c, p);
	fflush(out);
	census_free(c);
	return err;
}

int census_command(pid_t pid, double every_s, unsigned long count, bool freeze, FILE *out)
{
	struct peaks peaks = {.names = type_names_new()};
	struct interpreter i;
	unsigned long nth = 0;
	int err = peaks.names ? find_interpreter(pid, &i) : -ENOMEM;

	while (!err) {
		err = show_table(&i, nth++, freeze, &peaks, out);
		if (err || every_s <= 0 || nth == count)
			break;
		wait_seconds(every_s);
	}
	if (err == -ESRCH && nth > 1)
		err = 0; /* it has ended meanwhile */
	else if (err && nth)
		explain(pid, err, freeze);
	type_names_free(peaks.names);
	free(peaks.counts);
	return err;
}
