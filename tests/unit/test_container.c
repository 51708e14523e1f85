/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "child.h"
#include "target/container.h"
#include "target/container_names.h"

#define ID "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define OTHER "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"

static const struct {
	const char *path, *runtime, *id, *name;
} good[] = {
	{"/docker/" ID, "docker", ID, ""},
	{"/docker/" ID "/init.scope", "docker", ID, ""},
	{"/system.slice/docker-" ID ".scope", "docker", ID, ""},
	{"/user.slice/user-1000.slice/user@1000.service/user.slice/docker-" ID ".scope", "docker",
	 ID, ""},
	{"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice/docker-" ID
	 ".scope",
	 "docker", ID, ""},
	{"/../../docker/" ID, "docker", ID, ""},
	{"/machine.slice/libpod-" ID ".scope", "podman", ID, ""},
	{"/machine.slice/libpod-" ID ".scope/container", "podman", ID, ""},
	{"/libpod_parent/libpod-" ID, "podman", ID, ""},
	{"/libpod_parent/libpod-" ID "/container", "podman", ID, ""},
	{"/system.slice/cri-containerd-" ID ".scope", "containerd", ID, ""},
	{"/kubepods/besteffort/pod12-34/" ID, "containerd", ID, ""},
	{"/kubepods.slice/kubepods-pod1.slice/" ID, "containerd", ID, ""},
	{"/system.slice/nerdctl-" ID ".scope", "containerd", ID, ""},
	{"/kubepods.slice/kubepods-pod1.slice/crio-" ID ".scope", "cri-o", ID, ""},
	{"/kubepods/burstable/pod1/crio-" ID, "cri-o", ID, ""},
	{"/lxc/web", "lxc", "web", "web"},
	{"/lxc/web/system.slice/ssh.service", "lxc", "web", "web"},
	{"/lxc.payload.web-1/init.scope", "lxc", "web-1", "web-1"},
	{"/lxc.payload/web", "lxc", "web", "web"},
	{"/machine.slice/systemd-nspawn@deb.service", "nspawn", "deb", "deb"},
	{"/machine.slice/systemd-nspawn@deb\\x2d12.service/payload/init.scope", "nspawn", "deb-12",
	 "deb-12"},
	{"/machine.slice/machine-deb\\x2d12.scope/payload", "nspawn", "deb-12", "deb-12"},
	/* nested: the innermost */
	{"/docker/" OTHER "/kubepods/pod1/" ID, "containerd", ID, ""},
	{"/lxc/a/lxc/b", "lxc", "b", "b"},
	{"/lxc/a/docker/" ID, "docker", ID, ""},
	{"/docker/" ID "/lxc.payload.x/y", "lxc", "x", "x"},
};

static const char *const none[] = {
	"",
	"/",
	"//",
	"/docker",
	"/docker/",
	"docker",
	"/user.slice",
	"/system.slice/docker.service",
	"/system.slice/containerd.service",
	"/docker/0123",
	"/docker/" ID "0",
	"/docker/x" ID,
	"/docker/0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef",
	"/docker-" ID ".service",
	"/docker-" ID ".scop",
	"/docker-.scope",
	"/x-docker-" ID ".scope",
	"/" ID,
	"/foo/" ID,
	"/machine.slice/libpod-conmon-" ID ".scope",
	"/libpod_parent/conmon",
	"/crio-conmon-" ID ".scope",
	"/lxc",
	"/lxc/",
	"/lxc.monitor.web",
	"/lxc.monitor/web",
	"/lxc.payload.",
	"/lxc.payload",
	"/xlxc/web",
	"/machine.slice",
	"/machine.slice/machine-.scope",
	"/machine.slice/machine-x.slice",
	"/machine.slice/systemd-nspawn@.service",
	"/machine.slice/machine-deb.scope/supervisor",
	"/machine.slice/machine-qemu\\x2d1\\x2dvm.scope",
	"/kubepods/pod1/0123",
};

