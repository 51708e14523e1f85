/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tells what a block of memory of a CPython process is: which type of object, or the
 * buffer of which object. Read from outside while the process runs, so every
 * pointer is checked strictly: a wrong type is worse than none.
 */
#ifndef LEAKTOP_PYTHON_TYPES_H
#define LEAKTOP_PYTHON_TYPES_H

#include <stddef.h>
#include <stdint.h>

struct interpreter;
struct type_reader;

#define TYPE_UNKNOWN 0u

struct typed_block {
	uint64_t address;    /* of the block, as the allocator gave it */
	uint64_t size_bytes; /* 0: not known; then out: what the object in it says, 0: none */
	uint32_t type;	     /* out: number of its type, TYPE_UNKNOWN: could not be told */
};

/* @i is copied. NULL: out of memory. Types are remembered between calls. */
struct type_reader *type_reader_new(const struct interpreter *i);
void type_reader_free(struct type_reader *r);

/*
 * Fills in the types of @count blocks (any order; sorted by address inside). Buffers
 * that one of the blocks' objects points to get types such as "list items",
 * "dict keys", "dict values", "set table", "bytearray data". 0 or negative errno
 * (-ESRCH: the process is gone; types stay TYPE_UNKNOWN).
 */
int type_reader_read(struct type_reader *r, struct typed_block *blocks, size_t count);

/* The same, and @buffers, for the caller to free: buffers that objects in the blocks point to
 * but that are none of the blocks, in order of their addresses. */
int type_reader_read_buffers(struct type_reader *r, struct typed_block *blocks, size_t count,
			     struct typed_block **buffers, size_t *buffer_count);

/* "module.Qualname" (builtins without module: "dict"), UTF-8, unescaped, cut at 255 bytes.
 * Lives as long as @r. @type TYPE_UNKNOWN: "(unknown)". */
const char *type_reader_name(const struct type_reader *r, uint32_t type);
uint32_t type_reader_count(const struct type_reader *r); /* one past the highest number */

#endif
