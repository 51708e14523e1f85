/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The BPF unwinder on stacks of real programs, compared with gdb's. The images
 * (images/capture says what is in them) hold all that is needed: the programs and
 * libraries of this machine play no part.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "unwind/cfi.h"
#include "unwind/rule_set.h"
#include "unwind_host.h"

#define BYTES_MAX (256u << 10) /* of one object or piece of memory */
#define FRAMES_MAX 512

struct blob {
	uint8_t *data;
	size_t bytes;
};

struct saved {
	struct pt_regs regs;
	struct unwind_mappings space;
	struct rule_set *rules;
	struct blob object, memory[HOST_MEMORY_MAX];
	uint64_t memory_start[HOST_MEMORY_MAX];
	size_t memory_count;
	uint32_t objects;
	uint64_t bias[16];
	uint64_t frames[FRAMES_MAX];
	size_t frame_count;
	bool after_signal, is_whole;
};

static struct saved saved;

static uint8_t *hex_bytes(const char *hex, uint8_t *to, const uint8_t *end)
{
	unsigned int byte;

	for (; sscanf(hex, "%2x", &byte) == 1; hex += 2) {
		assert_true(to < end);
		*to++ = (uint8_t)byte;
	}
	return to;
}

static void put_line(struct blob *b, const char *line)
{
	size_t offset;
	int at;

	if (!b->data)
		b->data = host_alloc(BYTES_MAX);
	assert_int_equal(sscanf(line, "at %zx %n", &offset, &at), 1);
	assert_true(offset < BYTES_MAX);
	hex_bytes(line + at, b->data + offset, b->data + BYTES_MAX);
}

/* In the layout of unwind_maps.h. */
static void load_table(uint32_t id, const struct cfi_table *t)
{
	uint32_t blocks = cfi_table_block_count(t), rows = cfi_table_row_count(t);
	size_t count = UNWIND_TABLE_HEAD + (size_t)blocks + 1 + rows;
	uint32_t *words = host_alloc(count * sizeof(*words));

	words[0] = blocks;
	words[1] = rows;
	memcpy(words + UNWIND_TABLE_HEAD, cfi_table_first_rows(t), (blocks + 1) * sizeof(*words));
	memcpy(words + UNWIND_TABLE_HEAD + blocks + 1, cfi_table_rows(t), rows * sizeof(*words));
	host_set_table(id, words, count);
	free(words);
}

/* Tables count from 1, objects from 0. */
static void load_object(void)
{
	struct cfi_table *t;

	assert_int_equal(
		cfi_table_read_memory(saved.object.data, saved.object.bytes, saved.rules, &t), 0);
	assert_int_equal(cfi_table_bad_records(t), 0);
	saved.bias[saved.objects++] = cfi_table_bias(t);
	load_table(saved.objects, t);
	cfi_table_free(t);
	free(saved.object.data);
	saved.object = (struct blob){0};
}

static void read_bytes(const char *line)
{
	struct blob *b = saved.memory_count ? &saved.memory[saved.memory_count - 1] : &saved.object;

	assert_int_equal(sscanf(line, "bytes %zx", &b->bytes), 1);
	assert_true(b->bytes <= BYTES_MAX);
	if (!saved.memory_count)
		load_object();
}

static void read_mapping(const char *line)
{
	struct unwind_mapping *m = &saved.space.items[saved.space.count++];
	unsigned long long start, end, vaddr;
	unsigned int object;
	int n = sscanf(line, "mapping %llx %llx %llx %x", &start, &end, &vaddr, &object);

	assert_true(n >= 3);
	*m = (struct unwind_mapping){.start = start, .end = end};
	if (n == 3)
		return;
	assert_true(object < saved.objects);
	m->table = object + 1;
	m->base = start - (vaddr - saved.bias[object]);
}

