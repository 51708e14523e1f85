/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where words of a process' memory point to, if it is on the heap but not in pools: there
 * are the large objects that the collector does not track. Every word that could be
 * a pointer is taken for one; what lies there is for others to check.
 */
#ifndef LEAKTOP_REFERENTS_H
#define LEAKTOP_REFERENTS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct address_runs;
struct referents;

/* @pools is borrowed. 0, -ESRCH, or another negative errno. */
int referents_new(pid_t pid, struct address_runs *pools, struct referents **out);
void referents_free(struct referents *r);

/* The words of @bytes, which are aligned; beyond some millions, more are not kept. 0 or
 * -ENOMEM. */
int referents_scan(struct referents *r, const uint8_t *bytes, size_t count);
/* The same for memory of the process itself, if it can be read. */
int referents_scan_memory(struct referents *r, uint64_t address, uint64_t bytes);

/* Calls @visit for each address until that returns non-zero, which is returned. */
int referents_each(const struct referents *r, int (*visit)(uint64_t address, void *context),
		   void *context);

#endif
