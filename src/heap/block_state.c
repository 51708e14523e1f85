/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sends each question to whom it belongs: an address in a heap of glibc's is malloc's,
 * whatever it was for; other small blocks of Python are pymalloc's; what has a mapping of
 * its own is looked at there; and what is not mapped is nobody's any more, whichever allocator
 * it was of.
 */
#include "heap/block_state.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#include "heap/glibc_heaps.h"
#include "heap/malloc_blocks.h"
#include "heap/pool_blocks.h"
#include "probe_spec.h"
#include "python/interpreter.h"
#include "python/key_sort.h"
#include "python/object_layout.h"
#include "target/memory.h"
#include "target/procfs.h"

#define READ_MAX (4ull << 30) /* bytes of heaps for one set of questions */
#define HEAPS_TRIES 3
#define RANGES_MAX (1u << 20)
#define PIECES 1024

struct block_oracle {
	pid_t pid;
	bool has_pools, has_glibc;
	unsigned int pool_bits;
	struct glibc glibc;
	uint64_t read_bytes;
};

struct range {
	uint64_t start, end;
};

/* Mapped memory, by address. */
struct ranges {
	struct range *items;
	size_t count;
};

/* A set of questions, by address, and the room to select some of them. */
struct sorted {
	struct block_question **all, **some;
	size_t count;
};

int block_oracle_new(pid_t pid, const struct interpreter *python, struct block_oracle **out)
{
	struct block_oracle *o = calloc(1, sizeof(*o));
	struct object_layout layout;
	int err;

	if (!o)
		return -ENOMEM;
	o->pid = pid;
	if (python && python->major == 3 &&
	    !object_layout_by_version(python->minor, python->free_threaded, &layout)) {
		o->has_pools = true;
		o->pool_bits = layout.pool_bits;
	}
	err = glibc_find(pid, &o->glibc);
	if (err && err != -ENOENT) {
		free(o);
		return err;
	}
	o->has_glibc = !err;
	*out = o;
	return 0;
}

void block_oracle_free(struct block_oracle *o)
{
	free(o);
}

uint64_t block_oracle_read_bytes(const struct block_oracle *o)
{
	return o->read_bytes;
}

static int add_range(struct ranges *r, const struct mapping *m)
{
	struct range *more;

	if (r->count && r->items[r->count - 1].end == m->start) {
		r->items[r->count - 1].end = m->end;
		return 0;
	}
	if (r->count >= RANGES_MAX)
		return -E2BIG;
	if (!(r->count & (r->count - 1))) {
		more = realloc(r->items, (r->count ? r->count * 2 : 1) * sizeof(*more));
		if (!more)
			return -ENOMEM;
		r->items = more;
	}
	r->items[r->count++] = (struct range){m->start, m->end};
	return 0;
}

static int read_ranges(pid_t pid, struct ranges *out)
{
	struct maps_iter *it;
	struct mapping m;
	int err = maps_iter_new(pid, &it);

	if (err)
		return err;
	while ((err = maps_iter_next(it, &m)) == 1) {
		err = add_range(out, &m);
		if (err)
			break;
	}
	maps_iter_free(it);
	return err;
}

/* Whether any byte of the block is mapped. *@next only grows from one question to the next. */
static bool is_mapped(const struct ranges *r, const struct block_question *q, size_t *next)
{
	uint64_t end = q->address + (q->size_bytes ? q->size_bytes : 1);

	if (end < q->address)
		return true;
	while (*next < r->count && r->items[*next].end <= q->address)
		++*next;
	return *next < r->count && r->items[*next].start < end;
}

/* What the map of the memory says must hold when it is read, too. */
static int answer_unmapped(const struct block_oracle *o, struct block_question **q, size_t count)
{
	struct memory_piece pieces[PIECES];
	uint8_t byte;

	for (size_t done = 0; done < count; done += PIECES) {
		size_t n = count - done < PIECES ? count - done : PIECES;
		int err;

		for (size_t i = 0; i < n; i++)
			pieces[i] = (struct memory_piece){q[done + i]->address, &byte, 1, 0};
		err = memory_read_many(o->pid, pieces, n);
		if (err)
			return err;
		for (size_t i = 0; i < n; i++)
			if (pieces[i].err)
				q[done + i]->state = BLOCK_FREE;
	}
	return 0;
}

/* Takes the questions whose memory is gone out of @s and answers them. */
static int settle_unmapped(const struct block_oracle *o, struct sorted *s)
{
	struct ranges ranges = {0};
	size_t next = 0, kept = 0, gone = 0;
	int err = read_ranges(o->pid, &ranges);

	for (size_t i = 0; !err && i < s->count; i++) {
		if (is_mapped(&ranges, s->all[i], &next))
			s->all[kept++] = s->all[i];
		else
			s->some[gone++] = s->all[i];
	}
	free(ranges.items);
	if (err)
		return err;
	s->count = kept;
	return answer_unmapped(o, s->some, gone);
}

