/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "child.h"
#include "target/cgroup.h"
#include "target/mountinfo.h"
#include "target/procfs.h"
#include "target/selector.h"

static int set_comm(const char *name)
{
	return prctl(PR_SET_NAME, name);
}

static pid_t gone_pid(void)
{
	pid_t pid = child_start(NULL, NULL);

	child_stop(pid);
	return pid;
}

/* @format with our pid for its '%': other runs of this test may go on beside this one. */
static void own_name(const char *format, char *buf, size_t size)
{
	const char *percent = strchrnul(format, '%');
	int before = (int)(percent - format);

	if (*percent)
		snprintf(buf, size, "%.*s%d%s", before, format, getpid(), percent + 1);
	else
		snprintf(buf, size, "%s", format);
}

struct seen {
	pid_t wanted;
	int hits, others, self, stop;
};

static int see(pid_t pid, void *arg)
{
	struct seen *s = arg;

	s->hits += pid == s->wanted;
	s->others += pid != s->wanted;
	s->self += pid == getpid();
	return s->stop;
}

static void test_empty(void **state)
{
	struct selector *s = selector_new();
	struct seen seen = {0};
	char buf[64];

	(void)state;
	assert_true(selector_is_empty(s));
	assert_false(selector_is_open(s));
	assert_false(selector_is_all(s));
	assert_int_equal(selector_match(s, getppid()), 0);
	assert_int_equal(selector_scan(s, see, &seen), 0);
	assert_int_equal(seen.others, 0);
	assert_false(selector_missing(s, buf, sizeof(buf)));
	selector_free(s);
	selector_free(NULL);
}

static void test_bad_arguments(void **state)
{
	struct selector *s = selector_new();

	(void)state;
	assert_int_equal(selector_add_pid(s, 0), -ESRCH);
	assert_int_equal(selector_add_pid(s, -5), -ESRCH);
	assert_int_equal(selector_add_pid(s, gone_pid()), -ESRCH);
	assert_int_equal(selector_add_pid(s, getpid()), -EINVAL);
	assert_int_equal(selector_add_name(s, ""), -EINVAL);
	assert_int_equal(selector_add_unit(s, ""), -EINVAL);
	assert_int_equal(selector_add_container(s, ""), -EINVAL);
	assert_int_equal(selector_add_cgroup(s, "no-such-cgroup"), -ENOENT);
	assert_true(selector_is_empty(s));
	selector_free(s);
}

static void test_pid(void **state)
{
	pid_t pid = child_start(NULL, NULL), other = child_start(NULL, NULL);
	struct selector *s = selector_new();
	struct seen seen = {.wanted = pid};
	char buf[64] = "", want[64];

	(void)state;
	assert_int_equal(selector_add_pid(s, pid), 0);
	assert_int_equal(selector_add_pid(s, pid), 0);
	assert_false(selector_is_empty(s));
	assert_false(selector_is_open(s));
	assert_int_equal(selector_match(s, pid), 1);
	assert_int_equal(selector_match(s, other), 0);
	assert_int_equal(selector_match(s, getpid()), 0);
	assert_int_equal(selector_scan(s, see, &seen), 0);
	assert_int_equal(seen.hits, 1);
	assert_int_equal(seen.others, 0);
	assert_false(selector_missing(s, buf, sizeof(buf)));
	child_stop(pid);
	assert_int_equal(selector_match(s, pid), 0);
	assert_true(selector_missing(s, buf, sizeof(buf)));
	snprintf(want, sizeof(want), "pid %d", pid);
	assert_string_equal(buf, want);
	child_stop(other);
	selector_free(s);
}

/* Forks until the pid comes round again: with the start time it is another process. */
static void test_pid_reuse(void **state)
{
	pid_t pid = child_start(NULL, NULL), again;
	struct selector *s = selector_new();
	char text[16];

	(void)state;
	assert_int_equal(selector_add_pid(s, pid), 0);
	child_stop(pid);
	usleep(50000); /* a start time is in ticks */
	snprintf(text, sizeof(text), "%d", pid - 1);
	again = write_file("/proc/sys/kernel/ns_last_pid", text) ? -1 : child_start(NULL, NULL);
	if (again != pid) {
		child_stop(again);
		selector_free(s);
		skip();
	}
	assert_int_equal(selector_match(s, again), 0);
	child_stop(again);
	selector_free(s);
}