static void test_shapes(void **state)
{
	struct container c;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		if (!container_from_cgroup(good[i].path, &c))
			fail_msg("not recognised: %s", good[i].path);
		assert_string_equal(c.runtime, good[i].runtime);
		assert_string_equal(c.id, good[i].id);
		assert_string_equal(c.name, good[i].name);
	}
	for (i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
		if (container_from_cgroup(none[i], &c))
			fail_msg("taken for %s: %s", c.runtime, none[i]);
	}
}

/* Every cut of every path, in a block of just its size for the sanitizer. */
static void test_truncated_paths(void **state)
{
	char unit[256], *copy;
	struct container c;
	size_t i, k;

	(void)state;
	for (i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		for (k = 0; k <= strlen(good[i].path); k++) {
			copy = strndup(good[i].path, k);
			if (container_from_cgroup(copy, &c))
				assert_true(c.runtime && c.id[0]);
			unit_from_cgroup(copy, unit, sizeof(unit));
			free(copy);
			container_from_cgroup(good[i].path + k, &c);
		}
	}
}

static void test_long_names(void **state)
{
	char path[PATH_MAX] = "/lxc/";
	struct container c;

	(void)state;
	memset(path + 5, 'x', sizeof(path) - 6);
	assert_true(container_from_cgroup(path, &c));
	assert_int_equal(strlen(c.id), sizeof(c.id) - 1);
	assert_int_equal(strlen(c.name), sizeof(c.name) - 1);
	memset(path, '/', sizeof(path) - 1);
	assert_false(container_from_cgroup(path, &c));
	assert_int_equal(container_of_process(getpid(), path, &c), 0);
}

static void test_nspawn_escapes(void **state)
{
	static const struct {
		const char *path, *name;
	} rows[] = {
		{"/machine-a\\x2.scope", "a\\x2"},   {"/machine-a\\x.scope", "a\\x"},
		{"/machine-a\\xzz.scope", "a\\xzz"}, {"/machine-a\\.scope", "a\\"},
		{"/machine-a\\x41.scope", "aA"},     {"/machine-a\\x00b.scope", "a"},
	};
	struct container c;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		assert_true(container_from_cgroup(rows[i].path, &c));
		assert_string_equal(c.name, rows[i].name);
	}
	assert_false(container_from_cgroup("/machine-\\x00b.scope", &c));
}

static void test_matches(void **state)
{
	const struct container named = {.id = ID, .name = "web-1", .runtime = "docker"};
	const struct container unnamed = {.id = ID, .runtime = "docker"};

	(void)state;
	assert_true(container_matches(&named, "web-1"));
	assert_true(container_matches(&named, "web"));
	assert_true(container_matches(&named, "012"));
	assert_true(container_matches(&named, ID));
	assert_false(container_matches(&named, "01"));
	assert_false(container_matches(&named, ""));
	assert_false(container_matches(&named, "web-12"));
	assert_false(container_matches(&named, "eb-1"));
	assert_false(container_matches(&named, ID "0"));
	assert_true(container_matches(&unnamed, "0123"));
	assert_false(container_matches(&unnamed, ""));
	assert_false(container_matches(&unnamed, "web"));
}

static void test_units(void **state)
{
	char unit[64] = "untouched";

	(void)state;
	assert_true(unit_from_cgroup("/system.slice/a.service", unit, sizeof(unit)));
	assert_string_equal(unit, "a.service");
	assert_true(unit_from_cgroup("/a.slice/user@1.service/app.slice/b\\x2d.scope/c/d", unit,
				     sizeof(unit)));
	assert_string_equal(unit, "b\\x2d.scope");
	strcpy(unit, "untouched");
	assert_false(unit_from_cgroup("/system.slice", unit, sizeof(unit)));
	assert_false(unit_from_cgroup("/", unit, sizeof(unit)));
	assert_false(unit_from_cgroup("", unit, sizeof(unit)));
	assert_false(unit_from_cgroup("/.service", unit, sizeof(unit)));
	assert_false(unit_from_cgroup("/a.services", unit, sizeof(unit)));
	assert_false(unit_from_cgroup("/a.service", unit, 9));
	assert_string_equal(unit, "untouched");
	assert_true(unit_from_cgroup("/a.service", unit, 10));
}

