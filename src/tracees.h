/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The processes under trace: what is known of each and what hangs on each. */
#ifndef LEAKTOP_TRACEES_H
#define LEAKTOP_TRACEES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "target/process.h"

struct addr_space;
struct attachments;
struct python;
struct tracees;

struct tracee {
	struct process process;
	uint32_t slot;
	uint64_t learned_ns;		 /* when its mappings were last read */
	bool probe_due;			 /* its mappings have not been looked through yet */
	bool exited;			 /* kept for the last report */
	unsigned int missing;		 /* checks since it was last seen in /proc */
	struct attachments *attachments; /* owned */
	struct addr_space *addr_space;	 /* owned */
	struct python *python; /* released by whoever removes the tracee; NULL: runs none */
};

struct tracees *tracees_new(void);
void tracees_free(struct tracees *t);

/* Takes over @attachments and @as, also on failure (NULL: out of memory). */
struct tracee *tracees_add(struct tracees *t, const struct process *process, uint32_t slot,
			   struct attachments *attachments, struct addr_space *as);
void tracees_remove(struct tracees *t, struct tracee *tracee);

/* Living ones only. */
struct tracee *tracees_by_pid(const struct tracees *t, pid_t pid);
struct tracee *tracees_by_slot(const struct tracees *t, uint32_t slot);
size_t tracees_alive(const struct tracees *t);

/* All, in no order; indices change on removal. */
size_t tracees_count(const struct tracees *t);
struct tracee *tracees_at(const struct tracees *t, size_t i);

#endif
