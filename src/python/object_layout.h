/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How CPython's objects, types and pools lie in memory (x86-64, builds with a GIL).
 * What is the same from 3.8 to 3.15 is a constant, the rest is by version. Sources are
 * CPython's Include/cpython/object.h, Include/cpython/unicodeobject.h,
 * Include/internal/pycore_dict.h (to 3.10 Objects/dict-common.h),
 * Include/internal/pycore_object.h and Include/internal/pycore_obmalloc.h (to 3.11
 * Objects/obmalloc.c).
 */
#ifndef LEAKTOP_OBJECT_LAYOUT_H
#define LEAKTOP_OBJECT_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
	/* PyObject, PyVarObject, PyGC_Head */
	OBJECT_TYPE = 8,
	OBJECT_SIZE = 16,
	GC_HEAD_BYTES = 16,
	/* PyTypeObject */
	TYPE_NAME = 24,
	TYPE_BASIC_SIZE = 32,
	TYPE_ITEM_SIZE = 40,
	TYPE_FLAGS = 168,
	TYPE_BASE = 256,
	TYPE_DICT = 264,
	TYPE_HEAD_BYTES = 272, /* all of the above */
	/* PyDictObject, PyListObject, PySetObject, PyByteArrayObject, dequeobject */
	DICT_KEYS = 32,
	DICT_VALUES = 40,
	LIST_ITEMS = 24,
	LIST_ALLOCATED = 32,
	SET_MASK = 32,
	SET_TABLE = 40,
	BYTEARRAY_ALLOCATED = 24,
	BYTEARRAY_BYTES = 32,
	DEQUE_LEFT_BLOCK = 24,
	DEQUE_RIGHT_BLOCK = 32,
	DEQUE_BLOCK_RIGHT_LINK = 520, /* BLOCKLEN is 64 */
	DEQUE_BLOCK_BYTES = 528,
	/* PyASCIIObject, PyBytesObject */
	STRING_LENGTH = 16,
	STRING_STATE = 32,
	BYTES_DATA = 32,
};

/* tp_flags, Include/object.h */
#define FLAG_HEAP_TYPE (1ull << 9)
#define FLAG_READY (1ull << 12)
#define FLAG_HAVE_GC (1ull << 14)
#define FLAG_LONG (1ull << 24)
#define FLAG_LIST (1ull << 25)
#define FLAG_TUPLE (1ull << 26)
#define FLAG_BYTES (1ull << 27)
#define FLAG_UNICODE (1ull << 28)
#define FLAG_DICT (1ull << 29)
#define FLAG_TYPE (1ull << 31)

/* PyASCIIObject.state: interned:2, kind:3, compact:1, ascii:1 in all versions */
static inline unsigned int string_kind(uint32_t state)
{
	return state >> 2 & 7;
}

static inline bool string_is_compact(uint32_t state)
{
	return state & 1u << 5;
}

static inline bool string_is_ascii(uint32_t state)
{
	return state & 1u << 6;
}

struct object_layout {
	int minor;
	uint32_t heap_qualname;	  /* PyHeapTypeObject.ht_qualname */
	uint32_t string_ascii;	  /* data of a compact ASCII str */
	uint32_t string_wide;	  /* data of other compact str */
	uint32_t string_utf8;	  /* PyCompactUnicodeObject.utf8 */
	uint64_t flag_pre_header; /* types with two words before the GC head; 0: none */
	uint64_t flag_inline;	  /* types with attribute values behind the object; 0: none */
	uint32_t pool_bits, arena_bits;
};

/* 3.8 to 3.15; -ENOTSUP for others and for free-threaded builds. */
int object_layout_by_version(int minor, bool free_threaded, struct object_layout *out);

/* Bytes between the start of the block and an object of a type with @flags. */
static inline unsigned int object_offset(const struct object_layout *l, uint64_t flags)
{
	return (flags & FLAG_HAVE_GC ? GC_HEAD_BYTES : 0) + (flags & l->flag_pre_header ? 16 : 0);
}

#define OBJECT_OFFSET_MAX 32

/*
 * Whether @word can be the reference count of a live object. To 3.11 it is a count of
 * pointers; from 3.12 the upper half is 0 (extensions of the stable interface may carry
 * into it); from 3.14 the upper half is {u16 overflow, u16 flags} (Include/object.h).
 */
bool object_refcount_is_live(const struct object_layout *l, uint64_t word);

static inline uint64_t word_at(const uint8_t *p)
{
	uint64_t word;

	memcpy(&word, p, sizeof(word));
	return word;
}

/* The head of a PyDictKeysObject. */
struct dict_keys {
	uint64_t entries;	 /* address of the first entry, relative to the keys */
	uint64_t used, capacity; /* entries */
	uint32_t entry_bytes;	 /* {hash, key, value} or {key, value} */
	uint32_t entry_key;	 /* offset of the key in an entry */
	uint64_t bytes;		 /* of all */
};

#define DICT_KEYS_HEAD_BYTES 40

/* Decodes @head of DICT_KEYS_HEAD_BYTES; false if it cannot be one. The reference count at
 * its beginning is not looked at. */
bool dict_keys_decode(const struct object_layout *l, const uint8_t *head, struct dict_keys *out);

#endif
