/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "report/report.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "account/snapshot.h"
#include "report_sample.h"

static void check(const struct snapshot *s, const char *expected)
{
	char *text = report_sample_print("folded", s, &(struct report_options){0});

	assert_non_null(text);
	assert_string_equal(text, expected);
	free(text);
}

static void golden(void **state)
{
	struct report_sample r;

	(void)state;
	report_sample_init(&r);
	check(&r.s, "server;[libx.so+0x1234] 1048576\n"
		    "server;[libx.so+0x1234];serve;handle_request;make_item 955959\n");
}

static void nothing_outstanding(void **state)
{
	struct report_sample r;

	(void)state;
	report_sample_init(&r);
	r.s.stack_count = 0;
	check(&r.s, "");
}

/* One stack of one frame in a process. */
static void check_names(const char *comm, const char *function, const char *expected)
{
	struct report_sample r;

	report_sample_init(&r);
	r.processes[0].comm = comm;
	r.frames[0].function = function;
	r.stacks[1].frame_count = 1;
	r.s.stacks = &r.stacks[1];
	r.s.stack_count = 1;
	check(&r.s, expected);
}

static void hostile_names(void **state)
{
	(void)state;
	check_names("a;b", "f(char; 3)", "a:b;f(char: 3) 955959\n");
	check_names("c", "a\nb 99\r", "c;a\\nb 99\\x0d 955959\n");
	check_names("c", "\x1b[2J\x80", "c;\\x1b[2J\\x80 955959\n");
	check_names("c", "operator new(unsigned long)", "c;operator new(unsigned long) 955959\n");
	/* Neither a space nor a number at the end may pass for the count. */
	check_names("c", "f  ", "c;f__ 955959\n");
	check_names("c", "f 12 3.5", "c;f_12_3.5 955959\n");
	check_names("7 8", " 12", "7_8;_12 955959\n");
	check_names("c", "f12", "c;f12 955959\n");
	check_names("", "", "[unknown];[unknown] 955959\n");
	check_names(NULL, "f", "[unknown];f 955959\n");
}

static void unknown_parts(void **state)
{
	struct report_sample r;

	(void)state;
	report_sample_init(&r);
	r.s.stack_count = 1;
	r.frames[3].module = NULL;
	r.frames[3].has_offset = false;
	r.stacks[0].pid_count = 0;
	check(&r.s, "[unknown];[unknown] 1048576\n");
	r.stacks[0].frame_count = 0;
	check(&r.s, "[unknown] 1048576\n");
	r.pids[0] = 99; /* not among the processes */
	r.stacks[0].pid_count = 1;
	check(&r.s, "[unknown] 1048576\n");
}

static void long_names(void **state)
{
	struct report_sample r;
	char name[8193];
	char *text;

	(void)state;
	memset(name, ';', 8192);
	name[8192] = '\0';
	report_sample_init(&r);
	r.s.stack_count = 1;
	r.frames[3].function = name;
	text = report_sample_print("folded", &r.s, &(struct report_options){0});
	assert_int_equal(strlen(text), strlen("server;") + 4096 + strlen("... 1048576\n"));
	assert_string_equal(text + strlen(text) - 12, "... 1048576\n");
	free(text);
}

static void write_errors(void **state)
{
	struct report_sample r;

	(void)state;
	report_sample_init(&r);
	assert_int_equal(report_sample_to_closed_pipe("folded", &r.s), -EPIPE);
	assert_int_equal(report_sample_to_full_disk("folded", &r.s), -ENOSPC);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(golden),	 cmocka_unit_test(nothing_outstanding),
		cmocka_unit_test(hostile_names), cmocka_unit_test(unknown_parts),
		cmocka_unit_test(long_names),	 cmocka_unit_test(write_errors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
