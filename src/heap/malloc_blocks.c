/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A freed block has as a rule no header any more: it has become a part of a bigger free
 * chunk, of the top of the arena, or of another block. What was its header may still be
 * there, and says nothing. So all chunks are walked from the heaps' starts, and a block is
 * held only if a used chunk begins where it does, that no list of free chunks has.
 *
 * The walk may see two times at once (heap_walk.c), so what it found free must be so again:
 * a free chunk is linked from both sides in its bin and has its size at both ends, which
 * no held block can imitate by chance; the top is where the arena says it is now; and
 * a block within a used chunk is there again, in a chunk of the same size, when all is
 * walked for a second time.
 */
#include "heap/malloc_blocks.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#include "heap/heap_cache.h"
#include "heap/heap_walk.h"
#include "probe_spec.h"
#include "target/memory.h"

#define PREV_INUSE 1u
#define IS_MMAPPED 2u
#define MMAP_FLAGS 1u /* of the offset from the mapping's start: MMAP_HP, 2.43 */
#define FLAGS 7u
#define PAGE 4096u
#define CHUNK_BYTES_MIN 32
#define CHUNKS_A_READ 256
#define TCACHES_MAX 4096
#define INFO_SIZE 16 /* struct heap_info: {arena, previous, size} */

enum where {
	WHERE_UNKNOWN = 0,
	WHERE_BLOCK,  /* it is a used chunk */
	WHERE_INSIDE, /* in a used chunk, not at its start */
	WHERE_FREE,   /* in a free chunk */
	WHERE_TOP,    /* in or behind the top */
};

struct place {
	enum where where;
	uint64_t chunk, chunk_bytes;
	uint32_t segment;
};

struct inquiry {
	const struct glibc *g;
	const struct glibc_heaps *heaps;
	struct block_question **questions;
	size_t count;
	struct place *places; /* of the questions */
	struct heap_chunk *tcaches;
	size_t tcache_count;
};

static uint64_t header_of(const struct block_question *q)
{
	return q->address - CHUNK_HEADER;
}

static struct place place_in(const struct heap_chunk *c, uint64_t header, uint32_t segment)
{
	static const enum where by_kind[] = {
		[HEAP_CHUNK_USED] = WHERE_INSIDE,
		[HEAP_CHUNK_FREE] = WHERE_FREE,
		[HEAP_CHUNK_TOP] = WHERE_TOP,
		[HEAP_CHUNK_FENCE] = WHERE_UNKNOWN,
	};
	struct place p = {by_kind[c->kind], c->address, c->size_bytes, segment};

	if (header < c->address)
		p.where = WHERE_UNKNOWN;
	else if (p.where == WHERE_INSIDE && header == c->address)
		p.where = WHERE_BLOCK;
	return p;
}

static int add_tcache(struct inquiry *in, const struct heap_chunk *c)
{
	struct heap_chunk *more;

	if (in->tcache_count >= TCACHES_MAX)
		return 0;
	more = realloc(in->tcaches, (in->tcache_count + 1) * sizeof(*more));
	if (!more)
		return -ENOMEM;
	in->tcaches = more;
	in->tcaches[in->tcache_count++] = *c;
	return 0;
}

/* Finds the places of the questions from *@next on that lie in segment @nth. */
static int locate_in(struct inquiry *in, struct heap_walk *w, uint32_t nth, struct place *places,
		     size_t *next, bool find_tcaches)
{
	const struct heap_segment *s = &in->heaps->segments[nth];
	struct heap_chunk c;
	int err;

	heap_walk_start(w, s);
	while ((err = heap_walk_next(w, &c)) == 1) {
		uint64_t end = c.address + c.size_bytes;

		if (c.maybe_tcache && find_tcaches) {
			err = add_tcache(in, &c);
			if (err)
				return err;
		}
		for (; *next < in->count && header_of(in->questions[*next]) < end; ++*next)
			places[*next] = place_in(&c, header_of(in->questions[*next]), nth);
	}
	for (; *next < in->count && in->questions[*next]->address < s->reserved_end; ++*next)
		if (s->top && s->info && header_of(in->questions[*next]) >= s->end)
			places[*next] = (struct place){WHERE_TOP, 0, 0, nth};
	return err;
}

