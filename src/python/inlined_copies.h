/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A compiler that has a profile turns "call what the table says" into "if the table says
 * f, do what f does, else call what it says" (indirect call promotion), with f's code
 * inlined. Each such place compares with f's address, and that is what is counted here.
 */
#ifndef LEAKTOP_INLINED_COPIES_H
#define LEAKTOP_INLINED_COPIES_H

#include <stddef.h>
#include <stdint.h>

struct compared_function {
	uint64_t address;
	unsigned int compares; /* out */
};

void inlined_copies_count(const uint8_t *text, size_t bytes, uint64_t text_address,
			  struct compared_function *functions, size_t count);

#endif
