/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "report/report.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "account/snapshot.h"
#include "report_sample.h"

static const struct report_options plain;
static const struct report_options verbose = {.verbose = true};
static const struct report_options colored = {.color = true};

#define TABLE_HEAD                                                                         \
	"    PID COMM                   RSS       live       mmap   untracked    growth/s" \
	"  container\n"
#define TABLE_ROWS                                                                                \
	"   4711 server            20.0 MiB  933.6 KiB    1.0 MiB    14.1 MiB   +10.0 KiB  web\n" \
	"     12 worker            (exited)        0 B        0 B           -           -\n"

static char *print(const struct snapshot *s, const struct report_options *options)
{
	char *text = report_sample_print("text", s, options);

	assert_non_null(text);
	return text;
}

static void check(const struct snapshot *s, const struct report_options *options,
		  const char *expected)
{
	char *text = print(s, options);

	assert_string_equal(text, expected);
	free(text);
}

static void check_has(const struct snapshot *s, const struct report_options *options,
		      const char *part)
{
	char *text = print(s, options);

	if (!strstr(text, part))
		fail_msg("no \"%s\" in:\n%s", part, text);
	free(text);
}

static void check_has_not(const struct snapshot *s, const struct report_options *options,
			  const char *part)
{
	char *text = print(s, options);

	if (strstr(text, part))
		fail_msg("\"%s\" in:\n%s", part, text);
	free(text);
}

static void golden(void **state)
{
	struct report_sample r;

	(void)state;
	report_sample_init(&r);
	check(&r.s, &plain,
	      "[22:13:20] 2 processes, 1.9 MiB outstanding in 102 blocks; growing 10.0 "
	      "KiB/s\n" TABLE_HEAD TABLE_ROWS
	      "Top 2 stacks with outstanding allocations (of 153):\n"
	      "\t1048576 bytes in 1 mappings from stack (oldest 5.0 min, pids 4711, 12)\n"
	      "\t\t0x1234 [libx.so]\n"
	      "\t\t[stack cut: no caller found]\n"
	      "\t955959 bytes in 101 allocations from stack"
	      " (+10.0 KiB/s, oldest 12.3 s, pid 4711)\n"
	      "\t\tmake_item (inlined) [server]  item.h:7\n"
	      "\t\thandle_request+0x2a [server]  server.c:42\n"
	      "\t\tserve [python]  /app/web/__init__.py:3\n"
	      "\t\t0x1234 [libx.so]\n"
	      "\n");
}

static void golden_verbose_final(void **state)
{
	struct report_sample r;

	(void)state;
	report_sample_init(&r);
	r.s.final = true;
	r.s.overhead.figures.measured_pct = 2.5;
	r.s.overhead.unwind = (struct unwinder_stats){.tables = 3, .table_bytes = 100 << 10};
	r.s.loss.cuts = &(struct snapshot_cut){"/bin/x\033", "no_rule", "code left out", 17};
	r.s.loss.cut_count = 1;
	check(&r.s, &verbose,
	      "[22:13:20] final report: 2 processes, 1.9 MiB outstanding in 102 blocks"
	      "; growing 10.0 KiB/s\n" TABLE_HEAD TABLE_ROWS
	      "  pid 4711: RSS 20,971,520 = live 955,959 + mmap 1,048,576 + allocator free unknown"
	      " + file&shared 4,194,304 + untracked 14,772,681 bytes\n"
	      "Top 2 stacks with outstanding allocations (of 153):\n"
	      "\t1048576 bytes in 1 mappings from stack (oldest 5.0 min, pids 4711, 12)\n"
	      "\t\t0x0000000000001234  0x1234 [libx.so]\n"
	      "\t\t[stack cut: no caller found]\n"
	      "\t955959 bytes in 101 allocations from stack"
	      " (+10.0 KiB/s, oldest 12.3 s, pid 4711)\n"
	      "\t\t0x00000000000031a9  make_item (inlined) [server]  /src/item.h:7\n"
	      "\t\t0x00000000000031a9  handle_request+0x2a [server]  /src/server.c:42\n"
	      "\t\tserve [python]  /app/web/__init__.py:3\n"
	      "\t\t0x0000000000001234  0x1234 [libx.so]\n"
	      "coverage: 2 processes, 98.3 % of stacks complete\n"
	      "  17 cut in /bin/x\\x1b: code left out\n"
	      "  pid 4711: glibc in /lib/libc.so.6 (returns by session): malloc free\n"
	      "overhead: 12,345.6 probe hits/s costing at most 2.5 % of a process' CPU time "
	      "(budget 2.0 %); "
	      "leaktop itself 1.3 % of one CPU, RSS 23.4 MiB"
	      "; unwind tables of 3 objects, 100.0 KiB\n"
	      "\n");
}

