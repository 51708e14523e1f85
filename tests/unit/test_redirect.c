/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Allocator tables of real interpreters, against what these say themselves through
 * PyMem_GetAllocator(), and the changing of words: in them and in this process.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "python/alloc_tables.h"
#include "python/interpreter.h"
#include "python/redirect.h"
#include "target/memory.h"
#include "target/procfs.h"

#define PYTHON "/usr/bin/python3"

/* Runs what it is sent, line by line, and answers each with a line. */
static const char program[] =
	"import ctypes, os, sys, time, tracemalloc\n"
	"class T(ctypes.Structure):\n"
	"    _fields_ = [(n, ctypes.c_void_p) for n in ('x', 'm', 'c', 'r', 'f')]\n"
	"def table(domain):\n"
	"    t = T()\n"
	"    ctypes.pythonapi.PyMem_GetAllocator(ctypes.c_int(domain), ctypes.byref(t))\n"
	"    return '%d %d %d %d' % (t.m, t.c, t.r, t.f)\n"
	"def work():\n"
	"    l = [{i: str(i) * (i % 50), 'b': bytearray(i % 600)} for i in range(3000)]\n"
	"    return sum(len(d['b']) + len(d[i]) for i, d in enumerate(l))\n"
	"def fork():\n"
	"    pid = os.fork()\n"
	"    if pid == 0:\n"
	"        end = time.time() + 20\n"
	"        while time.time() < end: work()\n"
	"        os._exit(0)\n"
	"    return pid\n"
	"def share():\n" /* a process that shares the memory, as a child of vfork() does */
	"    libc = ctypes.CDLL(None)\n"
	"    global stack\n"
	"    stack = ctypes.create_string_buffer(65536)\n"
	"    top = (ctypes.addressof(stack) + 65536) & ~15\n"
	"    sleep = ctypes.cast(libc.sleep, ctypes.c_void_p)\n"
	"    return libc.clone(sleep, ctypes.c_void_p(top), 0x100 | 17, ctypes.c_void_p(20))\n"
	"print('ready', flush=True)\n"
	"for line in sys.stdin:\n"
	"    print(eval(line), flush=True)\n";

struct python {
	pid_t pid;
	FILE *to, *from;
	char reply[256];
};

static void run_python(const char *malloc_name, int in, int out)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (malloc_name)
		setenv("PYTHONMALLOC", malloc_name, 1);
	/* What the tests are run with is none of its business. */
	unsetenv("LD_PRELOAD");
	dup2(in, STDIN_FILENO);
	dup2(out, STDOUT_FILENO);
	execl(PYTHON, PYTHON, "-c", program, (char *)NULL);
	_exit(1);
}

static bool python_wait(struct python *p)
{
	if (!fgets(p->reply, sizeof(p->reply), p->from))
		return false;
	p->reply[strcspn(p->reply, "\n")] = '\0';
	return true;
}

static const char *python_ask(struct python *p, const char *line)
{
	fprintf(p->to, "%s\n", line);
	fflush(p->to);
	assert_true(python_wait(p));
	return p->reply;
}

static void python_start(struct python *p, const char *malloc_name)
{
	int to[2], from[2];

	if (access(PYTHON, X_OK)) {
		print_message("no " PYTHON "\n");
		skip();
	}
	assert_int_equal(pipe2(to, O_CLOEXEC), 0);
	assert_int_equal(pipe2(from, O_CLOEXEC), 0);
	fflush(NULL);
	p->pid = fork();
	if (!p->pid)
		run_python(malloc_name, to[0], from[1]);
	close(to[0]);
	close(from[1]);
	p->to = fdopen(to[1], "w");
	p->from = fdopen(from[0], "r");
	assert_true(python_wait(p));
}

static void python_stop(struct python *p)
{
	kill(p->pid, SIGKILL);
	waitpid(p->pid, NULL, 0);
	fclose(p->to);
	fclose(p->from);
}

