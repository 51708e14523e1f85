/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * "comm;outermost;...;innermost live_bytes", a line a stack, for flame graphs.
 * Readers split the line at semicolons and at its last space, and flamegraph.pl
 * takes a second number before the last one as the other half of a difference.
 * So a semicolon in a name becomes a colon, as in perf's own folding, and the
 * spaces in a tail of nothing but spaces and digits become underscores.
 */
#include "report/formats.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "account/snapshot.h"
#include "base/escape.h"
#include "sym/frame.h"

#define NAME_MAX_BYTES 4096

static void make_unsplittable(char *name)
{
	size_t tail = strlen(name);

	for (char *c = name; *c; c++)
		if (*c == ';')
			*c = ':';
	while (tail > 0 && strchr(" .0123456789", name[tail - 1]))
		tail--;
	for (char *c = name + tail; *c; c++)
		if (*c == ' ')
			*c = '_';
}

static int put_name(FILE *out, const char *name)
{
	char *text = NULL;
	size_t size = 0;
	FILE *memory = open_memstream(&text, &size);
	int err = 0;

	if (!memory)
		return -ENOMEM;
	escape_terminal(memory, name, NAME_MAX_BYTES);
	if (fclose(memory) != 0) {
		err = -ENOMEM;
		goto out;
	}
	make_unsplittable(text);
	fputs(text[0] ? text : "[unknown]", out);
out:
	free(text);
	return err;
}

/* A frame without a name is "[module+0x1234]", as long as that much is known. */
static int put_frame(FILE *out, const struct frame *f)
{
	int err;

	if (f->function)
		return put_name(out, f->function);
	putc('[', out);
	err = put_name(out, f->module ? report_base_name(f->module) : "unknown");
	if (f->has_offset)
		fprintf(out, "+0x%" PRIx64, f->offset);
	putc(']', out);
	return err;
}

/* One stack may be live in several processes; the line carries the first one's name. */
static const char *stack_comm(const struct snapshot *s, const struct snapshot_stack *stack)
{
	for (size_t i = 0; stack->pid_count > 0 && i < s->process_count; i++)
		if (s->processes[i].pid == stack->pids[0] && s->processes[i].comm)
			return s->processes[i].comm;
	return "[unknown]";
}

static int put_stack(FILE *out, const struct snapshot *s, const struct snapshot_stack *stack)
{
	int err = put_name(out, stack_comm(s, stack));

	for (size_t i = stack->frame_count; !err && i > 0; i--) {
		putc(';', out);
		err = put_frame(out, &stack->frames[i - 1]);
	}
	fprintf(out, " %" PRIu64 "\n", stack->live_bytes);
	return err;
}

static int render(FILE *out, const struct snapshot *s, const struct report_options *options)
{
	int err = 0;

	(void)options;
	for (size_t i = 0; !err && i < s->stack_count; i++)
		err = put_stack(out, s, &s->stacks[i]);
	return err;
}

int report_write_folded(FILE *out, const struct snapshot *s, const struct report_options *options)
{
	return report_write_whole(out, s, options, render);
}
