/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Real objects, compared with libdw, which reads the same information its own way. */
#include "unwind/cfi.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <dlfcn.h>
#include <dwarf.h>
#include <elf.h>
#include <elfutils/libdw.h>
#include <fcntl.h>
#include <libelf.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "unwind/rule_set.h"
#include "unwind_table.h"

#define SAMPLES 20000
#define BRIDGED_BYTES 15
#define RETURN_COLUMN 16

/* A CFA by DW_CFA_def_cfa comes as bregx, one by an expression as it is written. */
static bool base_agrees(struct unwind_rule rule, const Dwarf_Op *op)
{
	if (op->atom == DW_OP_bregx)
		return op->number == (rule.cfa & 15) && (int64_t)op->number2 == rule.offset;
	return op->atom == DW_OP_breg0 + (rule.cfa & 15) && (int64_t)op->number == rule.offset;
}

static bool cfa_agrees(struct unwind_rule rule, Dwarf_Frame *frame)
{
	Dwarf_Op *op;
	size_t count;

	if (dwarf_frame_cfa(frame, &op, &count) || !count || !base_agrees(rule, op))
		return false;
	switch (rule.cfa >> 4) {
	case UNWIND_CFA_REG:
		return count == 1;
	case UNWIND_CFA_DEREF:
		if (count == 3 && op[2].atom == DW_OP_plus_uconst)
			return op[1].atom == DW_OP_deref && op[2].number == rule.arg * 8u;
		return count == 2 && op[1].atom == DW_OP_deref && !rule.arg;
	default:
		return rule.cfa >> 4 == UNWIND_CFA_PLT && count == 9 &&
		       op[4].atom == DW_OP_lit0 + rule.arg;
	}
}

static bool is_saved(Dwarf_Frame *frame, int reg, uint32_t base_op, int64_t offset)
{
	Dwarf_Op place[3], *op;
	size_t count;

	return !dwarf_frame_register(frame, reg, place, &op, &count) && count == 2 &&
	       op[0].atom == DW_OP_call_frame_cfa && op[1].atom == base_op &&
	       (int64_t)op[1].number == offset;
}

/* Whether libdw has no place for @reg: it kept its value, or it is lost. */
static bool is_nowhere(Dwarf_Frame *frame, int reg)
{
	Dwarf_Op place[3], *op;
	size_t count;

	return !dwarf_frame_register(frame, reg, place, &op, &count) && !count;
}

static bool slot_agrees(uint8_t slot, Dwarf_Frame *frame, int reg)
{
	if (slot == UNWIND_SLOT_SAME)
		return is_nowhere(frame, reg);
	if (slot == UNWIND_SLOT_LOST)
		return true; /* by what no rule can say, in assembly that calls nothing */
	if (slot >= UNWIND_SLOT_RBP)
		return is_saved(frame, reg, DW_OP_breg6, -8 * (slot - (int)UNWIND_SLOT_RBP));
	return is_saved(frame, reg, DW_OP_plus_uconst, -8 * slot);
}

static bool rule_agrees(struct unwind_rule rule, Dwarf_Frame *frame)
{
	switch (rule.cfa >> 4) {
	case UNWIND_CFA_UNKNOWN:
		return true;
	case UNWIND_CFA_END:
		return is_nowhere(frame, RETURN_COLUMN);
	case UNWIND_CFA_SIGNAL:
		return is_saved(frame, RETURN_COLUMN, DW_OP_breg7, UNWIND_SIGNAL_RIP) &&
		       is_saved(frame, UNWIND_RBP, DW_OP_breg7, UNWIND_SIGNAL_RBP) &&
		       is_saved(frame, UNWIND_RBX, DW_OP_breg7, UNWIND_SIGNAL_RBX) &&
		       is_saved(frame, UNWIND_RDI, DW_OP_breg7, UNWIND_SIGNAL_RDI) &&
		       is_saved(frame, 12, DW_OP_breg7, UNWIND_SIGNAL_R8 + 4 * 8);
	default:
		return cfa_agrees(rule, frame) && slot_agrees(rule.rbp, frame, UNWIND_RBP) &&
		       slot_agrees(rule.rbx, frame, UNWIND_RBX) &&
		       is_saved(frame, RETURN_COLUMN, DW_OP_plus_uconst, -8);
	}
}

