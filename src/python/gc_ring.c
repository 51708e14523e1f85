/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "python/gc_ring.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "target/memory.h"

#define PAGE_BYTES 4096u
#define PAGES 2048u
#define LINK_MASK (~3ull) /* the low bits are flags */
#define OBJECTS_MAX (1ull << 28)

struct cached_page {
	uint64_t address; /* 0: empty */
	uint8_t bytes[PAGE_BYTES];
};

struct gc_ring {
	pid_t pid;
	uint64_t head, at;
	uint64_t left; /* so that a ring that never ends does */
	struct cached_page pages[PAGES];
};

struct gc_ring *gc_ring_new(pid_t pid)
{
	struct gc_ring *r = calloc(1, sizeof(*r));

	if (r)
		r->pid = pid;
	return r;
}

void gc_ring_free(struct gc_ring *r)
{
	free(r);
}

void gc_ring_start(struct gc_ring *r, uint64_t head)
{
	r->head = r->at = head;
	r->left = OBJECTS_MAX;
}

/* {next, prev} of the head at @address, from the cache or afresh. */
static int read_links(struct gc_ring *r, uint64_t address, bool afresh, uint64_t links[2])
{
	uint64_t page = address & ~(PAGE_BYTES - 1ull);
	struct cached_page *p = &r->pages[(page / PAGE_BYTES * 0x9e3779b97f4a7c15ull) >> 53];
	int err;

	if ((address - page) + 16 > PAGE_BYTES)
		return memory_read(r->pid, address, links, 16);
	if (p->address != page || afresh) {
		p->address = 0;
		err = memory_read(r->pid, page, p->bytes, PAGE_BYTES);
		if (err)
			return err;
		p->address = page;
	}
	memcpy(links, p->bytes + (address - page), 16);
	return 0;
}

/* The object behind @r->at whose link back agrees. */
static int follow(struct gc_ring *r, bool afresh, uint64_t *next)
{
	uint64_t links[2], back[2];
	int err = read_links(r, r->at, afresh, links);

	if (err)
		return err;
	*next = links[0] & LINK_MASK;
	err = read_links(r, *next, afresh, back);
	if (err)
		return err;
	return (back[1] & LINK_MASK) == r->at ? 0 : -EAGAIN;
}

int gc_ring_next(struct gc_ring *r, uint64_t *address)
{
	uint64_t next = 0;
	int err = follow(r, false, &next);

	if (err == -EAGAIN || err == -EFAULT)
		err = follow(r, true, &next);
	if (err)
		return err == -EFAULT ? -EAGAIN : err;
	if (next == r->head)
		return 0;
	if (!r->left--)
		return -EAGAIN;
	r->at = next;
	*address = next;
	return 1;
}
