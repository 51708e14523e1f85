/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Records are in a hash table by address and in a list by when they were announced.
 * The store holds one reference to each of them; a record that is replaced or dropped
 * lives on outside until the last stack lets go of it.
 */
#include "python/code_store.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "events.h"
#include "python/line_table.h"
#include "python/unicode.h"

#define BUCKETS_MIN 64
#define DROP_STEPS 8 /* records looked at for each that is added, lest many in use cost time */

struct python_code {
	struct python_code *next_in_bucket;
	struct python_code *older, *newer;
	uint64_t address;
	size_t references;
	int minor;
	uint32_t first_line;
	char *file;
	char *function;
	uint8_t *lines;
	uint32_t lines_bytes; /* so far */
	uint32_t lines_total;
	bool cut; /* a piece is missing, so later ones are of no use */
};

struct code_store {
	struct python_code **buckets;
	size_t bucket_count; /* a power of two */
	size_t count, max_codes;
	size_t lines_bytes; /* of all records */
	struct python_code *oldest, *newest;
	int minor;
};

struct code_store *code_store_new(int minor, size_t max_codes)
{
	struct code_store *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->minor = minor;
	s->max_codes = max_codes;
	s->bucket_count = BUCKETS_MIN;
	s->buckets = calloc(s->bucket_count, sizeof(struct python_code *));
	if (!s->buckets) {
		free(s);
		return NULL;
	}
	return s;
}

struct python_code *python_code_ref(struct python_code *c)
{
	/* Reports are written in a thread of their own. */
	__atomic_add_fetch(&c->references, 1, __ATOMIC_RELAXED);
	return c;
}

void python_code_unref(struct python_code *c)
{
	if (!c || __atomic_sub_fetch(&c->references, 1, __ATOMIC_ACQ_REL))
		return;
	free(c->file);
	free(c->function);
	free(c->lines);
	free(c);
}

void code_store_free(struct code_store *s)
{
	struct python_code *c, *newer;

	if (!s)
		return;
	for (c = s->oldest; c; c = newer) {
		newer = c->newer;
		python_code_unref(c);
	}
	free(s->buckets);
	free(s);
}

/* The finalizer of MurmurHash3: code objects lie at regular distances. */
static uint64_t hash_address(uint64_t address)
{
	address = (address ^ address >> 33) * 0xff51afd7ed558ccdu;
	address = (address ^ address >> 33) * 0xc4ceb9fe1a85ec53u;
	return address ^ address >> 33;
}

/* Where the pointer to the record of @address is, or would be. */
static struct python_code **find_place(const struct code_store *s, uint64_t address)
{
	struct python_code **at = &s->buckets[hash_address(address) & (s->bucket_count - 1)];

	while (*at && (*at)->address != address)
		at = &(*at)->next_in_bucket;
	return at;
}

static void list_append(struct code_store *s, struct python_code *c)
{
	c->newer = NULL;
	c->older = s->newest;
	*(c->older ? &c->older->newer : &s->oldest) = c;
	s->newest = c;
}

static void list_remove(struct code_store *s, struct python_code *c)
{
	*(c->older ? &c->older->newer : &s->oldest) = c->newer;
	*(c->newer ? &c->newer->older : &s->newest) = c->older;
}

static void store_drop(struct code_store *s, struct python_code *c)
{
	*find_place(s, c->address) = c->next_in_bucket;
	list_remove(s, c);
	s->count--;
	s->lines_bytes -= c->lines_bytes;
	python_code_unref(c);
}

/* Without memory the chains only get longer. */
static void store_grow(struct code_store *s)
{
	struct python_code **old = s->buckets, **grown;
	struct python_code *c;

	if (s->count < s->bucket_count)
		return;
	grown = calloc(2 * s->bucket_count, sizeof(struct python_code *));
	if (!grown)
		return;
	s->buckets = grown;
	s->bucket_count *= 2;
	for (c = s->oldest; c; c = c->newer) {
		c->next_in_bucket = NULL;
		*find_place(s, c->address) = c;
	}
	free(old);
}

static void store_insert(struct code_store *s, struct python_code *c)
{
	store_grow(s);
	*find_place(s, c->address) = c;
	list_append(s, c);
	s->count++;
	s->lines_bytes += c->lines_bytes;
}

/* A table may have CODE_PIECES_MAX pieces, but not many have more than one. */
static bool store_is_full(const struct code_store *s)
{
	return s->count > s->max_codes || s->lines_bytes / CODE_LINES_BYTES > s->max_codes;
}

/* The newest record stays: the stack that will refer to it is still to come. */
static void store_shrink(struct code_store *s)
{
	for (int i = 0; i < DROP_STEPS && store_is_full(s); i++) {
		struct python_code *c = s->oldest, *last = s->newest;

		if (c == last)
			return;
		if (__atomic_load_n(&c->references, __ATOMIC_ACQUIRE) == 1) {
			store_drop(s, c);
			continue;
		}
		/* In use: it has its turn again, but before the newest. */
		list_remove(s, last);
		list_remove(s, c);
		list_append(s, c);
		list_append(s, last);
	}
}