/* The frame at @vaddr or, in the padding behind a function, of that function. */
static Dwarf_Frame *frame_near(Dwarf_CFI *cfi, uint64_t vaddr, bool *padding)
{
	Dwarf_Frame *frame;
	uint64_t i;

	for (i = 0; i <= BRIDGED_BYTES; i++) {
		*padding = i > 0;
		if (!dwarf_cfi_addrframe(cfi, vaddr - i, &frame))
			return frame;
	}
	return NULL;
}

struct tally {
	uint32_t compared, unknown;
};

static void compare(const struct cfi_table *table, const struct rule_set *rules, Dwarf_CFI *cfi,
		    uint64_t vaddr, struct tally *tally)
{
	struct unwind_rule rule = rule_set_get(rules, cfi_table_find(table, vaddr));
	bool padding;
	Dwarf_Frame *frame = frame_near(cfi, vaddr, &padding);

	/* There the rule is from the code. */
	if (!frame)
		return;
	if (!rule_agrees(rule, frame))
		fail_msg("at %#llx", (unsigned long long)vaddr);
	tally->compared++;
	tally->unknown += !rule.cfa && !padding;
	free(frame);
}

static void compare_samples(const struct cfi_table *table, const struct rule_set *rules,
			    Dwarf_CFI *cfi)
{
	uint64_t bias = cfi_table_bias(table), code_bytes, i;
	struct tally tally = {0};

	code_bytes = (uint64_t)cfi_table_block_count(table) << UNWIND_BLOCK_BITS;
	srandom(1);
	for (i = 0; i < SAMPLES; i++)
		compare(table, rules, cfi, bias + (uint64_t)random() % code_bytes, &tally);
	assert_true(tally.compared > SAMPLES / 4);
	assert_true(tally.unknown * 200 < tally.compared);
}

static void compare_file(const char *path)
{
	struct cfi_table *table;
	struct rule_set *rules;
	int fd = open(path, O_RDONLY);
	Dwarf_CFI *cfi;
	Elf *elf;

	if (fd < 0)
		skip();
	elf_version(EV_CURRENT);
	elf = elf_begin(fd, ELF_C_READ, NULL);
	cfi = dwarf_getcfi_elf(elf);
	assert_non_null(cfi);
	assert_int_equal(rule_set_new(&rules), 0);
	assert_int_equal(cfi_table_read(fd, rules, &table), 0);
	assert_int_equal(cfi_table_bad_records(table), 0);
	compare_samples(table, rules, cfi);
	cfi_table_free(table);
	rule_set_free(rules);
	dwarf_cfi_end(cfi);
	elf_end(elf);
	close(fd);
}

static void own_program(void **state)
{
	(void)state;
	compare_file("/proc/self/exe");
}

static void libc(void **state)
{
	Dl_info info;

	(void)state;
	assert_true(dladdr(dlsym(RTLD_NEXT, "gnu_get_libc_version"), &info));
	compare_file(info.dli_fname);
}

static void python(void **state)
{
	(void)state;
	compare_file("/usr/bin/python3");
}

static void vdso(void **state)
{
	const Elf64_Ehdr *eh = (const Elf64_Ehdr *)getauxval(AT_SYSINFO_EHDR);
	struct cfi_table *table;
	struct rule_set *rules;

	(void)state;
	if (!eh)
		skip();
	assert_int_equal(rule_set_new(&rules), 0);
	assert_int_equal(cfi_table_read_memory(eh, eh->e_shoff + eh->e_shnum * sizeof(Elf64_Shdr),
					       rules, &table),
			 0);
	assert_int_equal(cfi_table_bad_records(table), 0);
	assert_true(cfi_table_row_count(table) > 5);
	cfi_table_free(table);
	rule_set_free(rules);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(own_program),
		cmocka_unit_test(libc),
		cmocka_unit_test(python),
		cmocka_unit_test(vdso),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
