/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "child.h"
#include "target/mountinfo.h"
#include "target/procfs.h"
#include "target/text_file.h"

static const char weird_comm[] = "a) b (c\n 1 2";

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

static void test_start_ticks(void **state)
{
	uint64_t mine, again, childs;
	pid_t pid;

	(void)state;
	assert_int_equal(procfs_start_ticks(getpid(), &mine), 0);
	assert_int_equal(procfs_start_ticks(getpid(), &again), 0);
	assert_true(mine > 0 && mine == again);
	pid = child_start(NULL, NULL);
	assert_int_equal(procfs_start_ticks(pid, &childs), 0);
	assert_true(childs >= mine);
	child_stop(pid);
}

/* Field 22 is the start time in ticks since boot: compare it with the clock. */
static void test_start_ticks_are_now(void **state)
{
	pid_t pid = child_start(set_comm, weird_comm);
	struct timespec now;
	uint64_t ticks;
	double age_s;

	(void)state;
	clock_gettime(CLOCK_BOOTTIME, &now);
	assert_int_equal(procfs_start_ticks(pid, &ticks), 0);
	age_s = (double)now.tv_sec - (double)ticks / (double)sysconf(_SC_CLK_TCK);
	child_stop(pid);
	assert_true(age_s > -3 && age_s < 10);
}

static void test_weird_comm(void **state)
{
	pid_t pid = child_start(set_comm, weird_comm), parent, tgid;
	char comm[COMM_BYTES];

	(void)state;
	assert_true(pid > 0);
	assert_int_equal(procfs_comm(pid, comm, sizeof(comm)), 0);
	assert_string_equal(comm, weird_comm);
	assert_int_equal(procfs_parent(pid, &parent), 0);
	assert_int_equal(parent, getpid());
	assert_int_equal(procfs_tgid(pid, &tgid), 0);
	assert_int_equal(tgid, pid);
	child_stop(pid);
}

static void test_comm_that_looks_like_status(void **state)
{
	pid_t pid = child_start(set_comm, "x\nTgid:\t1"), tgid;

	(void)state;
	assert_int_equal(procfs_tgid(pid, &tgid), 0);
	assert_int_equal(tgid, pid);
	child_stop(pid);
}

static void test_comm_is_cut(void **state)
{
	pid_t pid = child_start(set_comm, "abcdefgh");
	char comm[4];

	(void)state;
	assert_int_equal(procfs_comm(pid, comm, sizeof(comm)), 0);
	assert_string_equal(comm, "abc");
	child_stop(pid);
}

static void test_gone(void **state)
{
	pid_t pid = gone_pid(), out = -7;
	char buf[PATH_MAX] = "untouched";
	struct process_rss rss;
	struct maps_iter *maps;
	struct mapping m = {.start = 0x1000, .end = 0x2000};
	uint64_t ticks = 7;

	(void)state;
	assert_int_equal(procfs_start_ticks(pid, &ticks), -ESRCH);
	assert_int_equal(procfs_parent(pid, &out), -ESRCH);
	assert_int_equal(procfs_tgid(pid, &out), -ESRCH);
	assert_int_equal(procfs_comm(pid, buf, sizeof(buf)), -ESRCH);
	assert_int_equal(procfs_exe(pid, buf, sizeof(buf)), -ESRCH);
	assert_int_equal(procfs_is_64bit(pid), -ESRCH);
	assert_int_equal(procfs_rss(pid, &rss), -ESRCH);
	assert_int_equal(maps_iter_new(pid, &maps), -ESRCH);
	assert_int_equal(mapping_open(pid, &m), -ESRCH);
	assert_int_equal(procfs_start_ticks(-1, &ticks), -ESRCH);
	assert_int_equal(procfs_start_ticks(0, &ticks), -ESRCH);
	assert_string_equal(buf, "untouched");
	assert_int_equal(out, -7);
	assert_int_equal(ticks, 7);
}

static void test_zombie(void **state)
{
	pid_t pid = child_start(NULL, NULL);
	char buf[PATH_MAX];
	uint64_t ticks;

	(void)state;
	kill(pid, SIGKILL);
	waitid(P_PID, (id_t)pid, NULL, WEXITED | WNOWAIT);
	assert_int_equal(procfs_start_ticks(pid, &ticks), 0);
	assert_int_equal(procfs_exe(pid, buf, sizeof(buf)), -ENOENT);
	child_stop(pid);
}

