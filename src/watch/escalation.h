/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Traces for a while what the watch suspects: another leaktop, on the most suspicious
 * processes, that writes its reports to the same place. It is a process of its own, so that
 * the watch has no probe, no BPF program and none of the memory these take, and goes on
 * whatever happens there.
 */
#ifndef LEAKTOP_ESCALATION_H
#define LEAKTOP_ESCALATION_H

#include <stdbool.h>

struct escalation;
struct options;
struct watcher;

/* @o: how to trace and report. @out_fd: where to. NULL when out of memory. */
struct escalation *escalation_new(const struct options *o, int out_fd);
/* Ends a trace under way, which gives its last report. Accepts NULL. */
void escalation_free(struct escalation *e);

/* To be called about once a second. */
void escalation_tick(struct escalation *e, struct watcher *w, double now_s);
/* A trace is under way. */
bool escalation_is_busy(const struct escalation *e);

#endif
