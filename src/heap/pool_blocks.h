/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which blocks of pymalloc are held in another process. */
#ifndef LEAKTOP_POOL_BLOCKS_H
#define LEAKTOP_POOL_BLOCKS_H

#include <stddef.h>
#include <sys/types.h>

#include "heap/block_state.h"

#define POOL_BLOCK_BYTES_MAX 512 /* larger ones are malloc's */

/*
 * Answers those of the questions, sorted by address, whose pool is sound and leaves the
 * others as they are. Adds what was read to @read_bytes. 0 or negative errno.
 */
int pool_blocks_ask(pid_t pid, unsigned int pool_bits, struct block_question **sorted, size_t count,
		    uint64_t *read_bytes);

#endif
