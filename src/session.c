/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "session.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "account/block_list.h"
#include "account/ledger.h"
#include "account/snapshot_builder.h"
#include "base/log.h"
#include "base/output.h"
#include "bpf/kernel.h"
#include "options.h"
#include "overhead/governor.h"
#include "overhead/overhead.h"
#include "probe/prober.h"
#include "pythons.h"
#include "report/report.h"
#include "reporter.h"
#include "sym/object.h"
#include "target/selector.h"
#include "targets.h"
#include "tracees.h"
#include "unwind/unwinder.h"

#define DEFAULT_INTERVAL_S 5.0
/* Open targets are looked for this often, beside the events that announce most of them. */
#define RESCAN_S 1.0
#define DRAINS_A_SWEEP 16
/* Not more often, however many processes end with all their stacks. */
#define SWEEP_S 0.2
#define REPORT_WAIT_MS 50
#define PYTHON_WAIT_S 0.002

struct session {
	const struct options *options;
	struct kernel *kernel;
	struct object_table *objects;
	struct prober *prober;
	struct ledger *ledger;
	struct unwinder *unwinder;
	struct snapshot_builder *builder;
	struct overhead *overhead;
	struct pythons *pythons;
	struct targets *targets;
	struct reporter *reporter;
	FILE *out;
	int epoll_fd, signal_fd;
	double swept_s;
	uint64_t reports;
	bool command_stands; /* just before CPython takes its objects down */
	bool reported_end;   /* and that was its last report */
	bool stop;
};

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Signals that end the session. */
static void signal_set(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGHUP);
}

static void on_event(void *arg, const struct event *e, size_t size)
{
	struct session *s = arg;

	if (e->kind == EVENT_PYTHON_END)
		s->command_stands = true;
	targets_event(s->targets, e);
	ledger_event(s->ledger, e, size);
}

static struct snapshot *take_snapshot(struct session *s, const struct block_list *blocks,
				      bool final)
{
	struct snapshot_request request = {
		.top = s->options->top,
		.sort = s->options->sort,
		.group_by = s->options->group_by,
		.final = final,
	};
	const struct tracees *tracees = targets_list(s->targets);
	size_t n = tracees_count(tracees);
	struct snapshot_subject *subjects = calloc(n + 1, sizeof(*subjects));
	struct overhead_figures overhead;
	struct snapshot *snapshot;

	if (!subjects)
		return NULL;
	for (size_t i = 0; i < n; i++) {
		const struct tracee *t = tracees_at(tracees, i);

		subjects[i].process = &t->process;
		subjects[i].attachments = t->attachments;
		subjects[i].slot = t->slot;
		subjects[i].python = python_coverage(t->python);
		subjects[i].interpreter = python_interpreter(t->python);
		subjects[i].exited = t->exited;
		subjects[i].overhead = overhead_of(s->overhead, t);
	}
	overhead = overhead_of_all(s->overhead, tracees);
	snapshot = snapshot_build(s->builder, &request, &overhead, subjects, n, blocks);
	free(subjects);
	return snapshot;
}

static void on_unwind_failed(void *arg, const struct unwind_failure *f, uint64_t count)
{
	struct session *s = arg;

	targets_unwind_failed(s->targets, f);
	ledger_unwind_failed(s->ledger, f, count);
}

/* Events first: a block of a stack that has not arrived would have no name. */
static void sweep(struct session *s)
{
	for (int i = 0; i < DRAINS_A_SWEEP && kernel_drain(s->kernel, on_event, s); i++)
		;
	s->swept_s = now_s();
	kernel_take_failures(s->kernel, on_unwind_failed, s);
	targets_find_ended(s->targets);
	ledger_sweep(s->ledger, (uint64_t)(now_s() * 1e9), s->options->min_age_ms * 1000000);
}

/* 0 or negative errno, also of the reports before. */
static int report(struct session *s, bool final)
{
	struct block_list blocks = {0};
	struct snapshot *snapshot;

	/* Folded stacks of several reports would add up in the reader's picture. */
	if (!final && !strcmp(s->options->format, "folded"))
		return 0;
	ledger_list_blocks(s->ledger, &blocks);
	sweep(s);
	snapshot = take_snapshot(s, &blocks, final);
	block_list_release(&blocks);
	if (!snapshot)
		return -ENOMEM;
	reporter_submit(s->reporter, snapshot);
	s->reports++;
	return reporter_error(s->reporter);
}

/* Events are taken meanwhile. A reader of our output that does not read can hold us
 * up for ever: a second signal ends us then. */
