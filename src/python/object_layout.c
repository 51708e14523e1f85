/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "python/object_layout.h"

#include <errno.h>

#define KEYS_ENTRIES_MAX (1ull << 40)

/* From 3.8; PyTypeObject changed in 3.9, 3.12 and 3.15, PyAsyncMethods in 3.10. */
static const uint16_t heap_qualname[] = {864, 856, 864, 864, 872, 872, 872, 880};

int object_layout_by_version(int minor, bool free_threaded, struct object_layout *out)
{
	if (minor < 8 || minor > 15 || free_threaded)
		return -ENOTSUP;
	*out = (struct object_layout){
		.minor = minor,
		.heap_qualname = heap_qualname[minor - 8],
		/* wstr and wstr_length went in 3.12 (PEP 623) */
		.string_ascii = minor <= 11 ? 48 : 40,
		.string_wide = minor <= 11 ? 72 : 56,
		.string_utf8 = minor <= 11 ? 56 : 48,
		/* MANAGED_DICT; from 3.12 or MANAGED_WEAKREF */
		.flag_pre_header = minor <= 10	 ? 0
				   : minor == 11 ? 1 << 4
						 : 1 << 4 | 1 << 3,
		.flag_inline = minor <= 12 ? 0 : 1 << 2,
		.pool_bits = minor <= 9 ? 12 : 14,
		.arena_bits = minor <= 9 ? 18 : 20,
	};
	return 0;
}

bool object_refcount_is_live(const struct object_layout *l, uint64_t word)
{
	uint32_t low = (uint32_t)word, high = word >> 32;

	if (l->minor <= 11)
		return word && !high;
	if (l->minor <= 13)
		return low && high <= 1;
	return low && (high & 0xffff) <= 1 && high >> 16 < 256;
}

static uint64_t index_bytes(uint64_t size)
{
	return size <= 0xff	    ? size
	       : size <= 0xffff	    ? 2 * size
	       : size <= 0xffffffff ? 4 * size
				    : 8 * size;
}

static bool keys_fill(struct dict_keys *k, const uint8_t *counts, uint64_t size, uint32_t head,
		      uint64_t indices, bool with_hash)
{
	uint64_t usable = word_at(counts), used = word_at(counts + 8);

	/* USABLE_FRACTION; a shared table has less */
	if (usable > KEYS_ENTRIES_MAX || used > KEYS_ENTRIES_MAX || usable + used > size * 2 / 3)
		return false;
	k->used = used;
	k->capacity = usable + used;
	k->entry_bytes = with_hash ? 24 : 16;
	k->entry_key = with_hash ? 8 : 0;
	k->entries = head + indices;
	k->bytes = k->entries + k->capacity * k->entry_bytes;
	return true;
}

bool dict_keys_decode(const struct object_layout *l, const uint8_t *head, struct dict_keys *out)
{
	uint64_t size;
	unsigned int log2_size, log2_indices;

	if (l->minor <= 10) {
		/* refcnt, size, lookup, usable, nentries, indices[] */
		size = word_at(head + 8);
		if (size < 8 || size > KEYS_ENTRIES_MAX || size & (size - 1) ||
		    word_at(head + 16) < 4096)
			return false;
		return keys_fill(out, head + 24, size, 40, index_bytes(size), true);
	}
	/* refcnt, u8 log2_size, u8 log2_index_bytes, u8 kind, padding, u32 version, usable,
	 * nentries */
	log2_size = head[8];
	log2_indices = head[9];
	if (log2_size < 3 || log2_size > 40 || head[10] > 2)
		return false;
	size = 1ull << log2_size;
	if (1ull << (log2_indices & 63) != index_bytes(size) || log2_indices > 63)
		return false;
	return keys_fill(out, head + 16, size, 32, index_bytes(size), head[10] == 0);
}
