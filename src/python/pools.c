/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "python/pools.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "python/object_layout.h"
#include "target/memory.h"
#include "target/procfs.h"

#define POOL_OVERHEAD 48
#define BLOCK_ALIGNMENT 16
#define CLASSES 32 /* of up to 512 bytes */
#define ARENAS_MAX (1u << 24)
#define CHUNK_BYTES (1u << 20) /* a multiple of a pool */
#define RETRIES 3

/* struct pool_header: {u32 count}, freeblock, nextpool, prevpool, u32 arenaindex, szidx,
 * nextoffset, maxnextoffset */
enum {
	POOL_COUNT = 0,
	POOL_FREE_BLOCK = 8,
	POOL_ARENA = 32,
	POOL_CLASS = 36,
	POOL_NEXT_OFFSET = 40,
	POOL_MAX_OFFSET = 44,
};

static uint32_t half_at(const uint8_t *p)
{
	uint32_t half;

	memcpy(&half, p, sizeof(half));
	return half;
}

uint32_t pool_block_offset(const struct pool *p, uint32_t nth)
{
	return POOL_OVERHEAD + nth * p->class_bytes;
}

/* Whether the free list, which must lie in the pool, has as many blocks as it should. */
static bool read_free_list(const uint8_t *bytes, struct pool *p)
{
	uint64_t at = word_at(bytes + POOL_FREE_BLOCK);
	uint32_t left = p->carved - p->count;

	while (at && left) {
		uint64_t offset = at - p->address - POOL_OVERHEAD;
		uint32_t nth = (uint32_t)(offset / p->class_bytes);

		if (at < p->address || offset % p->class_bytes ||
		    offset / p->class_bytes >= p->carved || pool_block_is_free(p, nth))
			return false;
		p->is_free[nth / 64] |= 1ull << nth % 64;
		at = word_at(bytes + pool_block_offset(p, nth));
		left--;
	}
	return !at && !left;
}

enum pool_verdict pool_parse(const uint8_t *bytes, uint64_t address, unsigned int pool_bits,
			     struct pool *out)
{
	uint32_t pool_bytes = 1u << pool_bits, class = half_at(bytes + POOL_CLASS);
	uint32_t next = half_at(bytes + POOL_NEXT_OFFSET);
	uint64_t free_block = word_at(bytes + POOL_FREE_BLOCK);
	struct pool p = {.address = address, .arena = half_at(bytes + POOL_ARENA)};

	if (class >= CLASSES || p.arena >= ARENAS_MAX)
		return POOL_NONE;
	p.class_bytes = (class + 1) * BLOCK_ALIGNMENT;
	if (half_at(bytes + POOL_MAX_OFFSET) != pool_bytes - p.class_bytes || next > pool_bytes ||
	    next < POOL_OVERHEAD + p.class_bytes || (next - POOL_OVERHEAD) % p.class_bytes)
		return POOL_NONE;
	p.carved = (next - POOL_OVERHEAD) / p.class_bytes;
	p.count = half_at(bytes + POOL_COUNT);
	if (free_block && (free_block < address || free_block >= address + pool_bytes))
		return POOL_NONE;
	if (p.count > p.carved || !read_free_list(bytes, &p))
		return POOL_CHANGED;
	*out = p;
	return POOL_SOUND;
}

struct range {
	uint64_t start, end;
};

struct pool_scan {
	pid_t pid;
	unsigned int pool_bits;
	struct range *ranges;
	size_t range_count, range;
	uint64_t at;	   /* next to be read */
	size_t have, next; /* in bytes[], and the next pool of it */
	uint64_t skipped;
	struct pool pool;
	uint8_t bytes[CHUNK_BYTES];
};

/* Arenas are private anonymous mappings; their neighbours may have become one with them, and
 * they may have a name ("[anon:cpython:pymalloc]", PR_SET_VMA_ANON_NAME). */
static bool may_hold_arenas(const struct mapping *m, uint64_t pool_bytes)
{
	return m->readable && m->writable && !m->shared && !m->inode &&
	       (!*m->path || !strncmp(m->path, "[anon", 5)) && m->end - m->start >= pool_bytes;
}