struct dir {
	char path[64], file[128];
};

static int make_dir(void **state)
{
	struct dir *d = calloc(1, sizeof(*d));

	if (!d)
		return -1;
	strcpy(d->path, "/tmp/leaktop-test-XXXXXX");
	if (!mkdtemp(d->path)) {
		free(d);
		return -1;
	}
	snprintf(d->file, sizeof(d->file), "%s/file.json", d->path);
	*state = d;
	return 0;
}

static int remove_dir(void **state)
{
	struct dir *d = *state;

	unlink(d->file);
	rmdir(d->path);
	free(d);
	return 0;
}

static void test_docker_file(void **state)
{
	static const char *const bad[] = {
		"",
		"{",
		"[]",
		"null",
		"{\"ID\":\"" ID "\"}",
		"{\"ID\":\"" ID "\",\"Name\":\"/\"}",
		"{\"ID\":\"" ID "\",\"Name\":\"\"}",
		"{\"ID\":\"" ID "\",\"Name\":7}",
		"{\"ID\":\"" ID "\",\"Name\":[\"/web\"]}",
		"{\"ID\":\"" OTHER "\",\"Name\":\"/web\"}",
		"{\"Name\":\"/web\"}",
		"{\"ID\":\"" ID "\",\"Name\":\"/we\\u0000b\"}",
		"{\"ID\":\"" ID "\",\"Name\":\"/\xff\xfe\"}",
		"{\"ID\":\"" ID "\",\"Name\":\"/web\"",
	};
	struct dir *d = *state;
	char name[8] = "old";
	size_t i;

	write_file(d->file, "{\"State\":{\"Pid\":1},\"ID\":\"" ID "\",\"Name\":\"/web\"}");
	assert_true(container_name_docker(d->file, ID, name, sizeof(name)));
	assert_string_equal(name, "web");
	write_file(d->file, "{\"ID\":\"" ID "\",\"Name\":\"a-very-long-name\"}");
	assert_true(container_name_docker(d->file, ID, name, sizeof(name)));
	assert_string_equal(name, "a-very-");
	strcpy(name, "old");
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		write_file(d->file, bad[i]);
		if (container_name_docker(d->file, ID, name, sizeof(name)))
			fail_msg("accepted '%s'", bad[i]);
	}
	unlink(d->file);
	assert_false(container_name_docker(d->file, ID, name, sizeof(name)));
	assert_string_equal(name, "old");
}

static void test_hostile_files(void **state)
{
	static const char whole[] = "{\"ID\":\"" ID "\",\"Name\":\"/web\"}";
	struct dir *d = *state;
	char name[64] = "old";
	size_t size = 5 << 20;
	char *text = malloc(size + 1);

	/* nested far deeper than anybody's, and larger than anybody's */
	memset(text, '[', size);
	text[size] = '\0';
	text[1 << 20] = '\0';
	write_file(d->file, text);
	assert_false(container_name_podman(d->file, ID, name, sizeof(name)));
	text[1 << 20] = '[';
	memset(text, ' ', size);
	memcpy(text, whole, sizeof(whole) - 1);
	write_file(d->file, text);
	assert_false(container_name_docker(d->file, ID, name, sizeof(name)));
	free(text);
	unlink(d->file);
	assert_int_equal(mkfifo(d->file, 0600), 0);
	assert_false(container_name_docker(d->file, ID, name, sizeof(name)));
	assert_string_equal(name, "old");
}

