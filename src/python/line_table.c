/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A line is the sum of all steps before it, so each search reads a table from its
 * start. Sums are kept modulo 2^32, where hostile steps overflow without harm; what
 * comes out is a line if it is positive as the int that CPython keeps it in.
 */
#include "python/line_table.h"

#include <stdbool.h>

#include "python_walk.h"

#define VARINT_BYTES_MAX 6 /* six bits each: 36, CPython's lines have 32 */

/* Kinds of entries, Objects/locations.md (CPython 3.11). */
enum {
	LOCATION_ONE_LINE_0 = 10,
	LOCATION_ONE_LINE_1,
	LOCATION_ONE_LINE_2,
	LOCATION_NO_COLUMNS,
	LOCATION_LONG,
	LOCATION_NONE,
};

static uint32_t line_of(uint32_t sum)
{
	return (int32_t)sum > 0 ? sum : 0;
}

/* Pairs: bytes of code up to where the line changes, and by how much. */
static uint32_t find_lnotab(const uint8_t *table, size_t bytes, bool complete, uint32_t line,
			    uint64_t offset)
{
	uint64_t change = 0;

	for (size_t i = 0; bytes - i >= 2; i += 2) {
		change += table[i];
		if (change > offset)
			return line_of(line);
		line += (uint32_t)(int8_t)table[i + 1];
	}
	return complete ? line_of(line) : 0;
}

/* Pairs: bytes of code, and how their line differs from the one before, -128: they have none
 * and the line before stays that of the pair before. */
static uint32_t find_pep626(const uint8_t *table, size_t bytes, uint32_t line, uint64_t offset)
{
	uint64_t end = 0;

	for (size_t i = 0; bytes - i >= 2; i += 2) {
		int8_t step = (int8_t)table[i + 1];

		end += table[i];
		if (step != -128)
			line += (uint32_t)step;
		if (end > offset)
			return step == -128 ? 0 : line_of(line);
	}
	return 0;
}

static bool is_entry_start(uint8_t byte)
{
	return byte & 0x80;
}

/* Signed, least significant bits first, at @table + @at; false: it has no end. */
static bool read_svarint(const uint8_t *table, size_t bytes, size_t at, uint32_t *out)
{
	uint64_t value = 0;
	unsigned int i;

	for (i = 0; i < VARINT_BYTES_MAX; i++) {
		if (at + i >= bytes || is_entry_start(table[at + i]))
			return false;
		value |= (uint64_t)(table[at + i] & 0x3f) << (6 * i);
		if (!(table[at + i] & 0x40))
			break;
	}
	if (i == VARINT_BYTES_MAX)
		return false;
	*out = value & 1 ? -(uint32_t)(value >> 1) : (uint32_t)(value >> 1);
	return true;
}

/* How the line of the entry at @table + @at differs from the one before. */
static bool entry_step(const uint8_t *table, size_t bytes, size_t at, uint32_t *out)
{
	unsigned int kind = table[at] >> 3 & 0xf;

	switch (kind) {
	case LOCATION_ONE_LINE_1:
	case LOCATION_ONE_LINE_2:
		*out = kind - LOCATION_ONE_LINE_0;
		return true;
	case LOCATION_NO_COLUMNS:
	case LOCATION_LONG:
		return read_svarint(table, bytes, at + 1, out);
	default:
		*out = 0;
		return true;
	}
}

/* Entries: a byte with the top bit set (kind and number of code units), then others
 * without it. */
static uint32_t find_location(const uint8_t *table, size_t bytes, uint32_t line, uint32_t unit)
{
	uint64_t end = 0;
	uint32_t step;
	size_t at = 0;

	while (at < bytes) {
		if (!is_entry_start(table[at]) || !entry_step(table, bytes, at, &step))
			return 0;
		line += step;
		end += (table[at] & 7) + 1;
		if (end > unit)
			return (table[at] >> 3 & 0xf) == LOCATION_NONE ? 0 : line_of(line);
		for (at++; at < bytes && !is_entry_start(table[at]); at++)
			;
	}
	return 0;
}

uint32_t line_table_find(int minor, const uint8_t *table, size_t bytes, int complete,
			 uint32_t first_line, uint32_t unit)
{
	if (unit == PYTHON_UNIT_START)
		return line_of(first_line);
	if (unit == PYTHON_UNIT_UNKNOWN)
		return 0;
	if (minor >= 11)
		return find_location(table, bytes, first_line, unit);
	if (minor == 10)
		return find_pep626(table, bytes, first_line, 2 * (uint64_t)unit);
	return find_lnotab(table, bytes, complete, first_line, 2 * (uint64_t)unit);
}