static int add_range(struct pool_scan *s, const struct mapping *m)
{
	uint64_t mask = (1ull << s->pool_bits) - 1;
	struct range *ranges;

	if (!(s->range_count & (s->range_count - 1))) {
		ranges = realloc(s->ranges,
				 (s->range_count ? s->range_count * 2 : 1) * sizeof(*ranges));
		if (!ranges)
			return -ENOMEM;
		s->ranges = ranges;
	}
	s->ranges[s->range_count++] = (struct range){(m->start + mask) & ~mask, m->end & ~mask};
	return 0;
}

static int read_ranges(struct pool_scan *s)
{
	struct maps_iter *it;
	struct mapping m;
	int err = maps_iter_new(s->pid, &it);

	if (err)
		return err;
	while ((err = maps_iter_next(it, &m)) == 1) {
		if (!may_hold_arenas(&m, 1ull << s->pool_bits))
			continue;
		err = add_range(s, &m);
		if (err)
			break;
	}
	maps_iter_free(it);
	return err;
}

int pool_scan_new(pid_t pid, unsigned int pool_bits, struct pool_scan **out)
{
	struct pool_scan *s = malloc(sizeof(*s));
	int err;

	if (!s)
		return -ENOMEM;
	memset(s, 0, offsetof(struct pool_scan, bytes));
	s->pid = pid;
	s->pool_bits = pool_bits;
	err = read_ranges(s);
	if (err) {
		pool_scan_free(s);
		return err;
	}
	s->at = s->range_count ? s->ranges[0].start : 0;
	*out = s;
	return 0;
}

void pool_scan_free(struct pool_scan *s)
{
	if (!s)
		return;
	free(s->ranges);
	free(s);
}

uint64_t pool_scan_skipped(const struct pool_scan *s)
{
	return s->skipped;
}

/* Reads the next piece of a range. 1, 0: nothing is left, or negative errno. */
static int fill(struct pool_scan *s)
{
	while (s->range < s->range_count) {
		uint64_t left = s->ranges[s->range].end - s->at;
		ssize_t n;

		if (!left || s->at > s->ranges[s->range].end) {
			if (++s->range < s->range_count)
				s->at = s->ranges[s->range].start;
			continue;
		}
		n = memory_read_some(s->pid, s->at, s->bytes,
				     left < CHUNK_BYTES ? left : CHUNK_BYTES);
		if (n < 0 && n != -EFAULT)
			return (int)n;
		s->have = n < 0 ? 0 : (size_t)n >> s->pool_bits << s->pool_bits;
		s->next = 0;
		if (s->have) {
			s->at += s->have;
			return 1;
		}
		s->at += 1ull << s->pool_bits; /* unmapped meanwhile */
	}
	return 0;
}

/* What is at offset @at of the piece that was read; it is read again while it changes. */
static enum pool_verdict parse_steady(struct pool_scan *s, size_t at)
{
	uint64_t address = s->at - s->have + at;
	enum pool_verdict v = pool_parse(s->bytes + at, address, s->pool_bits, &s->pool);

	for (int i = 0; v == POOL_CHANGED && i < RETRIES; i++) {
		if (memory_read(s->pid, address, s->bytes + at, 1ull << s->pool_bits))
			return POOL_NONE;
		v = pool_parse(s->bytes + at, address, s->pool_bits, &s->pool);
	}
	return v;
}

int pool_scan_next(struct pool_scan *s, const struct pool **pool, const uint8_t **bytes)
{
	for (;;) {
		size_t at = s->next;
		enum pool_verdict v;

		if (at >= s->have) {
			int more = fill(s);

			if (more <= 0)
				return more;
			continue;
		}
		s->next += 1ull << s->pool_bits;
		v = parse_steady(s, at);
		s->skipped += v == POOL_CHANGED;
		if (v != POOL_SOUND)
			continue;
		*pool = &s->pool;
		*bytes = s->bytes + at;
		return 1;
	}
}
