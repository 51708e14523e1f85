/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sym/object.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sym/elf_file.h"

#define PHDRS_MAX 80
#define NOTE_AT 8192

/* A file with program headers and one note, and nothing else. */
struct image {
	Elf64_Ehdr eh;
	Elf64_Phdr ph[PHDRS_MAX];
	char padding[NOTE_AT - sizeof(Elf64_Ehdr) - PHDRS_MAX * sizeof(Elf64_Phdr)];
	Elf64_Nhdr nh;
	char note_name[4];
	uint8_t build_id[20];
};

static struct image image;

static void image_init(void)
{
	int i;

	memset(&image, 0, sizeof(image));
	memcpy(image.eh.e_ident, ELFMAG, SELFMAG);
	image.eh.e_ident[EI_CLASS] = ELFCLASS64;
	image.eh.e_ident[EI_DATA] = ELFDATA2LSB;
	image.eh.e_ident[EI_VERSION] = EV_CURRENT;
	image.eh.e_type = ET_DYN;
	image.eh.e_machine = EM_X86_64;
	image.eh.e_version = EV_CURRENT;
	image.eh.e_ehsize = sizeof(Elf64_Ehdr);
	image.eh.e_phentsize = sizeof(Elf64_Phdr);
	image.eh.e_shentsize = sizeof(Elf64_Shdr);
	image.eh.e_phoff = offsetof(struct image, ph);
	image.nh = (Elf64_Nhdr){4, 20, NT_GNU_BUILD_ID};
	memcpy(image.note_name, "GNU", 4);
	for (i = 0; i < 20; i++)
		image.build_id[i] = (uint8_t)(i * 13);
}

static void add_phdr(uint32_t type, uint32_t flags, uint64_t offset, uint64_t vaddr, uint64_t bytes)
{
	image.ph[image.eh.e_phnum++] = (Elf64_Phdr){.p_type = type,
						    .p_flags = flags,
						    .p_offset = offset,
						    .p_vaddr = vaddr,
						    .p_filesz = bytes,
						    .p_memsz = bytes,
						    .p_align = 4};
}

static void add_note(void)
{
	add_phdr(PT_NOTE, PF_R, NOTE_AT, NOTE_AT, sizeof(image) - NOTE_AT);
}

static int make_file(const void *bytes, size_t size)
{
	int fd = memfd_create("object", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, size), (ssize_t)size);
	return fd;
}

/* What object_table_get() says of these bytes; the object in *out. */
static int get(struct object_table *t, uint64_t inode, const void *bytes, size_t size,
	       struct object **out)
{
	struct object_id id = {8, 1, inode};
	int fd = make_file(bytes, size);
	int err = object_table_get(t, &id, fd, "/lib/x.so", out);

	close(fd);
	return err;
}

static void test_basics(void **state)
{
	struct object_table *t = object_table_new();
	struct object *o = NULL;

	(void)state;
	image_init();
	add_note();
	assert_int_equal(get(t, 1, &image, sizeof(image), &o), 0);
	assert_string_equal(object_path(o), "/lib/x.so");
	assert_string_equal(object_build_id(o), "000d1a2734414e5b6875828f9ca9b6c3d0ddeaf7");
	assert_true(fcntl(object_fd(o), F_GETFD) & FD_CLOEXEC);
	object_table_free(t);
	object_table_free(NULL);
}

