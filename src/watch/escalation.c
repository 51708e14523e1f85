/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "watch/escalation.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "options.h"
#include "watch/watcher.h"

#define SUSPECTS_MAX 3	  /* traced at a time */
#define TRACE_S 60.0	  /* each */
#define REPORT_S "20"	  /* between reports of a trace */
#define AGAIN_S 600.0	  /* before one is traced again, if others wait */
#define REMEMBERED_MAX 64 /* traced lately */
#define CANDIDATES_MAX 32
#define ARGUMENTS_MAX 24

struct remembered {
	pid_t pid;
	uint64_t start_ticks;
	double traced_s;
};

struct escalation {
	const struct options *options;
	int out_fd;
	pid_t child; /* 0: none */
	struct remembered lately[REMEMBERED_MAX];
	size_t lately_count; /* ever added */
};

struct escalation *escalation_new(const struct options *o, int out_fd)
{
	struct escalation *e = calloc(1, sizeof(*e));

	if (!e)
		return NULL;
	e->options = o;
	e->out_fd = out_fd;
	return e;
}

static void reap(struct escalation *e, int flags)
{
	int status;

	if (!e->child || waitpid(e->child, &status, flags) != e->child)
		return;
	e->child = 0;
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		log_warn("tracing what grows has failed; the watch goes on");
}

void escalation_free(struct escalation *e)
{
	if (!e)
		return;
	if (e->child)
		kill(e->child, SIGINT);
	reap(e, 0);
	free(e);
}

bool escalation_is_busy(const struct escalation *e)
{
	return e->child != 0;
}

static bool traced_lately(const struct escalation *e, const struct watch_suspect *s, double now_s)
{
	size_t n = e->lately_count < REMEMBERED_MAX ? e->lately_count : REMEMBERED_MAX;

	for (size_t i = 0; i < n; i++) {
		const struct remembered *r = &e->lately[i];

		if (r->pid == s->pid && r->start_ticks == s->start_ticks &&
		    now_s < r->traced_s + AGAIN_S)
			return true;
	}
	return false;
}

static void remember(struct escalation *e, const struct watch_suspect *s, double now_s)
{
	e->lately[e->lately_count++ % REMEMBERED_MAX] =
		(struct remembered){s->pid, s->start_ticks, now_s};
}

/* The most suspicious that were not traced lately. */
static size_t choose(struct escalation *e, struct watcher *w, double now_s,
		     struct watch_suspect chosen[SUSPECTS_MAX])
{
	struct watch_suspect candidates[CANDIDATES_MAX];
	size_t n = watcher_most_suspicious(w, candidates, CANDIDATES_MAX), count = 0;

	for (size_t i = 0; i < n && count < SUSPECTS_MAX; i++) {
		if (!traced_lately(e, &candidates[i], now_s))
			chosen[count++] = candidates[i];
	}
	return count;
}

/* Runs in the child; comes back only if it failed. */
static void run_tracer(const struct escalation *e, const char *pids)
{
	const struct options *o = e->options;
	char budget[32], top[32], duration[32];
	const char *argv[ARGUMENTS_MAX] = {"leaktop",
					   "-p",
					   pids,
					   "--duration",
					   duration,
					   "--max-overhead",
					   budget,
					   "-T",
					   top,
					   "--format",
					   o->format,
					   "--color",
					   o->color == 1 ? "always" : "never"};
	size_t n = 13;
	sigset_t none;

	snprintf(budget, sizeof(budget), "%g", o->max_overhead_pct);
	snprintf(top, sizeof(top), "%llu", (unsigned long long)o->top);
	snprintf(duration, sizeof(duration), "%g", TRACE_S);
	if (o->no_redirect)
		argv[n++] = "--no-redirect";
	if (o->verbosity < 0)
		argv[n++] = "-q";
	for (int i = 0; i < o->verbosity && i < 2; i++)
		argv[n++] = "-v";
	argv[n] = REPORT_S;
	/* It must not outlive the watch, nor inherit what the watch does with signals. */
	prctl(PR_SET_PDEATHSIG, SIGINT);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (dup2(e->out_fd, STDOUT_FILENO) >= 0)
		execv("/proc/self/exe", (char *const *)argv);
}

static void start(struct escalation *e, const struct watch_suspect *suspects, size_t count,
		  double now_s)
{
	char pids[SUSPECTS_MAX * 12] = "";
	size_t used = 0;

	for (size_t i = 0; i < count; i++) {
		used += (size_t)snprintf(pids + used, sizeof(pids) - used, "%s%d", i ? "," : "",
					 (int)suspects[i].pid);
		remember(e, &suspects[i], now_s);
	}
	log_notice("pid %s: memory grows; tracing it for %g s", pids, TRACE_S);
	fflush(NULL);
	e->child = fork();
	if (e->child == 0) {
		run_tracer(e, pids);
		_exit(1);
	}
	if (e->child < 0) {
		log_warn("cannot trace pid %s: %s", pids, strerror(errno));
		e->child = 0;
	}
}

void escalation_tick(struct escalation *e, struct watcher *w, double now_s)
{
	struct watch_suspect chosen[SUSPECTS_MAX];
	size_t count;

	reap(e, WNOHANG);
	if (e->child)
		return;
	count = choose(e, w, now_s, chosen);
	if (count)
		start(e, chosen, count, now_s);
}
