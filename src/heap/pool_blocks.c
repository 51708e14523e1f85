/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A pool has blocks of one size and a list of its free ones, and lies at a multiple of
 * its size, so a block leads to its pool. A pool changes its block size when all its blocks
 * were free; then a block that does not fit any more was freed. PyObject_Realloc() keeps
 * a block in place while it shrinks by less than a quarter (Objects/obmalloc.c).
 *
 * The debug allocator (PYTHONMALLOC=debug) puts two words before each block, so that its
 * addresses fit no pool; the second is known by seven equal bytes.
 */
#include "heap/pool_blocks.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "python/pools.h"
#include "target/memory.h"

#define POOLS_A_READ 64
#define RETRIES 3
#define GUARD_BYTES 7
#define FORBIDDEN_BYTE 0xfd /* FORBIDDENBYTE since 3.8 */

struct pool_batch {
	pid_t pid;
	unsigned int pool_bits;
	size_t count;
	struct {
		uint64_t address;
		struct block_question **first;
		size_t count;
	} pools[POOLS_A_READ];
	struct memory_piece pieces[POOLS_A_READ];
	uint8_t bytes[POOLS_A_READ][POOL_BYTES_MAX];
};

static bool is_guarded(const uint8_t *pool, uint64_t offset)
{
	for (uint64_t i = 1; i <= GUARD_BYTES; i++)
		if (offset < i || pool[offset - i] != FORBIDDEN_BYTE)
			return false;
	return true;
}

static enum block_state answer(const struct pool *p, const uint8_t *bytes, uint64_t address,
			       uint64_t size_bytes)
{
	uint64_t offset = address - p->address, first = pool_block_offset(p, 0), nth;

	if (offset % 16 || offset < first)
		return BLOCK_UNKNOWN;
	nth = (offset - first) / p->class_bytes;
	if (p->class_bytes < size_bytes || (offset - first) % p->class_bytes)
		return is_guarded(bytes, offset) ? BLOCK_UNKNOWN : BLOCK_FREE;
	if (nth >= p->carved || pool_block_is_free(p, (uint32_t)nth))
		return BLOCK_FREE;
	size_bytes = size_bytes ? size_bytes : 1;
	if (p->class_bytes - size_bytes >= 16 && 4 * size_bytes <= 3 * (uint64_t)p->class_bytes)
		return BLOCK_FREE;
	return p->class_bytes - size_bytes < 16 ? BLOCK_HELD : BLOCK_UNKNOWN;
}

static void answer_pool(struct pool_batch *b, size_t nth)
{
	uint64_t address = b->pools[nth].address;
	enum pool_verdict v = POOL_NONE;
	struct pool pool;

	if (!b->pieces[nth].err)
		v = pool_parse(b->bytes[nth], address, b->pool_bits, &pool);
	for (int i = 0; v == POOL_CHANGED && i < RETRIES; i++) {
		if (memory_read(b->pid, address, b->bytes[nth], 1ull << b->pool_bits))
			return;
		v = pool_parse(b->bytes[nth], address, b->pool_bits, &pool);
	}
	for (size_t i = 0; v == POOL_SOUND && i < b->pools[nth].count; i++) {
		struct block_question *q = b->pools[nth].first[i];

		q->state = answer(&pool, b->bytes[nth], q->address, q->size_bytes);
	}
}

static int answer_batch(struct pool_batch *b, uint64_t *read_bytes)
{
	int err;

	for (size_t i = 0; i < b->count; i++)
		b->pieces[i] = (struct memory_piece){b->pools[i].address, b->bytes[i],
						     1ull << b->pool_bits, 0};
	err = memory_read_many(b->pid, b->pieces, b->count);
	if (err)
		return err;
	*read_bytes += b->count << b->pool_bits;
	for (size_t i = 0; i < b->count; i++)
		answer_pool(b, i);
	b->count = 0;
	return 0;
}

int pool_blocks_ask(pid_t pid, unsigned int pool_bits, struct block_question **sorted, size_t count,
		    uint64_t *read_bytes)
{
	struct pool_batch *b = malloc(sizeof(*b));
	size_t i = 0;
	int err = 0;

	if (!b)
		return -ENOMEM;
	b->pid = pid;
	b->pool_bits = pool_bits;
	b->count = 0;
	while (!err && i < count) {
		uint64_t pool = sorted[i]->address >> pool_bits;
		size_t first = i;

		while (i < count && sorted[i]->address >> pool_bits == pool)
			i++;
		b->pools[b->count].address = pool << pool_bits;
		b->pools[b->count].first = sorted + first;
		b->pools[b->count++].count = i - first;
		if (b->count == POOLS_A_READ || i == count)
			err = answer_batch(b, read_bytes);
	}
	free(b);
	return err;
}
