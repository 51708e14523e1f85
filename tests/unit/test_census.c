/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The census against what a Python process says of itself (the system's python3 and those
 * that LEAKTOP_PYTHONS names), and its parts against memory made by hand.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "python/address_runs.h"
#include "python/census.h"
#include "python/freezer.h"
#include "python/gc_ring.h"
#include "python/gc_state.h"
#include "python/interpreter.h"
#include "python/pools.h"
#include "python_child.h"

#define POOL_BITS 12
#define POOL_BYTES (1u << POOL_BITS)

/* Objects of known kinds, then: counts by type of what the collector tracks. */
static const char script[] =
	"import gc, sys, time, collections\n"
	"class Connection:\n"
	"    def __init__(self, i): self.i = i; self.name = str(i); self.buf = bytearray(100)\n"
	"class Slots: __slots__ = ('a',)\n"
	"class List(list): pass\n"
	"keep = [Connection(i) for i in range(5000)]\n"
	"keep += [Slots() for i in range(3000)] + [List([i]) for i in range(2000)]\n"
	"keep += [object() for i in range(4000)] + [i + 0.5 for i in range(4000)]\n"
	"keep += [collections.deque([i]) for i in range(500)] + [(i, []) for i in range(1000)]\n"
	"keep += ['x' * 5000 + str(i) for i in range(700)]\n"
	"keep += [bytes(3000) + bytes([i % 256]) for i in range(300)]\n"
	"gone = [Connection(i) for i in range(3000)]; del gone\n"
	"gc.garbage.extend([1, 2]); gc.disable(); gc.set_threshold(900, 11, 12); gc.collect()\n"
	"n = collections.Counter(type(o).__name__ for o in gc.get_objects())\n"
	"s = gc.get_stats()\n"
	"print(n['Connection'], n['Slots'], n['List'], n['deque'], n['set'], n['function'], "
	"n['type'],\n"
	"      sys.getallocatedblocks(), s[0]['collections'], s[2]['collected'], flush=True)\n"
	"time.sleep(600)\n";

struct truth {
	long connections, slots, lists, deques, sets, functions, types, blocks;
	long collections, collected;
};

static struct truth read_truth(const char *line)
{
	struct truth t;

	assert_int_equal(sscanf(line, "%ld %ld %ld %ld %ld %ld %ld %ld %ld %ld", &t.connections,
				&t.slots, &t.lists, &t.deques, &t.sets, &t.functions, &t.types,
				&t.blocks, &t.collections, &t.collected),
			 10);
	return t;
}

static bool start_python(const char *path, struct python_child *c, struct interpreter *i)
{
	struct interpreter_problem problem = {0};
	int err;

	if (!python_child_start(c, path, script)) {
		print_message("skipped: cannot run %s\n", path);
		return false;
	}
	err = interpreter_find(c->pid, i, &problem);
	if (err == -ENOTSUP) {
		print_message("skipped: %s: %s\n", path, problem.reason);
		python_child_stop(c);
		return false;
	}
	assert_int_equal(err, 0);
	return true;
}

static const struct census_row *row(const struct census *c, const char *name)
{
	static const struct census_row none;

	for (size_t i = 0; i < c->row_count; i++)
		if (!strcmp(c->rows[i].name, name))
			return &c->rows[i];
	return &none;
}

static void assert_about(uint64_t value, long expected, long more)
{
	assert_in_range(value, (uint64_t)expected, (uint64_t)(expected + more));
}