static void test_podman_file(void **state)
{
	static const char *const bad[] = {
		"{}",
		"[{\"id\":\"" ID "\"}]",
		"[{\"id\":\"" ID "\",\"names\":[]}]",
		"[{\"id\":\"" ID "\",\"names\":\"web\"}]",
		"[{\"id\":\"" ID "\",\"names\":[3]}]",
		"[{\"id\":\"" OTHER "\",\"names\":[\"web\"]}]",
		"[null,1,\"x\",[\"id\"]]",
	};
	struct dir *d = *state;
	char name[64] = "old";
	size_t i;

	write_file(d->file, "[7,{\"id\":\"" OTHER "\",\"names\":[\"db\"]},"
			    "{\"id\":\"" ID "\",\"names\":[\"web\",\"alias\"]}]");
	assert_true(container_name_podman(d->file, ID, name, sizeof(name)));
	assert_string_equal(name, "web");
	strcpy(name, "old");
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		write_file(d->file, bad[i]);
		if (container_name_podman(d->file, ID, name, sizeof(name)))
			fail_msg("accepted '%s'", bad[i]);
	}
	assert_string_equal(name, "old");
}

static void test_annotation_file(void **state)
{
	struct dir *d = *state;
	char name[64] = "old";

	write_file(d->file, "{\"annotations\":{\"a.b/c\":\"app\",\"n\":1}}");
	assert_true(container_name_annotation(d->file, "a.b/c", name, sizeof(name)));
	assert_string_equal(name, "app");
	assert_false(container_name_annotation(d->file, "n", name, sizeof(name)));
	assert_false(container_name_annotation(d->file, "none", name, sizeof(name)));
	write_file(d->file, "{\"annotations\":[\"a.b/c\"]}");
	assert_false(container_name_annotation(d->file, "a.b/c", name, sizeof(name)));
	assert_string_equal(name, "app");
}

/* As docker and podman do: a file of the container's directory is mounted in it. */
static int bind_hostname(const char *from)
{
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return -1;
	return mount(from, "/etc/hostname", NULL, MS_BIND, NULL);
}

static void make_parents(const char *path)
{
	char copy[PATH_MAX], *p;

	snprintf(copy, sizeof(copy), "%s", path);
	for (p = strchr(copy + 1, '/'); p; p = strchr(p + 1, '/')) {
		*p = '\0';
		mkdir(copy, 0755);
		*p = '/';
	}
}

static void remove_tree(const char *path)
{
	pid_t pid = fork();

	if (pid == 0) {
		execlp("rm", "rm", "-rf", path, (char *)NULL);
		_exit(1);
	}
	waitpid(pid, NULL, 0);
}

static void with_data_directory(const char *runtime, const char *list, const char *hostname,
				const char *text)
{
	struct container c = {.id = ID, .runtime = runtime};
	char dir[] = "/tmp/leaktop-test-XXXXXX", path[PATH_MAX];
	pid_t pid;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s%s", dir, list);
	make_parents(path);
	assert_int_equal(write_file(path, text), 0);
	snprintf(path, sizeof(path), "%s%s", dir, hostname);
	make_parents(path);
	assert_int_equal(write_file(path, "x\n"), 0);
	pid = child_start(bind_hostname, path);
	if (pid > 0)
		container_name_find(pid, &c);
	child_stop(pid);
	remove_tree(dir);
	if (pid < 0)
		skip();
	assert_string_equal(c.name, "elsewhere");
	c.name[0] = '\0';
	container_name_find(getpid(), &c);
	assert_string_equal(c.name, "");
}

static void test_docker_data_elsewhere(void **state)
{
	(void)state;
	with_data_directory("docker", "/my data/containers/" ID "/config.v2.json",
			    "/my data/containers/" ID "/hostname",
			    "{\"ID\":\"" ID "\",\"Name\":\"/elsewhere\"}");
}

static void test_podman_storage_elsewhere(void **state)
{
	(void)state;
	with_data_directory("podman", "/s/vfs-containers/containers.json",
			    "/s/vfs-containers/" ID "/userdata/hostname",
			    "[{\"id\":\"" ID "\",\"names\":[\"elsewhere\"]}]");
	with_data_directory("podman", "/s/overlay-containers/volatile-containers.json",
			    "/s/overlay-containers/" ID "/userdata/hostname",
			    "[{\"id\":\"" ID "\",\"names\":[\"elsewhere\"]}]");
}

