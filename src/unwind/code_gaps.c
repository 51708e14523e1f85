/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "unwind/code_gaps.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void code_gaps_release(struct code_gaps *g)
{
	free(g->gaps);
	free(g->code);
	memset(g, 0, sizeof(*g));
}

static int add_gap(struct code_gaps *g, uint64_t start, uint64_t end)
{
	uint32_t more = g->capacity ? 2 * g->capacity : 64, read;
	struct code_gap *gaps;

	if (end - start < CODE_GAP_MIN)
		return 0;
	if (g->count == g->capacity) {
		gaps = realloc(g->gaps, more * sizeof(*gaps));
		if (!gaps)
			return -ENOMEM;
		g->gaps = gaps;
		g->capacity = more;
	}
	read = CODE_BYTES_MAX - g->bytes;
	if (end - start < read)
		read = (uint32_t)(end - start);
	g->gaps[g->count++] = (struct code_gap){.start = (uint32_t)start,
						.end = (uint32_t)end,
						.first = g->bytes,
						.last = g->bytes + read};
	g->bytes += read;
	return 0;
}

/* The parts of [low, high) that are in no range; *at is the first range that may matter. */
static int add_segment(struct code_gaps *g, const struct cfi_ranges *r, uint64_t low, uint64_t high,
		       uint32_t *at)
{
	int err = 0;

	for (; *at < r->count && r->ranges[*at].start < high; (*at)++) {
		if (r->ranges[*at].start > low)
			err = add_gap(g, low, r->ranges[*at].start);
		if (err)
			return err;
		if (r->ranges[*at].end > low)
			low = r->ranges[*at].end;
		if (low > high)
			return 0;
	}
	return low < high ? add_gap(g, low, high) : 0;
}

static int read_code(const struct elf_image *image, struct code_gaps *g)
{
	uint32_t i;
	int err;

	g->code = malloc(g->bytes);
	if (!g->code)
		return -ENOMEM;
	for (i = 0; i < g->count; i++) {
		const struct code_gap *gap = &g->gaps[i];

		err = elf_image_copy(image, g->bias + gap->start, g->code + gap->first,
				     gap->last - gap->first);
		if (err)
			return err;
	}
	return 0;
}

int code_gaps_find(const struct elf_image *image, const struct cfi_ranges *r, struct code_gaps *g)
{
	uint64_t low, high, from = r->low;
	uint32_t at = 0;
	size_t i = 0;
	int err;

	memset(g, 0, sizeof(*g));
	g->bias = r->bias;
	while (elf_image_next_code(image, &i, &low, &high)) {
		/* Segments are in order (ELF, "Program Header"); those that are not are left out.
		 */
		if (low < from)
			low = from;
		if (high > r->high)
			high = r->high;
		if (low >= high)
			continue;
		err = add_segment(g, r, low - r->bias, high - r->bias, &at);
		if (err)
			return err;
		from = high;
	}
	return g->bytes ? read_code(image, g) : 0;
}

const struct code_gap *code_gaps_of(const struct code_gaps *g, uint32_t index)
{
	uint32_t low = 0, high = g->count, middle;

	while (high - low > 1) {
		middle = low + (high - low) / 2;
		if (g->gaps[middle].first <= index)
			low = middle;
		else
			high = middle;
	}
	return &g->gaps[low];
}

uint32_t code_gaps_index(const struct code_gaps *g, uint64_t vaddr)
{
	uint32_t low = 0, high = g->count, middle;
	uint64_t at = vaddr - g->bias;
	const struct code_gap *gap;

	while (low < high) {
		middle = low + (high - low) / 2;
		if (g->gaps[middle].end <= at)
			low = middle + 1;
		else
			high = middle;
	}
	gap = &g->gaps[low];
	if (low == g->count || at < gap->start || at - gap->start >= gap->last - gap->first)
		return CODE_INDEX_NONE;
	return gap->first + (uint32_t)(at - gap->start);
}

uint64_t code_gaps_vaddr(const struct code_gaps *g, uint32_t index)
{
	const struct code_gap *gap = code_gaps_of(g, index);

	return g->bias + gap->start + (index - gap->first);
}
