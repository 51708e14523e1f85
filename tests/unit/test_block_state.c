/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "heap/block_state.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>

#include "heap/glibc_heaps.h"
#include "heap_host.h"
#include "probe_spec.h"
#include "python/interpreter.h"
#include "python_child.h"

struct tally {
	size_t held[3], freed[3]; /* by what was answered */
};

static struct block_question *questions_new(const struct heap_host *h)
{
	struct block_question *q = calloc(h->count, sizeof(*q));

	assert_non_null(q);
	/* Not in order. */
	for (size_t i = 0; i < h->count; i++) {
		const struct heap_truth *t = &h->truth[h->count - 1 - i];

		q[i] = (struct block_question){t->address, t->size_bytes, DOMAIN_MALLOC, 0};
	}
	return q;
}

static struct tally ask(const struct heap_host *h, struct block_oracle *o)
{
	struct block_question *q = questions_new(h);
	struct tally tally = {0};

	assert_int_equal(block_oracle_ask(o, q, h->count), 0);
	for (size_t i = 0; i < h->count; i++) {
		const struct heap_truth *t = &h->truth[h->count - 1 - i];

		if (t->held == HEAP_EITHER)
			assert_int_equal(q[i].state, BLOCK_UNKNOWN);
		else if (t->held)
			tally.held[q[i].state]++;
		else
			tally.freed[q[i].state]++;
	}
	free(q);
	return tally;
}

static void check_child(const char *mode, unsigned int seed)
{
	struct block_oracle *o;
	struct heap_host h;
	struct tally t;

	assert_true(heap_host_start(&h, mode, seed));
	assert_int_equal(block_oracle_new(h.pid, NULL, &o), 0);
	t = ask(&h, o);
	print_message(
		"%s: held %zu, unknown %zu, free %zu; freed: held %zu, unknown %zu, free %zu\n",
		mode, t.held[BLOCK_HELD], t.held[BLOCK_UNKNOWN], t.held[BLOCK_FREE],
		t.freed[BLOCK_HELD], t.freed[BLOCK_UNKNOWN], t.freed[BLOCK_FREE]);
	assert_int_equal(t.held[BLOCK_FREE], 0);
	assert_int_equal(t.held[BLOCK_UNKNOWN], 0);
	assert_true(t.held[BLOCK_HELD] > 4);
	assert_true(t.freed[BLOCK_FREE] > 4);
	assert_true((t.freed[BLOCK_HELD] + t.freed[BLOCK_UNKNOWN]) * 1000 <= t.freed[BLOCK_FREE]);
	assert_true(block_oracle_read_bytes(o) > 0);
	block_oracle_free(o);
	heap_host_stop(&h);
}

static void test_kinds(void **state)
{
	(void)state;
	check_child("kinds", 1);
}

static void test_threads(void **state)
{
	(void)state;
	check_child("still", 1);
	check_child("still", 2);
}

static void test_trimmed(void **state)
{
	(void)state;
	check_child("trim", 3);
}

/* What is held for ever is never called free, while other threads allocate. */
static void test_running(void **state)
{
	struct tally all = {0};
	struct block_oracle *o;
	struct heap_host h;

	(void)state;
	assert_true(heap_host_start(&h, "running", 4));
	assert_int_equal(block_oracle_new(h.pid, NULL, &o), 0);
	for (int i = 0; i < 4; i++) {
		struct tally t = ask(&h, o);

		all.held[BLOCK_HELD] += t.held[BLOCK_HELD];
		all.held[BLOCK_UNKNOWN] += t.held[BLOCK_UNKNOWN];
		all.held[BLOCK_FREE] += t.held[BLOCK_FREE];
	}
	print_message("running: held %zu, unknown %zu, free %zu\n", all.held[BLOCK_HELD],
		      all.held[BLOCK_UNKNOWN], all.held[BLOCK_FREE]);
	assert_int_equal(all.held[BLOCK_FREE], 0);
	assert_true(all.held[BLOCK_UNKNOWN] <= all.held[BLOCK_HELD]);
	block_oracle_free(o);
	heap_host_stop(&h);
}

static uint64_t hostile_word(const struct heap_host *h, uint64_t at)
{
	uint64_t any = h->truth[(size_t)rand() % h->count].address;

	switch (rand() % 9) {
	case 0:
		return 0;
	case 1:
		return ~0ull;
	case 2:
		return (uint64_t)rand() % 4096;
	case 3:
		return (uint64_t)rand() << 32 | (uint64_t)rand();
	case 4:
		return at & ~15ull; /* a cycle */
	case 5:
		return (at & ~15ull) ^ at >> 12;
	case 6:
		return any;
	case 7:
		return 0x291 + (uint64_t)(rand() % 8);
	default:
		return any - 16;
	}
}

