/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The processes under trace as they come and go: found at the start, forked,
 * executed, joined, ended. Each is probed, given accounts, and taken leave of.
 */
#ifndef LEAKTOP_TARGETS_H
#define LEAKTOP_TARGETS_H

#include <stdbool.h>
#include <stddef.h>

struct event;
struct kernel;
struct ledger;
struct object_table;
struct options;
struct prober;
struct pythons;
struct targets;
struct tracees;
struct unwind_failure;
struct unwinder;

/* Borrowed; all must outlive the targets. */
struct targets_modules {
	struct kernel *kernel;
	struct object_table *objects;
	struct prober *prober;
	struct ledger *ledger;
	struct unwinder *unwinder;
	struct pythons *pythons;
};

/* @o is borrowed. 0 or negative errno. */
int targets_new(const struct options *o, const struct targets_modules *modules,
		struct targets **out);
/* Takes all probes off, in the background; see prober_free(). */
void targets_free(struct targets *t);

/* Traces every target that stands now, and starts the command if there is one.
 * What fails is logged. 0 or negative errno. */
int targets_attach(struct targets *t);

/* Events about processes, and stacks for what they miss; others are ignored. */
void targets_event(struct targets *t, const struct event *e);
/* Probes one process that has waited for it; false if none did. */
bool targets_probe_next(struct targets *t);
/* Looks again at interpreters that were starting; false if none is. */
bool targets_await_pythons(struct targets *t);
/* Incomplete stacks were counted: asks for what they missed. */
void targets_unwind_failed(struct targets *t, const struct unwind_failure *f);
/* To be called about once a second. Finds members that no event told of. */
void targets_rescan(struct targets *t);
/* Takes leave of those whose end no event told of. */
void targets_find_ended(struct targets *t);

/* Nothing is left to trace, and nothing can come. */
bool targets_are_gone(const struct targets *t);
/* It was stopped at EVENT_PYTHON_END. */
void targets_continue_command(struct targets *t);
/* A command of ours is traced: what ended stays until the last report. */
bool targets_run_command(const struct targets *t);
const struct tracees *targets_list(const struct targets *t);

#endif
