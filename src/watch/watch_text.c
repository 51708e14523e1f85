/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The report for a terminal: who grows, for how long that can go on, and why it is said. */
#include "watch/watch_report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/escape.h"
#include "report/units.h"

#define COMM_MAX_BYTES 16
#define COMM_COLUMNS 15
#define NAME_MAX_BYTES 512
#define ID_DIGITS 12 /* docker and podman know a container by so many */

#define BOLD "1"
#define DIM "2"
#define RED "31"

struct text {
	FILE *out;
	const struct watch_report *r;
	const struct watch_format_options *options;
};

static void color_on(const struct text *t, const char *code)
{
	if (t->options->color)
		fprintf(t->out, "\033[%sm", code);
}

static void color_off(const struct text *t)
{
	if (t->options->color)
		fputs("\033[0m", t->out);
}

static void put_clock(const struct text *t)
{
	char clock[16] = "--:--:--";
	struct tm local;
	time_t seconds;

	if (fabs(t->r->time_s) < 1e12) {
		seconds = (time_t)t->r->time_s;
		if (localtime_r(&seconds, &local))
			strftime(clock, sizeof(clock), "%H:%M:%S", &local);
	}
	fprintf(t->out, "[%s] ", clock);
}

static const char *plural(size_t count, const char *many)
{
	return count == 1 ? "" : many;
}

static void put_suspicion(const struct text *t)
{
	size_t n = 0;

	for (size_t i = 0; i < t->r->process_count; i++)
		n += t->r->processes[i].trend.suspicious;
	fputs("; ", t->out);
	if (n)
		color_on(t, RED);
	if (n)
		fprintf(t->out, "%s grow%s", units_count(n).s, n == 1 ? "s" : "");
	else
		fputs("none grows suspiciously", t->out);
	if (n)
		color_off(t);
}

static void put_headline(const struct text *t)
{
	const struct watch_report *r = t->r;

	color_on(t, BOLD);
	put_clock(t);
	fprintf(t->out, "%s%s process%s in %s cgroup%s watched for %s",
		r->final ? "final report: " : "", units_count(r->process_count).s,
		plural(r->process_count, "es"), units_count(r->cgroup_count).s,
		plural(r->cgroup_count, "s"), units_duration(r->elapsed_s).s);
	color_off(t);
	put_suspicion(t);
	if (r->host_total_bytes)
		fprintf(t->out, "; host: %s of %s available",
			units_bytes(r->host_available_bytes).s, units_bytes(r->host_total_bytes).s);
	putc('\n', t->out);
	if (r->left_out)
		fprintf(t->out, "%s more processes are not watched: too many\n",
			units_count(r->left_out).s);
}

/* Columns are counted as characters: an escaped name has one a byte. */
static void put_comm(const struct text *t, const char *comm)
{
	char *text = NULL;
	size_t size = 0, columns = 0;
	FILE *memory = open_memstream(&text, &size);

	if (!memory)
		return;
	escape_terminal(memory, comm && *comm ? comm : "?", COMM_MAX_BYTES);
	if (!fclose(memory)) {
		for (size_t i = 0; i < size; i++)
			columns += ((unsigned char)text[i] & 0xc0) != 0x80;
		fputs(text, t->out);
	}
	for (; columns < COMM_COLUMNS; columns++)
		putc(' ', t->out);
	free(text);
}

static void put_container(const struct text *t, const struct watch_container *c)
{
	if (c->name)
		escape_terminal(t->out, c->name, NAME_MAX_BYTES);
	else if (strlen(c->id) == 64 && !t->options->verbose)
		fprintf(t->out, "%.*s", ID_DIGITS, c->id);
	else
		escape_terminal(t->out, c->id, NAME_MAX_BYTES);
}

/* The container, or the unit that the process belongs to. */
static void put_place(const struct text *t, const struct watch_container *c, const char *unit,
		      const char *cgroup)
{
	fputs("  ", t->out);
	if (c->id)
		put_container(t, c);
	else if (unit)
		escape_terminal(t->out, unit, NAME_MAX_BYTES);
	else if (cgroup)
		escape_terminal(t->out, cgroup, NAME_MAX_BYTES);
}

