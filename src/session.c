/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "session.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "account/ledger.h"
#include "account/snapshot_builder.h"
#include "base/log.h"
#include "bpf/kernel.h"
#include "options.h"
#include "probe/prober.h"
#include "report/report.h"
#include "sym/addr_space.h"
#include "sym/object.h"
#include "sym/symbolizer.h"
#include "target/command.h"
#include "target/selector.h"
#include "tracees.h"
#include "unwind/unwinder.h"

#define DEFAULT_INTERVAL_S 5.0
/* Open targets are looked for this often, beside the events that announce most of them. */
#define RESCAN_S 1.0
/* A program that has not reached its libraries' constructors by then never will. */
#define COMMAND_STOP_MS 5000
#define DRAINS_A_SWEEP 16
/* Ended processes kept for the report of a command; the oldest go first. */
#define EXITED_MAX 1000

struct session {
	const struct options *options;
	struct kernel *kernel;
	struct object_table *objects;
	struct symbolizer *symbolizer;
	struct prober *prober;
	struct ledger *ledger;
	struct unwinder *unwinder;
	struct snapshot_builder *builder;
	struct tracees *tracees;
	struct attachments *everywhere; /* -a: the probes of all processes */
	struct command *command;
	FILE *out;
	int epoll_fd, signal_fd;
	uint64_t reports;
	bool stop;
};

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Probing maps more (the linker's hook can only be set once the linker is
 * mapped), so look until nothing new turns up. */
static int probe_all(struct session *s, struct attachments *a, pid_t pid)
{
	int added = 0, n;

	for (int round = 0; round < 8; round++) {
		n = prober_update(s->prober, a, pid);
		if (n <= 0)
			return n < 0 ? n : added;
		added += n;
	}
	return added;
}

static struct attachments *attachments_for(struct session *s, pid_t pid)
{
	return s->everywhere ? attachments_new_shared(s->prober, s->everywhere)
			     : attachments_new(s->prober, pid);
}

/* Where its code lies now, for unwinding and for naming. */
static void learn_mappings(struct session *s, struct tracee *t)
{
	if (!addr_space_refresh(t->addr_space))
		unwinder_update(s->unwinder, t->slot, t->addr_space);
}

/* Opens the accounts of a process that has a slot. NULL: gone or out of memory. */
static struct tracee *tracee_open(struct session *s, pid_t pid, uint32_t slot)
{
	struct addr_space *as;
	struct process process;
	struct tracee *t;

	if (process_read(pid, &process))
		return NULL;
	as = addr_space_new(pid, s->objects);
	t = tracees_add(s->tracees, &process, slot, attachments_for(s, pid), as);
	if (!t || ledger_process_open(s->ledger, slot, pid, t->addr_space))
		return NULL;
	learn_mappings(s, t);
	return t;
}

static void explain_no_allocator(const struct tracee *t)
{
	const struct process *p = &t->process;
	int err;

	if (procfs_is_64bit(p->pid) == 0)
		log_error("pid %d (%s) is a 32-bit program; leaktop traces 64-bit ones", p->pid,
			  p->comm);
	else if (attachments_failed(t->attachments, &err))
		log_error("pid %d (%s): cannot attach probes: %s; -vv tells which", p->pid, p->comm,
			  strerror(-err));
	else
		log_error("pid %d (%s) has no allocator that leaktop knows; name its object with "
			  "-O or its functions' prefix with -S",
			  p->pid, p->comm);
}

/* A process that gives up nothing to trace is no use as a target. */
static int check_traceable(const struct session *s, const struct tracee *t)
{
	int err;

	if (attachments_have_allocator(t->attachments) && !attachments_failed(t->attachments, &err))
		return 0;
	if (selector_is_open(s->options->selector)) {
		log_info("pid %d (%s): no allocator probed", t->process.pid, t->process.comm);
		return 0;
	}
	explain_no_allocator(t);
	return -ENOTSUP;
}

static void bury(struct session *s, struct tracee *t)
{
	ledger_process_bury(s->ledger, t->slot);
	unwinder_forget(s->unwinder, t->slot);
	tracees_remove(s->tracees, t);
}

