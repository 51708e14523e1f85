/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What else of equal_address.c is of use (the rest: alloc_tables.h). */
#ifndef LEAKTOP_EQUAL_ADDRESS_H
#define LEAKTOP_EQUAL_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Whether an instruction starts at @address, as the code before it has it. In doubt: no. */
bool text_starts_instruction(const uint8_t *text, size_t bytes, uint64_t text_address,
			     uint64_t address);

#endif