static void check_counts(const struct census *c, const struct truth *t)
{
	uint64_t all = c->blocks + c->large_blocks;

	assert_int_equal(row(c, "__main__.Connection")->blocks, t->connections);
	assert_int_equal(row(c, "__main__.Slots")->blocks, t->slots);
	assert_int_equal(row(c, "__main__.List")->blocks, t->lists);
	assert_int_equal(row(c, "collections.deque")->blocks, t->deques);
	assert_int_equal(row(c, "type")->blocks, t->types);
	assert_about(row(c, "set")->blocks, t->sets, 10);
	assert_about(row(c, "function")->blocks, t->functions - 5, 15);
	assert_about(row(c, "object")->blocks, 4000, 20);
	assert_about(row(c, "float")->blocks, 4000, 200);
	assert_about(row(c, "bytearray")->blocks, 5000, 5);
	assert_about(row(c, "bytearray data")->blocks, 5000, 5);
	/* not tracked, and too large for pools */
	assert_true(row(c, "str")->bytes >= 700 * 5000);
	assert_true(row(c, "bytes")->bytes >= 300 * 3000);
	assert_true(c->large_blocks >= 1000);
	/* sys.getallocatedblocks() */
	assert_true(all > (uint64_t)t->blocks - (uint64_t)t->blocks / 100);
	assert_true(all < (uint64_t)t->blocks + (uint64_t)t->blocks / 100);
	assert_true(row(c, "(unknown)")->blocks < c->blocks / 50);
}

static void check_collector(const struct census *c, const struct truth *t)
{
	assert_true(c->gc_known);
	assert_false(c->gc_enabled);
	assert_int_equal(c->garbage, 2);
	assert_int_equal(c->generations[0].threshold, 900);
	assert_int_equal(c->generations[1].threshold, 11);
	assert_int_equal(c->generations[0].collections, t->collections);
	assert_int_equal(c->generations[2].collected, t->collected);
}

static void check_python(const char *path)
{
	struct python_child child;
	struct interpreter i;
	struct truth truth;
	struct census *c;

	if (!start_python(path, &child, &i))
		return;
	truth = read_truth(child.line);
	for (int freeze = 0; freeze < 2; freeze++) {
		assert_int_equal(census_take(&i, freeze, &c), 0);
		print_message("%s %s: %zu types, %.3f s\n", path, i.version, c->row_count,
			      c->seconds);
		check_counts(c, &truth);
		check_collector(c, &truth);
		assert_int_equal(c->pools_skipped, 0);
		assert_int_equal(c->stopped_seconds > 0, freeze);
		for (size_t n = 1; n < c->row_count; n++)
			assert_true(c->rows[n - 1].bytes >= c->rows[n].bytes);
		census_free(c);
	}
	python_child_stop(&child);
	assert_int_equal(census_take(&i, false, &c), -ESRCH);
	assert_int_equal(census_take(&i, true, &c), -ESRCH);
}

static void counts_equal_the_truth(void **state)
{
	(void)state;
	python_child_each(check_python);
}

static void without_pools_the_collector_counts(void **state)
{
	struct python_child child;
	struct interpreter i;
	struct census *c;
	struct truth truth;
	bool started;

	(void)state;
	setenv("PYTHONMALLOC", "malloc", 1);
	started = start_python("/usr/bin/python3", &child, &i);
	unsetenv("PYTHONMALLOC");
	if (!started)
		skip();
	truth = read_truth(child.line);
	assert_int_equal(census_take(&i, false, &c), 0);
	assert_int_equal(c->pools, 0);
	assert_int_equal(row(c, "__main__.Connection")->blocks, truth.connections);
	assert_int_equal(row(c, "__main__.List")->blocks, truth.lists);
	census_free(c);
	python_child_stop(&child);
}

static void debug_heads_are_skipped(void **state)
{
	struct python_child child;
	struct interpreter i;
	struct census *c;
	struct truth truth;
	bool started;

	(void)state;
	setenv("PYTHONMALLOC", "debug", 1);
	started = start_python("/usr/bin/python3", &child, &i);
	unsetenv("PYTHONMALLOC");
	if (!started)
		skip();
	truth = read_truth(child.line);
	assert_int_equal(census_take(&i, false, &c), 0);
	assert_int_equal(row(c, "__main__.Connection")->blocks, truth.connections);
	assert_about(row(c, "object")->blocks, 4000, 20);
	census_free(c);
	python_child_stop(&child);
}