static int read_heaps(struct block_oracle *o, struct glibc_heaps *out)
{
	int err = -EAGAIN;

	/* The program may not have called malloc() when it was looked at first. */
	if (!o->has_glibc) {
		err = glibc_find(o->pid, &o->glibc);
		if (err)
			return err;
		o->has_glibc = true;
		err = -EAGAIN;
	}
	for (int i = 0; err == -EAGAIN && i < HEAPS_TRIES; i++)
		err = glibc_heaps_read(&o->glibc, out);
	return err;
}

/* Takes the questions in glibc's heaps out of @s and answers them. */
static int settle_heaps(struct block_oracle *o, const struct glibc_heaps *heaps, struct sorted *s)
{
	size_t kept = 0, count = 0;

	for (size_t i = 0; i < s->count; i++) {
		if (s->all[i]->domain != DOMAIN_MMAP && glibc_heaps_find(heaps, s->all[i]->address))
			s->some[count++] = s->all[i];
		else
			s->all[kept++] = s->all[i];
	}
	s->count = kept;
	return count ? malloc_blocks_ask(&o->glibc, heaps, s->some, count, READ_MAX, &o->read_bytes)
		     : 0;
}

static int settle_mapped(const struct block_oracle *o, struct sorted *s)
{
	size_t count = 0;

	for (size_t i = 0; i < s->count; i++) {
		const struct block_question *q = s->all[i];

		if (q->domain == DOMAIN_MALLOC ||
		    (q->domain == DOMAIN_PYMALLOC && q->size_bytes > POOL_BLOCK_BYTES_MAX))
			s->some[count++] = s->all[i];
	}
	return malloc_blocks_ask_mapped(&o->glibc, s->some, count);
}

/* A pool that is copied while it changes may be sound by chance, but not twice. */
static int settle_pools(struct block_oracle *o, struct sorted *s)
{
	size_t count = 0, free_count = 0;
	int err;

	for (size_t i = 0; i < s->count; i++)
		if (s->all[i]->domain == DOMAIN_PYMALLOC &&
		    s->all[i]->size_bytes <= POOL_BLOCK_BYTES_MAX)
			s->some[count++] = s->all[i];
	err = pool_blocks_ask(o->pid, o->pool_bits, s->some, count, &o->read_bytes);
	for (size_t i = 0; !err && i < count; i++)
		if (s->some[i]->state == BLOCK_FREE) {
			s->some[i]->state = BLOCK_UNKNOWN;
			s->some[free_count++] = s->some[i];
		}
	return err ? err
		   : pool_blocks_ask(o->pid, o->pool_bits, s->some, free_count, &o->read_bytes);
}

static int sort_questions(struct block_question *q, size_t count, struct sorted *out)
{
	struct keyed *keys = malloc((count ? count : 1) * sizeof(*keys));
	int err = -ENOMEM;

	out->all = malloc((count ? count : 1) * sizeof(struct block_question *));
	out->some = malloc((count ? count : 1) * sizeof(struct block_question *));
	out->count = count;
	if (!keys || !out->all || !out->some)
		goto out;
	for (size_t i = 0; i < count; i++)
		keys[i] = (struct keyed){q[i].address, i};
	err = key_sort(keys, count);
	for (size_t i = 0; !err && i < count; i++)
		out->all[i] = &q[keys[i].value];
out:
	free(keys);
	return err;
}

static int settle(struct block_oracle *o, struct sorted *s)
{
	struct glibc_heaps heaps = {0};
	int err = settle_unmapped(o, s), heaps_err;

	if (err)
		return err;
	heaps_err = read_heaps(o, &heaps);
	if (heaps_err == -ESRCH || heaps_err == -ENOMEM)
		return heaps_err;
	if (!heaps_err)
		err = settle_heaps(o, &heaps, s);
	if (!err && !heaps_err)
		err = settle_mapped(o, s);
	if (!err && o->has_pools)
		err = settle_pools(o, s);
	glibc_heaps_release(&heaps);
	return err;
}

int block_oracle_ask(struct block_oracle *o, struct block_question *questions, size_t count)
{
	struct sorted s = {0};
	int err;

	o->read_bytes = 0;
	for (size_t i = 0; i < count; i++)
		questions[i].state = BLOCK_UNKNOWN;
	err = sort_questions(questions, count, &s);
	if (!err)
		err = settle(o, &s);
	for (size_t i = 0; err && i < count; i++)
		questions[i].state = BLOCK_UNKNOWN;
	free(s.all);
	free(s.some);
	return err;
}
