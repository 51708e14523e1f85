/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "child.h"
#include "target/cgroup.h"
#include "target/mountinfo.h"

/* With our pid, as other runs of this test may go on beside this one. */
static char own_name[64];

static void expect(const char *text, const char *path, bool v1)
{
	struct cgroup_path out;

	assert_int_equal(cgroup_parse(text, &out), 0);
	assert_string_equal(out.path, path);
	assert_int_equal(out.v1, v1);
}

static void test_parse(void **state)
{
	(void)state;
	expect("0::/system.slice/a.service\n", "/system.slice/a.service", false);
	expect("0::/\n", "/", false);
	expect("0::/a:b", "/a:b", false);
	/* hybrid: the memory controller of v1 first, unless it is at the root */
	expect("5:cpu,memory:/m\n4:pids:/a/b/c\n0::/u\n", "/m", true);
	expect("0::/u\n5:memory:/m\n", "/m", true);
	expect("5:memory:/\n4:pids:/a/b/c\n0::/u\n", "/u", false);
	expect("5:memory:/\n4:pids:/a\n3:cpu:/a/b\n0::/\n", "/a/b", false);
	expect("3:cpu:/a\n2:name=systemd:/x/y/z\n", "/x/y/z", false);
	expect("5:memory:/\n0::/\n", "/", false);
	/* a controller whose name only begins so, a hierarchy that is not 0 */
	expect("5:memoryx:/aa\n0::/u\n", "/u", false);
	expect("10::/aa\n0::/u\n", "/u", false);
}

static void test_parse_hostile(void **state)
{
	static const char *const bad[] = {
		"",	  "\n",	     ":",   "::",	"0:",	 "0::",	  "0::a",   "x::/a",
		"::/a\n", "\n\n\n:", "0:/", "0:memory", "-1::/", " 0::/", "0::\n/a"};
	struct cgroup_path out = {.path = "untouched"};
	static char longer[PATH_MAX + 64];
	size_t i, good;
	char *copy;

	(void)state;
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		copy = strdup(bad[i]);
		if (cgroup_parse(copy, &out) != -EINVAL)
			fail_msg("accepted '%s'", bad[i]);
		free(copy);
	}
	memset(longer, 'a', sizeof(longer) - 1);
	memcpy(longer, "0::/", 4);
	assert_int_equal(cgroup_parse(longer, &out), -EINVAL);
	assert_string_equal(out.path, "untouched");
	longer[3 + PATH_MAX - 1] = '\0';
	assert_int_equal(cgroup_parse(longer, &out), 0);
	assert_int_equal(strlen(out.path), PATH_MAX - 1);
	/* good lines among bad ones; every truncation is read within its bounds */
	expect("garbage\n7:memory\n0::/ok\n:::\n", "/ok", false);
	for (i = 0, good = 0; i <= strlen("3:memory:/a/b"); i++) {
		copy = strndup("3:memory:/a/b", i);
		good += cgroup_parse(copy, &out) == 0;
		free(copy);
	}
	assert_int_equal(good, 4);
}

static void test_mount_parse(void **state)
{
	char v1[] = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory";
	char v2[] = "38 31 0:38 /../a\\040b /mnt/x\\134y\\011 rw shared:1 master:2 - cgroup2 "
		    "none rw,nsdelegate";
	char no_source[] = "1 2 254:16 / / rw - tmpfs  rw";
	static const char *const bad[] = {
		"1 2 3 / / rw - t s rw",
		"1 2 3:x / / rw - t s rw",
		"1 2 :3 / / rw - t s rw",
		"1 2 3:4 / / rw t s rw",
		"1 2 3:4 / / rw - t s",
		"1 2 3:4 / rw - t s rw",
		"1 2 4294967296:1 / / rw - t s rw",
	};
	struct mount m;
	char *copy;
	size_t i;

	(void)state;
	assert_int_equal(mount_parse(v1, &m), 0);
	assert_true(m.dev == makedev(0, 32));
	assert_string_equal(m.root, "/");
	assert_string_equal(m.point, "/sys/fs/cgroup/memory");
	assert_string_equal(m.fs_type, "cgroup");
	assert_string_equal(m.options, "rw,memory");
	assert_int_equal(mount_parse(v2, &m), 0);
	assert_string_equal(m.root, "/../a b");
	assert_string_equal(m.point, "/mnt/x\\y\t");
	assert_string_equal(m.fs_type, "cgroup2");
	assert_int_equal(mount_parse(no_source, &m), 0);
	assert_string_equal(m.options, "rw");
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		copy = strdup(bad[i]);
		if (mount_parse(copy, &m) != -EINVAL)
			fail_msg("accepted '%s'", bad[i]);
		free(copy);
	}
}

