/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "unwind/rule_set.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>

#include "unwind_table.h"

static struct rule_set *set;

static int setup(void **state)
{
	(void)state;
	return rule_set_new(&set);
}

static int teardown(void **state)
{
	(void)state;
	rule_set_free(set);
	return 0;
}

static struct unwind_rule numbered(int32_t number)
{
	return (struct unwind_rule){.cfa = UNWIND_CFA_BY_RSP, .offset = number};
}

static void fixed_ids(void **state)
{
	const struct unwind_rule unknown = {0};
	const struct unwind_rule end = {.cfa = UNWIND_CFA(UNWIND_CFA_END, 0)};
	uint16_t id = 7;

	(void)state;
	assert_int_equal(rule_set_count(set), 2);
	assert_int_equal(rule_set_intern(set, unknown, 0, &id), 0);
	assert_int_equal(id, UNWIND_RULE_UNKNOWN);
	assert_int_equal(rule_set_intern(set, end, 0, &id), 0);
	assert_int_equal(id, UNWIND_RULE_END);
	assert_int_equal(rule_set_count(set), 2);
	rule_set_free(NULL);
}

static void one_id_a_rule(void **state)
{
	struct unwind_rule rule = numbered(8), got;
	uint16_t first, second, other;

	(void)state;
	assert_int_equal(rule_set_intern(set, rule, 100, &first), 0);
	assert_int_equal(rule_set_intern(set, rule, 100, &second), 0);
	assert_int_equal(first, second);
	rule.rbx = 1;
	assert_int_equal(rule_set_intern(set, rule, 100, &other), 0);
	assert_int_not_equal(first, other);
	got = rule_set_get(set, other);
	assert_memory_equal(&got, &rule, sizeof(rule));
	assert_int_equal(rule_set_count(set), 4);
}

static void full_set(void **state)
{
	uint16_t id, again;
	uint32_t i;

	(void)state;
	for (i = 2; i < UNWIND_RULES_MAX; i++) {
		assert_int_equal(rule_set_intern(set, numbered((int32_t)i), UINT32_MAX, &id), 0);
		assert_int_equal(id, i);
	}
	id = 9;
	assert_int_equal(rule_set_intern(set, numbered(1), UINT32_MAX, &id), -ENOSPC);
	assert_int_equal(id, 9);
	for (i = 2; i < UNWIND_RULES_MAX; i++) {
		assert_int_equal(rule_set_intern(set, numbered((int32_t)i), 0, &again), 0);
		assert_int_equal(again, i);
	}
	assert_int_equal(rule_set_count(set), UNWIND_RULES_MAX);
}

static void callers_limit(void **state)
{
	uint16_t id;

	(void)state;
	assert_int_equal(rule_set_intern(set, numbered(1), 3, &id), 0);
	assert_int_equal(rule_set_intern(set, numbered(2), 3, &id), -ENOSPC);
	assert_int_equal(rule_set_intern(set, numbered(1), 3, &id), 0);
	assert_int_equal(rule_set_count(set), 3);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(fixed_ids),
		TEST(one_id_a_rule),
		TEST(full_set),
		TEST(callers_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
