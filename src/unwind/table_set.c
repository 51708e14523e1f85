/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "unwind/table_set.h"

#include <stdbool.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "sym/object.h"
#include "unwind_maps.h"

#define INDEX_SLOTS 65536u /* several times the objects there can be */

struct index_slot {
	const struct object *object; /* NULL: empty */
	uint32_t id;
};

struct table_set {
	struct table tables[UNWIND_TABLES_MAX]; /* by id; [0] is not used */
	uint32_t limit;
	size_t indexed;
	struct index_slot index[INDEX_SLOTS]; /* open addressing */
};

struct table_set *table_set_new(void)
{
	struct table_set *s = calloc(1, sizeof(*s));

	if (s)
		s->limit = 1;
	return s;
}

void table_set_free(struct table_set *s)
{
	free(s);
}

static struct index_slot *index_find(struct table_set *s, const struct object *object)
{
	uint64_t at = ((uint64_t)(uintptr_t)object >> 4) * 0x9e3779b97f4a7c15u >> 48;

	while (s->index[at].object && s->index[at].object != object)
		at = (at + 1) & (INDEX_SLOTS - 1);
	return &s->index[at];
}

static void index_add(struct table_set *s, const struct object *object, uint32_t id)
{
	struct index_slot *slot = index_find(s, object);

	if (!slot->object && s->indexed >= INDEX_SLOTS / 2)
		return; /* found by its file again */
	s->indexed += !slot->object;
	*slot = (struct index_slot){object, id};
}

/* All objects that were known under @id; open addressing wants the rest put anew. */
static void index_drop(struct table_set *s, uint32_t id)
{
	struct index_slot *old = malloc(sizeof(s->index));
	size_t i;

	for (i = 0; i < INDEX_SLOTS; i++) {
		if (old)
			old[i] = s->index[i];
		s->index[i] = (struct index_slot){0};
	}
	s->indexed = 0;
	for (i = 0; old && i < INDEX_SLOTS; i++) {
		if (old[i].object && old[i].id != id)
			index_add(s, old[i].object, old[i].id);
	}
	free(old);
}

static struct table *same_file(struct table_set *s, const struct object *object)
{
	for (uint32_t id = 1; id < s->limit; id++) {
		if (object_is_same_file(s->tables[id].object, object))
			return &s->tables[id];
	}
	return NULL;
}

/* A number not given out yet, or that of a table which nobody needs. */
static struct table *free_table(struct table_set *s)
{
	if (s->limit < UNWIND_TABLES_MAX) {
		s->tables[s->limit].id = s->limit;
		return &s->tables[s->limit++];
	}
	for (uint32_t id = 1; id < s->limit; id++) {
		struct table *t = &s->tables[id];

		if (t->state == TABLE_OUT && !t->references) {
			index_drop(s, id);
			t->renewed = true;
			return t;
		}
	}
	return NULL;
}

struct table *table_set_get(struct table_set *s, const struct object *object)
{
	const struct index_slot *known = index_find(s, object);
	struct table *t;
	struct stat st;

	if (known->object)
		return &s->tables[known->id];
	t = same_file(s, object);
	if (!t) {
		t = free_table(s);
		if (!t)
			return NULL;
		*t = (struct table){.object = object, .id = t->id, .renewed = t->renewed};
		if (!fstat(object_fd(object), &st))
			t->file_bytes = (uint64_t)st.st_size;
	}
	index_add(s, object, t->id);
	return t;
}

struct table *table_set_at(struct table_set *s, uint32_t id)
{
	return id && id < s->limit ? &s->tables[id] : NULL;
}

uint32_t table_set_limit(const struct table_set *s)
{
	return s->limit;
}

static bool loads_before(const struct table *a, const struct table *b)
{
	return a->urgent != b->urgent ? a->urgent : a->file_bytes < b->file_bytes;
}

struct table *table_set_next_wanted(struct table_set *s)
{
	struct table *best = NULL;

	for (uint32_t id = 1; id < s->limit; id++) {
		struct table *t = &s->tables[id];

		if (t->state == TABLE_WANTED && (!best || loads_before(t, best)))
			best = t;
	}
	return best;
}

struct table *table_set_next_unfinished(struct table_set *s)
{
	for (uint32_t id = 1; id < s->limit; id++) {
		struct table *t = &s->tables[id];

		if (t->state == TABLE_LOADED && t->unfinished)
			return t;
	}
	return NULL;
}

static bool goes_before(const struct table *a, const struct table *b)
{
	if (!a->references != !b->references)
		return !a->references;
	return a->used_s < b->used_s;
}

struct table *table_set_victim(struct table_set *s)
{
	struct table *best = NULL;

	for (uint32_t id = 1; id < s->limit; id++) {
		struct table *t = &s->tables[id];

		if (t->state == TABLE_LOADED && t->size_bytes && (!best || goes_before(t, best)))
			best = t;
	}
	return best;
}

size_t table_set_bytes(const struct table_set *s)
{
	size_t sum = 0;

	for (uint32_t id = 1; id < s->limit; id++)
		sum += s->tables[id].size_bytes;
	return sum;
}

size_t table_set_count(const struct table_set *s, enum table_state state)
{
	size_t n = 0;

	for (uint32_t id = 1; id < s->limit; id++)
		n += s->tables[id].state == state;
	return n;
}
