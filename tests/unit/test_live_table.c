/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The live table's kernel side, compiled for the host: the maps become arrays,
 * the BPF helpers a few lines below, and threads stand for CPUs.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <string.h>

#include <linux/types.h>

#include "base/sampling_tables.h"
#include "events.h"
#include "live_table.h"

#define LEAKTOP_MAPS_BPF_H /* its maps and helpers are replaced here */
#define LEAKTOP_SAMPLING_BPF_H
#undef __always_inline
#define __always_inline inline __attribute__((always_inline))
#define __noinline __attribute__((noinline))

#define BUCKETS_MAX 4096
static struct live_bucket buckets[BUCKETS_MAX];
static struct stack_counters stacks[64];
static __u32 bucket_count = BUCKETS_MAX;
static uint64_t counters[COUNTERS];
static int live, stack_counts;

static void count_add(enum counter which, __u64 n)
{
	__atomic_fetch_add(&counters[which], n, __ATOMIC_RELAXED);
}

static void count(enum counter which)
{
	count_add(which, 1);
}

static void *bpf_map_lookup_elem(const int *map, const __u32 *index)
{
	if (map == &live)
		return *index < bucket_count ? &buckets[*index] : NULL;
	return *index < 64 ? &stacks[*index] : NULL;
}

static struct sampling_tables tables;

static const struct sampling_tables *sampling_tables(void)
{
	return &tables;
}

#pragma GCC diagnostic ignored "-Wunknown-pragmas"
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#include "../../bpf/live.bpf.h"

static int reset(void **state)
{
	(void)state;
	sampling_tables_fill(&tables);
	memset(buckets, 0, sizeof(buckets));
	memset(stacks, 0, sizeof(stacks));
	memset(counters, 0, sizeof(counters));
	bucket_count = BUCKETS_MAX;
	return 0;
}

static struct live_block block_of(uint64_t size, uint32_t stack)
{
	struct live_block b = {.size_bytes = size, .birth_ns = 1, .stack_id = stack};

	return b;
}

static size_t live_count(void)
{
	size_t n = 0;

	for (size_t i = 0; i < BUCKETS_MAX; i++)
		for (int j = 0; j < LIVE_SLOTS; j++)
			n += buckets[i].keys[j] != LIVE_KEY_EMPTY;
	return n;
}

static void a_block_comes_back_as_it_went_in(void **state)
{
	struct live_block in = block_of(4711, 3), out;

	(void)state;
	live_put(7, 0x7f0000001230, &in);
	assert_int_equal(live_take(7, 0x7f0000001230, &out), 1);
	assert_memory_equal(&in, &out, sizeof(in));
	assert_int_equal(live_take(7, 0x7f0000001230, &out), 0);
	assert_int_equal(live_count(), 0);
}

static void processes_do_not_share_addresses(void **state)
{
	struct live_block a = block_of(1, 1), b = block_of(2, 2), out;

	(void)state;
	live_put(1, 0x5000, &a);
	live_put(2, 0x5000, &b);
	assert_int_equal(live_take(2, 0x5000, &out), 1);
	assert_int_equal(out.size_bytes, 2);
	assert_int_equal(live_take(1, 0x5000, &out), 1);
	assert_int_equal(out.size_bytes, 1);
}

static void a_reused_address_replaces_the_old_block(void **state)
{
	struct live_block a = block_of(100, 1), b = block_of(50, 2), out;

	(void)state;
	live_put(1, 0x5000, &a);
	live_put(1, 0x5000, &b);
	assert_int_equal(live_count(), 1);
	assert_int_equal(counters[COUNT_MISSED_FREE], 1);
	assert_int_equal(stacks[1].freed_bytes, 100);
	assert_int_equal(live_take(1, 0x5000, &out), 1);
	assert_int_equal(out.size_bytes, 50);
}

static void a_full_table_counts_and_forgets_nothing_else(void **state)
{
	struct live_block b = block_of(10, 1), out;
	const uint64_t blocks = 1000;
	uint64_t held = 0;

	(void)state;
	bucket_count = 16;
	for (uint64_t i = 1; i <= blocks; i++)
		live_put(1, i * 16, &b);
	for (uint64_t i = 1; i <= blocks; i++)
		held += (uint64_t)live_take(1, i * 16, &out);
	assert_in_range(held, 16 * LIVE_SLOTS * 3 / 4, 16 * LIVE_SLOTS);
	assert_int_equal(held + counters[COUNT_TABLE_FULL], blocks);
	assert_int_equal(counters[COUNT_TABLE_FULL_BYTES], 10 * (blocks - held));
	assert_int_equal(live_count(), 0);
}

static void buckets_fill_to_two_thirds_before_one_overflows(void **state)
{
	struct live_block b = block_of(10, 1);
	uint64_t i;

	(void)state;
	for (i = 1; !counters[COUNT_TABLE_FULL]; i++)
		live_put(1, 0x7f0000000000 + i * 48, &b);
	assert_in_range(i, BUCKETS_MAX * LIVE_SLOTS / 3 * 2, BUCKETS_MAX * LIVE_SLOTS);
}

/* Each thread allocates and frees addresses of its own and hands some to its
 * neighbour to free, as threads of a program do. */
#define THREADS 4
#define ROUNDS 20000
static uint64_t handed[THREADS][ROUNDS];

static void *churn(void *arg)
{
	uint64_t me = (uint64_t)(uintptr_t)arg, next = (me + 1) % THREADS;
	struct live_block b = block_of(me + 1, (uint32_t)me + 1), out;

	for (uint64_t i = 0; i < ROUNDS; i++) {
		uint64_t address = (me + 1) << 32 | (i + 1) << 4;

		live_put(1, address, &b);
		if (i % 3)
			live_take(1, address, &out);
		else
			__atomic_store_n(&handed[next][i], address, __ATOMIC_RELEASE);
		address = __atomic_exchange_n(&handed[me][i], 0, __ATOMIC_ACQUIRE);
		if (address)
			live_take(1, address, &out);
	}
	return NULL;
}

static void threads_leave_nothing_behind(void **state)
{
	struct live_block out;
	pthread_t t[THREADS];

	(void)state;
	memset(handed, 0, sizeof(handed));
	for (uintptr_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, churn, (void *)i), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	for (int i = 0; i < THREADS; i++)
		for (int j = 0; j < ROUNDS; j++)
			if (handed[i][j])
				assert_int_equal(live_take(1, handed[i][j], &out), 1);
	assert_int_equal(live_count(), 0);
	assert_int_equal(counters[COUNT_TABLE_FULL] + counters[COUNT_MISSED_FREE], 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(a_block_comes_back_as_it_went_in, reset),
		cmocka_unit_test_setup(processes_do_not_share_addresses, reset),
		cmocka_unit_test_setup(a_reused_address_replaces_the_old_block, reset),
		cmocka_unit_test_setup(a_full_table_counts_and_forgets_nothing_else, reset),
		cmocka_unit_test_setup(buckets_fill_to_two_thirds_before_one_overflows, reset),
		cmocka_unit_test_setup(threads_leave_nothing_behind, reset),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