/* Rootless podman: the run directory does not lead to the storage, the overlay does. */
static int mount_overlay(const char *dir)
{
	char options[512];

	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("tmpfs", "/mnt", "tmpfs", 0, "size=1m") || mkdir("/mnt/m", 0755))
		return -1;
	/* the upper directory may not be on another overlay */
	snprintf(options, sizeof(options),
		 "lowerdir=%s/overlay/low,upperdir=%s/overlay/layer/diff,workdir=%s/overlay/layer/"
		 "work",
		 dir, dir, dir);
	return mount("overlay", "/mnt/m", "overlay", 0, options);
}

static void test_podman_overlay(void **state)
{
	struct container c = {.id = ID, .runtime = "podman"};
	char dir[] = "/tmp/leaktop-test-XXXXXX", path[256];
	static const char *const dirs[] = {"low/", "layer/diff/", "layer/work/"};
	pid_t pid;
	size_t i;

	(void)state;
	assert_non_null(mkdtemp(dir));
	for (i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++) {
		snprintf(path, sizeof(path), "%s/overlay/%s", dir, dirs[i]);
		make_parents(path);
	}
	snprintf(path, sizeof(path), "%s/overlay-containers/containers.json", dir);
	make_parents(path);
	write_file(path, "[{\"id\":\"" ID "\",\"names\":[\"rootless\"]}]");
	pid = child_start(mount_overlay, dir);
	if (pid > 0)
		container_name_find(pid, &c);
	child_stop(pid);
	remove_tree(dir);
	if (pid < 0)
		skip();
	assert_string_equal(c.name, "rootless");
}

/* A state directory of runc, of a container that does not exist, for a moment. */
static void test_plain_runc(void **state)
{
	char id[64], dir[96], file[128], path[128];
	bool had_dir = access("/run/runc", F_OK) == 0;
	struct container c, none_left;

	(void)state;
	snprintf(id, sizeof(id), "leaktop-test-%d", getpid());
	snprintf(dir, sizeof(dir), "/run/runc/%s", id);
	snprintf(file, sizeof(file), "%s/state.json", dir);
	snprintf(path, sizeof(path), "/%s/sub", id);
	if (!had_dir)
		mkdir("/run/runc", 0700);
	if (mkdir(dir, 0700))
		skip();
	write_file(file, "{}");
	assert_false(container_from_cgroup(path, &c));
	assert_int_equal(container_of_process(getpid(), path, &c), 1);
	unlink(file);
	rmdir(dir);
	if (!had_dir)
		rmdir("/run/runc");
	assert_string_equal(c.runtime, "runc");
	assert_string_equal(c.name, id);
	assert_string_equal(c.id, id);
	assert_int_equal(container_of_process(getpid(), path, &none_left), 0);
}

static void test_plain_none(void **state)
{
	static const char unknown[] = "/" ID;
	static const char *const paths[] = {
		"",	 "/",	     "/..",	      "/../..",	  "/.",	  "//",
		"/runc", "/../runc", "/system.slice", "/a/b/c/d", unknown};
	struct container c;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
		assert_int_equal(container_of_process(getpid(), paths[i], &c), 0);
}

static void test_gone_process(void **state)
{
	struct container c;

	(void)state;
	assert_int_equal(container_of_process(INT_MAX, "/docker/" ID, &c), 1);
	assert_string_equal(c.id, ID);
	assert_string_equal(c.name, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shapes),
		cmocka_unit_test(test_truncated_paths),
		cmocka_unit_test(test_long_names),
		cmocka_unit_test(test_nspawn_escapes),
		cmocka_unit_test(test_matches),
		cmocka_unit_test(test_units),
		cmocka_unit_test_setup_teardown(test_docker_file, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(test_hostile_files, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(test_podman_file, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(test_annotation_file, make_dir, remove_dir),
		cmocka_unit_test(test_docker_data_elsewhere),
		cmocka_unit_test(test_podman_storage_elsewhere),
		cmocka_unit_test(test_podman_overlay),
		cmocka_unit_test(test_plain_runc),
		cmocka_unit_test(test_plain_none),
		cmocka_unit_test(test_gone_process),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
