/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A word is believed to be the address of a type only if what lies there looks like one
 * and its own type is a type again, and so on up to PyType_Type, which is its own type
 * and lies in the same binary as _PyRuntime.
 *
 * Types of classes die and others take their place, so what was found is checked again,
 * once a round, before it is used.
 */
#include "python/type_table.h"

#include <errno.h>
#include <stdlib.h>

#include "python/object_reader.h"
#include "python/type_names.h"
#include "target/memory.h"

#define DEPTH_MAX 64 /* of metaclasses and bases */
#define SLOTS_MIN (1u << 12)
#define SLOTS_MAX (1u << 22)
#define TYPES_MAX (1u << 20)
#define BASIC_BYTES_MAX (1u << 24)
#define ITEM_BYTES_MAX (1u << 20)
#define BINARY_BYTES_MAX (1ull << 28) /* PyType_Type is no further from _PyRuntime */
#define HEADS_A_READ 256
#define USER_SPACE_END (1ull << 47)

#define NOT_A_TYPE UINT32_MAX
#define QUEUED (UINT32_MAX - 1)

struct type_slot {
	uint64_t address; /* 0: free */
	uint32_t index;	  /* in types[], or the above */
};

struct type_table {
	pid_t pid;
	uint64_t runtime, root; /* root: PyType_Type; 0: not seen yet */
	struct object_layout layout;
	struct type_names *names;
	struct type_slot *slots;
	uint32_t slot_mask, slots_used;
	struct python_type *types;
	uint32_t type_count, type_room;
	uint64_t *queue;
	uint32_t queue_count, queue_room;
	uint32_t round;
	uint8_t heads[HEADS_A_READ][TYPE_HEAD_BYTES]; /* of those being loaded */
};

static struct type_slot *slot_of(struct type_slot *slots, uint32_t mask, uint64_t address)
{
	uint32_t at = (uint32_t)(address * 0x9e3779b97f4a7c15ull >> 32) & mask;

	while (slots[at].address && slots[at].address != address)
		at = (at + 1) & mask;
	return &slots[at];
}

/* Moves to a table of @size slots; what is no type is forgotten on the way if not @all. */
static int resize_slots(struct type_table *t, uint32_t size, bool all)
{
	struct type_slot *slots = calloc(size, sizeof(*slots));
	uint32_t used = 0;

	if (!slots)
		return -ENOMEM;
	for (uint32_t i = 0; t->slots && i <= t->slot_mask; i++) {
		const struct type_slot *s = &t->slots[i];

		if (!s->address || (!all && s->index == NOT_A_TYPE))
			continue;
		*slot_of(slots, size - 1, s->address) = *s;
		used++;
	}
	free(t->slots);
	t->slots = slots;
	t->slot_mask = size - 1;
	t->slots_used = used;
	return 0;
}

struct type_table *type_table_new(pid_t pid, uint64_t runtime, const struct object_layout *l,
				  struct type_names *names)
{
	struct type_table *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->pid = pid;
	t->runtime = runtime;
	t->layout = *l;
	t->names = names;
	if (resize_slots(t, SLOTS_MIN, true)) {
		free(t);
		return NULL;
	}
	return t;
}

void type_table_free(struct type_table *t)
{
	if (!t)
		return;
	free(t->slots);
	free(t->types);
	free(t->queue);
	free(t);
}

void type_table_begin(struct type_table *t)
{
	uint32_t size = SLOTS_MIN;

	t->round++;
	t->queue_count = 0;
	if (t->type_count >= TYPES_MAX / 2) {
		memset(t->slots, 0, (t->slot_mask + 1ull) * sizeof(*t->slots));
		t->slots_used = 0;
		t->type_count = 0;
	}
	while (size < t->type_count * 4ull)
		size *= 2;
	/* Without memory they stay known as none: only a new type would be missed. */
	resize_slots(t, size, false);
}

/* A free slot for @address, or the one it has; NULL: no room. */
static struct type_slot *slot_take(struct type_table *t, uint64_t address)
{
	uint64_t size = t->slot_mask + 1ull;
	struct type_slot *s;

	if (t->slots_used * 2ull >= size) {
		if (resize_slots(t, size < SLOTS_MAX ? size * 2 : size, size < SLOTS_MAX))
			return NULL;
		if (t->slots_used * 4ull >= (t->slot_mask + 1ull) * 3)
			return NULL;
	}
	s = slot_of(t->slots, t->slot_mask, address);
	if (!s->address) {
		*s = (struct type_slot){address, NOT_A_TYPE};
		t->slots_used++;
	}
	return s;
}

static bool is_address(uint64_t word)
{
	return word >= 4096 && word < USER_SPACE_END && !(word & 7);
}

