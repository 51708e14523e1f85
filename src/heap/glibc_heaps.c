/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * glibc exports no name for its arenas, so main_arena is found by its shape: 127 bins,
 * each a pair of pointers that point at the bin itself when it is empty, and a
 * ring of arenas that comes back (malloc_init_state(), _int_new_arena()). Thread arenas
 * lie at the start of heaps, whose size and alignment is HEAP_MAX_SIZE and whose
 * struct heap_info names the arena and the heap before it (malloc/arena.c). Versions differ in
 * what is before the bins: ten fastbins to 2.42, none later.
 */
#include "heap/glibc_heaps.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "target/memory.h"
#include "target/procfs.h"

#define BINS 127
#define BINS_BYTES (BINS * 16)
#define AFTER_BINS 16			  /* binmap; then the next arena */
#define STATE_REST (BINS_BYTES + 16 + 40) /* binmap, next, next_free, three counts */
#define STATE_BYTES_MAX (112 + STATE_REST)
#define DATA_BYTES_MAX (1u << 20)
#define ARENAS_MAX 4096
#define SEGMENTS_MAX 65536
#define PAGE 4096
#define ADDRESS_MAX (1ull << 47)

/* struct malloc_state: {int mutex, flags, [have_fastchunks, fastbins,] top, last_remainder} */
static const uint32_t bins_offsets[] = {112, 24};
#define FASTBINS_OFFSET 16

/* HEAP_MAX_SIZE; four huge pages with the tunable glibc.malloc.hugetlb */
static const uint64_t heap_sizes[] = {64ull << 20, 8ull << 20};

/* struct heap_info */
enum {
	INFO_ARENA = 0,
	INFO_PREVIOUS = 8,
	INFO_SIZE = 16,
	INFO_BYTES_MAX = 64,
};

static uint64_t word_at(const uint8_t *p)
{
	uint64_t word;

	memcpy(&word, p, sizeof(word));
	return word;
}

static bool is_pointer(uint64_t word)
{
	return word >= PAGE && word < ADDRESS_MAX && !(word & 15);
}

/* Whether the bins of an arena begin at @at of a copy that was made from @base. */
static bool are_bins(const uint8_t *data, size_t bytes, uint64_t base, size_t at)
{
	unsigned int empty = 0;

	for (size_t i = 0; i < BINS; i++) {
		uint64_t bin = base + at + i * 16 - 16;
		uint64_t fd = word_at(data + at + i * 16), bk = word_at(data + at + i * 16 + 8);

		if (fd == bin && bk == bin) {
			empty++;
			continue;
		}
		if (!is_pointer(fd) || !is_pointer(bk) || fd - base < bytes || bk - base < bytes)
			return false;
	}
	return empty;
}

static uint64_t next_slot(uint64_t arena, uint32_t bins_offset)
{
	return arena + bins_offset + BINS_BYTES + AFTER_BINS;
}

static bool ring_closes(pid_t pid, uint64_t arena, uint32_t bins_offset)
{
	uint64_t at = arena;

	for (int i = 0; i < ARENAS_MAX; i++) {
		if (memory_read_u64(pid, next_slot(at, bins_offset), &at) || !is_pointer(at & ~15))
			return false;
		if (at == arena)
			return true;
	}
	return false;
}

static bool find_in_data(pid_t pid, const uint8_t *data, size_t bytes, uint64_t base,
			 struct glibc *out)
{
	for (size_t at = 112; at + STATE_REST <= bytes; at += 8) {
		if (!are_bins(data, bytes, base, at))
			continue;
		for (size_t i = 0; i < sizeof(bins_offsets) / sizeof(*bins_offsets); i++) {
			uint64_t arena = base + at - bins_offsets[i];

			if (!ring_closes(pid, arena, bins_offsets[i]))
				continue;
			*out = (struct glibc){pid, arena, bins_offsets[i]};
			return true;
		}
	}
	return false;
}

static bool is_libc(const char *path)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;

	return !strcmp(name, "libc.so.6") || !strncmp(name, "libc-2.", 7);
}

