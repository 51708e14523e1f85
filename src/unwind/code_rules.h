/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Rules derived from the machine code, for the code that the call frame information
 * of an object leaves out: libraries built without it, such as musl's, hand-written
 * assembly, code of other compilers.
 *
 * At most CODE_BYTES_MAX of an object are analysed, with memory of some 30 bytes
 * each for a moment, and a bounded number of looks at each instruction.
 */
#ifndef LEAKTOP_CODE_RULES_H
#define LEAKTOP_CODE_RULES_H

#include <stdbool.h>
#include <stdint.h>

#include "unwind/cfi_ranges.h"
#include "unwind/elf_image.h"

/*
 * Adds ranges for the gaps between the sorted ranges of @r, and sorts them in. What
 * is added is never a part of a range that was there. If the gaps are larger than
 * @max_bytes nothing is done and *left_out is true. 0, also if there is nothing to
 * add, -E2BIG beyond UNWIND_ROWS_MAX rows, -ENOMEM.
 */
int code_rules_add(const struct elf_image *image, struct cfi_ranges *r, uint32_t max_bytes,
		   bool *left_out);

#endif