/* As lld lays objects out: the code begins in the page where the data before it ends. */
static void test_vaddr_of_a_shared_page(void **state)
{
	struct object_table *t = object_table_new();
	struct object *o;
	uint64_t vaddr;

	(void)state;
	image_init();
	add_phdr(PT_LOAD, PF_R, 0, 0, 0x15664);
	add_phdr(PT_LOAD, PF_R | PF_X, 0x15670, 0x16670, 0x1000);
	add_phdr(PT_LOAD, PF_R, 0x16670, 0x18670, 0x100);
	assert_int_equal(get(t, 1, &image, sizeof(image), &o), 0);
	assert_int_equal(object_vaddr(o, 0x15000, &vaddr), 0);
	assert_int_equal(vaddr, 0x16000);
	assert_int_equal(object_vaddr(o, 0x15670, &vaddr), 0);
	assert_int_equal(vaddr, 0x16670);
	assert_int_equal(object_vaddr(o, 0x16fff, &vaddr), 0);
	assert_int_equal(vaddr, 0x17fff);
	assert_int_equal(object_vaddr(o, 0x14fff, &vaddr), 0);
	assert_int_equal(vaddr, 0x14fff);
	object_table_free(t);
}

static void test_vaddr(void **state)
{
	struct object_table *t = object_table_new();
	struct object *o;
	uint64_t vaddr = 7;

	(void)state;
	image_init();
	add_phdr(PT_LOAD, PF_R, 0, 0x400000, 0x1234);
	add_phdr(PT_LOAD, PF_R | PF_X, 0x1000, 0x502000, 0x1000); /* overlaps the first */
	add_phdr(PT_LOAD, PF_R, 0x5000, 0x700000, 0x10);
	add_phdr(PT_LOAD, PF_R | PF_X, UINT64_MAX - 4, 0, 100);		/* overflow: left out */
	add_phdr(PT_LOAD, PF_R | PF_X, 0x9000, UINT64_MAX - 4, 0x1000); /* the same */
	assert_int_equal(get(t, 1, &image, sizeof(image), &o), 0);
	assert_null(object_build_id(o));

	assert_int_equal(object_vaddr(o, 0x2000, &vaddr), -ERANGE);
	assert_int_equal(object_vaddr(o, 0x5010, &vaddr), -ERANGE);
	assert_int_equal(object_vaddr(o, 0x9001, &vaddr), -ERANGE);
	assert_int_equal(object_vaddr(o, UINT64_MAX, &vaddr), -ERANGE);
	assert_int_equal(vaddr, 7);
	assert_int_equal(object_vaddr(o, 0, &vaddr), 0);
	assert_int_equal(vaddr, 0x400000);
	assert_int_equal(object_vaddr(o, 0x1233, &vaddr), 0);
	assert_int_equal(vaddr, 0x502233);
	assert_int_equal(object_vaddr(o, 0x500f, &vaddr), 0);
	assert_int_equal(vaddr, 0x70000f);
	object_table_free(t);
}

static void test_identity(void **state)
{
	struct object_table *t = object_table_new();
	struct object_id id = {8, 1, 42}, other = {8, 2, 42};
	struct object *a, *b, *c = NULL;
	int fd;

	(void)state;
	image_init();
	add_note();
	assert_int_equal(object_table_get(t, &id, -1, "/x", &c), -ENOENT);
	assert_null(c);

	fd = make_file(&image, sizeof(image));
	assert_int_equal(object_table_get(t, &id, fd, "/x", &a), 0);
	assert_int_equal(object_table_get(t, &id, fd, "/y", &b), 0);
	assert_ptr_equal(a, b);
	assert_string_equal(object_path(b), "/x");
	assert_int_equal(object_table_get(t, &other, fd, "/x", &b), 0);
	assert_ptr_not_equal(a, b);

	/* Our descriptor is not the caller's. */
	close(fd);
	assert_true(fcntl(object_fd(a), F_GETFD) >= 0);

	/* Another file under the same id. */
	image.build_id[0] = 0xff;
	assert_int_equal(get(t, 42, &image, sizeof(image), &b), 0);
	assert_ptr_not_equal(a, b);
	assert_memory_equal(object_build_id(b), "ff0d", 4);
	assert_memory_equal(object_build_id(a), "000d", 4);
	assert_int_equal(object_table_get(t, &id, -1, "/x", &c), 0);
	assert_ptr_equal(b, c);
	object_table_free(t);
}