static bool find_in_mapping(pid_t pid, const struct mapping *m, struct glibc *out)
{
	size_t bytes = m->end - m->start;
	uint8_t *data;
	bool found;

	if (!m->writable || !m->readable || bytes > DATA_BYTES_MAX || !is_libc(m->path))
		return false;
	data = malloc(bytes);
	if (!data)
		return false;
	found = !memory_read(pid, m->start, data, bytes) &&
		find_in_data(pid, data, bytes, m->start, out);
	free(data);
	return found;
}

int glibc_find(pid_t pid, struct glibc *out)
{
	struct maps_iter *it;
	struct mapping m;
	int err = maps_iter_new(pid, &it);

	if (err)
		return err;
	while ((err = maps_iter_next(it, &m)) == 1)
		if (find_in_mapping(pid, &m, out))
			break;
	maps_iter_free(it);
	if (err < 0)
		return err;
	return err ? 0 : -ENOENT;
}

static int add_arena(struct glibc_heaps *h, const struct heap_arena *a)
{
	struct heap_arena *more;

	if (h->arena_count >= ARENAS_MAX)
		return -EAGAIN;
	more = realloc(h->arenas, (h->arena_count + 1) * sizeof(*more));
	if (!more)
		return -ENOMEM;
	h->arenas = more;
	h->arenas[h->arena_count++] = *a;
	return 0;
}

static int add_segment(struct glibc_heaps *h, const struct heap_segment *s)
{
	struct heap_segment *more;

	if (h->segment_count >= SEGMENTS_MAX || s->start >= s->end)
		return -EAGAIN;
	if (!(h->segment_count & (h->segment_count - 1))) {
		more = realloc(h->segments,
			       (h->segment_count ? h->segment_count * 2 : 1) * sizeof(*more));
		if (!more)
			return -ENOMEM;
		h->segments = more;
	}
	h->segments[h->segment_count++] = *s;
	return 0;
}

/* Where the program break was and is: the main arena's memory as long as sbrk() works. */
static int read_break(pid_t pid, uint64_t *start, uint64_t *end)
{
	struct maps_iter *it;
	struct mapping m;
	int err = maps_iter_new(pid, &it);

	if (err)
		return err;
	*start = *end = 0;
	while ((err = maps_iter_next(it, &m)) == 1) {
		if (strcmp(m.path, "[heap]") || (*end && m.start != *end))
			continue;
		if (!*end)
			*start = m.start;
		*end = m.end;
	}
	maps_iter_free(it);
	return err;
}

static int add_main_segment(const struct glibc *g, struct glibc_heaps *h)
{
	struct heap_segment s = {0};
	uint64_t word, top = h->arenas[0].top;
	int err = read_break(g->pid, &s.start, &s.end);

	if (err || s.start == s.end)
		return err;
	if (top >= s.start && top < s.end && !memory_read_u64(g->pid, top + 8, &word) &&
	    (word & ~15ull) >= 16 && (word & ~15ull) <= s.end - top) {
		s.top = top;
		s.end = top + (word & ~15ull);
	}
	s.reserved_end = s.end;
	return add_segment(h, &s);
}

static bool read_info(const struct glibc *g, uint64_t info, uint64_t arena, uint8_t *bytes)
{
	return !memory_read(g->pid, info, bytes, INFO_BYTES_MAX) &&
	       word_at(bytes + INFO_ARENA) == arena;
}

/* How long heaps are: the one that has the top knows its arena. 0: nothing fits. */
static uint64_t heap_size_of(const struct glibc *g, const struct heap_arena *a)
{
	uint8_t info[INFO_BYTES_MAX];

	for (size_t i = 0; i < sizeof(heap_sizes) / sizeof(*heap_sizes); i++)
		if (read_info(g, a->top & ~(heap_sizes[i] - 1), a->address, info) &&
		    read_info(g, a->address & ~(heap_sizes[i] - 1), a->address, info))
			return heap_sizes[i];
	return 0;
}

