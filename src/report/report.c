/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "report/report.h"

#include <stddef.h>
#include <string.h>

#include "base/output.h"
#include "report/formats.h"

static const struct report_format formats[] = {
	{.name = "text", .write = report_write_text},
	{.name = "json", .write = report_write_json},
	{.name = "folded", .write = report_write_folded},
};

const struct report_format *report_format_find(const char *name)
{
	for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++)
		if (strcmp(formats[i].name, name) == 0)
			return &formats[i];
	return NULL;
}

struct rendering {
	const struct snapshot *snapshot;
	const struct report_options *options;
	report_render_fn *render;
};

static int render(FILE *memory, const void *what)
{
	const struct rendering *r = what;

	return r->render(memory, r->snapshot, r->options);
}

int report_write_whole(FILE *out, const struct snapshot *s, const struct report_options *options,
		       report_render_fn *fn)
{
	return output_whole(out, render, &(struct rendering){s, options, fn});
}

const char *report_base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash && slash[1] ? slash + 1 : path;
}