static void test_kernel_thread(void **state)
{
	char comm[COMM_BYTES], buf[PATH_MAX];
	struct process_rss rss;

	(void)state;
	if (procfs_comm(2, comm, sizeof(comm)) || strcmp(comm, "kthreadd") != 0 || geteuid())
		skip();
	assert_int_equal(procfs_exe(2, buf, sizeof(buf)), -ENOENT);
	assert_int_equal(procfs_is_64bit(2), -ENOENT);
	assert_int_equal(procfs_rss(2, &rss), 0);
	assert_int_equal(rss.rss_bytes, 0);
}

static void test_exe(void **state)
{
	char want[PATH_MAX] = "", got[PATH_MAX], small[4] = "abc";

	(void)state;
	assert_true(readlink("/proc/self/exe", want, sizeof(want) - 1) > 0);
	assert_int_equal(procfs_exe(getpid(), got, sizeof(got)), 0);
	assert_string_equal(got, want);
	assert_int_equal(procfs_exe(getpid(), small, sizeof(small)), -ENAMETOOLONG);
	assert_string_equal(small, "abc");
}

static void test_deleted_exe(void **state)
{
	char dir[] = "/tmp/leaktop-test-XXXXXX", path[64], want[96], got[PATH_MAX];
	struct maps_iter *it;
	struct mapping m;
	bool seen = false;
	pid_t pid;
	int fd;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/a\nb \\x", dir);
	snprintf(want, sizeof(want), "%s (deleted)", path);
	assert_int_equal(copy_program("/bin/sleep", path), 0);
	pid = child_exec(path, "100");
	assert_true(pid > 0);
	unlink(path);
	rmdir(dir);
	assert_int_equal(procfs_exe(pid, got, sizeof(got)), 0);
	assert_string_equal(got, want);
	assert_int_equal(procfs_is_64bit(pid), sizeof(long) == 8);
	assert_int_equal(maps_iter_new(pid, &it), 0);
	while (maps_iter_next(it, &m) == 1) {
		if (strcmp(m.path, path) != 0)
			continue;
		seen = true;
		assert_true(m.deleted);
		fd = mapping_open(pid, &m);
		if (geteuid() == 0) {
			assert_true(fd >= 0);
			assert_int_equal(read(fd, got, SELFMAG), SELFMAG);
			assert_memory_equal(got, ELFMAG, SELFMAG);
		}
		if (fd >= 0)
			close(fd);
	}
	maps_iter_free(it);
	child_stop(pid);
	assert_true(seen);
}

static void test_text_file_kinds(void **state)
{
	char dir[] = "/tmp/leaktop-test-XXXXXX", fifo[64], *text;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(fifo, sizeof(fifo), "%s/x", dir);
	assert_int_equal(mkfifo(fifo, 0600), 0);
	/* would wait for a writer */
	assert_int_equal(text_file_read(fifo, 100, &text, NULL), -EINVAL);
	unlink(fifo);
	assert_int_equal(symlink("/etc/passwd", fifo), 0);
	assert_int_equal(text_file_read(fifo, 100000, &text, NULL), -ELOOP);
	unlink(fifo);
	rmdir(dir);
	assert_int_equal(text_file_read("/proc", 100, &text, NULL), -EINVAL);
	assert_int_equal(text_file_read("/dev/zero", 100, &text, NULL), -EINVAL);
}

static void test_text_file_bound(void **state)
{
	char path[] = "/tmp/leaktop-test-XXXXXX", *text = NULL;
	int fd = mkstemp(path);
	size_t size = 0;

	(void)state;
	assert_int_equal(ftruncate(fd, 4096), 0);
	assert_int_equal(text_file_read(path, 4095, &text, &size), -EFBIG);
	assert_null(text);
	assert_int_equal(text_file_read(path, 4096, &text, &size), 0);
	assert_int_equal(size, 4096);
	assert_int_equal(text[4096], 0);
	free(text);
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(text_file_read(path, 0, &text, NULL), 0);
	assert_string_equal(text, "");
	free(text);
	close(fd);
	unlink(path);
}

static void *report_tid(void *arg)
{
	pid_t *tids = arg;

	tids[0] = (pid_t)syscall(SYS_gettid);
	assert_int_equal(procfs_tgid(tids[0], &tids[1]), 0);
	return NULL;
}

static void test_tgid_of_thread(void **state)
{
	pid_t tids[2] = {0};
	pthread_t thread;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, report_tid, tids), 0);
	pthread_join(thread, NULL);
	assert_int_not_equal(tids[0], getpid());
	assert_int_equal(tids[1], getpid());
}

