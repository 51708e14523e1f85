/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/log.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* stderr is one end of a datagram socket: what one write(2) wrote is one message. */
static int saved_stderr, reader;

static int redirect(void **state)
{
	int fds[2];

	(void)state;
	if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, fds))
		return -1;
	saved_stderr = dup(STDERR_FILENO);
	dup2(fds[1], STDERR_FILENO);
	close(fds[1]);
	reader = fds[0];
	log_set_level(LOG_NORMAL);
	return 0;
}

static int restore(void **state)
{
	(void)state;
	dup2(saved_stderr, STDERR_FILENO);
	close(saved_stderr);
	close(reader);
	return 0;
}

static void expect(const char *expected)
{
	static char got[65536];
	ssize_t length = recv(reader, got, sizeof(got) - 1, 0);

	if (!expected) {
		assert_int_equal(length, -1);
		return;
	}
	assert_true(length > 0);
	got[length] = '\0';
	assert_string_equal(got, expected);
}

static void __attribute__((format(printf, 2, 3)))
write_at(enum log_level level, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_write(level, fmt, ap);
	va_end(ap);
}

static void one_write_a_line(void **state)
{
	(void)state;
	log_error("cannot open %s: %d", "x", 5);
	expect("leaktop: cannot open x: 5\n");
	log_warn("process %d is gone", 7);
	expect("leaktop: warning: process 7 is gone\n");
	expect(NULL);
}

static void levels(void **state)
{
	(void)state;
	log_info("i");
	expect(NULL);
	log_set_level(LOG_ERROR_ONLY);
	assert_int_equal(log_get_level(), LOG_ERROR_ONLY);
	log_warn("w");
	expect(NULL);
	log_error("e");
	expect("leaktop: e\n");
	log_set_level(LOG_VERBOSE);
	log_debug("d");
	expect(NULL);
	log_info("i");
	expect("leaktop: i\n");
	log_set_level(LOG_DEBUG);
	log_debug("d");
	expect("leaktop: d\n");
}

static void hostile_arguments(void **state)
{
	(void)state;
	log_error("comm %s", "a\nleaktop: fake\x1b[2J\x9b\t\\");
	expect("leaktop: comm a\\nleaktop: fake\\x1b[2J\\x9b\\t\\\\\n");
	log_error("%s", "%s%n");
	expect("leaktop: %s%n\n");
	log_error("%s", "ends in a newline\n");
	expect("leaktop: ends in a newline\\n\n");
}

static void long_message(void **state)
{
	static char name[20001], expected[20001];

	(void)state;
	memset(name, 'x', 20000);
	log_error("%s", name);
	strcpy(expected, "leaktop: ");
	memset(expected + 9, 'x', 8192);
	strcpy(expected + 9 + 8192, "...\n");
	expect(expected);
}

static void newline_of_the_format_is_dropped(void **state)
{
	(void)state;
	write_at(LOG_NORMAL, "libbpf: %s\n", "x\n");
	expect("leaktop: libbpf: x\\n\n");
	write_at(LOG_DEBUG, "not shown\n");
	expect(NULL);
	write_at(LOG_NORMAL, "%s", "");
	expect("leaktop: \n");
}

static void errno_is_kept(void **state)
{
	(void)state;
	errno = ENOTTY;
	log_error("x");
	assert_int_equal(errno, ENOTTY);
	expect("leaktop: x\n");
}

/* Nothing to tell it to, but no crash and no endless loop. */
static void closed_stderr(void **state)
{
	(void)state;
	close(STDERR_FILENO);
	log_error("x");
	expect(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(one_write_a_line, redirect, restore),
		cmocka_unit_test_setup_teardown(levels, redirect, restore),
		cmocka_unit_test_setup_teardown(hostile_arguments, redirect, restore),
		cmocka_unit_test_setup_teardown(long_message, redirect, restore),
		cmocka_unit_test_setup_teardown(newline_of_the_format_is_dropped, redirect,
						restore),
		cmocka_unit_test_setup_teardown(errno_is_kept, redirect, restore),
		cmocka_unit_test_setup_teardown(closed_stderr, redirect, restore),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
