/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Compiles the call frame information of an object to an unwind table; see
 * unwind_table.h for what is in it. Code that it leaves out has rules from the
 * code itself (code_rules.h). The object is hostile: whatever it holds, memory
 * stays below some 600 MiB for a moment and work linear in the information, of
 * which 64 MiB a section are read at most, and in the code left out, 8 MiB.
 */
#ifndef LEAKTOP_CFI_H
#define LEAKTOP_CFI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "unwind/rule_set.h"

struct cfi_table;

/* New rules that one object may bring, so that none can fill the set alone. */
#define CFI_RULES_PER_OBJECT 4096u

/*
 * Read .eh_frame, found by section or by PT_GNU_EH_FRAME, and .debug_frame for
 * code that the former does not describe, of a 64-bit x86-64 ELF file open at
 * @fd, or of an image in memory such as the vdso. New rules go to @rules, which
 * may be used by one caller at a time. Returns
 *	0
 *	-ENODATA	no executable code, or nothing known about it
 *	-EINVAL		no such ELF file, or broken
 *	-EFBIG		more than 4 GiB of code or 64 MiB of information
 *	-E2BIG		more than UNWIND_ROWS_MAX rows
 * or another negative errno.
 */
int cfi_table_read(int fd, struct rule_set *rules, struct cfi_table **out);
/*
 * The same without the analysis of code that takes long: hundreds of milliseconds for
 * megabytes. cfi_table_is_whole() tells if there was any.
 */
int cfi_table_read_quick(int fd, struct rule_set *rules, struct cfi_table **out);
bool cfi_table_is_whole(const struct cfi_table *t);
int cfi_table_read_memory(const void *image, size_t size_bytes, struct rule_set *rules,
			  struct cfi_table **out);
void cfi_table_free(struct cfi_table *t);

/* The rule at ELF virtual address @vaddr; UNWIND_RULE_UNKNOWN outside the table. */
uint32_t cfi_table_find(const struct cfi_table *t, uint64_t vaddr);

uint64_t cfi_table_bias(const struct cfi_table *t);
uint32_t cfi_table_block_count(const struct cfi_table *t);
uint32_t cfi_table_row_count(const struct cfi_table *t);
/* block_count + 1 indexes of rows, the last one being row_count. */
const uint32_t *cfi_table_first_rows(const struct cfi_table *t);
const uint32_t *cfi_table_rows(const struct cfi_table *t);
/* Of first_rows and rows together. */
size_t cfi_table_bytes(const struct cfi_table *t);
/* Records of the object that could not be read, wholly or in part. */
uint32_t cfi_table_bad_records(const struct cfi_table *t);

#endif
