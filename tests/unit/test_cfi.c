/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "unwind/cfi.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <dwarf.h>
#include <elf.h>
#include <errno.h>
#include <string.h>
#include <zlib.h>

#include "cfi_image.h"
#include "unwind/rule_set.h"
#include "unwind_table.h"

#define CODE(...) ((const uint8_t[]){__VA_ARGS__}), sizeof((const uint8_t[]){__VA_ARGS__})

static const struct unwind_rule entry = {.cfa = UNWIND_CFA_BY_RSP, .offset = 8};
static const struct unwind_rule end_of_stack = {.cfa = UNWIND_CFA(UNWIND_CFA_END, 0)};
static const struct unwind_rule unknown;

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

static int read_parts(const struct image_parts *parts)
{
	struct image image = image_make(parts);
	int err = cfi_table_read_memory(image.data, image.size, rules, &table);

	free(image.data);
	return err;
}

static int read_frame(void)
{
	return read_parts(
		&(struct image_parts){.eh_frame = frame.data, .eh_frame_bytes = frame.size});
}

static void assert_rule(uint64_t vaddr, struct unwind_rule want)
{
	struct unwind_rule got = rule_set_get(rules, cfi_table_find(table, vaddr));

	assert_memory_equal(&got, &want, sizeof(want));
}

/* Blocks and rows are as unwind_table.h says. */
static void assert_well_formed(void)
{
	const uint32_t *first = cfi_table_first_rows(table), *row = cfi_table_rows(table);
	uint32_t blocks = cfi_table_block_count(table), b, i;

	assert_int_equal(first[0], 0);
	assert_int_equal(first[blocks], cfi_table_row_count(table));
	for (b = 0; b < blocks; b++) {
		assert_true(first[b] < first[b + 1]);
		assert_int_equal(row[first[b]] >> 16, 0);
		for (i = first[b] + 1; i < first[b + 1]; i++) {
			assert_true(row[i] >> 16 > row[i - 1] >> 16);
			assert_int_not_equal(unwind_row_rule(row[i]), unwind_row_rule(row[i - 1]));
		}
	}
}

/* The rule that @code leads to, in a function of its own. */
static struct unwind_rule rule_of(const void *code, size_t size)
{
	struct unwind_rule rule;

	frame.size = 0;
	put_fde(&frame, put_usual_cie(&frame), TEXT, 64, code, size);
	assert_int_equal(read_frame(), 0);
	assert_well_formed();
	rule = rule_set_get(rules, cfi_table_find(table, TEXT + 63));
	cfi_table_free(table);
	table = NULL;
	return rule;
}

static void assert_code(const void *code, size_t size, struct unwind_rule want)
{
	struct unwind_rule got = rule_of(code, size);

	assert_memory_equal(&got, &want, sizeof(want));
}

static void rows_of_a_function(void **state)
{
	(void)state;
	put_fde(&frame, put_usual_cie(&frame), TEXT + 0x10, 0x40,
		CODE(DW_CFA_advance_loc | 1, DW_CFA_def_cfa_offset, 16, DW_CFA_offset | 6, 2,
		     DW_CFA_advance_loc | 3, DW_CFA_def_cfa_register, 6, DW_CFA_advance_loc1, 0x30,
		     DW_CFA_def_cfa, 7, 8));
	assert_int_equal(read_frame(), 0);
	assert_well_formed();
	assert_int_equal(cfi_table_bias(table), TEXT);
	assert_int_equal(cfi_table_block_count(table), 3);
	assert_int_equal(cfi_table_row_count(table), 6 + 2);
	assert_int_equal(cfi_table_bytes(table), 4 * (4 + 8));
	assert_int_equal(cfi_table_bad_records(table), 0);
	assert_rule(TEXT + 0x0f, unknown);
	assert_rule(TEXT + 0x10, entry);
	assert_rule(TEXT + 0x11, (struct unwind_rule){UNWIND_CFA_BY_RSP, 2, 0, 0, 16});
	assert_rule(TEXT + 0x13, (struct unwind_rule){UNWIND_CFA_BY_RSP, 2, 0, 0, 16});
	assert_rule(TEXT + 0x14, (struct unwind_rule){UNWIND_CFA_BY_RBP, 2, 0, 0, 16});
	assert_rule(TEXT + 0x44, (struct unwind_rule){UNWIND_CFA_BY_RSP, 2, 0, 0, 8});
	assert_rule(TEXT + 0x4f, (struct unwind_rule){UNWIND_CFA_BY_RSP, 2, 0, 0, 8});
	assert_rule(TEXT + 0x50, unknown);
	assert_rule(TEXT + 0x2ffff, unknown);
	assert_rule(TEXT + 0x30000, unknown);
	assert_rule(TEXT - 1, unknown);
	assert_rule(UINT64_MAX, unknown);
}

