/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The types of a CPython process, by the address of the type object: read once, checked,
 * remembered. Which words are type objects is asked in batches: first type_table_want()
 * for all, then type_table_load(), then type_table_find().
 */
#ifndef LEAKTOP_TYPE_TABLE_H
#define LEAKTOP_TYPE_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "python/object_layout.h"

struct type_names;
struct type_table;

/* Types that own buffers; subclasses own them too. */
enum type_owner {
	OWNER_NONE = 0,
	OWNER_LIST,
	OWNER_DICT,
	OWNER_SET,
	OWNER_BYTEARRAY,
	OWNER_DEQUE,
	OWNER_STRING,
};

struct python_type {
	uint64_t address;
	uint64_t flags, basic_bytes, item_bytes, base;
	uint64_t identity; /* changes when another type lives at the address */
	uint32_t number;   /* of its name */
	uint32_t round;	   /* of the table when it was checked last */
	uint8_t offset;	   /* of an object in its block */
	uint8_t shortfall; /* bytes by which an object may be smaller than basic_bytes */
	uint8_t owner;	   /* enum type_owner */
	bool queued;	   /* to be checked again */
};

/* NULL: out of memory. @runtime: address of _PyRuntime. @names is borrowed, @l copied. */
struct type_table *type_table_new(pid_t pid, uint64_t runtime, const struct object_layout *l,
				  struct type_names *names);
void type_table_free(struct type_table *t);

/* What was no type may be one from now on, and types are looked at again when wanted. */
void type_table_begin(struct type_table *t);
/* True: @address is decided on: type_table_find() says what it is. False: it is queued for
 * type_table_load(). */
bool type_table_want(struct type_table *t, uint64_t address);
/* 0, -ENOMEM, or -ESRCH: the process is gone. */
int type_table_load(struct type_table *t);
/* NULL: not a type. The pointer is good until the next load. */
const struct python_type *type_table_find(const struct type_table *t, uint64_t address);

#endif
