/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Objects made by hand in the memory of the test itself, right ones and hostile ones; and
 * the parts that types are read with.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "python/interpreter.h"
#include "python/key_sort.h"
#include "python/object_layout.h"
#include "python/type_names.h"
#include "python/types.h"

#define MINOR 11
#define READY (FLAG_READY | 1 << 10)

/* As in CPython 3.11, as far as it is looked at. */
struct fake_type {
	uint64_t words[128];
};

struct fake_string {
	uint64_t refcount, type, length, hash, state, wstr;
	char text[64];
} __attribute__((aligned(16)));

static struct fake_type type_type, int_type, list_type, string_type, class_type;
static struct fake_string module_key, module_name, qualname;
static uint64_t runtime;

static uint64_t address_of(const void *p)
{
	return (uint64_t)(uintptr_t)p;
}

static void make_type(struct fake_type *t, const char *name, uint64_t basic, uint64_t item,
		      uint64_t flags)
{
	memset(t, 0, sizeof(*t));
	t->words[0] = 1;
	t->words[OBJECT_TYPE / 8] = address_of(&type_type);
	t->words[TYPE_NAME / 8] = address_of(name);
	t->words[TYPE_BASIC_SIZE / 8] = basic;
	t->words[TYPE_ITEM_SIZE / 8] = item;
	t->words[TYPE_FLAGS / 8] = flags | READY;
}

static void make_string(struct fake_string *s, const char *text)
{
	*s = (struct fake_string){1, address_of(&string_type), strlen(text), 0, 1 << 2 | 3 << 5, 0,
				  ""};
	memcpy(s->text, text, strlen(text) + 1);
}

/* class shop.Connection: the module is in its dict, the name is a str. */
static void make_class(void)
{
	static uint64_t dict[6], keys[4 + 1 + 2 * 5];

	make_string(&module_key, "__module__");
	make_string(&module_name, "shop");
	make_string(&qualname, "Connection");
	/* one entry of five, in a table for str keys */
	keys[0] = 1;
	keys[1] = 3 | 3 << 8 | 1 << 16 | 0x77ull << 24;
	keys[2] = 4;
	keys[3] = 1;
	keys[5] = address_of(&module_key);
	keys[6] = address_of(&module_name);
	dict[DICT_KEYS / 8] = address_of(keys);
	make_type(&class_type, "Connection", 16, 0, FLAG_HEAP_TYPE | FLAG_HAVE_GC | 1 << 4);
	class_type.words[TYPE_DICT / 8] = address_of(dict);
	class_type.words[864 / 8] = address_of(&qualname);
}

static int set_up(void **state)
{
	(void)state;
	make_type(&type_type, "type", 880, 40, FLAG_TYPE | FLAG_HAVE_GC);
	make_type(&int_type, "int", 24, 4, FLAG_LONG);
	make_type(&list_type, "list", 40, 0, FLAG_LIST | FLAG_HAVE_GC);
	make_type(&string_type, "str", 80, 0, FLAG_UNICODE);
	make_class();
	return 0;
}

static struct type_reader *reader(void)
{
	struct interpreter i = {.pid = getpid(), .major = 3, .minor = MINOR};
	struct type_reader *r;

	i.runtime = address_of(&runtime);
	r = type_reader_new(&i);
	assert_non_null(r);
	return r;
}

/* The name of the type of one block. */
static const char *type_name(struct type_reader *r, const void *block, uint64_t bytes)
{
	struct typed_block b = {address_of(block), bytes, 99};

	assert_int_equal(type_reader_read(r, &b, 1), 0);
	return type_reader_name(r, b.type);
}

static void objects_have_types(void **state)
{
	uint64_t integer[4] = {1, address_of(&int_type), 1, 42};
	uint64_t instance[6] = {0, 0, 0x1000, 0x1000, 1, address_of(&class_type)};
	struct type_reader *r = reader();

	(void)state;
	assert_string_equal(type_name(r, integer, 32), "int");
	assert_string_equal(type_name(r, instance, 48), "shop.Connection");
	assert_string_equal(type_name(r, &module_name, 53), "str");
	/* one byte too few */
	assert_string_equal(type_name(r, &module_name, 52), "(unknown)");
	type_reader_free(r);
}