static void busy_processes_are_counted(void **state)
{
	static const char busy[] =
		"import threading\n"
		"class Kept: pass\n"
		"keep = [Kept() for i in range(20000)]\n"
		"def churn():\n"
		"    ring = []\n"
		"    while True:\n"
		"        ring.append({'a': [1, 2], 'b': 'x' * (len(ring) % 700)})\n"
		"        if len(ring) > 3000: ring = ring[1500:]\n"
		"for i in range(3): threading.Thread(target=churn, daemon=True).start()\n"
		"print('ready', flush=True)\n"
		"churn()\n";
	struct interpreter_problem problem;
	struct python_child child;
	struct interpreter i;
	struct census *c;

	(void)state;
	if (!python_child_start(&child, "/usr/bin/python3", busy))
		skip();
	assert_int_equal(interpreter_find(child.pid, &i, &problem), 0);
	for (int n = 0; n < 6; n++) {
		assert_int_equal(census_take(&i, n & 1, &c), 0);
		assert_about(row(c, "__main__.Kept")->blocks, 19900, 100);
		assert_true(c->pools_skipped * 20 <= c->pools);
		/* It may have been stopped while it changed one. */
		if (n & 1)
			assert_true(c->pools_skipped <= 1);
		if ((n & 1) && !c->pools_skipped)
			assert_int_equal(row(c, "__main__.Kept")->blocks, 20000);
		census_free(c);
	}
	assert_int_equal(kill(child.pid, 0), 0);
	python_child_stop(&child);
}

/* Field @name of /proc/PID/status, its first character that is no space. */
static char status_of(pid_t pid, const char *name)
{
	char path[64], line[256], value = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	f = fopen(path, "re");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		if (!strncmp(line, name, strlen(name)))
			value = line[strlen(name) + strspn(line + strlen(name), ": \t")];
	fclose(f);
	return value;
}

static void wait_a_little(void)
{
	const struct timespec wait = {0, 50000000};

	nanosleep(&wait, NULL);
}

static void frozen_runs_on(void **state)
{
	static const char script_signals[] =
		"import signal, sys, time\n"
		"signal.signal(signal.SIGUSR1, lambda *a: sys.exit(7))\n"
		"print('ready', flush=True)\n"
		"while True: time.sleep(1)\n";
	struct python_child child;
	struct freezer *f;
	int status;

	(void)state;
	if (!python_child_start(&child, "/usr/bin/python3", script_signals))
		skip();
	assert_int_equal(freezer_new(child.pid, &f), 0);
	assert_int_equal(status_of(child.pid, "State"), 't');
	/* A second tracer is refused. */
	{
		struct freezer *other;

		assert_int_equal(freezer_new(child.pid, &other), -EPERM);
	}
	/* What comes meanwhile is not lost. */
	kill(child.pid, SIGUSR1);
	wait_a_little();
	assert_int_equal(status_of(child.pid, "State"), 't');
	freezer_free(f);
	assert_int_equal(waitpid(child.pid, &status, 0), child.pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 7);
	assert_int_equal(freezer_new(child.pid, &f), -ESRCH);
	freezer_free(NULL);
}

