/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Names the frames of a snapshot. Takes time, and needs nothing of a process. */
#ifndef LEAKTOP_SNAPSHOT_NAMES_H
#define LEAKTOP_SNAPSHOT_NAMES_H

struct snapshot;
struct symbolizer;

/* Fills the frames of all stacks from their refs. The names are the snapshot's own
 * or the symbolizer's, which must live as long. 0 or -ENOMEM. */
int snapshot_name(struct snapshot *s, struct symbolizer *sym);

#endif