/* A column, the types, the interpreter's frames left out, and what is not seen. */
static void python(void **state)
{
	struct report_sample r;

	(void)state;
	report_sample_init(&r);
	report_sample_python(&r);
	check_has(&r.s, &plain, "       live     python       mmap");
	check_has(&r.s, &plain, "  933.6 KiB    5.5 KiB    1.0 MiB");
	check_has(&r.s, &plain,
		  "\t\ttypes: 100 x app.Connection (5.5 KiB), 1 x a\\nb (64 B)\n"
		  "\t\thandle_request+0x2a");
	check_has(&r.s, &plain,
		  "  pid 4711: CPython 3.11.2, objects above 512 bytes only: --python stacks\n");
	check_has_not(&r.s, &plain, "make_item");
	check_has(&r.s, &verbose, "make_item");
	check_has(&r.s, &verbose, "= live 955,959 + python 5,664 + mmap");
	r.python.objects = PYTHON_OBJECTS_FULL;
	r.python.freelists = true;
	check_has(&r.s, &plain, "note: headers of dict, list, tuple, float");
	check_has_not(&r.s, &plain, "CPython 3.11.2");
	r.processes[0].python_live_blocks = 0;
	check_has_not(&r.s, &plain, "note:");
}

static void groups(void **state)
{
	struct report_sample r;

	(void)state;
	report_sample_init(&r);
	r.s.groups = r.groups;
	r.s.group_count = 2;
	r.s.group_kind = "function";
	check(&r.s, &plain,
	      "[22:13:20] 2 processes, 1.9 MiB outstanding in 102 blocks; growing 10.0 "
	      "KiB/s\n" TABLE_HEAD TABLE_ROWS "Outstanding allocations by function, top 2:\n"
	      "               bytes         blocks      growth/s  function\n"
	      "             955,959            101     +10.0 KiB  handle_request\n"
	      "               2,048              2             -  a\\nb\n"
	      "\n");
	r.groups[0].name = NULL;
	check_has(&r.s, &plain, "+10.0 KiB  (none)\n");
	r.s.group_count = 0;
	check_has(&r.s, &plain, "no outstanding allocations by function to show\n");
}

static void nothing_outstanding(void **state)
{
	struct report_sample r;

	(void)state;
	report_sample_init(&r);
	r.s.stack_count = r.s.total_live_bytes = r.s.total_live_blocks = 0;
	r.s.process_count = 0;
	r.s.process_count_covered = 1;
	check(&r.s, &plain,
	      "[22:13:20] 1 process, no outstanding allocations (watched for 10.0 s)\n\n");
	r.s.total_live_blocks = 1; /* malloc(0) */
	check(&r.s, &plain,
	      "[22:13:20] 1 process, 0 B outstanding in 1 block\nno stacks to show\n\n");
}

static void direction_of_growth(void **state)
{
	struct report_sample r;

	(void)state;
	report_sample_init(&r);
	r.processes[1].growth_bytes_per_s = -20480;
	check_has(&r.s, &plain, "; shrinking 10.0 KiB/s\n");
	r.processes[1].growth_bytes_per_s = -10240;
	check_has(&r.s, &plain, "; steady\n");
	r.processes[0].growth_bytes_per_s = NAN;
	r.processes[1].growth_bytes_per_s = NAN;
	check_has(&r.s, &plain, " in 102 blocks\n"); /* too early to say */
}

