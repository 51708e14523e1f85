/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Names with numbers from 1 on: equal names have the same number. */
#ifndef LEAKTOP_TYPE_NAMES_H
#define LEAKTOP_TYPE_NAMES_H

#include <stdint.h>

struct type_names;

struct type_names *type_names_new(void); /* NULL: out of memory */
void type_names_free(struct type_names *n);

/* The number of @name, which is copied and cut at 255 bytes. A target can make up any number
 * of names: above 65536 they share one. 0: out of memory. */
uint32_t type_names_number(struct type_names *n, const char *name);
/* "(unknown)" for 0 and for what is none. Lives as long as @n. */
const char *type_names_at(const struct type_names *n, uint32_t number);
uint32_t type_names_count(const struct type_names *n); /* one past the highest number */

#endif
