/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "unwind/code_rules.h"

#include <elf.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "unwind/code_gaps.h"
#include "unwind/code_state.h"
#include "unwind/code_walk.h"

/* Code that stays unexplained is taken for another compiler's in gaps of this size. */
#define FOREIGN_BYTES 4096u
#define BRIDGED_BYTES 15u /* padding to the next multiple of 16 */

static const struct unwind_rule rule_signal = {.cfa = UNWIND_CFA(UNWIND_CFA_SIGNAL, 0)};
static const struct unwind_rule rule_frame_pointer = {
	.cfa = UNWIND_CFA(UNWIND_CFA_FRAME_POINTER, 0)};

/* mov $15, %rax; syscall: as gdb knows it (amd64-linux-tdep.c), which libc it may be. */
static const uint8_t restorer[] = {0x48, 0xc7, 0xc0, 0x0f, 0x00, 0x00, 0x00, 0x0f, 0x05};

/* The cold part of a function has a symbol of its own, but is only jumped to. */
static bool is_cold(const struct elf_part *names, uint32_t name)
{
	return name < names->size_bytes && strstr((const char *)names->data + name, ".cold");
}

static void add_symbols(const struct elf_part *symbols, const struct elf_part *names,
			struct code_walk *w)
{
	size_t i;

	for (i = 0; i < symbols->size_bytes / sizeof(Elf64_Sym); i++) {
		Elf64_Sym sym;
		uint8_t type;

		memcpy(&sym, symbols->data + i * sizeof(sym), sizeof(sym));
		type = ELF64_ST_TYPE(sym.st_info);
		if ((type == STT_FUNC || type == STT_GNU_IFUNC) && sym.st_shndx != SHN_UNDEF &&
		    !is_cold(names, sym.st_name))
			code_walk_add_start(w, sym.st_value, false);
	}
}

/* Without names, or without symbols, there is less to go by. */
static void add_section(const struct elf_image *image, const char *section, const char *strings,
			struct code_walk *w)
{
	struct elf_part symbols, names = {0};

	if (elf_image_section(image, section, &symbols))
		return;
	if (strings)
		elf_image_section(image, strings, &names);
	add_symbols(&symbols, &names, w);
	free(symbols.data);
	free(names.data);
}

struct rows {
	struct cfi_ranges *ranges;
	const struct code_gaps *gaps;
	const struct code_walk *walk;
	const struct code_gap *gap;
};

/* Whether most calls in @gap are made with a frame pointer, or hardly any is known. */
static bool has_frame_pointers(const struct rows *rows, const struct code_gap *gap)
{
	uint32_t framed = 0, calls = 0, known = 0, i;
	struct code_state s;

	if (gap->end - gap->start < FOREIGN_BYTES)
		return false;
	for (i = gap->first; i < gap->last; i++) {
		known += code_walk_is_known(rows->walk, i);
		if (!code_walk_is_return(rows->walk, i) || !code_walk_state(rows->walk, i, &s))
			continue;
		calls++;
		framed += code_state_framed(&s);
	}
	return known < (gap->end - gap->start) / 4 || framed > calls / 4 * 3;
}

static int put(const struct rows *rows, uint32_t index, struct unwind_rule rule)
{
	return cfi_ranges_put(rows->ranges, rows->gap->start + (index - rows->gap->first), rule);
}

static bool is_restorer(const struct rows *rows, uint32_t at)
{
	return rows->gap->last - at >= sizeof(restorer) &&
	       !memcmp(rows->gaps->code + at, restorer, sizeof(restorer));
}

static bool is_padding(uint8_t byte)
{
	return byte == 0x90 || byte == 0xcc || !byte;
}

/*
 * The end of the unexplained bytes from @at on. A restorer is found by the address
 * before it, as all return addresses are.
 */
static uint32_t unknown_end(const struct rows *rows, uint32_t at)
{
	while (at < rows->gap->last && !code_walk_is_known(rows->walk, at) &&
	       !is_restorer(rows, at + 1))
		at++;
	return at;
}

/* Bytes between functions need no row. */
static bool is_bridge(const struct rows *rows, uint32_t at, uint32_t end)
{
	const uint8_t *code = rows->gaps->code;

	if (at == rows->gap->first || end - at > BRIDGED_BYTES)
		return false;
	/* How nops of two bytes and more begin. */
	if (code[at] == 0x66 || code[at] == 0x0f || code[at] == 0x2e)
		return true;
	while (at < end && is_padding(code[at]))
		at++;
	return at == end;
}

/* The end of the restorer that the return address @at + 1 may be in, 0 if there is none. */
static uint32_t restorer_end(const struct rows *rows, uint32_t at)
{
	if (is_restorer(rows, at + 1))
		return at + 1 + (uint32_t)sizeof(restorer);
	if (at == rows->gap->first && is_restorer(rows, at))
		return at + (uint32_t)sizeof(restorer);
	return 0;
}

/* Puts what holds from @at on, and says until where at least. */
static int put_next(const struct rows *rows, uint32_t at, struct unwind_rule foreign, uint32_t *end)
{
	struct unwind_rule rule;
	struct code_state s;

	*end = restorer_end(rows, at);
	if (*end)
		return put(rows, at, rule_signal);
	*end = at + 1;
	if (code_walk_state(rows->walk, at, &s)) {
		rule = code_state_rule(&s);
		return put(rows, at, rule.cfa ? rule : foreign);
	}
	if (code_walk_is_known(rows->walk, at))
		return 0;
	*end = unknown_end(rows, at);
	return is_bridge(rows, at, *end) ? 0 : put(rows, at, foreign);
}

static int put_gap(const struct rows *rows)
{
	const struct code_gap *gap = rows->gap;
	struct unwind_rule foreign =
		has_frame_pointers(rows, gap) ? rule_frame_pointer : (struct unwind_rule){0};
	uint32_t at = gap->first;
	int err;

	err = cfi_ranges_begin(rows->ranges, gap->start, gap->end);
	while (!err && at < gap->last)
		err = put_next(rows, at, foreign, &at);
	if (!err && gap->last - gap->first < gap->end - gap->start)
		err = put(rows, gap->last, foreign);
	if (!err)
		cfi_ranges_end(rows->ranges);
	return err;
}

static int put_gaps(struct rows *rows)
{
	uint32_t i;
	int err = 0;

	for (i = 0; !err && i < rows->gaps->count; i++) {
		rows->gap = &rows->gaps->gaps[i];
		err = put_gap(rows);
	}
	return err;
}

static int add_rules(const struct elf_image *image, const struct code_gaps *gaps,
		     struct cfi_ranges *r)
{
	struct rows rows = {.ranges = r, .gaps = gaps};
	struct code_walk *w;
	int err;

	err = code_walk_new(image, gaps, &w);
	if (err)
		return err;
	add_section(image, ".symtab", ".strtab", w);
	add_section(image, ".dynsym", NULL, w);
	code_walk_add_start(w, elf_image_entry(image), true);
	code_walk_run(w);
	rows.walk = w;
	err = put_gaps(&rows);
	code_walk_free(w);
	return err ? err : cfi_ranges_sort(r);
}

int code_rules_add(const struct elf_image *image, struct cfi_ranges *r, uint32_t max_bytes,
		   bool *left_out)
{
	struct code_gaps gaps;
	int err;

	err = code_gaps_find(image, r, &gaps);
	*left_out = !err && gaps.bytes > max_bytes;
	if (!err && gaps.bytes && !*left_out)
		err = add_rules(image, &gaps, r);
	else if (err != -ENOMEM)
		err = 0;
	code_gaps_release(&gaps);
	return err;
}
