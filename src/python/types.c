/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * First each block for itself: an object lies at the start of its block, or behind the
 * collector's head, or behind two more words before that; its type says which, so
 * a pointer to a type at the wrong place is none. Blocks that are no objects are then
 * given to the owners that were seen to point to them.
 *
 * Objects on CPython's own free lists are neither free for the allocator nor live:
 * their reference count is 0, or from 3.14 on holds the link of the list.
 */
#include "python/types.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#include "python/block_windows.h"
#include "python/interpreter.h"
#include "python/key_sort.h"
#include "python/object_layout.h"
#include "python/type_names.h"
#include "python/type_table.h"
#include "target/memory.h"

#define DEQUE_BLOCKS_MAX (1u << 20) /* links followed in a call */
#define VALUES_PREFIX_MAX 40	    /* before the values of a split table in 3.11 and 3.12 */
#define OVERSIZE_MAX 24		    /* beyond what the type says; rounding */
#define INLINE_VALUES_MAX 320
#define BYTES_MAX (1ull << 47) /* of anything */

enum buffer_kind {
	BUFFER_LIST = 0,
	BUFFER_KEYS,
	BUFFER_VALUES,
	BUFFER_SET,
	BUFFER_BYTEARRAY,
	BUFFER_DEQUE,
	BUFFER_STRING,
	BUFFER_UTF8,
	BUFFER_FREE_LIST,
	BUFFER_KINDS,
};

static const char *const buffer_names[BUFFER_KINDS] = {
	"list items", "dict keys",	"dict values",
	"set table",  "bytearray data", "collections.deque block",
	"str data",   "str utf-8",	"(free list)",
};

/* Buffers that objects point to: by address; value: bytes << 8 | enum buffer_kind. */
struct claims {
	struct keyed *items;
	size_t count, room;
};

/* What was seen to own buffers; deques: from the first block to the last one. */
struct owners {
	struct claims buffers, deques;
};

struct type_reader {
	pid_t pid;
	bool supported;
	struct object_layout layout;
	struct type_names *names;
	struct type_table *table;
	uint32_t numbers[BUFFER_KINDS];
};

struct type_reader *type_reader_new(const struct interpreter *i)
{
	struct type_reader *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->pid = i->pid;
	r->supported = !object_layout_by_version(i->minor, i->free_threaded, &r->layout);
	r->names = type_names_new();
	if (r->names)
		r->table = type_table_new(i->pid, i->runtime, &r->layout, r->names);
	for (int k = 0; r->table && k < BUFFER_KINDS; k++)
		r->numbers[k] = type_names_number(r->names, buffer_names[k]);
	if (!r->table || !r->numbers[BUFFER_KINDS - 1]) {
		type_reader_free(r);
		return NULL;
	}
	return r;
}

void type_reader_free(struct type_reader *r)
{
	if (!r)
		return;
	type_table_free(r->table);
	type_names_free(r->names);
	free(r);
}

const char *type_reader_name(const struct type_reader *r, uint32_t type)
{
	return type_names_at(r->names, type);
}

uint32_t type_reader_count(const struct type_reader *r)
{
	return type_names_count(r->names);
}

static enum buffer_kind claim_kind(const struct keyed *claim)
{
	return claim->value & 0xff;
}

static uint64_t claim_bytes(const struct keyed *claim)
{
	return claim->value >> 8;
}

static uint64_t claim_value(enum buffer_kind kind, uint64_t bytes)
{
	return (bytes < BYTES_MAX ? bytes << 8 : 0) | kind;
}

/* Without memory the buffer stays unknown. */
static void claim(struct claims *c, uint64_t address, uint64_t value)
{
	if (address < 4096)
		return;
	if (c->count == c->room) {
		size_t room = c->room ? c->room * 2 : 1024;
		struct keyed *items = realloc(c->items, room * sizeof(*items));

		if (!items)
			return;
		c->items = items;
		c->room = room;
	}
	c->items[c->count++] = (struct keyed){address, value};
}