/* -O: the objects the user named, mapped already or not. */
static int add_named_objects(struct session *s, struct tracee *t)
{
	for (size_t i = 0; i < s->options->object_count; i++) {
		const char *path = s->options->objects[i];
		int err = prober_add_path(s->prober, t->attachments, path);

		if (!err)
			continue;
		log_error("-O %s: %s", path,
			  err == -ENOENT && !access(path, F_OK)
				  ? "no allocator's functions in it; name their prefix with -S"
			  : err == -EINVAL ? "not a 64-bit ELF file"
					   : strerror(-err));
		return err;
	}
	return 0;
}

/* Makes @pid a target. 0, also when it is one already or is gone. */
static int target_add(struct session *s, pid_t pid)
{
	struct tracee *t;
	uint32_t slot;
	int err;

	if (tracees_by_pid(s->tracees, pid))
		return 0;
	err = kernel_process_add(s->kernel, pid, &slot);
	if (err)
		return err;
	t = tracee_open(s, pid, slot);
	if (!t) {
		kernel_process_remove(s->kernel, pid, slot);
		kernel_slot_release(s->kernel, slot);
		return 0;
	}
	err = add_named_objects(s, t);
	if (err)
		return err;
	if (probe_all(s, t->attachments, pid) > 0)
		learn_mappings(s, t);
	return 0;
}

static int add_matching(pid_t pid, void *arg)
{
	int err = target_add(arg, pid);

	if (err != -ENOSPC)
		return err;
	log_warn("too many processes: pid %d is not traced", pid);
	return 0;
}

static void consider(struct session *s, pid_t pid)
{
	if (selector_is_open(s->options->selector) && selector_match(s->options->selector, pid))
		add_matching(pid, s);
}

/* The child inherits nothing that lives, and no probes: it gets its own, those
 * of its parent first, before it runs far. */
static void on_fork(struct session *s, const struct event *e)
{
	struct tracee *parent = tracees_by_pid(s->tracees, (pid_t)e->parent_pid);
	struct tracee *t = tracee_open(s, (pid_t)e->pid, e->proc);

	if (!t)
		return;
	if (parent)
		prober_copy(s->prober, parent->attachments, t->attachments);
	probe_all(s, t->attachments, t->process.pid);
}

static void process_ended(struct session *s, struct tracee *t)
{
	if (s->command && tracees_count(s->tracees) < EXITED_MAX) {
		t->exited = true;
		return;
	}
	bury(s, t);
}

/* A slot that never became a tracee (the process was too quick). */
static void bury_unknown(struct session *s, uint32_t slot)
{
	if (!ledger_process_open(s->ledger, slot, 0, NULL))
		ledger_process_bury(s->ledger, slot);
	unwinder_forget(s->unwinder, slot);
}

/* A new program in an old process: new slot, new ledger, new probes. The old
 * links stay until the new ones are there. */
static void on_exec(struct session *s, const struct event *e)
{
	struct tracee *old = tracees_by_pid(s->tracees, (pid_t)e->pid);
	struct tracee *t;

	if (!e->proc) {
		consider(s, (pid_t)e->pid);
		return;
	}
	if (old && old->slot == e->proc)
		return;
	if (old)
		old->exited = true;
	t = tracee_open(s, (pid_t)e->pid, e->proc);
	if (t)
		probe_all(s, t->attachments, t->process.pid);
	if (old && s->command && tracees_count(s->tracees) < EXITED_MAX) {
		attachments_free(old->attachments);
		old->attachments = attachments_new(s->prober, old->process.pid);
	} else if (old) {
		bury(s, old);
	}
}

static void on_exit_event(struct session *s, const struct event *e)
{
	struct tracee *t = tracees_by_slot(s->tracees, e->proc);

	if (!t) {
		bury_unknown(s, e->proc);
		return;
	}
	log_info("pid %d (%s) has ended", t->process.pid, t->process.comm);
	process_ended(s, t);
}

static void on_event(void *arg, const struct event *e, size_t size)
{
	struct session *s = arg;
	struct tracee *t;

	switch (e->kind) {
	case EVENT_FORK:
		on_fork(s, e);
		break;
	case EVENT_EXEC:
		on_exec(s, e);
		break;
	case EVENT_EXIT:
		on_exit_event(s, e);
		break;
	case EVENT_DLOPEN:
		t = tracees_by_slot(s->tracees, e->proc);
		if (t) {
			learn_mappings(s, t);
			probe_all(s, t->attachments, t->process.pid);
		}
		break;
	case EVENT_CGROUP:
		consider(s, (pid_t)e->pid);
		break;
	default:
		ledger_event(s->ledger, e, size);
	}
}

