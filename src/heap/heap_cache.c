/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A list is read an entry a step, all lists side by side, so that a step is one system call.
 * From 2.32 the pointers in the lists are mangled with their own address (safe-linking:
 * PROTECT_PTR()); at most one reading of a pointer leads to a chunk or to the end, so the
 * version need not be known.
 *
 * A list may change while it is read, and the second word of a chunk that has left it is
 * the program's. So whatever is not in a segment, or does not have the size of the list's
 * chunks, ends the list; in a tcache an entry also has a key: from 2.34 one random number in
 * the whole process, from 2.29 the address of the tcache. What remains wrong by chance is not
 * there in a second reading.
 */
#include "heap/heap_cache.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "heap/tcache_layout.h"
#include "target/memory.h"

#define FLAGS 7u
#define ENTRIES_MAX (1u << 20)
#define STEPS_MAX (1u << 18)

struct entry {
	uint64_t block; /* address */
	uint64_t key;
	uint64_t tcache; /* whose list; 0: a fastbin */
	bool keyless;	 /* glibc 2.28 has no keys */
};

struct entries {
	struct entry *items;
	size_t count, room;
};

/* The place in a list. */
struct cursor {
	uint64_t block;	     /* the next entry */
	uint64_t size_bytes; /* of the chunks; 0: of various sizes */
	uint64_t tcache;
	uint32_t left;
	uint32_t arena, bin; /* of a fastbin */
	bool keyless, done;
	uint64_t bytes[4]; /* the entry's chunk: previous, size, next, key */
};

struct heap_cache {
	const struct glibc *g;
	const struct glibc_heaps *heaps;
	uint16_t *unsure; /* by arena, bits of fastbins */
	struct entry *items;
	size_t count;
};

static int by_block(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	return x->block < y->block ? -1 : x->block > y->block;
}

static int entries_add(struct entries *e, const struct entry *item)
{
	if (e->count == e->room) {
		size_t room = e->room ? e->room * 2 : 256;
		struct entry *more = realloc(e->items, room * sizeof(*more));

		if (!more)
			return -ENOMEM;
		e->items = more;
		e->room = room;
	}
	e->items[e->count++] = *item;
	return 0;
}

static bool is_block(const struct heap_cache *c, uint64_t address)
{
	return !(address & 15) && glibc_heaps_find(c->heaps, address);
}

/* Follows the pointer @word that is stored at @at; pointers of fastbins are to chunks. */
static bool follow(const struct heap_cache *c, uint64_t at, uint64_t word, unsigned int offset,
		   uint64_t *next)
{
	uint64_t plain = word ^ at >> 12;

	if (plain && !is_block(c, plain + offset))
		plain = word;
	if (plain && !is_block(c, plain + offset))
		return false;
	*next = plain ? plain + offset : 0;
	return true;
}

static size_t add_tcache(const struct heap_cache *c, const struct heap_chunk *chunk,
			 struct cursor *to)
{
	const struct tcache_layout *l = tcache_layout_of_chunk(chunk->size_bytes);
	uint64_t address = chunk->address + CHUNK_HEADER;
	uint8_t block[TCACHE_CHUNK_MAX];
	size_t count = 0;

	if (!l || memory_read(c->g->pid, address, block, l->chunk_bytes - CHUNK_HEADER) ||
	    !tcache_looks_right(block, chunk->size_bytes))
		return 0;
	for (uint32_t i = 0; i < l->bins; i++) {
		struct cursor at = {
			.block = tcache_entry(l, block, i),
			.size_bytes = i < TCACHE_SMALL_BINS ? 32 + i * 16 : 0,
			.tcache = address,
			.left = tcache_length(l, block, i),
			.keyless = l->count_bytes == 1,
		};

		if (is_block(c, at.block) && at.block)
			to[count++] = at;
	}
	return count;
}

static size_t add_fastbins(struct heap_cache *c, uint32_t nth, struct cursor *to)
{
	uint64_t heads[FASTBINS];
	size_t count = 0;

	if (glibc_read_fastbins(c->g, c->heaps->arenas[nth].address, heads)) {
		c->unsure[nth] = UINT16_MAX;
		return 0;
	}
	for (uint32_t i = 0; i < FASTBINS; i++) {
		if (!heads[i])
			continue;
		if (is_block(c, heads[i] + CHUNK_HEADER))
			to[count++] = (struct cursor){.block = heads[i] + CHUNK_HEADER,
						      .size_bytes = 32 + i * 16,
						      .arena = nth,
						      .bin = i,
						      .left = STEPS_MAX};
		else
			c->unsure[nth] |= (uint16_t)(1u << i);
	}
	return count;
}

/* Takes the entry that was read at a cursor and goes to the next. */
static int take(struct heap_cache *c, struct cursor *at, bool was_read, struct entries *out)
{
	uint64_t size = at->bytes[1] & ~(uint64_t)FLAGS, next = 0;
	struct entry e = {at->block, at->bytes[3], at->tcache, at->keyless};
	bool sound = was_read && (at->size_bytes ? size == at->size_bytes : size >= 32) &&
		     follow(c, at->block, at->bytes[2], at->tcache ? 0 : CHUNK_HEADER, &next);

	if (sound && --at->left == 0 && next)
		sound = false;
	at->done = !sound || !next;
	if (!sound && !at->tcache)
		c->unsure[at->arena] |= (uint16_t)(1u << at->bin);
	if (!sound || out->count >= ENTRIES_MAX) {
		at->done = true;
		return 0;
	}
	at->block = next;
	return entries_add(out, &e);
}