static void test_rss(void **state)
{
	size_t size = 64 << 20;
	struct process_rss before, after;
	char *p;

	(void)state;
	assert_int_equal(procfs_rss(getpid(), &before), 0);
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(p, MAP_FAILED);
	memset(p, 1, size);
	assert_int_equal(procfs_rss(getpid(), &after), 0);
	munmap(p, size);
	assert_true(after.anon_bytes >= before.anon_bytes + size - (1 << 20));
	assert_true(after.anon_bytes < before.anon_bytes + size + (16 << 20));
	assert_int_equal(after.rss_bytes, after.anon_bytes + after.file_bytes + after.shmem_bytes);
}

static void test_pid_iter(void **state)
{
	pid_t child = child_start(NULL, NULL), pid;
	int mine = 0, childs = 0;
	struct pid_iter *it;

	(void)state;
	assert_int_equal(pid_iter_new(&it), 0);
	while (pid_iter_next(it, &pid)) {
		mine += pid == getpid();
		childs += pid == child;
	}
	pid_iter_free(it);
	child_stop(child);
	assert_int_equal(mine, 1);
	assert_int_equal(childs, 1);
}

static void test_free_null(void **state)
{
	(void)state;
	pid_iter_free(NULL);
	maps_iter_free(NULL);
	mount_iter_free(NULL);
}

static void test_own_maps(void **state)
{
	char path[96], dev_zero[] = "/tmp/leaktop-test-XXXXXX";
	int fd = mkstemp(dev_zero), count = 0, ret, opened;
	bool found = false, in_text = false;
	uint64_t last = 0;
	struct maps_iter *it;
	struct mapping m;
	char *p;

	(void)state;
	assert_int_equal(ftruncate(fd, 3 * 4096), 0);
	p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 4096);
	assert_int_equal(maps_iter_new(getpid(), &it), 0);
	while ((ret = maps_iter_next(it, &m)) == 1) {
		count++;
		assert_true(m.start >= last);
		last = m.end;
		if ((uintptr_t)test_own_maps >= m.start && (uintptr_t)test_own_maps < m.end)
			in_text = m.executable && m.readable && !m.writable && m.inode;
		if ((uintptr_t)p != m.start)
			continue;
		found = true;
		assert_string_equal(m.path, dev_zero);
		assert_int_equal(m.offset, 4096);
		assert_true(m.readable && m.writable && !m.executable && m.shared && !m.deleted);
		mapping_path(getpid(), &m, path, sizeof(path));
		opened = mapping_open(getpid(), &m);
		assert_true(opened >= 0 || geteuid());
		if (opened >= 0)
			close(opened);
	}
	maps_iter_free(it);
	munmap(p, 4096);
	close(fd);
	unlink(dev_zero);
	assert_int_equal(ret, 0);
	assert_true(found && in_text && count > 5);
	/* the mapping is gone, the process is not */
	assert_true(mapping_open(getpid(), &m) == -ENOENT || geteuid());
}

static void test_mapped_device_is_not_opened(void **state)
{
	int fd = open("/dev/zero", O_RDWR | O_CLOEXEC);
	struct mapping m;
	void *p;

	(void)state;
	p = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
	if (p == MAP_FAILED || geteuid())
		skip();
	m.start = (uintptr_t)p;
	m.end = m.start + 4096;
	assert_int_equal(mapping_open(getpid(), &m), -EINVAL);
	munmap(p, 4096);
	close(fd);
}

static int parse(const char *text, struct mapping *m, char *copy, size_t size)
{
	snprintf(copy, size, "%s", text);
	return mapping_parse(copy, m);
}

static void test_mapping_parse(void **state)
{
	char b[512];
	struct mapping m;

	(void)state;
	assert_int_equal(parse("7f0000001000-7f0000003000 r-xp 0001f000 fe:1a 4059        "
			       "            /usr/lib/x y.so (deleted)",
			       &m, b, sizeof(b)),
			 0);
	assert_true(m.start == 0x7f0000001000 && m.end == 0x7f0000003000);
	assert_true(m.offset == 0x1f000 && m.inode == 4059);
	assert_true(m.dev_major == 0xfe && m.dev_minor == 0x1a);
	assert_true(m.readable && !m.writable && m.executable && !m.shared && m.deleted);
	assert_string_equal(m.path, "/usr/lib/x y.so");

	assert_int_equal(parse("1000-2000 rw-s 00000000 00:00 0 ", &m, b, sizeof(b)), 0);
	assert_string_equal(m.path, "");
	assert_true(m.shared && !m.deleted && m.inode == 0);
	assert_int_equal(parse("1000-2000 ---p 00000000 00:00 0", &m, b, sizeof(b)), 0);
	assert_string_equal(m.path, "");
	assert_int_equal(parse("ffffffffff600000-ffffffffffffffff --xp 00000000 00:00 0   "
			       "  [vsyscall]",
			       &m, b, sizeof(b)),
			 0);
	assert_true(m.end == UINT64_MAX);
	assert_string_equal(m.path, "[vsyscall]");
	assert_int_equal(parse("1000-2000 rw-p 0 0:0 0  [anon:x (deleted)]", &m, b, sizeof(b)), 0);
	assert_false(m.deleted);
	assert_int_equal(parse("1000-2000 rw-p 0 0:0 1  /a\\012b\\134\\0", &m, b, sizeof(b)), 0);
	assert_string_equal(m.path, "/a\nb\\134\\0");
	assert_int_equal(parse("1000-2000 rw-p 0 0:0 1  (deleted)", &m, b, sizeof(b)), 0);
}

