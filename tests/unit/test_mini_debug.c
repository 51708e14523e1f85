/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A stripped program whose only symbols are packed into .gnu_debugdata here. */
#include "sym/mini_debug.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <lzma.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "scratch_dir.h"
#include "sym/symtab.h"

static const char source[] = "__attribute__((noinline)) static int hidden(int x)\n"
			     "{\n"
			     "	__asm__ volatile(\"\" : \"+r\"(x));\n"
			     "	return x + 1;\n"
			     "}\n"
			     "int exported(int x)\n"
			     "{\n"
			     "	return hidden(x) * 2;\n"
			     "}\n";

static int setup(void **state)
{
	*state = calloc(1, sizeof(struct scratch_dir));
	return scratch_make(*state);
}

static int teardown(void **state)
{
	int err = scratch_remove(*state);

	free(*state);
	return err;
}

static void run(const struct scratch_dir *d, const char *command)
{
	assert_int_equal(scratch_run(d, command), 0);
}

/* "library", stripped, and "mini" with what was taken away. */
static void build(const struct scratch_dir *d)
{
	if (scratch_run(d, "cc --version && objcopy --version"))
		skip();
	assert_int_equal(scratch_write(d, "p.c", source, sizeof(source) - 1), 0);
	run(d, "cc -shared -fPIC -O1 -o full p.c && objcopy --only-keep-debug full mini && "
	       "strip -o library full");
}

static uint8_t *read_file(const struct scratch_dir *d, const char *name, size_t *size)
{
	int fd = scratch_open(d, name, O_RDONLY);
	struct stat st;
	uint8_t *bytes;

	assert_int_equal(fstat(fd, &st), 0);
	*size = (size_t)st.st_size;
	bytes = malloc(*size);
	assert_int_equal(read(fd, bytes, *size), st.st_size);
	close(fd);
	return bytes;
}

static uint8_t *pack(const void *bytes, size_t size, uint32_t preset, size_t *packed_size)
{
	size_t room = lzma_stream_buffer_bound(size);
	uint8_t *packed = malloc(room);

	*packed_size = 0;
	assert_int_equal(lzma_easy_buffer_encode(preset, LZMA_CHECK_CRC64, NULL, bytes, size,
						 packed, packed_size, room),
			 LZMA_OK);
	return packed;
}

/* The library with @section as its .gnu_debugdata. */
static int library_with(const struct scratch_dir *d, const uint8_t *section, size_t size)
{
	assert_int_equal(scratch_write(d, "section", section, size), 0);
	run(d, "objcopy --add-section .gnu_debugdata=section library out");
	return scratch_open(d, "out", O_RDONLY);
}

static uint64_t address_of(const struct scratch_dir *d, const char *name)
{
	char command[256];
	uint64_t address = 0;
	FILE *in;

	snprintf(command, sizeof(command), "nm '%s/full' | sed -n 's/ . %s$//p'", d->path, name);
	in = popen(command, "re");
	assert_non_null(in);
	assert_int_equal(fscanf(in, "%" SCNx64, &address), 1);
	pclose(in);
	return address;
}

/* @expected NULL: no name. */
static void expect_symbol(const struct symtab *t, uint64_t vaddr, const char *expected)
{
	uint64_t start = 0;
	char name[64];
	int err = symtab_find(t, vaddr + 1, name, sizeof(name), &start);

	assert_int_equal(err, expected ? 0 : -ENOENT);
	if (expected) {
		assert_string_equal(name, expected);
		assert_int_equal(start, vaddr);
	}
}

static void test_symbols(void **state)
{
	struct scratch_dir *d = *state;
	uint8_t *bytes, *packed;
	struct symtab *t;
	size_t size;
	int fd;

	build(d);
	fd = scratch_open(d, "library", O_RDONLY);
	assert_int_equal(mini_debug_open(fd), -ENOENT);
	assert_int_equal(symtab_new(fd, -1, &t), 0);
	expect_symbol(t, address_of(d, "hidden"), NULL);
	expect_symbol(t, address_of(d, "exported"), "exported");
	symtab_free(t);
	close(fd);

	bytes = read_file(d, "mini", &size);
	packed = pack(bytes, size, 9, &size);
	fd = library_with(d, packed, size);
	assert_int_equal(symtab_new(fd, -1, &t), 0);
	expect_symbol(t, address_of(d, "hidden"), "hidden");
	expect_symbol(t, address_of(d, "exported"), "exported");
	assert_true(symtab_bytes(t) > size);
	symtab_free(t);
	close(fd);
	free(packed);
	free(bytes);
}

/* Whatever is in the section, the library keeps its other symbols. */
static void check_damaged(const struct scratch_dir *d, const uint8_t *section, size_t size,
			  int expected)
{
	int fd = library_with(d, section, size), opened;
	struct symtab *t;

	opened = mini_debug_open(fd);
	if (expected)
		assert_int_equal(opened, expected);
	if (opened >= 0)
		close(opened);
	assert_int_equal(symtab_new(fd, -1, &t), 0);
	expect_symbol(t, address_of(d, "exported"), "exported");
	symtab_free(t);
	close(fd);
}

static void test_damaged(void **state)
{
	struct scratch_dir *d = *state;
	uint8_t *bytes, *packed;
	unsigned int seed = 7;
	size_t size, i;

	build(d);
	check_damaged(d, (const uint8_t *)"not xz", 6, -EINVAL);
	bytes = read_file(d, "mini", &size);
	packed = pack(bytes, size, 6, &size);
	for (i = 1; i < size; i += size / 8)
		check_damaged(d, packed, i, -EINVAL);
	for (i = 0; i < 8; i++) {
		uint8_t *byte = &packed[(size_t)rand_r(&seed) % size], kept = *byte;

		*byte = (uint8_t)~kept;
		check_damaged(d, packed, size, -EINVAL);
		*byte = kept;
	}
	free(packed);
	/* Good xz, bad ELF. */
	packed = pack(bytes, 100, 6, &size);
	check_damaged(d, packed, size, 0);
	free(packed);
	packed = pack("", 0, 6, &size);
	check_damaged(d, packed, size, 0);
	free(packed);
	free(bytes);
}

static void test_bombs(void **state)
{
	size_t size = MINI_DEBUG_BYTES_MAX + 1;
	struct scratch_dir *d = *state;
	lzma_options_lzma options;
	lzma_filter filters[] = {{LZMA_FILTER_LZMA2, &options}, {LZMA_VLI_UNKNOWN, NULL}};
	uint8_t *zeros = calloc(1, size), *packed;
	uint8_t small[256];
	size_t packed_size;

	build(d);
	packed = pack(zeros, size, 0, &packed_size);
	check_damaged(d, packed, packed_size, -E2BIG);
	free(packed);
	packed = pack(zeros, size - 1, 0, &packed_size);
	check_damaged(d, packed, packed_size, 0);
	free(packed);
	free(zeros);

	/* A dictionary as large as the format knows. */
	assert_false(lzma_lzma_preset(&options, 0));
	options.dict_size = 1536u << 20;
	packed_size = 0;
	assert_int_equal(lzma_stream_buffer_encode(filters, LZMA_CHECK_CRC64, NULL,
						   (const uint8_t *)"x", 1, small, &packed_size,
						   sizeof(small)),
			 LZMA_OK);
	check_damaged(d, small, packed_size, -E2BIG);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_symbols),
		TEST(test_damaged),
		TEST(test_bombs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