static void expect_einval(struct object_table *t, const void *bytes, size_t size)
{
	struct object *o = NULL;

	assert_int_equal(get(t, 99, bytes, size, &o), -EINVAL);
	assert_null(o);
}

static void test_no_elf(void **state)
{
	struct object_table *t = object_table_new();
	struct object_id id = {0, 5, 3};
	struct object *o;
	int fd;

	(void)state;
	expect_einval(t, "", 0);
	expect_einval(t, "#!/bin/sh\n", 10);
	image_init();
	expect_einval(t, &image, sizeof(Elf64_Ehdr) - 1);
	image.eh.e_ident[EI_CLASS] = ELFCLASS32;
	expect_einval(t, &image, sizeof(image));
	image_init();
	image.eh.e_ident[EI_DATA] = ELFDATA2MSB;
	expect_einval(t, &image, sizeof(image));
	image_init();
	image.eh.e_type = ET_CORE;
	expect_einval(t, &image, sizeof(image));
	image_init();
	image.eh.e_phnum = PN_XNUM;
	expect_einval(t, &image, sizeof(image));

	fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	assert_int_equal(object_table_get(t, &id, fd, "/dev/null", &o), -EINVAL);
	close(fd);
	fd = open("/", O_RDONLY | O_CLOEXEC);
	assert_int_equal(object_table_get(t, &id, fd, "/", &o), -EINVAL);
	close(fd);
	fd = open("/", O_PATH | O_CLOEXEC);
	assert_true(object_table_get(t, &id, fd, "/", &o) < 0);
	close(fd);
	assert_int_equal(object_table_get(t, &id, 12345, "/", &o), -EBADF);
	object_table_free(t);
}

/* Section headers that a sparse file could hold, and our memory could not. */
static void test_huge_tables(void **state)
{
	struct object_table *t = object_table_new();
	struct object_id id = {8, 1, 7};
	struct object *o = NULL;
	Elf64_Shdr first = {.sh_size = 1u << 31};
	int fd;

	(void)state;
	image_init();
	add_phdr(PT_NOTE, PF_R, NOTE_AT, 0, 1ull << 39);
	image.eh.e_shoff = 1 << 20;
	fd = make_file(&image, sizeof(image));
	assert_int_equal(pwrite(fd, &first, sizeof(first), 1 << 20), sizeof(first));
	assert_int_equal(ftruncate(fd, 1ll << 40), 0);
	assert_int_equal(object_table_get(t, &id, fd, "/x", &o), -EINVAL);

	/* With none of them the note alone is too large. */
	first.sh_size = 0;
	assert_int_equal(pwrite(fd, &first, sizeof(first), 1 << 20), sizeof(first));
	assert_int_equal(object_table_get(t, &id, fd, "/x", &o), 0);
	assert_null(object_build_id(o));
	close(fd);
	object_table_free(t);
}

static void test_many_segments(void **state)
{
	struct object_table *t = object_table_new();
	struct object *o;
	uint64_t vaddr;
	unsigned int i;

	(void)state;
	image_init();
	for (i = 0; i < PHDRS_MAX; i++)
		add_phdr(PT_LOAD, PF_X, i * 0x1000, i * 0x1000, 0x1000);
	assert_int_equal(get(t, 1, &image, sizeof(image), &o), 0);
	assert_int_equal(object_vaddr(o, 63 * 0x1000, &vaddr), 0);
	assert_int_equal(object_vaddr(o, 64 * 0x1000, &vaddr), -ERANGE);
	object_table_free(t);
}

static void expect_no_build_id(uint32_t name_bytes, uint32_t desc_bytes)
{
	struct object_table *t = object_table_new();
	struct object *o;

	image_init();
	add_note();
	image.nh.n_namesz = name_bytes;
	image.nh.n_descsz = desc_bytes;
	assert_int_equal(get(t, 1, &image, sizeof(image), &o), 0);
	assert_null(object_build_id(o));
	object_table_free(t);
}

