/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The kernel side of the live table (include/live_table.h tells the protocol). */
#ifndef LEAKTOP_LIVE_BPF_H
#define LEAKTOP_LIVE_BPF_H

#include "maps.bpf.h"
#include "sampling.bpf.h"

/* An atomic exchange is the store that publishes: everything before it is seen first. */
#define PUBLISH(p, v) ((void)__sync_lock_test_and_set((p), (v)))

/* Adds what @b stands for to the counters of its stack: of what came, or @freed. */
__noinline int stack_count(const struct live_block *b, int freed)
{
	struct sampling_share share;
	struct stack_counters *c;
	__u32 id;

	if (!b)
		return 0;
	id = b->stack_id;
	share = sampling_share(sampling_tables(), b->size_bytes, b->rate, b->duty);
	c = bpf_map_lookup_elem(&stack_counts, &id);
	if (!c)
		return 0;
	__sync_fetch_and_add(freed ? &c->freed_bytes : &c->allocated_bytes, share.bytes);
	__sync_fetch_and_add(freed ? &c->freed_blocks_256 : &c->allocated_blocks_256,
			     share.blocks_256);
	return 0;
}

static __always_inline void stack_count_alloc(const struct live_block *b)
{
	stack_count(b, 0);
}

static __always_inline void stack_count_free(const struct live_block *b)
{
	stack_count(b, 1);
}

/* Takes @key out of @bucket; 1 and the block, or 0 if it is not there. */
static __always_inline int bucket_remove(struct live_bucket *bucket, __u64 key,
					 struct live_block *out)
{
#pragma unroll
	for (int i = 0; i < LIVE_SLOTS; i++) {
		if (*(volatile __u64 *)&bucket->keys[i] != key)
			continue;
		*out = bucket->blocks[i];
		/* Whoever wins the exchange owns the block: a double free counts once. */
		return __sync_val_compare_and_swap(&bucket->keys[i], key, LIVE_KEY_EMPTY) == key;
	}
	return 0;
}

/* Global functions, which the verifier looks at once, not once a caller. */
__noinline int live_remove_key(__u64 key, struct live_block *out)
{
	__u64 hash = live_hash(key);
	__u32 index = live_bucket_first(hash, bucket_count);
	struct live_bucket *bucket = bpf_map_lookup_elem(&live, &index);

	if (!bucket || !out)
		return 0;
	if (bucket_remove(bucket, key, out))
		return 1;
	index = live_bucket_second(hash, bucket_count);
	bucket = bpf_map_lookup_elem(&live, &index);
	return bucket ? bucket_remove(bucket, key, out) : 0;
}

/* Looks through @bucket: replaces the block of @key where it is found (1); else 0,
 * and the number of free slots. */
static __always_inline int bucket_replace(struct live_bucket *bucket, __u64 key,
					  const struct live_block *block, __u32 *empty_out)
{
	__u32 empty = 0;

#pragma unroll
	for (int i = 0; i < LIVE_SLOTS; i++) {
		__u64 there = *(volatile __u64 *)&bucket->keys[i];

		empty += there == LIVE_KEY_EMPTY;
		if (there != key)
			continue;
		if (__sync_val_compare_and_swap(&bucket->keys[i], key, LIVE_KEY_BUSY) != key)
			return 0;
		count(COUNT_MISSED_FREE);
		stack_count_free(&bucket->blocks[i]);
		bucket->blocks[i] = *block;
		PUBLISH(&bucket->keys[i], key);
		return 1;
	}
	*empty_out = empty;
	return 0;
}

static __always_inline int bucket_insert(struct live_bucket *bucket, __u64 key,
					 const struct live_block *block)
{
#pragma unroll
	for (int i = 0; i < LIVE_SLOTS; i++) {
		if (*(volatile __u64 *)&bucket->keys[i] != LIVE_KEY_EMPTY)
			continue;
		if (__sync_val_compare_and_swap(&bucket->keys[i], LIVE_KEY_EMPTY, LIVE_KEY_BUSY) !=
		    LIVE_KEY_EMPTY)
			continue;
		bucket->blocks[i] = *block;
		PUBLISH(&bucket->keys[i], key);
		return 1;
	}
	return 0;
}

/* 1, or 0 if both buckets are full: the block is then not tracked, and counted. */
__noinline int live_insert_key(__u64 key, const struct live_block *block)
{
	__u64 hash = live_hash(key);
	__u32 i1 = live_bucket_first(hash, bucket_count);
	__u32 i2 = live_bucket_second(hash, bucket_count);
	struct live_bucket *first = bpf_map_lookup_elem(&live, &i1);
	struct live_bucket *second = bpf_map_lookup_elem(&live, &i2);
	__u32 free1 = 0, free2 = 0;

	if (!first || !second || !block)
		return 0;
	if (bucket_replace(first, key, block, &free1) || bucket_replace(second, key, block, &free2))
		return 1;
	if (free1 < free2)
		return bucket_insert(second, key, block);
	return bucket_insert(first, key, block) || bucket_insert(second, key, block);
}

/* The live set's verbs: the table and the counters of the block's stack. */
static __always_inline int live_take(__u32 slot, __u64 address, struct live_block *out)
{
	return live_remove_key(live_key(slot, address), out);
}

static __always_inline void live_put(__u32 slot, __u64 address, const struct live_block *block)
{
	if (!live_insert_key(live_key(slot, address), block)) {
		count(COUNT_TABLE_FULL);
		count_add(COUNT_TABLE_FULL_BYTES, block->size_bytes);
		stack_count_free(block);
	}
}

#endif
