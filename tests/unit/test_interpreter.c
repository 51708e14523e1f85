/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Against real interpreters: the system's python3, those that LEAKTOP_PYTHONS names (paths
 * with ':' between them), and a libpython that the test itself loads. That the offsets are
 * right is seen by walking the frames of a waiting script from outside.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "child.h"
#include "python/interpreter.h"
#include "target/memory.h"

#define FRAMES_MAX 64
#define NAME_BYTES 64

/* Prints its version when the innermost function waits; "threads": it waits in threads. */
static const char script[] = "import sys, threading, time\n"
			     "def leaf(out):\n"
			     "    if out: print(sys.version.split()[0], flush=True)\n"
			     "    time.sleep(600)\n"
			     "def middle(out):\n"
			     "    leaf(out)\n"
			     "if sys.argv[1] == 'threads':\n"
			     "    for i in range(3):\n"
			     "        threading.Thread(target=middle, args=(False,)).start()\n"
			     "    time.sleep(0.5)\n"
			     "middle(True)\n";

struct python {
	pid_t pid;
	char version[64];
};

static bool python_start(struct python *p, const char *path, const char *mode)
{
	int out[2];
	ssize_t n;

	assert_int_equal(pipe(out), 0);
	fflush(NULL);
	p->pid = fork();
	if (p->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(out[1], STDOUT_FILENO);
		execl(path, path, "-I", "-c", script, mode, (char *)NULL);
		_exit(127);
	}
	close(out[1]);
	n = read(out[0], p->version, sizeof(p->version) - 1);
	close(out[0]);
	if (n <= 0)
		waitpid(p->pid, NULL, 0);
	else
		p->version[n - (p->version[n - 1] == '\n')] = '\0';
	return n > 0;
}

static void stop(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static uint64_t word(pid_t pid, uint64_t address)
{
	uint64_t value;

	assert_int_equal(memory_read_u64(pid, address, &value), 0);
	return value;
}

static uint64_t through(pid_t pid, const struct python_slot *slot, uint64_t base)
{
	uint64_t at = slot->address ? slot->address : base;

	for (uint32_t i = 0; i < slot->hops; i++)
		at = word(pid, at + (uint64_t)(int64_t)slot->hop[i]);
	return at;
}

static void read_name(const struct interpreter *i, uint64_t string, char *name)
{
	uint64_t length = word(i->pid, string + PYTHON_STRING_LENGTH);

	assert_in_range(length, 1, NAME_BYTES - 1);
	assert_int_equal(memory_read(i->pid, string + i->layout.walk.string_ascii, name, length),
			 0);
	name[length] = '\0';
}

static bool is_entry(const struct interpreter *i, uint64_t frame)
{
	const struct python_walk *w = &i->layout.walk;
	uint8_t owner;

	if (w->owner_entry == 0xff)
		return false;
	assert_int_equal(memory_read(i->pid, frame + w->frame_owner, &owner, 1), 0);
	return owner >= w->owner_entry;
}

/* The names of the two innermost functions, joined. */
static void innermost(const struct interpreter *i, uint64_t state, char *names)
{
	const struct python_walk *w = &i->layout.walk;
	uint64_t frame = word(i->pid, state + w->thread_frame);
	int found = 0;

	if (w->cframe_frame != PYTHON_NONE)
		frame = word(i->pid, frame + w->cframe_frame);
	names[0] = '\0';
	for (int n = 0; frame && found < 2 && n < FRAMES_MAX; n++) {
		uint64_t code = word(i->pid, frame + w->frame_code) & ~w->code_mask;
		char name[NAME_BYTES];

		if (!is_entry(i, frame)) {
			read_name(i, word(i->pid, code + w->code_name), name);
			strcat(strcat(names, name), " ");
			found++;
		}
		frame = word(i->pid, frame + w->frame_back);
	}
}

/* Returns how many threads wait in leaf(). */
static int check_threads(const struct interpreter *i)
{
	const struct python_layout *l = &i->layout;
	uint64_t interp = word(i->pid, i->runtime + l->runtime_interpreters_head);
	uint64_t state = word(i->pid, interp + l->interp_threads_head);
	int waiting = 0;

	for (int n = 0; state && n < 16; n++) {
		uint64_t base = word(i->pid, state + l->walk.thread_id);
		char names[2 * NAME_BYTES + 4];

		assert_int_equal(through(i->pid, &l->walk.attached, base), state);
		/* Nobody holds the GIL. */
		assert_int_equal(through(i->pid, &l->walk.current, base), 0);
		innermost(i, state, names);
		waiting += !strcmp(names, "leaf middle ");
		state = word(i->pid, state + l->thread_next);
	}
	return waiting;
}

static void check_binary(const struct interpreter *i)
{
	struct stat st;
	int fd;

	assert_true(i->eval_vaddr && i->eval_bytes);
	assert_true(i->code_dealloc);
	assert_int_equal(i->runtime & 7, 0);
	fd = interpreter_open_binary(i);
	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_ino, i->inode);
	close(fd);
}

static void check_python(const char *path, const char *mode, int threads)
{
	struct interpreter_problem problem = {0};
	struct interpreter i;
	struct python p;
	int err;

	if (!python_start(&p, path, mode)) {
		print_message("skipped: %s does not run\n", path);
		return;
	}
	usleep(100000); /* from the print into the sleep */
	err = interpreter_find(p.pid, &i, &problem);
	print_message("%s: %s, %s: %d %s\n", path, p.version, mode, err,
		      problem.reason ? problem.reason : "");
	if (err == -ENOTSUP) {
		assert_non_null(problem.reason);
		assert_int_equal(strncmp(problem.version, p.version, strlen(p.version)), 0);
	} else {
		assert_int_equal(err, 0);
		assert_string_equal(i.version, p.version);
		check_binary(&i);
		assert_int_equal(check_threads(&i), threads);
		assert_int_equal(i.layout.runtime_ref_tracer == UINT32_MAX, i.minor < 13);
	}
	stop(p.pid);
}