static void test_path_below(void **state)
{
	(void)state;
	assert_string_equal(path_below("/a/b", "/a"), "/b");
	assert_string_equal(path_below("/a", "/a"), "");
	assert_string_equal(path_below("/a/b", "/"), "/a/b");
	assert_string_equal(path_below("/", "/"), "/");
	assert_null(path_below("/ab", "/a"));
	assert_null(path_below("/a", "/a/b"));
	assert_null(path_below("", "/a"));
}

static void test_own_cgroup(void **state)
{
	struct cgroup_path mine, childs;
	pid_t pid = child_start(NULL, NULL);

	(void)state;
	if (access("/proc/self/cgroup", F_OK))
		skip();
	assert_int_equal(cgroup_of(getpid(), &mine), 0);
	assert_int_equal(mine.path[0], '/');
	assert_int_equal(cgroup_of(pid, &childs), 0);
	assert_string_equal(mine.path, childs.path);
	child_stop(pid);
	assert_int_equal(cgroup_of(pid, &childs), -ESRCH);
}

/* The mount point of a hierarchy: of v2, or of v1 with @controller. */
static bool find_mount(const char *controller, char *buf, size_t size)
{
	struct mount_iter *it;
	bool found = false;
	struct mount m;

	if (mount_iter_new(0, &it))
		return false;
	while (!found && mount_iter_next(it, &m) == 1) {
		if (controller)
			found = strcmp(m.fs_type, "cgroup") == 0 && strstr(m.options, controller);
		else
			found = strcmp(m.fs_type, "cgroup2") == 0;
		if (found)
			snprintf(buf, size, "%s", m.point);
	}
	mount_iter_free(it);
	return found;
}

static int enter(const char *dir)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/cgroup.procs", dir);
	return write_file(path, "0\n");
}

struct tree {
	char top[256], below[300], beside[300];
	pid_t in_top, in_below, in_beside;
};

static void tree_release(struct tree *t)
{
	child_stop(t->in_top);
	child_stop(t->in_below);
	child_stop(t->in_beside);
	rmdir(t->below);
	rmdir(t->top);
	rmdir(t->beside);
}

/* TOP, TOP/.b (a name that listings leave out) and TOPx, each with a process. */
static bool tree_init(struct tree *t, const char *mount)
{
	memset(t, 0, sizeof(*t));
	snprintf(own_name, sizeof(own_name), "leaktop-test-%d", getpid());
	snprintf(t->top, sizeof(t->top), "%.180s/%s", mount, own_name);
	snprintf(t->below, sizeof(t->below), "%s/.b", t->top);
	snprintf(t->beside, sizeof(t->beside), "%sx", t->top);
	if (mkdir(t->top, 0755) || mkdir(t->below, 0755) || mkdir(t->beside, 0755)) {
		tree_release(t);
		return false;
	}
	t->in_top = child_start(enter, t->top);
	t->in_below = child_start(enter, t->below);
	t->in_beside = child_start(enter, t->beside);
	if (t->in_top > 0 && t->in_below > 0 && t->in_beside > 0)
		return true;
	tree_release(t);
	return false;
}

struct seen {
	const struct tree *tree;
	int in_top, in_below, others, stop;
};

static int see(pid_t pid, void *arg)
{
	struct seen *s = arg;

	if (pid == s->tree->in_top)
		s->in_top++;
	else if (pid == s->tree->in_below)
		s->in_below++;
	else
		s->others++;
	return s->stop;
}

static void check_name(const struct tree *t, const char *name)
{
	struct seen s = {.tree = t};
	struct cgroup_dir *d;

	assert_int_equal(cgroup_dir_open(name, &d), 0);
	assert_int_equal(cgroup_dir_has(d, t->in_top), 1);
	assert_int_equal(cgroup_dir_has(d, t->in_below), 1);
	assert_int_equal(cgroup_dir_has(d, t->in_beside), 0);
	assert_int_equal(cgroup_dir_has(d, getpid()), 0);
	assert_int_equal(cgroup_dir_walk(d, see, &s), 0);
	assert_int_equal(s.in_top, 1);
	assert_int_equal(s.in_below, 1);
	assert_int_equal(s.others, 0);
	s.stop = 42;
	assert_int_equal(cgroup_dir_walk(d, see, &s), 42);
	assert_int_equal(s.in_top + s.in_below, 3);
	cgroup_dir_free(d);
}

