/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Compiles whatever it is given to an unwind table and checks the table. Input
 * that begins like an ELF file is one; of any other the first byte says which
 * section of a made-up file the rest becomes, so that the fuzzer need not invent
 * headers.
 */
#include "unwind/cfi.h"

#include <stdint.h>
#include <stdlib.h>

#include "cfi_image.h"
#include "unwind/rule_set.h"
#include "unwind_table.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool what)
{
	if (!what)
		abort();
}

static void check_block(const struct cfi_table *t, uint32_t block, uint32_t rule_count)
{
	const uint32_t *first = cfi_table_first_rows(t), *row = cfi_table_rows(t);
	uint32_t i;

	require(first[block] < first[block + 1]);
	require(row[first[block]] >> 16 == 0);
	for (i = first[block]; i < first[block + 1]; i++) {
		require(unwind_row_rule(row[i]) < rule_count);
		require(i == first[block] || row[i] >> 16 > row[i - 1] >> 16);
	}
}

static void check_table(const struct cfi_table *t, const struct rule_set *rules)
{
	uint32_t blocks = cfi_table_block_count(t), i;

	require(blocks && blocks <= UNWIND_BLOCKS_MAX);
	require(cfi_table_row_count(t) <= UNWIND_ROWS_MAX);
	require(cfi_table_first_rows(t)[0] == 0);
	require(cfi_table_first_rows(t)[blocks] == cfi_table_row_count(t));
	for (i = 0; i < blocks; i++)
		check_block(t, i, rule_set_count(rules));
	for (i = 0; i < 0x30000; i += 97)
		require(cfi_table_find(t, cfi_table_bias(t) + i) < rule_set_count(rules));
}

static void compile(const void *data, size_t size)
{
	struct cfi_table *table;
	struct rule_set *rules;

	if (rule_set_new(&rules))
		return;
	if (!cfi_table_read_memory(data, size, rules, &table)) {
		check_table(table, rules);
		cfi_table_free(table);
	}
	rule_set_free(rules);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct image_parts parts = {0};
	struct image image;

	if (!size || data[0] == ELFMAG0) {
		compile(data, size);
		return 0;
	}
	if (data[0] & 1) {
		parts.debug_frame = data + 1;
		parts.debug_frame_bytes = size - 1;
	} else {
		parts.eh_frame = data + 1;
		parts.eh_frame_bytes = size - 1;
	}
	image = image_make(&parts);
	compile(image.data, image.size);
	free(image.data);
	return 0;
}
