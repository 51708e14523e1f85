/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The live table: every outstanding block, in memory that the BPF programs and
 * the loader share (a BPF array mapped with mmap).
 *
 * It is the free filter of the kernel side and the ledger's source at once. An
 * allocation is one insertion, a free one removal; nothing is sent for either,
 * so no full ring buffer can lose one, and a block costs 32 bytes here (48 with
 * the room that hashing needs) and nothing in user space. The loader sweeps the table when it makes
 *a report.
 *
 * Layout: buckets of 8 slots, the 8 keys in one cache line. A key lives in one
 * of two buckets, chosen by two hashes. A slot changes hands by compare-and-swap
 * on its key, so both sides may touch it at any moment:
 *
 *	insert:  key 0 -> BUSY (claimed), write the block, key BUSY -> key
 *	remove:  read the block, key -> 0
 *	sweep:   read key, block, key again: unchanged means consistent
 *
 * An address that is allocated again while it is believed live proves that its
 * free was not seen; the old block is replaced.
 */
#ifndef LEAKTOP_LIVE_TABLE_H
#define LEAKTOP_LIVE_TABLE_H

#ifndef __VMLINUX_H__
#include <linux/types.h>
#endif

#define LIVE_SLOTS 8
#define LIVE_KEY_EMPTY 0ull
#define LIVE_KEY_BUSY (~0ull)
#define LIVE_ADDR_BITS 48
#define LIVE_ADDR_MASK ((1ull << LIVE_ADDR_BITS) - 1)
#define LIVE_PROC_MAX 0xfffeu /* process slots are 1..LIVE_PROC_MAX */

struct live_block {
	__u64 size_bytes;
	__u64 birth_ns; /* CLOCK_MONOTONIC */
	__u32 stack_id;
	__u8 domain; /* enum probe_domain */
	__u8 duty;   /* as rate: what the block stands for (sampling.h) */
	__u16 rate;
};

struct live_bucket {
	__u64 keys[LIVE_SLOTS];
	struct live_block blocks[LIVE_SLOTS];
};

_Static_assert(sizeof(struct live_block) == 24, "live_block is shared memory");
_Static_assert(sizeof(struct live_bucket) == 256, "live_bucket is shared memory");

static inline __u64 live_key(__u32 proc, __u64 address)
{
	return (__u64)proc << LIVE_ADDR_BITS | (address & LIVE_ADDR_MASK);
}

static inline __u32 live_key_proc(__u64 key)
{
	return key >> LIVE_ADDR_BITS;
}

static inline __u64 live_key_address(__u64 key)
{
	return key & LIVE_ADDR_MASK;
}

/* A block goes to the emptier one of two buckets, which fills the table to about
 * 70 per cent before a block finds no place (Azar et al., Balanced Allocations,
 * 1994). The bucket numbers are the two halves of one hash, multiply-xorshift
 * twice (one round leaves the regular strides of addresses visible), scaled to
 * the number of buckets (Lemire, arXiv:1805.10941). */
static inline __u64 live_hash(__u64 key)
{
	__u64 h = key * 0x9e3779b97f4a7c15ull;

	h = (h ^ h >> 32) * 0xd6e8feb86659fd93ull;
	return h ^ h >> 32;
}

static inline __u32 live_bucket_first(__u64 hash, __u32 buckets)
{
	return (hash >> 32) * buckets >> 32;
}

static inline __u32 live_bucket_second(__u64 hash, __u32 buckets)
{
	return (hash & 0xffffffff) * buckets >> 32;
}

/* What one (process, stack) has allocated and freed since it was first seen, estimated
 * if it was sampled; shared memory too, one entry a stack id. */
struct stack_counters {
	__u64 allocated_bytes;
	__u64 allocated_blocks_256; /* times 256 (sampling.h) */
	__u64 freed_bytes;
	__u64 freed_blocks_256;
};

#endif