static void test_mapping_parse_hostile(void **state)
{
	static const char *const bad[] = {
		"",
		"-",
		"1000",
		"1000-",
		"1000-2000",
		"1000-2000 ",
		"1000-2000 rwxp",
		"1000-2000 rwxp 0",
		"1000-2000 rwxp 0 1",
		"1000-2000 rwxp 0 1:",
		"1000-2000 rwxp 0 1:2",
		"1000-2000 rwxp 0 1:2 ",
		"1000-2000 rwxp 0 1:2 x",
		"1000-2000 rwxp 0 1:2 3x /a",
		"1000-2000 rwx 0 1:2 3 /a",
		"1000-2000 rwxq 0 1:2 3 /a",
		"1000-2000 xwrp 0 1:2 3 /a",
		"2000-1000 rwxp 0 1:2 3 /a",
		"1000-1000 rwxp 0 1:2 3 /a",
		" 1000-2000 rwxp 0 1:2 3 /a",
		"0x1000-2000 rwxp 0 1:2 3 /a",
		"+1000-2000 rwxp 0 1:2 3 /a",
		"1000--2000 rwxp 0 1:2 3 /a",
		"1000-10000000000000000 rwxp 0 1:2 3 /a",
		"1000-2000 rwxp 10000000000000000 1:2 3 /a",
		"1000-2000 rwxp 0 100000000:2 3 /a",
		"1000-2000 rwxp 0 1:100000000 3 /a",
		"1000-2000 rwxp 0 1:2 18446744073709551616 /a",
	};
	struct mapping m = {.start = 99};
	char copy[128];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		if (parse(bad[i], &m, copy, sizeof(copy)) != -EINVAL)
			fail_msg("accepted '%s'", bad[i]);
	}
	assert_int_equal(m.start, 99);
}

/* Every truncation of a good line, in a block of just its size for the sanitizer. */
static void test_truncated_lines(void **state)
{
	static const char maps[] = "7f01000-7f03000 r-xp 00001000 fe:01 4059   /a\\012b (deleted)";
	static const char mount[] = "36 35 98:0 /r\\040x /p rw shared:1 - ext4 /dev/sda1 rw,a=b";
	size_t maps_min = (size_t)(strstr(maps, "4059") - maps) + 1;
	size_t mount_min = (size_t)(strstr(mount, "rw,a=b") - mount) + 1;
	struct mount parsed;
	struct mapping m;
	char *copy;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(maps); i++) {
		copy = strndup(maps, i);
		assert_int_equal(mapping_parse(copy, &m), i < maps_min ? -EINVAL : 0);
		free(copy);
	}
	for (i = 0; i < sizeof(mount); i++) {
		copy = strndup(mount, i);
		assert_int_equal(mount_parse(copy, &parsed), i < mount_min ? -EINVAL : 0);
		free(copy);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_start_ticks),
		cmocka_unit_test(test_start_ticks_are_now),
		cmocka_unit_test(test_weird_comm),
		cmocka_unit_test(test_comm_that_looks_like_status),
		cmocka_unit_test(test_comm_is_cut),
		cmocka_unit_test(test_gone),
		cmocka_unit_test(test_zombie),
		cmocka_unit_test(test_kernel_thread),
		cmocka_unit_test(test_exe),
		cmocka_unit_test(test_deleted_exe),
		cmocka_unit_test(test_text_file_kinds),
		cmocka_unit_test(test_text_file_bound),
		cmocka_unit_test(test_tgid_of_thread),
		cmocka_unit_test(test_rss),
		cmocka_unit_test(test_pid_iter),
		cmocka_unit_test(test_free_null),
		cmocka_unit_test(test_own_maps),
		cmocka_unit_test(test_mapped_device_is_not_opened),
		cmocka_unit_test(test_mapping_parse),
		cmocka_unit_test(test_mapping_parse_hostile),
		cmocka_unit_test(test_truncated_lines),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