static int matches_name(const char *glob, pid_t pid)
{
	struct selector *s = selector_new();
	int ret;

	assert_int_equal(selector_add_name(s, glob), 0);
	assert_true(selector_is_open(s));
	ret = selector_match(s, pid);
	selector_free(s);
	return ret;
}

static void test_comm(void **state)
{
	pid_t pid = child_start(set_comm, "a) b (c\n[x]");

	(void)state;
	assert_int_equal(matches_name("a) b (c\n[x]", pid), 1);
	assert_int_equal(matches_name("a) b*", pid), 1);
	assert_int_equal(matches_name("a?????c*", pid), 1);
	assert_int_equal(matches_name("a)", pid), 0);
	assert_int_equal(matches_name("test_selector", pid), 1); /* its executable */
	assert_int_equal(matches_name("test_selector", getpid()), 0);
	assert_int_equal(matches_name("test_selecto", pid), 0);
	child_stop(pid);
	assert_int_equal(matches_name("*", pid), 0);
}

static void test_exe_name(void **state)
{
	char dir[] = "/tmp/leaktop-test-XXXXXX", path[128];
	char buf[128], name[64], glob[32];
	struct selector *s = selector_new();
	struct seen seen = {0};
	pid_t pid;

	(void)state;
	assert_non_null(mkdtemp(dir));
	own_name("lt-%-long-program-name", name, sizeof(name));
	own_name("lt-%-*", glob, sizeof(glob));
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	assert_int_equal(copy_program("/bin/sleep", path), 0);
	pid = child_exec(path, "100");
	unlink(path);
	rmdir(dir);
	assert_true(pid > 0);
	/* longer than a comm, and deleted */
	assert_int_equal(matches_name(name, pid), 1);
	assert_int_equal(matches_name("*-program-name", pid), 1);
	name[15] = '\0';
	assert_int_equal(matches_name(name, pid), 1); /* comm */
	assert_int_equal(matches_name("*deleted*", pid), 0);
	assert_int_equal(matches_name("/tmp/*", pid), 0);
	assert_int_equal(selector_add_name(s, glob), 0);
	seen.wanted = pid;
	assert_int_equal(selector_scan(s, see, &seen), 0);
	assert_int_equal(seen.hits, 1);
	assert_int_equal(seen.others, 0);
	assert_false(selector_missing(s, buf, sizeof(buf)));
	child_stop(pid);
	assert_true(selector_missing(s, buf, sizeof(buf)));
	snprintf(path, sizeof(path), "name '%s'", glob);
	assert_string_equal(buf, path);
	selector_free(s);
}

static void test_all(void **state)
{
	pid_t pid = child_start(NULL, NULL), zombie = child_start(NULL, NULL);
	struct selector *s = selector_new();
	struct seen seen = {.wanted = pid};
	char comm[COMM_BYTES] = "", buf[32];

	(void)state;
	selector_add_all(s);
	assert_true(selector_is_all(s) && selector_is_open(s) && !selector_is_empty(s));
	assert_int_equal(selector_match(s, pid), 1);
	assert_int_equal(selector_match(s, getpid()), 0);
	assert_int_equal(selector_scan(s, see, &seen), 0);
	assert_int_equal(seen.hits, 1);
	assert_true(seen.others > 0);
	assert_int_equal(seen.self, 0);
	seen.stop = -ECANCELED;
	assert_int_equal(selector_scan(s, see, &seen), -ECANCELED);
	kill(zombie, SIGKILL);
	waitid(P_PID, (id_t)zombie, NULL, WEXITED | WNOWAIT);
	assert_int_equal(selector_match(s, zombie), 0);
	if (!procfs_comm(2, comm, sizeof(comm)) && strcmp(comm, "kthreadd") == 0) {
		assert_int_equal(selector_match(s, 2), 0);
		assert_int_equal(matches_name("kthreadd", 2), 0);
	}
	assert_false(selector_missing(s, buf, sizeof(buf)));
	child_stop(pid);
	child_stop(zombie);
	selector_free(s);
}