static void find(pid_t pid, struct interpreter *i, struct alloc_tables *t)
{
	struct interpreter_problem problem;

	assert_int_equal(interpreter_find(pid, i, &problem), 0);
	assert_int_equal(alloc_tables_find(i, t), 0);
}

/* What the process says is in the outermost table of @domain. */
static void ask_table(struct python *p, int domain, uint64_t words[VERBS])
{
	char line[32];

	snprintf(line, sizeof(line), "table(%d)", domain);
	assert_int_equal(sscanf(python_ask(p, line), "%lu %lu %lu %lu", &words[0], &words[1],
				&words[2], &words[3]),
			 VERBS);
}

static unsigned int words_that_differ(struct python *p, const struct alloc_tables *t)
{
	uint64_t words[VERBS];
	unsigned int n = 0;

	for (int domain = 0; domain < ALLOC_DOMAINS; domain++) {
		ask_table(p, domain, words);
		for (int verb = 0; verb < VERBS; verb++)
			n += words[verb] != t->functions[domain][verb].address;
	}
	return n;
}

static void tables_are_found(void **state)
{
	struct alloc_tables t;
	struct interpreter i;
	struct python p;

	(void)state;
	python_start(&p, NULL);
	find(p.pid, &i, &t);
	assert_int_equal(t.hook, HOOK_NONE);
	assert_int_equal(words_that_differ(&p, &t), 0);
	for (int verb = 0; verb < VERBS; verb++) {
		const struct alloc_function *f = &t.functions[ALLOC_OBJ][verb];

		assert_int_equal(f->now, f->address);
		assert_false(f->outside);
		assert_int_not_equal(f->equal, f->address);
		if (f->inlined)
			assert_int_not_equal(f->equal, 0);
	}
	python_stop(&p);
}

/* Debian's has inlined copies; a build that has none leaves nothing to test. */
static struct redirect *start_redirected(struct python *p, struct alloc_tables *t)
{
	struct interpreter i;
	struct redirect *r;

	python_start(p, NULL);
	find(p->pid, &i, t);
	assert_int_equal(redirect_new(&i, t, &r), 0);
	if (!redirect_count(r)) {
		print_message(PYTHON " does not inline its allocator\n");
		redirect_withdraw(r);
		python_stop(p);
		skip();
	}
	return r;
}

static void redirect_and_back(void **state)
{
	struct alloc_tables t;
	struct redirect *r;
	struct python p;
	char want[32];
	size_t count;

	(void)state;
	r = start_redirected(&p, &t);
	count = redirect_count(r);
	snprintf(want, sizeof(want), "%s", python_ask(&p, "work()"));
	assert_int_equal(words_that_differ(&p, &t), count);
	assert_int_equal(redirect_lost(r), 0);
	for (int i = 0; i < 2000; i++) {
		redirect_restore(r);
		assert_int_equal(redirect_apply(r), 0);
	}
	assert_string_equal(python_ask(&p, "work()"), want);
	redirect_restore(r);
	assert_int_equal(words_that_differ(&p, &t), 0);
	assert_int_equal(redirect_lost(r), 0);
	assert_string_equal(python_ask(&p, "work()"), want);
	assert_int_equal(redirect_apply(r), 0);
	redirect_withdraw(r);
	assert_int_equal(words_that_differ(&p, &t), 0);
	python_stop(&p);
}

static void redirect_of_one_that_was_killed(void **state)
{
	struct alloc_tables t, again;
	struct redirect *r;
	struct interpreter i;
	struct python p;
	size_t count;

	(void)state;
	r = start_redirected(&p, &t);
	count = redirect_count(r);
	redirect_free(r);
	find(p.pid, &i, &again);
	assert_int_equal(again.hook, HOOK_NONE);
	for (int verb = 0; verb < VERBS; verb++) {
		const struct alloc_function *f = &again.functions[ALLOC_OBJ][verb];

		assert_int_equal(f->address, t.functions[ALLOC_OBJ][verb].address);
		assert_int_equal(f->equal, t.functions[ALLOC_OBJ][verb].equal);
		assert_int_equal(f->now, f->inlined ? f->equal : f->address);
	}
	assert_int_equal(redirect_new(&i, &again, &r), 0);
	assert_int_equal(redirect_count(r), count);
	redirect_withdraw(r);
	assert_int_equal(words_that_differ(&p, &t), 0);
	python_stop(&p);
}

