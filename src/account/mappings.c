/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "account/mappings.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The kernel's own bound is vm.max_map_count, 65,530 unless raised. */
#define RANGES_MAX (1u << 20)

struct mappings {
	struct mapping_range *items;
	size_t count, capacity;
};

struct mappings *mappings_new(void)
{
	return calloc(1, sizeof(struct mappings));
}

void mappings_free(struct mappings *m)
{
	if (!m)
		return;
	free(m->items);
	free(m);
}

size_t mappings_count(const struct mappings *m)
{
	return m->count;
}

const struct mapping_range *mappings_at(const struct mappings *m, size_t i)
{
	return &m->items[i];
}

/* First range that ends after @address. */
static size_t find(const struct mappings *m, uint64_t address)
{
	size_t low = 0, high = m->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (m->items[middle].end <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static int insert_at(struct mappings *m, size_t i, const struct mapping_range *r)
{
	if (m->count == m->capacity) {
		size_t capacity = m->capacity ? m->capacity * 2 : 16;
		struct mapping_range *items;

		if (capacity > RANGES_MAX)
			return -ENOSPC;
		items = realloc(m->items, capacity * sizeof(*items));
		if (!items)
			return -ENOMEM;
		m->items = items;
		m->capacity = capacity;
	}
	memmove(&m->items[i + 1], &m->items[i], (m->count - i) * sizeof(*m->items));
	m->items[i] = *r;
	m->count++;
	return 0;
}

static void delete_at(struct mappings *m, size_t i)
{
	m->count--;
	memmove(&m->items[i], &m->items[i + 1], (m->count - i) * sizeof(*m->items));
}

/* Takes [start, end) out of range @i, which overlaps it; *next is where to go on. */
static int cut(struct mappings *m, size_t i, uint64_t start, uint64_t end, size_t *next)
{
	struct mapping_range *r = &m->items[i];
	struct mapping_range tail = *r;

	*next = i + 1;
	if (r->start < start && r->end > end) {
		tail.start = end;
		r->end = start;
		return insert_at(m, i + 1, &tail);
	}
	if (r->start < start) {
		r->end = start;
	} else if (r->end > end) {
		r->start = end;
	} else {
		delete_at(m, i);
		*next = i;
	}
	return 0;
}

static int remove_range(struct mappings *m, uint64_t start, uint64_t end, uint64_t before_ns)
{
	size_t i = find(m, start);
	int err;

	while (i < m->count && m->items[i].start < end) {
		if (m->items[i].birth_ns >= before_ns) {
			i++;
			continue;
		}
		err = cut(m, i, start, end, &i);
		if (err)
			return err;
	}
	return 0;
}

static int bad_range(uint64_t start, uint64_t length)
{
	return !length || start + length < start;
}

int mappings_remove(struct mappings *m, uint64_t start, uint64_t length, uint64_t before_ns)
{
	return bad_range(start, length) ? 0 : remove_range(m, start, start + length, before_ns);
}

int mappings_add(struct mappings *m, uint64_t start, uint64_t length, uint64_t birth_ns,
		 uint32_t stack_id)
{
	struct mapping_range r = {start, start + length, birth_ns, stack_id};
	int err;

	if (bad_range(start, length))
		return 0;
	err = remove_range(m, start, r.end, UINT64_MAX);
	return err ? err : insert_at(m, find(m, start), &r);
}

int mappings_move(struct mappings *m, uint64_t old_start, uint64_t old_length, uint64_t new_start,
		  uint64_t new_length, uint64_t begin_ns, uint64_t birth_ns, uint32_t stack_id)
{
	size_t i = find(m, old_start);
	uint64_t range_birth_ns = birth_ns;
	int err;

	if (i < m->count && m->items[i].start <= old_start && m->items[i].birth_ns < begin_ns) {
		range_birth_ns = m->items[i].birth_ns;
		stack_id = m->items[i].stack_id;
	}
	err = mappings_remove(m, old_start, old_length, begin_ns);
	if (err)
		return err;
	return mappings_add(m, new_start, new_length, range_birth_ns, stack_id);
}

int mappings_intersect(struct mappings *m, const struct mapping_range *present, size_t count,
		       uint64_t before_ns)
{
	uint64_t gap_start = 0;
	int err = 0;

	for (size_t i = 0; i < count && !err; i++) {
		if (present[i].start > gap_start)
			err = remove_range(m, gap_start, present[i].start, before_ns);
		if (present[i].end > gap_start)
			gap_start = present[i].end;
	}
	return err ? err : remove_range(m, gap_start, UINT64_MAX, before_ns);
}
