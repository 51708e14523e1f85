/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sym/perf_map.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char own_file[64];

static int setup(void **state)
{
	(void)state;
	snprintf(own_file, sizeof(own_file), "/tmp/perf-%d.map", getpid());
	unlink(own_file);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	unlink(own_file);
	return 0;
}

static void write_to(const char *path, int flags, const void *bytes, size_t size)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, size), (ssize_t)size);
	close(fd);
}

static void append(const char *text)
{
	write_to(own_file, O_APPEND, text, strlen(text));
}

static struct perf_map *map_of(const void *bytes, size_t size)
{
	struct perf_map *m = NULL;

	write_to(own_file, O_TRUNC, bytes, size);
	assert_int_equal(perf_map_open(getpid(), &m), 0);
	return m;
}

static struct perf_map *map_of_text(const char *text)
{
	return map_of(text, strlen(text));
}

static void expect_name(struct perf_map *m, uint64_t address, const char *wanted, uint64_t at)
{
	char name[PERF_MAP_NAME_BYTES + 1];
	uint64_t start;

	assert_int_equal(perf_map_find(m, address, name, sizeof(name), &start), 0);
	assert_string_equal(name, wanted);
	assert_int_equal(start, at);
}

static void expect_none(struct perf_map *m, uint64_t address)
{
	char name[16] = "untouched";
	uint64_t start = 5;

	assert_int_equal(perf_map_find(m, address, name, sizeof(name), &start), -ENOENT);
	assert_string_equal(name, "untouched");
	assert_int_equal(start, 5);
}

static void test_lines(void **state)
{
	struct perf_map *m = map_of_text("7f3b2c000000 1a0 JS:*f /a b.js:1:2\n"
					 "0x1000 0x10 with prefix\n"
					 "ABCDEF0 1 capitals\n"
					 "2000\t20\ttabs\n");

	(void)state;
	expect_name(m, 0x7f3b2c000000, "JS:*f /a b.js:1:2", 0x7f3b2c000000);
	expect_name(m, 0x7f3b2c00019f, "JS:*f /a b.js:1:2", 0x7f3b2c000000);
	expect_none(m, 0x7f3b2c0001a0);
	expect_none(m, 0x7f3b2bffffff);
	expect_name(m, 0x100f, "with prefix", 0x1000);
	expect_name(m, 0xabcdef0, "capitals", 0xabcdef0);
	expect_name(m, 0x2001, "tabs", 0x2000);
	expect_none(m, 0);
	expect_none(m, UINT64_MAX);
	assert_int_equal(perf_map_bad_lines(m), 0);
	perf_map_unref(m);
	perf_map_unref(NULL);
}

static void test_bad_lines(void **state)
{
	static const char text[] = "\n"
				   "garbage\n"
				   "1000\n"
				   "1000 10\n"
				   "1000 10 \n"
				   "1000  10 x\n"
				   "-1000 10 x\n"
				   "0x 10 x\n"
				   "10000000000000000 10 too long a number\n"
				   "1000 100000000 too large\n"
				   "1000 0 empty\n"
				   "ffffffffffffffff 1 beyond the end\n"
				   "1000 10 \0hidden\n"
				   "fffffffffffffffe 1 last\n"
				   "3000 10 cut\0here\n"
				   "4000 10 no newline";
	struct perf_map *m = map_of(text, sizeof(text) - 1);

	(void)state;
	expect_name(m, UINT64_MAX - 1, "last", UINT64_MAX - 1);
	expect_name(m, 0x3005, "cut", 0x3000);
	expect_none(m, 0x1005);
	expect_none(m, 0x4005);
	assert_int_equal(perf_map_bad_lines(m), 13);
	append(" yet\n");
	expect_name(m, 0x4005, "no newline yet", 0x4000);
	assert_int_equal(perf_map_bad_lines(m), 13);
	perf_map_unref(m);
}

static void test_last_line_wins(void **state)
{
	struct perf_map *m = map_of_text("1000 100 old\n"
					 "1040 20 inner\n"
					 "2000 10 a\n"
					 "1ff8 10 b\n"
					 "3000 10 covered\n"
					 "2ff0 100 cover\n");

	(void)state;
	expect_name(m, 0x103f, "old", 0x1000);
	expect_name(m, 0x1040, "inner", 0x1040);
	expect_name(m, 0x1060, "old", 0x1000);
	expect_name(m, 0x2007, "b", 0x1ff8);
	expect_name(m, 0x2008, "a", 0x2000);
	expect_name(m, 0x3000, "cover", 0x2ff0);
	append("1000 100 new\n9000 1 other\n");
	expect_name(m, 0x9000, "other", 0x9000);
	expect_name(m, 0x1040, "new", 0x1000);
	perf_map_unref(m);
}

