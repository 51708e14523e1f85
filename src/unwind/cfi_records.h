/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Walks the records of .eh_frame (LSB core, 10.6) or .debug_frame (DWARF 5, 6.4.1). */
#ifndef LEAKTOP_CFI_RECORDS_H
#define LEAKTOP_CFI_RECORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "unwind/byte_reader.h"
#include "unwind/cfi_program.h"

struct cfi_part {
	const uint8_t *data;
	size_t size_bytes;
	uint64_t vaddr;	   /* of data in memory */
	uint64_t last;	   /* records start at this offset or before */
	bool debug_frame;  /* .debug_frame, otherwise .eh_frame */
	bool ends_at_zero; /* a terminator ends it; otherwise it is passed over */
};

struct cfi_cie {
	uint64_t offset; /* in the part */
	struct cfi_factors factors;
	struct cfi_state initial;
	uint8_t address_bytes; /* 8, unless .debug_frame says otherwise */
	bool has_augmentation_data;
	bool signal;
};

struct cfi_fde {
	uint64_t start, end; /* virtual addresses; empty ranges occur */
	const struct cfi_cie *cie;
	struct byte_reader code;
	uint64_t code_vaddr;
};

struct cfi_records;

/* @part is copied, its data borrowed. 0 or -ENOMEM. */
int cfi_records_new(const struct cfi_part *part, struct cfi_records **out);
void cfi_records_free(struct cfi_records *r);

/*
 * 1: *fde is the next one that can be read; fde->cie lives until the next call.
 * 0: no more. -ENOMEM.
 */
int cfi_records_next(struct cfi_records *r, struct cfi_fde *fde);
/* Records that could not be read; the rest of a part whose lengths are wrong counts as one. */
uint32_t cfi_records_bad(const struct cfi_records *r);

#endif
