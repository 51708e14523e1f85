/* SPDX-License-Identifier: GPL-2.0-or-later */
/* FNV-1a of a text, for tables that live in memory: not for identities that are kept. */
#ifndef LEAKTOP_HASH_H
#define LEAKTOP_HASH_H

#include <stddef.h>
#include <stdint.h>

static inline size_t hash_text_fnv(const char *text)
{
	uint64_t h = 0xcbf29ce484222325u;

	for (; *text; text++)
		h = (h ^ (unsigned char)*text) * 0x100000001b3u;
	return h ^ h >> 32;
}

#endif
