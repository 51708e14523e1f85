/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "targets.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "account/ledger.h"
#include "base/clock.h"
#include "base/log.h"
#include "bpf/kernel.h"
#include "options.h"
#include "probe/prober.h"
#include "pythons.h"
#include "sym/addr_space.h"
#include "target/command.h"
#include "target/selector.h"
#include "tracees.h"
#include "unwind/unwinder.h"

/* A program that has not reached its libraries' constructors by then never will. */
#define COMMAND_STOP_MS 5000
/* Nobody is held up but us, or a command that is held at its libraries anyway. */
#define TABLES_WAIT_MS 1000
/* Mappings are not read more often for stacks that end in unknown code. */
#define RELEARN_NS 1000000000u
/* Ended processes kept for the report of a command; the oldest go first. */
#define EXITED_MAX 1000
/* A process that is not in /proc at so many checks in a row has ended. */
#define MISSING_CHECKS 3

struct targets {
	const struct options *options;
	struct targets_modules m;
	struct tracees *tracees;
	struct attachments *everywhere; /* -a: the probes of all processes */
	struct command *command;
	bool started; /* what stood at the start is attached */
};

int targets_new(const struct options *o, const struct targets_modules *modules,
		struct targets **out)
{
	struct targets *t = calloc(1, sizeof(*t));

	if (!t)
		return -ENOMEM;
	t->options = o;
	t->m = *modules;
	t->tracees = tracees_new();
	if (selector_is_all(o->selector))
		t->everywhere = attachments_new(t->m.prober, 0);
	if (!t->tracees || (selector_is_all(o->selector) && !t->everywhere)) {
		targets_free(t);
		return -ENOMEM;
	}
	*out = t;
	return 0;
}

void targets_free(struct targets *t)
{
	if (!t)
		return;
	command_free(t->command);
	for (size_t i = 0; t->tracees && i < tracees_count(t->tracees); i++)
		pythons_release(t->m.pythons, tracees_at(t->tracees, i)->python, false);
	tracees_free(t->tracees);
	attachments_free(t->everywhere);
	free(t);
}

/* Probing maps more (the linker's hook can only be set once the linker is
 * mapped), so look until nothing new turns up. */
static int probe_all(struct targets *ts, struct attachments *a, pid_t pid)
{
	int added = 0, n;

	for (int round = 0; round < 8; round++) {
		n = prober_update(ts->m.prober, a, pid);
		if (n <= 0)
			return n < 0 ? n : added;
		added += n;
	}
	return added;
}

static struct attachments *attachments_for(struct targets *ts, pid_t pid)
{
	return ts->everywhere ? attachments_new_shared(ts->m.prober, ts->everywhere)
			      : attachments_new(ts->m.prober, pid);
}

/* Where its code lies now, for unwinding and for naming.
 * @since_ns: nothing changed since then, 0: not known. */
static void learn_mappings(struct targets *ts, struct tracee *t, uint64_t since_ns)
{
	t->learned_ns = clock_now_ns();
	if (addr_space_refresh_since(t->addr_space, since_ns))
		return;
	unwinder_update(ts->m.unwinder, t->slot, t->addr_space);
	unwinder_prefetch(ts->m.unwinder, t->addr_space);
}

/* Opens the accounts of a process that has a slot. NULL: gone or out of memory. */
static struct tracee *tracee_open(struct targets *ts, const struct process *process, uint32_t slot)
{
	pid_t pid = process->pid;
	struct tracee *t = tracees_add(ts->tracees, process, slot, attachments_for(ts, pid),
				       addr_space_new(pid, ts->m.objects));

	if (t && ledger_process_open(ts->m.ledger, slot, pid, t->addr_space)) {
		tracees_remove(ts->tracees, t);
		t = NULL;
	}
	return t;
}

static void probe(struct targets *ts, struct tracee *t)
{
	t->probe_due = false;
	if (probe_all(ts, t->attachments, t->process.pid) > 0)
		learn_mappings(ts, t, 0);
	pythons_look(ts->m.pythons, t);
}

/*
 * Its mappings first: the first probe that hits may want to unwind. At the start the
 * tables too; later on the events of other processes would have to wait as well. Nor
 * shall they wait for the search of a large program for allocators, when most
 * processes need no probe that is not there.
 */
