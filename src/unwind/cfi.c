/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "unwind/cfi.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#include "unwind/cfi_ranges.h"
#include "unwind/cfi_records.h"
#include "unwind/code_rules.h"
#include "unwind/eh_frame.h"
#include "unwind/elf_image.h"
#include "unwind_table.h"

/* Functions are aligned to 16 bytes; what is between them is padding, never run. */
#define BRIDGED_BYTES 15

/* Code without information that does not hold a quick table up. */
#define CFI_QUICK_BYTES (512u << 10) /* some 50 ms; musl has 400 KiB */

struct cfi_table {
	bool whole; /* no code was left for later */
	uint64_t bias;
	uint32_t blocks, rows;
	uint32_t *first_row; /* blocks + 1 */
	uint32_t *row;
	uint32_t capacity;
	uint32_t bad_records;
	/* While it is built: what holds from the last row on. */
	uint32_t begun; /* blocks that have their first row */
	uint16_t rule;
};

void cfi_table_free(struct cfi_table *t)
{
	if (!t)
		return;
	free(t->first_row);
	free(t->row);
	free(t);
}

static int table_new(uint64_t low, uint64_t high, uint32_t row_estimate, struct cfi_table **out)
{
	struct cfi_table *t = calloc(1, sizeof(*t));

	if (!t)
		return -ENOMEM;
	t->bias = low & ~(uint64_t)(UNWIND_BLOCK_BYTES - 1);
	t->blocks = (uint32_t)((high - 1 - t->bias) >> UNWIND_BLOCK_BITS) + 1;
	/* Each range may need a row for the gap behind it, each block one at its start. */
	t->capacity = row_estimate + t->blocks + 1;
	t->first_row = malloc((t->blocks + 1) * sizeof(*t->first_row));
	t->row = malloc(t->capacity * sizeof(*t->row));
	if (!t->first_row || !t->row) {
		cfi_table_free(t);
		return -ENOMEM;
	}
	*out = t;
	return 0;
}

static void push_row(struct cfi_table *t, uint32_t pc, uint16_t rule)
{
	t->row[t->rows++] = unwind_row(pc, rule);
	t->rule = rule;
}

/* Begins the blocks up to the one of @pc, each with the rule that holds so far. */
static void begin_blocks(struct cfi_table *t, uint32_t block)
{
	for (; t->begun <= block && t->begun < t->blocks; t->begun++) {
		t->first_row[t->begun] = t->rows;
		push_row(t, 0, t->rule);
	}
}

static void set_rule(struct cfi_table *t, uint32_t pc, uint16_t rule)
{
	begin_blocks(t, pc >> UNWIND_BLOCK_BITS);
	if (rule == t->rule)
		return;
	/* The row that begins a block gives way to one that starts there. */
	if (!(pc % UNWIND_BLOCK_BYTES))
		t->rows--;
	push_row(t, pc, rule);
}

static void add_range(struct cfi_table *t, const struct cfi_ranges *r,
		      const struct cfi_range *range)
{
	const struct cfi_range_row *row = &r->rows[range->first_row];
	uint32_t i;

	for (i = 0; i < range->row_count && row[i].start < range->end; i++)
		set_rule(t, row[i].start, row[i].rule);
}

static void build(struct cfi_table *t, const struct cfi_ranges *r)
{
	uint64_t next;
	uint32_t i;

	for (i = 0; i < r->count; i++) {
		add_range(t, r, &r->ranges[i]);
		next = i + 1 < r->count ? r->ranges[i + 1].start
					: (uint64_t)t->blocks << UNWIND_BLOCK_BITS;
		if (next - r->ranges[i].end > BRIDGED_BYTES)
			set_rule(t, r->ranges[i].end, UNWIND_RULE_UNKNOWN);
	}
	begin_blocks(t, t->blocks - 1);
	t->first_row[t->blocks] = t->rows;
}

/* Gives back the memory of rows that were merged. */
static void shrink(struct cfi_table *t)
{
	uint32_t *row = realloc(t->row, t->rows * sizeof(*row));

	if (row)
		t->row = row;
}

static int add_part(const struct elf_image *image, struct cfi_ranges *r,
		    int (*find)(const struct elf_image *, struct elf_part *, struct cfi_part *))
{
	struct elf_part contents;
	struct cfi_part part;
	int err;

	err = find(image, &contents, &part);
	if (err)
		return err;
	err = cfi_ranges_add(r, &part);
	free(contents.data);
	return err ? err : cfi_ranges_sort(r);
}

static bool is_none(int err)
{
	return err == -ENOENT || err == -ENODATA;
}