static void cfa_instructions(void **state)
{
	(void)state;
	assert_code(CODE(DW_CFA_nop), entry);
	assert_code(CODE(DW_CFA_def_cfa, 3, 0x90, 0x01),
		    (struct unwind_rule){UNWIND_CFA(UNWIND_CFA_REG, 3), 0, 0, 0, 144});
	assert_code(CODE(DW_CFA_def_cfa_sf, 6, 0x7e),
		    (struct unwind_rule){UNWIND_CFA_BY_RBP, 0, 0, 0, 16});
	assert_code(CODE(DW_CFA_def_cfa_offset_sf, 0x7d),
		    (struct unwind_rule){UNWIND_CFA_BY_RSP, 0, 0, 0, 24});
	assert_code(CODE(DW_CFA_def_cfa_register, 10),
		    (struct unwind_rule){UNWIND_CFA(UNWIND_CFA_REG, 10), 0, 0, 0, 8});
	assert_code(CODE(DW_CFA_GNU_args_size, 0x80, 0x01, DW_CFA_def_cfa_offset, 16),
		    (struct unwind_rule){UNWIND_CFA_BY_RSP, 0, 0, 0, 16});
	assert_code(CODE(DW_CFA_def_cfa, 17, 8), unknown);
	assert_code(CODE(DW_CFA_def_cfa_offset, 0xff, 0xff, 0xff, 0xff, 0x0f), unknown);
}

static void cfa_expressions(void **state)
{
	(void)state;
	assert_code(CODE(DW_CFA_def_cfa_expression, 2, DW_OP_breg6, 16),
		    (struct unwind_rule){UNWIND_CFA_BY_RBP, 0, 0, 0, 16});
	assert_code(CODE(DW_CFA_def_cfa_expression, 3, DW_OP_breg6, 0x78, DW_OP_deref),
		    (struct unwind_rule){UNWIND_CFA(UNWIND_CFA_DEREF, 6), 0, 0, 0, -8});
	assert_code(CODE(DW_CFA_def_cfa_expression, 5, DW_OP_breg7, 56, DW_OP_deref,
			 DW_OP_plus_uconst, 64),
		    (struct unwind_rule){UNWIND_CFA(UNWIND_CFA_DEREF, 7), 0, 0, 8, 56});
	assert_code(CODE(DW_CFA_def_cfa_expression, 5, DW_OP_breg7, 56, DW_OP_deref,
			 DW_OP_plus_uconst, 7),
		    unknown);
	assert_code(CODE(DW_CFA_def_cfa_expression, 11, DW_OP_breg7, 8, DW_OP_breg16, 0,
			 DW_OP_lit15, DW_OP_and, DW_OP_lit11, DW_OP_ge, DW_OP_lit3, DW_OP_shl,
			 DW_OP_plus),
		    (struct unwind_rule){UNWIND_CFA(UNWIND_CFA_PLT, 7), 0, 0, 11, 8});
	assert_code(CODE(DW_CFA_def_cfa_expression, 3, DW_OP_breg7, 8, DW_OP_lit8), unknown);
	assert_code(CODE(DW_CFA_def_cfa_expression, 0), unknown);
	/* What changes the offset of an expression changes nothing that is known. */
	assert_code(CODE(DW_CFA_def_cfa_expression, 3, DW_OP_breg6, 0x78, DW_OP_deref,
			 DW_CFA_def_cfa_offset, 8),
		    unknown);
}

static void saved_registers(void **state)
{
	const uint8_t rsp = UNWIND_CFA_BY_RSP;

	(void)state;
	assert_code(CODE(DW_CFA_offset | 6, 127), (struct unwind_rule){rsp, 127, 0, 0, 8});
	assert_code(CODE(DW_CFA_offset | 6, 0x80, 1), (struct unwind_rule){rsp, 255, 0, 0, 8});
	assert_code(CODE(DW_CFA_offset_extended, 3, 4), (struct unwind_rule){rsp, 0, 4, 0, 8});
	assert_code(CODE(DW_CFA_offset_extended_sf, 6, 5), (struct unwind_rule){rsp, 5, 0, 0, 8});
	assert_code(CODE(DW_CFA_offset_extended_sf, 6, 0x7f),
		    (struct unwind_rule){rsp, 255, 0, 0, 8});
	assert_code(CODE(DW_CFA_GNU_negative_offset_extended, 6, 2),
		    (struct unwind_rule){rsp, 255, 0, 0, 8});
	assert_code(CODE(DW_CFA_offset | 6, 2, DW_CFA_same_value, 6), entry);
	assert_code(CODE(DW_CFA_offset | 6, 2, DW_CFA_restore | 6), entry);
	assert_code(CODE(DW_CFA_offset | 6, 2, DW_CFA_restore_extended, 6), entry);
	assert_code(CODE(DW_CFA_undefined, 6), (struct unwind_rule){rsp, 255, 0, 0, 8});
	assert_code(CODE(DW_CFA_register, 6, 9), (struct unwind_rule){rsp, 255, 0, 0, 8});
	assert_code(CODE(DW_CFA_val_offset, 6, 2), (struct unwind_rule){rsp, 255, 0, 0, 8});
	assert_code(CODE(DW_CFA_val_offset_sf, 3, 2), (struct unwind_rule){rsp, 0, 255, 0, 8});
	assert_code(CODE(DW_CFA_val_expression, 6, 2, DW_OP_breg7, 8),
		    (struct unwind_rule){rsp, 255, 0, 0, 8});
	assert_code(CODE(DW_CFA_expression, 6, 2, DW_OP_breg6, 0),
		    (struct unwind_rule){rsp, 128, 0, 0, 8});
	assert_code(CODE(DW_CFA_expression, 3, 2, DW_OP_breg6, 0x58),
		    (struct unwind_rule){rsp, 0, 128 + 5, 0, 8});
	assert_code(CODE(DW_CFA_expression, 3, 2, DW_OP_breg6, 8),
		    (struct unwind_rule){rsp, 0, 255, 0, 8});
	assert_code(CODE(DW_CFA_expression, 6, 2, DW_OP_breg7, 8),
		    (struct unwind_rule){rsp, 255, 0, 0, 8});
	/* Others are of no interest. */
	assert_code(CODE(DW_CFA_offset | 12, 2, DW_CFA_undefined, 0, DW_CFA_register, 1, 2,
			 DW_CFA_offset_extended, 60, 3, DW_CFA_expression, 13, 1, DW_OP_lit0),
		    entry);
}

