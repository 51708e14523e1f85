/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The watcher on real children, with a clock that the test moves: minutes pass at once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "child.h"
#include "target/selector.h"
#include "watch/watch_report.h"
#include "watch/watcher.h"

#define KIB 1024
#define STEP_BYTES (64 * KIB)
#define STEPS_MAX 600

/* A child that touches STEP_BYTES more for each byte it is sent. */
struct grower {
	pid_t pid;
	int to, from;
};

static void grow(int in, int out)
{
	char *memory = mmap(NULL, (size_t)STEP_BYTES * STEPS_MAX, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char c;

	madvise(memory, (size_t)STEP_BYTES * STEPS_MAX, MADV_NOHUGEPAGE);
	for (size_t n = 0; n < STEPS_MAX && read(in, &c, 1) == 1; n++) {
		memset(memory + n * STEP_BYTES, 1, STEP_BYTES);
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
		prctl(PR_SET_NAME, "grow\033[2J");
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

static void grower_step(const struct grower *g)
{
	char c = 'x';

	assert_int_equal(write(g->to, &c, 1), 1);
	assert_int_equal(read(g->from, &c, 1), 1);
}

static void grower_stop(struct grower *g)
{
	close(g->to);
	close(g->from);
	child_stop(g->pid);
}

struct scene {
	struct selector *selector;
	struct watcher *watcher;
	struct grower grower;
	pid_t steady;
};

/* @ticks seconds, of which the first @growing see the grower a step larger each. */
static void scene_make(struct scene *s, int ticks, int growing)
{
	s->grower = grower_start();
	s->steady = child_start(NULL, NULL);
	s->selector = selector_new();
	assert_int_equal(selector_add_pid(s->selector, s->grower.pid), 0);
	assert_int_equal(selector_add_pid(s->selector, s->steady), 0);
	assert_int_equal(watcher_new(s->selector, false, &s->watcher), 0);
	for (int i = 0; i < ticks; i++) {
		if (i < growing)
			grower_step(&s->grower);
		assert_int_equal(watcher_tick(s->watcher, 1000 + i), 0);
	}
}

static void scene_release(struct scene *s)
{
	watcher_free(s->watcher);
	selector_free(s->selector);
	grower_stop(&s->grower);
	child_stop(s->steady);
}

static struct watch_report *scene_report(struct scene *s)
{
	struct watch_report *r;

	assert_int_equal(watcher_report(s->watcher, false, &r), 0);
	return r;
}

static void the_growing_one_is_on_top(void **state)
{
	struct watch_suspect suspects[4];
	struct watch_report *r;
	struct scene s;

	(void)state;
	scene_make(&s, 90, 90);
	r = scene_report(&s);
	assert_int_equal(r->process_count, 2);
	assert_int_equal(r->processes[0].pid, s.grower.pid);
	assert_true(r->processes[0].trend.suspicious);
	assert_non_null(r->processes[0].trend.why);
	assert_true(fabs(r->processes[0].trend.growth_bytes_per_s - STEP_BYTES) <
		    0.02 * STEP_BYTES);
	assert_true(r->processes[0].trend.growth_low <= STEP_BYTES + 1);
	assert_true(r->processes[0].trend.growth_high >= STEP_BYTES - 1);
	assert_false(isnan(r->processes[0].trend.seconds_to_limit));
	assert_false(r->processes[1].trend.suspicious);
	assert_true(isnan(r->processes[1].trend.seconds_to_limit));
	assert_true(r->elapsed_s == 89);
	assert_int_equal(watcher_most_suspicious(s.watcher, suspects, 4), 1);
	assert_int_equal(suspects[0].pid, s.grower.pid);
	assert_true(suspects[0].score > 0.9 * STEP_BYTES);
	assert_int_equal(watcher_most_suspicious(s.watcher, suspects, 0), 0);
	watch_report_free(r);
	scene_release(&s);
}

static void one_that_stopped_is_not_suspicious(void **state)
{
	struct watch_report *r;
	struct scene s;

	(void)state;
	scene_make(&s, 130, 60);
	r = scene_report(&s);
	assert_false(r->processes[0].trend.suspicious);
	assert_int_equal(watcher_most_suspicious(s.watcher, &(struct watch_suspect){0}, 1), 0);
	watch_report_free(r);
	scene_release(&s);
}

static void too_early_is_unknown(void **state)
{
	struct watch_report *r;
	struct scene s;

	(void)state;
	scene_make(&s, 2, 2);
	r = scene_report(&s);
	assert_true(isnan(r->processes[0].trend.growth_bytes_per_s));
	assert_false(r->processes[0].trend.suspicious);
	watch_report_free(r);
	scene_release(&s);
}

static void one_that_ends_is_forgotten(void **state)
{
	struct watch_report *r;
	struct scene s;

	(void)state;
	scene_make(&s, 3, 3);
	grower_stop(&s.grower);
	assert_int_equal(watcher_tick(s.watcher, 2000), 0);
	r = scene_report(&s);
	assert_int_equal(r->process_count, 1);
	assert_int_equal(watcher_process_count(s.watcher), 1);
	assert_int_equal(r->processes[0].pid, s.steady);
	watch_report_free(r);
	s.grower = grower_start();
	scene_release(&s);
}

static char *render(const struct watch_report *r, watch_render_fn *fn, size_t top)
{
	struct watch_format_options options = {.top = top};
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	assert_int_equal(watch_report_write(f, r, &options, fn), 0);
	fclose(f);
	return text;
}

static void json_keeps_the_contract(void **state)
{
	static const char *const names[] = {"pid",	  "comm",	 "exe",
					    "container",  "cgroup",	 "unit",
					    "rss_bytes",  "anon_bytes",	 "swap_bytes",
					    "suspicious", "limit_bytes", "seconds_to_limit",
					    "why",	  "growth_ci95", "growth_bytes_per_s"};
	json_t *root, *first, *interval;
	struct watch_report *r;
	struct scene s;
	char *text;

	(void)state;
	scene_make(&s, 70, 70);
	r = scene_report(&s);
	text = render(r, watch_format_find("json"), 10);
	assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
	root = json_loads(text, 0, NULL);
	assert_non_null(root);
	assert_string_equal(json_string_value(json_object_get(root, "mode")), "watch");
	assert_int_equal(json_integer_value(json_object_get(root, "version")), 1);
	assert_true(json_is_false(json_object_get(root, "final")));
	assert_true(json_is_array(json_object_get(root, "cgroups")));
	first = json_array_get(json_object_get(root, "processes"), 0);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		assert_non_null(json_object_get(first, names[i]));
	assert_int_equal(json_integer_value(json_object_get(first, "pid")), s.grower.pid);
	interval = json_object_get(first, "growth_ci95");
	assert_int_equal(json_array_size(interval), 2);
	json_decref(root);
	free(text);
	watch_report_free(r);
	scene_release(&s);
}

static void text_is_safe_and_short(void **state)
{
	struct watch_report *r;
	struct scene s;
	char *text, *json;

	(void)state;
	scene_make(&s, 70, 70);
	r = scene_report(&s);
	text = render(r, watch_format_find("text"), 1);
	assert_null(strchr(text, '\033'));
	assert_non_null(strstr(text, "grow\\x1b[2J"));
	assert_non_null(strstr(text, "1 grows"));
	assert_non_null(strstr(text, "and 1 more"));
	assert_non_null(strstr(text, "rose throughout"));
	json = render(r, watch_format_find("json"), 1);
	assert_null(strchr(json, '\033'));
	assert_null(watch_format_find("folded"));
	free(text);
	free(json);
	watch_report_free(r);
	scene_release(&s);
}

static void a_full_device_is_an_error(void **state)
{
	struct watch_format_options options = {.top = 1};
	struct watch_report r = {.tracer_cpu_pct = NAN};
	FILE *full = fopen("/dev/full", "we");

	(void)state;
	assert_non_null(full);
	assert_true(watch_report_write(full, &r, &options, watch_render_json) < 0);
	fclose(full);
}

static void everything_is_watched_but_ourselves(void **state)
{
	struct watcher *w;
	struct watch_report *r;
	pid_t child = child_start(NULL, NULL);
	bool found = false;

	(void)state;
	assert_int_equal(watcher_new(NULL, true, &w), 0);
	assert_int_equal(watcher_tick(w, 1), 0);
	assert_int_equal(watcher_tick(w, 2), 0);
	assert_int_equal(watcher_report(w, true, &r), 0);
	assert_true(r->final);
	for (size_t i = 0; i < r->process_count; i++) {
		assert_int_not_equal(r->processes[i].pid, getpid());
		found |= r->processes[i].pid == child;
	}
	assert_true(found);
	assert_true(r->host_total_bytes >= r->host_available_bytes);
	assert_true(r->tracer_rss_bytes > 0);
	watch_report_free(r);
	watcher_free(w);
	child_stop(child);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_growing_one_is_on_top),
		cmocka_unit_test(one_that_stopped_is_not_suspicious),
		cmocka_unit_test(too_early_is_unknown),
		cmocka_unit_test(one_that_ends_is_forgotten),
		cmocka_unit_test(json_keeps_the_contract),
		cmocka_unit_test(text_is_safe_and_short),
		cmocka_unit_test(a_full_device_is_an_error),
		cmocka_unit_test(everything_is_watched_but_ourselves),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