/* The heaps of arena @nth, from the one with its top back to the one it lies in. */
static int add_heaps(const struct glibc *g, struct glibc_heaps *h, uint32_t nth)
{
	const struct heap_arena *a = &h->arenas[nth];
	uint64_t heap_size = heap_size_of(g, a), first, info_bytes, at;
	uint8_t info[INFO_BYTES_MAX];
	int err = 0;

	if (!heap_size)
		return -EAGAIN;
	first = a->address & ~(heap_size - 1);
	info_bytes = a->address - first;
	at = a->top & ~(heap_size - 1);
	while (!err) {
		struct heap_segment s = {.info = at, .arena = nth};
		uint64_t size;

		if (at & (heap_size - 1) || !read_info(g, at, a->address, info))
			return -EAGAIN;
		size = word_at(info + INFO_SIZE);
		s.start = at == first ? a->address + g->bins_offset + STATE_REST : at + info_bytes;
		s.start = (s.start + 15) & ~15ull;
		s.end = at + size;
		s.reserved_end = at + heap_size;
		s.top = (a->top & ~(heap_size - 1)) == at ? a->top : 0;
		if (info_bytes > INFO_BYTES_MAX || size > heap_size || size % PAGE ||
		    (s.top && (s.top < s.start || s.top >= s.end)))
			return -EAGAIN;
		err = add_segment(h, &s);
		if (at == first)
			break;
		at = word_at(info + INFO_PREVIOUS);
	}
	return err;
}

static int read_arena(const struct glibc *g, uint64_t address, struct heap_arena *a, uint64_t *next)
{
	uint8_t state[STATE_BYTES_MAX];
	int err = memory_read(g->pid, address, state, g->bins_offset + STATE_REST);

	if (err)
		return err == -ESRCH ? err : -EAGAIN;
	*a = (struct heap_arena){.address = address, .top = word_at(state + g->bins_offset - 16)};
	*next = word_at(state + g->bins_offset + BINS_BYTES + AFTER_BINS);
	return is_pointer(a->top & ~15ull) ? 0 : -EAGAIN;
}

int glibc_read_fastbins(const struct glibc *g, uint64_t arena, uint64_t out[FASTBINS])
{
	if (g->bins_offset == bins_offsets[0])
		return memory_read(g->pid, arena + FASTBINS_OFFSET, out, FASTBINS * sizeof(*out));
	memset(out, 0, FASTBINS * sizeof(*out));
	return 0;
}

static int by_start(const void *a, const void *b)
{
	const struct heap_segment *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

static bool overlap(const struct glibc_heaps *h)
{
	for (size_t i = 1; i < h->segment_count; i++)
		if (h->segments[i].start < h->segments[i - 1].reserved_end)
			return true;
	return false;
}

static int read_all(const struct glibc *g, struct glibc_heaps *h)
{
	uint64_t at = g->main_arena;
	struct heap_arena a;
	int err;

	do {
		err = read_arena(g, at, &a, &at);
		if (!err)
			err = add_arena(h, &a);
	} while (!err && at != g->main_arena);
	if (!err)
		err = add_main_segment(g, h);
	/* A heap that does not add up is left out; what lies in it is not known then. */
	for (uint32_t i = 1; !err && i < h->arena_count; i++) {
		err = add_heaps(g, h, i);
		if (err == -EAGAIN)
			err = 0;
	}
	if (err)
		return err;
	if (h->segment_count)
		qsort(h->segments, h->segment_count, sizeof(*h->segments), by_start);
	return overlap(h) ? -EAGAIN : 0;
}

int glibc_heaps_read(const struct glibc *g, struct glibc_heaps *out)
{
	struct glibc_heaps h = {0};
	int err = read_all(g, &h);

	if (err) {
		glibc_heaps_release(&h);
		return err;
	}
	*out = h;
	return 0;
}

void glibc_heaps_release(struct glibc_heaps *h)
{
	free(h->arenas);
	free(h->segments);
	*h = (struct glibc_heaps){0};
}

const struct heap_segment *glibc_heaps_find(const struct glibc_heaps *h, uint64_t address)
{
	size_t low = 0, high = h->segment_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (h->segments[middle].start <= address)
			low = middle + 1;
		else
			high = middle;
	}
	if (!low || address >= h->segments[low - 1].reserved_end)
		return NULL;
	return &h->segments[low - 1];
}