/* Of an interrupted function, whose pc itself is looked up, the next byte is reported. */
static void read_frame(const char *line)
{
	unsigned long long pc;
	char kind[16];

	assert_int_equal(sscanf(line, "frame %llx %15s", &pc, kind), 2);
	assert_true(saved.frame_count < FRAMES_MAX);
	saved.frames[saved.frame_count++] = pc + saved.after_signal;
	saved.after_signal = !strcmp(kind, "signal");
}

static void read_line(const char *line)
{
	unsigned long long a, b, c, d;

	if (!strncmp(line, "at ", 3)) {
		put_line(saved.memory_count ? &saved.memory[saved.memory_count - 1] : &saved.object,
			 line);
	} else if (!strncmp(line, "bytes ", 6)) {
		read_bytes(line);
	} else if (!strncmp(line, "mapping ", 8)) {
		read_mapping(line);
	} else if (!strncmp(line, "frame ", 6)) {
		read_frame(line);
	} else if (sscanf(line, "memory %llx", &a) == 1) {
		assert_true(saved.memory_count < HOST_MEMORY_MAX);
		saved.memory_start[saved.memory_count++] = a;
	} else if (sscanf(line, "registers %llx %llx %llx %llx", &a, &b, &c, &d) == 4) {
		saved.regs = (struct pt_regs){a, b, c, d};
	} else {
		saved.is_whole |= !strcmp(line, "end outermost\n");
	}
}

/* The images stand beside this file. */
static void open_image(const char *name, FILE **out)
{
	char path[512];
	const char *slash = strrchr(__FILE__, '/');

	snprintf(path, sizeof(path), "%.*s/images/%s.img", (int)(slash - __FILE__), __FILE__, name);
	*out = fopen(path, "re");
	if (!*out)
		fail_msg("%s: cannot be opened", path);
}

static void give_memory(void)
{
	host.memory_count = 0;
	for (size_t i = 0; i < saved.memory_count; i++)
		host_add_memory(saved.memory_start[i], saved.memory[i].data, saved.memory[i].bytes);
}

static void load(const char *name)
{
	char line[1024];
	FILE *f;

	open_image(name, &f);
	while (fgets(line, sizeof(line), f))
		read_line(line);
	fclose(f);
	assert_true(saved.is_whole && saved.frame_count);
	for (uint32_t i = 0; i < rule_set_count(saved.rules); i++)
		host_set_rule(i, rule_set_get(saved.rules, i));
	host_set_space(&saved.space);
	give_memory();
}

static int setup(void **state)
{
	(void)state;
	memset(&saved, 0, sizeof(saved));
	host_reset();
	return rule_set_new(&saved.rules);
}

static int teardown(void **state)
{
	(void)state;
	for (size_t i = 0; i < saved.memory_count; i++)
		free(saved.memory[i].data);
	rule_set_free(saved.rules);
	host_release();
	return 0;
}

/* The first frames are those of gdb; returns how many there are. */
static size_t compare_frames(const struct event_stack *s)
{
	assert_in_range(s->frame_count, 1, STACK_FRAMES_MAX);
	assert_true(s->frame_count <= saved.frame_count);
	for (size_t i = 0; i < s->frame_count; i++) {
		if (host_address(s->frames[i]) != saved.frames[i])
			fail_msg("frame %zu is %llx instead of %llx", i,
				 (unsigned long long)host_address(s->frames[i]),
				 (unsigned long long)saved.frames[i]);
	}
	return s->frame_count;
}

static void compare(void)
{
	const struct event_stack *s = host_capture(saved.regs);
	size_t count = compare_frames(s);

	if (saved.frame_count > STACK_FRAMES_MAX) {
		assert_int_equal(s->result, UNWIND_DEPTH);
		assert_int_equal(count, STACK_FRAMES_MAX);
	} else {
		assert_int_equal(s->result, UNWIND_COMPLETE);
		assert_int_equal(count, saved.frame_count);
	}
}