/* Bytes of the str at @object; 0: it is not sound. */
static uint64_t string_bytes(const struct object_layout *l, const struct python_type *t,
			     const uint8_t *object, uint64_t room)
{
	uint64_t length = word_at(object + STRING_LENGTH);
	uint32_t state;

	memcpy(&state, object + STRING_STATE, sizeof(state));
	if (length > room)
		return 0;
	if (!string_is_compact(state))
		return t->basic_bytes;
	if (string_is_ascii(state))
		return string_kind(state) == 1 ? l->string_ascii + length + 1 : 0;
	return l->string_wide + (length + 1) * string_kind(state);
}

/* Items of a variable-size object that are known to be counted in ob_size. */
static uint64_t counted_items(const struct object_layout *l, const struct python_type *t,
			      const uint8_t *object)
{
	uint64_t size = word_at(object + OBJECT_SIZE);

	if (t->flags & (FLAG_TUPLE | FLAG_BYTES))
		return size;
	if (!(t->flags & FLAG_LONG))
		return 0;
	/* The sign is in ob_size, from 3.12 in the low bits of lv_tag. */
	if (l->minor >= 12)
		return size >> 3;
	return (int64_t)size < 0 ? -size : size;
}

/* Bytes of the object of type @t whose first bytes are @object, if it has @room at most;
 * 0: it cannot be one. */
static uint64_t object_bytes(const struct object_layout *l, const struct python_type *t,
			     const uint8_t *object, uint64_t room)
{
	uint64_t items;

	if (t->flags & FLAG_UNICODE)
		return room < STRING_STATE + 8 ? 0 : string_bytes(l, t, object, room);
	if (!t->item_bytes || room < OBJECT_SIZE + 8)
		return t->basic_bytes - t->shortfall;
	items = counted_items(l, t, object);
	return items > room ? 0 : t->basic_bytes + items * t->item_bytes;
}

/* Whether an object of @need bytes explains a block that has @room for it. */
static bool object_fits(const struct object_layout *l, const struct python_type *t, uint64_t need,
			uint64_t room)
{
	uint64_t slack = OVERSIZE_MAX + (t->flags & l->flag_inline ? INLINE_VALUES_MAX : 0);

	if (!need || need > room)
		return false;
	return room == BYTES_MAX || t->item_bytes || t->flags & FLAG_UNICODE ||
	       room - need <= slack;
}

/* The link of a free list in place of the reference count. */
static bool is_link(const struct object_layout *l, uint64_t word)
{
	return !word || (l->minor >= 14 && word >= 1ull << 16 && word < 1ull << 47 && !(word & 15));
}

/* What pointer there is @at bytes into the block, if it has so many. */
static uint64_t pointer_at(const uint8_t *bytes, size_t have, size_t at)
{
	return at + 8 <= have ? word_at(bytes + at) : 0;
}

/* Attribute values outside of their object, to 3.12 (Include/internal/pycore_object.h). */
static void claim_instance_values(const struct object_layout *l, const struct python_type *t,
				  const uint8_t *bytes, struct claims *c)
{
	if (!(t->flags & 1 << 4) || t->offset != 32)
		return;
	if (l->minor == 11)
		claim(c, word_at(bytes), BUFFER_VALUES);
	else if (l->minor == 12 && word_at(bytes + 8) & 1)
		claim(c, word_at(bytes + 8) + 1, BUFFER_VALUES);
}

/* Subclasses have their characters elsewhere; others may keep a copy in UTF-8. */
static void claim_characters(const struct object_layout *l, const uint8_t *object, size_t have,
			     struct claims *c)
{
	uint32_t state;

	if (have < l->string_utf8 + 8)
		return;
	memcpy(&state, object + STRING_STATE, sizeof(state));
	if (!string_is_compact(state))
		claim(c, pointer_at(object, have, l->string_wide), BUFFER_STRING);
	else if (!string_is_ascii(state))
		claim(c, word_at(object + l->string_utf8), BUFFER_UTF8);
}

