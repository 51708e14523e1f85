/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "account/snapshot_types.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "account/snapshot.h"
#include "base/arena.h"
#include "base/hash.h"
#include "python/interpreter.h"
#include "python/types.h"

#define STACK_TYPES_MAX 32 /* of one stack; the rest are counted together */
#define TYPES_MAX 65536
#define OTHER_TYPES "(other types)"

struct cached_reader {
	pid_t pid;
	uint64_t start_ticks;
	struct type_reader *reader;
	bool used; /* by the present snapshot */
};

struct type_cache {
	struct cached_reader *items;
	size_t count;
};

struct type_cache *type_cache_new(void)
{
	return calloc(1, sizeof(struct type_cache));
}

void type_cache_free(struct type_cache *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < c->count; i++)
		type_reader_free(c->items[i].reader);
	free(c->items);
	free(c);
}

static struct type_reader *cache_get(struct type_cache *c, const struct snapshot_typing *t)
{
	struct cached_reader *grown;

	for (size_t i = 0; i < c->count; i++) {
		struct cached_reader *r = &c->items[i];

		if (r->pid == t->interpreter->pid && r->start_ticks == t->start_ticks) {
			r->used = true;
			return r->reader;
		}
	}
	grown = realloc(c->items, (c->count + 1) * sizeof(*grown));
	if (!grown)
		return NULL;
	c->items = grown;
	grown = &c->items[c->count];
	*grown = (struct cached_reader){t->interpreter->pid, t->start_ticks,
					type_reader_new(t->interpreter), true};
	if (!grown->reader)
		return NULL;
	c->count++;
	return grown->reader;
}

static void cache_tidy(struct type_cache *c)
{
	for (size_t i = c->count; i--;) {
		if (!c->items[i].used) {
			type_reader_free(c->items[i].reader);
			c->items[i] = c->items[--c->count];
		} else {
			c->items[i].used = false;
		}
	}
}

/* Sums of one process, found by (row, type). */
struct tally {
	uint64_t key;		    /* row << 32 | type, + 1; 0: empty */
	uint64_t blocks_256, bytes; /* as in sampling.h */
};

struct tallies {
	struct tally *items;
	size_t size, count; /* size: a power of two */
};

static struct tally *tally_find(struct tallies *t, uint64_t key)
{
	size_t at = (key * 0x9e3779b97f4a7c15u) >> 32 & (t->size - 1);

	while (t->items[at].key && t->items[at].key != key)
		at = (at + 1) & (t->size - 1);
	return &t->items[at];
}

static int tallies_grow(struct tallies *t)
{
	struct tallies next = {.size = t->size ? t->size * 2 : 1024, .count = t->count};

	next.items = calloc(next.size, sizeof(*next.items));
	if (!next.items)
		return -ENOMEM;
	for (size_t i = 0; i < t->size; i++) {
		if (t->items[i].key)
			*tally_find(&next, t->items[i].key) = t->items[i];
	}
	free(t->items);
	*t = next;
	return 0;
}

static int tally_add(struct tallies *t, uint32_t row, uint32_t type, struct sampling_share share)
{
	uint64_t key = ((uint64_t)row << 32 | type) + 1;
	struct tally *tally;

	if (t->count * 2 >= t->size && tallies_grow(t))
		return -ENOMEM;
	tally = tally_find(t, key);
	t->count += !tally->key;
	tally->key = key;
	tally->blocks_256 += share.blocks_256;
	tally->bytes += share.bytes;
	return 0;
}

static void type_add(struct snapshot_type *t, const struct tally *tally)
{
	t->blocks += (tally->blocks_256 + 128) / 256;
	t->bytes += tally->bytes;
}

static struct snapshot_type *type_named(struct snapshot_type *types, size_t count, const char *name)
{
	for (size_t i = 0; i < count; i++) {
		if (!strcmp(types[i].name, name))
			return &types[i];
	}
	return NULL;
}

/* Adds to a stack's types; what comes when there are many is added to the last. */
static int stack_add(struct arena *a, struct snapshot_stack *st, const char *name,
		     const struct tally *tally)
{
	struct snapshot_type *t = type_named(st->types, st->type_count, name);

	if (!st->types)
		st->types = arena_alloc(a, STACK_TYPES_MAX, sizeof(*st->types));
	if (!st->types)
		return -ENOMEM;
	if (!t && st->type_count == STACK_TYPES_MAX - 1) {
		name = OTHER_TYPES;
		t = type_named(st->types, st->type_count, name);
	}
	if (!t && st->type_count < STACK_TYPES_MAX) {
		t = &st->types[st->type_count++];
		t->name = arena_strdup(a, name);
	}
	if (!t || !t->name)
		return -ENOMEM;
	type_add(t, tally);
	return 0;
}

