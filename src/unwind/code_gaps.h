/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The executable bytes of an object that its call frame information leaves out,
 * one gap after the other, each byte with an index of its own.
 */
#ifndef LEAKTOP_CODE_GAPS_H
#define LEAKTOP_CODE_GAPS_H

#include <stdbool.h>
#include <stdint.h>

#include "unwind/cfi_ranges.h"
#include "unwind/elf_image.h"

#define CODE_GAP_MIN 16u	   /* less is padding */
#define CODE_BYTES_MAX (8u << 20)  /* of code are read; what is behind is left out */
#define CODE_INDEX_NONE UINT32_MAX /* no byte in a gap */

struct code_gap {
	uint32_t start, end;  /* relative to the bias */
	uint32_t first, last; /* indexes of the bytes that were read: first to last - 1 */
};

struct code_gaps {
	uint64_t bias;
	struct code_gap *gaps; /* in order, none touching another */
	uint32_t count, capacity;
	uint8_t *code;
	uint32_t bytes;
};

/*
 * What the sorted ranges of @r leave out of @image. 0, also if there is nothing, or a negative
 * errno. Released in any case.
 */
int code_gaps_find(const struct elf_image *image, const struct cfi_ranges *r,
		   struct code_gaps *out);
void code_gaps_release(struct code_gaps *g);

/* The gap that holds the byte @index. */
const struct code_gap *code_gaps_of(const struct code_gaps *g, uint32_t index);
/* The index of the byte at @vaddr. */
uint32_t code_gaps_index(const struct code_gaps *g, uint64_t vaddr);
uint64_t code_gaps_vaddr(const struct code_gaps *g, uint32_t index);

#endif