static struct snapshot *take_snapshot(struct session *s, bool final)
{
	struct snapshot_request request = {
		.top = s->options->top,
		.sort = s->options->sort,
		.group_by = s->options->group_by,
		.final = final,
	};
	size_t n = tracees_count(s->tracees);
	struct snapshot_subject *subjects = calloc(n + 1, sizeof(*subjects));
	struct snapshot *snapshot;

	if (!subjects)
		return NULL;
	for (size_t i = 0; i < n; i++) {
		const struct tracee *t = tracees_at(s->tracees, i);

		subjects[i].process = &t->process;
		subjects[i].attachments = t->attachments;
		subjects[i].slot = t->slot;
		subjects[i].exited = t->exited;
	}
	snapshot = snapshot_build(s->builder, &request, subjects, n);
	free(subjects);
	return snapshot;
}

/* An exit that no event told of: the ring buffer was full. */
static void find_ended(struct session *s)
{
	for (size_t i = tracees_count(s->tracees); i--;) {
		struct tracee *t = tracees_at(s->tracees, i);

		if (t->exited || process_is_alive(&t->process))
			continue;
		kernel_process_remove(s->kernel, t->process.pid, t->slot);
		process_ended(s, t);
	}
}

/* Events first: a block of a stack that has not arrived would have no name. */
static void sweep(struct session *s)
{
	for (int i = 0; i < DRAINS_A_SWEEP && kernel_drain(s->kernel, on_event, s); i++)
		;
	find_ended(s);
	ledger_sweep(s->ledger, (uint64_t)(now_s() * 1e9), s->options->min_age_ms * 1000000);
}

static int report(struct session *s, bool final)
{
	const struct report_format *format = report_format_find(s->options->format);
	struct report_options options = {
		.color = s->options->color == -1 ? isatty(fileno(s->out)) : s->options->color,
		.verbose = s->options->verbosity > 0,
	};
	struct snapshot *snapshot;
	int err;

	/* Folded stacks of several reports would add up in the reader's picture. */
	if (!final && !strcmp(s->options->format, "folded"))
		return 0;
	sweep(s);
	snapshot = take_snapshot(s, final);
	if (!snapshot)
		return -ENOMEM;
	err = format->write(s->out, snapshot, &options);
	snapshot_free(snapshot);
	s->reports++;
	return err;
}

static int open_output(struct session *s)
{
	const char *path = s->options->output_path;
	int fd, err;

	s->out = stdout;
	if (!path)
		return 0;
	/* We are root: create nothing that others can read, write through no link. */
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	s->out = fd < 0 ? NULL : fdopen(fd, "w");
	if (s->out)
		return 0;
	err = -errno;
	log_error("cannot write to %s: %s", path, strerror(-err));
	if (fd >= 0)
		close(fd);
	return err;
}

static int open_signals(struct session *s)
{
	struct epoll_event ev = {.events = EPOLLIN};
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
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
	};
	struct prober_options p = {.extra_prefix = o->symbol_prefix};

	if (method == METHOD_AUTO)
		method = probe_method_best();
	if (probe_method_supported(method) != 1) {
		log_error("probe method %s is not supported by this kernel; 'leaktop doctor' tells "
			  "what is",
			  probe_method_name(method));
		return -ENOTSUP;
	}
	k.method = p.method = method;
	if (kernel_open(&k, &s->kernel))
		return -EPERM;
	s->prober = prober_new(s->kernel, s->objects, &p);
	s->ledger = ledger_new(s->kernel);
	s->builder = snapshot_builder_new(s->kernel, s->ledger, s->symbolizer,
					  method == METHOD_SESSION ? "session" : "uretprobe");
	if (!s->prober || !s->ledger || !s->builder)
		return -ENOMEM;
	return unwinder_new(s->kernel, &s->unwinder);
}

static int open_modules(struct session *s)
{
	int err;

	s->objects = object_table_new();
	s->symbolizer = symbolizer_new();
	s->tracees = tracees_new();
	if (!s->objects || !s->symbolizer || !s->tracees)
		return -ENOMEM;
	err = open_output(s);
	if (!err)
		err = open_kernel(s);
	if (err)
		return err;
	if (selector_is_all(s->options->selector)) {
		s->everywhere = attachments_new(s->prober, 0);
		if (!s->everywhere)
			return -ENOMEM;
	}
	return open_signals(s);
}