static void losses_in_plain_words(void **state)
{
	struct report_sample r;

	(void)state;
	report_sample_init(&r);
	check_has_not(&r.s, &verbose, "lost:");
	r.s.loss.ring_full = 12;
	check_has(&r.s, &plain,
		  "\nlost: ring buffer full 12 times: nothing lost, delivered later\n\n");
	r.s.loss = (struct snapshot_loss){.alloc_events = 1,
					  .free_events = 2,
					  .live_map_full = 123,
					  .live_map_full_bytes = 47815065,
					  .stacks = 5,
					  .ring_full = 12,
					  .missed_frees = 7000};
	check_has(&r.s, &plain,
		  "\nlost: live table full: 123 allocations (45.6 MiB) not tracked; "
		  "raise --max-blocks\n"
		  "lost: 1 allocation not recorded: not in this report\n"
		  "lost: 2 frees not recorded: the blocks may still be shown as outstanding\n"
		  "lost: stacks of 5 blocks not recorded: counted, but without frames\n"
		  "lost: ring buffer full 12 times: nothing lost, delivered later\n"
		  "lost: 7,000 frees not seen: noticed when the address was used again, "
		  "so not shown\n");
}

static void unknown_parts(void **state)
{
	struct report_sample r;

	(void)state;
	report_sample_init(&r);
	r.stacks[0].incomplete = NULL;
	r.stacks[0].frame_count = 0;
	r.stacks[0].oldest_s = NAN;
	r.stacks[0].pid_count = 0;
	r.frames[3].module = NULL;
	r.frames[3].has_offset = false;
	r.frames[1].file = NULL;
	r.frames[0].line = 0;
	r.processes[0].comm = NULL;
	r.processes[0].untracked_bytes = -2048;
	check_has(&r.s, &plain, "1048576 bytes in 1 mappings from stack\n\t\t[no stack]\n");
	check_has(&r.s, &plain, "\t\t0x7f0000001234\n");
	check_has(&r.s, &plain, "handle_request+0x2a [server]\n");
	check_has(&r.s, &plain, "make_item (inlined) [server]  item.h\n");
	check_has(&r.s, &plain, "   4711 ?                 20.0 MiB");
	check_has(&r.s, &plain, "    -2.0 KiB   +10.0 KiB");
	check_has(&r.s, &verbose, "untracked -2,048 bytes\n");
	r.frames[3].module = "[vdso]";
	check_has(&r.s, &plain, "0x7f0000001234 [vdso]\n");
	r.s.time_s = NAN;
	check_has(&r.s, &plain, "[--:--:--] 2 processes");
	r.s.time_s = 1e300;
	check_has(&r.s, &plain, "[--:--:--] 2 processes");
}

static void containers(void **state)
{
	struct report_sample r;

	(void)state;
	report_sample_init(&r);
	r.processes[0].container_name = NULL;
	check_has(&r.s, &plain, "  0123456789abcdef\n"); /* not a hash: whole */
	r.processes[0].container_id = "0123456789abcdef0123456789abcdef"
				      "0123456789abcdef0123456789abcdef";
	check_has(&r.s, &plain, "  0123456789ab\n");
	r.processes[0].container_id = NULL;
	check_has(&r.s, &plain, "    growth/s\n"); /* no column for none */
}

static void many_pids(void **state)
{
	struct report_sample r;
	pid_t pids[1007];

	(void)state;
	for (int i = 0; i < 1007; i++)
		pids[i] = i + 1;
	report_sample_init(&r);
	r.stacks[0].pids = pids;
	r.stacks[0].pid_count = 1007;
	check_has(&r.s, &plain, "(oldest 5.0 min, pids 1, 2, 3, 4, 5 and 1,002 more)\n");
	r.stacks[0].pid_count = 5;
	check_has(&r.s, &plain, "(oldest 5.0 min, pids 1, 2, 3, 4, 5)\n");
}