static void test_hostile_notes(void **state)
{
	(void)state;
	expect_no_build_id(4, 0);
	expect_no_build_id(4, 28);
	expect_no_build_id(4, BUILD_ID_BYTES_MAX + 1);
	expect_no_build_id(4, UINT32_MAX);
	expect_no_build_id(UINT32_MAX, 20);
	expect_no_build_id(0, 20);
	expect_no_build_id(5, 20);
	expect_no_build_id(UINT32_MAX, UINT32_MAX);
}

static void test_truncated_and_flipped(void **state)
{
	struct object_table *t = object_table_new();
	unsigned int seed = 3;
	struct object *o;
	size_t i, size;
	int j;

	(void)state;
	image_init();
	add_note();
	add_phdr(PT_LOAD, PF_X, 0, 0, 0x1000);
	for (size = 0; size < sizeof(image); size += size < 512 ? 1 : 61)
		if (!get(t, size, &image, size, &o))
			assert_true(size >= sizeof(Elf64_Ehdr));
	for (i = 0; i < 3000; i++) {
		struct image copy = image;

		for (j = 0; j < 4; j++)
			((uint8_t *)&copy)[rand_r(&seed) % 200] ^=
				(uint8_t)(1 << rand_r(&seed) % 8);
		copy.nh.n_descsz ^= 1u << rand_r(&seed) % 32;
		if (!get(t, i % 100 + 100000, &copy, sizeof(copy), &o))
			(void)object_build_id(o);
		if (i % 200 == 0) {
			object_table_free(t);
			t = object_table_new();
		}
	}
	object_table_free(t);
}

/* The table leaves descriptors for others. */
static void test_descriptor_bound(void **state)
{
	struct object_table *t = object_table_new();
	struct object *o;
	int err = 0, spare;
	uint64_t i;

	(void)state;
	image_init();
	for (i = 0; !err && i < 40000; i++)
		err = get(t, i, &image, sizeof(image), &o);
	assert_int_equal(err, -ENFILE);
	spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
	assert_true(spare >= 0);
	close(spare);
	/* What is known is still found. */
	assert_int_equal(object_table_get(t, &(struct object_id){8, 1, 0}, -1, "", &o), 0);
	object_table_free(t);
}

static void test_code_start(void **state)
{
	struct object_table *t = object_table_new();
	uint64_t vaddr = 7;
	struct object *o;

	(void)state;
	image_init();
	add_phdr(PT_LOAD, PF_R, 0, 0x1000, 0x1000);
	add_phdr(PT_LOAD, PF_X, 0, 0x500, 0); /* of no memory */
	assert_int_equal(get(t, 1, &image, sizeof(image), &o), 0);
	assert_int_equal(object_code_start(o, &vaddr), -ENODATA);
	assert_int_equal(vaddr, 7);
	add_phdr(PT_LOAD, PF_R | PF_X, 0x4000, 0x9000, 0x1000);
	add_phdr(PT_LOAD, PF_R | PF_X, 0x2000, 0x5000, 0x1000);
	add_phdr(PT_LOAD, PF_R | PF_X, 0, UINT64_MAX - 4, 0x1000);
	assert_int_equal(get(t, 2, &image, sizeof(image), &o), 0);
	assert_int_equal(object_code_start(o, &vaddr), 0);
	assert_int_equal(vaddr, 0x5000);
	object_table_free(t);
}

static void test_origin(void **state)
{
	struct object_table *t = object_table_new();
	uint64_t ticks = 7;
	struct object *o;

	(void)state;
	image_init();
	assert_int_equal(get(t, 1, &image, sizeof(image), &o), 0);
	assert_int_equal(object_origin(o, &ticks), 0);
	assert_int_equal(ticks, 7);
	object_set_origin(o, 12, 345);
	object_set_origin(o, 13, 678);
	assert_int_equal(object_origin(o, &ticks), 12);
	assert_int_equal(ticks, 345);
	object_table_free(t);
}

