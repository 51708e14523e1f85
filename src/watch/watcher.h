/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory of processes and cgroups over time, from outside and without a probe. Bounds:
 * 32,768 processes of 3 KiB each (and a page of the kernel's), 4,096 cgroups.
 */
#ifndef LEAKTOP_WATCHER_H
#define LEAKTOP_WATCHER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct selector;
struct watch_report;
struct watcher;

/* @selector is borrowed; NULL or an empty one: all processes but ourselves. 0 or negative
 * errno. */
int watcher_new(const struct selector *selector, bool follow_children, struct watcher **out);
void watcher_free(struct watcher *w);

/* One look at everything, at @time_s of a clock that never goes back: to be called about
 * once a second, but at irregular times (growth.h). 0 or negative errno. */
int watcher_tick(struct watcher *w, double time_s);
/* How many processes the last look found. */
size_t watcher_process_count(const struct watcher *w);

/* 0 or negative errno. */
int watcher_report(struct watcher *w, bool final, struct watch_report **out);

struct watch_suspect {
	pid_t pid;
	uint64_t start_ticks; /* with the pid, its identity */
	double score;	      /* bytes a second that it grows by at least */
};
/* The processes that grow, most suspicious first, @room at most; returns their number. */
size_t watcher_most_suspicious(struct watcher *w, struct watch_suspect *out, size_t room);

#endif