/* The types of all processes together, of which there may be thousands: found by a hash
 * table over names. */
struct whole {
	struct snapshot *s;
	size_t capacity;
	uint32_t *index; /* type + 1, 0: empty */
	size_t index_size;
};

static int whole_init(struct whole *w, struct snapshot *s, size_t capacity)
{
	w->s = s;
	w->capacity = capacity;
	for (w->index_size = 64; w->index_size < 2 * capacity; w->index_size *= 2)
		;
	w->index = calloc(w->index_size, sizeof(*w->index));
	s->types = arena_alloc(s->arena, capacity + 1, sizeof(*s->types));
	return w->index && s->types ? 0 : -ENOMEM;
}

static int whole_add(struct whole *w, const char *name, const struct tally *tally)
{
	size_t at = hash_text_fnv(name) & (w->index_size - 1);
	struct snapshot_type *t;

	for (; w->index[at]; at = (at + 1) & (w->index_size - 1)) {
		t = &w->s->types[w->index[at] - 1];
		if (!strcmp(t->name, name)) {
			type_add(t, tally);
			return 0;
		}
	}
	if (w->s->type_count == w->capacity)
		return -ENOSPC;
	t = &w->s->types[w->s->type_count];
	t->name = arena_strdup(w->s->arena, name);
	if (!t->name)
		return -ENOMEM;
	type_add(t, tally);
	w->index[at] = (uint32_t)++w->s->type_count;
	return 0;
}

static int tally_blocks(const struct snapshot_typing *t, struct tallies *out)
{
	int err = 0;

	for (size_t i = 0; i < t->count && !err; i++) {
		struct sampling_share share = {t->blocks[i].size_bytes, 256};

		if (t->shares)
			share = t->shares[i];
		err = tally_add(out, t->rows[i], t->blocks[i].type, share);
	}
	return err;
}

static int publish(struct snapshot *s, struct whole *whole, const struct type_reader *reader,
		   const struct tallies *tallies)
{
	int err = 0;

	for (size_t i = 0; i < tallies->size && !err; i++) {
		const struct tally *t = &tallies->items[i];
		uint32_t row, type;
		const char *name;

		if (!t->key)
			continue;
		row = (t->key - 1) >> 32;
		type = (uint32_t)(t->key - 1);
		name = type_reader_name(reader, type);
		err = whole_add(whole, name, t);
		if (!err && row < s->stack_count)
			err = stack_add(s->arena, &s->stacks[row], name, t);
	}
	return err;
}

static int type_process(struct snapshot *s, struct whole *whole, const struct snapshot_typing *t,
			struct type_cache *c)
{
	struct type_reader *reader = cache_get(c, t);
	struct tallies tallies = {0};
	int err;

	if (!reader)
		return -ENOMEM;
	/* A process that has ended keeps its blocks, of unknown type. */
	err = type_reader_read(reader, t->blocks, t->count);
	if (err && err != -ESRCH)
		return err;
	err = tally_blocks(t, &tallies);
	if (!err)
		err = publish(s, whole, reader, &tallies);
	free(tallies.items);
	return err;
}

static int by_bytes(const void *a, const void *b)
{
	const struct snapshot_type *x = a, *y = b;

	if (x->bytes != y->bytes)
		return x->bytes < y->bytes ? 1 : -1;
	return strcmp(x->name, y->name);
}

static void sort_types(struct snapshot *s)
{
	if (s->type_count)
		qsort(s->types, s->type_count, sizeof(*s->types), by_bytes);
	for (size_t i = 0; i < s->stack_count; i++) {
		if (s->stacks[i].type_count)
			qsort(s->stacks[i].types, s->stacks[i].type_count,
			      sizeof(*s->stacks[i].types), by_bytes);
	}
}

int snapshot_type(struct snapshot *s, struct type_cache *c)
{
	struct whole whole = {0};
	size_t blocks = 0;
	int err;

	for (size_t i = 0; i < s->typing_count; i++)
		blocks += s->typings[i].count;
	if (!blocks)
		return 0;
	/* No more types than blocks. */
	err = whole_init(&whole, s, blocks < TYPES_MAX ? blocks : TYPES_MAX);
	for (size_t i = 0; i < s->typing_count && !err; i++)
		err = type_process(s, &whole, &s->typings[i], c);
	free(whole.index);
	/* More types than anybody would read are no reason to give no report. */
	if (err == -ENOSPC)
		err = 0;
	sort_types(s);
	cache_tidy(c);
	return err;
}
