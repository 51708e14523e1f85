/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "heap/heap_walk.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>

#include "heap/heap_cache.h"
#include "heap/tcache_layout.h"
#include "heap_host.h"

#define READ_MAX (1ull << 30)

/* A child, its heaps, and all that a walk of them says. */
struct scene {
	struct heap_host host;
	struct glibc glibc;
	struct glibc_heaps heaps;
	struct heap_chunk *chunks;
	uint32_t *segments; /* of the chunks */
	size_t count;
	struct heap_chunk tcaches[64];
	size_t tcache_count;
	uint64_t bytes[5]; /* by kind */
};

static void add_chunk(struct scene *s, const struct heap_chunk *c, uint32_t segment)
{
	if (!(s->count & (s->count - 1))) {
		size_t room = s->count ? s->count * 2 : 1;

		s->chunks = realloc(s->chunks, room * sizeof(*s->chunks));
		s->segments = realloc(s->segments, room * sizeof(*s->segments));
	}
	s->chunks[s->count] = *c;
	s->segments[s->count++] = segment;
	s->bytes[c->kind] += c->size_bytes;
	if (c->maybe_tcache && s->tcache_count < 64)
		s->tcaches[s->tcache_count++] = *c;
}

static uint64_t walk(struct scene *s, uint64_t read_max)
{
	struct heap_walk *w;
	struct heap_chunk c;
	uint64_t read;
	int err = 0;

	s->count = s->tcache_count = 0;
	memset(s->bytes, 0, sizeof(s->bytes));
	assert_int_equal(heap_walk_new(&s->glibc, &s->heaps, read_max, &w), 0);
	assert_int_equal(heap_walk_next(w, &c), 0);
	for (uint32_t i = 0; i < s->heaps.segment_count; i++) {
		heap_walk_start(w, &s->heaps.segments[i]);
		while ((err = heap_walk_next(w, &c)) == 1)
			add_chunk(s, &c, i);
		assert_int_equal(err, 0);
	}
	read = heap_walk_read_bytes(w);
	heap_walk_free(w);
	return read;
}

static void scene_start(struct scene *s, const char *mode)
{
	memset(s, 0, sizeof(*s));
	assert_true(heap_host_start(&s->host, mode, 1));
	assert_int_equal(glibc_find(s->host.pid, &s->glibc), 0);
	assert_int_equal(glibc_heaps_read(&s->glibc, &s->heaps), 0);
	walk(s, READ_MAX);
}

static void scene_stop(struct scene *s)
{
	glibc_heaps_release(&s->heaps);
	heap_host_stop(&s->host);
	free(s->chunks);
	free(s->segments);
}

/* Every byte of each segment is in one chunk; each arena ends in its top. */
static void check_cover(const struct scene *s)
{
	size_t tops = 0;

	for (size_t i = 0; i < s->count; i++) {
		const struct heap_segment *g = &s->heaps.segments[s->segments[i]];
		const struct heap_chunk *c = &s->chunks[i];
		bool first = !i || s->segments[i - 1] != s->segments[i];
		bool last = i + 1 == s->count || s->segments[i + 1] != s->segments[i];

		assert_true(c->address == (first ? g->start : c[-1].address + c[-1].size_bytes));
		if (last)
			assert_true(c->address + c->size_bytes == g->end);
		tops += c->kind == HEAP_CHUNK_TOP;
		assert_int_equal(c->kind == HEAP_CHUNK_TOP, c->address == g->top);
		assert_true(c->kind != HEAP_CHUNK_FENCE || (last && !g->top));
	}
	assert_int_equal(tops, s->heaps.arena_count);
	assert_int_equal(s->bytes[HEAP_CHUNK_UNKNOWN], 0);
}

static const struct heap_chunk *chunk_of(const struct scene *s, uint64_t block)
{
	size_t low = 0, high = s->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (s->chunks[middle].address + CHUNK_HEADER < block)
			low = middle + 1;
		else
			high = middle;
	}
	return low < s->count && s->chunks[low].address + CHUNK_HEADER == block ? &s->chunks[low]
										: NULL;
}

static void test_walk(void **state)
{
	size_t held = 0, freed = 0, cached = 0;
	struct heap_cache *cache;
	struct scene s;

	(void)state;
	scene_start(&s, "still");
	assert_true(s.heaps.arena_count > 4);
	check_cover(&s);
	assert_true(s.tcache_count >= 4);
	assert_int_equal(heap_cache_new(&s.glibc, &s.heaps, s.tcaches, s.tcache_count, &cache), 0);
	for (size_t i = 0; i < s.host.count; i++) {
		const struct heap_truth *t = &s.host.truth[i];
		const struct heap_chunk *c = chunk_of(&s, t->address);
		const struct heap_segment *g = glibc_heaps_find(&s.heaps, t->address);

		if (!g)
			continue;
		if (!t->held) {
			freed++;
			cached += c && c->kind == HEAP_CHUNK_USED &&
				  heap_cache_look(cache, c, g->arena) != HEAP_CACHED_NOT;
			continue;
		}
		held++;
		assert_non_null(c);
		assert_int_equal(c->kind, HEAP_CHUNK_USED);
		assert_true(c->size_bytes >= t->size_bytes + 8);
		assert_int_equal(heap_cache_look(cache, c, g->arena), HEAP_CACHED_NOT);
	}
	print_message("%zu chunks, %zu arenas: held %zu, freed %zu, of them cached %zu\n", s.count,
		      s.heaps.arena_count, held, freed, cached);
	assert_true(held > 10000 && freed > 10000 && cached > 100);
	heap_cache_free(cache);
	heap_cache_free(NULL);
	scene_stop(&s);
}

