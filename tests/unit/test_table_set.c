/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "unwind/table_set.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <elf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sym/object.h"
#include "unwind_maps.h"

static struct object_table *objects;
static struct table_set *set;

/* A file of @bytes that is just about ELF. */
static int make_file(size_t bytes)
{
	int fd = memfd_create("object", MFD_CLOEXEC);
	Elf64_Ehdr eh = {.e_type = ET_DYN, .e_machine = EM_X86_64, .e_version = EV_CURRENT};

	memcpy(eh.e_ident, ELFMAG, SELFMAG);
	eh.e_ident[EI_CLASS] = ELFCLASS64;
	eh.e_ident[EI_DATA] = ELFDATA2LSB;
	eh.e_ident[EI_VERSION] = EV_CURRENT;
	eh.e_ehsize = sizeof(eh);
	eh.e_phentsize = sizeof(Elf64_Phdr);
	assert_int_equal(write(fd, &eh, sizeof(eh)), sizeof(eh));
	assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
	return fd;
}

static struct object *object_of(int fd, uint64_t inode, uint32_t mount)
{
	struct object_id id = {.dev_major = 7, .dev_minor = mount, .inode = inode};
	struct object *o = NULL;

	assert_int_equal(object_table_get(objects, &id, fd, "/lib/x", &o), 0);
	return o;
}

static struct object *new_object(uint64_t inode, size_t bytes)
{
	int fd = make_file(bytes);
	struct object *o = object_of(fd, inode, 0);

	close(fd);
	return o;
}

static int setup(void **state)
{
	(void)state;
	objects = object_table_new();
	set = table_set_new();
	return objects && set ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	table_set_free(set);
	object_table_free(objects);
	return 0;
}

static void one_table_an_object(void **state)
{
	struct object *a = new_object(1, 4096), *b = new_object(2, 8192);
	struct table *t = table_set_get(set, a);

	(void)state;
	assert_non_null(t);
	assert_ptr_equal(t->object, a);
	assert_int_equal(t->state, TABLE_OUT);
	assert_int_equal(t->file_bytes, 4096);
	assert_ptr_equal(table_set_get(set, a), t);
	assert_ptr_not_equal(table_set_get(set, b), t);
	assert_ptr_equal(table_set_at(set, t->id), t);
	assert_null(table_set_at(set, 0));
	assert_null(table_set_at(set, table_set_limit(set)));
}

/* Containers of an image show one file under several devices. */
static void one_table_a_file(void **state)
{
	int fd = make_file(4096);
	struct object *a = object_of(fd, 3, 1), *b = object_of(fd, 3, 2);

	(void)state;
	assert_ptr_not_equal(a, b);
	assert_ptr_equal(table_set_get(set, a), table_set_get(set, b));
	close(fd);
}

static void the_smallest_is_loaded_first(void **state)
{
	struct table *large = table_set_get(set, new_object(1, 1 << 20));
	struct table *small = table_set_get(set, new_object(2, 4096));

	(void)state;
	assert_null(table_set_next_wanted(set));
	large->state = small->state = TABLE_WANTED;
	assert_ptr_equal(table_set_next_wanted(set), small);
	large->urgent = true;
	assert_ptr_equal(table_set_next_wanted(set), large);
	large->urgent = false;
	small->state = TABLE_LOADING;
	assert_ptr_equal(table_set_next_wanted(set), large);
	assert_int_equal(table_set_count(set, TABLE_WANTED), 1);
	assert_int_equal(table_set_count(set, TABLE_LOADING), 1);
}

static struct table *loaded(uint64_t inode, uint32_t references, uint64_t used_s)
{
	struct table *t = table_set_get(set, new_object(inode, 4096));

	t->state = TABLE_LOADED;
	t->size_bytes = 100;
	t->references = references;
	t->used_s = used_s;
	return t;
}

static void who_goes_first(void **state)
{
	struct table *mapped_old, *mapped_new, *free_old, *free_new, *empty;

	(void)state;
	mapped_old = loaded(1, 1, 10);
	mapped_new = loaded(2, 9, 90);
	free_new = loaded(3, 0, 80);
	free_old = loaded(4, 0, 70);
	empty = loaded(5, 0, 0);
	empty->size_bytes = 0;
	assert_int_equal(table_set_bytes(set), 400);
	assert_ptr_equal(table_set_victim(set), free_old);
	free_old->state = TABLE_OUT;
	assert_ptr_equal(table_set_victim(set), free_new);
	free_new->state = TABLE_WANTED;
	assert_ptr_equal(table_set_victim(set), mapped_old);
	mapped_old->state = TABLE_LOADING;
	assert_ptr_equal(table_set_victim(set), mapped_new);
	mapped_new->state = TABLE_OUT;
	assert_null(table_set_victim(set)); /* taking out what holds nothing brings nothing */
}

/* More objects than ids: those that are out and unused give theirs up. */
static void ids_are_used_again(void **state)
{
	struct object *first = new_object(1, 4096);
	struct table *t = table_set_get(set, first);
	uint32_t id = t->id;

	(void)state;
	for (uint64_t i = 2; table_set_limit(set) < UNWIND_TABLES_MAX; i++) {
		struct table *other = table_set_get(set, new_object(i, 4096));

		assert_non_null(other);
		other->references = 1;
	}
	t->state = TABLE_LOADED;
	assert_null(table_set_get(set, new_object(100000, 4096)));
	t->state = TABLE_OUT;
	t = table_set_get(set, new_object(100001, 8192));
	assert_non_null(t);
	assert_int_equal(t->id, id);
	assert_int_equal(t->file_bytes, 8192);
	t->references = 1;
	assert_null(table_set_get(set, first)); /* it has lost its id */
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(one_table_an_object),	    TEST(one_table_a_file),
		TEST(the_smallest_is_loaded_first), TEST(who_goes_first),
		TEST(ids_are_used_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