static void places_agree_with_flags(void **state)
{
	/* types that need a collector's head, or do not, at the wrong place */
	uint64_t list[7] = {1, address_of(&list_type), 0, 0, 0, 0, 0};
	uint64_t integer[6] = {0x1000, 0x1000, 1, address_of(&int_type), 1, 42};
	uint64_t instance[6] = {0, 0, 1, address_of(&class_type), 0, 0};
	struct type_reader *r = reader();

	(void)state;
	assert_string_equal(type_name(r, list, 56), "(unknown)");
	assert_string_equal(type_name(r, integer, 48), "(unknown)");
	assert_string_equal(type_name(r, instance, 48), "(unknown)");
	type_reader_free(r);
}

static void counts_and_sizes_are_plausible(void **state)
{
	uint64_t dead[4] = {0, address_of(&int_type), 1, 42};
	uint64_t wild[4] = {1ull << 40, address_of(&int_type), 1, 42};
	uint64_t huge[4] = {1, address_of(&int_type), 1ull << 61, 42};
	uint64_t negative[4] = {1, address_of(&int_type), (uint64_t)-2, 42};
	uint64_t list[64] = {0, 0, 1, address_of(&list_type)};
	struct type_reader *r = reader();

	(void)state;
	/* the type is known from a live one, or not */
	assert_string_equal(type_name(r, negative, 32), "int");
	assert_string_equal(type_name(r, dead, 32), "(free list)");
	assert_string_equal(type_name(r, wild, 32), "(unknown)");
	assert_string_equal(type_name(r, huge, 32), "(unknown)");
	assert_string_equal(type_name(r, list, 56), "list");
	/* far larger than any list's head */
	assert_string_equal(type_name(r, list, 512), "(unknown)");
	type_reader_free(r);
}

static void buffers_go_to_their_owners(void **state)
{
	/* what is in it looks like an object */
	uint64_t items[4] = {1, address_of(&int_type), 1, 0};
	uint64_t list[7] = {0, 0, 1, address_of(&list_type), 2, address_of(items), 4};
	uint64_t values[4] = {0, 0x1000, 0, 0}; /* with a prefix of 8 bytes */
	uint64_t instance[6] = {address_of(values) + 8, 0, 0, 0, 1, address_of(&class_type)};
	struct typed_block blocks[] = {{address_of(instance), 48, 0},
				       {address_of(items), 32, 0},
				       {address_of(list), 56, 0},
				       {address_of(values), 32, 0}};
	struct type_reader *r = reader();

	(void)state;
	assert_int_equal(type_reader_read(r, blocks, 4), 0);
	assert_string_equal(type_reader_name(r, blocks[0].type), "shop.Connection");
	assert_string_equal(type_reader_name(r, blocks[1].type), "list items");
	assert_string_equal(type_reader_name(r, blocks[2].type), "list");
	assert_string_equal(type_reader_name(r, blocks[3].type), "dict values");
	type_reader_free(r);
}

static void buffers_elsewhere_are_told(void **state)
{
	static uint64_t items[100];
	uint64_t list[7] = {0, 0, 1, address_of(&list_type), 2, address_of(items), 100};
	struct typed_block block = {address_of(list), 0, 0}, *buffers;
	struct type_reader *r = reader();
	size_t count;

	(void)state;
	assert_int_equal(type_reader_read_buffers(r, &block, 1, &buffers, &count), 0);
	assert_int_equal(block.size_bytes, 56);
	assert_int_equal(count, 1);
	assert_int_equal(buffers[0].address, address_of(items));
	assert_int_equal(buffers[0].size_bytes, 800);
	assert_string_equal(type_reader_name(r, buffers[0].type), "list items");
	free(buffers);
	type_reader_free(r);
}