static void agrees_with_gdb(void **state)
{
	uint64_t lookups, cold;

	load(*state);
	compare();
	cold = host.lookups;
	compare(); /* by the cache */
	lookups = host.lookups - cold;
	assert_true(lookups < cold);
	host_next_generation();
	compare();
	assert_true(host.lookups - cold - lookups > lookups);
	host.words_only = true; /* as if the stack were read word by word */
	compare();
}

/* Without what is above an address the stack ends there, with a reason, and what was
 * found below it stays true. */
static void cut_stacks_are_prefixes(void **state)
{
	struct host_memory *last;
	const struct event_stack *s;
	size_t count, previous;

	load(*state);
	last = &host.memory[host.memory_count - 1];
	previous = compare_frames(host_capture(saved.regs));
	for (; last->bytes >= 8; last->bytes -= 8) {
		s = host_capture(saved.regs);
		count = compare_frames(s);
		assert_true(count <= previous);
		if (s->result != UNWIND_STACK_READ) {
			assert_int_equal(count, previous);
			assert_true(s->result == UNWIND_COMPLETE || s->result == UNWIND_DEPTH);
		}
		previous = count;
	}
	assert_int_equal(host_capture(saved.regs)->result, UNWIND_STACK_READ);
}

/* A table that is not there yet ends the stack where it enters the object. */
static void a_table_that_comes_later(void **state)
{
	struct host_table kept;
	const struct event_stack *s;
	uint32_t last;

	load(*state);
	last = saved.objects;
	kept = host.tables[last];
	host.tables[last].pairs = NULL;
	s = host_capture(saved.regs);
	assert_int_equal(s->result, UNWIND_PENDING);
	assert_true(compare_frames(s) < saved.frame_count);
	host.tables[last] = kept;
	compare(); /* the answer "pending" was not cached */
}

static void no_mappings_at_all(void **state)
{
	const struct event_stack *s;

	load(*state);
	free(host.space);
	host.space = NULL;
	s = host_capture(saved.regs);
	assert_int_equal(s->result, UNWIND_NOT_READY);
	assert_int_equal(compare_frames(s), 1);
}

/* Mappings that change while a stack is walked must not leave rules under the old tag. */
static void rules_of_newer_mappings_are_not_cached(void **state)
{
	struct unwind_state *u;
	struct unwind_cached *empty;

	load(*state);
	empty = host_alloc(sizeof(host.cache));
	memset(host.cache, 0, sizeof(host.cache));
	u = &host.task->unwind;
	unwind_begin(u, &saved.regs, HOST_SLOT);
	host_next_generation();
	unwind_step(u);
	assert_memory_equal(host.cache, empty, sizeof(host.cache));
	free(empty);
}

#define IMAGE(function, name)                                                            \
	{                                                                                \
#function "_" name, function, setup, teardown, (void *)(uintptr_t)(name) \
	}
#define AGREES(name) IMAGE(agrees_with_gdb, name), IMAGE(cut_stacks_are_prefixes, name)

int main(void)
{
	const struct CMUnitTest tests[] = {
		AGREES("sort"),
		AGREES("sort_frame_pointer"),
		AGREES("sort_o0_clang"),
		AGREES("sort_static"),
		AGREES("recursion_100"),
		AGREES("recursion_200"),
		AGREES("variable_frame"),
		AGREES("signal"),
		AGREES("signal_stack"),
		AGREES("signal_in_plt"),
		AGREES("signal_in_plt_head"),
		AGREES("signal_in_plt_cet"),
		AGREES("signal_in_vdso"),
		AGREES("lazy_binding"),
		AGREES("thread"),
		AGREES("generated_code"),
		AGREES("exception_throw"),
		AGREES("exception_destructor"),
		AGREES("python"),
		AGREES("node"),
		IMAGE(a_table_that_comes_later, "sort"),
		IMAGE(no_mappings_at_all, "sort"),
		IMAGE(rules_of_newer_mappings_are_not_cached, "sort"),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
