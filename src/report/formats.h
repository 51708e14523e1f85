/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the formats share; only report/ includes this. */
#ifndef LEAKTOP_FORMATS_H
#define LEAKTOP_FORMATS_H

#include <stdio.h>

#include "report/report.h"

struct snapshot;

/* Returns 0 or a negative errno; write errors of @out are looked at by the caller. */
typedef int report_render_fn(FILE *out, const struct snapshot *s,
			     const struct report_options *options);

/*
 * Renders to memory, then writes and flushes: a reader never sees part of a
 * report because memory ran out, and the errno is that of the write. Returns 0
 * or a negative errno. A signal handler without SA_RESTART makes it -EINTR.
 */
int report_write_whole(FILE *out, const struct snapshot *s, const struct report_options *options,
		       report_render_fn *render);

int report_write_text(FILE *out, const struct snapshot *s, const struct report_options *options);
int report_write_json(FILE *out, const struct snapshot *s, const struct report_options *options);
int report_write_folded(FILE *out, const struct snapshot *s, const struct report_options *options);

/* What follows the last slash of @path, all of it if that would be nothing. */
const char *report_base_name(const char *path);

#endif