static void put_trend(const struct text *t, const struct watch_trend *trend)
{
	char interval[72] = "-";

	if (!isnan(trend->growth_low) && !isnan(trend->growth_high))
		snprintf(interval, sizeof(interval), "%s to %s", units_growth(trend->growth_low).s,
			 units_growth(trend->growth_high).s);
	if (trend->suspicious)
		color_on(t, RED);
	fprintf(t->out, "%13s", units_growth(trend->growth_bytes_per_s).s);
	if (trend->suspicious)
		color_off(t);
	fprintf(t->out, "%30s%10s", interval, units_duration(trend->seconds_to_limit).s);
}

static void put_why(const struct text *t, const struct watch_trend *trend)
{
	if (!trend->why || !(trend->suspicious || t->options->verbose))
		return;
	color_on(t, DIM);
	fprintf(t->out, "%8s%s", "", trend->why);
	if (trend->limit_of && !isnan(trend->seconds_to_limit)) {
		fprintf(t->out, "; limit %s of ", units_bytes(trend->limit_bytes).s);
		escape_terminal(t->out, trend->limit_of, NAME_MAX_BYTES);
	}
	color_off(t);
	putc('\n', t->out);
}

static void put_more(const struct text *t, size_t count)
{
	if (count > t->options->top)
		fprintf(t->out, "%8sand %s more (-T)\n", "",
			units_count(count - t->options->top).s);
}

static void put_process(const struct text *t, const struct watch_process *p)
{
	fprintf(t->out, "%7d ", (int)p->pid);
	put_comm(t, p->comm);
	fprintf(t->out, "%11s%11s", units_bytes(p->rss_bytes).s, units_bytes(p->anon_bytes).s);
	fprintf(t->out, "%11s", units_bytes(p->swap_bytes).s);
	put_trend(t, &p->trend);
	put_place(t, &p->container, p->unit, p->cgroup);
	putc('\n', t->out);
	put_why(t, &p->trend);
}

static void put_processes(const struct text *t)
{
	const struct watch_report *r = t->r;

	if (!r->process_count)
		return;
	color_on(t, DIM);
	fprintf(t->out, "%7s %-15s%11s%11s%11s%13s%30s%10s  %s", "PID", "COMM", "RSS", "anonymous",
		"swap", "growth/s", "95 % interval", "to limit", "container or unit");
	color_off(t);
	putc('\n', t->out);
	for (size_t i = 0; i < r->process_count && i < t->options->top; i++)
		put_process(t, &r->processes[i]);
	put_more(t, r->process_count);
}

static void put_cgroup(const struct text *t, const struct watch_cgroup *g)
{
	fprintf(t->out, "%12s%11s", units_count(g->processes).s, units_bytes(g->used_bytes).s);
	fprintf(t->out, "%22s", g->own_limit_bytes ? units_bytes(g->own_limit_bytes).s : "-");
	fprintf(t->out, "%11s", "");
	put_trend(t, &g->trend);
	put_place(t, &g->container, NULL, g->path);
	putc('\n', t->out);
	put_why(t, &g->trend);
}

static void put_cgroups(const struct text *t)
{
	const struct watch_report *r = t->r;

	if (!r->cgroup_count)
		return;
	color_on(t, DIM);
	fprintf(t->out, "%12s%11s%22s%11s%13s%30s%10s  %s", "processes", "in use", "limit", "",
		"growth/s", "95 % interval", "to limit", "container or cgroup");
	color_off(t);
	putc('\n', t->out);
	for (size_t i = 0; i < r->cgroup_count && i < t->options->top; i++)
		put_cgroup(t, &r->cgroups[i]);
	put_more(t, r->cgroup_count);
}

int watch_render_text(FILE *out, const struct watch_report *r,
		      const struct watch_format_options *options)
{
	const struct text t = {out, r, options};

	put_headline(&t);
	put_processes(&t);
	put_cgroups(&t);
	if (options->verbose)
		fprintf(out, "leaktop: %s %% of one CPU, %s\n", units_decimal(r->tracer_cpu_pct).s,
			units_bytes(r->tracer_rss_bytes).s);
	putc('\n', out);
	return 0;
}
