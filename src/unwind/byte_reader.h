/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A cursor over hostile bytes that never leaves them. Reading past the end, or a
 * LEB128 number of more than 64 bits, sets `bad`, which stays; from then on all
 * reads give 0. So a caller may read a whole record and check once.
 */
#ifndef LEAKTOP_BYTE_READER_H
#define LEAKTOP_BYTE_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct byte_reader {
	const uint8_t *at, *end;
	bool bad;
};

static inline struct byte_reader byte_reader(const void *data, size_t size_bytes)
{
	const uint8_t *at = data;

	return (struct byte_reader){at, at + size_bytes, false};
}

static inline size_t reader_left(const struct byte_reader *r)
{
	return (size_t)(r->end - r->at);
}

static inline bool reader_fail(struct byte_reader *r)
{
	r->at = r->end;
	r->bad = true;
	return false;
}

/* Copies @bytes, at most 8, to the low end of the result (the file is little-endian, as we are). */
static inline uint64_t reader_fixed(struct byte_reader *r, size_t bytes)
{
	uint64_t value = 0;

	if (reader_left(r) < bytes)
		return reader_fail(r);
	memcpy(&value, r->at, bytes);
	r->at += bytes;
	return value;
}

static inline uint8_t reader_u8(struct byte_reader *r)
{
	return (uint8_t)reader_fixed(r, 1);
}

static inline uint16_t reader_u16(struct byte_reader *r)
{
	return (uint16_t)reader_fixed(r, 2);
}

static inline uint32_t reader_u32(struct byte_reader *r)
{
	return (uint32_t)reader_fixed(r, 4);
}

static inline uint64_t reader_u64(struct byte_reader *r)
{
	return reader_fixed(r, 8);
}

/* The first bit after the number goes to *shift, its last byte to *last. */
static inline uint64_t reader_leb128(struct byte_reader *r, unsigned int *shift, uint8_t *last)
{
	uint64_t value = 0;
	uint8_t byte;

	for (*shift = 0; *shift < 70; *shift += 7) {
		byte = reader_u8(r);
		if (*shift == 63 && byte != 0 && byte != 1 && byte != 0x7f)
			return reader_fail(r);
		value |= (uint64_t)(byte & 0x7f) << *shift;
		if (!(byte & 0x80)) {
			*shift += 7;
			*last = byte;
			return value;
		}
	}
	return reader_fail(r);
}

static inline uint64_t reader_uleb128(struct byte_reader *r)
{
	unsigned int shift;
	uint8_t last = 0;
	uint64_t value = reader_leb128(r, &shift, &last);

	if (shift == 70 && last == 0x7f)
		return reader_fail(r);
	return value;
}

static inline int64_t reader_sleb128(struct byte_reader *r)
{
	unsigned int shift;
	uint8_t last = 0;
	uint64_t value = reader_leb128(r, &shift, &last);

	if (shift == 70 && last == 1)
		return reader_fail(r);
	if (shift < 64 && last & 0x40)
		value |= ~0ull << shift;
	return (int64_t)value;
}

/* The next @bytes as a reader of their own; empty and bad if they are not there. */
static inline struct byte_reader reader_take(struct byte_reader *r, uint64_t bytes)
{
	struct byte_reader part = {r->at, r->at, true};

	if (bytes > reader_left(r)) {
		reader_fail(r);
		return part;
	}
	part = byte_reader(r->at, bytes);
	r->at += bytes;
	return part;
}

/* A string that ends within the bytes, or NULL. */
static inline const char *reader_string(struct byte_reader *r)
{
	const uint8_t *start = r->at;
	const uint8_t *zero = reader_left(r) ? memchr(start, 0, reader_left(r)) : NULL;

	if (!zero) {
		reader_fail(r);
		return NULL;
	}
	r->at = zero + 1;
	return (const char *)start;
}

#endif
