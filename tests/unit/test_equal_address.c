/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "python/alloc_tables.h"
#include "python/equal_address.h"
#include "python/inlined_copies.h"

#define BASE 0x4fb400ull

/* A text: what is put in one after the other. */
struct text {
	uint8_t bytes[1024];
	size_t count;
};

static void put(struct text *t, const void *bytes, size_t count)
{
	assert_true(t->count + count <= sizeof(t->bytes));
	memcpy(t->bytes + t->count, bytes, count);
	t->count += count;
}

#define PUT(t, ...) put(t, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

#define PUSH_RBX 0x53
#define RET 0xc3
#define NOP5 0x0f, 0x1f, 0x44, 0x00, 0x00
#define NOP10 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00
#define ENDBR64 0xf3, 0x0f, 0x1e, 0xfa

static uint64_t here(const struct text *t)
{
	return BASE + t->count;
}

static uint64_t equal(const struct text *t, uint64_t function)
{
	uint64_t address = equal_address(t->bytes, t->count, BASE, function);

	if (address)
		assert_int_equal(equal_target(t->bytes, t->count, BASE, address), function);
	return address;
}

/* A function of some length, so that what follows has something before it. */
static void put_body(struct text *t)
{
	for (int i = 0; i < 40; i++)
		PUT(t, 0x48, 0x89, 0xfb, PUSH_RBX, 0x48, 0x83, 0xc0, 0x10);
	PUT(t, RET);
}

static void padding_is_taken(void **state)
{
	struct text t = {0};
	uint64_t f;

	(void)state;
	put_body(&t);
	PUT(&t, NOP5);
	f = here(&t);
	PUT(&t, PUSH_RBX, RET);
	assert_int_equal(equal(&t, f), f - 5);
}

static void nearest_padding_of_several(void **state)
{
	struct text t = {0};
	uint64_t f;

	(void)state;
	put_body(&t);
	PUT(&t, NOP10, 0x66, 0x90);
	f = here(&t);
	PUT(&t, PUSH_RBX, RET);
	assert_int_equal(equal(&t, f), f - 2);
}

/* The last five bytes of the longer one would do, but no instruction starts there. */
static void padding_is_not_cut(void **state)
{
	struct text t = {0};
	uint64_t f;

	(void)state;
	put_body(&t);
	PUT(&t, 0x66, NOP5);
	f = here(&t);
	PUT(&t, PUSH_RBX, RET);
	assert_int_equal(equal(&t, f), f - 6);
}

/* mov $0x90901234, %eax falls into the function: what looks like no-ops is its operand. */
static void operands_are_no_padding(void **state)
{
	struct text t = {0};
	uint64_t f;

	(void)state;
	put_body(&t);
	PUT(&t, 0xb8, 0x34, 0x12, 0x90, 0x90);
	f = here(&t);
	PUT(&t, PUSH_RBX, RET);
	assert_int_equal(equal(&t, f), 0);
}

static void traps_are_no_padding(void **state)
{
	struct text t = {0};
	uint64_t f;

	(void)state;
	put_body(&t);
	PUT(&t, 0xcc, 0xcc, 0xcc, 0xf3, 0x90); /* pause is no no-op either */
	f = here(&t);
	PUT(&t, PUSH_RBX, RET);
	assert_int_equal(equal(&t, f), 0);
}

static void behind_endbr64(void **state)
{
	struct text t = {0};
	uint64_t f;

	(void)state;
	put_body(&t);
	f = here(&t);
	PUT(&t, ENDBR64, PUSH_RBX, RET);
	assert_int_equal(equal(&t, f), f + 4);
}

static void padding_rather_than_endbr64(void **state)
{
	struct text t = {0};
	uint64_t f;

	(void)state;
	put_body(&t);
	PUT(&t, 0x90);
	f = here(&t);
	PUT(&t, ENDBR64, PUSH_RBX, RET);
	assert_int_equal(equal(&t, f), f - 1);
}

/* At ...00 the address of the padding differs in two bytes, what is behind endbr64 in one. */
static void one_byte_rather_than_two(void **state)
{
	struct text t = {0};
	uint64_t f;

	(void)state;
	while (t.count < 507)
		PUT(&t, RET);
	PUT(&t, NOP5);
	f = here(&t);
	assert_int_equal(f & 0xff, 0);
	PUT(&t, ENDBR64, PUSH_RBX, RET);
	assert_int_equal(equal(&t, f), f + 4);
}

