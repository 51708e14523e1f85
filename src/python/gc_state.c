/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "python/gc_state.h"

#include <errno.h>
#include <string.h>

#include "python/interpreter.h"
#include "python/object_layout.h"
#include "target/memory.h"

#define STATE_BYTES 384
#define FIRST_MAX 64 /* the generations begin no later */
#define GENERATION_BYTES 24
#define GENERATION_THRESHOLD 16
#define GENERATION_COUNT 20
#define STATS_BYTES 24
#define RING_MASK (~3ull) /* the low bits of the links are flags */
#define INTERPRETERS_MAX (GC_RINGS_MAX / 4)
#define COUNT_MAX (1ull << 48)

static bool is_pointer(uint64_t word)
{
	return word >= 4096 && word < 1ull << 47 && !(word & 3);
}

static int32_t int_at(const uint8_t *p)
{
	int32_t i;

	memcpy(&i, p, sizeof(i));
	return i;
}

/* {head.next, head.prev, int threshold, int count}; an empty ring leads to itself. */
static bool looks_like_generation(const uint8_t *at, uint64_t address)
{
	uint64_t next = word_at(at) & RING_MASK, prev = word_at(at + 8) & RING_MASK;

	return is_pointer(next) && is_pointer(prev) && (next == address) == (prev == address) &&
	       int_at(at + GENERATION_THRESHOLD) >= 0 && int_at(at + GENERATION_COUNT) >= 0;
}

static bool are_counters(const uint8_t *at)
{
	for (int i = 0; i < 9; i++)
		if (word_at(at + 8 * i) >= COUNT_MAX)
			return false;
	return true;
}

static bool are_generations(const uint8_t *state, uint64_t address, uint32_t at)
{
	for (uint32_t g = at; g < at + 3 * GENERATION_BYTES; g += GENERATION_BYTES)
		if (!looks_like_generation(state + g, address + g))
			return false;
	return true;
}

/* Behind the statistics: int collecting; from 3.15 the frame; garbage; callbacks. */
static bool find_garbage(const uint8_t *state, uint32_t at, struct gc_shape *s)
{
	if (s->stats_apart && !is_pointer(word_at(state + s->stats)))
		return false;
	if (!s->stats_apart && !are_counters(state + s->stats))
		return false;
	s->collecting = at;
	s->garbage = at + (s->stats_apart ? 16 : 8);
	/* Both appear when they are used first. */
	return (int_at(state + at) & ~1) == 0 &&
	       (!word_at(state + s->garbage) || is_pointer(word_at(state + s->garbage))) &&
	       (!word_at(state + s->garbage + 8) || is_pointer(word_at(state + s->garbage + 8)));
}

/* The shape if the first generation is at @first. */
static bool shape_agrees(const uint8_t *state, uint64_t address, int minor, uint32_t first,
			 struct gc_shape *out)
{
	struct gc_shape s = {.first = first};
	uint32_t at = (first + 3 * GENERATION_BYTES + 7) & ~7u;

	if (!are_generations(state, address, first))
		return false;
	/* To 3.14 a pointer and an int of the trashcan are first. */
	s.enabled = minor >= 15 ? 0 : 12;
	if (int_at(state + s.enabled) & ~1)
		return false;
	if (word_at(state + at) == address + first)
		at += 8; /* generation0, to 3.13 */
	if (!looks_like_generation(state + at, address + at))
		return false;
	s.permanent = at;
	s.stats = at + GENERATION_BYTES;
	s.stats_apart = minor >= 15;
	if (!find_garbage(state, s.stats + (s.stats_apart ? 8 : 3 * STATS_BYTES), &s))
		return false;
	*out = s;
	return true;
}

bool gc_shape_find(const uint8_t *state, size_t bytes, uint64_t address, int minor,
		   struct gc_shape *out)
{
	if (bytes < STATE_BYTES)
		return false;
	/* In Debian's 3.13 they lie on an odd multiple of 4. */
	for (uint32_t odd = 0; odd <= 4; odd += 4)
		for (uint32_t at = 8 + odd; at <= FIRST_MAX; at += 8)
			if (shape_agrees(state, address, minor, at, out))
				return true;
	return false;
}

/* Whether the neighbours of a ring's head point back to it. */
static bool ring_is_closed(pid_t pid, const uint8_t *head, uint64_t address)
{
	uint64_t next, prev;

	return !memory_read_u64(pid, (word_at(head) & RING_MASK) + 8, &prev) &&
	       !memory_read_u64(pid, word_at(head + 8) & RING_MASK, &next) &&
	       (prev & RING_MASK) == address && (next & RING_MASK) == address;
}

/* len() of the list at @address; -1: it is none. */
static int64_t list_length(pid_t pid, uint64_t address)
{
	uint64_t object[3], flags;

	if (memory_read(pid, address, object, sizeof(object)) ||
	    memory_read_u64(pid, object[1] + TYPE_FLAGS, &flags) || !(flags & FLAG_LIST) ||
	    object[2] >= COUNT_MAX)
		return -1;
	return (int64_t)object[2];
}

