/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Servers are a directory (file: URLs do for the library) and a socket that never answers. */
#include "sym/debuginfod.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "scratch_dir.h"

/* dprintf() of glibc 2.36 loses a buffer each time the library writes its cache with it. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
	return "leak:_IO_file_doallocate\n";
}

static int setup(void **state)
{
	struct scratch_dir *d = calloc(1, sizeof(*d));
	char path[PATH_MAX];

	*state = d;
	if (scratch_make(d))
		return -1;
	setenv("DEBUGINFOD_CACHE_PATH", scratch_path(d, "cache", path), 1);
	return 0;
}

static int teardown(void **state)
{
	int err = scratch_remove(*state);

	unsetenv("DEBUGINFOD_URLS");
	unsetenv("DEBUGINFOD_TIMEOUT");
	unsetenv("DEBUGINFOD_MAXTIME");
	unsetenv("DEBUGINFOD_MAXSIZE");
	free(*state);
	return err;
}

static struct debuginfod *start(const char *urls)
{
	setenv("DEBUGINFOD_URLS", urls, 1);
	if (!dlopen("libdebuginfod.so.1", RTLD_NOW))
		skip();
	return debuginfod_new();
}

static void test_only_when_asked_for(void **state)
{
	(void)state;
	unsetenv("DEBUGINFOD_URLS");
	assert_null(debuginfod_new());
	setenv("DEBUGINFOD_URLS", "  ", 1);
	assert_null(debuginfod_new());
	assert_null(getenv("DEBUGINFOD_MAXTIME"));
	debuginfod_free(NULL);
}

static struct debuginfod *start_directory(const struct scratch_dir *d)
{
	char urls[PATH_MAX];

	snprintf(urls, sizeof(urls), "file://%s/", d->path);
	return start(urls);
}

static void test_found(void **state)
{
	struct debuginfod *d = start_directory(*state);
	char text[8];
	int fd, i;

	assert_non_null(d);
	assert_int_equal(scratch_run(*state, "mkdir -p buildid/12345678 && "
					     "printf hello >buildid/12345678/debuginfo"),
			 0);
	for (i = 0; i < 2; i++) {
		fd = debuginfod_open(d, "12345678", "a");
		assert_true(fd >= 0);
		assert_int_equal(pread(fd, text, sizeof(text), 0), 5);
		assert_memory_equal(text, "hello", 5);
		close(fd);
	}
	/* The second answer was ours, from the user's cache. */
	assert_int_equal(scratch_run(*state, "rm -r cache"), 0);
	assert_int_equal(debuginfod_open(d, "12345678", "a"), -ENOENT);
	debuginfod_free(d);
}

static void test_asked_once(void **state)
{
	struct debuginfod *d = start_directory(*state);

	assert_non_null(d);
	assert_true(debuginfod_open(d, "12345678", "a") < 0);
	assert_int_equal(scratch_run(*state, "rm -r cache && mkdir -p buildid/12345678 && "
					     "printf hello >buildid/12345678/debuginfo"),
			 0);
	assert_true(debuginfod_open(d, "12345678", "a") < 0);
	debuginfod_free(d);
}

static void test_limits_of_the_user_stay(void **state)
{
	struct debuginfod *d;

	setenv("DEBUGINFOD_MAXTIME", "7", 1);
	d = start_directory(*state);
	assert_non_null(d);
	assert_string_equal(getenv("DEBUGINFOD_MAXTIME"), "7");
	assert_string_equal(getenv("DEBUGINFOD_TIMEOUT"), DEBUGINFOD_STALL_SECONDS);
	assert_string_equal(getenv("DEBUGINFOD_MAXSIZE"), DEBUGINFOD_BYTES_MAX);
	debuginfod_free(d);
}

/* A socket that takes connections; -1 if there is no network to do it. */
static int silent_server(char *url, size_t size)
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	socklen_t length = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, length) || listen(fd, 64) ||
	    getsockname(fd, (struct sockaddr *)&address, &length)) {
		if (fd >= 0)
			close(fd);
		return -1;
	}
	snprintf(url, size, "http://127.0.0.1:%d/", ntohs(address.sin_port));
	return fd;
}

static time_t seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec;
}

static void *cancel_soon(void *d)
{
	usleep(500000);
	debuginfod_cancel(d);
	return NULL;
}

static void test_cancel(void **state)
{
	char url[64];
	int server = silent_server(url, sizeof(url));
	struct debuginfod *d;
	pthread_t thread;
	time_t begin;

	(void)state;
	if (server < 0)
		skip();
	d = start(url);
	assert_non_null(d);
	begin = seconds();
	assert_int_equal(pthread_create(&thread, NULL, cancel_soon, d), 0);
	assert_true(debuginfod_open(d, "12345678", "a") < 0);
	assert_true(seconds() - begin < 6);
	pthread_join(thread, NULL);
	assert_int_equal(debuginfod_open(d, "87654321", "b"), -ECANCELED);
	debuginfod_free(d);
	close(server);
}

static void test_silent_server(void **state)
{
	static const char *const ids[] = {"11111111", "22222222", "33333333", "44444444"};
	char url[64];
	int server = silent_server(url, sizeof(url)), i;
	struct debuginfod *d;
	time_t begin;

	(void)state;
	if (server < 0)
		skip();
	setenv("DEBUGINFOD_TIMEOUT", "1", 1);
	setenv("DEBUGINFOD_MAXTIME", "1", 1);
	setenv("DEBUGINFOD_RETRY_LIMIT", "1", 1);
	d = start(url);
	assert_non_null(d);
	for (i = 0; i < DEBUGINFOD_FAILURES_MAX; i++)
		assert_true(debuginfod_open(d, ids[i], "a") < 0);
	begin = seconds();
	assert_int_equal(debuginfod_open(d, ids[i], "a"), -ENOENT);
	assert_true(seconds() - begin <= 1);
	debuginfod_free(d);
	close(server);
	unsetenv("DEBUGINFOD_RETRY_LIMIT");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_only_when_asked_for),	    TEST(test_found),  TEST(test_asked_once),
		TEST(test_limits_of_the_user_stay), TEST(test_cancel), TEST(test_silent_server),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