/* One step in each list that goes on. How many do, or negative errno. */
static ssize_t read_step(struct heap_cache *c, struct cursor *at, size_t count,
			 struct memory_piece *pieces, struct entries *out)
{
	size_t more = 0;
	int err;

	for (size_t i = 0; i < count; i++)
		pieces[i] = (struct memory_piece){at[i].block - CHUNK_HEADER, at[i].bytes,
						  sizeof(at[i].bytes), 0};
	err = memory_read_many(c->g->pid, pieces, count);
	for (size_t i = 0; !err && i < count; i++) {
		err = take(c, &at[i], !pieces[i].err, out);
		if (!at[i].done)
			at[more++] = at[i];
	}
	return err ? err : (ssize_t)more;
}

static int read_lists(struct heap_cache *c, struct cursor *at, size_t count, struct entries *out)
{
	struct memory_piece *pieces = calloc(count ? count : 1, sizeof(*pieces));
	ssize_t left = (ssize_t)count;

	if (!pieces)
		return -ENOMEM;
	for (uint32_t step = 0; left > 0 && step < STEPS_MAX; step++)
		left = read_step(c, at, (size_t)left, pieces, out);
	for (ssize_t i = 0; i < left; i++)
		if (!at[i].tcache)
			c->unsure[at[i].arena] |= (uint16_t)(1u << at[i].bin);
	free(pieces);
	return left < 0 ? (int)left : 0;
}

/* The key that most entries have (Boyer and Moore's majority vote). */
static uint64_t common_key(const struct entries *e)
{
	uint64_t key = 0;
	size_t lead = 0;

	for (size_t i = 0; i < e->count; i++) {
		if (!e->items[i].tcache || e->items[i].key == e->items[i].tcache)
			continue;
		if (!lead)
			key = e->items[i].key;
		if (e->items[i].key == key)
			lead++;
		else
			lead--;
	}
	return key;
}

/* Leaves out of the tcaches' entries those that have not the key, and sorts. */
static void keep_keyed(struct entries *e)
{
	uint64_t key = common_key(e);
	size_t kept = 0;

	for (size_t i = 0; i < e->count; i++) {
		const struct entry *x = &e->items[i];

		if (!x->tcache || x->keyless || x->key == x->tcache || (key && x->key == key))
			e->items[kept++] = *x;
	}
	e->count = kept;
	if (kept)
		qsort(e->items, kept, sizeof(*e->items), by_block);
}

static int read_once(struct heap_cache *c, const struct heap_chunk *tcaches, size_t tcache_count,
		     struct entries *out)
{
	struct cursor *at = calloc(
		tcache_count * TCACHE_BINS_MAX + c->heaps->arena_count * FASTBINS, sizeof(*at));
	size_t count = 0;
	int err;

	if (!at)
		return -ENOMEM;
	for (size_t i = 0; i < tcache_count; i++)
		count += add_tcache(c, &tcaches[i], at + count);
	for (uint32_t i = 0; i < c->heaps->arena_count; i++)
		count += add_fastbins(c, i, at + count);
	err = read_lists(c, at, count, out);
	if (!err)
		keep_keyed(out);
	free(at);
	return err;
}

/* Keeps in @a what is in @b as well. */
static void intersect(struct entries *a, const struct entries *b)
{
	size_t kept = 0, j = 0;

	for (size_t i = 0; i < a->count; i++) {
		while (j < b->count && b->items[j].block < a->items[i].block)
			j++;
		if (j < b->count && b->items[j].block == a->items[i].block)
			a->items[kept++] = a->items[i];
	}
	a->count = kept;
}

int heap_cache_new(const struct glibc *g, const struct glibc_heaps *heaps,
		   const struct heap_chunk *tcaches, size_t count, struct heap_cache **out)
{
	struct heap_cache *c = calloc(1, sizeof(*c));
	struct entries first = {0}, second = {0};
	int err = -ENOMEM;

	if (!c)
		return -ENOMEM;
	c->g = g;
	c->heaps = heaps;
	c->unsure = calloc(heaps->arena_count + 1, sizeof(*c->unsure));
	if (!c->unsure)
		goto out;
	err = read_once(c, tcaches, count, &first);
	if (!err)
		err = read_once(c, tcaches, count, &second);
	if (err)
		goto out;
	intersect(&first, &second);
	c->items = first.items;
	c->count = first.count;
	first.items = NULL;
	*out = c;
	c = NULL;
out:
	free(first.items);
	free(second.items);
	heap_cache_free(c);
	return err;
}

void heap_cache_free(struct heap_cache *c)
{
	if (!c)
		return;
	free(c->unsure);
	free(c->items);
	free(c);
}

enum heap_cached heap_cache_look(const struct heap_cache *c, const struct heap_chunk *chunk,
				 uint32_t arena)
{
	struct entry wanted = {.block = chunk->address + CHUNK_HEADER};
	const struct entry *e =
		c->count ? bsearch(&wanted, c->items, c->count, sizeof(wanted), by_block) : NULL;
	uint64_t bin = (chunk->size_bytes - 32) / 16;

	if (e)
		return e->tcache ? HEAP_CACHED_TCACHE : HEAP_CACHED_FASTBIN;
	if (bin < FASTBINS && arena < c->heaps->arena_count && c->unsure[arena] >> bin & 1)
		return HEAP_CACHED_UNSURE;
	return HEAP_CACHED_NOT;
}