static void return_address(void **state)
{
	(void)state;
	assert_code(CODE(DW_CFA_undefined, 16), end_of_stack);
	assert_code(CODE(DW_CFA_register, 16, 2), unknown);
	assert_code(CODE(DW_CFA_offset | 16, 2), unknown);
	assert_code(CODE(DW_CFA_same_value, 16), unknown);
	assert_code(CODE(DW_CFA_undefined, 16, DW_CFA_restore | 16), entry);
	/* Nor can the caller's rsp be anything but the CFA. */
	assert_code(CODE(DW_CFA_val_offset, 7, 0), entry);
	assert_code(CODE(DW_CFA_val_offset, 7, 1), unknown);
	assert_code(CODE(DW_CFA_register, 7, 8), unknown);
}

static void remembered_states(void **state)
{
	const struct unwind_rule deep = {UNWIND_CFA_BY_RSP, 2, 0, 0, 32};

	(void)state;
	assert_code(CODE(DW_CFA_def_cfa_offset, 32, DW_CFA_offset | 6, 2, DW_CFA_remember_state,
			 DW_CFA_def_cfa_offset, 8, DW_CFA_restore | 6, DW_CFA_remember_state,
			 DW_CFA_def_cfa_register, 6, DW_CFA_restore_state, DW_CFA_restore_state),
		    deep);
}

static void locations(void **state)
{
	uint8_t code[1 + 8 + 1 + 4 + 1 + 2 + 2 + 2 + 3 + 2 + 5] = {DW_CFA_set_loc};
	uint32_t loc;

	(void)state;
	put_usual_cie(&frame);
	/* set_loc is relative to where its operand stands. */
	loc = (uint32_t)(TEXT + 1 - (EH_FRAME_VADDR + frame.size + 17 + 1));
	memcpy(code + 1, &loc, 4);
	memcpy(code + 5,
	       (const uint8_t[]){DW_CFA_def_cfa_offset,
				 16,
				 DW_CFA_advance_loc2,
				 0x00,
				 0x01,
				 DW_CFA_def_cfa_offset,
				 24,
				 DW_CFA_advance_loc4,
				 0x00,
				 0x00,
				 0x01,
				 0x00,
				 DW_CFA_def_cfa_offset,
				 32,
				 DW_CFA_MIPS_advance_loc8,
				 1,
				 0,
				 0,
				 0,
				 0,
				 0,
				 0,
				 0,
				 DW_CFA_def_cfa_offset,
				 40},
	       25);
	put_fde(&frame, 0, TEXT, 0x20000, code, 30);
	assert_int_equal(read_frame(), 0);
	assert_well_formed();
	assert_rule(TEXT, entry);
	assert_int_equal(rule_set_get(rules, cfi_table_find(table, TEXT + 1)).offset, 16);
	assert_int_equal(rule_set_get(rules, cfi_table_find(table, TEXT + 0x100)).offset, 16);
	assert_int_equal(rule_set_get(rules, cfi_table_find(table, TEXT + 0x101)).offset, 24);
	assert_int_equal(rule_set_get(rules, cfi_table_find(table, TEXT + 0x10100)).offset, 24);
	assert_int_equal(rule_set_get(rules, cfi_table_find(table, TEXT + 0x10101)).offset, 32);
	assert_int_equal(rule_set_get(rules, cfi_table_find(table, TEXT + 0x10102)).offset, 40);
}