static void many_processes(void **state)
{
	struct snapshot_process processes[25];
	struct report_sample r;
	char *text;

	(void)state;
	report_sample_init(&r);
	for (int i = 0; i < 25; i++) {
		processes[i] = r.processes[0];
		processes[i].pid = 1000 + i;
		processes[i].live_bytes = 1024 * i;
	}
	r.s.processes = processes;
	r.s.process_count = 25;
	text = print(&r.s, &plain);
	assert_non_null(strstr(text, "container\n   1024 server")); /* the largest first */
	assert_non_null(strstr(text, "\n   1005 server"));
	assert_null(strstr(text, "\n   1004 server"));
	assert_non_null(strstr(text, "\n        and 5 more (all with -v)\n"));
	free(text);
	check_has(&r.s, &verbose, "\n   1000 server");
}

static void colors(void **state)
{
	struct report_sample r;

	(void)state;
	report_sample_init(&r);
	check_has_not(&r.s, &plain, "\033");
	check_has(&r.s, &colored, "\033[1m955959 bytes in 101 allocations from stack\033[0m");
	check_has(&r.s, &colored, "(\033[31m+10.0 KiB/s\033[0m, oldest");
	r.processes[0].growth_bytes_per_s = r.stacks[1].growth_bytes_per_s = -1;
	check_has_not(&r.s, &colored, "\033[31m"); /* red is for growth only */
}

/* No ESC, no newline and no raw byte of a name reaches the terminal. */
static void hostile_names(void **state)
{
	static const char name[] = "\x1b[2J\nlost: x\x9b\xc0\xaf\x7f\\";
	static const char escaped[] = "\\x1b[2J\\nlost: x\\x9b\\xc0\\xaf\\x7f\\\\";
	struct report_sample r;
	char *text;
	size_t count = 0;

	(void)state;
	report_sample_init(&r);
	r.processes[0].comm = r.processes[0].exe = r.processes[0].container_name = name;
	r.frames[0].function = r.frames[0].module = r.frames[0].file = name;
	r.frames[2].function = r.frames[2].module = r.frames[2].file = name;
	r.allocator.object = name;
	text = print(&r.s, &verbose);
	for (const char *c = text; *c; c++)
		assert_true((*c >= 0x20 && *c < 0x7f) || *c == '\n' || *c == '\t');
	assert_null(strstr(text, "\nlost:"));
	for (const char *c = text; (c = strstr(c, escaped)); c++)
		count++;
	assert_int_equal(count, 8); /* 3 in each frame, container, object; comm is cut */
	free(text);
}

static void long_names(void **state)
{
	struct report_sample r;
	char name[4097];
	char *text;

	(void)state;
	memset(name, 'x', 4096);
	name[4096] = '\0';
	report_sample_init(&r);
	r.frames[0].function = name;
	r.processes[0].comm = name;
	text = print(&r.s, &plain);
	assert_true(strlen(text) < 2048);
	assert_non_null(strstr(text, "xxx... (inlined)"));
	assert_non_null(strstr(text, "   4711 xxxxxxxxxxxxxxxx... "));
	free(text);
}

static void options_may_be_absent(void **state)
{
	struct report_sample r;
	char *with, *without;

	(void)state;
	report_sample_init(&r);
	with = print(&r.s, &plain);
	without = print(&r.s, NULL);
	assert_string_equal(with, without);
	free(with);
	free(without);
}

static void write_errors(void **state)
{
	struct report_sample r;

	(void)state;
	report_sample_init(&r);
	assert_int_equal(report_sample_to_closed_pipe("text", &r.s), -EPIPE);
	assert_int_equal(report_sample_to_full_disk("text", &r.s), -ENOSPC);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(golden),
		cmocka_unit_test(golden_verbose_final),
		cmocka_unit_test(python),
		cmocka_unit_test(groups),
		cmocka_unit_test(nothing_outstanding),
		cmocka_unit_test(direction_of_growth),
		cmocka_unit_test(losses_in_plain_words),
		cmocka_unit_test(unknown_parts),
		cmocka_unit_test(containers),
		cmocka_unit_test(many_pids),
		cmocka_unit_test(many_processes),
		cmocka_unit_test(colors),
		cmocka_unit_test(hostile_names),
		cmocka_unit_test(long_names),
		cmocka_unit_test(options_may_be_absent),
		cmocka_unit_test(write_errors),
	};

	setenv("TZ", "UTC", 1);
	tzset();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
