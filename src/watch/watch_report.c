/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "watch/watch_report.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"

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

static int write_flushed(FILE *out, const char *text, size_t size)
{
	errno = 0;
	if (fwrite(text, 1, size, out) != size || fflush(out))
		return errno ? -errno : -EIO;
	return 0;
}

int watch_report_write(FILE *out, const struct watch_report *r,
		       const struct watch_format_options *options, watch_render_fn *render)
{
	char *text = NULL;
	size_t size = 0;
	FILE *memory = open_memstream(&text, &size);
	bool failed;
	int err;

	if (!memory)
		return -ENOMEM;
	err = render(memory, r, options);
	failed = ferror(memory);
	if (fclose(memory) || failed)
		err = -ENOMEM;
	if (!err)
		err = write_flushed(out, text, size);
	free(text);
	return err;
}