static void jump_to_the_function(void **state)
{
	uint64_t f, jump;
	struct text t = {0};
	int32_t distance;

	(void)state;
	put_body(&t);
	f = here(&t);
	PUT(&t, PUSH_RBX, RET);
	put_body(&t);
	jump = here(&t);
	distance = (int32_t)(f - (jump + 5));
	PUT(&t, 0xe9);
	put(&t, &distance, sizeof(distance));
	put_body(&t);
	assert_int_equal(equal(&t, f), jump);
}

static void short_jump_to_the_function(void **state)
{
	uint64_t f, jump;
	struct text t = {0};

	(void)state;
	put_body(&t);
	f = here(&t);
	PUT(&t, PUSH_RBX, RET);
	jump = here(&t);
	PUT(&t, 0xeb, (uint8_t)(f - (jump + 2)), RET);
	assert_int_equal(equal(&t, f), jump);
}

/* mov $..., %rax whose operand is a jump to the function. */
static void hidden_jumps_are_none(void **state)
{
	struct text t = {0};
	int32_t distance;
	uint64_t f;

	(void)state;
	put_body(&t);
	f = here(&t);
	PUT(&t, PUSH_RBX, RET);
	put_body(&t);
	distance = (int32_t)(f - (here(&t) + 2 + 5));
	PUT(&t, 0x48, 0xb8, 0xe9);
	put(&t, &distance, sizeof(distance));
	PUT(&t, 0, 0, 0);
	put_body(&t);
	assert_int_equal(equal(&t, f), 0);
}

/* A leaktop that finds the address in the table would take what is behind the nop for the
 * function. */
static void functions_that_begin_with_a_nop(void **state)
{
	struct text t = {0};
	uint64_t f;

	(void)state;
	put_body(&t);
	PUT(&t, 0x66, 0x90);
	f = here(&t);
	PUT(&t, NOP5, PUSH_RBX, RET);
	assert_int_equal(equal(&t, f), 0);
}

static void functions_are_their_own_target(void **state)
{
	struct text t = {0};
	uint64_t f;

	(void)state;
	put_body(&t);
	f = here(&t);
	PUT(&t, ENDBR64, PUSH_RBX, RET);
	assert_int_equal(equal_target(t.bytes, t.count, BASE, f), f);
	assert_int_equal(equal_target(t.bytes, t.count, BASE, BASE), BASE);
}

static void outside_the_text(void **state)
{
	static const uint8_t jump[] = {0xe9, 0, 0, 0, 0x70}, nops[] = {0x90, 0x90};

	(void)state;
	assert_int_equal(equal_address(NULL, 0, BASE, BASE), 0);
	assert_int_equal(equal_address(nops, 2, BASE, BASE + 2), 0);
	assert_int_equal(equal_address(nops, 2, BASE, BASE - 1), 0);
	assert_int_equal(equal_target(nops, 2, BASE, BASE), BASE);
	assert_int_equal(equal_target(nops, 2, BASE, BASE - 1), BASE - 1);
	assert_int_equal(equal_target(jump, 5, BASE, BASE), BASE);
	assert_int_equal(equal_target(jump, 3, BASE, BASE), BASE);
	assert_false(text_starts_instruction(nops, 2, BASE, BASE + 2));
	assert_true(text_starts_instruction(nops, 2, BASE, BASE + 1));
}

/* Whatever the bytes are: what is chosen leads to the function, and none is read outside. */
static void any_bytes(void **state)
{
	static const uint8_t likely[] = {0x90, 0x66, 0x0f, 0x1f, 0xe9, 0xeb, 0xf3, 0x1e,
					 0xfa, 0x44, 0x00, 0xfc, 0xff, 0x48, 0x3d, 0x75};
	unsigned int seed = 1, chosen = 0;

	(void)state;
	for (int round = 0; round < 20000; round++) {
		size_t bytes = 1 + (size_t)rand_r(&seed) % 300;
		struct compared_function one = {.address = 0};
		uint8_t *text = malloc(bytes);

		assert_non_null(text);
		for (size_t i = 0; i < bytes; i++)
			text[i] = rand_r(&seed) & 1 ? likely[rand_r(&seed) % sizeof(likely)]
						    : (uint8_t)rand_r(&seed);
		for (int k = 0; k < 4; k++) {
			uint64_t f = BASE + (size_t)rand_r(&seed) % bytes;
			uint64_t address = equal_address(text, bytes, BASE, f);

			chosen += address != 0;
			if (address)
				assert_int_equal(equal_target(text, bytes, BASE, address), f);
			equal_target(text, bytes, BASE, f);
			one.address = f;
			inlined_copies_count(text, bytes, BASE, &one, 1);
		}
		free(text);
	}
	assert_true(chosen > 100);
}