static void signal_frame(void **state)
{
	static const uint8_t cie[] = {1, 'z',	      'R', 'S',
				      0, CIE_FACTORS, 1,   DW_EH_PE_sdata4 | DW_EH_PE_pcrel};
	static const uint8_t code[] = {
		DW_CFA_def_cfa_expression, 4,  DW_OP_breg7, 0xa0,	 0x01, DW_OP_deref,
		DW_CFA_expression,	   3,  3,	    DW_OP_breg7, 0x80, 0x01,
		DW_CFA_expression,	   6,  3,	    DW_OP_breg7, 0xf8, 0x00,
		DW_CFA_expression,	   7,  3,	    DW_OP_breg7, 0xa0, 0x01,
		DW_CFA_expression,	   16, 3,	    DW_OP_breg7, 0xa8, 0x01,
	};

	(void)state;
	put_cie(&frame, cie, sizeof(cie));
	put_fde(&frame, 0, TEXT, 16, code, sizeof(code));
	put_fde(&frame, 0, TEXT + 16, 16, code, sizeof(code) - 6);
	put_fde(&frame, 0, TEXT + 32, 16, CODE(CIE_ENTRY));
	/* Without the S no signal frame. */
	put_fde(&frame, put_usual_cie(&frame), TEXT + 48, 16, code, sizeof(code));
	assert_int_equal(read_frame(), 0);
	assert_rule(TEXT, (struct unwind_rule){.cfa = UNWIND_CFA(UNWIND_CFA_SIGNAL, 0)});
	assert_rule(TEXT + 16, unknown);
	assert_rule(TEXT + 32, unknown);
	assert_rule(TEXT + 48, unknown);
}

static void assert_cie(const void *body, size_t size, const void *fde_data, size_t fde_size,
		       struct unwind_rule want)
{
	size_t start;

	frame.size = 0;
	put_cie(&frame, body, size);
	start = record_begin(&frame, false);
	put_number(&frame, start, 4);
	put(&frame, fde_data, fde_size);
	record_end(&frame, start, false);
	/* One that is always good. */
	put_fde(&frame, put_usual_cie(&frame), TEXT + 0x20000, 16, CODE(DW_CFA_nop));
	assert_int_equal(read_frame(), 0);
	assert_rule(TEXT + 0x100, want);
	assert_rule(TEXT + 0x20000, entry);
	assert_int_equal(cfi_table_bad_records(table) > 0, !memcmp(&want, &unknown, sizeof(want)));
	cfi_table_free(table);
	table = NULL;
}

static void augmentations(void **state)
{
	static const uint64_t absolute[] = {TEXT + 0x100, 16};
	uint8_t with_data[17 + 3];

	(void)state;
	memcpy(with_data, absolute, 16);
	memcpy(with_data + 16, (const uint8_t[]){3, 0xff, 0xff, 0xff}, 4);
	assert_cie(CODE(1, 0, CIE_FACTORS, CIE_ENTRY), absolute, 16, entry);
	assert_cie(CODE(3, 0, CIE_FACTORS, CIE_ENTRY), absolute, 16, entry);
	assert_cie(CODE(4, 0, 8, 0, CIE_FACTORS, CIE_ENTRY), absolute, 16, entry);
	assert_cie(CODE(4, 0, 8, 1, CIE_FACTORS, CIE_ENTRY), absolute, 16, unknown);
	assert_cie(CODE(4, 0, 2, 0, CIE_FACTORS, CIE_ENTRY), absolute, 16, unknown);
	assert_cie(CODE(2, 0, CIE_FACTORS, CIE_ENTRY), absolute, 16, unknown);
	assert_cie(CODE(1, 'e', 'h', 0, 1, 2, 3, 4, 5, 6, 7, 8, CIE_FACTORS, CIE_ENTRY), absolute,
		   16, entry);
	assert_cie(CODE(1, 'y', 0, CIE_FACTORS, CIE_ENTRY), absolute, 16, unknown);
	assert_cie(CODE(1, 0, 1, 0x78, 15, CIE_ENTRY), absolute, 16, unknown);
	assert_cie(CODE(1, 'z', 0, CIE_FACTORS, 0, CIE_ENTRY), with_data, 20, entry);
	assert_cie(CODE(1, 'z', 'B', 'R', 0, CIE_FACTORS, 1, 0, CIE_ENTRY), with_data, 20, entry);
	assert_cie(CODE(1, 'z', 'L', 'P', 'R', 0, CIE_FACTORS, 7, DW_EH_PE_sdata4, DW_EH_PE_udata4,
			1, 2, 3, 4, 0, CIE_ENTRY),
		   with_data, 20, entry);
	assert_cie(CODE(1, 'z', 'P', 'R', 0, CIE_FACTORS, 11,
			DW_EH_PE_indirect | DW_EH_PE_pcrel | DW_EH_PE_sdata8, 1, 2, 3, 4, 5, 6, 7,
			8, 9, 0, CIE_ENTRY),
		   with_data, 20, unknown);
	/* A letter that nobody knows ends what is understood, the length passes over it. */
	assert_cie(CODE(1, 'z', 'R', 'Q', 0, CIE_FACTORS, 4, 0, 9, 9, 9, CIE_ENTRY), with_data, 20,
		   entry);
}

