/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "report/report.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

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

static int write_flushed(FILE *out, const char *text, size_t size)
{
	errno = 0;
	if (fwrite(text, 1, size, out) != size || fflush(out) != 0)
		return errno ? -errno : -EIO;
	return 0;
}

int report_write_whole(FILE *out, const struct snapshot *s, const struct report_options *options,
		       report_render_fn *render)
{
	char *text = NULL;
	size_t size = 0;
	FILE *memory = open_memstream(&text, &size);
	bool failed;
	int err;

	if (!memory)
		return -ENOMEM;
	err = render(memory, s, options);
	failed = ferror(memory);
	if (fclose(memory) != 0 || failed)
		err = -ENOMEM;
	if (!err)
		err = write_flushed(out, text, size);
	free(text);
	return err;
}

const char *report_base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash && slash[1] ? slash + 1 : path;
}