static void claim_buffers(const struct object_layout *l, const struct python_type *t,
			  const uint8_t *bytes, size_t have, struct owners *o)
{
	struct claims *c = &o->buffers;
	size_t at = t->offset;
	uint64_t word;

	claim_instance_values(l, t, bytes, c);
	switch ((enum type_owner)t->owner) {
	case OWNER_LIST:
		claim(c, pointer_at(bytes, have, at + LIST_ITEMS),
		      claim_value(BUFFER_LIST, 8 * pointer_at(bytes, have, at + LIST_ALLOCATED)));
		break;
	case OWNER_DICT:
		claim(c, pointer_at(bytes, have, at + DICT_KEYS), BUFFER_KEYS);
		claim(c, pointer_at(bytes, have, at + DICT_VALUES), BUFFER_VALUES);
		break;
	case OWNER_SET:
		claim(c, pointer_at(bytes, have, at + SET_TABLE),
		      claim_value(BUFFER_SET, 16 * (pointer_at(bytes, have, at + SET_MASK) + 1)));
		break;
	case OWNER_BYTEARRAY:
		/* In a bytes object from 3.15 on. */
		word = pointer_at(bytes, have, at + BYTEARRAY_BYTES);
		claim(c, l->minor >= 15 && word ? word - BYTES_DATA : word,
		      claim_value(BUFFER_BYTEARRAY,
				  pointer_at(bytes, have, at + BYTEARRAY_ALLOCATED)));
		break;
	case OWNER_DEQUE:
		claim(&o->deques, pointer_at(bytes, have, at + DEQUE_LEFT_BLOCK),
		      pointer_at(bytes, have, at + DEQUE_RIGHT_BLOCK));
		break;
	case OWNER_STRING:
		claim_characters(l, bytes + at, have - at, c);
		break;
	case OWNER_NONE:
		break;
	}
}

/* How much is known of a block; its size may not be known. */
static uint64_t block_room(const struct typed_block *b)
{
	return b->size_bytes ? b->size_bytes : BYTES_MAX;
}

/* Whether the block, whose first bytes are @bytes, is an object at @offset. */
static bool read_object(const struct type_reader *r, struct typed_block *b, const uint8_t *bytes,
			unsigned int offset, struct owners *o)
{
	const uint8_t *object = bytes + offset;
	const struct python_type *t = type_table_find(r->table, word_at(object + OBJECT_TYPE));
	uint64_t count = word_at(object), room = block_room(b), need;

	if (!t || t->offset != offset)
		return false;
	need = object_bytes(&r->layout, t, object, room == BYTES_MAX ? room : room - offset);
	if (!object_fits(&r->layout, t, need, room == BYTES_MAX ? room : room - offset))
		return false;
	if (!object_refcount_is_live(&r->layout, count)) {
		if (!is_link(&r->layout, count) || t->flags & FLAG_HEAP_TYPE || !b->size_bytes)
			return false;
		b->type = r->numbers[BUFFER_FREE_LIST];
		return true;
	}
	claim_buffers(&r->layout, t, bytes, room < BLOCK_BYTES_READ ? room : BLOCK_BYTES_READ, o);
	b->type = t->number;
	if (!b->size_bytes)
		b->size_bytes = offset + need;
	return true;
}

/* A table tells by itself that it is one. */
static uint32_t keys_type(const struct type_reader *r, const uint8_t *bytes, uint64_t size)
{
	struct dict_keys k;
	uint64_t count;

	if (size < DICT_KEYS_HEAD_BYTES || !dict_keys_decode(&r->layout, bytes, &k) ||
	    k.bytes > size)
		return TYPE_UNKNOWN;
	count = word_at(bytes);
	if (object_refcount_is_live(&r->layout, count))
		return r->numbers[BUFFER_KEYS];
	return is_link(&r->layout, count) ? r->numbers[BUFFER_FREE_LIST] : TYPE_UNKNOWN;
}

static void read_block(const struct type_reader *r, struct typed_block *b, const uint8_t *bytes,
		       struct owners *o)
{
	for (unsigned int at = 0; at <= OBJECT_OFFSET_MAX && at + 16 <= block_room(b); at += 16)
		if (read_object(r, b, bytes, at, o))
			return;
	b->type = keys_type(r, bytes, b->size_bytes);
}

