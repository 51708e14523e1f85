/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where reports go, each in one piece. */
#ifndef LEAKTOP_OUTPUT_H
#define LEAKTOP_OUTPUT_H

#include <stdio.h>

/* NULL: standard output. What could not be opened has been logged. 0 or negative errno. */
int output_open(const char *path, FILE **out);
/* Accepts NULL, and leaves standard output open. */
void output_close(FILE *out);

/* To memory, whose write errors the caller looks at. 0 or negative errno. */
typedef int output_render_fn(FILE *memory, const void *what);
/* Renders all of it before anything is written, then writes and flushes. 0 or negative
 * errno: -EPIPE when the reader is gone. */
int output_whole(FILE *out, output_render_fn *render, const void *what);

#endif
