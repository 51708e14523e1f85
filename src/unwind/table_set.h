/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The unwind tables of all objects: which are wanted, which are loaded, who uses
 * them, and which can go when memory is short. Book-keeping only.
 */
#ifndef LEAKTOP_TABLE_SET_H
#define LEAKTOP_TABLE_SET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct object;
struct table_set;

enum table_state {
	TABLE_OUT = 0,
	TABLE_WANTED,
	TABLE_LOADING,
	TABLE_LOADED,
};

struct table {
	const struct object *object; /* one of those that are the same file */
	uint32_t id;		     /* 1 to UNWIND_TABLES_MAX - 1 */
	enum table_state state;
	bool unfinished;     /* loaded, but a better one can be made */
	bool urgent;	     /* a stack wants it */
	bool renewed;	     /* its id was another one's before; for the caller to take back */
	uint32_t references; /* of processes that map it */
	uint64_t file_bytes;
	size_t size_bytes; /* when loaded; 0: it has no call frame information */
	uint64_t used_s;   /* when it was last used, by the caller's clock */
};

struct table_set *table_set_new(void);
void table_set_free(struct table_set *s);

/* The table of @object, made if it is new. One file seen through several mounts has
 * one. NULL: all ids belong to objects that are loaded or in use. */
struct table *table_set_get(struct table_set *s, const struct object *object);
/* Ids below the limit; NULL where there is none. */
struct table *table_set_at(struct table_set *s, uint32_t id);
uint32_t table_set_limit(const struct table_set *s);

/* The wanted table to load next: an urgent one if there is any, of the smallest file,
 * which is soonest done. NULL: none. */
struct table *table_set_next_wanted(struct table_set *s);
/* A loaded table that is unfinished. NULL: none. */
struct table *table_set_next_unfinished(struct table_set *s);
/* The loaded table to take out first: one that nobody maps before one that
 * somebody maps, then the one used longest ago. NULL: none is loaded. */
struct table *table_set_victim(struct table_set *s);

/* Sums of size_bytes, and numbers of tables, in all and with rows. */
size_t table_set_bytes(const struct table_set *s);
size_t table_set_count(const struct table_set *s, enum table_state state);

#endif