static unsigned int count(const struct text *t, uint64_t function)
{
	struct compared_function twice[2] = {{.address = function}, {.address = function}};

	inlined_copies_count(t->bytes, t->count, BASE, twice, 2);
	assert_int_equal(twice[0].compares, twice[1].compares);
	return twice[0].compares;
}

/* As in Debian's python3.11: the table's word is in rax, the other way ends in jmp *%rax. */
static void promoted_call_is_counted(void **state)
{
	struct text t = {0};
	uint32_t f = BASE;

	(void)state;
	put_body(&t);
	PUT(&t, 0x48, 0x3d);
	put(&t, &f, sizeof(f));
	PUT(&t, 0x75, 0x03);			     /* jne 1f */
	PUT(&t, 0x31, 0xc0, RET);		     /* what is inlined */
	PUT(&t, 0x48, 0x89, 0xde, 0x5b, 0xff, 0xe0); /* 1: mov; pop; jmp *%rax */
	assert_int_equal(count(&t, f), 1);
	assert_int_equal(count(&t, f + 1), 0);
}

static void promoted_call_in_a_library(void **state)
{
	struct text t = {0};
	int32_t distance;

	(void)state;
	put_body(&t);
	distance = (int32_t)(BASE - (here(&t) + 7));
	PUT(&t, 0x48, 0x8d, 0x0d); /* lea f(%rip), %rcx */
	put(&t, &distance, sizeof(distance));
	PUT(&t, 0x48, 0x39, 0xc8);     /* cmp %rcx, %rax */
	PUT(&t, 0x74, 0x03);	       /* je 1f */
	PUT(&t, 0xff, 0xd0, RET, RET); /* call *%rax */
	assert_int_equal(count(&t, BASE), 1);
}

/* return _PyObject.malloc == f */
static void question_is_not_counted(void **state)
{
	struct text t = {0};
	int32_t distance;
	uint32_t f = BASE;

	(void)state;
	put_body(&t);
	PUT(&t, 0x48, 0x3d);
	put(&t, &f, sizeof(f));
	PUT(&t, 0x0f, 0x94, 0xc0, RET); /* sete %al */
	distance = (int32_t)(BASE - (here(&t) + 7));
	PUT(&t, 0x48, 0x8d, 0x0d);
	put(&t, &distance, sizeof(distance));
	PUT(&t, 0x48, 0x39, 0xc8, 0x74, 0x01, RET, 0x31, 0xc0, RET);
	assert_int_equal(count(&t, BASE), 0);
}

static void taken_address_is_not_counted(void **state)
{
	struct text t = {0};
	uint32_t f = BASE;

	(void)state;
	put_body(&t);
	PUT(&t, 0x48, 0xc7, 0xc0); /* mov $f, %rax */
	put(&t, &f, sizeof(f));
	PUT(&t, 0x48, 0x89, 0x07, 0xff, 0xd0, RET);
	assert_int_equal(count(&t, f), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(padding_is_taken),
		cmocka_unit_test(nearest_padding_of_several),
		cmocka_unit_test(padding_is_not_cut),
		cmocka_unit_test(operands_are_no_padding),
		cmocka_unit_test(traps_are_no_padding),
		cmocka_unit_test(behind_endbr64),
		cmocka_unit_test(padding_rather_than_endbr64),
		cmocka_unit_test(one_byte_rather_than_two),
		cmocka_unit_test(jump_to_the_function),
		cmocka_unit_test(short_jump_to_the_function),
		cmocka_unit_test(hidden_jumps_are_none),
		cmocka_unit_test(functions_that_begin_with_a_nop),
		cmocka_unit_test(functions_are_their_own_target),
		cmocka_unit_test(outside_the_text),
		cmocka_unit_test(any_bytes),
		cmocka_unit_test(promoted_call_is_counted),
		cmocka_unit_test(promoted_call_in_a_library),
		cmocka_unit_test(question_is_not_counted),
		cmocka_unit_test(taken_address_is_not_counted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