static void test_heaps_find(void **state)
{
	struct scene s;

	(void)state;
	scene_start(&s, "still");
	for (size_t i = 0; i < s.heaps.segment_count; i++) {
		const struct heap_segment *g = &s.heaps.segments[i];

		assert_ptr_equal(glibc_heaps_find(&s.heaps, g->start), g);
		assert_ptr_equal(glibc_heaps_find(&s.heaps, g->reserved_end - 1), g);
		assert_ptr_not_equal(glibc_heaps_find(&s.heaps, g->reserved_end), g);
		assert_ptr_not_equal(glibc_heaps_find(&s.heaps, g->start - 1), g);
	}
	assert_null(glibc_heaps_find(&s.heaps, 0));
	assert_null(glibc_heaps_find(&s.heaps, UINT64_MAX));
	scene_stop(&s);
}

static void test_budget(void **state)
{
	struct scene s;
	uint64_t read;

	(void)state;
	scene_start(&s, "still");
	read = walk(&s, 1 << 20);
	assert_true(read >= 1 << 20 && read < 2 << 20);
	assert_true(s.bytes[HEAP_CHUNK_UNKNOWN] > 0);
	assert_true(s.bytes[HEAP_CHUNK_USED] > 0);
	scene_stop(&s);
}

static size_t big_used_chunk(const struct scene *s, uint32_t segment)
{
	size_t i = 0;

	while (s->segments[i] != segment)
		i++;
	for (i += 20; s->chunks[i].kind != HEAP_CHUNK_USED || s->chunks[i].size_bytes < 512; i++)
		;
	return i;
}

/* A header with a lie: what is before it stays known, what is after it does not, or the
 * lie hides something that is not ours to know. */
static void test_bad_headers(void **state)
{
	static const uint64_t lies[] = {0,
					1,
					8,
					17,
					0x19,
					0x21 | 2,
					~0ull,
					1ull << 63,
					1ull << 40 | 1,
					0x7ffffffffff0ull | 5};
	struct scene s;

	(void)state;
	scene_start(&s, "still");
	for (size_t i = 0; i < sizeof(lies) / sizeof(*lies); i++) {
		struct heap_chunk c = s.chunks[big_used_chunk(&s, 0)];
		uint32_t flags = 1; /* the chunk before is in use, or the walk sees it as free */
		uint64_t word;

		assert_true(heap_host_write(&s.host, c.address + 8, lies[i]));
		walk(&s, READ_MAX);
		assert_true(s.bytes[HEAP_CHUNK_UNKNOWN] > 0);
		assert_true(s.bytes[HEAP_CHUNK_USED] > 0);
		word = c.size_bytes | flags | (s.heaps.segments[0].info ? 4 : 0);
		assert_true(heap_host_write(&s.host, c.address + 8, word));
		walk(&s, READ_MAX);
		assert_int_equal(s.bytes[HEAP_CHUNK_UNKNOWN], 0);
	}
	scene_stop(&s);
}

/* A tcache's list that comes back to itself, or leads nowhere. */
static void test_bad_lists(void **state)
{
	struct heap_cache *cache;
	struct scene s;

	(void)state;
	scene_start(&s, "still");
	assert_true(s.tcache_count > 0);
	for (size_t i = 0; i < s.tcache_count; i++) {
		const struct tcache_layout *l = tcache_layout_of_chunk(s.tcaches[i].size_bytes);
		uint64_t at = s.tcaches[i].address + CHUNK_HEADER, entries, heap;

		assert_non_null(l);
		entries = at + (uint64_t)l->bins * l->count_bytes;
		heap = s.chunks[s.count / 2].address + CHUNK_HEADER;
		for (unsigned int bin = 0; bin < l->bins; bin++) {
			heap_host_write(&s.host, entries + bin * 8, heap);
			heap_host_write(&s.host, at + bin / 4 * 8, ~0ull);
		}
		heap_host_write(&s.host, heap, heap ^ heap >> 12);
		heap_host_write(&s.host, heap - 8, 0x21);
	}
	for (uint32_t i = 0; i < FASTBINS; i++)
		heap_host_write(&s.host, s.glibc.main_arena + 16 + i * 8,
				i % 2 ? 0x1230 : s.chunks[s.count / 2].address);
	assert_int_equal(heap_cache_new(&s.glibc, &s.heaps, s.tcaches, s.tcache_count, &cache), 0);
	for (uint64_t bytes = 32; bytes < 32 + FASTBINS * 16; bytes += 16) {
		struct heap_chunk c = {.address = 0x5000, .size_bytes = bytes};

		assert_int_equal(heap_cache_look(cache, &c, 0), HEAP_CACHED_UNSURE);
	}
	heap_cache_free(cache);
	scene_stop(&s);
}