static void check_tree(const struct tree *t)
{
	char name[512];
	struct cgroup_dir *d;

	check_name(t, t->top);
	check_name(t, own_name);
	snprintf(name, sizeof(name), "/%s/", own_name);
	check_name(t, name);
	snprintf(name, sizeof(name), "%s/.b/../", t->top);
	check_name(t, name);
	assert_int_equal(cgroup_dir_open(t->below, &d), 0);
	assert_int_equal(cgroup_dir_has(d, t->in_top), 0);
	assert_int_equal(cgroup_dir_has(d, t->in_below), 1);
	cgroup_dir_free(d);
	snprintf(name, sizeof(name), "%s/cgroup.procs", t->top);
	assert_int_equal(cgroup_dir_open(name, &d), -ENOTDIR);
	snprintf(name, sizeof(name), "%s/none", t->top);
	assert_int_equal(cgroup_dir_open(name, &d), -ENOENT);
}

static void with_tree(const char *controller)
{
	char mount[256];
	struct tree t;

	if (!find_mount(controller, mount, sizeof(mount)) || !tree_init(&t, mount))
		skip();
	check_tree(&t);
	tree_release(&t);
}

static void test_v2(void **state)
{
	(void)state;
	with_tree(NULL);
}

static void test_v1_memory(void **state)
{
	(void)state;
	with_tree("memory");
}

static void test_v1_named(void **state)
{
	(void)state;
	with_tree("name=systemd");
}

/* The same path in two hierarchies: both count, and a process of both is seen once. */
static void test_two_hierarchies(void **state)
{
	char first[256], second[256], path[512];
	struct cgroup_path cgroup;
	struct seen s = {0};
	struct cgroup_dir *d;
	struct tree a, b;

	(void)state;
	if (!find_mount("memory", first, sizeof(first)) ||
	    !find_mount(NULL, second, sizeof(second)))
		skip();
	if (!tree_init(&a, first) || !tree_init(&b, second))
		skip();
	snprintf(path, sizeof(path), "%d\n", a.in_top);
	snprintf(second, sizeof(second), "%.200s/cgroup.procs", b.top);
	assert_int_equal(write_file(second, path), 0);
	s.tree = &a;
	assert_int_equal(cgroup_dir_open(own_name, &d), 0);
	assert_int_equal(cgroup_dir_walk(d, see, &s), 0);
	assert_int_equal(s.in_top, 1);
	assert_int_equal(s.in_below, 1);
	assert_int_equal(s.others, 2);
	assert_int_equal(cgroup_dir_has(d, b.in_below), 1);
	cgroup_dir_free(d);
	/* by directory only its own hierarchy counts */
	assert_int_equal(cgroup_dir_open(a.top, &d), 0);
	assert_int_equal(cgroup_dir_has(d, b.in_below), 0);
	cgroup_dir_free(d);
	assert_int_equal(cgroup_of(a.in_below, &cgroup), 0);
	snprintf(path, sizeof(path), "/%s/.b", own_name);
	assert_string_equal(cgroup.path, path);
	assert_true(cgroup.v1);
	tree_release(&a);
	tree_release(&b);
}

static void test_open_errors(void **state)
{
	struct cgroup_dir *d;
	int err;

	(void)state;
	assert_int_equal(cgroup_dir_open("", &d), -ENOENT);
	assert_int_equal(cgroup_dir_open("no-such-cgroup", &d), -ENOENT);
	assert_int_equal(cgroup_dir_open("/no/such/cgroup", &d), -ENOENT);
	assert_int_equal(cgroup_dir_open("/tmp", &d), -ENOTDIR);
	assert_int_equal(cgroup_dir_open("/etc/passwd", &d), -ENOTDIR);
	err = cgroup_dir_open("../../../../tmp", &d);
	assert_int_equal(err, -ENOENT);
	cgroup_dir_free(NULL);
}

static void test_root_has_all(void **state)
{
	struct cgroup_dir *d;

	(void)state;
	if (cgroup_dir_open("/", &d))
		skip();
	assert_int_equal(cgroup_dir_has(d, getpid()), 1);
	assert_int_equal(cgroup_dir_has(d, getppid()), 1);
	cgroup_dir_free(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),		cmocka_unit_test(test_parse_hostile),
		cmocka_unit_test(test_mount_parse),	cmocka_unit_test(test_path_below),
		cmocka_unit_test(test_own_cgroup),	cmocka_unit_test(test_v2),
		cmocka_unit_test(test_v1_memory),	cmocka_unit_test(test_v1_named),
		cmocka_unit_test(test_two_hierarchies), cmocka_unit_test(test_open_errors),
		cmocka_unit_test(test_root_has_all),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