/* The tables that hooks hide hold our words, or the original ones. */
static void check_hidden(pid_t pid, const struct alloc_tables *t, bool ours)
{
	uint64_t now;

	for (int verb = 0; verb < VERBS; verb++) {
		const struct alloc_function *f = &t->functions[ALLOC_OBJ][verb];

		assert_int_equal(memory_read_u64(pid, f->slot, &now), 0);
		assert_int_equal(now, ours && f->inlined && f->equal ? f->equal : f->address);
	}
}

static void hook_under(const char *malloc_name, const char *command, enum alloc_hook hook)
{
	struct alloc_tables t;
	struct interpreter i;
	struct redirect *r;
	struct python p;

	python_start(&p, malloc_name);
	if (command)
		python_ask(&p, command);
	find(p.pid, &i, &t);
	assert_int_equal(t.hook, hook);
	assert_int_equal(redirect_new(&i, &t, &r), 0);
	if (hook == HOOK_RAW)
		assert_int_equal(redirect_count(r), 0);
	check_hidden(p.pid, &t, redirect_count(r) > 0);
	python_ask(&p, "len([[k] for k in range(10000)])");
	redirect_withdraw(r);
	check_hidden(p.pid, &t, false);
	python_stop(&p);
}

static void hooks_are_told_apart(void **state)
{
	(void)state;
	hook_under("debug", NULL, HOOK_DEBUG);
	hook_under("malloc", NULL, HOOK_RAW);
	hook_under(NULL, "tracemalloc.start()", HOOK_TRACEMALLOC);
	hook_under("debug", "tracemalloc.start()", HOOK_TRACEMALLOC);
	hook_under("malloc", "tracemalloc.start()", HOOK_TRACEMALLOC);
}

/* A table of functions of the C library, whose context is a copy of pymalloc's. */
static const char make_hook[] =
	"exec('L = ctypes.CDLL(None); own = T(); hook = T(); "
	"ctypes.pythonapi.PyMem_GetAllocator(2, ctypes.byref(own)); "
	"hook.x = ctypes.addressof(own); "
	"hook.m = ctypes.cast(L.abs, ctypes.c_void_p).value; hook.c = hook.m + 1; "
	"hook.r = hook.m + 2; hook.f = hook.m + 3')";

/* No process can run with such a hook: it is put into one that is stopped. */
static void foreign_hook(void **state)
{
	uint64_t hook, table, new[1 + VERBS], old[1 + VERBS];
	const struct alloc_function *f;
	struct alloc_tables t;
	struct interpreter i;
	struct redirect *r;
	struct python p;

	(void)state;
	python_start(&p, NULL);
	python_ask(&p, make_hook);
	hook = strtoull(python_ask(&p, "ctypes.addressof(hook)"), NULL, 10);
	find(p.pid, &i, &t);
	f = &t.functions[ALLOC_OBJ][VERB_MALLOC];
	table = f->slot - 8;
	assert_int_equal(kill(p.pid, SIGSTOP), 0);
	assert_int_equal(waitpid(p.pid, NULL, WUNTRACED), p.pid);
	assert_int_equal(memory_read(p.pid, hook, new, sizeof(new)), 0);
	assert_int_equal(memory_read(p.pid, table, old, sizeof(old)), 0);
	for (int k = 0; k <= VERBS; k++)
		assert_int_equal(memory_replace_u64(p.pid, table + 8 * k, old[k], new[k]), 0);

	assert_int_equal(alloc_tables_find(&i, &t), 0);
	assert_int_equal(t.hook, HOOK_FOREIGN);
	assert_int_equal(f->address, old[1]);
	assert_false(f->outside);
	assert_int_equal(redirect_new(&i, &t, &r), -EBUSY);

	assert_int_equal(memory_replace_u64(p.pid, table, new[0], 0), 0);
	assert_int_equal(alloc_tables_find(&i, &t), 0);
	assert_int_equal(t.hook, HOOK_FOREIGN);
	assert_int_equal(f->address, new[1]);
	assert_true(f->outside);
	assert_int_equal(f->equal, 0);
	python_stop(&p);
}