static void trace(struct targets *ts, struct tracee *t)
{
	learn_mappings(ts, t, 0);
	if (!ts->started)
		unwinder_wait(ts->m.unwinder, TABLES_WAIT_MS);
	if (ts->started && ts->everywhere)
		t->probe_due = true;
	else
		probe(ts, t);
}

bool targets_probe_next(struct targets *ts)
{
	for (size_t i = 0; i < tracees_count(ts->tracees); i++) {
		struct tracee *t = tracees_at(ts->tracees, i);

		if (!t->probe_due)
			continue;
		t->probe_due = false;
		if (t->exited)
			continue;
		probe(ts, t);
		return true;
	}
	return false;
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
static int check_traceable(const struct targets *ts, const struct tracee *t)
{
	int err;

	if (attachments_have_allocator(t->attachments) && !attachments_failed(t->attachments, &err))
		return 0;
	if (selector_is_open(ts->options->selector)) {
		log_info("pid %d (%s): no allocator probed", t->process.pid, t->process.comm);
		return 0;
	}
	explain_no_allocator(t);
	return -ENOTSUP;
}

static void bury(struct targets *ts, struct tracee *t)
{
	ledger_process_bury(ts->m.ledger, t->slot);
	unwinder_forget(ts->m.unwinder, t->slot);
	pythons_release(ts->m.pythons, t->python, t->exited);
	tracees_remove(ts->tracees, t);
}

/* -O: the objects the user named, mapped already or not. */
static int add_named_objects(struct targets *ts, struct tracee *t)
{
	for (size_t i = 0; i < ts->options->object_count; i++) {
		const char *path = ts->options->objects[i];
		int err = prober_add_path(ts->m.prober, t->attachments, path);

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
static int target_add(struct targets *ts, pid_t pid)
{
	struct process process;
	struct tracee *t;
	uint32_t slot;
	int err;

	if (tracees_by_pid(ts->tracees, pid) || process_read(pid, &process))
		return 0;
	err = kernel_process_add(ts->m.kernel, pid, &slot);
	if (err)
		return err;
	t = tracee_open(ts, &process, slot);
	if (!t) {
		kernel_process_remove(ts->m.kernel, pid, slot);
		kernel_slot_release(ts->m.kernel, slot);
		return -ENOMEM;
	}
	err = add_named_objects(ts, t);
	if (!err)
		trace(ts, t);
	return err;
}

static int add_matching(pid_t pid, void *arg)
{
	int err = target_add(arg, pid);

	if (err != -ENOSPC)
		return err;
	log_warn("too many processes: pid %d is not traced", pid);
	return 0;
}

static void consider(struct targets *ts, pid_t pid)
{
	if (selector_is_open(ts->options->selector) && selector_match(ts->options->selector, pid))
		add_matching(pid, ts);
}

/*
 * The child inherits nothing that lives, and no probes. It gets those of its
 * parent at once, before it runs far; the unwinder has its mappings already
 * (on_fork() in bpf/process.bpf.h).
 */
static void on_fork(struct targets *ts, const struct event *e)
{
	struct tracee *parent = tracees_by_pid(ts->tracees, (pid_t)e->parent_pid);
	struct process process;
	struct tracee *t;

	if (tracees_by_slot(ts->tracees, e->proc)) /* a rescan was first */
		return;
	if (process_read_child((pid_t)e->pid, parent ? &parent->process : NULL, &process))
		return;
	t = tracee_open(ts, &process, e->proc);
	if (!t)
		return;
	/* Opening it may have moved the list, not the parent. */
	if (parent) {
		prober_copy(ts->m.prober, parent->attachments, t->attachments);
		pythons_forked(ts->m.pythons, parent, t);
	}
	trace(ts, t);
}

static struct tracee *oldest_exited(const struct targets *ts, const struct tracee *but)
{
	for (size_t i = 0; i < tracees_count(ts->tracees); i++) {
		struct tracee *t = tracees_at(ts->tracees, i);

		if (t->exited && t != but)
			return t;
	}
	return NULL;
}

static void process_ended(struct targets *ts, struct tracee *t)
{
	struct tracee *old;

	if (!ts->command) {
		bury(ts, t);
		return;
	}
	t->exited = true;
	old = tracees_count(ts->tracees) >= EXITED_MAX ? oldest_exited(ts, t) : NULL;
	if (old)
		bury(ts, old);
}

/* A slot that never became a tracee (the process was too quick). */
static void bury_unknown(struct targets *ts, uint32_t slot)
{
	if (!ledger_process_open(ts->m.ledger, slot, 0, NULL))
		ledger_process_bury(ts->m.ledger, slot);
	unwinder_forget(ts->m.unwinder, slot);
}

/* A new program in an old process: new slot, new ledger, new probes. The old
 * links stay until the new ones are there. */
static void on_exec(struct targets *ts, const struct event *e)
{
	struct tracee *old = tracees_by_pid(ts->tracees, (pid_t)e->pid);
	struct process process;
	struct tracee *t;

	if (!e->proc) {
		consider(ts, (pid_t)e->pid);
		return;
	}
	if (old && old->slot == e->proc)
		return;
	if (old)
		old->exited = true;
	t = process_read((pid_t)e->pid, &process) ? NULL : tracee_open(ts, &process, e->proc);
	if (t)
		trace(ts, t);
	if (old)
		bury(ts, old);
}

static void on_exit_event(struct targets *ts, const struct event *e)
{
	struct tracee *t = tracees_by_slot(ts->tracees, e->proc);

	if (!t) {
		if (!ledger_process(ts->m.ledger, e->proc))
			bury_unknown(ts, e->proc);
		return;
	}
	log_info("pid %d (%s) has ended", t->process.pid, t->process.comm);
	process_ended(ts, t);
}

/* Libraries came or went. If that was the last change so far, all stacks since then
 * are of what is mapped now; else an event for the next change is on its way. */
static void on_dlopen(struct targets *ts, const struct event *e)
{
	struct tracee *t = tracees_by_slot(ts->tracees, e->proc);
	bool last;

	if (!t)
		return;
	last = kernel_link_changes(ts->m.kernel, t->process.pid) == e->link_changes;
	learn_mappings(ts, t, last ? e->time_ns : 0);
	if (ts->started && ts->everywhere)
		t->probe_due = true;
	else
		probe(ts, t);
}

/* A stack that ended because something was missing is whole the next time: a table,
 * or the mapping of code that no dynamic linker told of. */
static void supply(struct targets *ts, uint32_t slot, uint32_t result, uint64_t frame)
{
	bool unmapped = result == UNWIND_NOT_READY || result == UNWIND_NO_MAPPING;
	struct tracee *t = unmapped ? tracees_by_slot(ts->tracees, slot) : NULL;
	uint64_t now_ns = clock_now_ns();

	if (result == UNWIND_PENDING)
		unwinder_want(ts->m.unwinder, frame);
	if (!t || now_ns < t->learned_ns + RELEARN_NS)
		return;
	learn_mappings(ts, t, 0);
}

static void on_stack(struct targets *ts, const struct event_stack *e)
{
	if (e->frame_count && e->frame_count <= STACK_FRAMES_MAX)
		supply(ts, e->head.proc, e->result, e->frames[e->frame_count - 1]);
}

void targets_event(struct targets *ts, const struct event *e)
{
	switch (e->kind) {
	case EVENT_STACK:
		on_stack(ts, (const struct event_stack *)e);
		break;
	case EVENT_FORK:
		on_fork(ts, e);
		break;
	case EVENT_EXEC:
		on_exec(ts, e);
		break;
	case EVENT_EXIT:
		on_exit_event(ts, e);
		break;
	case EVENT_DLOPEN:
		on_dlopen(ts, e);
		break;
	case EVENT_CGROUP:
		consider(ts, (pid_t)e->pid);
		break;
	default:
		break;
	}
}

/* An end or a new program that no event told of, because the ring buffer was full. */
static void check_tracee(struct targets *ts, struct tracee *t)
{
	struct event exec = {.kind = EVENT_EXEC, .pid = (__u32)t->process.pid};

	if (!process_is_alive(&t->process)) {
		/* The event may still wait: it has the right to come first. */
		if (++t->missing >= MISSING_CHECKS)
			process_ended(ts, t);
		return;
	}
	t->missing = 0;
	exec.proc = kernel_process_slot(ts->m.kernel, t->process.pid);
	if (exec.proc && exec.proc != t->slot)
		on_exec(ts, &exec);
}

void targets_find_ended(struct targets *ts)
{
	for (size_t i = tracees_count(ts->tracees); i--;) {
		struct tracee *t =
			i < tracees_count(ts->tracees) ? tracees_at(ts->tracees, i) : NULL;

		if (t && !t->exited)
			check_tracee(ts, t);
	}
}

/* Every target that stands now; at least one must be traceable if no more can come. */
static int attach_targets(struct targets *ts)
{
	const struct selector *selector = ts->options->selector;
	char missing[512];
	int err = 0;

	if (selector_is_empty(selector))
		return 0;
	if (selector_missing(selector, missing, sizeof(missing))) {
		log_error("%s is not there; nothing to trace", missing);
		return -ESRCH;
	}
	err = selector_scan(selector, add_matching, ts);
	for (size_t i = 0; i < tracees_count(ts->tracees) && !err; i++)
		err = check_traceable(ts, tracees_at(ts->tracees, i));
	if (!err && !tracees_count(ts->tracees) && !selector_is_open(selector)) {
		log_error("the target has ended");
		err = -ESRCH;
	}
	return err;
}

/* Holds the command where its libraries are mapped and none has run yet. glibc's
 * linker comes by its hook twice, before it maps the libraries and after; musl's,
 * which is the C library itself, once, after. */
static void hold_at_libraries(struct targets *ts, struct tracee *t)
{
	int stops = !attachments_have_linker(t->attachments)	 ? 0
		    : attachments_have_allocator(t->attachments) ? 1
								 : 2;

	for (int i = 0; i < stops; i++) {
		kernel_stop_at_dlopen(ts->m.kernel, t->process.pid);
		if (command_run_to_stop(ts->command, COMMAND_STOP_MS) != 1) {
			/* It must not be stopped later, when nobody would let it go on. */
			kernel_stop_at_dlopen(ts->m.kernel, 0);
			if (!command_has_ended(ts->command))
				kill(t->process.pid, SIGCONT);
			return;
		}
		learn_mappings(ts, t, 0);
		unwinder_wait(ts->m.unwinder, TABLES_WAIT_MS);
		log_debug("held at its libraries: %d objects probed",
			  probe_all(ts, t->attachments, t->process.pid));
		pythons_look(ts->m.pythons, t);
	}
}

static int start_command(struct targets *ts)
{
	int err = command_start(ts->options->run, &ts->command);
	struct tracee *t;
	pid_t pid;

	if (err) {
		log_error("cannot run %s: %s", ts->options->run[0], strerror(-err));
		return err;
	}
	pid = command_pid(ts->command);
	err = target_add(ts, pid);
	if (err)
		return err;
	t = tracees_by_pid(ts->tracees, pid);
	if (t)
		hold_at_libraries(ts, t);
	kernel_stop_at_end(ts->m.kernel, pid);
	command_release(ts->command);
	return 0;
}

int targets_attach(struct targets *ts)
{
	int err = attach_targets(ts);

	if (!err && ts->options->run)
		err = start_command(ts);
	ts->started = true;
	return err;
}

bool targets_await_pythons(struct targets *ts)
{
	if (!pythons_are_pending(ts->m.pythons))
		return false;
	for (size_t i = 0; i < tracees_count(ts->tracees); i++) {
		struct tracee *t = tracees_at(ts->tracees, i);

		if (!t->exited && t->python)
			pythons_look(ts->m.pythons, t);
	}
	return pythons_are_pending(ts->m.pythons);
}

void targets_unwind_failed(struct targets *ts, const struct unwind_failure *f)
{
	supply(ts, f->slot, f->result, f->page << 12);
}

void targets_rescan(struct targets *ts)
{
	unwinder_tick(ts->m.unwinder);
	for (size_t i = 0; i < tracees_count(ts->tracees); i++) {
		struct tracee *t = tracees_at(ts->tracees, i);

		if (t->exited)
			continue;
		pythons_look(ts->m.pythons, t);
		python_check(t->python, t->process.pid);
	}
	if (selector_is_open(ts->options->selector))
		selector_scan(ts->options->selector, add_matching, ts);
}

bool targets_are_gone(const struct targets *ts)
{
	if (ts->command)
		return command_has_ended(ts->command) && !tracees_alive(ts->tracees);
	return !selector_is_open(ts->options->selector) && !tracees_alive(ts->tracees);
}

void targets_continue_command(struct targets *ts)
{
	if (ts->command)
		command_continue(ts->command);
}

bool targets_run_command(const struct targets *ts)
{
	return ts->command != NULL;
}

const struct tracees *targets_list(const struct targets *ts)
{
	return ts->tracees;
}
