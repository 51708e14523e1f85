/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tells what the outstanding blocks of Python processes are, in a snapshot. */
#ifndef LEAKTOP_SNAPSHOT_TYPES_H
#define LEAKTOP_SNAPSHOT_TYPES_H

struct snapshot;
struct type_cache;

/* What is known of the types of living processes, from one snapshot to the next. */
struct type_cache *type_cache_new(void);
void type_cache_free(struct type_cache *c);

/* Reads the processes' memory; fills in the types of stacks and of the whole. Reads
 * while they run on: a block that was freed meanwhile is of no type. 0 or negative errno. */
int snapshot_type(struct snapshot *s, struct type_cache *c);

#endif