static void assert_encoding(uint8_t encoding, const void *data, size_t size,
			    struct unwind_rule want)
{
	assert_cie(CODE(1, 'z', 'R', 0, CIE_FACTORS, 1, encoding, CIE_ENTRY), data, size, want);
}

static void pointer_encodings(void **state)
{
	/* The FDE's address stands behind a CIE of 4 + 4 + 14 bytes and 8 of its own. */
	const uint64_t here = EH_FRAME_VADDR + 30;
	const uint64_t relative[] = {TEXT + 0x100 - here, 16};
	const uint32_t short_relative[] = {(uint32_t)relative[0], 16};
	const uint32_t short_absolute[] = {TEXT + 0x100, 16};
	uint8_t data[17] = {0};

	(void)state;
	memcpy(data, relative, 16);
	assert_encoding(DW_EH_PE_pcrel, data, 17, entry);
	assert_encoding(DW_EH_PE_pcrel | DW_EH_PE_sdata8, data, 17, entry);
	assert_encoding(DW_EH_PE_pcrel | DW_EH_PE_udata8, data, 17, entry);
	memset(data, 0, 17);
	memcpy(data, short_relative, 8);
	assert_encoding(DW_EH_PE_pcrel | DW_EH_PE_sdata4, data, 9, entry);
	memcpy(data, short_absolute, 8);
	assert_encoding(DW_EH_PE_udata4, data, 9, entry);
	assert_encoding(DW_EH_PE_sdata4, data, 9, entry);
	assert_encoding(DW_EH_PE_datarel | DW_EH_PE_sdata4, data, 9, unknown);
	assert_encoding(DW_EH_PE_textrel | DW_EH_PE_sdata4, data, 9, unknown);
	assert_encoding(DW_EH_PE_indirect | DW_EH_PE_sdata4, data, 9, unknown);
	assert_encoding(0x05, data, 9, unknown);
	/* 0x400100 in LEB128, and a length of 16. */
	assert_encoding(DW_EH_PE_uleb128, CODE(0x80, 0x82, 0x80, 0x02, 16, 0), entry);
	assert_encoding(DW_EH_PE_sleb128, CODE(0x80, 0x82, 0x80, 0x02, 16, 0), entry);
}

static void put_debug_cie(struct bytes *b, bool wide)
{
	const uint8_t body[] = {3, 0, CIE_FACTORS, CIE_ENTRY};
	size_t start = record_begin(b, wide);

	put_number(b, UINT64_MAX, wide ? 8 : 4);
	put(b, body, sizeof(body));
	record_end(b, start, wide);
}

static void put_debug_fde(struct bytes *b, bool wide, uint64_t cie, uint64_t address, uint64_t size)
{
	size_t start = record_begin(b, wide);

	put_number(b, cie, wide ? 8 : 4);
	put_number(b, address, 8);
	put_number(b, size, 8);
	record_end(b, start, wide);
}

static void debug_frame_alone(void **state)
{
	struct image_parts parts = {.debug_frame = frame.data};
	uint64_t cie;

	(void)state;
	put_debug_cie(&frame, false);
	put_debug_fde(&frame, false, 0, TEXT, 16);
	cie = frame.size;
	put_debug_cie(&frame, true);
	put_debug_fde(&frame, true, cie, TEXT + 0x100, 16);
	parts.debug_frame_bytes = frame.size;
	assert_int_equal(read_parts(&parts), 0);
	assert_rule(TEXT, entry);
	assert_rule(TEXT + 0x100, entry);
	assert_rule(TEXT + 0x110, unknown);
	assert_int_equal(cfi_table_bad_records(table), 0);
}

static void debug_frame_with_short_addresses(void **state)
{
	static const uint8_t cie[] = {4, 0, 4, 0, CIE_FACTORS, CIE_ENTRY};
	struct image_parts parts = {.debug_frame = frame.data};
	size_t start = record_begin(&frame, false);

	(void)state;
	put_number(&frame, UINT32_MAX, 4);
	put(&frame, cie, sizeof(cie));
	record_end(&frame, start, false);
	start = record_begin(&frame, false);
	put_number(&frame, 0, 4);
	put_number(&frame, TEXT + 0x80, 4);
	put_number(&frame, 16, 4);
	record_end(&frame, start, false);
	parts.debug_frame_bytes = frame.size;
	assert_int_equal(read_parts(&parts), 0);
	assert_rule(TEXT + 0x80, entry);
}

