/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Strings kept once, up to a bound, for as long as their pool. */
#ifndef LEAKTOP_STRING_POOL_H
#define LEAKTOP_STRING_POOL_H

#include <stddef.h>

struct string_pool;

struct string_pool *string_pool_new(size_t max_bytes);
void string_pool_free(struct string_pool *pool);

/* The pool's copy of @s; NULL if @s is NULL, the pool is full or memory is out. */
const char *string_pool_add(struct string_pool *pool, const char *s);

#endif
