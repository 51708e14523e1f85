/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Pointers of .eh_frame and .eh_frame_hdr (LSB core, 10.5.1). */
#ifndef LEAKTOP_CFI_POINTER_H
#define LEAKTOP_CFI_POINTER_H

#include <stdint.h>

#include "unwind/byte_reader.h"

/*
 * Reads one pointer that stands at @vaddr in memory; @data_base is what
 * DW_EH_PE_datarel counts from, 0 if there is nothing. Sets r->bad for encodings
 * that cannot be known from a file.
 */
uint64_t cfi_pointer_read(struct byte_reader *r, uint8_t encoding, uint64_t vaddr,
			  uint64_t data_base);
/* Reads one number in the format of @encoding, without its application. */
uint64_t cfi_pointer_read_value(struct byte_reader *r, uint8_t encoding);
/* Passes over a pointer of any encoding that can be passed over. */
void cfi_pointer_skip(struct byte_reader *r, uint8_t encoding, uint64_t vaddr);

#endif