/* .debug_frame speaks where .eh_frame is silent, and only there. */
static void debug_frame_fills_gaps(void **state)
{
	static struct bytes debug;

	(void)state;
	debug.size = 0;
	put_debug_cie(&debug, false);
	put_debug_fde(&debug, false, 0, TEXT, 0x100);
	put_debug_fde(&debug, false, 0, TEXT + 0x200, 0x100);
	put_debug_fde(&debug, false, 0, TEXT + 0x2ff, 0x100);
	put_debug_fde(&debug, false, 0, TEXT + 0x100, 0x80);
	put_usual_cie(&frame);
	put_fde(&frame, 0, TEXT + 0x210, 16, CODE(DW_CFA_def_cfa_offset, 16));
	put_fde(&frame, 0, TEXT + 0x80, 16, CODE(DW_CFA_def_cfa_offset, 16));
	assert_int_equal(read_parts(&(struct image_parts){.eh_frame = frame.data,
							  .eh_frame_bytes = frame.size,
							  .debug_frame = debug.data,
							  .debug_frame_bytes = debug.size}),
			 0);
	assert_well_formed();
	assert_rule(TEXT + 0x7f, unknown);
	assert_rule(TEXT + 0x80, (struct unwind_rule){UNWIND_CFA_BY_RSP, 0, 0, 0, 16});
	assert_rule(TEXT + 0x90, unknown);
	assert_rule(TEXT + 0x100, entry);
	assert_rule(TEXT + 0x17f, entry);
	assert_rule(TEXT + 0x180, unknown);
	assert_rule(TEXT + 0x20f, unknown);
	assert_rule(TEXT + 0x210, (struct unwind_rule){UNWIND_CFA_BY_RSP, 0, 0, 0, 16});
	assert_rule(TEXT + 0x2ff, entry);
}

static void compressed_debug_frame(void **state)
{
	static uint8_t section[BYTES_MAX];
	struct image_parts parts = {.debug_frame = section, .debug_frame_flags = SHF_COMPRESSED};
	Elf64_Chdr ch = {.ch_type = ELFCOMPRESS_ZLIB};
	uLongf size = sizeof(section) - sizeof(ch);

	(void)state;
	put_debug_cie(&frame, false);
	put_debug_fde(&frame, false, 0, TEXT, 16);
	assert_int_equal(compress(section + sizeof(ch), &size, frame.data, frame.size), Z_OK);
	ch.ch_size = frame.size;
	memcpy(section, &ch, sizeof(ch));
	parts.debug_frame_bytes = sizeof(ch) + size;
	assert_int_equal(read_parts(&parts), 0);
	assert_rule(TEXT, entry);
	cfi_table_free(table);
	table = NULL;

	ch.ch_size++;
	memcpy(section, &ch, sizeof(ch));
	assert_int_equal(read_parts(&parts), -EINVAL);
	ch.ch_size = UINT64_MAX;
	memcpy(section, &ch, sizeof(ch));
	assert_int_equal(read_parts(&parts), -EFBIG);
	parts.debug_frame_bytes = sizeof(ch) - 1;
	assert_int_equal(read_parts(&parts), -EINVAL);
}

/* In .eh_frame the CIE pointer of a long record has 4 bytes still. */
static void long_records(void **state)
{
	size_t start;

	(void)state;
	put_usual_cie(&frame);
	start = record_begin(&frame, true);
	put_number(&frame, start, 4);
	put_number(&frame, TEXT - (EH_FRAME_VADDR + frame.size), 4);
	put_number(&frame, 16, 4);
	put_number(&frame, 0, 1);
	record_end(&frame, start, true);
	assert_int_equal(read_frame(), 0);
	assert_rule(TEXT, entry);
}

static void terminators(void **state)
{
	(void)state;
	put_number(&frame, 0, 8);
	put_fde(&frame, put_usual_cie(&frame), TEXT, 16, CODE(DW_CFA_nop));
	put_number(&frame, 0, 4);
	put_fde(&frame, put_usual_cie(&frame), TEXT + 0x100, 16, CODE(DW_CFA_nop));
	put_number(&frame, 0, 4);
	assert_int_equal(read_frame(), 0);
	assert_rule(TEXT, entry);
	assert_rule(TEXT + 0x100, entry);
}

static void put_offset_fde(size_t cie, uint64_t start, uint32_t size, uint8_t offset)
{
	put_fde(&frame, cie, start, size, CODE(DW_CFA_def_cfa_offset, offset));
}

static int32_t offset_at(uint64_t vaddr)
{
	return rule_set_get(rules, cfi_table_find(table, vaddr)).offset;
}

static void functions_out_of_order(void **state)
{
	size_t cie = put_usual_cie(&frame);
	uint32_t i;

	(void)state;
	for (i = 0; i < 100; i++)
		put_offset_fde(cie, TEXT + i * 37 % 100 * 64, 64, (uint8_t)(8 + i * 37 % 100));
	assert_int_equal(read_frame(), 0);
	assert_well_formed();
	for (i = 0; i < 100; i++)
		assert_int_equal(offset_at(TEXT + i * 64 + i % 64), 8 + i);
}

