/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sym/demangle.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void check(const char *mangled, const char *expected)
{
	char *text = demangle(mangled);

	assert_non_null(text);
	assert_string_equal(text, expected);
	free(text);
}

static void test_cplusplus(void **state)
{
	(void)state;
	check("_ZN2ns5OuterIiE4growEmPKc", "ns::Outer<int>::grow(unsigned long, char const*)");
	check("_Znwm", "operator new(unsigned long)");
	check("_ZNSt6vectorIiSaIiEE9push_backEOi",
	      "std::vector<int, std::allocator<int> >::push_back(int&&)");
	check("_ZL6helperi", "helper(int)");
	check("_Z3foov.cold", "foo() [clone .cold]");
}

static void test_rust(void **state)
{
	(void)state;
	check("_ZN5alloc5alloc15exchange_malloc17h0123456789abcdefE",
	      "alloc::alloc::exchange_malloc");
	check("_RNvNtCs1234_7mycrate3foo3bar", "mycrate::foo::bar");
}

static void test_other_names_stay(void **state)
{
	static const char names[] = "_ _Z _R malloc __libc_malloc i _ZN _Zfoo main.part.0 "
				    "\xff\xfe _Z\x80\x81 _RNvC ___Z3foov";
	char *copy = strdup(names), *at = copy, *name;

	(void)state;
	check("", "");
	while ((name = strsep(&at, " ")))
		check(name, name);
	free(copy);
}

static void test_long_names_stay(void **state)
{
	size_t length = 100000;
	char *name = malloc(length + 1);

	(void)state;
	memset(name, 'a', length);
	name[length] = '\0';
	memcpy(name, "_ZN99990", 8);
	check(name, name);
	free(name);
}

/* Each argument refers twice to the one before, so the text doubles each time. */
static void test_exponential_names_stay(void **state)
{
	static const char digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
	/* The same for Rust: tuples of two references back to the tuple before. */
	static const char rust[] =
		"_RINvC1a1fTmmETB7_B7_ETBb_Bb_ETBj_Bj_ETBr_Br_ETBz_Bz_ETBH_BH_ETBP_BP_ETBX_BX_ETB"
		"15_B15_ETB1d_B1d_ETB1n_B1n_ETB1x_B1x_ETB1H_B1H_ETB1R_B1R_ETB21_B21_ETB2b_B2b_ETB"
		"2l_B2l_ETB2v_B2v_ETB2F_B2F_ETB2P_B2P_ETB2Z_B2Z_ETB39_B39_ETB3j_B3j_ETB3t_B3t_ETB"
		"3D_B3D_ETB3N_B3N_ETB3X_B3X_ETB47_B47_ETB4h_B4h_ETB4r_B4r_ETB4B_B4B_ETB4L_B4L_ETB"
		"4V_B4V_ETB55_B55_ETB5f_B5f_ETB5p_B5p_ETB5z_B5z_ETB5J_B5J_ETB5T_B5T_ETB63_B63_EE";
	char name[512];
	size_t n, i;

	(void)state;
	alarm(20);
	n = (size_t)sprintf(name, "_Z1f1aIiiE");
	for (i = 0; i < 30; i++)
		n += (size_t)sprintf(name + n, "S_IS%c_S%c_E", digits[i], digits[i]);
	check(name, name);
	check(rust, rust);
	alarm(0);
}

static void test_random_names(void **state)
{
	static const char letters[] = "_ZRNSITEKvimPKFDp0123456789abCs7mycrate_QXLJ";
	unsigned int seed = 1;
	int i, j;

	(void)state;
	alarm(60);
	for (i = 0; i < 20000; i++) {
		char name[300] = "_Z", *text;
		int length = 2 + rand_r(&seed) % 290;

		if (i % 2)
			name[1] = 'R';
		for (j = 2; j < length; j++)
			name[j] = letters[(size_t)rand_r(&seed) % (sizeof(letters) - 1)];
		text = demangle(name);
		assert_non_null(text);
		free(text);
	}
	alarm(0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cplusplus),
		cmocka_unit_test(test_rust),
		cmocka_unit_test(test_other_names_stay),
		cmocka_unit_test(test_long_names_stay),
		cmocka_unit_test(test_exponential_names_stay),
		cmocka_unit_test(test_random_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
