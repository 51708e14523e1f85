/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Objects made to hurt: what cannot be read is left out, the rest stays right. */
#include "unwind/cfi.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <dwarf.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cfi_image.h"
#include "unwind/byte_reader.h"
#include "unwind/rule_set.h"
#include "unwind_table.h"

#define CODE(...) ((const uint8_t[]){__VA_ARGS__}), sizeof((const uint8_t[]){__VA_ARGS__})

static struct rule_set *rules;
static struct cfi_table *table;
static struct bytes frame;

static int setup(void **state)
{
	(void)state;
	frame.size = 0;
	table = NULL;
	return rule_set_new(&rules);
}

static int teardown(void **state)
{
	(void)state;
	cfi_table_free(table);
	rule_set_free(rules);
	return 0;
}

static int read_image(const void *data, size_t size)
{
	/* A copy of its own, so that a sanitizer sees the first byte behind it. */
	void *copy = malloc(size ? size : 1);
	int err;

	memcpy(copy, data, size);
	cfi_table_free(table);
	table = NULL;
	err = cfi_table_read_memory(copy, size, rules, &table);
	free(copy);
	return err;
}

static int read_frame_of(size_t size)
{
	struct image image =
		image_make(&(struct image_parts){.eh_frame = frame.data, .eh_frame_bytes = size});
	int err = read_image(image.data, image.size);

	free(image.data);
	return err;
}

static int read_frame(void)
{
	return read_frame_of(frame.size);
}

static struct unwind_rule rule_at(uint64_t vaddr)
{
	return rule_set_get(rules, cfi_table_find(table, vaddr));
}

/* The good function at TEXT with which each frame here begins. */
static void assert_good_remains(void)
{
	assert_int_equal(rule_at(TEXT).cfa, UNWIND_CFA_BY_RSP);
	assert_int_equal(rule_at(TEXT).offset, 8);
	assert_int_equal(rule_at(TEXT + 4).offset, 16);
}

static void put_good(void)
{
	put_fde(&frame, put_usual_cie(&frame), TEXT, 8,
		CODE(DW_CFA_advance_loc | 4, DW_CFA_def_cfa_offset, 16));
}

/*
 * A function whose instructions break off after 4 bytes: the state until then
 * stands, then nothing is known.
 */
static void assert_breaks(const void *code, size_t size)
{
	uint8_t all[256] = {DW_CFA_advance_loc | 4};

	memcpy(all + 1, code, size);
	frame.size = 0;
	put_good();
	put_fde(&frame, 0, TEXT + 0x100, 0x100, all, 1 + size);
	assert_int_equal(read_frame(), 0);
	assert_int_equal(cfi_table_bad_records(table), 1);
	assert_good_remains();
	assert_int_equal(rule_at(TEXT + 0x103).offset, 8);
	assert_int_equal(cfi_table_find(table, TEXT + 0x104), UNWIND_RULE_UNKNOWN);
	assert_int_equal(cfi_table_find(table, TEXT + 0x1ff), UNWIND_RULE_UNKNOWN);
}

static void broken_instructions(void **state)
{
	const uint8_t operands[] = {DW_CFA_offset | 6,	     DW_CFA_set_loc,
				    DW_CFA_advance_loc1,     DW_CFA_advance_loc2,
				    DW_CFA_advance_loc4,     DW_CFA_offset_extended,
				    DW_CFA_restore_extended, DW_CFA_undefined,
				    DW_CFA_same_value,	     DW_CFA_register,
				    DW_CFA_def_cfa,	     DW_CFA_def_cfa_register,
				    DW_CFA_def_cfa_offset,   DW_CFA_def_cfa_expression,
				    DW_CFA_expression,	     DW_CFA_offset_extended_sf,
				    DW_CFA_def_cfa_sf,	     DW_CFA_def_cfa_offset_sf,
				    DW_CFA_val_offset,	     DW_CFA_val_offset_sf,
				    DW_CFA_val_expression,   DW_CFA_MIPS_advance_loc8,
				    DW_CFA_GNU_args_size,    DW_CFA_GNU_negative_offset_extended};
	size_t i;

	(void)state;
	/* No operands, and instructions that nobody knows. */
	for (i = 0; i < sizeof(operands); i++)
		assert_breaks(&operands[i], 1);
	assert_breaks(CODE(0x17));
	assert_breaks(CODE(DW_CFA_GNU_window_save));
	assert_breaks(CODE(0x3f));
	/* An expression longer than the record, and longer than memory. */
	assert_breaks(CODE(DW_CFA_def_cfa_expression, 5, DW_OP_breg7, 8));
	assert_breaks(CODE(DW_CFA_def_cfa_expression, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
			   0xff, 0xff, 0x01, DW_OP_breg7, 8));
	/* Backwards, and around the end of the address space. */
	assert_breaks(CODE(DW_CFA_set_loc, 0, 0, 0, 0x90));
	assert_breaks(
		CODE(DW_CFA_MIPS_advance_loc8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff));
}