static int wait_for_report(struct session *s)
{
	sigset_t set;

	signal_set(&set);
	if (s->stop)
		sigprocmask(SIG_UNBLOCK, &set, NULL);
	while (reporter_is_busy(s->reporter, REPORT_WAIT_MS))
		kernel_drain(s->kernel, on_event, s);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return reporter_error(s->reporter);
}

static int final_report(struct session *s)
{
	int err = wait_for_report(s);

	if (s->reported_end)
		return err;
	if (!err)
		err = report(s, true);
	return err ? err : wait_for_report(s);
}

/* What a Python program holds at its end is to be seen before CPython frees it all. */
static int report_command_end(struct session *s)
{
	int err = final_report(s);

	s->reported_end = true;
	s->command_stands = false;
	targets_continue_command(s->targets);
	return err;
}

static int open_signals(struct session *s)
{
	struct epoll_event ev = {.events = EPOLLIN};
	sigset_t set;

	signal_set(&set);
	s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	s->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (s->signal_fd < 0 || s->epoll_fd < 0)
		return -errno;
	if (epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, s->signal_fd, &ev))
		return -errno;
	return epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, kernel_event_fd(s->kernel), &ev) ? -errno : 0;
}

static int open_kernel(struct session *s)
{
	const struct options *o = s->options;
	enum probe_method method = o->method;
	struct kernel_options k = {
		.ring_bytes = o->ring_bytes,
		.max_blocks = o->max_blocks,
		.size_min_bytes = o->size_min_bytes,
		.size_max_bytes = o->size_max_bytes,
		.stacks = !o->no_stacks,
		.all = selector_is_all(o->selector),
		.watch_execs = selector_is_open(o->selector),
		.follow_forks = !o->no_follow,
		.sampling_rate = o->sample == SAMPLE_FIXED ? o->sample_rate : 0,
	};
	struct overhead_options overhead = {
		.budget_pct = o->max_overhead_pct,
		.fixed = o->sample != SAMPLE_AUTO,
	};
	struct prober_options p = {.extra_prefix = o->symbol_prefix};
	int err;

	if (method == METHOD_AUTO)
		method = probe_method_best();
	if (probe_method_supported(method) != 1) {
		log_error("probe method %s is not supported by this kernel; 'leaktop doctor' tells "
			  "what is",
			  probe_method_name(method));
		return -ENOTSUP;
	}
	k.method = p.method = overhead.method = method;
	if (kernel_open(&k, &s->kernel))
		return -EPERM;
	s->overhead = overhead_new(&overhead, s->kernel);
	if (!s->overhead)
		return -ENOMEM;
	s->prober = prober_new(s->kernel, s->objects, &p);
	err = unwinder_new(s->kernel, o->unwind_bytes, &s->unwinder);
	if (err)
		return err;
	s->ledger = ledger_new(s->kernel, s->unwinder);
	if (!s->prober || !s->ledger)
		return -ENOMEM;
	s->builder = snapshot_builder_new(s->kernel, s->ledger, s->unwinder,
					  method == METHOD_SESSION ? "session" : "uretprobe");
	return s->builder ? 0 : -ENOMEM;
}

/* Before any thread starts, which would take signals meant for us. */
static void block_signals(void)
{
	sigset_t set;

	signal_set(&set);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
}

static int open_reporter(struct session *s)
{
	const struct options *o = s->options;
	struct report_options options = {
		.color = o->color == -1 ? isatty(fileno(s->out)) : o->color,
		.verbose = o->verbosity > 0,
	};

	return reporter_new(report_format_find(o->format), &options, s->out, &s->reporter);
}

static int open_pythons(struct session *s)
{
	const struct options *o = s->options;
	struct pythons_options options = {
		.mode = o->python,
		.no_redirect = o->no_redirect,
		.anonymous = selector_is_all(o->selector),
	};
	struct pythons_modules modules = {s->kernel, s->objects, s->prober, s->ledger, s->unwinder};

	s->pythons = pythons_new(&options, &modules);
	return s->pythons ? 0 : -ENOMEM;
}

static int open_modules(struct session *s)
{
	struct targets_modules modules;
	int err;

	block_signals();
	s->objects = object_table_new();
	if (!s->objects)
		return -ENOMEM;
	err = output_open(s->options->output_path, &s->out);
	if (!err)
		err = open_reporter(s);
	if (!err)
		err = open_kernel(s);
	if (err)
		return err;
	err = open_pythons(s);
	if (err)
		return err;
	modules = (struct targets_modules){s->kernel, s->objects,  s->prober,
					   s->ledger, s->unwinder, s->pythons};
	err = targets_new(s->options, &modules, &s->targets);
	if (err)
		return err;
	return open_signals(s);
}