/* Where the kind of cgroup that cgroup_of() tells of is mounted. */
static bool find_mount(char *buf, size_t size)
{
	struct cgroup_path mine;
	struct mount_iter *it;
	bool found = false;
	struct mount m;

	if (cgroup_of(getpid(), &mine) || mount_iter_new(0, &it))
		return false;
	while (!found && mount_iter_next(it, &m) == 1) {
		found = mine.v1 ? !strcmp(m.fs_type, "cgroup") && strstr(m.options, "memory")
				: !strcmp(m.fs_type, "cgroup2");
		if (found)
			snprintf(buf, size, "%s", m.point);
	}
	mount_iter_free(it);
	return found;
}

static int enter(const char *dir)
{
	char path[640];

	snprintf(path, sizeof(path), "%s/cgroup.procs", dir);
	return write_file(path, "0\n");
}

static pid_t start_in(const char *mount, const char *name)
{
	char dir[512];

	snprintf(dir, sizeof(dir), "%s/%s", mount, name);
	if (mkdir(dir, 0755) && errno != EEXIST)
		return -1;
	return child_start(enter, dir);
}

static void remove_in(const char *mount, const char *name)
{
	char dir[512];

	snprintf(dir, sizeof(dir), "%s/%s", mount, name);
	rmdir(dir);
}

struct bed {
	char mount[256];
	char web_dir[64], web2_dir[64], unit_dir[64], inner_dir[64]; /* below it */
	pid_t web, web2, unit, inner;
};

static int bed_new(void **state)
{
	struct bed *b = calloc(1, sizeof(*b));

	*state = b;
	if (!find_mount(b->mount, sizeof(b->mount)))
		return 0;
	own_name("lxc.payload.leaktop-%-web", b->web_dir, sizeof(b->web_dir));
	own_name("lxc.payload.leaktop-%-web2", b->web2_dir, sizeof(b->web2_dir));
	own_name("leaktop-%.service", b->unit_dir, sizeof(b->unit_dir));
	own_name("leaktop-%.service/inner.scope", b->inner_dir, sizeof(b->inner_dir));
	b->web = start_in(b->mount, b->web_dir);
	b->web2 = start_in(b->mount, b->web2_dir);
	b->unit = start_in(b->mount, b->unit_dir);
	b->inner = start_in(b->mount, b->inner_dir);
	return 0;
}

static int bed_free(void **state)
{
	struct bed *b = *state;

	child_stop(b->web);
	child_stop(b->web2);
	child_stop(b->unit);
	child_stop(b->inner);
	remove_in(b->mount, b->web_dir);
	remove_in(b->mount, b->web2_dir);
	remove_in(b->mount, b->inner_dir);
	remove_in(b->mount, b->unit_dir);
	free(b);
	return 0;
}

static void need_bed(const struct bed *b)
{
	if (b->web <= 0 || b->web2 <= 0 || b->unit <= 0 || b->inner <= 0)
		skip();
}

static void check_container(const struct bed *b, const char *format, int web, int web2)
{
	struct selector *s = selector_new();
	char wanted[64];
	int pass;

	own_name(format, wanted, sizeof(wanted));
	assert_int_equal(selector_add_container(s, wanted), 0);
	assert_true(selector_is_open(s));
	for (pass = 0; pass < 2; pass++) { /* the second from the cache */
		assert_int_equal(selector_match(s, b->web), web);
		assert_int_equal(selector_match(s, b->web2), web2);
		assert_int_equal(selector_match(s, b->unit), 0);
		assert_int_equal(selector_match(s, getpid()), 0);
	}
	selector_free(s);
}

static void test_container(void **state)
{
	struct bed *b = *state;

	need_bed(b);
	check_container(b, "leaktop-%-web", 1, 0); /* its whole name: not the other */
	check_container(b, "leaktop-%-web2", 0, 1);
	check_container(b, "leaktop-%-w", 1, 1);
	check_container(b, "leaktop-%-web23", 0, 0);
	check_container(b, "eaktop", 0, 0);
}