static void broken_numbers(void **state)
{
	(void)state;
	/* Never ending, of more than 64 bits, and cut. */
	assert_breaks(CODE(DW_CFA_def_cfa_offset, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
			   0x80, 0x80, 0x80, 0));
	assert_breaks(CODE(DW_CFA_def_cfa_offset, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
			   0xff, 0x7f));
	assert_breaks(CODE(DW_CFA_def_cfa_offset_sf, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
			   0x80, 0x01));
	assert_breaks(CODE(DW_CFA_def_cfa_offset, 0x80));
	/* -2^63 times -8 */
	assert_breaks(CODE(DW_CFA_def_cfa_offset_sf, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
			   0x80, 0x7f));
}

static void leb128(void **state)
{
	struct byte_reader r = byte_reader(CODE(0x80, 0x80, 0x00));

	(void)state;
	assert_int_equal(reader_uleb128(&r), 0);
	assert_false(r.bad);
	r = byte_reader(CODE(0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01));
	assert_true(reader_uleb128(&r) == UINT64_MAX);
	assert_false(r.bad);
	r = byte_reader(CODE(0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x7f));
	assert_true(reader_sleb128(&r) == INT64_MIN);
	assert_false(r.bad);
	r = byte_reader(CODE(0x7f));
	assert_int_equal(reader_sleb128(&r), -1);
	r = byte_reader(CODE(0x80));
	assert_int_equal(reader_sleb128(&r), 0);
	assert_true(r.bad);
	assert_int_equal(reader_u64(&r), 0);
}

static void remembered_states(void **state)
{
	uint8_t code[40] = {DW_CFA_restore_state};

	(void)state;
	assert_breaks(code, 1);
	memset(code, DW_CFA_remember_state, sizeof(code));
	assert_breaks(code, 17);
	code[16] = DW_CFA_nop;
	frame.size = 0;
	put_good();
	put_fde(&frame, 0, TEXT + 0x100, 0x100, code, 17);
	assert_int_equal(read_frame(), 0);
	assert_int_equal(cfi_table_bad_records(table), 0);
}

/* An image cut at any length, and one with any byte changed. */
static void truncated_images(void **state)
{
	static struct bytes debug;
	struct image image;
	size_t i;

	(void)state;
	put_good();
	debug = frame;
	image = image_make(&(struct image_parts){.eh_frame = frame.data,
						 .eh_frame_bytes = frame.size,
						 .debug_frame = debug.data,
						 .debug_frame_bytes = debug.size});
	assert_int_equal(read_image(image.data, image.size), 0);
	for (i = 0; i < image.size; i++) {
		int err = read_image(image.data, i);

		assert_true(err == 0 || err == -EINVAL || err == -ENODATA);
		assert_true(err != 0 || table);
	}
	for (i = 0; i < image.size; i++) {
		uint8_t kept = image.data[i];

		/* Between the headers and .eh_frame nothing is read. */
		if (i == 512)
			i = EH_FRAME_AT;
		image.data[i] = 0xff;
		read_image(image.data, image.size);
		image.data[i] = 0x80;
		read_image(image.data, image.size);
		image.data[i] = kept;
	}
	free(image.data);
}

static void truncated_sections(void **state)
{
	size_t good, i;

	(void)state;
	put_good();
	good = frame.size;
	put_fde(&frame, put_usual_cie(&frame), TEXT + 0x100, 16, CODE(DW_CFA_remember_state));
	for (i = 1; i < good; i++)
		assert_true(read_frame_of(i) < 0);
	for (i = good; i < frame.size; i++) {
		assert_int_equal(read_frame_of(i), 0);
		assert_good_remains();
		assert_int_equal(cfi_table_find(table, TEXT + 0x100), UNWIND_RULE_UNKNOWN);
	}
	assert_int_equal(read_frame_of(frame.size), 0);
	assert_int_equal(rule_at(TEXT + 0x100).offset, 8);
}