static void announce(const struct session *s)
{
	size_t n = tracees_alive(targets_list(s->targets));

	if (s->options->run)
		log_notice("tracing %s; a last report follows when it ends", s->options->run[0]);
	else
		log_notice("tracing %zu process%s; Ctrl-C ends with a last report", n,
			   n == 1 ? "" : "es");
}

int session_open(const struct options *o, struct session **out)
{
	struct session *s = calloc(1, sizeof(*s));
	int err;

	if (!s)
		return -ENOMEM;
	s->options = o;
	s->epoll_fd = s->signal_fd = -1;
	err = open_modules(s);
	if (!err)
		err = targets_attach(s->targets);
	if (err) {
		session_close(s);
		return err;
	}
	announce(s);
	*out = s;
	return 0;
}

void session_close(struct session *s)
{
	if (!s)
		return;
	reporter_free(s->reporter);
	targets_free(s->targets);
	pythons_free(s->pythons);
	snapshot_builder_free(s->builder);
	ledger_free(s->ledger);
	unwinder_free(s->unwinder);
	overhead_free(s->overhead);
	prober_free(s->prober);
	kernel_close(s->kernel);
	object_table_free(s->objects);
	output_close(s->out);
	if (s->signal_fd >= 0)
		close(s->signal_fd);
	if (s->epoll_fd >= 0)
		close(s->epoll_fd);
	free(s);
}

static void check_signals(struct session *s)
{
	struct signalfd_siginfo info;

	while (read(s->signal_fd, &info, sizeof(info)) == sizeof(info))
		s->stop = true;
}

static void rescan(struct session *s)
{
	targets_rescan(s->targets);
	targets_find_ended(s->targets);
	if (ledger_has_buried(s->ledger))
		sweep(s);
}

static void wait_until(struct session *s, double deadline_s)
{
	struct epoll_event events[2];
	double left_s = deadline_s - now_s();

	if (left_s > RESCAN_S)
		left_s = RESCAN_S;
	/* The report is due, and the one before is still being written. */
	if (left_s <= 0)
		left_s = REPORT_WAIT_MS / 1e3;
	if (targets_run_command(s->targets) && left_s > 0.05)
		left_s = 0.05;
	if (targets_await_pythons(s->targets) && left_s > PYTHON_WAIT_S)
		left_s = PYTHON_WAIT_S;
	if (left_s > GOVERNOR_STEP_S)
		left_s = GOVERNOR_STEP_S;
	epoll_wait(s->epoll_fd, events, 2, left_s > 0 ? (int)(left_s * 1000) + 1 : 0);
	check_signals(s);
	do {
		kernel_drain(s->kernel, on_event, s);
	} while (targets_probe_next(s->targets));
	overhead_tick(s->overhead, targets_list(s->targets));
	if (ledger_is_short(s->ledger) && now_s() >= s->swept_s + SWEEP_S)
		sweep(s);
}

int session_run(struct session *s)
{
	const struct options *o = s->options;
	double interval_s = o->interval_s > 0 ? o->interval_s : DEFAULT_INTERVAL_S;
	double start_s = now_s(), next_s = start_s + interval_s, scan_s = start_s + RESCAN_S;
	double end_s = o->duration_s > 0 ? start_s + o->duration_s : 1e18;
	int err = 0;

	while (!s->stop && !err) {
		wait_until(s, next_s < end_s ? next_s : end_s);
		if (s->command_stands)
			err = report_command_end(s);
		if (now_s() >= scan_s) {
			rescan(s);
			scan_s = now_s() + RESCAN_S;
		}
		if (targets_are_gone(s->targets) || now_s() >= end_s)
			break;
		if (s->stop || now_s() < next_s || reporter_is_busy(s->reporter, 0))
			continue;
		if (o->count && s->reports + 1 >= o->count)
			break;
		/* A command reports at its end, unless an interval was asked for. */
		if (!s->reported_end && (!targets_run_command(s->targets) || o->interval_s > 0))
			err = report(s, false);
		next_s += interval_s;
		if (next_s < now_s())
			next_s = now_s() + interval_s;
	}
	if (!err)
		err = final_report(s);
	if (err && err != -EPIPE)
		log_error("cannot write the report to %s: %s",
			  o->output_path ? o->output_path : "standard output", strerror(-err));
	return err == -EPIPE ? 0 : err;
}