static void overlaps(void **state)
{
	size_t cie = put_usual_cie(&frame);

	(void)state;
	put_offset_fde(cie, TEXT + 0x100, 0x10, 24);
	put_offset_fde(cie, TEXT, 0x200, 16);
	put_offset_fde(cie, TEXT, 0x1000, 32);
	put_offset_fde(cie, TEXT + 0x108, 0x40, 40);
	put_offset_fde(cie, TEXT + 0x120, 0, 48);
	assert_int_equal(read_frame(), 0);
	assert_well_formed();
	assert_int_equal(offset_at(TEXT + 0xff), 16);
	assert_int_equal(offset_at(TEXT + 0x100), 24);
	assert_int_equal(offset_at(TEXT + 0x108), 40);
	assert_int_equal(offset_at(TEXT + 0x147), 40);
	assert_rule(TEXT + 0x148, unknown);
}

static void gaps(void **state)
{
	size_t cie = put_usual_cie(&frame);

	(void)state;
	put_offset_fde(cie, TEXT, 1, 16);
	put_offset_fde(cie, TEXT + 16, 1, 24);
	put_offset_fde(cie, TEXT + 33, 1, 32);
	put_offset_fde(cie, TEXT + 34, 1, 32);
	assert_int_equal(read_frame(), 0);
	assert_well_formed();
	assert_int_equal(offset_at(TEXT + 15), 16);
	assert_int_equal(offset_at(TEXT + 16), 24);
	assert_rule(TEXT + 17, unknown);
	assert_rule(TEXT + 32, unknown);
	assert_int_equal(offset_at(TEXT + 34), 32);
	/* Four rules change; the equal ones of the last two functions are one row. */
	assert_int_equal(cfi_table_row_count(table), 5 + 2);
}

static void blocks(void **state)
{
	const uint64_t low = TEXT + 0x1234;
	struct image_parts parts = {.eh_frame = frame.data, .text_vaddr = low};
	size_t cie = put_usual_cie(&frame);

	(void)state;
	put_offset_fde(cie, low - 0x100, 0x200, 16);
	put_offset_fde(cie, TEXT + 0xfff0, 0x20010, 24);
	put_offset_fde(cie, TEXT + 0x30000, 0x10, 32);
	put_offset_fde(cie, TEXT + 0x4fffe, 0x10, 40);
	put_offset_fde(cie, TEXT + 0x5ffff, 0x100, 48);
	put_offset_fde(cie, TEXT + 0x60000, 0x100, 48);
	parts.eh_frame_bytes = frame.size;
	parts.text_bytes = 0x60000 - 0x1234;
	assert_int_equal(read_parts(&parts), 0);
	assert_well_formed();
	assert_int_equal(cfi_table_bias(table), TEXT);
	assert_int_equal(cfi_table_block_count(table), 6);
	assert_rule(low - 1, unknown);
	assert_int_equal(offset_at(low), 16);
	assert_rule(low + 0x100, unknown);
	assert_int_equal(offset_at(TEXT + 0xfff0), 24);
	assert_int_equal(offset_at(TEXT + 0x10000), 24);
	assert_int_equal(offset_at(TEXT + 0x2ffff), 24);
	assert_int_equal(offset_at(TEXT + 0x30000), 32);
	assert_rule(TEXT + 0x4fffd, unknown);
	assert_int_equal(offset_at(TEXT + 0x50000), 40);
	assert_int_equal(offset_at(TEXT + 0x5ffff), 48);
	assert_rule(TEXT + 0x60000, unknown);
}

static void code_of_4_gib(void **state)
{
	struct image_parts parts = {.eh_frame = frame.data, .text_bytes = 0x100000000};

	(void)state;
	put_usual_cie(&frame);
	put_fde(&frame, 0, TEXT, INT32_MAX, CODE(DW_CFA_nop));
	put_fde(&frame, 0, TEXT + INT32_MAX, INT32_MAX - 0x100, CODE(DW_CFA_nop));
	parts.eh_frame_bytes = frame.size;
	assert_int_equal(read_parts(&parts), -EFBIG);
	parts.text_bytes--;
	assert_int_equal(read_parts(&parts), 0);
	assert_well_formed();
	assert_int_equal(cfi_table_block_count(table), UNWIND_BLOCKS_MAX);
	assert_rule(TEXT + 0x80000000, entry);
	assert_rule(TEXT + 0xffffffff, unknown);
}

static void put_hdr(struct bytes *b, bool with_table, uint32_t last_fde)
{
	const uint8_t start[] = {1, DW_EH_PE_pcrel | DW_EH_PE_sdata4, DW_EH_PE_udata4,
				 DW_EH_PE_datarel | DW_EH_PE_sdata4};
	const uint64_t hdr = EH_FRAME_VADDR + frame.size;

	put(b, start, sizeof(start));
	if (!with_table)
		b->data[2] = b->data[3] = DW_EH_PE_omit;
	put_number(b, EH_FRAME_VADDR - (hdr + 4), 4);
	put_number(b, 1, 4);
	put_number(b, TEXT - hdr, 4);
	put_number(b, EH_FRAME_VADDR + last_fde - hdr, 4);
}

