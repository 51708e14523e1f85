/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The parsers on texts that the kernel may and may not write, the sampler on real children. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "child.h"
#include "target/cgroup.h"
#include "target/procfs.h"
#include "watch/cgroup_memory.h"
#include "watch/sample.h"

#define MIB (1024 * 1024)

static void statm_is_parsed(void **state)
{
	struct memory_sample m = {0};

	(void)state;
	assert_int_equal(sample_parse_statm("1000 300 100 1 0 200 0\n", 4096, &m), 0);
	assert_int_equal(m.rss_bytes, 300 * 4096);
	assert_int_equal(m.anon_bytes, 200 * 4096);
	/* Read one after the other while they change. */
	assert_int_equal(sample_parse_statm("1000 300 301 1 0 200 0\n", 4096, &m), 0);
	assert_int_equal(m.anon_bytes, 0);
}

static void statm_that_is_none_is_refused(void **state)
{
	static const char *const texts[] = {
		"",
		"\n",
		"1000",
		"1000 ",
		"1000 300",
		"1000 300 ",
		"a b c",
		"1 -2 3",
		"1 2 x",
		"1 99999999999999999999999999 3",
		"1 18446744073709551615 3",
	};
	struct memory_sample m = {.rss_bytes = 7};

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		assert_int_equal(sample_parse_statm(texts[i], 4096, &m), -EINVAL);
	assert_int_equal(m.rss_bytes, 7);
}

static void stat_is_parsed(void **state)
{
	static const char tail[] = " S 7 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 9 10";
	static const char *const names[] = {"sh", "a b", ") S 1 (", "", "x) R 99 99"};
	struct process_stat s;
	char text[256];

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(text, sizeof(text), "12 (%s)%s", names[i], tail);
		assert_int_equal(sample_parse_stat(text, &s), 0);
		assert_int_equal(s.parent, 7);
		assert_int_equal(s.start_ticks, 4242);
		assert_false(s.is_kernel_thread);
	}
	snprintf(text, sizeof(text),
		 "2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 3");
	assert_int_equal(sample_parse_stat(text, &s), 0);
	assert_true(s.is_kernel_thread);
}

static void stat_that_is_cut_is_refused(void **state)
{
	static const char whole[] = "12 (sh) S 7 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4";
	struct process_stat s;
	char text[128];

	(void)state;
	for (size_t n = 0; n < strlen(whole) - 1; n++) {
		memcpy(text, whole, n);
		text[n] = '\0';
		assert_int_equal(sample_parse_stat(text, &s), -EINVAL);
	}
	assert_int_equal(sample_parse_stat(whole, &s), 0);
	assert_int_equal(
		sample_parse_stat("1 (x) S 99999999999 1 1 0 -1 0 1 2 3 4 5 6 7 8 20 0 1 0 4", &s),
		-EINVAL);
}

static void meminfo_is_parsed(void **state)
{
	struct host_memory m = {0};

	(void)state;
	assert_int_equal(sample_parse_meminfo("MemTotal:  100 kB\nMemFree: 5 kB\nMemAvailable:  "
					      "50 kB\nSwapTotal: 10 kB\nSwapFree: 4 kB\n",
					      &m),
			 0);
	assert_int_equal(m.total_bytes, 100 * 1024);
	assert_int_equal(m.available_bytes, 50 * 1024);
	assert_int_equal(m.swap_used_bytes, 6 * 1024);
	assert_int_equal(sample_parse_meminfo("", &m), -EINVAL);
	assert_int_equal(sample_parse_meminfo("MemTotal: 1 kB\n", &m), -EINVAL);
	assert_int_equal(sample_parse_meminfo("MemTotal:\nMemAvailable: x", &m), -EINVAL);
	assert_int_equal(host_memory_read(&m), 0);
	assert_true(m.available_bytes > 0 && m.available_bytes <= m.total_bytes);
}

/* A child that touches a MiB for each byte it is sent, and says so. */
struct grower {
	pid_t pid;
	int to, from;
};

static void grow(int in, int out)
{
	char c;

	while (read(in, &c, 1) == 1) {
		char *p =
			mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (p == MAP_FAILED)
			_exit(1);
		memset(p, 1, MIB);
		if (write(out, &c, 1) != 1)
			_exit(1);
	}
	_exit(0);
}

static struct grower grower_start(void)
{
	struct grower g;
	int to[2], from[2];

	assert_int_equal(pipe(to), 0);
	assert_int_equal(pipe(from), 0);
	fflush(NULL);
	g.pid = fork();
	assert_true(g.pid >= 0);
	if (!g.pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(to[1]);
		close(from[0]);
		grow(to[0], from[1]);
	}
	close(to[0]);
	close(from[1]);
	g.to = to[1];
	g.from = from[0];
	return g;
}

static void grower_grow(const struct grower *g, int mib)
{
	char c = 'x';

	for (; mib; mib--) {
		assert_int_equal(write(g->to, &c, 1), 1);
		assert_int_equal(read(g->from, &c, 1), 1);
	}
}

static void grower_stop(struct grower *g)
{
	close(g->to);
	close(g->from);
	child_stop(g->pid);
}

static struct sampled_process *find(struct sampler *s, pid_t pid)
{
	for (size_t i = 0; i < sampler_count(s); i++)
		if (sampler_at(s, i)->pid == pid)
			return sampler_at(s, i);
	return NULL;
}

static struct sampler *sampler(const struct sampler_options *options)
{
	struct sampler *s;

	assert_int_equal(sampler_new(options, &s), 0);
	return s;
}