static int locate_all(struct inquiry *in, struct heap_walk *w)
{
	size_t next = 0;
	int err = 0;

	for (uint32_t i = 0; !err && i < in->heaps->segment_count; i++) {
		while (next < in->count &&
		       in->questions[next]->address < in->heaps->segments[i].start)
			next++;
		err = locate_in(in, w, i, in->places, &next, true);
	}
	return err;
}

static bool same_place(const struct place *a, const struct place *b)
{
	return a->where == b->where && a->chunk == b->chunk && a->chunk_bytes == b->chunk_bytes;
}

/* Whether one walk is not enough for what is at a place. */
static bool wants_walk(const struct place *p, bool free_too)
{
	return p->where == WHERE_INSIDE || (free_too && p->where == WHERE_FREE);
}

/* Walks the segments again in which blocks are within others, and compares. */
static int confirm_by_walk(struct inquiry *in, struct heap_walk *w, bool free_too)
{
	struct place *again = calloc(in->count, sizeof(*again));
	size_t i = 0;
	int err = 0;

	if (!again)
		return -ENOMEM;
	while (!err && i < in->count) {
		size_t next = i;

		if (!wants_walk(&in->places[i], free_too)) {
			i++;
			continue;
		}
		err = locate_in(in, w, in->places[i].segment, again, &next, false);
		for (; !err && i < next; i++)
			if (wants_walk(&in->places[i], free_too) &&
			    !same_place(&in->places[i], &again[i]))
				in->places[i].where = WHERE_UNKNOWN;
	}
	free(again);
	return err;
}

/* Free chunks to be looked at again. */
struct free_check {
	size_t count;
	struct {
		size_t first, end; /* questions */
		uint64_t chunk[4]; /* previous size, size, fd, bk */
		uint64_t next[2];
		uint64_t fd_bk, bk_fd;
		bool read;
	} items[CHUNKS_A_READ];
};

static int read_chunks(const struct inquiry *in, struct free_check *f)
{
	struct memory_piece pieces[2 * CHUNKS_A_READ];
	int err;

	for (size_t i = 0; i < f->count; i++) {
		const struct place *p = &in->places[f->items[i].first];

		pieces[2 * i] = (struct memory_piece){p->chunk, f->items[i].chunk,
						      sizeof(f->items[i].chunk), 0};
		pieces[2 * i + 1] = (struct memory_piece){
			p->chunk + p->chunk_bytes, f->items[i].next, sizeof(f->items[i].next), 0};
	}
	err = memory_read_many(in->g->pid, pieces, 2 * f->count);
	for (size_t i = 0; !err && i < f->count; i++)
		f->items[i].read = !pieces[2 * i].err && !pieces[2 * i + 1].err;
	return err;
}

static int read_links(const struct inquiry *in, struct free_check *f)
{
	struct memory_piece pieces[2 * CHUNKS_A_READ];
	int err;

	for (size_t i = 0; i < f->count; i++) {
		pieces[2 * i] =
			(struct memory_piece){f->items[i].chunk[2] + 24, &f->items[i].fd_bk, 8, 0};
		pieces[2 * i + 1] =
			(struct memory_piece){f->items[i].chunk[3] + 16, &f->items[i].bk_fd, 8, 0};
	}
	err = memory_read_many(in->g->pid, pieces, 2 * f->count);
	for (size_t i = 0; !err && i < f->count; i++)
		f->items[i].read &= !pieces[2 * i].err && !pieces[2 * i + 1].err;
	return err;
}

static int check_free(struct inquiry *in, struct free_check *f)
{
	int err = read_chunks(in, f);

	if (!err)
		err = read_links(in, f);
	for (size_t i = 0; !err && i < f->count; i++) {
		const struct place *p = &in->places[f->items[i].first];
		bool sound = f->items[i].read &&
			     (f->items[i].chunk[1] & ~(uint64_t)FLAGS) == p->chunk_bytes &&
			     f->items[i].next[0] == p->chunk_bytes &&
			     !(f->items[i].next[1] & PREV_INUSE) && f->items[i].fd_bk == p->chunk &&
			     f->items[i].bk_fd == p->chunk;

		for (size_t j = f->items[i].first; !sound && j < f->items[i].end; j++)
			in->places[j].where = WHERE_UNKNOWN;
	}
	f->count = 0;
	return err;
}