static void hook_over_ours(void **state)
{
	struct alloc_tables t, now;
	struct interpreter i;
	struct redirect *r;
	struct python p;
	size_t count;

	(void)state;
	r = start_redirected(&p, &t);
	count = redirect_count(r);
	python_ask(&p, "tracemalloc.start(5)");
	assert_int_equal(redirect_lost(r), count);
	find(p.pid, &i, &now);
	assert_int_equal(now.hook, HOOK_TRACEMALLOC);
	assert_int_equal(now.functions[ALLOC_OBJ][VERB_MALLOC].address,
			 t.functions[ALLOC_OBJ][VERB_MALLOC].address);
	redirect_restore(r);
	check_hidden(p.pid, &now, false);
	/* The hook goes with our words behind it, which come to the front again. */
	assert_int_equal(redirect_apply(r), 0);
	check_hidden(p.pid, &now, true);
	python_ask(&p, "tracemalloc.stop()");
	assert_int_equal(redirect_lost(r), 0);
	redirect_withdraw(r);
	assert_int_equal(words_that_differ(&p, &t), 0);
	python_stop(&p);
}

static unsigned int redirected_words(pid_t pid, const struct redirect *r)
{
	unsigned int n = 0;
	uint64_t now;

	for (size_t k = 0; k < redirect_count(r); k++) {
		assert_int_equal(memory_read_u64(pid, redirect_at(r, k)->address, &now), 0);
		n += now == redirect_at(r, k)->ours;
	}
	return n;
}

static void children_inherit(void **state)
{
	struct redirect *r, *copy;
	struct alloc_tables t;
	struct python p;
	size_t count;
	pid_t child;

	(void)state;
	r = start_redirected(&p, &t);
	count = redirect_count(r);
	child = (pid_t)strtol(python_ask(&p, "fork()"), NULL, 10);
	assert_true(child > 0);
	copy = redirect_copy(r, child);
	assert_non_null(copy);
	assert_int_equal(redirected_words(child, r), count);
	redirect_withdraw(copy);
	assert_int_equal(redirected_words(child, r), 0);
	assert_int_equal(redirected_words(p.pid, r), count);
	kill(child, SIGKILL);
	redirect_withdraw(r);
	python_stop(&p);
}

static void sweep_finds_children(void **state)
{
	const struct redirect *all[2];
	struct redirect *r, *copy;
	struct alloc_tables t;
	pid_t child, followed;
	struct python p;
	size_t count;

	(void)state;
	r = start_redirected(&p, &t);
	count = redirect_count(r);
	child = (pid_t)strtol(python_ask(&p, "fork()"), NULL, 10);
	followed = (pid_t)strtol(python_ask(&p, "fork()"), NULL, 10);
	copy = redirect_copy(r, followed);
	all[0] = r;
	all[1] = copy;
	redirect_sweep(all, 2);
	assert_int_equal(redirected_words(child, r), 0);
	assert_int_equal(redirected_words(followed, r), count);
	assert_int_equal(redirected_words(p.pid, r), count);
	redirect_free(copy);
	redirect_restore(r);
	redirect_sweep(all, 1);
	assert_int_equal(redirected_words(followed, r), 0);
	kill(child, SIGKILL);
	kill(followed, SIGKILL);
	redirect_free(r);
	python_stop(&p);
}