/* Where lies do most: headers, tcaches, arenas, heap_info. */
static uint64_t hostile_place(const struct heap_host *h, const struct glibc *g)
{
	const struct heap_truth *t = &h->truth[(size_t)rand() % h->count];

	switch (rand() % 6) {
	case 0:
		return g->main_arena + (uint64_t)(rand() % 275) * 8;
	case 1:
		return (t->address & ~((64ull << 20) - 1)) + (uint64_t)(rand() % 290) * 8;
	case 2:
		return t->address + (uint64_t)(rand() % 2) * 8;
	default:
		return t->address - 8 - (uint64_t)(rand() % 2) * 8;
	}
}

/* Any answer may come, but soon, and nothing is read that should not be. */
static void test_hostile(void **state)
{
	struct block_oracle *o;
	struct heap_host h;
	struct glibc g;

	(void)state;
	srand(5);
	for (int round = 0; round < 3; round++) {
		assert_true(heap_host_start(&h, round ? "still" : "kinds", 6));
		assert_int_equal(glibc_find(h.pid, &g), 0);
		assert_int_equal(block_oracle_new(h.pid, NULL, &o), 0);
		for (int i = 0; i < (round ? 12 : 200); i++) {
			for (int j = 0; j < (round ? 1 << i : 1); j++) {
				uint64_t at = hostile_place(&h, &g);

				heap_host_write(&h, at, hostile_word(&h, at));
			}
			h.truth[(size_t)rand() % h.count].size_bytes = hostile_word(&h, 0);
			h.truth[(size_t)rand() % h.count].held = 0;
			for (size_t k = 0; k < h.count; k++)
				h.truth[k].held &= 1;
			ask(&h, o);
		}
		block_oracle_free(o);
		heap_host_stop(&h);
	}
}

static void test_torn(void **state)
{
	struct block_oracle *o;
	struct heap_host h;
	struct tally t;

	(void)state;
	assert_true(heap_host_start(&h, "torn", 8));
	assert_int_equal(block_oracle_new(h.pid, NULL, &o), 0);
	t = ask(&h, o);
	print_message(
		"torn: held %zu, unknown %zu, free %zu; freed: held %zu, unknown %zu, free %zu\n",
		t.held[BLOCK_HELD], t.held[BLOCK_UNKNOWN], t.held[BLOCK_FREE], t.freed[BLOCK_HELD],
		t.freed[BLOCK_UNKNOWN], t.freed[BLOCK_FREE]);
	/* All that is behind a hole is not known; what is in it is nobody's. */
	assert_true(t.held[BLOCK_UNKNOWN] > t.held[BLOCK_FREE]);
	block_oracle_free(o);
	heap_host_stop(&h);
}

static void test_gone(void **state)
{
	struct block_question q = {4096, 1, DOMAIN_MALLOC, BLOCK_FREE};
	struct block_oracle *o;
	struct heap_host h;

	(void)state;
	assert_true(heap_host_start(&h, "kinds", 7));
	assert_int_equal(block_oracle_new(h.pid, NULL, &o), 0);
	heap_host_stop(&h);
	assert_int_equal(block_oracle_ask(o, &q, 1), -ESRCH);
	assert_int_equal(q.state, BLOCK_UNKNOWN);
	block_oracle_free(o);
	assert_int_equal(block_oracle_new(h.pid, NULL, &o), -ESRCH);
	block_oracle_free(NULL);
}

