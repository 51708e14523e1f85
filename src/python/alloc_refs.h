/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where CPython to 3.11 keeps its allocator tables, told by what its exported functions
 * refer to. All from the file.
 */
#ifndef LEAKTOP_ALLOC_REFS_H
#define LEAKTOP_ALLOC_REFS_H

#include <stdint.h>

#include "python/alloc_tables.h"

struct binary;

/* Virtual addresses of the tables. 0, -ENOENT, or another negative errno. */
int alloc_refs_tables(const struct binary *b, uint64_t tables[ALLOC_DOMAINS]);

#endif