static size_t count_free_chunks(const struct inquiry *in)
{
	size_t count = 0;

	for (size_t i = 0; i < in->count; i++)
		count += in->places[i].where == WHERE_FREE &&
			 (!i || in->places[i - 1].chunk != in->places[i].chunk);
	return count;
}

static int confirm_free(struct inquiry *in)
{
	struct free_check *f = calloc(1, sizeof(*f));
	size_t i = 0;
	int err = 0;

	if (!f)
		return -ENOMEM;
	while (!err && i < in->count) {
		size_t first = i++;
		const struct place *p = &in->places[first];

		if (p->where != WHERE_FREE)
			continue;
		while (i < in->count && in->places[i].where == WHERE_FREE &&
		       in->places[i].chunk == p->chunk)
			i++;
		f->items[f->count].first = first;
		f->items[f->count++].end = i;
		if (f->count == CHUNKS_A_READ)
			err = check_free(in, f);
	}
	if (!err && f->count)
		err = check_free(in, f);
	free(f);
	return err;
}

/* From where to where the segment @s has only its top, or nothing, now. */
static bool read_top(const struct inquiry *in, const struct heap_segment *s, uint64_t *start,
		     uint64_t *end)
{
	uint64_t arena = in->heaps->arenas[s->arena].address, top, size, info[3];

	if (memory_read_u64(in->g->pid, glibc_top_slot(in->g, arena), &top) || top < s->start ||
	    top >= s->reserved_end || memory_read_u64(in->g->pid, top + 8, &size))
		return false;
	size &= ~(uint64_t)FLAGS;
	if (size > s->reserved_end - top)
		return false;
	*start = top;
	*end = top + size;
	if (!s->info)
		return true;
	if (memory_read(in->g->pid, s->info, info, sizeof(info)) || info[0] != arena ||
	    s->info + info[2] != *end)
		return false;
	*end = s->reserved_end;
	return true;
}

static void confirm_top(struct inquiry *in)
{
	size_t i = 0;

	while (i < in->count) {
		uint32_t segment = in->places[i].segment;
		uint64_t start, end;
		bool known;

		if (in->places[i].where != WHERE_TOP) {
			i++;
			continue;
		}
		known = read_top(in, &in->heaps->segments[segment], &start, &end);
		for (; i < in->count && in->places[i].where == WHERE_TOP &&
		       in->places[i].segment == segment;
		     i++)
			if (!known || header_of(in->questions[i]) < start ||
			    header_of(in->questions[i]) >= end)
				in->places[i].where = WHERE_UNKNOWN;
	}
}

static int confirm(struct inquiry *in, struct heap_walk *w)
{
	/* To read four places of a chunk takes as long as to walk through so much. */
	bool by_walk = count_free_chunks(in) > heap_walk_read_bytes(w) / 4096;
	int err = confirm_by_walk(in, w, by_walk);

	if (!err && !by_walk)
		err = confirm_free(in);
	if (!err)
		confirm_top(in);
	return err;
}

/* checked_request2size(); a rest too small for a chunk stays with the block, and
 * memalign() leaves up to 32 bytes. */
static bool fits(uint64_t size_bytes, uint64_t chunk_bytes)
{
	uint64_t wanted = size_bytes <= 24 ? CHUNK_BYTES_MIN : (size_bytes + 8 + 15) & ~15ull;

	return size_bytes < 1ull << 47 && chunk_bytes >= wanted && chunk_bytes - wanted <= 32;
}

