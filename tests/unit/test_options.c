/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "options.h"
#include "target/selector.h"

static int parse(struct options *o, const char *const *words)
{
	static char *argv[32]; /* o->run points into it */
	int argc = 1;

	memset(argv, 0, sizeof(argv));
	argv[0] = (char *)"leaktop";

	for (; words[argc - 1]; argc++)
		argv[argc] = (char *)words[argc - 1];
	return options_parse(argc, argv, o);
}

#define PARSE(o, ...) parse(o, (const char *const[]){__VA_ARGS__, NULL})

static void what_memleak_users_type(void **state)
{
	struct options o;
	char pid[16];

	(void)state;
	snprintf(pid, sizeof(pid), "%d", getppid());
	assert_int_equal(
		PARSE(&o, "-p", pid, "-T", "7", "-o", "500", "-z", "16", "-Z", "1K", "10", "3"), 0);
	assert_int_equal(o.top, 7);
	assert_int_equal(o.min_age_ms, 500);
	assert_int_equal(o.size_min_bytes, 16);
	assert_int_equal(o.size_max_bytes, 1024);
	assert_true(o.interval_s == 10.0);
	assert_int_equal(o.count, 3);
	assert_false(selector_is_empty(o.selector));
	options_release(&o);
}

static void a_command_keeps_its_own_options(void **state)
{
	struct options o;

	(void)state;
	assert_int_equal(PARSE(&o, "-q", "--", "prog", "-x", "--", "y"), 0);
	assert_string_equal(o.run[0], "prog");
	assert_string_equal(o.run[1], "-x");
	assert_string_equal(o.run[2], "--");
	assert_int_equal(o.verbosity, -1);
	options_release(&o);
	assert_int_equal(PARSE(&o, "-c", " prog  a b "), 0);
	assert_string_equal(o.run[0], "prog");
	assert_string_equal(o.run[2], "b");
	assert_null(o.run[3]);
	options_release(&o);
}

static void usage_errors(void **state)
{
	static const char *const bad[][4] = {
		{"--nonsense"},
		{"-T"},
		{"-T", "0", "-a"},
		{"-p", "12x"},
		{"-p", ""},
		{"-p", "-5"},
		{"-a", "abc"},
		{"-a", "1", "2x"},
		{"-a", "-5"},
		{"--sort", "size"},
		{"--format", "xml"},
		{"--by", "moon"},
		{"trace"},
		{"-a", "--no-escalate"},
		{"-a", "--sample", "often"},
		{"-a", "--sample", "3"},
		{"-a", "--max-overhead", "0"},
		{"watch", "-f"},
		{"-a", "--"},
		{"-c", " "},
		{"-a", "0"},
		{"-a", "nan"},
		{"-z", "2", "-Z"},
		{"--ring-size", "1"},
		{"--max-blocks", "1"},
		{"--unwind-memory", "1K"},
		{"-z", "99999999999999999999", "-a"},
	};
	struct options o;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		const char *const words[] = {bad[i][0], bad[i][1], bad[i][2], bad[i][3], NULL};

		assert_int_equal(parse(&o, words), -EINVAL);
		options_release(&o);
	}
}

static void without_a_target(void **state)
{
	struct options o;

	(void)state;
	assert_int_equal(PARSE(&o, "10", "3"), 0);
	assert_int_equal(o.command, COMMAND_WATCH);
	options_release(&o);
	assert_int_equal(PARSE(&o, "watch", "--no-escalate"), 0);
	assert_int_equal(o.command, COMMAND_WATCH);
	assert_true(o.no_escalate);
	options_release(&o);
	assert_int_equal(PARSE(&o, "-a", "--sample", "64k", "--max-overhead", "0.5"), 0);
	assert_int_equal(o.command, COMMAND_TRACE);
	assert_int_equal(o.sample, SAMPLE_FIXED);
	assert_int_equal(o.sample_rate, 256 * 16);
	assert_true(o.max_overhead_pct == 0.5);
	options_release(&o);
}

static void a_missing_pid_is_no_usage_error(void **state)
{
	struct options o;

	(void)state;
	assert_int_equal(PARSE(&o, "-p", "2147483646"), -ESRCH);
	options_release(&o);
}

static void sizes_with_units(void **state)
{
	struct options o;

	(void)state;
	assert_int_equal(PARSE(&o, "-a", "--ring-size", "64KiB", "--max-blocks", "2M",
			       "--unwind-memory", "8M", "--by", "line"),
			 0);
	assert_int_equal(o.ring_bytes, 65536);
	assert_int_equal(o.unwind_bytes, 8u << 20);
	assert_int_equal(o.group_by, GROUP_LINE);
	assert_int_equal(o.max_blocks, 2u << 20);
	options_release(&o);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_memleak_users_type),
		cmocka_unit_test(usage_errors),
		cmocka_unit_test(without_a_target),
		cmocka_unit_test(a_command_keeps_its_own_options),
		cmocka_unit_test(a_missing_pid_is_no_usage_error),
		cmocka_unit_test(sizes_with_units),
	};

	/* The messages are for people. */
	if (!freopen("/dev/null", "w", stderr))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
