/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>

#include "account/history.h"

static void too_early_to_tell(void **state)
{
	struct history h = {0};

	(void)state;
	assert_true(isnan(history_slope(&h)));
	history_add(&h, 5, 100);
	assert_true(isnan(history_slope(&h)));
	history_add(&h, 5, 200);
	assert_true(isnan(history_slope(&h)));
}

static void a_line_has_its_slope(void **state)
{
	struct history h = {0};

	(void)state;
	for (int i = 0; i < 10; i++)
		history_add(&h, 1e6 + i * 5, 1000 + i * 50);
	assert_true(fabs(history_slope(&h) - 10) < 1e-6);
}

static void the_past_is_forgotten(void **state)
{
	struct history h = {0};

	(void)state;
	for (int i = 0; i < 100; i++)
		history_add(&h, i, i * 1000);
	for (int i = 0; i < HISTORY_POINTS; i++)
		history_add(&h, 100 + i, 7);
	assert_true(fabs(history_slope(&h)) < 1e-6);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(too_early_to_tell),
		cmocka_unit_test(a_line_has_its_slope),
		cmocka_unit_test(the_past_is_forgotten),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