static enum block_state state_of_used(const struct inquiry *in, size_t nth,
				      const struct heap_cache *cache)
{
	const struct place *p = &in->places[nth];
	struct heap_chunk c = {.address = p->chunk, .size_bytes = p->chunk_bytes};

	switch (heap_cache_look(cache, &c, in->heaps->segments[p->segment].arena)) {
	case HEAP_CACHED_TCACHE:
	case HEAP_CACHED_FASTBIN:
		return BLOCK_FREE;
	case HEAP_CACHED_UNSURE:
		return BLOCK_UNKNOWN;
	default:
		return fits(in->questions[nth]->size_bytes, p->chunk_bytes) ? BLOCK_HELD
									    : BLOCK_UNKNOWN;
	}
}

static void answer(struct inquiry *in, const struct heap_cache *cache)
{
	for (size_t i = 0; i < in->count; i++) {
		struct block_question *q = in->questions[i];

		if (q->address % 16)
			continue;
		switch (in->places[i].where) {
		case WHERE_BLOCK:
			q->state = state_of_used(in, i, cache);
			break;
		case WHERE_INSIDE:
			/* Python's debug allocators put their own header before a block. */
			q->state = q->domain == DOMAIN_MALLOC ? BLOCK_FREE : BLOCK_UNKNOWN;
			break;
		case WHERE_FREE:
		case WHERE_TOP:
			q->state = BLOCK_FREE;
			break;
		case WHERE_UNKNOWN:
			break;
		}
	}
}

int malloc_blocks_ask(const struct glibc *g, const struct glibc_heaps *heaps,
		      struct block_question **sorted, size_t count, uint64_t read_max,
		      uint64_t *read_bytes)
{
	struct inquiry in = {g, heaps, sorted, count, NULL, NULL, 0};
	struct heap_cache *cache = NULL;
	struct heap_walk *w = NULL;
	int err = -ENOMEM;

	in.places = calloc(count + 1, sizeof(*in.places));
	if (!in.places)
		return err;
	err = heap_walk_new(g, heaps, read_max, &w);
	if (!err)
		err = locate_all(&in, w);
	if (!err)
		err = heap_cache_new(g, heaps, in.tcaches, in.tcache_count, &cache);
	if (!err)
		err = confirm(&in, w);
	if (!err) {
		answer(&in, cache);
		*read_bytes += heap_walk_read_bytes(w);
	}
	heap_cache_free(cache);
	heap_walk_free(w);
	free(in.tcaches);
	free(in.places);
	return err;
}

/* sysmalloc_mmap(): {offset from the mapping's start, size | IS_MMAPPED}, whole pages together;
 * from 2.43 another header's size is left out at the end. */
static bool is_mapped_chunk(const uint64_t header[2], const struct block_question *q)
{
	uint64_t offset = header[0] & ~(uint64_t)MMAP_FLAGS, size = header[1] & ~(uint64_t)FLAGS;
	uint64_t start = q->address - CHUNK_HEADER - offset, pages = offset + size;

	if ((header[1] & FLAGS) != IS_MMAPPED || offset >= 1ull << 47 || size >= 1ull << 47 ||
	    start % PAGE || (pages % PAGE && (pages + CHUNK_HEADER) % PAGE))
		return false;
	return size >= q->size_bytes && size - q->size_bytes <= PAGE + CHUNK_BYTES_MIN;
}

int malloc_blocks_ask_mapped(const struct glibc *g, struct block_question **questions, size_t count)
{
	struct memory_piece pieces[CHUNKS_A_READ];
	uint64_t headers[CHUNKS_A_READ][2];

	for (size_t done = 0; done < count; done += CHUNKS_A_READ) {
		size_t n = count - done < CHUNKS_A_READ ? count - done : CHUNKS_A_READ;
		int err;

		for (size_t i = 0; i < n; i++)
			pieces[i] = (struct memory_piece){header_of(questions[done + i]),
							  headers[i], sizeof(headers[i]), 0};
		err = memory_read_many(g->pid, pieces, n);
		if (err)
			return err;
		for (size_t i = 0; i < n; i++)
			if (!pieces[i].err && is_mapped_chunk(headers[i], questions[done + i]))
				questions[done + i]->state = BLOCK_HELD;
	}
	return 0;
}