/* To put right the words of such a child would be to do it in its parent. */
static void shared_memory_is_the_parents(void **state)
{
	const struct redirect *all[1];
	struct redirect *r, *copy;
	struct alloc_tables t;
	struct python p;
	size_t count;
	pid_t child;

	(void)state;
	r = start_redirected(&p, &t);
	count = redirect_count(r);
	child = (pid_t)strtol(python_ask(&p, "share()"), NULL, 10);
	assert_true(child > 0);
	copy = redirect_copy(r, child);
	assert_int_equal(redirect_count(copy), 0);
	redirect_withdraw(copy);
	all[0] = r;
	redirect_sweep(all, 1);
	assert_int_equal(redirected_words(p.pid, r), count);
	copy = redirect_copy(r, p.pid);
	assert_int_equal(redirect_count(copy), count);
	redirect_free(copy);
	redirect_withdraw(r);
	kill(child, SIGKILL);
	python_stop(&p);
}

static void gone_process(void **state)
{
	const struct redirect *all[1];
	struct alloc_tables t;
	struct redirect *r;
	struct python p;

	(void)state;
	r = start_redirected(&p, &t);
	python_stop(&p);
	assert_int_equal(redirect_lost(r), 0);
	all[0] = r;
	redirect_sweep(all, 1);
	assert_int_equal(redirect_apply(r), -ESRCH);
	redirect_withdraw(r);
	redirect_withdraw(NULL);
	redirect_free(NULL);
	assert_int_equal(redirect_count(NULL), 0);
}

/* --- words of this process, as if they were a table --- */

static uint64_t words[8];
static uint64_t tracer;

static void own_interpreter(struct interpreter *i)
{
	struct maps_iter *it;
	struct mapping m;

	memset(i, 0, sizeof(*i));
	i->pid = getpid();
	i->runtime = (uint64_t)(uintptr_t)&tracer - 16;
	i->layout.runtime_ref_tracer = 16;
	assert_int_equal(maps_iter_new(i->pid, &it), 0);
	while (maps_iter_next(it, &m) == 1 && !(m.executable && m.inode))
		;
	i->inode = m.inode;
	i->dev_major = m.dev_major;
	i->dev_minor = m.dev_minor;
	maps_iter_free(it);
}

/* words[1] to words[4] are those of obj, 100 to 103, with 200 to 203 equal. */
static void own_tables(struct alloc_tables *t)
{
	memset(t, 0, sizeof(*t));
	for (unsigned int verb = 0; verb < VERBS; verb++) {
		words[1 + verb] = 100 + verb;
		t->functions[ALLOC_OBJ][verb] = (struct alloc_function){
			.address = 100 + verb,
			.slot = (uint64_t)(uintptr_t)&words[1 + verb],
			.outer = (uint64_t)(uintptr_t)&words[1 + verb],
			.now = 100 + verb,
			.equal = 200 + verb,
			.inlined = 1,
		};
	}
}

static void only_what_needs_it(void **state)
{
	struct alloc_tables t;
	struct interpreter i;
	struct redirect *r;

	(void)state;
	own_interpreter(&i);
	own_tables(&t);
	t.functions[ALLOC_OBJ][VERB_CALLOC].inlined = 0;
	t.functions[ALLOC_OBJ][VERB_FREE].equal = 0;
	assert_int_equal(redirect_new(&i, &t, &r), 0);
	assert_int_equal(redirect_count(r), 2);
	assert_int_equal(words[1], 200);
	assert_int_equal(words[2], 101);
	assert_int_equal(words[3], 202);
	assert_int_equal(words[4], 103);
	words[3] = 7;
	assert_int_equal(redirect_lost(r), 1);
	redirect_withdraw(r);
	assert_int_equal(words[1], 100);
	assert_int_equal(words[3], 7);
}

