/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "python/census.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "python/address_runs.h"
#include "python/freezer.h"
#include "python/gc_ring.h"
#include "python/gc_state.h"
#include "python/interpreter.h"
#include "python/key_sort.h"
#include "python/object_layout.h"
#include "python/pools.h"
#include "python/referents.h"
#include "python/types.h"

#define BLOCKS_A_TIME (8u << 20) /* 24 bytes each, and as much again to find their types */
#define SMALL_BYTES_MAX 512	 /* larger blocks are not from pools */
#define LARGE_MAX (16u << 20)
#define DEBUG_HEAD_BYTES 16
#define COLLECTION_WAITS_MAX 50
#define COLLECTION_WAIT_NS 2000000

struct block_list {
	struct typed_block *items;
	size_t count, room;
};

struct tally {
	uint64_t blocks, bytes;
};

struct taker {
	const struct interpreter *interpreter;
	struct object_layout layout;
	struct type_reader *reader;
	struct block_list blocks; /* of pools, whose types are not read yet */
	struct block_list large;
	struct block_list holders;	 /* large ones that are counted and may hold references */
	struct address_runs pools, held; /* held: the holders */
	struct gc_state state;		 /* without rings if it is not known */
	struct tally *tallies;		 /* by number of type */
	uint32_t tally_count;
	struct census *census;
};

static double now_seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static int list_add(struct block_list *l, uint64_t address, uint64_t size_bytes)
{
	if (l->count == l->room) {
		size_t room = l->room ? l->room * 2 : 4096;
		struct typed_block *items = realloc(l->items, room * sizeof(*items));

		if (!items)
			return -ENOMEM;
		l->items = items;
		l->room = room;
	}
	l->items[l->count++] = (struct typed_block){address, size_bytes, TYPE_UNKNOWN};
	return 0;
}

static int count_block(struct taker *t, uint32_t type, uint64_t bytes)
{
	uint32_t count = type_reader_count(t->reader);

	if (type >= t->tally_count) {
		struct tally *tallies = realloc(t->tallies, count * sizeof(*tallies));

		if (!tallies)
			return -ENOMEM;
		memset(tallies + t->tally_count, 0, (count - t->tally_count) * sizeof(*tallies));
		t->tallies = tallies;
		t->tally_count = count;
	}
	t->tallies[type].blocks++;
	t->tallies[type].bytes += bytes;
	return 0;
}

static int count_large(struct taker *t, const struct typed_block *b)
{
	t->census->large_blocks++;
	t->census->large_bytes += b->size_bytes;
	return count_block(t, b->type, b->size_bytes);
}

static int count_holder(struct taker *t, const struct typed_block *b)
{
	int err = count_large(t, b);

	return err ? err : list_add(&t->holders, b->address, b->size_bytes);
}

/* Buffers that are too large for pools. */
static int count_buffers(struct taker *t, const struct typed_block *buffers, size_t count)
{
	int err = 0;

	for (size_t i = 0; !err && i < count; i++) {
		const struct typed_block *b = &buffers[i];

		if (b->size_bytes > SMALL_BYTES_MAX && !address_runs_have(&t->pools, b->address))
			err = count_holder(t, b);
	}
	return err;
}

static int count_pool_blocks(struct taker *t)
{
	struct typed_block *buffers = NULL;
	size_t buffer_count = 0;
	int err = type_reader_read_buffers(t->reader, t->blocks.items, t->blocks.count, &buffers,
					   &buffer_count);

	for (size_t i = 0; !err && i < t->blocks.count; i++)
		err = count_block(t, t->blocks.items[i].type, t->blocks.items[i].size_bytes);
	if (!err)
		err = count_buffers(t, buffers, buffer_count);
	free(buffers);
	t->blocks.count = 0;
	return err;
}

/* PYTHONMALLOC=debug: {size, big-endian; letter of the domain; 7 times 0xfd} is before what
 * the program uses (Objects/obmalloc.c, _PyMem_DebugRawAlloc()). */
static bool has_debug_head(const uint8_t *block, uint32_t class_bytes)
{
	static const uint8_t guard[7] = {0xfd, 0xfd, 0xfd, 0xfd, 0xfd, 0xfd, 0xfd};

	return class_bytes > DEBUG_HEAD_BYTES && (block[8] == 'o' || block[8] == 'm') &&
	       !memcmp(block + 9, guard, sizeof(guard));
}

