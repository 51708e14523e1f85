/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "python/referents.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "python/address_runs.h"
#include "python/object_layout.h"
#include "target/memory.h"
#include "target/procfs.h"

#define SLOTS_MIN (1u << 12)
#define SLOTS_MAX (1u << 23)
#define PIECE_BYTES (256u << 10)
#define ALIGNMENT_MASK 15 /* of malloc(3) */

struct referents {
	pid_t pid;
	struct address_runs *pools;
	struct address_runs heap;
	uint64_t lowest, highest; /* of the heap */
	uint64_t *slots;	  /* addresses by hash; 0: free */
	uint32_t mask, used;
	uint8_t piece[PIECE_BYTES];
};

/* Private memory of no file: brk, mmap. */
static bool is_heap(const struct mapping *m)
{
	return m->readable && m->writable && !m->shared && !m->inode &&
	       (!*m->path || !strcmp(m->path, "[heap]") || !strncmp(m->path, "[anon", 5));
}

static int read_heap(struct referents *r)
{
	struct maps_iter *it;
	struct mapping m;
	int err = maps_iter_new(r->pid, &it);

	if (err)
		return err;
	while ((err = maps_iter_next(it, &m)) == 1) {
		if (!is_heap(&m))
			continue;
		err = address_runs_add(&r->heap, m.start, m.end);
		if (err)
			break;
		if (!r->highest)
			r->lowest = m.start;
		r->highest = m.end;
	}
	maps_iter_free(it);
	return err;
}

int referents_new(pid_t pid, struct address_runs *pools, struct referents **out)
{
	struct referents *r = malloc(sizeof(*r));
	int err = -ENOMEM;

	if (!r)
		return err;
	memset(r, 0, offsetof(struct referents, piece));
	r->pid = pid;
	r->pools = pools;
	r->mask = SLOTS_MIN - 1;
	r->slots = calloc(SLOTS_MIN, sizeof(*r->slots));
	if (r->slots)
		err = read_heap(r);
	if (err) {
		referents_free(r);
		return err;
	}
	*out = r;
	return 0;
}

void referents_free(struct referents *r)
{
	if (!r)
		return;
	address_runs_release(&r->heap);
	free(r->slots);
	free(r);
}

static uint64_t *slot_of(uint64_t *slots, uint32_t mask, uint64_t address)
{
	uint32_t at = (uint32_t)(address * 0x9e3779b97f4a7c15ull >> 32) & mask;

	while (slots[at] && slots[at] != address)
		at = (at + 1) & mask;
	return &slots[at];
}

static int grow(struct referents *r)
{
	uint32_t mask = r->mask * 2 + 1;
	uint64_t *slots = calloc(mask + 1ull, sizeof(*slots));

	if (!slots)
		return -ENOMEM;
	for (uint32_t i = 0; i <= r->mask; i++)
		if (r->slots[i])
			*slot_of(slots, mask, r->slots[i]) = r->slots[i];
	free(r->slots);
	r->slots = slots;
	r->mask = mask;
	return 0;
}

static int keep(struct referents *r, uint64_t address)
{
	uint64_t *slot = slot_of(r->slots, r->mask, address);

	if (*slot)
		return 0;
	if (r->used * 2ull > r->mask) {
		if (r->mask + 1ull >= SLOTS_MAX)
			return 0;
		if (grow(r))
			return -ENOMEM;
		slot = slot_of(r->slots, r->mask, address);
	}
	*slot = address;
	r->used++;
	return 0;
}

int referents_scan(struct referents *r, const uint8_t *bytes, size_t count)
{
	for (size_t at = 0; at + 8 <= count; at += 8) {
		uint64_t word = word_at(bytes + at);

		if (word & ALIGNMENT_MASK || word < r->lowest || word >= r->highest ||
		    address_runs_have(r->pools, word) || !address_runs_have(&r->heap, word))
			continue;
		if (keep(r, word))
			return -ENOMEM;
	}
	return 0;
}

int referents_scan_memory(struct referents *r, uint64_t address, uint64_t bytes)
{
	int err = 0;

	while (bytes && !err) {
		size_t n = bytes < PIECE_BYTES ? bytes : PIECE_BYTES;
		ssize_t have = memory_read_some(r->pid, address, r->piece, n);

		if (have <= 0)
			return have < 0 && have != -EFAULT ? (int)have : 0;
		err = referents_scan(r, r->piece, (size_t)have);
		address += (uint64_t)have;
		bytes -= (uint64_t)have;
	}
	return err;
}

int referents_each(const struct referents *r, int (*visit)(uint64_t address, void *context),
		   void *context)
{
	int err = 0;

	for (uint32_t i = 0; !err && i <= r->mask; i++)
		if (r->slots[i])
			err = visit(r->slots[i], context);
	return err;
}
