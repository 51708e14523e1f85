/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "watch/watch_report.h"

#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/output.h"

void watch_report_free(struct watch_report *r)
{
	if (!r)
		return;
	arena_free(r->arena);
	free(r);
}

watch_render_fn *watch_format_find(const char *name)
{
	if (!strcmp(name, "text"))
		return watch_render_text;
	return strcmp(name, "json") ? NULL : watch_render_json;
}

struct rendering {
	const struct watch_report *report;
	const struct watch_format_options *options;
	watch_render_fn *render;
};

static int render(FILE *memory, const void *what)
{
	const struct rendering *r = what;

	return r->render(memory, r->report, r->options);
}

int watch_report_write(FILE *out, const struct watch_report *r,
		       const struct watch_format_options *options, watch_render_fn *fn)
{
	return output_whole(out, render, &(struct rendering){r, options, fn});
}