/* Asks for what may be types in the block. True: nothing remains to be loaded. */
static bool want_types(struct type_reader *r, const struct typed_block *b, const uint8_t *bytes)
{
	bool ready = true;

	for (unsigned int at = 0; at <= OBJECT_OFFSET_MAX && at + 16 <= block_room(b); at += 16) {
		uint64_t count = word_at(bytes + at);

		/* Links are pointers like others: their types are known from live objects. */
		if (object_refcount_is_live(&r->layout, count) || !count)
			ready &= type_table_want(r->table, word_at(bytes + at + OBJECT_TYPE));
	}
	return ready;
}

/* Types of one batch: at once where the types are known, the rest after loading them. */
static int read_batch(struct type_reader *r, const struct block_windows *w,
		      struct typed_block *const *blocks, size_t count, uint32_t *later,
		      struct owners *o)
{
	size_t waiting = 0;
	int err;

	for (size_t i = 0; i < count; i++) {
		const uint8_t *bytes = block_windows_at(w, i);

		if (!bytes)
			continue;
		if (want_types(r, blocks[i], bytes))
			read_block(r, blocks[i], bytes, o);
		else
			later[waiting++] = (uint32_t)i;
	}
	err = type_table_load(r->table);
	for (size_t i = 0; !err && i < waiting; i++)
		read_block(r, blocks[later[i]], block_windows_at(w, later[i]), o);
	return err;
}

static int read_objects(struct type_reader *r, struct typed_block *const *blocks, size_t count,
			struct owners *o)
{
	struct block_windows *w = block_windows_new(r->pid, blocks, count);
	uint32_t *later = malloc(BLOCKS_A_BATCH * sizeof(*later));
	ssize_t n = -ENOMEM;
	size_t first;
	int err = 0;

	while (w && later && !err) {
		n = block_windows_next(w, &first);
		if (n <= 0)
			break;
		err = read_batch(r, w, blocks + first, (size_t)n, later, o);
	}
	free(later);
	block_windows_free(w);
	return err ? err : (int)n;
}

/* Where in @blocks, from @from on, the last one at or before @address is. */
static size_t block_before(struct typed_block *const *blocks, size_t count, size_t from,
			   uint64_t address)
{
	while (from + 1 < count && blocks[from + 1]->address <= address)
		from++;
	return from;
}

/* Whether the buffer at @address is block @b. In 3.11 and 3.12 the values of a split
 * table are behind a prefix of their block. */
static bool claim_fits(const struct type_reader *r, const struct keyed *c,
		       const struct typed_block *b)
{
	uint64_t prefix = c->key - b->address;

	if (c->key < b->address)
		return false;
	if (!prefix)
		return true;
	return claim_kind(c) == BUFFER_VALUES && (r->layout.minor == 11 || r->layout.minor == 12) &&
	       prefix <= VALUES_PREFIX_MAX && prefix < b->size_bytes && b->type == TYPE_UNKNOWN;
}

/* Gives blocks to those who claim them; what is left of the claims are those that are for
 * none of the blocks. */
static int give_buffers(const struct type_reader *r, struct typed_block *const *blocks,
			size_t count, struct claims *c)
{
	int err = key_sort(c->items, c->count);
	size_t at = 0, left = 0;

	for (size_t i = 0; !err && i < c->count; i++) {
		const struct keyed *item = &c->items[i];

		at = block_before(blocks, count, at, item->key);
		if (claim_fits(r, item, blocks[at]))
			blocks[at]->type = r->numbers[claim_kind(item)];
		else if (!left || c->items[left - 1].key != item->key)
			c->items[left++] = *item;
	}
	c->count = err ? 0 : left;
	return err;
}