static void dict_keys_tell_by_themselves(void **state)
{
	uint64_t keys[4 + 1 + 10] = {1, 3 | 3 << 8 | 1 << 16, 4, 1};
	struct type_reader *r = reader();

	(void)state;
	assert_string_equal(type_name(r, keys, sizeof(keys)), "dict keys");
	assert_string_equal(type_name(r, keys, sizeof(keys) - 8), "(unknown)");
	keys[0] = 0;
	assert_string_equal(type_name(r, keys, sizeof(keys)), "(free list)");
	keys[0] = 1;
	keys[2] = 1ull << 62;
	assert_string_equal(type_name(r, keys, sizeof(keys)), "(unknown)");
	type_reader_free(r);
}

/* type is an object, object is of type: it does not matter which is seen first. */
static void type_and_object_need_each_other(void **state)
{
	static struct fake_type object_type;
	uint64_t words[122] = {
		[2] = 1, address_of(&type_type), [120] = 1, address_of(&object_type)};
	struct typed_block blocks[] = {{address_of(words), 896, 0},
				       {address_of(words + 120), 16, 0}};
	struct type_reader *r = reader();

	(void)state;
	make_type(&object_type, "object", 16, 0, 0);
	type_type.words[TYPE_BASE / 8] = address_of(&object_type);
	assert_int_equal(type_reader_read(r, blocks, 2), 0);
	assert_string_equal(type_reader_name(r, blocks[0].type), "type");
	assert_string_equal(type_reader_name(r, blocks[1].type), "object");
	type_type.words[TYPE_BASE / 8] = 0;
	type_reader_free(r);
}

static void hostile_types_are_none(void **state)
{
	struct fake_type a, b, loop;
	uint64_t object[4] = {1, 0, 1, 0};
	struct type_reader *r = reader();

	(void)state;
	/* types of each other */
	make_type(&a, "a", 24, 0, FLAG_TYPE);
	make_type(&b, "b", 24, 0, FLAG_TYPE);
	a.words[OBJECT_TYPE / 8] = address_of(&b);
	b.words[OBJECT_TYPE / 8] = address_of(&a);
	object[1] = address_of(&a);
	assert_string_equal(type_name(r, object, 32), "(unknown)");
	/* its own type, but not the one */
	make_type(&loop, "loop", 24, 0, FLAG_TYPE);
	loop.words[OBJECT_TYPE / 8] = address_of(&loop);
	object[1] = address_of(&loop);
	assert_string_equal(type_name(r, object, 32), "(unknown)");
	/* its own base */
	make_type(&loop, "loop", 24, 0, 0);
	loop.words[TYPE_BASE / 8] = address_of(&loop);
	assert_string_equal(type_name(r, object, 32), "loop");
	/* a type that is no metatype */
	a.words[OBJECT_TYPE / 8] = address_of(&int_type);
	object[1] = address_of(&a);
	assert_string_equal(type_name(r, object, 32), "(unknown)");
	type_reader_free(r);
}

static void types_die_and_are_replaced(void **state)
{
	struct fake_type t;
	uint64_t object[4] = {1, address_of(&t), 0, 0};
	struct type_reader *r = reader();

	(void)state;
	make_type(&t, "first", 24, 0, 0);
	assert_string_equal(type_name(r, object, 32), "first");
	make_type(&t, "second", 32, 0, 0);
	assert_string_equal(type_name(r, object, 32), "second");
	memset(&t, 0, sizeof(t));
	assert_string_equal(type_name(r, object, 32), "(unknown)");
	make_type(&t, "first", 24, 0, 0);
	assert_string_equal(type_name(r, object, 32), "first");
	type_reader_free(r);
}