static void test_bad_arenas(void **state)
{
	struct glibc_heaps heaps;
	struct scene s;

	(void)state;
	scene_start(&s, "still");
	/* The ring does not come back. */
	assert_true(heap_host_write(&s.host,
				    s.heaps.arenas[1].address + s.glibc.bins_offset + 2032 + 16,
				    s.heaps.arenas[1].address));
	assert_int_equal(glibc_heaps_read(&s.glibc, &heaps), -EAGAIN);
	s.glibc.main_arena = 0x1000;
	assert_int_equal(glibc_heaps_read(&s.glibc, &heaps), -EAGAIN);
	assert_int_equal(glibc_find(s.host.pid, &s.glibc), -ENOENT);
	scene_stop(&s);
}

/* An arena whose heaps lie is left out, the others stay. */
static void test_bad_heap_info(void **state)
{
	static const uint64_t lies[] = {0, 1, ~0ull, 1ull << 46, 4096};
	struct glibc_heaps heaps;
	struct scene s;

	(void)state;
	scene_start(&s, "still");
	for (size_t i = 0; i < s.heaps.segment_count; i++) {
		uint64_t info = s.heaps.segments[i].info;

		if (!info)
			continue;
		for (size_t j = 0; j < sizeof(lies) / sizeof(*lies); j++) {
			heap_host_write(&s.host, info + (j % 3) * 8, lies[j]);
			assert_int_equal(glibc_heaps_read(&s.glibc, &heaps), 0);
			assert_true(heaps.segment_count >= 1);
			assert_true(heaps.segment_count < s.heaps.segment_count);
			glibc_heaps_release(&heaps);
		}
	}
	scene_stop(&s);
}

static void test_tcache_shapes(void **state)
{
	uint8_t block[TCACHE_CHUNK_MAX] = {0};
	uint64_t pointer = 0x555555559010;
	uint16_t one = 1;

	(void)state;
	assert_null(tcache_layout_of_chunk(0));
	assert_null(tcache_layout_of_chunk(0x280));
	assert_non_null(tcache_layout_of_chunk(0x250));
	assert_int_equal(tcache_layout_of_chunk(0x2a0)->bins, 64);
	assert_int_equal(tcache_layout_of_chunk(0x300)->bins, 76);
	assert_false(tcache_looks_right(block, 0x290));
	memcpy(block + 128 + 8 * 3, &pointer, 8);
	assert_false(tcache_looks_right(block, 0x290)); /* none is counted */
	memcpy(block + 2 * 3, &one, 2);
	assert_true(tcache_looks_right(block, 0x290));
	pointer++;
	memcpy(block + 128, &pointer, 8);
	assert_false(tcache_looks_right(block, 0x290));
	memset(block, 0xff, sizeof(block));
	assert_false(tcache_looks_right(block, 0x300));
}

static void test_gone(void **state)
{
	struct glibc_heaps heaps;
	struct heap_chunk c;
	struct heap_walk *w;
	struct scene s;
	int err;

	(void)state;
	scene_start(&s, "kinds");
	kill(s.host.pid, SIGKILL);
	waitpid(s.host.pid, NULL, 0);
	assert_int_equal(heap_walk_new(&s.glibc, &s.heaps, READ_MAX, &w), 0);
	heap_walk_start(w, &s.heaps.segments[0]);
	err = heap_walk_next(w, &c);
	assert_int_equal(err, -ESRCH);
	heap_walk_free(w);
	assert_int_equal(glibc_heaps_read(&s.glibc, &heaps), -ESRCH);
	assert_int_equal(glibc_find(s.host.pid, &s.glibc), -ESRCH);
	s.host.pid = fork(); /* for scene_stop() */
	if (s.host.pid == 0)
		for (;;)
			pause();
	scene_stop(&s);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_walk),	      cmocka_unit_test(test_heaps_find),
		cmocka_unit_test(test_budget),	      cmocka_unit_test(test_bad_headers),
		cmocka_unit_test(test_bad_lists),     cmocka_unit_test(test_bad_arenas),
		cmocka_unit_test(test_bad_heap_info), cmocka_unit_test(test_tcache_shapes),
		cmocka_unit_test(test_gone),
	};
	int child = heap_host_main(argc, argv);

	if (child >= 0)
		return child;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
