/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Writes a snapshot. One row a format, one file each; adding a format edits one list. */
#ifndef LEAKTOP_REPORT_H
#define LEAKTOP_REPORT_H

#include <stdbool.h>
#include <stdio.h>

struct snapshot;

struct report_options {
	bool color;   /* text only */
	bool verbose; /* text: coverage and losses in full, addresses */
};

struct report_format {
	const char *name;
	/* Returns 0 or negative errno: -EPIPE when the reader is gone. */
	int (*write)(FILE *out, const struct snapshot *s, const struct report_options *options);
};

/* NULL if there is no such format. */
const struct report_format *report_format_find(const char *name);

#endif