static void class_names_are_checked(void **state)
{
	uint64_t instance[6] = {0, 0, 0x1000, 0x1000, 1, address_of(&class_type)};
	struct type_reader *r = reader();

	(void)state;
	/* the length of the name is not believed */
	qualname.length = UINT64_MAX / 2;
	assert_non_null(type_name(r, instance, 48));
	type_reader_free(r);
	/* a name that is no str */
	make_class();
	qualname.state = 0;
	r = reader();
	assert_string_equal(type_name(r, instance, 48), "(unknown)");
	/* no module */
	make_class();
	module_key.text[0] = 'X';
	assert_string_equal(type_name(r, instance, 48), "Connection");
	make_class();
	type_reader_free(r);
}

/* Blocks at the end of what is mapped, and none at all. */
static void unmapped_memory_is_unknown(void **state)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	uint8_t *map =
		mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t *integer = (uint64_t *)(map + page - 32);
	struct typed_block blocks[3];
	struct type_reader *r = reader();

	(void)state;
	assert_ptr_not_equal(map, MAP_FAILED);
	munmap(map + page, page);
	integer[0] = 1;
	integer[1] = address_of(&int_type);
	integer[2] = 1;
	blocks[0] = (struct typed_block){address_of(map) + page, 64, 1};
	blocks[1] = (struct typed_block){address_of(integer), 32, 1};
	blocks[2] = (struct typed_block){UINT64_MAX - 100, 64, 1};
	assert_int_equal(type_reader_read(r, blocks, 3), 0);
	assert_int_equal(blocks[0].type, TYPE_UNKNOWN);
	assert_string_equal(type_reader_name(r, blocks[1].type), "int");
	assert_int_equal(blocks[2].type, TYPE_UNKNOWN);
	munmap(map, page);
	type_reader_free(r);
}

static void random_memory_has_no_types(void **state)
{
	static uint64_t words[1 << 16];
	struct typed_block blocks[1 << 11];
	const uint64_t tempting[] = {0,
				     1,
				     address_of(&int_type),
				     address_of(&list_type),
				     address_of(&class_type),
				     address_of(words),
				     4096,
				     UINT64_MAX};
	struct type_reader *r = reader();

	(void)state;
	srandom(1);
	for (size_t i = 0; i < 1 << 16; i++)
		words[i] = random() % 3 ? (uint64_t)random() << 31 ^ (uint64_t)random()
					: tempting[random() % 8];
	for (size_t i = 0; i < 1 << 11; i++)
		blocks[i] = (struct typed_block){address_of(words + 32 * i),
						 (uint64_t)random() % 256, 0};
	assert_int_equal(type_reader_read(r, blocks, 1 << 11), 0);
	for (size_t i = 0; i < 1 << 11; i++)
		assert_in_range(blocks[i].type, 0, type_reader_count(r) - 1);
	type_reader_free(r);
}

static void other_versions_are_unknown(void **state)
{
	struct object_layout l;
	uint64_t integer[4] = {1, address_of(&int_type), 1, 42};
	struct interpreter i = {.pid = getpid(), .major = 3, .minor = 99};
	struct type_reader *r = type_reader_new(&i);

	(void)state;
	assert_int_equal(object_layout_by_version(7, false, &l), -ENOTSUP);
	assert_int_equal(object_layout_by_version(16, false, &l), -ENOTSUP);
	assert_int_equal(object_layout_by_version(14, true, &l), -ENOTSUP);
	assert_non_null(r);
	assert_string_equal(type_name(r, integer, 32), "(unknown)");
	type_reader_free(r);
	type_reader_free(NULL);
}

static void reference_counts_by_version(void **state)
{
	struct object_layout l;

	(void)state;
	object_layout_by_version(11, false, &l);
	assert_true(object_refcount_is_live(&l, 1));
	assert_false(object_refcount_is_live(&l, 0));
	assert_false(object_refcount_is_live(&l, 1ull << 32));
	object_layout_by_version(12, false, &l);
	assert_true(object_refcount_is_live(&l, 0xffffffff));
	assert_false(object_refcount_is_live(&l, 0x7f0012345678));
	object_layout_by_version(14, false, &l);
	assert_true(object_refcount_is_live(&l, 3ull << 30 | 5ull << 48));
	assert_false(object_refcount_is_live(&l, 0x7f0012345678));
}