static void test_vdso(void **state)
{
	const void *vdso = (const void *)(uintptr_t)getauxval(AT_SYSINFO_EHDR);
	struct object_table *t = object_table_new();
	struct object *o = object_table_vdso(t);
	uint64_t vaddr = 7, ticks;
	uint8_t copy[4096];

	(void)state;
	if (!vdso) {
		assert_null(o);
		object_table_free(t);
		skip();
	}
	assert_non_null(o);
	assert_ptr_equal(object_table_vdso(t), o);
	assert_string_equal(object_path(o), "[vdso]");
	assert_int_equal(object_origin(o, &ticks), 0);
	assert_int_equal(object_vaddr(o, 0x123, &vaddr), 0);
	assert_int_equal(vaddr, 0x123);
	assert_int_equal(object_code_start(o, &vaddr), 0);
	assert_int_equal(pread(object_fd(o), copy, sizeof(copy), 0), sizeof(copy));
	assert_memory_equal(copy, vdso, sizeof(copy));
	assert_true(pwrite(object_fd(o), copy, 1, 0) < 0);
	assert_true(ftruncate(object_fd(o), 0) < 0);
	object_table_free(t);
}

struct reader {
	const struct object *object;
	bool stop;
	size_t wrong;
};

static void *read_on(void *argument)
{
	struct reader *r = argument;
	uint64_t vaddr, ticks;

	while (!__atomic_load_n(&r->stop, __ATOMIC_RELAXED)) {
		pid_t pid = object_origin(r->object, &ticks);

		r->wrong += pid && (pid != 12 || ticks != 345);
		r->wrong += object_code_start(r->object, &vaddr) || vaddr != 0x5000;
		r->wrong += object_vaddr(r->object, 1, &vaddr) || vaddr != 0x5001;
		r->wrong += strcmp(object_path(r->object), "/lib/x.so") != 0;
		r->wrong += !object_build_id(r->object);
		r->wrong += object_fd(r->object) < 0;
		object_is_allocator(r->object);
	}
	return NULL;
}

/* One thread looks at an object while another adds more and sets attributes. */
static void test_second_thread(void **state)
{
	struct object_table *t = object_table_new();
	struct reader reader = {0};
	struct object *o, *other;
	pthread_t thread;

	(void)state;
	image_init();
	add_note();
	add_phdr(PT_LOAD, PF_X, 0, 0x5000, 0x1000);
	assert_int_equal(get(t, 0, &image, sizeof(image), &o), 0);
	reader.object = o;
	assert_int_equal(pthread_create(&thread, NULL, read_on, &reader), 0);
	for (uint64_t i = 1; i < 200; i++) {
		assert_int_equal(get(t, i, &image, sizeof(image), &other), 0);
		if (i == 50)
			object_set_allocator(o);
		if (i == 100)
			object_set_origin(o, 12, 345);
		object_table_vdso(t);
	}
	__atomic_store_n(&reader.stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	assert_int_equal(reader.wrong, 0);
	assert_true(object_is_allocator(o));
	object_table_free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_basics),
		cmocka_unit_test(test_vaddr),
		cmocka_unit_test(test_vaddr_of_a_shared_page),
		cmocka_unit_test(test_identity),
		cmocka_unit_test(test_no_elf),
		cmocka_unit_test(test_huge_tables),
		cmocka_unit_test(test_many_segments),
		cmocka_unit_test(test_hostile_notes),
		cmocka_unit_test(test_truncated_and_flipped),
		cmocka_unit_test(test_descriptor_bound),
		cmocka_unit_test(test_code_start),
		cmocka_unit_test(test_origin),
		cmocka_unit_test(test_vdso),
		cmocka_unit_test(test_second_thread),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