/* The sanitizer's allocator is one we do not know; so is a mapping nobody has given back. */
static void test_other_allocators(void **state)
{
	void *block = malloc(100), *huge = malloc(10 << 20);
	void *mapped = mmap(NULL, 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	void *gone = mmap(NULL, 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct block_question q[] = {
		{(uintptr_t)block, 100, DOMAIN_MALLOC, BLOCK_FREE},
		{(uintptr_t)huge, 10 << 20, DOMAIN_MALLOC, BLOCK_FREE},
		{(uintptr_t)mapped, 8192, DOMAIN_MMAP, BLOCK_FREE},
		{(uintptr_t)gone, 8192, DOMAIN_MMAP, BLOCK_HELD},
		{(uintptr_t)block, 100, DOMAIN_PYMALLOC, BLOCK_FREE},
		{0, 0, DOMAIN_MALLOC, BLOCK_HELD},
		{UINT64_MAX - 7, UINT64_MAX, DOMAIN_MALLOC, BLOCK_HELD},
	};
	struct block_oracle *o;

	(void)state;
	munmap(gone, 8192);
	assert_int_equal(block_oracle_new(getpid(), NULL, &o), 0);
	assert_int_equal(block_oracle_ask(o, q, sizeof(q) / sizeof(*q)), 0);
	assert_int_equal(q[0].state, BLOCK_UNKNOWN);
	assert_int_equal(q[1].state, BLOCK_UNKNOWN);
	assert_int_equal(q[2].state, BLOCK_UNKNOWN);
	assert_int_equal(q[3].state, BLOCK_FREE);
	assert_int_equal(q[4].state, BLOCK_UNKNOWN);
	assert_int_not_equal(q[5].state, BLOCK_HELD);
	assert_int_equal(q[6].state, BLOCK_UNKNOWN);
	assert_int_equal(block_oracle_ask(o, NULL, 0), 0);
	block_oracle_free(o);
	munmap(mapped, 8192);
	free(block);
	free(huge);
}

/* Objects without a header of the collector's are blocks. */
static const char python_script[] =
	"import os, random, sys, time\n"
	"random.seed(1)\n"
	"a = [bytes(random.randrange(1, 900)) for i in range(60000)]\n"
	"keep = [random.random() < .5 for i in a]\n"
	"text = [b'%d %d %d\\n' % (id(x), sys.getsizeof(x), k) for x, k in zip(a, keep)]\n"
	"text = b''.join(text)\n"
	"for i in range(len(a)):\n"
	"    if not keep[i]: a[i] = None\n"
	"f = open(os.environ['LEAKTOP_TEST_FILE'], 'wb', 0)\n"
	"f.write(text)\n"
	"f.close()\n"
	"print('ready', flush=True)\n"
	"time.sleep(1000)\n";

static void read_python_truth(const char *file, struct heap_host *h)
{
	unsigned long long address, bytes, held;
	FILE *f = fopen(file, "re");

	assert_non_null(f);
	h->count = 0;
	h->truth = calloc(60000, sizeof(*h->truth));
	while (h->count < 60000 && fscanf(f, "%llu %llu %llu\n", &address, &bytes, &held) == 3)
		h->truth[h->count++] = (struct heap_truth){address, bytes, held};
	fclose(f);
	assert_int_equal(h->count, 60000);
	heap_truth_unique(h);
}

static struct tally ask_python(const struct heap_host *h, const struct interpreter *python)
{
	struct block_question *q = questions_new(h);
	struct tally tally = {0};
	struct block_oracle *o;

	for (size_t i = 0; i < h->count; i++)
		q[i].domain = DOMAIN_PYMALLOC;
	assert_int_equal(block_oracle_new(h->pid, python, &o), 0);
	assert_int_equal(block_oracle_ask(o, q, h->count), 0);
	for (size_t i = 0; i < h->count; i++) {
		if (h->truth[h->count - 1 - i].held)
			tally.held[q[i].state]++;
		else
			tally.freed[q[i].state]++;
	}
	block_oracle_free(o);
	free(q);
	return tally;
}

static struct tally check_python(const char *path)
{
	char file[] = "/tmp/leaktop-pools-XXXXXX";
	struct interpreter_problem problem;
	struct python_child child;
	struct interpreter python;
	struct heap_host h = {0};
	int fd = mkstemp(file);
	struct tally t;

	assert_true(fd >= 0);
	close(fd);
	setenv("LEAKTOP_TEST_FILE", file, 1);
	assert_true(python_child_start(&child, path, python_script));
	h.pid = child.pid;
	read_python_truth(file, &h);
	assert_int_equal(interpreter_find(child.pid, &python, &problem), 0);
	t = ask_python(&h, &python);
	print_message(
		"%s: held %zu, unknown %zu, free %zu; freed: held %zu, unknown %zu, free %zu\n",
		python.version, t.held[BLOCK_HELD], t.held[BLOCK_UNKNOWN], t.held[BLOCK_FREE],
		t.freed[BLOCK_HELD], t.freed[BLOCK_UNKNOWN], t.freed[BLOCK_FREE]);
	assert_int_equal(t.held[BLOCK_FREE], 0);
	python_child_stop(&child);
	unlink(file);
	free(h.truth);
	return t;
}

static void check_one_python(const char *path)
{
	struct tally t = check_python(path);

	assert_true(t.held[BLOCK_UNKNOWN] * 100 < t.held[BLOCK_HELD]);
	assert_true((t.freed[BLOCK_HELD] + t.freed[BLOCK_UNKNOWN]) * 50 < t.freed[BLOCK_FREE]);
}

static void test_python(void **state)
{
	(void)state;
	python_child_each(check_one_python);
}

/* Every address is 16 bytes into its block then: nothing may be said that is wrong. */
static void test_python_debug(void **state)
{
	(void)state;
	setenv("PYTHONMALLOC", "debug", 1);
	check_python("/usr/bin/python3");
	setenv("PYTHONMALLOC", "malloc", 1);
	check_python("/usr/bin/python3");
	unsetenv("PYTHONMALLOC");
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kinds),	cmocka_unit_test(test_threads),
		cmocka_unit_test(test_trimmed), cmocka_unit_test(test_running),
		cmocka_unit_test(test_hostile), cmocka_unit_test(test_torn),
		cmocka_unit_test(test_gone),	cmocka_unit_test(test_other_allocators),
		cmocka_unit_test(test_python),	cmocka_unit_test(test_python_debug),
	};
	int child = heap_host_main(argc, argv);

	if (child >= 0)
		return child;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