static int enqueue(struct type_table *t, uint64_t address)
{
	if (t->queue_count == t->queue_room) {
		uint32_t room = t->queue_room ? t->queue_room * 2 : 1024;
		uint64_t *queue = realloc(t->queue, room * sizeof(*queue));

		if (!queue)
			return -ENOMEM;
		t->queue = queue;
		t->queue_room = room;
	}
	t->queue[t->queue_count++] = address;
	return 0;
}

bool type_table_want(struct type_table *t, uint64_t address)
{
	struct type_slot *s;

	if (!is_address(address))
		return true;
	s = slot_of(t->slots, t->slot_mask, address);
	if (s->address && s->index == QUEUED)
		return false;
	if (s->address && (s->index == NOT_A_TYPE || t->types[s->index].round == t->round))
		return true;
	if (s->address && t->types[s->index].queued)
		return false;
	if (!s->address)
		s = slot_take(t, address);
	if (!s || enqueue(t, address))
		return true;
	if (s->index == NOT_A_TYPE)
		s->index = QUEUED;
	else
		t->types[s->index].queued = true;
	return false;
}

const struct python_type *type_table_find(const struct type_table *t, uint64_t address)
{
	const struct type_slot *s;

	if (!is_address(address))
		return NULL;
	s = slot_of(t->slots, t->slot_mask, address);
	return s->address && s->index < QUEUED ? &t->types[s->index] : NULL;
}

static uint64_t identity_of(const struct type_table *t, const uint8_t *head)
{
	uint64_t lasting = FLAG_HEAP_TYPE | FLAG_READY | FLAG_HAVE_GC | 0xffull << 24 |
			   t->layout.flag_pre_header | t->layout.flag_inline;
	uint64_t words[] = {word_at(head + OBJECT_TYPE),	 word_at(head + TYPE_NAME),
			    word_at(head + TYPE_BASIC_SIZE),	 word_at(head + TYPE_ITEM_SIZE),
			    word_at(head + TYPE_BASE),		 word_at(head + TYPE_DICT),
			    word_at(head + TYPE_FLAGS) & lasting};
	uint64_t h = 0;

	for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
		h = ((h ^ words[i]) * 0x9e3779b97f4a7c15ull) ^ h >> 29;
	return h;
}

static bool head_is_sane(const struct type_table *t, const uint8_t *head)
{
	return object_refcount_is_live(&t->layout, word_at(head)) &&
	       is_address(word_at(head + OBJECT_TYPE)) && word_at(head + TYPE_NAME) >= 4096 &&
	       word_at(head + TYPE_BASIC_SIZE) >= 16 &&
	       word_at(head + TYPE_BASIC_SIZE) <= BASIC_BYTES_MAX &&
	       word_at(head + TYPE_ITEM_SIZE) <= ITEM_BYTES_MAX &&
	       word_at(head + TYPE_FLAGS) & FLAG_READY;
}

static const struct python_type *resolve(struct type_table *t, uint64_t address,
					 unsigned int depth);

/* PyType_Type is the only type whose type it is itself. */
static bool root_is(struct type_table *t, uint64_t address, const uint8_t *head, const char *name)
{
	uint64_t distance = address > t->runtime ? address - t->runtime : t->runtime - address;

	if (t->root)
		return address == t->root;
	if (strcmp(name, "type") || distance > BINARY_BYTES_MAX ||
	    !(word_at(head + TYPE_FLAGS) & FLAG_TYPE) ||
	    word_at(head + TYPE_FLAGS) & FLAG_HEAP_TYPE)
		return false;
	t->root = address;
	return true;
}

static bool metatype_is(struct type_table *t, uint64_t address, const uint8_t *head,
			const char *name, unsigned int depth)
{
	uint64_t meta = word_at(head + OBJECT_TYPE);
	const struct python_type *m;

	if (meta == address)
		return root_is(t, address, head, name);
	/* Also while it is being looked at itself: its base is an object of it. */
	if (meta == t->root)
		return true;
	m = resolve(t, meta, depth + 1);
	return m && m->flags & FLAG_TYPE;
}

static enum type_owner owner_of(uint64_t flags, const char *name)
{
	if (flags & FLAG_LIST)
		return OWNER_LIST;
	if (flags & FLAG_DICT)
		return OWNER_DICT;
	if (flags & FLAG_UNICODE)
		return OWNER_STRING;
	/* A heap type from 3.12 on. */
	if (!strcmp(name, "collections.deque"))
		return OWNER_DEQUE;
	if (flags & FLAG_HEAP_TYPE)
		return OWNER_NONE;
	if (!strcmp(name, "set") || !strcmp(name, "frozenset"))
		return OWNER_SET;
	return strcmp(name, "bytearray") ? OWNER_NONE : OWNER_BYTEARRAY;
}

static int types_add(struct type_table *t, uint32_t *index)
{
	if (t->type_count == t->type_room) {
		uint32_t room = t->type_room ? t->type_room * 2 : 256;
		struct python_type *types;

		if (room > TYPES_MAX)
			return -ENOMEM;
		types = realloc(t->types, room * sizeof(*types));
		if (!types)
			return -ENOMEM;
		t->types = types;
		t->type_room = room;
	}
	*index = t->type_count++;
	return 0;
}