static void keys_by_version(void **state)
{
	uint64_t old[5] = {1, 8, 0x401000, 4, 1};
	uint8_t head[DICT_KEYS_HEAD_BYTES];
	struct object_layout l;
	struct dict_keys k;

	(void)state;
	object_layout_by_version(10, false, &l);
	memcpy(head, old, sizeof(head));
	assert_true(dict_keys_decode(&l, head, &k));
	assert_int_equal(k.entries, 48);
	assert_int_equal(k.bytes, 48 + 5 * 24);
	assert_int_equal(k.entry_key, 8);
	head[8] = 9; /* no power of two */
	assert_false(dict_keys_decode(&l, head, &k));
	object_layout_by_version(12, false, &l);
	for (int size = 0; size < 256; size++) {
		memset(head, 0, sizeof(head));
		head[8] = head[9] = (uint8_t)size;
		assert_int_equal(dict_keys_decode(&l, head, &k), size >= 3 && size < 8);
	}
}

static void names_have_numbers(void **state)
{
	struct type_names *n = type_names_new();
	char name[600], number[32];
	uint32_t first, last = 0;

	(void)state;
	assert_non_null(n);
	assert_string_equal(type_names_at(n, 0), "(unknown)");
	assert_string_equal(type_names_at(n, 4000000000u), "(unknown)");
	first = type_names_number(n, "a");
	assert_int_equal(type_names_number(n, "a"), first);
	assert_int_not_equal(type_names_number(n, "b"), first);
	/* cut in front of the character that crosses the limit */
	memset(name, 'x', 254);
	strcpy(name + 254, "\xc3\xa9zzz");
	assert_int_equal(strlen(type_names_at(n, type_names_number(n, name))), 254);
	for (int i = 0; i < 70000; i++) {
		snprintf(number, sizeof(number), "n%d", i);
		last = type_names_number(n, number);
	}
	assert_string_equal(type_names_at(n, last), "(other types)");
	assert_int_equal(type_names_number(n, "a"), first);
	type_names_free(n);
	type_names_free(NULL);
}

static void keys_are_sorted(void **state)
{
	static struct keyed items[5000];

	(void)state;
	srandom(2);
	for (size_t i = 0; i < 5000; i++)
		items[i] = (struct keyed){(uint64_t)random() % 700 << random() % 50, i};
	assert_int_equal(key_sort(items, 0), 0);
	assert_int_equal(key_sort(items, 5000), 0);
	for (size_t i = 1; i < 5000; i++) {
		assert_true(items[i - 1].key <= items[i].key);
		if (items[i - 1].key == items[i].key)
			assert_true(items[i - 1].value < items[i].value);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(objects_have_types),
		cmocka_unit_test(places_agree_with_flags),
		cmocka_unit_test(counts_and_sizes_are_plausible),
		cmocka_unit_test(buffers_go_to_their_owners),
		cmocka_unit_test(buffers_elsewhere_are_told),
		cmocka_unit_test(dict_keys_tell_by_themselves),
		cmocka_unit_test(type_and_object_need_each_other),
		cmocka_unit_test(hostile_types_are_none),
		cmocka_unit_test(types_die_and_are_replaced),
		cmocka_unit_test(class_names_are_checked),
		cmocka_unit_test(unmapped_memory_is_unknown),
		cmocka_unit_test(random_memory_has_no_types),
		cmocka_unit_test(other_versions_are_unknown),
		cmocka_unit_test(reference_counts_by_version),
		cmocka_unit_test(keys_by_version),
		cmocka_unit_test(names_have_numbers),
		cmocka_unit_test(keys_are_sorted),
	};

	return cmocka_run_group_tests(tests, set_up, NULL);
}