/* Every target that stands now; at least one must be traceable if no more can come. */
static int attach_targets(struct session *s)
{
	const struct selector *selector = s->options->selector;
	char missing[512];
	int err = 0;

	if (selector_is_empty(selector))
		return 0;
	if (selector_missing(selector, missing, sizeof(missing))) {
		log_error("%s is not there; nothing to trace", missing);
		return -ESRCH;
	}
	err = selector_scan(selector, add_matching, s);
	for (size_t i = 0; i < tracees_count(s->tracees) && !err; i++)
		err = check_traceable(s, tracees_at(s->tracees, i));
	if (!err && !tracees_count(s->tracees) && !selector_is_open(selector)) {
		log_error("the target has ended");
		err = -ESRCH;
	}
	return err;
}

/* Holds the command where its libraries are mapped and none has run yet. glibc's
 * linker comes by its hook twice, before it maps the libraries and after; musl's,
 * which is the C library itself, once, after. */
static void hold_at_libraries(struct session *s, struct tracee *t)
{
	int stops = !attachments_have_linker(t->attachments)	 ? 0
		    : attachments_have_allocator(t->attachments) ? 1
								 : 2;

	for (int i = 0; i < stops; i++) {
		kernel_stop_at_dlopen(s->kernel, t->process.pid);
		if (command_run_to_stop(s->command, COMMAND_STOP_MS) != 1)
			return;
		learn_mappings(s, t);
		log_debug("held at its libraries: %d objects probed",
			  probe_all(s, t->attachments, t->process.pid));
	}
}

static int start_command(struct session *s)
{
	int err = command_start(s->options->run, &s->command);
	struct tracee *t;
	pid_t pid;

	if (err) {
		log_error("cannot run %s: %s", s->options->run[0], strerror(-err));
		return err;
	}
	pid = command_pid(s->command);
	err = target_add(s, pid);
	if (err)
		return err;
	t = tracees_by_pid(s->tracees, pid);
	if (t)
		hold_at_libraries(s, t);
	command_release(s->command);
	return 0;
}

static void announce(const struct session *s)
{
	size_t n = tracees_alive(s->tracees);

	if (s->command)
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
		err = attach_targets(s);
	if (!err && o->run)
		err = start_command(s);
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
	command_free(s->command);
	tracees_free(s->tracees);
	attachments_free(s->everywhere);
	snapshot_builder_free(s->builder);
	ledger_free(s->ledger);
	unwinder_free(s->unwinder);
	prober_free(s->prober);
	kernel_close(s->kernel);
	symbolizer_free(s->symbolizer);
	object_table_free(s->objects);
	if (s->out && s->out != stdout)
		fclose(s->out);
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

/* Nothing left to trace, and nothing can come. */
static bool targets_are_gone(const struct session *s)
{
	if (s->command)
		return command_has_ended(s->command) && !tracees_alive(s->tracees);
	return !selector_is_open(s->options->selector) && !tracees_alive(s->tracees);
}

/* Children that a full ring buffer did not announce, and members that no event tells of. */
static void rescan(struct session *s)
{
	if (selector_is_open(s->options->selector))
		selector_scan(s->options->selector, add_matching, s);
	if (ledger_has_buried(s->ledger))
		sweep(s);
}

static void wait_until(struct session *s, double deadline_s)
{
	struct epoll_event events[2];
	double left_s = deadline_s - now_s();

	if (left_s > RESCAN_S)
		left_s = RESCAN_S;
	if (s->command && left_s > 0.05)
		left_s = 0.05;
	epoll_wait(s->epoll_fd, events, 2, left_s > 0 ? (int)(left_s * 1000) + 1 : 0);
	check_signals(s);
	kernel_drain(s->kernel, on_event, s);
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
		if (now_s() >= scan_s) {
			rescan(s);
			scan_s = now_s() + RESCAN_S;
		}
		if (targets_are_gone(s) || now_s() >= end_s)
			break;
		if (s->stop || now_s() < next_s)
			continue;
		if (o->count && s->reports + 1 >= o->count)
			break;
		/* A command reports at its end, unless an interval was asked for. */
		if (!s->command || o->interval_s > 0)
			err = report(s, false);
		next_s += interval_s;
	}
	if (!err)
		err = report(s, true);
	if (err && err != -EPIPE)
		log_error("cannot write the report to %s: %s",
			  o->output_path ? o->output_path : "standard output", strerror(-err));
	return err == -EPIPE ? 0 : err;
}