struct gc_view {
	uint64_t address;
	struct gc_shape shape;
	uint8_t state[STATE_BYTES];
};

static bool view_is_sound(pid_t pid, const struct gc_view *v)
{
	uint64_t garbage = word_at(v->state + v->shape.garbage);
	uint64_t callbacks = word_at(v->state + v->shape.garbage + 8);

	if ((garbage && list_length(pid, garbage) < 0) ||
	    (callbacks && list_length(pid, callbacks) < 0))
		return false;
	for (uint32_t g = 0; g < 3; g++) {
		uint32_t at = v->shape.first + g * GENERATION_BYTES;

		if (!ring_is_closed(pid, v->state + at, v->address + at))
			return false;
	}
	return ring_is_closed(pid, v->state + v->shape.permanent, v->address + v->shape.permanent);
}

static int read_view(const struct interpreter *i, uint64_t address, struct gc_view *out)
{
	struct gc_view v = {.address = address};
	int err = memory_read(i->pid, address, v.state, sizeof(v.state));

	if (err)
		return err == -EFAULT ? -ENOENT : err;
	if (!gc_shape_find(v.state, sizeof(v.state), address, i->minor, &v.shape))
		return -ENOENT;
	if (int_at(v.state + v.shape.collecting) || !view_is_sound(i->pid, &v))
		return -EAGAIN;
	*out = v;
	return 0;
}

static void add_rings(const struct gc_view *v, struct gc_state *out)
{
	for (uint32_t g = 0; g < 3; g++)
		out->rings[out->ring_count++] = v->address + v->shape.first + g * GENERATION_BYTES;
	out->rings[out->ring_count++] = v->address + v->shape.permanent;
}

/* 3.15: struct gc_stats has a ring of the latest collections a generation, {items[11 or 3],
 * int8_t index}; an item is {ts_start, ts_stop, collections, collected, uncollectable,
 * candidates, duration, heap_size} with totals. */
static int read_stats_apart(pid_t pid, uint64_t address, struct census_gc_generation *g)
{
	static const uint32_t items[3] = {11, 3, 3};

	for (int n = 0; n < 3; n++) {
		uint64_t item[8];
		uint8_t index;
		int err = memory_read(pid, address + items[n] * sizeof(item), &index, 1);

		if (err || index >= items[n])
			return err ? err : -ENOENT;
		err = memory_read(pid, address + index * sizeof(item), item, sizeof(item));
		if (err)
			return err;
		g[n].collections = item[2];
		g[n].collected = item[3];
		g[n].uncollectable = item[4];
		address += items[n] * sizeof(item) + 8;
	}
	return 0;
}

static int fill_state(pid_t pid, const struct gc_view *v, struct gc_state *out)
{
	const uint8_t *generation = v->state + v->shape.first, *stats = v->state + v->shape.stats;
	uint64_t garbage = word_at(v->state + v->shape.garbage);

	out->enabled = int_at(v->state + v->shape.enabled);
	out->garbage = garbage ? list_length(pid, garbage) : 0;
	for (int g = 0; g < 3; g++, generation += GENERATION_BYTES, stats += STATS_BYTES) {
		struct census_gc_generation *to = &out->generations[g];

		to->threshold = (uint64_t)int_at(generation + GENERATION_THRESHOLD);
		to->count = (uint64_t)int_at(generation + GENERATION_COUNT);
		if (v->shape.stats_apart)
			continue;
		to->collections = word_at(stats);
		to->collected = word_at(stats + 8);
		to->uncollectable = word_at(stats + 16);
	}
	if (!v->shape.stats_apart)
		return 0;
	return read_stats_apart(pid, word_at(v->state + v->shape.stats), out->generations);
}

/* The main interpreter is the last of the list. */
static int read_interpreters(const struct interpreter *i, struct gc_state *out)
{
	const struct python_layout *l = &i->layout;
	struct gc_view view = {0};
	uint64_t interp;
	int err = memory_read_u64(i->pid, i->runtime + l->runtime_interpreters_head, &interp);

	for (int n = 0; !err && interp && n < INTERPRETERS_MAX; n++) {
		err = read_view(i, interp + l->interp_gc, &view);
		if (err)
			break;
		add_rings(&view, out);
		err = memory_read_u64(i->pid, interp + l->interp_next, &interp);
	}
	if (!err && !out->ring_count)
		err = -ENOENT;
	return err ? err : fill_state(i->pid, &view, out);
}

int gc_state_read(const struct interpreter *i, struct gc_state *out)
{
	struct gc_state s = {.garbage = -1};
	struct gc_view view;
	int err;

	if (i->free_threaded)
		return -ENOTSUP;
	if (i->layout.runtime_gc != UINT32_MAX) {
		err = read_view(i, i->runtime + i->layout.runtime_gc, &view);
		if (!err) {
			add_rings(&view, &s);
			err = fill_state(i->pid, &view, &s);
		}
	} else {
		err = read_interpreters(i, &s);
	}
	if (!err)
		*out = s;
	return err;
}