/* What is known is looked at again too, but not at every question. */
static void test_known_address_moves(void **state)
{
	const struct timespec more_than_a_second = {1, 50000000};
	struct perf_map *m = map_of_text("1000 100 old\n");

	(void)state;
	expect_name(m, 0x1000, "old", 0x1000);
	append("1000 80 new\n");
	expect_name(m, 0x1000, "old", 0x1000);
	nanosleep(&more_than_a_second, NULL);
	expect_name(m, 0x1000, "new", 0x1000);
	perf_map_unref(m);
}

static void test_cut_and_rewritten(void **state)
{
	struct perf_map *m = map_of_text("1000 100 first\n2000 100 second\n");

	(void)state;
	expect_name(m, 0x1000, "first", 0x1000);
	/* Smaller, and nothing of the old is true. */
	write_to(own_file, O_TRUNC, "3000 10 third\n", 14);
	expect_name(m, 0x3000, "third", 0x3000);
	expect_none(m, 0x1000);
	/* Larger, and not a continuation. */
	write_to(own_file, O_TRUNC, "4000 10 fourth\n5000 10 fifth\n", 29);
	expect_name(m, 0x4000, "fourth", 0x4000);
	expect_name(m, 0x5000, "fifth", 0x5000);
	expect_none(m, 0x3000);
	/* As large, with other lines in the old places: noticed as a line is read. */
	write_to(own_file, O_TRUNC, "6000 10 fourth\n7000 10 fifth\n", 29);
	expect_none(m, 0x6000);
	expect_none(m, 0x4000);
	expect_name(m, 0x6000, "fourth", 0x6000);
	write_to(own_file, O_TRUNC, "", 0);
	expect_none(m, 0x6000);
	/* Deleted, and still there for us. */
	append("8000 10 eighth\n");
	unlink(own_file);
	expect_name(m, 0x8000, "eighth", 0x8000);
	perf_map_unref(m);
}

static void test_long_lines(void **state)
{
	size_t bytes = 1u << 20, i;
	char *text = malloc(bytes), *wanted = malloc(PERF_MAP_NAME_BYTES + 1), name[8];
	struct perf_map *m;
	uint64_t start;

	(void)state;
	memset(text, 'x', bytes);
	memcpy(text, "1000 10 ", 8);
	memcpy(text + bytes - 20, "\n2000 10 after that\n", 20);
	memset(wanted, 'x', PERF_MAP_NAME_BYTES);
	wanted[PERF_MAP_NAME_BYTES] = '\0';
	m = map_of(text, bytes);
	expect_name(m, 0x1000, wanted, 0x1000);
	expect_name(m, 0x2000, "after that", 0x2000);
	assert_int_equal(perf_map_find(m, 0x2000, name, sizeof(name), &start), 0);
	assert_string_equal(name, "after t");
	assert_int_equal(perf_map_find(m, 0x2000, NULL, 0, &start), 0);
	assert_int_equal(perf_map_bad_lines(m), 0);
	perf_map_unref(m);

	/* Lines of every length across the edges of what is read at once. */
	for (i = 0; i + 600 < bytes;)
		i += (size_t)sprintf(text + i, "%zx 1 %0*d\n", 0x10000 + i, (int)(i % 523 + 1), 7);
	m = map_of(text, i);
	expect_name(m, 0x10000, "7", 0x10000);
	assert_int_equal(perf_map_bad_lines(m), 0);
	for (i = 0; i + 600 < bytes; i += strcspn(text + i, "\n") + 1)
		assert_int_equal(perf_map_find(m, 0x10000 + i, name, sizeof(name), &start), 0);
	perf_map_unref(m);
	free(text);
	free(wanted);
}

