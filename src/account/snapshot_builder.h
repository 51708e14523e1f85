/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Makes snapshots: merges the ledger's stacks over processes and ranks them. */
#ifndef LEAKTOP_SNAPSHOT_BUILDER_H
#define LEAKTOP_SNAPSHOT_BUILDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "account/snapshot.h"
#include "overhead/figures.h"

struct attachments;
struct block_list;
struct interpreter;
struct kernel;
struct ledger;
struct process;
struct snapshot_builder;

/* A process to report on. */
struct snapshot_subject {
	const struct process *process;
	const struct attachments *attachments;
	uint32_t slot;
	const struct interpreter *interpreter; /* NULL: objects are not to be looked at */
	const struct coverage_python *python;  /* NULL: it runs no Python; pid is filled in here */
	bool exited;
	struct overhead_figures overhead;
};

/* All borrowed. @return_method: "session" or "uretprobe". */
struct snapshot_builder *snapshot_builder_new(const struct kernel *k, const struct ledger *l,
					      struct unwinder *u, const char *return_method);
void snapshot_builder_free(struct snapshot_builder *b);

/* The ledger must have been swept, and @blocks listed by that. The names are still missing:
 * snapshot_names.h. Returns NULL when out of memory. */
struct snapshot *snapshot_build(struct snapshot_builder *b, const struct snapshot_request *request,
				const struct overhead_figures *overhead,
				const struct snapshot_subject *subjects, size_t subject_count,
				const struct block_list *blocks);

#endif