static int append_lines(struct python_code *c, const struct event_code *e)
{
	uint8_t *lines;

	if (!e->lines_bytes)
		return 0;
	lines = realloc(c->lines, c->lines_bytes + e->lines_bytes);
	if (!lines)
		return -ENOMEM;
	memcpy(lines + c->lines_bytes, e->lines, e->lines_bytes);
	c->lines = lines;
	c->lines_bytes += e->lines_bytes;
	return 0;
}

static struct python_code *code_new(int minor, const struct event_code *e)
{
	struct python_code *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->references = 1;
	c->minor = minor;
	c->address = e->code;
	c->first_line = e->first_line;
	c->lines_total = e->lines_total;
	c->file = unicode_to_utf8(&e->file, e->file_data, sizeof(e->file_data));
	c->function = unicode_to_utf8(&e->name, e->name_data, sizeof(e->name_data));
	if (!c->file || !c->function || append_lines(c, e)) {
		python_code_unref(c);
		return NULL;
	}
	return c;
}

static bool code_is_complete(const struct python_code *c)
{
	return c->lines_bytes == c->lines_total;
}

/* Whether @b, just announced with all it has, is what @a is: then stacks share one record. */
static bool code_equals(const struct python_code *a, const struct python_code *b)
{
	return code_is_complete(a) && code_is_complete(b) && a->lines_total == b->lines_total &&
	       a->first_line == b->first_line && !strcmp(a->file, b->file) &&
	       !strcmp(a->function, b->function) &&
	       (!a->lines_total || !memcmp(a->lines, b->lines, a->lines_total));
}

static int add_code(struct code_store *s, const struct event_code *e)
{
	struct python_code *known = *find_place(s, e->code);
	struct python_code *c = code_new(s->minor, e);

	if (!c)
		return -ENOMEM;
	if (known && code_equals(known, c)) {
		python_code_unref(c);
		list_remove(s, known);
		list_append(s, known);
		return 0;
	}
	if (known)
		store_drop(s, known);
	store_insert(s, c);
	store_shrink(s);
	return 0;
}

static int add_piece(struct code_store *s, const struct event_code *e)
{
	struct python_code *c = *find_place(s, e->code);
	uint32_t offset = e->piece * CODE_LINES_BYTES;

	if (!c)
		return -ENOENT;
	if (c->lines_total != e->lines_total || c->first_line != e->first_line) {
		/* Of another object, whose announcement was lost. */
		store_drop(s, c);
		return -ENOENT;
	}
	if (c->cut || offset < c->lines_bytes)
		return 0;
	if (offset > c->lines_bytes || append_lines(c, e))
		c->cut = true;
	else
		s->lines_bytes += e->lines_bytes;
	return 0;
}

int code_store_add(struct code_store *s, const struct event_code *e, size_t size)
{
	const size_t head = offsetof(struct event_code, lines);

	if (size < head || e->head.kind != EVENT_CODE || e->piece >= CODE_PIECES_MAX)
		return -EINVAL;
	if (e->lines_bytes > sizeof(e->lines) || e->lines_bytes > size - head)
		return -EINVAL;
	if (e->lines_bytes > e->lines_total ||
	    e->piece * CODE_LINES_BYTES > e->lines_total - e->lines_bytes)
		return -EINVAL;
	return e->piece ? add_piece(s, e) : add_code(s, e);
}

struct python_code *code_store_get(struct code_store *s, uint64_t address)
{
	struct python_code *c = *find_place(s, address);

	return c ? python_code_ref(c) : NULL;
}

const char *python_code_file(const struct python_code *c)
{
	return c->file;
}

const char *python_code_function(const struct python_code *c)
{
	return c->function;
}

uint32_t python_code_line(const struct python_code *c, uint32_t unit)
{
	return line_table_find(c->minor, c->lines, c->lines_bytes, code_is_complete(c),
			       c->first_line, unit);
}

static uint64_t hash_bytes(uint64_t h, const void *data, size_t size)
{
	const unsigned char *byte = data;

	for (size_t i = 0; i < size; i++)
		h = (h ^ byte[i]) * 0x100000001b3u;
	return h;
}

bool python_code_is_shim(const struct python_code *c)
{
	return !strcmp(c->file, "__init__") && !strcmp(c->function, "__init__");
}

uint64_t python_code_identity(const struct python_code *c)
{
	uint64_t h = 0xcbf29ce484222325u; /* FNV-1a; with the NULs, between which there are none */

	h = hash_bytes(h, c->file, strlen(c->file) + 1);
	h = hash_bytes(h, c->function, strlen(c->function) + 1);
	return hash_bytes(h, &c->first_line, sizeof(c->first_line));
}