static void each_python(const char *mode, int threads)
{
	const char *named = getenv("LEAKTOP_PYTHONS");
	char *copy, *path, *rest;

	check_python("/usr/bin/python3", mode, threads);
	if (!named) {
		print_message("other versions skipped: LEAKTOP_PYTHONS is not set\n");
		return;
	}
	copy = rest = strdup(named);
	assert_non_null(copy);
	while ((path = strsep(&rest, ":")))
		check_python(path, mode, threads);
	free(copy);
}

static void pythons_are_read(void **state)
{
	(void)state;
	each_python("alone", 1);
}

static void threads_are_found(void **state)
{
	(void)state;
	each_python("threads", 4);
}

static void other_programs_run_no_python(void **state)
{
	struct interpreter_problem problem = {0};
	struct interpreter i;
	pid_t pid = child_start(NULL, NULL);

	(void)state;
	assert_true(pid > 0);
	assert_int_equal(interpreter_find(pid, &i, &problem), -ENOENT);
	stop(pid);
	assert_int_equal(interpreter_find(pid, &i, &problem), -ESRCH);
	assert_null(problem.reason);
}

/* --- a libpython in a program of ours: this test --- */

static void *load_library(void)
{
	static const char *const names[] = {
		"libpython3.11.so.1.0",
		"libpython3.12.so.1.0",
		"libpython3.13.so.1.0",
		"libpython3.14.so.1.0",
	};
	void *library = NULL;

	for (size_t i = 0; !library && i < sizeof(names) / sizeof(*names); i++)
		library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
	return library;
}

/* Writes a word into _PyRuntime, which nothing has initialised. */
static int write_head(void *library, uint64_t value, struct python_layout *l)
{
	uint8_t *runtime = dlsym(library, "_PyRuntime");
	const unsigned long *version = dlsym(library, "Py_Version");
	int minor;

	if (!runtime || !version)
		return -1;
	minor = *version >> 16 & 0xff;
	if (python_layout_by_version(minor, l) && python_layout_by_offsets(runtime, 4096, minor, l))
		return -1;
	memcpy(runtime + l->runtime_interpreters_head, &value, sizeof(value));
	return 0;
}

static int only_load(const char *arg)
{
	(void)arg;
	return load_library() ? 0 : -1;
}

static int initialize(const char *arg)
{
	void *library = load_library();
	void (*init)(void);

	(void)arg;
	if (!library)
		return -1;
	*(void **)&init = dlsym(library, "Py_Initialize");
	if (!init)
		return -1;
	init();
	return 0;
}

static int lists_without_end(const char *arg)
{
	static uint64_t interp[65536 / 8], thread[4096 / 8];
	void *library = load_library();
	struct python_layout l;

	(void)arg;
	if (!library || write_head(library, (uintptr_t)interp, &l))
		return -1;
	interp[l.interp_next / 8] = (uintptr_t)interp;
	interp[l.interp_threads_head / 8] = (uintptr_t)thread;
	thread[l.thread_next / 8] = (uintptr_t)thread;
	thread[l.walk.thread_id / 8] = (uintptr_t)pthread_self();
	return 0;
}

static int list_of_garbage(const char *arg)
{
	void *library = load_library();
	struct python_layout l;

	(void)arg;
	return library ? write_head(library, 0x123456789abcdef, &l) : -1;
}

/* Skips the test where there is no libpython. */
static int find_in_child(int (*setup)(const char *arg), struct interpreter *out,
			 struct interpreter_problem *problem)
{
	pid_t pid = child_start(setup, NULL);
	int err;

	if (pid < 0) {
		print_message("skipped: no libpython3.*.so.1.0 to load\n");
		skip();
	}
	err = interpreter_find(pid, out, problem);
	stop(pid);
	return err;
}

static void uninitialised_library_is_to_be_looked_at_again(void **state)
{
	struct interpreter_problem problem = {0};
	struct interpreter i;

	(void)state;
	assert_int_equal(find_in_child(only_load, &i, &problem), -EAGAIN);
}

static void embedded_library_is_found(void **state)
{
	struct interpreter_problem problem = {0};
	struct interpreter i;

	(void)state;
	assert_int_equal(find_in_child(initialize, &i, &problem), 0);
	assert_int_equal(i.major, 3);
	assert_true(i.layout.walk.current.hops > 0);
	assert_true(i.layout.walk.attached.hops > 0);
}

static void endless_lists_end(void **state)
{
	struct interpreter_problem problem = {0};
	struct interpreter i;

	(void)state;
	assert_int_equal(find_in_child(lists_without_end, &i, &problem), 0);
	assert_int_equal(i.layout.walk.attached.hops, 0);
}

static void garbage_is_refused(void **state)
{
	struct interpreter_problem problem = {0};
	struct interpreter i;

	(void)state;
	assert_int_equal(find_in_child(list_of_garbage, &i, &problem), -ENOTSUP);
	assert_non_null(problem.reason);
	assert_int_equal(problem.version[0], '3');
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pythons_are_read),
		cmocka_unit_test(threads_are_found),
		cmocka_unit_test(other_programs_run_no_python),
		cmocka_unit_test(uninitialised_library_is_to_be_looked_at_again),
		cmocka_unit_test(embedded_library_is_found),
		cmocka_unit_test(endless_lists_end),
		cmocka_unit_test(garbage_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