/* One of the two may be broken, or missing, as long as the other gives something. */
static int collect(const struct elf_image *image, struct cfi_ranges *r)
{
	int eh_err, debug_err;

	eh_err = add_part(image, r, eh_frame_find);
	if (eh_err == -ENOMEM || eh_err == -E2BIG)
		return eh_err;
	debug_err = add_part(image, r, debug_frame_find);
	if (debug_err == -ENOMEM || debug_err == -E2BIG)
		return debug_err;
	if (r->count)
		return 0;
	if (!is_none(eh_err) && eh_err)
		return eh_err;
	if (!is_none(debug_err) && debug_err)
		return debug_err;
	return r->bad ? -EINVAL : -ENODATA;
}

/* What the information does not say, the code may. */
static int collect_all(const struct elf_image *image, struct cfi_ranges *r, bool quick,
		       bool *left_out)
{
	int none = collect(image, r), err;

	if (none == -ENOMEM || none == -E2BIG)
		return none;
	/* Without any information there is nothing to begin with. */
	quick = quick && r->count;
	err = code_rules_add(image, r, quick ? CFI_QUICK_BYTES : UINT32_MAX, left_out);
	if (err)
		return err;
	return r->count ? 0 : none;
}

static int table_from(const struct elf_image *image, struct rule_set *rules, bool quick,
		      struct cfi_table **out)
{
	struct cfi_ranges r = {.rules = rules};
	struct cfi_table *t;
	bool left_out;
	int err;

	err = elf_image_text(image, &r.low, &r.high);
	if (err)
		return err;
	r.bias = r.low & ~(uint64_t)(UNWIND_BLOCK_BYTES - 1);
	if (r.high - r.bias > UINT32_MAX)
		return -EFBIG;
	r.rules_limit = rule_set_count(rules) + CFI_RULES_PER_OBJECT;
	err = collect_all(image, &r, quick, &left_out);
	if (err)
		goto out;
	err = table_new(r.low, r.high, r.row_count + r.count, &t);
	if (err)
		goto out;
	build(t, &r);
	t->whole = !left_out;
	if (t->rows > UNWIND_ROWS_MAX) {
		cfi_table_free(t);
		err = -E2BIG;
		goto out;
	}
	shrink(t);
	t->bad_records = r.bad;
	*out = t;
out:
	cfi_ranges_release(&r);
	return err;
}

static int read_file(int fd, struct rule_set *rules, bool quick, struct cfi_table **out)
{
	struct elf_image *image;
	int err;

	err = elf_image_new_fd(fd, &image);
	if (err)
		return err;
	err = table_from(image, rules, quick, out);
	elf_image_free(image);
	return err;
}

int cfi_table_read(int fd, struct rule_set *rules, struct cfi_table **out)
{
	return read_file(fd, rules, false, out);
}

int cfi_table_read_quick(int fd, struct rule_set *rules, struct cfi_table **out)
{
	return read_file(fd, rules, true, out);
}

bool cfi_table_is_whole(const struct cfi_table *t)
{
	return t->whole;
}

int cfi_table_read_memory(const void *memory, size_t size_bytes, struct rule_set *rules,
			  struct cfi_table **out)
{
	struct elf_image *image;
	int err;

	err = elf_image_new_memory(memory, size_bytes, &image);
	if (err)
		return err;
	err = table_from(image, rules, false, out);
	elf_image_free(image);
	return err;
}

uint32_t cfi_table_find(const struct cfi_table *t, uint64_t vaddr)
{
	uint64_t pc = vaddr - t->bias;
	uint32_t low, high, middle;

	if (pc >> UNWIND_BLOCK_BITS >= t->blocks)
		return UNWIND_RULE_UNKNOWN;
	low = t->first_row[pc >> UNWIND_BLOCK_BITS];
	high = t->first_row[(pc >> UNWIND_BLOCK_BITS) + 1];
	while (high - low > 1) {
		middle = low + (high - low) / 2;
		if (t->row[middle] <= unwind_row_limit((uint32_t)pc))
			low = middle;
		else
			high = middle;
	}
	return unwind_row_rule(t->row[low]);
}

uint64_t cfi_table_bias(const struct cfi_table *t)
{
	return t->bias;
}

uint32_t cfi_table_block_count(const struct cfi_table *t)
{
	return t->blocks;
}

uint32_t cfi_table_row_count(const struct cfi_table *t)
{
	return t->rows;
}

const uint32_t *cfi_table_first_rows(const struct cfi_table *t)
{
	return t->first_row;
}

const uint32_t *cfi_table_rows(const struct cfi_table *t)
{
	return t->row;
}

size_t cfi_table_bytes(const struct cfi_table *t)
{
	return (t->blocks + 1 + (size_t)t->rows) * sizeof(uint32_t);
}

uint32_t cfi_table_bad_records(const struct cfi_table *t)
{
	return t->bad_records;
}
