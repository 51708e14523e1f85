/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The live blocks of pymalloc in another process, without symbols: pools are found in
 * its anonymous memory because everything their headers say must agree, down to
 * the length of the free list (Include/internal/pycore_obmalloc.h, to 3.11
 * Objects/obmalloc.c).
 */
#ifndef LEAKTOP_POOLS_H
#define LEAKTOP_POOLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define POOL_BYTES_MAX (16u << 10)
#define POOL_BLOCKS_MAX (POOL_BYTES_MAX / 16)

struct pool {
	uint64_t address;
	uint32_t arena;				/* number of its arena */
	uint32_t class_bytes;			/* of each block */
	uint32_t carved, count;			/* blocks that were ever handed out; live ones */
	uint64_t is_free[POOL_BLOCKS_MAX / 64]; /* bits, of those carved */
};

enum pool_verdict {
	POOL_NONE = 0, /* no pool */
	POOL_SOUND,
	POOL_CHANGED, /* a pool by its header, but its free list does not agree */
};

/* What lies in the 1 << @pool_bits bytes of a copy made from @address. @out is written
 * only if sound. */
enum pool_verdict pool_parse(const uint8_t *bytes, uint64_t address, unsigned int pool_bits,
			     struct pool *out);
/* Where the block @nth begins in its pool. */
uint32_t pool_block_offset(const struct pool *p, uint32_t nth);

static inline bool pool_block_is_free(const struct pool *p, uint32_t nth)
{
	return p->is_free[nth / 64] >> nth % 64 & 1;
}

struct pool_scan;

/* 0, -ESRCH, or another negative errno. */
int pool_scan_new(pid_t pid, unsigned int pool_bits, struct pool_scan **out);
void pool_scan_free(struct pool_scan *s);
/* 1 and the next sound pool with its contents, both good until the next call; 0 at the end;
 * negative errno. Pools that change while they are read are read again. */
int pool_scan_next(struct pool_scan *s, const struct pool **pool, const uint8_t **bytes);
/* Pools that were still changing after that. */
uint64_t pool_scan_skipped(const struct pool_scan *s);

#endif
