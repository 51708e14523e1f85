/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Memory that is freed all at once. */
#ifndef LEAKTOP_ARENA_H
#define LEAKTOP_ARENA_H

#include <stddef.h>

struct arena;

struct arena *arena_new(void);
void arena_free(struct arena *a);

/* Zeroed, aligned for any type; NULL when out of memory or @count * @size overflows. */
void *arena_alloc(struct arena *a, size_t count, size_t size);
/* NULL for NULL, and when out of memory. */
char *arena_strdup(struct arena *a, const char *s);

#endif
