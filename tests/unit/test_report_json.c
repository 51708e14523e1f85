/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "report/report.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "account/snapshot.h"
#include "report_sample.h"

/*
 * Types of a key, one letter each: number, string, boolean, array, object, null.
 * "sz" is a string or null.
 */
struct key {
	const char *name;
	const char *types;
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static char type_letter(const json_t *value)
{
	switch (json_typeof(value)) {
	case JSON_OBJECT:
		return 'o';
	case JSON_ARRAY:
		return 'a';
	case JSON_STRING:
		return 's';
	case JSON_INTEGER:
	case JSON_REAL:
		return 'n';
	case JSON_TRUE:
	case JSON_FALSE:
		return 'b';
	case JSON_NULL:
		return 'z';
	}
	return '?';
}

static void check_keys(const json_t *object, const struct key *keys, size_t count)
{
	assert_true(json_is_object(object));
	for (size_t i = 0; i < count; i++) {
		const json_t *value = json_object_get(object, keys[i].name);

		if (!value)
			fail_msg("no key %s", keys[i].name);
		else if (!strchr(keys[i].types, type_letter(value)))
			fail_msg("key %s is of type %c", keys[i].name, type_letter(value));
	}
}

/* To be released. Fails unless it is one line of JSON without a key named twice. */
static json_t *parse(const struct snapshot *s)
{
	char *text = report_sample_print("json", s, &(struct report_options){0});
	json_error_t error;
	json_t *root;

	assert_non_null(text);
	assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
	root = json_loads(text, JSON_REJECT_DUPLICATES, &error);
	if (!root)
		fail_msg("%s in %s", error.text, text);
	free(text);
	return root;
}

static json_t *at(const json_t *root, const char *array, size_t index)
{
	return json_array_get(json_object_get(root, array), index);
}

static json_int_t integer(const json_t *object, const char *key)
{
	assert_true(json_is_integer(json_object_get(object, key)));
	return json_integer_value(json_object_get(object, key));
}

static const char *string(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}

static bool is_null(const json_t *object, const char *key)
{
	return json_is_null(json_object_get(object, key));
}

static void top_level(void **state)
{
	static const struct key keys[] = {
		{"version", "n"},	   {"time", "s"},
		{"elapsed_s", "n"},	   {"final", "b"},
		{"coverage", "o"},	   {"loss", "o"},
		{"overhead", "o"},	   {"processes", "a"},
		{"stacks", "a"},	   {"stacks_total", "n"},
		{"total_live_bytes", "n"}, {"total_live_blocks", "n"},
	};
	struct report_sample r;
	json_t *root;

	(void)state;
	report_sample_init(&r);
	root = parse(&r.s);
	check_keys(root, keys, COUNT(keys));
	assert_int_equal(integer(root, "version"), 1);
	assert_string_equal(string(root, "time"), "2023-11-14T22:13:20.250Z");
	assert_true(json_is_false(json_object_get(root, "final")));
	assert_int_equal(integer(root, "stacks_total"), 153);
	assert_int_equal(integer(root, "total_live_bytes"), 2004535);
	assert_int_equal(integer(root, "total_live_blocks"), 102);
	assert_null(json_object_get(root, "groups"));
	json_decref(root);
}

static void coverage(void **state)
{
	static const struct key keys[] = {
		{"processes", "n"},
		{"allocators", "a"},
		{"python", "a"},
		{"stacks_complete_pct", "n"},
	};
	static const struct key allocator_keys[] = {
		{"pid", "n"},	    {"object", "s"},	{"build_id", "sz"},
		{"allocator", "s"}, {"functions", "a"}, {"return_method", "s"},
	};
	struct report_sample r;
	json_t *root, *object, *allocator;

	(void)state;
	report_sample_init(&r);
	root = parse(&r.s);
	object = json_object_get(root, "coverage");
	check_keys(object, keys, COUNT(keys));
	assert_int_equal(integer(object, "processes"), 2);
	assert_int_equal(json_array_size(json_object_get(object, "python")), 0);
	allocator = at(object, "allocators", 0);
	check_keys(allocator, allocator_keys, COUNT(allocator_keys));
	assert_string_equal(string(allocator, "build_id"), "beef");
	assert_int_equal(json_array_size(json_object_get(allocator, "functions")), 2);
	assert_string_equal(json_string_value(at(allocator, "functions", 1)), "free");
	json_decref(root);
}

static void loss_and_overhead(void **state)
{
	static const struct key loss_keys[] = {
		{"alloc_events", "n"}, {"free_events", "n"},   {"live_map_full", "n"},
		{"stacks", "n"},       {"unwind_errors", "o"}, {"live_map_full_bytes", "n"},
		{"ring_full", "n"},    {"missed_frees", "n"},  {"unwind_errors_by_object", "a"},
	};
	static const struct key overhead_keys[] = {
		{"budget_pct", "n"},
		{"measured_pct", "z"},
		{"mode", "s"},
		{"sampling_interval_bytes", "n"},
		{"over_budget", "b"},
		{"probe_hits_per_s", "n"},
		{"tracer_cpu_pct", "n"},
		{"tracer_rss_bytes", "n"},
		{"unwind_tables", "n"},
		{"unwind_table_bytes", "n"},
		{"unwind_mappings_left_out", "n"},
	};
	struct report_sample r;
	json_t *root, *loss, *overhead;

	(void)state;
	report_sample_init(&r);
	r.s.loss = (struct snapshot_loss){
		.alloc_events = 1,
		.free_events = 2,
		.live_map_full = 3,
		.live_map_full_bytes = 4,
		.stacks = 5,
		.ring_full = 6,
		.missed_frees = 7,
		.unwind_errors = {{"no_rule", 8}},
		.unwind_error_count = 1,
		.cuts = &(struct snapshot_cut){"/bin/x", "no_rule", "because", 9},
		.cut_count = 1,
	};
	root = parse(&r.s);
	loss = json_object_get(root, "loss");
	check_keys(loss, loss_keys, COUNT(loss_keys));
	assert_int_equal(integer(loss, "alloc_events"), 1);
	assert_int_equal(integer(loss, "free_events"), 2);
	assert_int_equal(integer(loss, "live_map_full"), 3);
	assert_int_equal(integer(loss, "live_map_full_bytes"), 4);
	assert_int_equal(integer(loss, "stacks"), 5);
	assert_int_equal(integer(loss, "ring_full"), 6);
	assert_int_equal(integer(loss, "missed_frees"), 7);
	assert_int_equal(json_object_size(json_object_get(loss, "unwind_errors")), 1);
	assert_int_equal(integer(json_object_get(loss, "unwind_errors"), "no_rule"), 8);
	assert_string_equal(string(at(loss, "unwind_errors_by_object", 0), "object"), "/bin/x");
	assert_string_equal(string(at(loss, "unwind_errors_by_object", 0), "reason"), "no_rule");
	assert_int_equal(integer(at(loss, "unwind_errors_by_object", 0), "count"), 9);
	overhead = json_object_get(root, "overhead");
	check_keys(overhead, overhead_keys, COUNT(overhead_keys));
	assert_string_equal(string(overhead, "mode"), "exact");
	assert_int_equal(integer(overhead, "tracer_rss_bytes"), 24536678);
	json_decref(root);
	r.s.overhead.figures.measured_pct = 1.5;
	root = parse(&r.s);
	overhead = json_object_get(root, "overhead");
	assert_true(json_real_value(json_object_get(overhead, "measured_pct")) == 1.5);
	json_decref(root);
}

static void processes(void **state)
{
	static const struct key keys[] = {
		{"pid", "n"},
		{"comm", "s"},
		{"exe", "s"},
		{"container", "oz"},
		{"cgroup", "s"},
		{"unit", "sz"},
		{"rss_bytes", "n"},
		{"live_bytes", "n"},
		{"python_live_bytes", "z"},
		{"mmap_live_bytes", "n"},
		{"allocator_free_bytes", "nz"},
		{"file_and_shared_bytes", "n"},
		{"untracked_bytes", "nz"},
		{"growth_bytes_per_s", "nz"},
		{"limit_bytes", "z"},
		{"seconds_to_limit", "z"},
		{"verdict", "z"},
		{"live_blocks", "n"},
		{"mmap_live_blocks", "n"},
	};
	struct report_sample r;
	json_t *root, *first, *second, *container;

	(void)state;
	report_sample_init(&r);
	r.processes[0].allocator_free_bytes = 77;
	r.processes[0].untracked_bytes = -5;
	root = parse(&r.s);
	assert_int_equal(json_array_size(json_object_get(root, "processes")), 2);
	first = at(root, "processes", 0);
	second = at(root, "processes", 1);
	check_keys(first, keys, COUNT(keys));
	check_keys(second, keys, COUNT(keys));
	container = json_object_get(first, "container");
	assert_string_equal(string(container, "id"), "0123456789abcdef");
	assert_string_equal(string(container, "name"), "web");
	assert_string_equal(string(container, "runtime"), "docker");
	assert_int_equal(integer(first, "pid"), 4711);
	assert_int_equal(integer(first, "allocator_free_bytes"), 77);
	assert_int_equal(integer(first, "untracked_bytes"), -5);
	assert_true(is_null(first, "unit"));
	assert_true(is_null(second, "container"));
	assert_true(is_null(second, "allocator_free_bytes"));
	assert_true(is_null(second, "untracked_bytes"));
	assert_true(is_null(second, "growth_bytes_per_s"));
	assert_string_equal(string(second, "unit"), "w.service");
	json_decref(root);
}

static const struct key stack_keys[] = {
	{"rank", "n"},
	{"id", "s"},
	{"pids", "a"},
	{"live_bytes", "n"},
	{"live_bytes_ci95", "a"},
	{"live_blocks", "n"},
	{"growth_bytes_per_s", "nz"},
	{"allocated_bytes", "n"},
	{"freed_bytes", "n"},
	{"oldest_s", "n"},
	{"domain", "s"},
	{"types", "a"},
	{"verdict", "z"},
	{"frames", "a"},
	{"allocated_blocks", "n"},
	{"freed_blocks", "n"},
};

static void stacks(void **state)
{
	struct report_sample r;
	json_t *root, *first, *second, *interval;

	(void)state;
	report_sample_init(&r);
	root = parse(&r.s);
	first = at(root, "stacks", 0);
	second = at(root, "stacks", 1);
	check_keys(first, stack_keys, COUNT(stack_keys));
	check_keys(second, stack_keys, COUNT(stack_keys));
	assert_int_equal(integer(first, "rank"), 1);
	assert_int_equal(integer(second, "rank"), 2);
	assert_string_equal(string(second, "id"), "000000000000beef");
	assert_string_equal(string(first, "domain"), "mmap");
	assert_string_equal(string(second, "domain"), "malloc");
	assert_int_equal(json_integer_value(at(first, "pids", 1)), 12);
	interval = json_object_get(second, "live_bytes_ci95");
	assert_int_equal(json_array_size(interval), 2);
	assert_int_equal(json_integer_value(json_array_get(interval, 0)), 955959);
	assert_int_equal(json_integer_value(json_array_get(interval, 1)), 955959);
	assert_int_equal(json_array_size(json_object_get(second, "types")), 0);
	assert_int_equal(integer(second, "allocated_blocks"), 201);
	assert_int_equal(integer(second, "freed_blocks"), 100);
	assert_int_equal(integer(second, "freed_bytes"), 1000000);
	assert_true(is_null(first, "growth_bytes_per_s"));
	json_decref(root);
}

static void frames(void **state)
{
	static const struct key keys[] = {
		{"lang", "s"},	 {"function", "sz"}, {"file", "sz"},   {"line", "nz"},
		{"module", "s"}, {"build_id", "sz"}, {"offset", "nz"}, {"inlined", "b"},
	};
	struct report_sample r;
	json_t *root, *stack, *frame;

	(void)state;
	report_sample_init(&r);
	root = parse(&r.s);
	stack = at(root, "stacks", 1);
	assert_int_equal(json_array_size(json_object_get(stack, "frames")), 4);
	for (size_t i = 0; i < 4; i++)
		check_keys(at(stack, "frames", i), keys, COUNT(keys));
	frame = at(stack, "frames", 0);
	assert_true(json_is_true(json_object_get(frame, "inlined")));
	assert_int_equal(integer(frame, "line"), 7);
	assert_int_equal(integer(frame, "offset"), 0x31a9);
	frame = at(stack, "frames", 2);
	assert_string_equal(string(frame, "lang"), "python");
	assert_true(is_null(frame, "offset"));
	assert_true(is_null(frame, "build_id"));
	frame = at(stack, "frames", 3);
	assert_string_equal(string(frame, "lang"), "native");
	assert_true(is_null(frame, "function"));
	assert_true(is_null(frame, "file"));
	assert_true(is_null(frame, "line"));
	json_decref(root);
}

static void groups(void **state)
{
	static const struct key keys[] = {
		{"name", "s"},
		{"live_bytes", "n"},
		{"live_blocks", "n"},
		{"growth_bytes_per_s", "nz"},
	};
	struct report_sample r;
	json_t *root;

	(void)state;
	report_sample_init(&r);
	r.s.groups = r.groups;
	r.s.group_count = 2;
	r.s.group_kind = "function";
	root = parse(&r.s);
	assert_string_equal(string(root, "group_kind"), "function");
	check_keys(at(root, "groups", 0), keys, COUNT(keys));
	assert_string_equal(string(at(root, "groups", 1), "name"), "a\nb");
	json_decref(root);
}

static void empty_and_unknown(void **state)
{
	struct snapshot s = {.time_s = NAN, .elapsed_s = NAN, .stacks_complete_pct = NAN};
	json_t *root;

	(void)state;
	root = parse(&s);
	assert_true(is_null(root, "time"));
	assert_true(is_null(root, "elapsed_s"));
	assert_true(is_null(json_object_get(root, "coverage"), "stacks_complete_pct"));
	assert_int_equal(json_array_size(json_object_get(root, "stacks")), 0);
	json_decref(root);
	s.time_s = 1e300;
	root = parse(&s);
	assert_true(is_null(root, "time"));
	json_decref(root);
	s.time_s = 0.9996; /* rounds up into the next second */
	root = parse(&s);
	assert_string_equal(string(root, "time"), "1970-01-01T00:00:01.000Z");
	json_decref(root);
}

static void estimates_have_an_interval(void **state)
{
	struct report_sample r;
	json_t *root, *stack;

	(void)state;
	report_sample_init(&r);
	r.s.overhead.figures.mode = "sampled";
	r.s.overhead.figures.interval_bytes = 65536;
	r.stacks[0].live_bytes_ci95 = (struct interval){1000, 2000.5};
	root = parse(&r.s);
	assert_int_equal(integer(json_object_get(root, "overhead"), "sampling_interval_bytes"),
			 65536);
	stack = json_array_get(json_object_get(root, "stacks"), 0);
	assert_int_equal(json_number_value(at(stack, "live_bytes_ci95", 0)), 1000);
	assert_true(json_number_value(at(stack, "live_bytes_ci95", 1)) == 2000.5);
	json_decref(root);
}

#define FFFD "\xef\xbf\xbd"

static void hostile_names(void **state)
{
	static const char *const names[][2] = {
		{"\"},{\"pid\":1", "\"},{\"pid\":1"},
		{"two\nlines\r", "two\nlines\r"},
		{"\x1b]0;title\x07", "\x1b]0;title\x07"},
		{"\x80\xbf", FFFD FFFD},
		{"\xc0\xaf", FFFD FFFD},
		{"\xed\xa0\x80", FFFD FFFD FFFD},
		{"cut\xf0\x9f", "cut" FFFD FFFD},
		{"\\", "\\"},
		{"", ""},
	};
	struct report_sample r;

	(void)state;
	for (size_t i = 0; i < COUNT(names); i++) {
		json_t *root, *process, *frame;

		report_sample_init(&r);
		r.processes[0].comm = r.processes[0].exe = names[i][0];
		r.processes[0].container_name = r.processes[0].cgroup = names[i][0];
		r.frames[0].function = r.frames[0].module = r.frames[0].file = names[i][0];
		r.allocator.object = names[i][0];
		root = parse(&r.s);
		process = at(root, "processes", 0);
		frame = at(at(root, "stacks", 1), "frames", 0);
		assert_string_equal(string(process, "comm"), names[i][1]);
		assert_string_equal(string(process, "exe"), names[i][1]);
		assert_string_equal(string(process, "cgroup"), names[i][1]);
		assert_string_equal(string(json_object_get(process, "container"), "name"),
				    names[i][1]);
		assert_string_equal(string(frame, "function"), names[i][1]);
		assert_string_equal(string(frame, "module"), names[i][1]);
		assert_string_equal(string(frame, "file"), names[i][1]);
		json_decref(root);
	}
}

static void long_names(void **state)
{
	struct report_sample r;
	char name[4097];
	json_t *root;

	(void)state;
	memset(name, '\x1b', 4096);
	name[4096] = '\0';
	report_sample_init(&r);
	r.frames[0].function = name;
	root = parse(&r.s);
	assert_string_equal(string(at(at(root, "stacks", 1), "frames", 0), "function"), name);
	json_decref(root);
}

static void python(void **state)
{
	static const struct key keys[] = {
		{"pid", "n"},	 {"version", "s"},   {"objects", "s"},	  {"reason", "sz"},
		{"frames", "b"}, {"freelists", "b"}, {"redirected", "b"},
	};
	struct report_sample r;
	json_t *root, *stack, *process;

	(void)state;
	report_sample_init(&r);
	report_sample_python(&r);
	root = parse(&r.s);
	process = at(json_object_get(root, "coverage"), "python", 0);
	check_keys(process, keys, COUNT(keys));
	assert_string_equal(string(process, "version"), "3.11.2");
	assert_string_equal(string(process, "objects"), "large-only");
	assert_int_equal(integer(at(root, "processes", 0), "python_live_bytes"), 5664);
	assert_true(is_null(at(root, "processes", 1), "python_live_bytes"));
	stack = at(root, "stacks", 1);
	assert_string_equal(string(stack, "domain"), "pymalloc");
	assert_string_equal(string(at(stack, "types", 0), "name"), "app.Connection");
	assert_int_equal(integer(at(stack, "types", 0), "blocks"), 100);
	assert_int_equal(integer(at(stack, "types", 0), "bytes"), 5600);
	assert_string_equal(string(at(stack, "types", 1), "name"), "a\nb");
	json_decref(root);
}

static void write_errors(void **state)
{
	struct report_sample r;

	(void)state;
	report_sample_init(&r);
	assert_int_equal(report_sample_to_closed_pipe("json", &r.s), -EPIPE);
	assert_int_equal(report_sample_to_full_disk("json", &r.s), -ENOSPC);
}

static void formats_are_found(void **state)
{
	(void)state;
	assert_string_equal(report_format_find("json")->name, "json");
	assert_string_equal(report_format_find("text")->name, "text");
	assert_string_equal(report_format_find("folded")->name, "folded");
	assert_null(report_format_find("JSON"));
	assert_null(report_format_find(""));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(top_level),
		cmocka_unit_test(coverage),
		cmocka_unit_test(loss_and_overhead),
		cmocka_unit_test(processes),
		cmocka_unit_test(stacks),
		cmocka_unit_test(frames),
		cmocka_unit_test(groups),
		cmocka_unit_test(empty_and_unknown),
		cmocka_unit_test(estimates_have_an_interval),
		cmocka_unit_test(python),
		cmocka_unit_test(hostile_names),
		cmocka_unit_test(long_names),
		cmocka_unit_test(write_errors),
		cmocka_unit_test(formats_are_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