static void huge_lengths(void **state)
{
	const uint64_t lengths[] = {0x7fffffff, 0xfffffff0, 0xfffffffe};
	const uint64_t long_lengths[] = {INT64_MAX, UINT64_MAX, UINT64_MAX - 11, 1ull << 32};
	size_t i, good;

	(void)state;
	put_good();
	good = frame.size;
	for (i = 0; i < 3 + 4; i++) {
		frame.size = good;
		put_number(&frame, i < 3 ? lengths[i] : 0xffffffff, 4);
		if (i >= 3)
			put_number(&frame, long_lengths[i - 3], 8);
		put(&frame, (const uint8_t[40]){0}, 40);
		assert_int_equal(read_frame(), 0);
		assert_int_equal(cfi_table_bad_records(table), 1);
		assert_good_remains();
	}
}

static void cie_pointers(void **state)
{
	size_t middle;

	(void)state;
	put_good();
	/* Into the middle of a CIE, to an FDE, to itself, forwards, before the section. */
	put_fde(&frame, 4, TEXT + 0x100, 16, CODE(DW_CFA_nop));
	put_fde(&frame, 22, TEXT + 0x200, 16, CODE(DW_CFA_nop));
	middle = frame.size;
	put_fde(&frame, middle + 4, TEXT + 0x300, 16, CODE(DW_CFA_nop));
	put_fde(&frame, frame.size + 64, TEXT + 0x400, 16, CODE(DW_CFA_nop));
	put_fde(&frame, (size_t)-100, TEXT + 0x500, 16, CODE(DW_CFA_nop));
	assert_int_equal(read_frame(), 0);
	assert_good_remains();
	for (middle = 0x100; middle < 0x600; middle += 0x100)
		assert_int_equal(cfi_table_find(table, TEXT + middle), UNWIND_RULE_UNKNOWN);
	assert_int_equal(cfi_table_bad_records(table), 5);
}

/* One object cannot take all the rules; what it has beyond its share is unknown. */
static void too_many_rules(void **state)
{
	const uint32_t functions = CFI_RULES_PER_OBJECT + 100;
	static uint8_t many[32 * (CFI_RULES_PER_OBJECT + 200)];
	struct image_parts parts = {.eh_frame = many, .text_bytes = 0x100000};
	struct image image;
	uint32_t i;

	(void)state;
	put_usual_cie(&frame);
	memcpy(many, frame.data, frame.size);
	parts.eh_frame_bytes = frame.size;
	for (i = 0; i < functions; i++) {
		const uint8_t code[] = {DW_CFA_def_cfa_offset, 0x80 | (i & 0x7f), 0x80 | (i >> 7),
					1};
		uint32_t fde[4] = {
			17 + 4, (uint32_t)parts.eh_frame_bytes + 4,
			(uint32_t)(TEXT + 64 * i - (EH_FRAME_VADDR + parts.eh_frame_bytes + 8)),
			64};

		memcpy(many + parts.eh_frame_bytes, fde, 16);
		memcpy(many + parts.eh_frame_bytes + 17, code, 4);
		parts.eh_frame_bytes += 25;
	}
	image = image_make(&parts);
	assert_int_equal(read_image(image.data, image.size), 0);
	free(image.data);
	assert_int_equal(rule_set_count(rules), 2 + CFI_RULES_PER_OBJECT);
	assert_int_equal(rule_at(TEXT).offset, 0x4000);
	assert_int_equal(rule_at(TEXT + 64 * (CFI_RULES_PER_OBJECT - 1)).offset,
			 0x4000 + CFI_RULES_PER_OBJECT - 1);
	assert_int_equal(cfi_table_find(table, TEXT + 64 * CFI_RULES_PER_OBJECT),
			 UNWIND_RULE_UNKNOWN);
}

