/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A function of leaktop's own that feature tests and calibration put probes on. */
#ifndef LEAKTOP_SELF_H
#define LEAKTOP_SELF_H

#include <stdint.h>

/* Functions whose first instruction is of a known class, for calibration. */
enum self_function {
	SELF_NOP = 0,
	SELF_PUSH,
	SELF_JUMP,
	SELF_CALL,
	SELF_STEPPED,
	SELF_FUNCTIONS
};

typedef void (*self_fn)(void);

self_fn self_function(enum self_function which);
/* Offset of @which in /proc/self/exe. 0 or negative errno. */
int self_offset(enum self_function which, uint64_t *offset);
int self_function_offset(uint64_t *offset);

#endif
