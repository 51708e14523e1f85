/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "report/units.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>

#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)

static void counts(void **state)
{
	(void)state;
	assert_string_equal(units_count(0).s, "0");
	assert_string_equal(units_count(999).s, "999");
	assert_string_equal(units_count(1000).s, "1,000");
	assert_string_equal(units_count(81920).s, "81,920");
	assert_string_equal(units_count(123456).s, "123,456");
	assert_string_equal(units_count(UINT64_MAX).s, "18,446,744,073,709,551,615");
	assert_string_equal(units_signed_count(-1234).s, "-1,234");
	assert_string_equal(units_signed_count(0).s, "0");
	assert_string_equal(units_signed_count(INT64_MIN).s, "-9,223,372,036,854,775,808");
}

static void bytes(void **state)
{
	(void)state;
	assert_string_equal(units_bytes(0).s, "0 B");
	assert_string_equal(units_bytes(1023).s, "1023 B");
	assert_string_equal(units_bytes(1024).s, "1.0 KiB");
	assert_string_equal(units_bytes(1536).s, "1.5 KiB");
	assert_string_equal(units_bytes(1024 * KIB - 1).s, "1.0 MiB");
	assert_string_equal(units_bytes(1023 * KIB + 900).s, "1023.9 KiB");
	assert_string_equal(units_bytes(2 * KIB - 1).s, "2.0 KiB");
	assert_string_equal(units_bytes(12 * MIB + 400 * KIB).s, "12.4 MiB");
	assert_string_equal(units_bytes(1024 * 1024 * MIB).s, "1.0 TiB");
	assert_string_equal(units_bytes(UINT64_MAX).s, "16.0 EiB");
	assert_string_equal(units_signed_bytes(-1536).s, "-1.5 KiB");
	assert_string_equal(units_signed_bytes(INT64_MIN).s, "-8.0 EiB");
}

static void growth(void **state)
{
	(void)state;
	assert_string_equal(units_growth(0).s, "0 B");
	assert_string_equal(units_growth(-0.0).s, "0 B");
	assert_string_equal(units_growth(-0.01).s, "0 B");
	assert_string_equal(units_growth(0.4).s, "+0.4 B");
	assert_string_equal(units_growth(-12).s, "-12.0 B");
	assert_string_equal(units_growth(1023.9).s, "+1023.9 B");
	assert_string_equal(units_growth(1023.99).s, "+1.0 KiB");
	assert_string_equal(units_growth(10240).s, "+10.0 KiB");
	assert_string_equal(units_growth(-1536).s, "-1.5 KiB");
	assert_string_equal(units_growth(NAN).s, "-");
	assert_string_equal(units_growth(INFINITY).s, "+888.2 PiB"); /* clamped */
	assert_string_equal(units_growth(-INFINITY).s, "-888.2 PiB");
}

static void durations(void **state)
{
	(void)state;
	assert_string_equal(units_duration(0).s, "0.0 s");
	assert_string_equal(units_duration(-3).s, "0.0 s");
	assert_string_equal(units_duration(12.34).s, "12.3 s");
	assert_string_equal(units_duration(119.9).s, "119.9 s");
	assert_string_equal(units_duration(120).s, "2.0 min");
	assert_string_equal(units_duration(3 * 3600 + 1800).s, "3.5 h");
	assert_string_equal(units_duration(10 * 86400).s, "10.0 d");
	assert_string_equal(units_duration(NAN).s, "-");
	assert_string_equal(units_duration(INFINITY).s, "1,000,000,000,000,000.0 d");
}

static void decimals(void **state)
{
	(void)state;
	assert_string_equal(units_decimal(12345.64).s, "12,345.6");
	assert_string_equal(units_decimal(0.06).s, "0.1");
	assert_string_equal(units_decimal(-0.01).s, "0.0");
	assert_string_equal(units_decimal(-1.25).s, "-1.3");
	assert_string_equal(units_decimal(99.99).s, "100.0");
	assert_string_equal(units_decimal(NAN).s, "-");
	assert_string_equal(units_decimal(-INFINITY).s, "-1,000,000,000,000,000.0");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(counts),    cmocka_unit_test(bytes),	 cmocka_unit_test(growth),
		cmocka_unit_test(durations), cmocka_unit_test(decimals),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