/* Ranges of all kinds of overlap, in pieces, against a table of addresses. */
static void test_random_ranges(void **state)
{
	enum {
		ADDRESSES = 4096
	};
	unsigned int seed = 11;
	struct perf_map *m = map_of_text("");
	int owner[ADDRESSES], i, address;

	(void)state;
	memset(owner, -1, sizeof(owner));
	for (i = 0; i < 3000; i++) {
		int start = rand_r(&seed) % ADDRESSES, bytes = 1 + rand_r(&seed) % 50;
		char line[64];

		if (i % 7 == 0)
			bytes *= 10;
		if (start + bytes > ADDRESSES)
			bytes = ADDRESSES - start;
		sprintf(line, "%x %x %d\n", start, bytes, i);
		append(line);
		for (address = start; address < start + bytes; address++)
			owner[address] = i;
		if (i % 100 != 20)
			continue;
		/* An unknown address has it read on. */
		expect_none(m, ADDRESSES);
		for (address = 0; address < ADDRESSES; address++) {
			char name[64], wanted[16];
			uint64_t at;
			int err = perf_map_find(m, (uint64_t)address, name, sizeof(name), &at);

			assert_int_equal(err, owner[address] < 0 ? -ENOENT : 0);
			snprintf(wanted, sizeof(wanted), "%d", owner[address]);
			if (!err)
				assert_string_equal(name, wanted);
		}
	}
	perf_map_unref(m);
}

static void test_random_bytes(void **state)
{
	static const char alphabet[] = "01fF xX\n\t-\0\xff";
	unsigned int seed = 5;
	char text[4096], name[32];
	uint64_t start;

	(void)state;
	for (int i = 0; i < 200; i++) {
		struct perf_map *m;

		for (size_t j = 0; j < sizeof(text); j++)
			text[j] = alphabet[(size_t)rand_r(&seed) % (sizeof(alphabet) - 1)];
		m = map_of(text, sizeof(text));
		for (uint64_t a = 0; a < 300; a++) {
			if (!perf_map_find(m, a, name, sizeof(name), &start))
				assert_true(start <= a);
		}
		perf_map_unref(m);
	}
}

/* Falling addresses, the worst order, and many of them; also a hole of zeros. */
static void test_large(void **state)
{
	const unsigned int count = 200000;
	FILE *f = fopen(own_file, "we");
	struct perf_map *m = NULL;
	char wanted[32];

	(void)state;
	assert_non_null(f);
	for (unsigned int i = count; i; i--)
		fprintf(f, "%x 10 f%u\n", i * 16, i);
	fclose(f);
	assert_int_equal(perf_map_open(getpid(), &m), 0);
	for (unsigned int i = 1; i <= count; i += 997) {
		snprintf(wanted, sizeof(wanted), "f%u", i);
		expect_name(m, i * 16 + 15, wanted, i * 16);
	}
	assert_int_equal(truncate(own_file, 1ll << 40), 0);
	expect_none(m, 1);
	expect_none(m, 1);
	expect_name(m, 16, "f1", 16);
	perf_map_unref(m);
}

static void test_references(void **state)
{
	struct perf_map *m = map_of_text("1000 100 f\n");

	(void)state;
	assert_ptr_equal(perf_map_ref(m), m);
	perf_map_unref(m);
	expect_name(m, 0x1000, "f", 0x1000);
	perf_map_unref(m);
	assert_null(perf_map_ref(NULL));
}

static void expect_no_map(int err)
{
	struct perf_map *m = NULL;

	assert_int_equal(perf_map_open(getpid(), &m), err);
	assert_null(m);
	unlink(own_file);
}

static void test_odd_files(void **state)
{
	const struct timespec times[2] = {{1000000, 0}, {1000000, 0}};
	struct perf_map *m;
	char target[80];

	(void)state;
	expect_no_map(-ENOENT);
	assert_int_equal(perf_map_open(0x3fffffff, &m), -ESRCH);
	assert_int_equal(mkfifo(own_file, 0644), 0);
	expect_no_map(-EINVAL);
	snprintf(target, sizeof(target), "%s.other", own_file);
	write_to(target, O_TRUNC, "1000 10 x\n", 10);
	assert_int_equal(symlink(target, own_file), 0);
	expect_no_map(-EINVAL);
	unlink(target);
	/* An earlier process of our number. */
	write_to(own_file, O_TRUNC, "1000 10 x\n", 10);
	assert_int_equal(utimensat(AT_FDCWD, own_file, times, 0), 0);
	expect_no_map(-ENOENT);
	if (geteuid())
		return;
	write_to(own_file, O_TRUNC, "1000 10 x\n", 10);
	assert_int_equal(chown(own_file, 65534, 65534), 0);
	expect_no_map(-EPERM);
}