static void headers(void **state)
{
	struct image image;
	Elf64_Ehdr *eh;
	Elf64_Phdr *ph;
	Elf64_Shdr *sh;

	(void)state;
	put_good();
	image = image_make(
		&(struct image_parts){.eh_frame = frame.data, .eh_frame_bytes = frame.size});
	eh = (Elf64_Ehdr *)image.data;
	ph = (Elf64_Phdr *)(image.data + eh->e_phoff);
	sh = (Elf64_Shdr *)(image.data + eh->e_shoff);
	ph[0].p_memsz = UINT64_MAX;
	assert_int_equal(read_image(image.data, image.size), -ENODATA);
	ph[0].p_memsz = 0x1000;
	sh[2].sh_size = (64u << 20) + 1;
	assert_int_equal(read_image(image.data, image.size), -EFBIG);
	sh[2].sh_size = image.size;
	assert_int_equal(read_image(image.data, image.size), -EINVAL);
	sh[2].sh_size = frame.size;
	sh[2].sh_offset = UINT64_MAX - 8;
	assert_int_equal(read_image(image.data, image.size), -EINVAL);
	sh[2].sh_offset = EH_FRAME_AT;
	assert_int_equal(read_image(image.data, image.size), 0);
	sh[2].sh_name = UINT32_MAX;
	assert_int_equal(read_image(image.data, image.size), -ENODATA);
	eh->e_shoff = UINT64_MAX - 1;
	assert_int_equal(read_image(image.data, image.size), -ENODATA);
	eh->e_phoff = UINT64_MAX - 1;
	assert_int_equal(read_image(image.data, image.size), -EINVAL);
	eh->e_phnum = 0xffff;
	assert_int_equal(read_image(image.data, image.size), -EINVAL);
	free(image.data);
}

static void search_tables(void **state)
{
	uint8_t hdr[] = {1,
			 DW_EH_PE_pcrel | DW_EH_PE_sdata4,
			 DW_EH_PE_udata4,
			 DW_EH_PE_datarel | DW_EH_PE_sdata4,
			 0,
			 0,
			 0,
			 0,
			 0xff,
			 0xff,
			 0xff,
			 0xff,
			 1,
			 2,
			 3,
			 4,
			 5,
			 6,
			 7,
			 8,
			 9};
	struct image_parts parts = {.no_sections = true,
				    .eh_frame = frame.data,
				    .eh_frame_hdr = hdr,
				    .eh_frame_hdr_bytes = sizeof(hdr)};
	int32_t start;
	int i, value;

	(void)state;
	put_good();
	parts.eh_frame_bytes = frame.size;
	start = -(int32_t)frame.size - 4;
	memcpy(hdr + 4, &start, 4);
	/* Each byte of the header with each value. */
	for (i = 0; i < (int)sizeof(hdr); i++) {
		uint8_t kept = hdr[i];

		for (value = 0; value < 256; value++) {
			struct image image;

			hdr[i] = (uint8_t)value;
			image = image_make(&parts);
			read_image(image.data, image.size);
			free(image.data);
		}
		hdr[i] = kept;
	}
}

/* A file, as opposed to memory: one that is no regular file, and a sparse one. */
static void files(void **state)
{
	struct image image;
	int fd = open("/dev/zero", O_RDONLY);

	(void)state;
	assert_int_equal(cfi_table_read(fd, rules, &table), -EINVAL);
	close(fd);
	put_good();
	image = image_make(
		&(struct image_parts){.eh_frame = frame.data, .eh_frame_bytes = frame.size});
	fd = memfd_create("sparse", 0);
	assert_int_equal(write(fd, image.data, image.size), image.size);
	assert_int_equal(ftruncate(fd, 1ll << 40), 0);
	assert_int_equal(cfi_table_read(fd, rules, &table), 0);
	assert_good_remains();
	cfi_table_free(table);
	table = NULL;
	((Elf64_Shdr *)(image.data + ((Elf64_Ehdr *)image.data)->e_shoff))[2].sh_size = 1ull << 39;
	assert_int_equal(pwrite(fd, image.data, image.size, 0), image.size);
	assert_int_equal(cfi_table_read(fd, rules, &table), -EFBIG);
	free(image.data);
	close(fd);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(broken_instructions),
		TEST(broken_numbers),
		TEST(leb128),
		TEST(remembered_states),
		TEST(truncated_images),
		TEST(truncated_sections),
		TEST(huge_lengths),
		TEST(cie_pointers),
		TEST(too_many_rules),
		TEST(headers),
		TEST(search_tables),
		TEST(files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