/* Whoever freezes may be killed. */
static void frozen_runs_on_without_us(void **state)
{
	struct python_child child;
	int fds[2];
	char byte;
	pid_t us;

	(void)state;
	if (!python_child_start(&child, "/usr/bin/python3",
				"import time; print(1, flush=True); time.sleep(600)"))
		skip();
	assert_int_equal(pipe(fds), 0);
	us = fork();
	if (us == 0) {
		struct freezer *f;

		if (freezer_new(child.pid, &f) || write(fds[1], "x", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	assert_int_equal(read(fds[0], &byte, 1), 1);
	assert_int_equal(status_of(child.pid, "State"), 't');
	kill(us, SIGKILL);
	waitpid(us, NULL, 0);
	for (int n = 0; n < 100 && status_of(child.pid, "State") != 'S'; n++)
		wait_a_little();
	assert_int_equal(status_of(child.pid, "State"), 'S');
	assert_int_equal(status_of(child.pid, "TracerPid"), '0');
	close(fds[0]);
	close(fds[1]);
	python_child_stop(&child);
}

/* A pool of blocks of 48 bytes: ten handed out, number 3 and 7 free again. */
static void make_pool(uint64_t *words, uint64_t address)
{
	memset(words, 0, POOL_BYTES);
	words[0] = 8;
	words[1] = address + 48 + 3 * 48;
	words[4] = 5 | 2ull << 32; /* arena, class */
	words[5] = (48 + 10 * 48) | (uint64_t)(POOL_BYTES - 48) << 32;
	words[(48 + 3 * 48) / 8] = address + 48 + 7 * 48;
}

static void pools_are_recognised(void **state)
{
	static uint64_t words[POOL_BYTES / 8];
	const uint64_t at = 0x7f0000000000;
	const uint8_t *bytes = (const uint8_t *)words;
	struct pool p;

	(void)state;
	make_pool(words, at);
	assert_int_equal(pool_parse(bytes, at, POOL_BITS, &p), POOL_SOUND);
	assert_int_equal(p.class_bytes, 48);
	assert_int_equal(p.carved, 10);
	assert_int_equal(p.count, 8);
	assert_int_equal(p.arena, 5);
	for (uint32_t n = 0; n < 10; n++)
		assert_int_equal(pool_block_is_free(&p, n), n == 3 || n == 7);
	assert_int_equal(pool_block_offset(&p, 2), 144);
	/* of another size, or elsewhere */
	assert_int_equal(pool_parse(bytes, at + POOL_BYTES, POOL_BITS, &p), POOL_NONE);
	words[5] += 1ull << 32;
	assert_int_equal(pool_parse(bytes, at, POOL_BITS, &p), POOL_NONE);
}

static void hostile_pools_are_not(void **state)
{
	static uint64_t words[POOL_BYTES / 8];
	const uint64_t at = 0x7f0000000000;
	const uint8_t *bytes = (const uint8_t *)words;
	struct pool p;

	(void)state;
	/* a free list that is a ring, too short, too long, or leads elsewhere */
	make_pool(words, at);
	words[(48 + 7 * 48) / 8] = at + 48 + 3 * 48;
	assert_int_equal(pool_parse(bytes, at, POOL_BITS, &p), POOL_CHANGED);
	words[0] = 1;
	assert_int_equal(pool_parse(bytes, at, POOL_BITS, &p), POOL_CHANGED);
	make_pool(words, at);
	words[0] = 9;
	assert_int_equal(pool_parse(bytes, at, POOL_BITS, &p), POOL_CHANGED);
	words[0] = 11;
	assert_int_equal(pool_parse(bytes, at, POOL_BITS, &p), POOL_CHANGED);
	make_pool(words, at);
	words[(48 + 3 * 48) / 8] = at + 48 + 10 * 48;
	assert_int_equal(pool_parse(bytes, at, POOL_BITS, &p), POOL_CHANGED);
	words[(48 + 3 * 48) / 8] = UINT64_MAX;
	assert_int_equal(pool_parse(bytes, at, POOL_BITS, &p), POOL_CHANGED);
	/* Whatever is there, nothing is read or written out of bounds. */
	srandom(3);
	for (int n = 0; n < 200000; n++) {
		make_pool(words, at);
		for (int k = 0; k < 3; k++)
			((uint8_t *)words)[random() % 60] = (uint8_t)random();
		pool_parse(bytes, at, POOL_BITS, &p);
	}
}

static void runs_join(void **state)
{
	struct address_runs r = {0};

	(void)state;
	assert_false(address_runs_have(&r, 5));
	assert_int_equal(address_runs_add(&r, 10, 20), 0);
	assert_int_equal(address_runs_add(&r, 20, 30), 0);
	assert_int_equal(address_runs_add(&r, 25, 28), 0);
	assert_int_equal(address_runs_add(&r, 40, 50), 0);
	assert_int_equal(r.count, 2);
	for (uint64_t at = 0; at < 60; at++)
		assert_int_equal(address_runs_have(&r, at),
				 (at >= 10 && at < 30) || (at >= 40 && at < 50));
	address_runs_release(&r);
}

/* As in 3.11: trash, {nesting, enabled}, debug, generations, generation0, permanent, statistics,
 * collecting, garbage, callbacks. */
static void make_state(uint64_t *words, uint64_t at)
{
	memset(words, 0, 384);
	words[1] = 1ull << 32;
	for (int g = 0; g < 3; g++) {
		words[3 + 3 * g] = words[4 + 3 * g] = at + 24 + 24 * (uint64_t)g;
		words[5 + 3 * g] = g ? 10 : 700;
	}
	words[12] = at + 24;
	words[13] = words[14] = at + 13 * 8;
	words[16] = 42;
	words[26] = 0x7f0000001000;
	words[27] = 0x7f0000002000;
}

static void collector_shapes_are_found(void **state)
{
	const uint64_t at = 0x7f3456789010;
	uint64_t words[48];
	struct gc_shape s;

	(void)state;
	make_state(words, at);
	assert_true(gc_shape_find((uint8_t *)words, sizeof(words), at, 11, &s));
	assert_int_equal(s.first, 24);
	assert_int_equal(s.enabled, 12);
	assert_int_equal(s.permanent, 104);
	assert_int_equal(s.stats, 128);
	assert_int_equal(s.garbage, 208);
	/* cut, half a ring, other words */
	assert_false(gc_shape_find((uint8_t *)words, sizeof(words) - 8, at, 11, &s));
	words[7] = 0x7f0000003000;
	assert_false(gc_shape_find((uint8_t *)words, sizeof(words), at, 11, &s));
	make_state(words, at);
	words[26] = 12345;
	assert_false(gc_shape_find((uint8_t *)words, sizeof(words), at, 11, &s));
	make_state(words, at);
	words[16] = UINT64_MAX;
	assert_false(gc_shape_find((uint8_t *)words, sizeof(words), at, 11, &s));
}

static void rings_end(void **state)
{
	static uint64_t heads[4][2];
	struct gc_ring *r = gc_ring_new(getpid());
	uint64_t address, at[4];

	(void)state;
	assert_non_null(r);
	for (int n = 0; n < 4; n++)
		at[n] = (uint64_t)(uintptr_t)heads[n];
	for (int n = 0; n < 4; n++) {
		heads[n][0] = at[(n + 1) % 4];
		heads[n][1] = at[(n + 3) % 4] | 2; /* flags */
	}
	gc_ring_start(r, at[0]);
	for (int n = 1; n < 4; n++) {
		assert_int_equal(gc_ring_next(r, &address), 1);
		assert_int_equal(address, at[n]);
	}
	assert_int_equal(gc_ring_next(r, &address), 0);
	/* links that do not agree, or lead nowhere */
	heads[2][0] = at[1];
	gc_ring_free(r);
	r = gc_ring_new(getpid());
	gc_ring_start(r, at[0]);
	assert_int_equal(gc_ring_next(r, &address), 1);
	assert_int_equal(gc_ring_next(r, &address), 1);
	assert_int_equal(gc_ring_next(r, &address), -EAGAIN);
	heads[0][0] = 16;
	gc_ring_free(r);
	r = gc_ring_new(getpid());
	gc_ring_start(r, at[0]);
	assert_int_equal(gc_ring_next(r, &address), -EAGAIN);
	gc_ring_free(r);
	gc_ring_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(counts_equal_the_truth),
		cmocka_unit_test(without_pools_the_collector_counts),
		cmocka_unit_test(debug_heads_are_skipped),
		cmocka_unit_test(busy_processes_are_counted),
		cmocka_unit_test(frozen_runs_on),
		cmocka_unit_test(frozen_runs_on_without_us),
		cmocka_unit_test(pools_are_recognised),
		cmocka_unit_test(hostile_pools_are_not),
		cmocka_unit_test(runs_join),
		cmocka_unit_test(collector_shapes_are_found),
		cmocka_unit_test(rings_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
