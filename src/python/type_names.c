/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "python/type_names.h"

#include <stdlib.h>
#include <string.h>

#include "base/escape.h"

#define NAMES_MAX 65536u
#define SLOTS (4 * NAMES_MAX)
#define NAME_BYTES_MAX 255
#define NUMBER_OTHERS 1u /* shared by names for which there is no room */

struct type_names {
	char **names; /* by number - 1 */
	uint32_t count;
	uint32_t slots[SLOTS]; /* numbers, by hash of the name; 0: free */
};

void type_names_free(struct type_names *n)
{
	if (!n)
		return;
	for (uint32_t i = 0; n->names && i < n->count; i++)
		free(n->names[i]);
	free(n->names);
	free(n);
}

/* Cut at a character; bytes that are no UTF-8 stay. */
static size_t cut_length(const char *name)
{
	size_t length = strnlen(name, NAME_BYTES_MAX + 1), at = 0;

	if (length <= NAME_BYTES_MAX)
		return length;
	for (size_t step; at < NAME_BYTES_MAX; at += step) {
		step = utf8_sequence((const unsigned char *)name + at);
		if (!step)
			step = 1;
		if (at + step > NAME_BYTES_MAX)
			break;
	}
	return at;
}

static uint32_t hash_bytes(const char *s, size_t length)
{
	uint32_t h = 2166136261u;

	for (size_t i = 0; i < length; i++)
		h = (h ^ (unsigned char)s[i]) * 16777619u;
	return h;
}

static uint32_t add_name(struct type_names *n, const char *name, size_t length, uint32_t *slot)
{
	char *copy = strndup(name, length);

	if (!copy)
		return 0;
	n->names[n->count++] = copy;
	*slot = n->count;
	return n->count;
}

uint32_t type_names_number(struct type_names *n, const char *name)
{
	size_t length = cut_length(name);
	uint32_t at = hash_bytes(name, length) % SLOTS;

	for (; n->slots[at]; at = (at + 1) % SLOTS) {
		const char *known = n->names[n->slots[at] - 1];

		if (!strncmp(known, name, length) && !known[length])
			return n->slots[at];
	}
	if (n->count == NAMES_MAX)
		return NUMBER_OTHERS;
	return add_name(n, name, length, &n->slots[at]);
}

struct type_names *type_names_new(void)
{
	struct type_names *n = calloc(1, sizeof(*n));

	if (!n)
		return NULL;
	n->names = calloc(NAMES_MAX, sizeof(*n->names));
	if (!n->names || type_names_number(n, "(other types)") != NUMBER_OTHERS) {
		type_names_free(n);
		return NULL;
	}
	return n;
}

const char *type_names_at(const struct type_names *n, uint32_t number)
{
	return number && number <= n->count ? n->names[number - 1] : "(unknown)";
}

uint32_t type_names_count(const struct type_names *n)
{
	return n->count + 1;
}
