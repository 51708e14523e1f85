/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "watch/watch_command.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/output.h"
#include "options.h"
#include "target/selector.h"
#include "watch/escalation.h"
#include "watch/watch_report.h"
#include "watch/watcher.h"

#define DEFAULT_INTERVAL_S 5.0
#define SAMPLE_S 1.0
/* Samples come this much sooner or later, at random (growth.c says why). */
#define JITTER_S 0.2

struct watch {
	const struct options *options;
	watch_render_fn *render;
	struct watch_format_options format;
	struct watcher *watcher;
	struct escalation *escalation; /* NULL: only watch */
	FILE *out;
	int signal_fd;
	uint32_t random;
	uint64_t reports;
};

static double now_s(void)
{
	return (double)clock_now_ns() / 1e9;
}

static int open_signals(struct watch *w)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	w->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return w->signal_fd < 0 ? -errno : 0;
}

/* What the user named must be there, unless more can come. */
static int first_look(struct watch *w)
{
	const struct selector *selector = w->options->selector;
	char missing[512];
	int err;

	if (!selector_is_empty(selector) && selector_missing(selector, missing, sizeof(missing))) {
		log_error("%s is not there; nothing to watch", missing);
		return -ESRCH;
	}
	err = watcher_new(selector, !w->options->no_follow, &w->watcher);
	if (!err)
		err = watcher_tick(w->watcher, now_s());
	if (err)
		log_error("cannot watch processes: %s", strerror(-err));
	return err;
}

/* To watch takes no privilege. */
static bool can_trace(void)
{
	return !geteuid() && !access("/sys/kernel/btf/vmlinux", R_OK);
}

static int watch_open(const struct options *o, struct watch *w)
{
	int err;

	w->options = o;
	w->signal_fd = -1;
	w->random = (uint32_t)clock_now_ns() | 1;
	w->render = watch_format_find(o->format);
	if (!w->render) {
		log_error("a watch has no stacks: --format text or json, not %s", o->format);
		return -EINVAL;
	}
	err = open_signals(w);
	if (err) {
		log_error("cannot wait for signals: %s", strerror(-err));
		return err;
	}
	err = output_open(o->output_path, &w->out);
	if (err)
		return err;
	w->format = (struct watch_format_options){
		.top = o->top,
		.color = o->color == -1 ? isatty(fileno(w->out)) : o->color,
		.verbose = o->verbosity > 0,
	};
	err = first_look(w);
	if (err || o->no_escalate || !can_trace())
		return err;
	w->escalation = escalation_new(o, fileno(w->out));
	return w->escalation ? 0 : -ENOMEM;
}

static void watch_close(struct watch *w)
{
	escalation_free(w->escalation);
	watcher_free(w->watcher);
	output_close(w->out);
	if (w->signal_fd >= 0)
		close(w->signal_fd);
}

static int report(struct watch *w, bool final)
{
	struct watch_report *r;
	int err = watcher_report(w->watcher, final, &r);

	if (err)
		return err;
	err = watch_report_write(w->out, r, &w->format, w->render);
	watch_report_free(r);
	w->reports++;
	return err;
}

/* The seconds to the next sample. */
static double next_gap_s(struct watch *w, double interval_s)
{
	double unit;

	/* xorshift (Marsaglia): nothing depends on how good it is. */
	w->random ^= w->random << 13;
	w->random ^= w->random >> 17;
	w->random ^= w->random << 5;
	unit = (double)w->random / UINT32_MAX;
	return fmin(SAMPLE_S, interval_s) * (1 + JITTER_S * (2 * unit - 1));
}

/* True when a signal says to stop. */
static bool wait_until(const struct watch *w, double deadline_s)
{
	struct pollfd p = {.fd = w->signal_fd, .events = POLLIN};
	double left_s = fmin(deadline_s - now_s(), 3600);

	return poll(&p, 1, left_s > 0 ? (int)ceil(left_s * 1000) : 0) > 0;
}

/* A second signal ends us if nobody reads what we write. */
static void unblock_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
}

static void take_signal(const struct watch *w)
{
	struct signalfd_siginfo info;

	while (read(w->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
		;
	unblock_signals();
}

static bool is_over(const struct watch *w, double end_s)
{
	return now_s() >= end_s ||
	       (!watcher_process_count(w->watcher) && !selector_is_empty(w->options->selector) &&
		!selector_is_open(w->options->selector));
}

/* Until it is time for the last report. */
static int run(struct watch *w)
{
	const struct options *o = w->options;
	double interval_s = o->interval_s > 0 ? o->interval_s : DEFAULT_INTERVAL_S;
	double start_s = now_s(), next_s = start_s + interval_s;
	double end_s = o->duration_s > 0 ? start_s + o->duration_s : 1e18;
	double sample_s = start_s + next_gap_s(w, interval_s);
	int err = 0;

	while (!err && !wait_until(w, fmin(fmin(sample_s, next_s), end_s))) {
		if (now_s() >= sample_s) {
			err = watcher_tick(w->watcher, now_s());
			if (!err && w->escalation)
				escalation_tick(w->escalation, w->watcher, now_s());
			sample_s = now_s() + next_gap_s(w, interval_s);
		}
		if (err || is_over(w, end_s))
			break;
		if (now_s() < next_s)
			continue;
		if (o->count && w->reports + 1 >= o->count)
			break;
		err = report(w, false);
		next_s += interval_s;
		if (next_s < now_s())
			next_s = now_s() + interval_s;
	}
	take_signal(w);
	return err ? err : report(w, true);
}

int watch_command(const struct options *o)
{
	struct watch w = {0};
	int err = watch_open(o, &w);

	if (!err) {
		log_notice("watching %zu processes%s; Ctrl-C ends with a last report",
			   watcher_process_count(w.watcher),
			   w.escalation ? ", tracing for a minute what grows" : ", probing none");
		err = run(&w);
		if (err == -EPIPE)
			err = 0;
		else if (err)
			log_error("cannot write the report to %s: %s",
				  o->output_path ? o->output_path : "standard output",
				  strerror(-err));
	}
	watch_close(&w);
	return err;
}