/* A child that did @prepare and waits to be killed. */
static pid_t child_that(void (*prepare)(const char *), const char *argument)
{
	int ready[2];
	pid_t child;
	char byte;

	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	child = fork();
	if (!child) {
		prepare(argument);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (write(ready[1], "", 1) == 1)
			pause();
		_exit(0);
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	return child;
}

static void end_child(pid_t child)
{
	kill(child, SIGKILL);
	assert_int_equal(waitpid(child, NULL, 0), child);
}

static void change_root(const char *path)
{
	if (chroot(path))
		_exit(1);
}

/* The target's root holds, whatever its links say. */
static void test_root(void **state)
{
	char root[] = "/tmp/leaktop-test-XXXXXX", path[128], file[160];
	struct perf_map *m = NULL;
	pid_t child;

	(void)state;
	if (geteuid())
		skip();
	assert_non_null(mkdtemp(root));
	child = child_that(change_root, root);
	snprintf(path, sizeof(path), "%s/tmp", root);
	assert_int_equal(symlink("../../../../../../tmp", path), 0);
	snprintf(file, sizeof(file), "/tmp/perf-%d.map", child);
	write_to(file, O_TRUNC, "1000 10 outside\n", 16);
	/* The link leads to itself in there. */
	assert_int_equal(perf_map_open(child, &m), -ELOOP);
	unlink(path);
	assert_int_equal(symlink("/../var", path), 0);
	assert_int_equal(perf_map_open(child, &m), -ENOENT);
	unlink(file);

	snprintf(file, sizeof(file), "%s/var", root);
	assert_int_equal(mkdir(file, 0755), 0);
	snprintf(file, sizeof(file), "%s/var/perf-%d.map", root, child);
	write_to(file, O_TRUNC, "1000 10 inside\n", 15);
	assert_int_equal(perf_map_open(child, &m), 0);
	end_child(child);
	expect_name(m, 0x1000, "inside", 0x1000);
	perf_map_unref(m);
	unlink(file);
	unlink(path);
	snprintf(file, sizeof(file), "%s/var", root);
	rmdir(file);
	rmdir(root);
}

/* The user is the target's, the file's number the one it knows itself by. */
static void own_namespace(const char *unused)
{
	static const char text[] = "1000 10 in its namespace\n";
	int fd;

	(void)unused;
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("tmp", "/tmp", "tmpfs", 0, NULL) || setresuid(12345, 12345, 12345))
		_exit(1);
	fd = open("/tmp/perf-1.map", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0 || write(fd, text, sizeof(text) - 1) < 0)
		_exit(1);
}

static void test_namespace(void **state)
{
	int own = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);
	struct perf_map *m = NULL;
	pid_t child;

	(void)state;
	if (geteuid() || unshare(CLONE_NEWPID)) {
		close(own);
		skip();
	}
	child = child_that(own_namespace, NULL);
	assert_int_equal(setns(own, CLONE_NEWPID), 0);
	close(own);
	assert_int_equal(perf_map_open(child, &m), 0);
	end_child(child);
	expect_name(m, 0x1000, "in its namespace", 0x1000);
	perf_map_unref(m);
	assert_int_equal(perf_map_open(child, &m), -ESRCH);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_lines, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_lines, setup, teardown),
		cmocka_unit_test_setup_teardown(test_last_line_wins, setup, teardown),
		cmocka_unit_test_setup_teardown(test_known_address_moves, setup, teardown),
		cmocka_unit_test_setup_teardown(test_cut_and_rewritten, setup, teardown),
		cmocka_unit_test_setup_teardown(test_long_lines, setup, teardown),
		cmocka_unit_test_setup_teardown(test_random_ranges, setup, teardown),
		cmocka_unit_test_setup_teardown(test_random_bytes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_large, setup, teardown),
		cmocka_unit_test_setup_teardown(test_references, setup, teardown),
		cmocka_unit_test_setup_teardown(test_odd_files, setup, teardown),
		cmocka_unit_test_setup_teardown(test_root, setup, teardown),
		cmocka_unit_test_setup_teardown(test_namespace, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
