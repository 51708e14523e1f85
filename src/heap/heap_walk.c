/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A chunk begins with {prev_size, size | PREV_INUSE | IS_MMAPPED | NON_MAIN_ARENA}, and the
 * next follows it at once; whether it is in use says the next one's PREV_INUSE
 * (malloc/malloc.c). So the walk is a chain of sizes from the segment's first chunk,
 * and nothing but that chain can tell a header from old bytes that look like one.
 *
 * The program goes on meanwhile. When two chunks become one after the first was read, the
 * walk reaches a header that is none any more. As a rule it then sees an impossible size and
 * goes back, ever farther, to where it has been before; as the chunks there are read anew,
 * it comes out right, or else the rest of the segment is not known.
 */
#include "heap/heap_walk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "heap/tcache_layout.h"
#include "target/memory.h"

#define PREV_INUSE 1u
#define IS_MMAPPED 2u
#define NON_MAIN_ARENA 4u
#define FLAGS 7u
#define CHUNK_BYTES_MIN 32
#define WINDOW_BYTES (64u << 10)
#define WINDOW_BYTES_MIN 4096u
#define GAP_BYTES (16u << 10) /* copied in about the time of a system call */
#define STEPS_BACK 16	      /* windows that are remembered */
#define RETRIES 5	      /* at one place; the last goes back to the segment's start */
#define RETRIES_MAX 64
#define BAD 1 /* of step(): what is there is no chunk */

struct heap_walk {
	const struct glibc *g;
	const struct glibc_heaps *heaps;
	const struct heap_segment *segment;
	uint64_t at;   /* next chunk */
	uint64_t told; /* chunks that end up to here were handed out */
	bool done;
	unsigned int retries, retries_here;
	uint64_t failed_at;
	uint64_t back[STEPS_BACK]; /* where windows began */
	unsigned int back_count;
	uint64_t read_bytes, read_max;
	uint64_t window;
	size_t have, want;
	uint8_t bytes[WINDOW_BYTES];
};

struct header {
	uint64_t previous_bytes, word;
};

int heap_walk_new(const struct glibc *g, const struct glibc_heaps *heaps, uint64_t read_max,
		  struct heap_walk **out)
{
	struct heap_walk *w = malloc(sizeof(*w));

	if (!w)
		return -ENOMEM;
	memset(w, 0, offsetof(struct heap_walk, bytes));
	w->g = g;
	w->heaps = heaps;
	w->read_max = read_max;
	w->done = true;
	*out = w;
	return 0;
}

void heap_walk_free(struct heap_walk *w)
{
	free(w);
}

uint64_t heap_walk_read_bytes(const struct heap_walk *w)
{
	return w->read_bytes;
}

void heap_walk_start(struct heap_walk *w, const struct heap_segment *segment)
{
	w->segment = segment;
	w->at = w->told = segment->start;
	w->done = false;
	w->retries = w->retries_here = w->back_count = 0;
	w->failed_at = 0;
	w->have = 0;
	w->want = WINDOW_BYTES_MIN;
}

/* Moves the window to @address. Where chunks are so large that little of what is read
 * would be looked at, less is read. */
static int move_window(struct heap_walk *w, uint64_t address)
{
	uint64_t left = w->segment->end - address, end;
	bool near = w->have && address - w->window <= w->have + GAP_BYTES;
	ssize_t n;

	if (near && w->want < WINDOW_BYTES)
		w->want *= 2;
	else if (!near && w->want > WINDOW_BYTES_MIN)
		w->want /= 2;
	end = (address + w->want) & ~(uint64_t)(WINDOW_BYTES_MIN - 1);
	if (end - address < TCACHE_CHUNK_MAX)
		end += WINDOW_BYTES_MIN;
	left = end - address < left ? end - address : left;
	left = left < WINDOW_BYTES ? left : WINDOW_BYTES;
	w->have = 0;
	if (w->read_bytes >= w->read_max)
		return BAD;
	n = memory_read_some(w->g->pid, address, w->bytes, left);
	if (n < 0)
		return n == -EFAULT ? BAD : (int)n;
	w->window = address;
	w->have = (size_t)n;
	w->read_bytes += (uint64_t)n;
	return 0;
}

/* Makes @p the bytes at @address, good until the next call. */
static int look(struct heap_walk *w, uint64_t address, size_t bytes, const uint8_t **p)
{
	if (w->segment->end - address < bytes)
		return BAD;
	if (!w->have || address < w->window || address + bytes > w->window + w->have) {
		int err = move_window(w, address);

		if (err)
			return err;
		if (w->have < bytes)
			return BAD;
	}
	*p = w->bytes + (address - w->window);
	return 0;
}

static int read_header(struct heap_walk *w, uint64_t address, struct header *out)
{
	const uint8_t *p;
	int err = look(w, address, sizeof(*out), &p);

	if (!err)
		memcpy(out, p, sizeof(*out));
	return err;
}

/* Remembers that @address, where a window begins, was a chunk. */
static void remember(struct heap_walk *w, uint64_t address)
{
	if (address == w->window)
		w->back[w->back_count++ % STEPS_BACK] = address;
}

