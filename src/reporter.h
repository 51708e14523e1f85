/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Names, groups and writes snapshots in a thread of its own: debug information can
 * take seconds to read, a reader of our output can be slow, and the events of the
 * kernel side wait for nobody.
 */
#ifndef LEAKTOP_REPORTER_H
#define LEAKTOP_REPORTER_H

#include <stdbool.h>
#include <stdio.h>

#include "report/report.h"

struct reporter;
struct snapshot;

/* @format, @out and what @options names are borrowed. 0 or negative errno. */
int reporter_new(const struct report_format *format, const struct report_options *options,
		 FILE *out, struct reporter **out_reporter);
/* Waits for a report that is being written. */
void reporter_free(struct reporter *r);

/* Takes over @s. There must be no other one: ask reporter_is_busy() first. */
void reporter_submit(struct reporter *r, struct snapshot *s);
/* Whether a report is still being written; waits for it, @timeout_ms at most. */
bool reporter_is_busy(struct reporter *r, int timeout_ms);
/* The first error of all reports so far: negative errno, -EPIPE when the reader is
 * gone. 0: none. */
int reporter_error(struct reporter *r);

#endif