/* Without section headers: the search table says which record is the last. */
static void stripped_section_headers(void **state)
{
	static struct bytes hdr;
	struct image_parts parts = {.no_sections = true};
	uint32_t last;
	int with_table;

	(void)state;
	put_fde(&frame, put_usual_cie(&frame), TEXT, 16, CODE(DW_CFA_nop));
	put_number(&frame, 0, 4);
	last = (uint32_t)frame.size;
	put_fde(&frame, 0, TEXT + 0x100, 16, CODE(DW_CFA_nop));
	put_fde(&frame, 0, TEXT + 0x200, 16, CODE(DW_CFA_nop));
	parts.eh_frame = frame.data;
	parts.eh_frame_bytes = frame.size;
	parts.eh_frame_hdr = hdr.data;
	for (with_table = 0; with_table < 2; with_table++) {
		hdr.size = 0;
		put_hdr(&hdr, with_table, last);
		parts.eh_frame_hdr_bytes = hdr.size;
		assert_int_equal(read_parts(&parts), 0);
		assert_int_equal(cfi_table_bad_records(table), 0);
		assert_rule(TEXT, entry);
		assert_rule(TEXT + 0x100, with_table ? entry : unknown);
		assert_rule(TEXT + 0x200, unknown);
		cfi_table_free(table);
		table = NULL;
	}
}

/* The .eh_frame of a separate debug file is not there, whatever the segments say. */
static void separate_debug_file(void **state)
{
	static struct bytes hdr;
	struct image_parts parts = {.debug_frame = frame.data};
	struct image image;
	Elf64_Shdr *sh;

	(void)state;
	put_debug_cie(&frame, false);
	put_debug_fde(&frame, false, 0, TEXT, 16);
	hdr.size = 0;
	put_hdr(&hdr, true, 0);
	parts.debug_frame_bytes = frame.size;
	parts.eh_frame_hdr = hdr.data;
	parts.eh_frame_hdr_bytes = hdr.size;
	image = image_make(&parts);
	sh = (Elf64_Shdr *)(image.data + ((Elf64_Ehdr *)image.data)->e_shoff);
	sh[2].sh_type = SHT_NOBITS;
	sh[2].sh_size = 4096;
	assert_int_equal(cfi_table_read_memory(image.data, image.size, rules, &table), 0);
	free(image.data);
	assert_rule(TEXT, entry);
	assert_int_equal(cfi_table_bad_records(table), 0);
}

/* A broken .eh_frame does not hide what .debug_frame says. */
static void broken_eh_frame(void **state)
{
	struct image_parts parts = {.debug_frame = frame.data};
	struct image image;
	Elf64_Shdr *sh;

	(void)state;
	put_debug_cie(&frame, false);
	put_debug_fde(&frame, false, 0, TEXT, 16);
	parts.debug_frame_bytes = frame.size;
	image = image_make(&parts);
	sh = (Elf64_Shdr *)(image.data + ((Elf64_Ehdr *)image.data)->e_shoff);
	sh[2].sh_size = UINT64_MAX;
	assert_int_equal(cfi_table_read_memory(image.data, image.size, rules, &table), 0);
	free(image.data);
	assert_rule(TEXT, entry);
}

static void no_information(void **state)
{
	Elf64_Ehdr eh = {0};

	(void)state;
	assert_int_equal(read_parts(&(struct image_parts){0}), -ENODATA);
	assert_int_equal(read_parts(&(struct image_parts){.no_sections = true}), -ENODATA);
	put_usual_cie(&frame);
	assert_int_equal(read_frame(), -ENODATA);
	put_fde(&frame, 0, TEXT - 64, 64, CODE(DW_CFA_nop));
	assert_int_equal(read_frame(), -ENODATA);
	assert_int_equal(cfi_table_read_memory(&eh, sizeof(eh), rules, &table), -EINVAL);
	assert_int_equal(cfi_table_read_memory(&eh, 0, rules, &table), -EINVAL);
	assert_int_equal(cfi_table_read(-1, rules, &table), -EBADF);
	assert_null(table);
	cfi_table_free(NULL);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(rows_of_a_function),
		TEST(cfa_instructions),
		TEST(cfa_expressions),
		TEST(saved_registers),
		TEST(return_address),
		TEST(remembered_states),
		TEST(locations),
		TEST(signal_frame),
		TEST(augmentations),
		TEST(pointer_encodings),
		TEST(debug_frame_alone),
		TEST(debug_frame_with_short_addresses),
		TEST(debug_frame_fills_gaps),
		TEST(compressed_debug_frame),
		TEST(long_records),
		TEST(terminators),
		TEST(functions_out_of_order),
		TEST(overlaps),
		TEST(gaps),
		TEST(blocks),
		TEST(code_of_4_gib),
		TEST(stripped_section_headers),
		TEST(separate_debug_file),
		TEST(broken_eh_frame),
		TEST(no_information),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