static int add_pool(struct taker *t, const struct pool *p, const uint8_t *bytes)
{
	uint64_t pool_bytes = 1ull << t->layout.pool_bits;
	int err = address_runs_add(&t->pools, p->address, p->address + pool_bytes);

	for (uint32_t n = 0; !err && n < p->carved; n++) {
		uint32_t at = pool_block_offset(p, n);
		uint32_t head = has_debug_head(bytes + at, p->class_bytes) ? DEBUG_HEAD_BYTES : 0;

		if (!pool_block_is_free(p, n))
			err = list_add(&t->blocks, p->address + at + head, p->class_bytes - head);
	}
	t->census->pools++;
	t->census->blocks += p->count;
	t->census->bytes += (uint64_t)p->count * p->class_bytes;
	t->census->pool_free_bytes +=
		pool_bytes - pool_block_offset(p, 0) - (uint64_t)p->count * p->class_bytes;
	return err;
}

static int count_pools(struct taker *t)
{
	struct pool_scan *scan;
	const struct pool *pool;
	const uint8_t *bytes;
	int err = pool_scan_new(t->interpreter->pid, t->layout.pool_bits, &scan), n = 0;

	if (err)
		return err;
	while (!err && (n = pool_scan_next(scan, &pool, &bytes)) == 1) {
		err = add_pool(t, pool, bytes);
		if (!err && t->blocks.count >= BLOCKS_A_TIME)
			err = count_pool_blocks(t);
	}
	t->census->pools_skipped = pool_scan_skipped(scan);
	pool_scan_free(scan);
	if (!err && n < 0)
		err = n;
	return err ? err : count_pool_blocks(t);
}

/* Tracked objects that are not in pools, by the addresses of their collector heads. A ring
 * that changes too much is left where it is. */
static int find_large(struct taker *t, const struct gc_state *state)
{
	struct gc_ring *ring = gc_ring_new(t->interpreter->pid);
	int n = ring ? 0 : -ENOMEM;

	for (size_t i = 0; i < state->ring_count && (n >= 0 || n == -EAGAIN); i++) {
		uint64_t address;

		gc_ring_start(ring, state->rings[i]);
		while ((n = gc_ring_next(ring, &address)) == 1) {
			if (address_runs_have(&t->pools, address) || t->large.count == LARGE_MAX)
				continue;
			n = list_add(&t->large, address, 0);
			if (n)
				break;
		}
	}
	gc_ring_free(ring);
	return n == -EAGAIN ? 0 : n;
}

/* Counts and takes out the blocks of @t->large whose types are found; the others are tried
 * again @before bytes before, where the block begins if there are words before the head. */
static int count_found(struct taker *t, uint64_t before)
{
	struct block_list *l = &t->large;
	struct typed_block *buffers = NULL;
	size_t buffer_count = 0, left = 0;
	int err = type_reader_read_buffers(t->reader, l->items, l->count, &buffers, &buffer_count);

	for (size_t i = 0; !err && i < l->count; i++) {
		const struct typed_block *b = &l->items[i];

		if (b->type == TYPE_UNKNOWN)
			l->items[left++] =
				(struct typed_block){b->address - before, 0, TYPE_UNKNOWN};
		else
			err = count_holder(t, b);
	}
	if (!err)
		err = count_buffers(t, buffers, buffer_count);
	free(buffers);
	l->count = left;
	return err;
}

static void take_state(struct taker *t)
{
	const struct gc_state *state = &t->state;

	t->census->gc_known = true;
	t->census->gc_enabled = state->enabled;
	t->census->garbage = state->garbage;
	memcpy(t->census->generations, state->generations, sizeof(state->generations));
}

static int count_large_objects(struct taker *t)
{
	int err = find_large(t, &t->state);

	if (!err)
		err = count_found(t, t->layout.flag_pre_header ? 16 : 0);
	if (!err && t->layout.flag_pre_header)
		err = count_found(t, 0);
	return err;
}

static int scan_pools(struct taker *t, struct referents *r)
{
	struct pool_scan *scan;
	const struct pool *pool;
	const uint8_t *bytes;
	int err = pool_scan_new(t->interpreter->pid, t->layout.pool_bits, &scan), n = 0;

	if (err)
		return err;
	while (!err && (n = pool_scan_next(scan, &pool, &bytes)) == 1) {
		for (uint32_t k = 0; !err && k < pool->carved; k++) {
			if (!pool_block_is_free(pool, k))
				err = referents_scan(r, bytes + pool_block_offset(pool, k),
						     pool->class_bytes);
		}
	}
	pool_scan_free(scan);
	return err ? err : n;
}

static int add_referent(uint64_t address, void *taker)
{
	struct taker *t = taker;

	return address_runs_have(&t->held, address) ? 0 : list_add(&t->large, address, 0);
}

static int sort_holders(struct taker *t)
{
	struct keyed *keys = calloc(t->holders.count + 1, sizeof(*keys));
	int err;

	if (!keys)
		return -ENOMEM;
	for (size_t i = 0; i < t->holders.count; i++)
		keys[i] =
			(struct keyed){t->holders.items[i].address, t->holders.items[i].size_bytes};
	err = key_sort(keys, t->holders.count);
	for (size_t i = 0; !err && i < t->holders.count; i++)
		err = address_runs_add(&t->held, keys[i].key, keys[i].key + keys[i].value);
	free(keys);
	return err;
}