/* Without a time zone these are allocated shorter than their tp_basicsize, also for
 * subclasses (Modules/_datetimemodule.c, time_alloc(), datetime_alloc()). */
static uint8_t shortfall_of(uint64_t flags, const char *name)
{
	bool is_short = !strcmp(name, "datetime.datetime") || !strcmp(name, "datetime.time");

	return is_short && !(flags & FLAG_HEAP_TYPE) ? 8 : 0;
}

static void describe(struct type_table *t, uint64_t address, const uint8_t *head, const char *name,
		     unsigned int depth, struct python_type *out)
{
	uint64_t flags = word_at(head + TYPE_FLAGS), base = word_at(head + TYPE_BASE);
	const struct python_type *b = is_address(base) ? resolve(t, base, depth + 1) : NULL;

	*out = (struct python_type){
		.address = address,
		.flags = flags,
		.basic_bytes = word_at(head + TYPE_BASIC_SIZE),
		.item_bytes = word_at(head + TYPE_ITEM_SIZE),
		.base = base,
		.identity = identity_of(t, head),
		.number = type_names_number(t->names, name),
		.round = t->round,
		.offset = (uint8_t)object_offset(&t->layout, flags),
		.shortfall = b && b->shortfall ? b->shortfall : shortfall_of(flags, name),
		.owner = (uint8_t)(b && b->owner ? b->owner : owner_of(flags, name)),
	};
}

/* Decides what lies at @address, whose first bytes are @head. */
static void parse(struct type_table *t, uint64_t address, const uint8_t *head, unsigned int depth)
{
	struct type_slot *s = slot_take(t, address);
	uint32_t index = s ? s->index : NOT_A_TYPE;
	struct python_type type;
	char name[512];

	if (!s)
		return;
	if (index < QUEUED && t->types[index].identity == identity_of(t, head)) {
		t->types[index].round = t->round;
		t->types[index].queued = false;
		return;
	}
	/* A type that depends on itself finds that it is none. */
	s->index = NOT_A_TYPE;
	if (!head_is_sane(t, head) ||
	    object_read_type_name(t->pid, &t->layout, address, head, name, sizeof(name)) ||
	    !metatype_is(t, address, head, name, depth))
		return;
	describe(t, address, head, name, depth, &type);
	if (index >= QUEUED && types_add(t, &index))
		return;
	t->types[index] = type;
	s = slot_take(t, address);
	if (s)
		s->index = index;
}

static const struct python_type *resolve(struct type_table *t, uint64_t address, unsigned int depth)
{
	uint8_t head[TYPE_HEAD_BYTES];
	const struct type_slot *s;

	if (!is_address(address))
		return NULL;
	s = slot_of(t->slots, t->slot_mask, address);
	if (s->address && s->index < QUEUED && t->types[s->index].round == t->round)
		return &t->types[s->index];
	if (s->address && s->index == NOT_A_TYPE)
		return NULL;
	if (depth > DEPTH_MAX || memory_read(t->pid, address, head, sizeof(head)))
		return NULL;
	parse(t, address, head, depth);
	return type_table_find(t, address);
}

static void forget(struct type_table *t, uint64_t address)
{
	struct type_slot *s = slot_of(t->slots, t->slot_mask, address);

	if (s->address)
		s->index = NOT_A_TYPE;
}

/* Those that another one has needed are known already. */
static bool is_decided(const struct type_table *t, uint64_t address)
{
	const struct type_slot *s = slot_of(t->slots, t->slot_mask, address);

	return s->address && s->index != QUEUED &&
	       (s->index == NOT_A_TYPE || t->types[s->index].round == t->round);
}

static int load_some(struct type_table *t, const uint64_t *addresses, size_t count)
{
	struct memory_piece pieces[HEADS_A_READ];
	int err;

	for (size_t i = 0; i < count; i++)
		pieces[i] = (struct memory_piece){addresses[i], t->heads[i], TYPE_HEAD_BYTES, 0};
	err = memory_read_many(t->pid, pieces, count);
	if (err)
		return err;
	for (size_t i = 0; i < count; i++) {
		if (pieces[i].err)
			forget(t, addresses[i]);
		else if (!is_decided(t, addresses[i]))
			parse(t, addresses[i], t->heads[i], 0);
	}
	return 0;
}

int type_table_load(struct type_table *t)
{
	int err = 0;

	for (uint32_t i = 0; i < t->queue_count; i += HEADS_A_READ) {
		uint32_t n = t->queue_count - i;

		if (!err)
			err = load_some(t, t->queue + i, n < HEADS_A_READ ? n : HEADS_A_READ);
		for (uint32_t k = i; err && k < i + HEADS_A_READ && k < t->queue_count; k++)
			forget(t, t->queue[k]);
	}
	t->queue_count = 0;
	return err;
}