static void growth_of_a_child_is_seen(void **state)
{
	struct sampler *s = sampler(&(struct sampler_options){0});
	struct grower g = grower_start();
	struct sampled_process *p;
	uint64_t before, ticks;

	(void)state;
	grower_grow(&g, 1);
	assert_int_equal(sampler_pass(s), 0);
	p = find(s, g.pid);
	assert_non_null(p);
	before = p->memory.anon_bytes;
	assert_int_equal(procfs_start_ticks(g.pid, &ticks), 0);
	assert_int_equal(p->start_ticks, ticks);
	grower_grow(&g, 40);
	assert_int_equal(sampler_pass(s), 0);
	p = find(s, g.pid);
	/* A sanitizer's shadow takes an eighth more; older kernels count in batches. */
	assert_in_range(p->memory.anon_bytes - before, 39 * MIB, 47 * MIB);
	assert_true(p->memory.rss_bytes >= p->memory.anon_bytes);
	grower_stop(&g);
	assert_int_equal(sampler_pass(s), 0);
	assert_null(find(s, g.pid));
	sampler_free(s);
}

static int released;

static void count_release(void *data)
{
	released++;
	free(data);
}

static void what_ends_is_released(void **state)
{
	struct sampler *s = sampler(&(struct sampler_options){.release = count_release});
	pid_t pids[20];

	(void)state;
	released = 0;
	for (int i = 0; i < 20; i++)
		pids[i] = child_start(NULL, NULL);
	assert_int_equal(sampler_pass(s), 0);
	for (int i = 0; i < 20; i++)
		find(s, pids[i])->owner_data = malloc(1);
	for (int i = 0; i < 20; i += 2)
		child_stop(pids[i]);
	assert_int_equal(sampler_pass(s), 0);
	assert_int_equal(released, 10);
	for (int i = 1; i < 20; i += 2)
		assert_non_null(find(s, pids[i])->owner_data);
	sampler_free(s);
	assert_int_equal(released, 20);
	for (int i = 1; i < 20; i += 2)
		child_stop(pids[i]);
}

static void zombies_have_no_memory(void **state)
{
	struct sampler *s = sampler(&(struct sampler_options){0});
	pid_t pid = child_start(NULL, NULL);

	(void)state;
	assert_int_equal(sampler_pass(s), 0);
	assert_true(find(s, pid)->memory.rss_bytes > 0);
	kill(pid, SIGKILL);
	assert_int_equal(waitid(P_PID, (id_t)pid, &(siginfo_t){0}, WEXITED | WNOWAIT), 0);
	assert_int_equal(sampler_pass(s), 0);
	assert_true(!find(s, pid) || !find(s, pid)->memory.rss_bytes);
	waitpid(pid, NULL, 0);
	sampler_free(s);
}

static bool is_it(pid_t pid, void *arg)
{
	return pid == *(pid_t *)arg;
}

static int fork_once(const char *arg)
{
	(void)arg;
	if (fork() == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	return 0;
}

static void only_the_wanted_are_sampled(void **state)
{
	pid_t parent = child_start(fork_once, NULL), other = child_start(NULL, NULL);
	struct sampler_options o = {.wants = is_it, .arg = &parent};
	struct sampler *alone = sampler(&o), *family;

	(void)state;
	o.follow_children = true;
	family = sampler(&o);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(sampler_pass(alone), 0);
		assert_int_equal(sampler_pass(family), 0);
	}
	assert_int_equal(sampler_count(alone), 1);
	assert_int_equal(sampler_at(alone, 0)->pid, parent);
	assert_int_equal(sampler_count(family), 2);
	child_stop(parent);
	child_stop(other);
	sampler_free(alone);
	sampler_free(family);
}

static void kernel_threads_and_ourselves_are_left_out(void **state)
{
	struct sampler *s = sampler(&(struct sampler_options){0});
	char exe[256];

	(void)state;
	assert_int_equal(sampler_pass(s), 0);
	/* Where this is no container with pids of its own. */
	if (procfs_exe(2, exe, sizeof(exe)) == -ENOENT)
		assert_null(find(s, 2));
	assert_null(find(s, getpid()));
	assert_true(sampler_count(s) > 0);
	sampler_free(s);
}

static void cgroup_usage_is_read_where_there_is_any(void **state)
{
	struct cgroup_path path, outside = {.path = "/../../etc"}, none = {.path = "/no/such"};
	struct cgroup_memory *c;
	struct cgroup_mounts *m;
	struct cgroup_usage u;

	(void)state;
	assert_int_equal(cgroup_mounts_read(&m), 0);
	assert_int_equal(cgroup_memory_open(m, &none, &c), -ENOENT);
	assert_int_equal(cgroup_memory_open(m, &outside, &c), -ENOENT);
	assert_int_equal(cgroup_of(getpid(), &path), 0);
	if (strcmp(path.path, "/") && !cgroup_memory_open(m, &path, &c)) {
		assert_int_equal(cgroup_memory_read(c, &u), 0);
		assert_true(u.used_bytes > 0);
		assert_true(u.limit_bytes > 0);
		cgroup_memory_free(c);
	}
	cgroup_mounts_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(statm_is_parsed),
		cmocka_unit_test(statm_that_is_none_is_refused),
		cmocka_unit_test(stat_is_parsed),
		cmocka_unit_test(stat_that_is_cut_is_refused),
		cmocka_unit_test(meminfo_is_parsed),
		cmocka_unit_test(growth_of_a_child_is_seen),
		cmocka_unit_test(what_ends_is_released),
		cmocka_unit_test(zombies_have_no_memory),
		cmocka_unit_test(only_the_wanted_are_sampled),
		cmocka_unit_test(kernel_threads_and_ourselves_are_left_out),
		cmocka_unit_test(cgroup_usage_is_read_where_there_is_any),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
