/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The first bytes of many blocks of another process, in batches: where blocks lie close
 * together, the memory is read through, else block by block.
 */
#ifndef LEAKTOP_BLOCK_WINDOWS_H
#define LEAKTOP_BLOCK_WINDOWS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "python/types.h"

#define BLOCK_BYTES_READ 96 /* of each block, if it has so many */
#define BLOCKS_A_BATCH (1u << 16)

struct block_windows;

/* @blocks are sorted by address and outlive the windows. NULL: out of memory. */
struct block_windows *block_windows_new(pid_t pid, struct typed_block *const *blocks, size_t count);
void block_windows_free(struct block_windows *w);

/* The next batch: blocks @first to @first + result. 0: at the end; or negative errno. */
ssize_t block_windows_next(struct block_windows *w, size_t *first);
/* The bytes of the block @nth of the batch; NULL: not readable. */
const uint8_t *block_windows_at(const struct block_windows *w, size_t nth);

#endif