static int read_referents(struct taker *t)
{
	struct referents *r;
	int err = referents_new(t->interpreter->pid, &t->pools, &r);

	if (err)
		return err;
	err = scan_pools(t, r);
	for (size_t i = 0; !err && i < t->holders.count; i++)
		err = referents_scan_memory(r, t->holders.items[i].address,
					    t->holders.items[i].size_bytes);
	t->large.count = 0;
	if (!err)
		err = referents_each(r, add_referent, t);
	referents_free(r);
	return err;
}

/*
 * Large objects that the collector does not track (str, bytes, int) are found by the
 * references to them. What is freed is not mistaken for one: its reference count is 0.
 */
static int count_untracked(struct taker *t)
{
	struct block_list *l = &t->large;
	int err = sort_holders(t);

	if (!err)
		err = read_referents(t);
	if (!err)
		err = type_reader_read(t->reader, l->items, l->count);
	for (size_t i = 0; !err && i < l->count; i++)
		if (l->items[i].type != TYPE_UNKNOWN && l->items[i].size_bytes > SMALL_BYTES_MAX)
			err = count_large(t, &l->items[i]);
	return err;
}

static int compare_rows(const void *a, const void *b)
{
	const struct census_row *x = a, *y = b;

	if (x->bytes != y->bytes)
		return x->bytes < y->bytes ? 1 : -1;
	return strcmp(x->name, y->name);
}

static int make_rows(struct taker *t)
{
	struct census *c = t->census;

	c->rows = calloc(t->tally_count + 1, sizeof(*c->rows));
	if (!c->rows)
		return -ENOMEM;
	for (uint32_t i = 0; i < t->tally_count; i++) {
		const struct tally *n = &t->tallies[i];
		char *name;

		if (!n->blocks)
			continue;
		name = strdup(type_reader_name(t->reader, i));
		if (!name)
			return -ENOMEM;
		c->rows[c->row_count++] = (struct census_row){name, n->blocks, n->bytes};
	}
	qsort(c->rows, c->row_count, sizeof(*c->rows), compare_rows);
	return 0;
}

/*
 * Waits for a moment between collections, and with @freeze holds the process in it. The time
 * that it stood still in vain is in stopped_seconds.
 */
static int begin(struct taker *t, bool freeze, struct freezer **freezer)
{
	const struct timespec wait = {0, COLLECTION_WAIT_NS};
	pid_t pid = t->interpreter->pid;
	int err;

	for (int n = 0;; n++) {
		double start = now_seconds();

		err = freeze ? freezer_new(pid, freezer) : 0;
		if (err)
			return err;
		err = gc_state_read(t->interpreter, &t->state);
		if (err != -EAGAIN || n == COLLECTION_WAITS_MAX)
			break;
		freezer_free(*freezer);
		*freezer = NULL;
		if (freeze)
			t->census->stopped_seconds += now_seconds() - start;
		nanosleep(&wait, NULL);
	}
	if (!err)
		take_state(t);
	return err == -EAGAIN || err == -ENOENT ? 0 : err;
}

static int count_all(struct taker *t)
{
	int err = count_pools(t);

	if (!err)
		err = count_large_objects(t);
	return err || !t->census->pools ? err : count_untracked(t);
}

static int take(struct taker *t, bool freeze)
{
	double start = now_seconds(), held;
	struct freezer *freezer = NULL;
	int err = begin(t, freeze, &freezer);

	held = now_seconds();
	if (!err)
		err = count_all(t);
	freezer_free(freezer);
	if (freeze)
		t->census->stopped_seconds += now_seconds() - held;
	if (!err)
		err = make_rows(t);
	t->census->seconds = now_seconds() - start;
	return err;
}

int census_take(const struct interpreter *i, bool freeze, struct census **out)
{
	struct taker t = {.interpreter = i};
	int err = object_layout_by_version(i->minor, i->free_threaded, &t.layout);

	if (err)
		return err;
	t.census = calloc(1, sizeof(*t.census));
	t.reader = type_reader_new(i);
	err = -ENOMEM;
	if (t.census && t.reader) {
		t.census->garbage = -1;
		err = take(&t, freeze);
	}
	free(t.blocks.items);
	free(t.large.items);
	free(t.holders.items);
	free(t.tallies);
	address_runs_release(&t.pools);
	address_runs_release(&t.held);
	type_reader_free(t.reader);
	if (err)
		census_free(t.census);
	else
		*out = t.census;
	return err;
}

void census_free(struct census *c)
{
	if (!c)
		return;
	for (size_t i = 0; c->rows && i < c->row_count; i++)
		free((char *)c->rows[i].name);
	free(c->rows);
	free(c);
}