static void test_unit(void **state)
{
	static const struct {
		const char *wanted;
		int unit, inner;
	} rows[] = {
		{"leaktop-%.service", 1, 1},
		{"leaktop-%", 1, 1},
		{"inner.scope", 0, 1},
		{"inner", 0, 0},
		{"eaktop-%.service", 0, 0},
		{"leaktop-%.", 0, 0},
		{"eaktop-%", 0, 0},
		{".service", 0, 0},
		{"/", 0, 0},
		{"leaktop-%.service/", 0, 0},
		{"leaktop-%.service/inner.scope", 0, 0},
	};
	struct bed *b = *state;
	char wanted[64];
	struct selector *s;
	size_t i;

	need_bed(b);
	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		s = selector_new();
		own_name(rows[i].wanted, wanted, sizeof(wanted));
		assert_int_equal(selector_add_unit(s, wanted), 0);
		assert_true(selector_is_open(s));
		if (selector_match(s, b->unit) != rows[i].unit ||
		    selector_match(s, b->inner) != rows[i].inner)
			fail_msg("unit '%s'", rows[i].wanted);
		assert_int_equal(selector_match(s, b->web), 0);
		selector_free(s);
	}
}

static void test_cgroup(void **state)
{
	struct bed *b = *state;
	struct seen seen = {.wanted = b->inner};
	struct selector *s;
	char buf[128], want[128];

	need_bed(b);
	s = selector_new();
	assert_int_equal(selector_add_cgroup(s, b->unit_dir), 0);
	assert_true(selector_is_open(s));
	assert_int_equal(selector_match(s, b->unit), 1);
	assert_int_equal(selector_match(s, b->inner), 1);
	assert_int_equal(selector_match(s, b->web), 0);
	assert_int_equal(selector_scan(s, see, &seen), 0);
	assert_int_equal(seen.hits, 1);
	assert_int_equal(seen.others, 1);
	assert_false(selector_missing(s, buf, sizeof(buf)));
	/* who comes later */
	child_stop(b->unit);
	b->unit = start_in(b->mount, b->unit_dir);
	assert_int_equal(selector_match(s, b->unit), 1);
	child_stop(b->unit);
	child_stop(b->inner);
	b->unit = b->inner = 0;
	assert_true(selector_missing(s, buf, sizeof(buf)));
	snprintf(want, sizeof(want), "cgroup '%s'", b->unit_dir);
	assert_string_equal(buf, want);
	selector_free(s);
}

static void test_union_and_missing(void **state)
{
	struct bed *b = *state;
	struct selector *s;
	struct seen seen = {0};
	char buf[64], small[8];
	pid_t named;

	need_bed(b);
	own_name("lt%", buf, sizeof(buf));
	named = child_start(set_comm, buf);
	s = selector_new();
	assert_int_equal(selector_add_name(s, buf), 0);
	assert_int_equal(selector_add_pid(s, b->web2), 0);
	own_name("leaktop-%-web", buf, sizeof(buf));
	assert_int_equal(selector_add_container(s, buf), 0);
	own_name("leaktop-%", buf, sizeof(buf));
	assert_int_equal(selector_add_unit(s, buf), 0);
	assert_int_equal(selector_scan(s, see, &seen), 0);
	assert_int_equal(seen.others, 5);
	assert_int_equal(selector_match(s, named), 1);
	assert_false(selector_missing(s, buf, sizeof(buf)));
	assert_int_equal(selector_add_unit(s, "no-such-unit"), 0);
	assert_int_equal(selector_add_container(s, "no-such-container"), 0);
	assert_true(selector_missing(s, buf, sizeof(buf)));
	assert_string_equal(buf, "unit 'no-such-unit'");
	assert_true(selector_missing(s, small, sizeof(small)));
	assert_string_equal(small, "unit 'n");
	child_stop(named);
	selector_free(s);
	s = selector_new();
	assert_int_equal(selector_add_container(s, "no-such-container"), 0);
	assert_true(selector_missing(s, buf, sizeof(buf)));
	assert_string_equal(buf, "container 'no-such-container'");
	selector_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_empty),
		cmocka_unit_test(test_bad_arguments),
		cmocka_unit_test(test_pid),
		cmocka_unit_test(test_pid_reuse),
		cmocka_unit_test(test_comm),
		cmocka_unit_test(test_exe_name),
		cmocka_unit_test(test_all),
		cmocka_unit_test_setup_teardown(test_container, bed_new, bed_free),
		cmocka_unit_test_setup_teardown(test_unit, bed_new, bed_free),
		cmocka_unit_test_setup_teardown(test_cgroup, bed_new, bed_free),
		cmocka_unit_test_setup_teardown(test_union_and_missing, bed_new, bed_free),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