static void all_or_nothing(void **state)
{
	struct alloc_tables t;
	struct interpreter i;
	struct redirect *r;

	(void)state;
	own_interpreter(&i);
	own_tables(&t);
	words[3] = 7;
	assert_int_equal(redirect_new(&i, &t, &r), -EBUSY);
	assert_int_equal(words[1], 100);
	assert_int_equal(words[2], 101);
	assert_int_equal(words[3], 7);
	assert_int_equal(words[4], 103);
}

/* Another version of leaktop had another choice. */
static void other_equal_address(void **state)
{
	struct alloc_tables t;
	struct interpreter i;
	struct redirect *r;

	(void)state;
	own_interpreter(&i);
	own_tables(&t);
	words[1] = t.functions[ALLOC_OBJ][VERB_MALLOC].now = 300;
	assert_int_equal(redirect_new(&i, &t, &r), 0);
	assert_int_equal(words[1], 200);
	redirect_withdraw(r);
	assert_int_equal(words[1], 100);
}

static void tracer_slot_stays(void **state)
{
	struct alloc_tables t;
	struct interpreter i;
	struct redirect *r;

	(void)state;
	own_interpreter(&i);
	own_tables(&t);
	t.hook = HOOK_RAW;
	assert_int_equal(redirect_new(&i, &t, &r), 0);
	assert_int_equal(redirect_count(r), 0);
	tracer = 5;
	assert_int_equal(redirect_ref_tracer(r, &i, 400), -EBUSY);
	assert_int_equal(tracer, 5);
	tracer = 0;
	assert_int_equal(redirect_ref_tracer(r, &i, 400), 0);
	assert_int_equal(redirect_count(r), 1);
	assert_true(redirect_at(r, 0)->lasting);
	assert_int_equal(tracer, 400);
	redirect_restore(r);
	assert_int_equal(tracer, 400);
	assert_int_equal(redirect_lost(r), 0);
	tracer = 0;
	assert_int_equal(redirect_lost(r), 1);
	assert_int_equal(redirect_apply(r), 0);
	assert_int_equal(tracer, 0);
	tracer = 400;
	redirect_withdraw(r);
	assert_int_equal(tracer, 400);
	assert_int_equal(redirect_new(&i, &t, &r), 0);
	assert_int_equal(redirect_ref_tracer(r, &i, 400), 0);
	i.layout.runtime_ref_tracer = UINT32_MAX;
	assert_int_equal(redirect_ref_tracer(r, &i, 400), -ENOTSUP);
	redirect_withdraw(r);
}

static void stub_does_nothing(void **state)
{
	struct interpreter_problem problem;
	uint8_t code[16];
	struct interpreter i;
	struct python p;
	uint64_t stub;
	char line[64];

	(void)state;
	python_start(&p, NULL);
	assert_int_equal(interpreter_find(p.pid, &i, &problem), 0);
	assert_int_equal(alloc_find_stub(&i, &stub), 0);
	assert_int_equal(memory_read(p.pid, stub, code, sizeof(code)), 0);
	assert_non_null(memchr(code, 0xc3, 12));
	/* The process calls it itself. */
	snprintf(line, sizeof(line), "ctypes.CFUNCTYPE(None)(%lu)()", stub);
	assert_string_equal(python_ask(&p, line), "None");
	python_stop(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tables_are_found),
		cmocka_unit_test(redirect_and_back),
		cmocka_unit_test(redirect_of_one_that_was_killed),
		cmocka_unit_test(hooks_are_told_apart),
		cmocka_unit_test(foreign_hook),
		cmocka_unit_test(hook_over_ours),
		cmocka_unit_test(children_inherit),
		cmocka_unit_test(sweep_finds_children),
		cmocka_unit_test(shared_memory_is_the_parents),
		cmocka_unit_test(gone_process),
		cmocka_unit_test(only_what_needs_it),
		cmocka_unit_test(all_or_nothing),
		cmocka_unit_test(other_equal_address),
		cmocka_unit_test(tracer_slot_stays),
		cmocka_unit_test(stub_does_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