static int check_tcache(struct heap_walk *w, struct heap_chunk *c)
{
	const uint8_t *p;
	int err;

	if (!tcache_layout_of_chunk(c->size_bytes))
		return 0;
	err = look(w, c->address, c->size_bytes, &p);
	if (!err)
		c->maybe_tcache = tcache_looks_right(p + CHUNK_HEADER, c->size_bytes);
	return err;
}

static bool top_is(const struct heap_walk *w, uint64_t address)
{
	uint64_t arena = w->heaps->arenas[w->segment->arena].address, top;

	return !memory_read_u64(w->g->pid, glibc_top_slot(w->g, arena), &top) && top == address;
}

static bool is_fence(const struct heap_walk *w, const struct heap_chunk *c, const struct header *h,
		     const struct header *next)
{
	/* sysmalloc(): two headers without blocks, in thread arenas the second says 0; the first
	 * may have become one with the 16 bytes before it. */
	return (c->size_bytes == 16 ||
		(c->size_bytes == 32 && w->segment->info && !(h->word & NON_MAIN_ARENA))) &&
	       next->word == (w->segment->info ? PREV_INUSE : (16 | PREV_INUSE));
}

static int end_segment(struct heap_walk *w, struct heap_chunk *c, enum heap_chunk_kind kind)
{
	c->size_bytes = w->segment->end - c->address;
	c->kind = kind;
	w->done = true;
	return 0;
}

/* What the headers of a chunk and of the next say of it. */
static int classify(const struct heap_walk *w, const struct header *h, const struct header *next,
		    struct heap_chunk *c)
{
	if (c->size_bytes < CHUNK_BYTES_MIN)
		return BAD;
	if (next->word & PREV_INUSE) {
		if (!(h->word & NON_MAIN_ARENA) != !w->segment->info)
			return BAD;
		c->kind = HEAP_CHUNK_USED;
	} else if (next->previous_bytes == c->size_bytes) {
		c->kind = HEAP_CHUNK_FREE;
	}
	c->maybe_tcache = c->maybe_tcache && c->kind == HEAP_CHUNK_USED;
	return 0;
}

/* Reads the chunk at w->at and goes on. 0, BAD, or negative errno. */
static int step(struct heap_walk *w, struct heap_chunk *c)
{
	const struct heap_segment *s = w->segment;
	uint64_t last = s->top ? s->top : s->end - sizeof(struct header);
	struct header h, next;
	int err;

	*c = (struct heap_chunk){.address = w->at};
	if (w->at == s->top)
		return end_segment(w, c, HEAP_CHUNK_TOP);
	if (w->at > last)
		return BAD;
	err = read_header(w, w->at, &h);
	if (err)
		return err;
	remember(w, w->at);
	c->size_bytes = h.word & ~(uint64_t)FLAGS;
	if (h.word & (IS_MMAPPED | 8) || c->size_bytes < 16)
		return BAD;
	/* The top may have grown downwards. */
	if (c->size_bytes > last - w->at)
		return s->top && c->size_bytes == s->end - w->at && top_is(w, w->at)
			       ? end_segment(w, c, HEAP_CHUNK_TOP)
			       : BAD;
	err = check_tcache(w, c);
	if (!err)
		err = read_header(w, w->at + c->size_bytes, &next);
	if (err)
		return err;
	/* Behind the fence of the main arena is what others got from sbrk(). */
	if (is_fence(w, c, &h, &next))
		return end_segment(w, c, s->info ? HEAP_CHUNK_FENCE : HEAP_CHUNK_UNKNOWN);
	err = classify(w, &h, &next, c);
	if (!err)
		w->at += c->size_bytes;
	return err;
}

/* Where to try again after a bad header; false: no more. */
static bool go_back(struct heap_walk *w)
{
	unsigned int steps;

	if (w->at != w->failed_at)
		w->retries_here = 0;
	w->failed_at = w->at;
	if (++w->retries > RETRIES_MAX || ++w->retries_here > RETRIES ||
	    w->read_bytes >= w->read_max)
		return false;
	steps = 1u << (w->retries_here - 1);
	w->told = w->at > w->told ? w->at : w->told;
	if (steps < STEPS_BACK && steps <= w->back_count) {
		w->back_count -= steps;
		w->at = w->back[w->back_count % STEPS_BACK];
	} else {
		w->at = w->segment->start;
		w->back_count = 0;
	}
	w->have = 0;
	return true;
}

int heap_walk_next(struct heap_walk *w, struct heap_chunk *out)
{
	struct heap_chunk c;

	while (!w->done) {
		int err = step(w, &c);

		if (err == BAD) {
			if (go_back(w))
				continue;
			c = (struct heap_chunk){.address = w->at > w->told ? w->at : w->told};
			if (c.address >= w->segment->end)
				break;
			end_segment(w, &c, HEAP_CHUNK_UNKNOWN);
		} else if (err) {
			return err;
		}
		if (!w->done && c.address + c.size_bytes <= w->told)
			continue;
		w->told = c.address + c.size_bytes;
		*out = c;
		return 1;
	}
	w->done = true;
	return 0;
}
