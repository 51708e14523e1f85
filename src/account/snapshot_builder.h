/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Makes snapshots: merges the ledger's stacks over processes, ranks and names them. */
#ifndef LEAKTOP_SNAPSHOT_BUILDER_H
#define LEAKTOP_SNAPSHOT_BUILDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "account/snapshot.h"

struct attachments;
struct kernel;
struct ledger;
struct process;
struct symbolizer;
struct snapshot_builder;

enum snapshot_sort {
	SORT_LIVE = 0,
	SORT_GROWTH,
};

enum snapshot_group_by {
	GROUP_STACK = 0,
	GROUP_FUNCTION,
	GROUP_PROCESS,
	GROUP_CONTAINER,
};

struct snapshot_request {
	size_t top;
	enum snapshot_sort sort;
	enum snapshot_group_by group_by;
	bool final;
};

/* A process to report on. */
struct snapshot_subject {
	const struct process *process;
	const struct attachments *attachments;
	uint32_t slot;
	bool exited;
};

/* All borrowed. @return_method: "session" or "uretprobe". */
struct snapshot_builder *snapshot_builder_new(const struct kernel *k, const struct ledger *l,
					      struct symbolizer *sym, const char *return_method);
void snapshot_builder_free(struct snapshot_builder *b);

/* The ledger must have been swept. Returns NULL when out of memory. */
struct snapshot *snapshot_build(struct snapshot_builder *b, const struct snapshot_request *request,
				const struct snapshot_subject *subjects, size_t subject_count);

#endif