/* Follows the blocks of each deque to the right; the link of the last one is not set. */
static int claim_deque_blocks(const struct type_reader *r, struct owners *o)
{
	size_t left = DEQUE_BLOCKS_MAX;
	int err = 0;

	for (size_t i = 0; i < o->deques.count && err != -ESRCH; i++) {
		uint64_t at = o->deques.items[i].key, last = o->deques.items[i].value;

		claim(&o->buffers, at, claim_value(BUFFER_DEQUE, DEQUE_BLOCK_BYTES));
		for (err = 0; at != last && !err && left; left--) {
			err = memory_read_u64(r->pid, at + DEQUE_BLOCK_RIGHT_LINK, &at);
			if (!err)
				claim(&o->buffers, at,
				      claim_value(BUFFER_DEQUE, DEQUE_BLOCK_BYTES));
		}
	}
	return err == -ESRCH ? err : 0;
}

static int read_sorted(struct type_reader *r, struct typed_block *const *blocks, size_t count,
		       struct owners *o)
{
	int err;

	type_table_begin(r->table);
	err = read_objects(r, blocks, count, o);
	if (!err)
		err = claim_deque_blocks(r, o);
	return err ? err : give_buffers(r, blocks, count, &o->buffers);
}

/* How large the tables at @claims are, only they themselves say. */
static int read_keys_bytes(const struct type_reader *r, struct claims *c)
{
	uint8_t head[DICT_KEYS_HEAD_BYTES];
	struct dict_keys k;
	int err;

	for (size_t i = 0; i < c->count; i++) {
		struct keyed *item = &c->items[i];

		if (claim_kind(item) != BUFFER_KEYS)
			continue;
		err = memory_read(r->pid, item->key, head, sizeof(head));
		if (err && err != -EFAULT)
			return err;
		if (!err && dict_keys_decode(&r->layout, head, &k))
			item->value = claim_value(BUFFER_KEYS, k.bytes);
	}
	return 0;
}

static int make_buffers(const struct type_reader *r, struct claims *c, struct typed_block **out)
{
	struct typed_block *buffers;
	int err = read_keys_bytes(r, c);

	if (err)
		return err;
	buffers = calloc(c->count + 1, sizeof(*buffers));
	if (!buffers)
		return -ENOMEM;
	for (size_t i = 0; i < c->count; i++)
		buffers[i] = (struct typed_block){c->items[i].key, claim_bytes(&c->items[i]),
						  r->numbers[claim_kind(&c->items[i])]};
	*out = buffers;
	return 0;
}

/* Pointers to the blocks by address; NULL: out of memory. */
static struct typed_block **sort_blocks(struct typed_block *blocks, size_t count)
{
	struct typed_block **sorted = malloc(count * sizeof(*sorted));
	struct keyed *keys = NULL;
	size_t i = 1;

	while (i < count && blocks[i - 1].address <= blocks[i].address)
		i++;
	if (i < count)
		keys = malloc(count * sizeof(*keys));
	for (size_t k = 0; keys && k < count; k++)
		keys[k] = (struct keyed){blocks[k].address, k};
	if (!sorted || (i < count && (!keys || key_sort(keys, count)))) {
		free(sorted);
		free(keys);
		return NULL;
	}
	for (size_t k = 0; k < count; k++)
		sorted[k] = &blocks[keys ? keys[k].value : k];
	free(keys);
	return sorted;
}

int type_reader_read(struct type_reader *r, struct typed_block *blocks, size_t count)
{
	return type_reader_read_buffers(r, blocks, count, NULL, NULL);
}

int type_reader_read_buffers(struct type_reader *r, struct typed_block *blocks, size_t count,
			     struct typed_block **buffers, size_t *buffer_count)
{
	struct typed_block **sorted = NULL;
	struct owners o = {0};
	int err = 0;

	for (size_t i = 0; i < count; i++)
		blocks[i].type = TYPE_UNKNOWN;
	if (count && r->supported) {
		sorted = sort_blocks(blocks, count);
		err = sorted ? read_sorted(r, sorted, count, &o) : -ENOMEM;
	}
	if (!err && buffers) {
		err = make_buffers(r, &o.buffers, buffers);
		if (!err)
			*buffer_count = o.buffers.count;
	}
	free(o.buffers.items);
	free(o.deques.items);
	free(sorted);
	return err;
}
