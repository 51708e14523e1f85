/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "account/mappings.h"

static int setup(void **state)
{
	*state = mappings_new();
	return *state ? 0 : -1;
}

static int teardown(void **state)
{
	mappings_free(*state);
	return 0;
}

static void expect(const struct mappings *m, size_t count, const uint64_t (*ranges)[2])
{
	assert_int_equal(mappings_count(m), count);
	for (size_t i = 0; i < count; i++) {
		assert_int_equal(mappings_at(m, i)->start, ranges[i][0]);
		assert_int_equal(mappings_at(m, i)->end, ranges[i][1]);
	}
}

static void unmapping_the_middle_leaves_two(void **state)
{
	assert_int_equal(mappings_add(*state, 0x1000, 0x3000, 1, 7), 0);
	assert_int_equal(mappings_remove(*state, 0x2000, 0x1000, 2), 0);
	expect(*state, 2, (const uint64_t[][2]){{0x1000, 0x2000}, {0x3000, 0x4000}});
	assert_int_equal(mappings_at(*state, 1)->stack_id, 7);
}

static void unmapping_across_several(void **state)
{
	for (uint64_t i = 0; i < 4; i++)
		assert_int_equal(mappings_add(*state, 0x10000 + i * 0x1000, 0x1000, 1, 1), 0);
	assert_int_equal(mappings_remove(*state, 0x10800, 0x2000, 2), 0);
	expect(*state, 3,
	       (const uint64_t[][2]){{0x10000, 0x10800}, {0x12800, 0x13000}, {0x13000, 0x14000}});
}

static void a_removal_spares_what_was_born_after_it_began(void **state)
{
	/* Thread A entered munmap at 10; thread B was given the range at 20; A returns. */
	assert_int_equal(mappings_add(*state, 0x1000, 0x1000, 20, 2), 0);
	assert_int_equal(mappings_remove(*state, 0x1000, 0x1000, 10), 0);
	expect(*state, 1, (const uint64_t[][2]){{0x1000, 0x2000}});
}

static void a_new_mapping_replaces_what_was_there(void **state)
{
	assert_int_equal(mappings_add(*state, 0x1000, 0x4000, 1, 1), 0);
	assert_int_equal(mappings_add(*state, 0x2000, 0x1000, 2, 2), 0);
	expect(*state, 3,
	       (const uint64_t[][2]){{0x1000, 0x2000}, {0x2000, 0x3000}, {0x3000, 0x5000}});
	assert_int_equal(mappings_at(*state, 1)->stack_id, 2);
}

static void a_moved_mapping_keeps_its_birth_and_stack(void **state)
{
	assert_int_equal(mappings_add(*state, 0x1000, 0x1000, 5, 9), 0);
	assert_int_equal(mappings_move(*state, 0x1000, 0x1000, 0x9000, 0x3000, 10, 11, 3), 0);
	expect(*state, 1, (const uint64_t[][2]){{0x9000, 0xc000}});
	assert_int_equal(mappings_at(*state, 0)->stack_id, 9);
	assert_int_equal(mappings_at(*state, 0)->birth_ns, 5);
}

static void a_mapping_from_before_gets_the_movers_stack(void **state)
{
	assert_int_equal(mappings_move(*state, 0x1000, 0x1000, 0x9000, 0x3000, 10, 11, 3), 0);
	expect(*state, 1, (const uint64_t[][2]){{0x9000, 0xc000}});
	assert_int_equal(mappings_at(*state, 0)->stack_id, 3);
}

static void only_what_is_really_mapped_stays(void **state)
{
	const struct mapping_range present[] = {{.start = 0x1000, .end = 0x2000},
						{.start = 0x2000, .end = 0x2800},
						{.start = 0x8000, .end = 0x9000}};

	assert_int_equal(mappings_add(*state, 0x1000, 0x4000, 1, 1), 0);
	assert_int_equal(mappings_add(*state, 0x6000, 0x1000, 1, 1), 0);
	assert_int_equal(mappings_add(*state, 0xa000, 0x1000, 99, 1), 0);
	assert_int_equal(mappings_intersect(*state, present, 3, 50), 0);
	expect(*state, 2, (const uint64_t[][2]){{0x1000, 0x2800}, {0xa000, 0xb000}});
}

static void nonsense_is_ignored(void **state)
{
	assert_int_equal(mappings_add(*state, 0x1000, 0, 1, 1), 0);
	assert_int_equal(mappings_add(*state, UINT64_MAX - 10, 100, 1, 1), 0);
	assert_int_equal(mappings_remove(*state, UINT64_MAX - 10, 100, 2), 0);
	assert_int_equal(mappings_count(*state), 0);
}

/* Against a plain array of pages. */
static void random_work_agrees_with_a_page_array(void **state)
{
	enum {
		PAGES = 200,
		STEPS = 20000
	};
	uint32_t truth[PAGES] = {0};

	srand(1);
	for (uint32_t step = 1; step < STEPS; step++) {
		uint64_t start = (uint64_t)(rand() % PAGES);
		uint64_t length = (uint64_t)(1 + rand() % 20);

		if (start + length > PAGES)
			continue;
		if (rand() % 2)
			assert_int_equal(mappings_add(*state, start, length, step, step), 0);
		else
			assert_int_equal(mappings_remove(*state, start, length, step), 0);
		for (uint64_t p = start; p < start + length; p++)
			truth[p] = 0;
		for (size_t i = 0; i < mappings_count(*state); i++)
			if (mappings_at(*state, i)->birth_ns == step)
				for (uint64_t p = start; p < start + length; p++)
					truth[p] = step;
	}
	for (size_t i = 0; i < mappings_count(*state); i++) {
		const struct mapping_range *r = mappings_at(*state, i);

		for (uint64_t p = r->start; p < r->end; p++) {
			assert_int_equal(truth[p], r->stack_id);
			truth[p] = 0;
		}
	}
	for (int p = 0; p < PAGES; p++)
		assert_int_equal(truth[p], 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(unmapping_the_middle_leaves_two, setup, teardown),
		cmocka_unit_test_setup_teardown(unmapping_across_several, setup, teardown),
		cmocka_unit_test_setup_teardown(a_removal_spares_what_was_born_after_it_began,
						setup, teardown),
		cmocka_unit_test_setup_teardown(a_new_mapping_replaces_what_was_there, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_moved_mapping_keeps_its_birth_and_stack, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_mapping_from_before_gets_the_movers_stack, setup,
						teardown),
		cmocka_unit_test_setup_teardown(only_what_is_really_mapped_stays, setup, teardown),
		cmocka_unit_test_setup_teardown(nonsense_is_ignored, setup, teardown),
		cmocka_unit_test_setup_teardown(random_work_agrees_with_a_page_array, setup,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
