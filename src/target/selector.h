/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which processes the user named: a union of pids, names, cgroups, containers and units. */
#ifndef LEAKTOP_SELECTOR_H
#define LEAKTOP_SELECTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct selector;

struct selector *selector_new(void);
void selector_free(struct selector *s);

/* Each returns 0 or negative errno; strings are copied. */
int selector_add_pid(struct selector *s, pid_t pid); /* identity is taken now: -ESRCH if gone */
int selector_add_name(struct selector *s, const char *glob); /* comm or base name of exe */
int selector_add_cgroup(struct selector *s, const char *name);
/* A prefix will do, unless a container that runs now is called just so. */
int selector_add_container(struct selector *s, const char *name_or_id);
int selector_add_unit(struct selector *s, const char *unit); /* ".service" may be left out */
void selector_add_all(struct selector *s);

bool selector_is_empty(const struct selector *s);
bool selector_is_all(const struct selector *s);
/* Processes may come to match without being forked by a target (names, cgroups,
 * containers, units, all). */
bool selector_is_open(const struct selector *s);

/* 1 if @pid matches, 0 if not or gone. Never matches leaktop itself. */
int selector_match(const struct selector *s, pid_t pid);
/* Calls @fn for each process that matches now; its non-zero return stops the walk. */
int selector_scan(const struct selector *s, int (*fn)(pid_t pid, void *arg), void *arg);

/*
 * The first thing the user named that exists nowhere, for an error message:
 * "container 'x'", "unit 'y'"... into @buf. False if everything was found.
 */
bool selector_missing(const struct selector *s, char *buf, size_t size);

#endif
