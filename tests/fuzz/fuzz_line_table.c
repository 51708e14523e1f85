/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A line table: the first byte says of which version, the next two where it is cut.
 * Whatever a part of it says, the whole says too. Then all of the input as events of a
 * code store.
 */
#include "python/line_table.h"

#include <stdlib.h>
#include <string.h>

#include "events.h"
#include "python/code_store.h"

#define UNITS 300
#define CODES 8
#define CODES_MAX 4

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int what)
{
	if (!what)
		abort();
}

static void try_table(const uint8_t *data, size_t size)
{
	int minor = 8 + data[0] % 8;
	size_t bytes = size - 3, part = (data[1] | (size_t)data[2] << 8) % (bytes + 1);

	for (uint32_t unit = 0; unit < UNITS; unit++) {
		uint32_t whole = line_table_find(minor, data + 3, bytes, 1, 100, unit);
		uint32_t known = line_table_find(minor, data + 3, part, 0, 100, unit);

		require(whole <= INT32_MAX);
		require(!known || known == whole);
	}
}

/* @data over the fields that are not bound to be sane, and some bytes for the others. */
static void fill_event(struct event_code *e, const uint8_t *data, size_t size)
{
	size_t n = size < sizeof(*e) ? size : sizeof(*e);

	memset(e, 0, sizeof(*e));
	memcpy(e, data, n);
	e->head.kind = EVENT_CODE;
	e->code = 16 * (e->code % CODES);
	e->piece %= 4;
	if (data[0] & 1) {
		e->file.state = e->name.state = 0x20 | (data[0] >> 1 & 0x1f) << 2;
		e->file.bytes = e->file.length % CODE_FILE_BYTES;
		e->name.bytes = e->name.length % CODE_NAME_BYTES;
		e->lines_bytes %= CODE_LINES_BYTES + 1;
		e->lines_total = 3 * CODE_LINES_BYTES;
	}
}

static void check_code(struct python_code *c)
{
	size_t bytes;

	if (!c)
		return;
	bytes = strlen(python_code_file(c));
	require(bytes <= 3 * CODE_FILE_BYTES + 3);
	bytes = strlen(python_code_function(c));
	require(bytes <= 3 * CODE_NAME_BYTES + 3);
	for (uint32_t unit = 0; unit < UNITS; unit++)
		require(python_code_line(c, unit) <= INT32_MAX);
	python_code_identity(c);
}

static void try_store(const uint8_t *data, size_t size)
{
	struct code_store *s = code_store_new(8 + data[0] % 8, CODES_MAX);
	struct python_code *held[CODES] = {NULL};
	struct event_code e;

	require(s != NULL);
	for (size_t at = 0; at < size; at += 700) {
		uint64_t slot;

		fill_event(&e, data + at, size - at);
		slot = e.code / 16;
		code_store_add(s, &e, sizeof(e) - data[at] % 8);
		check_code(held[slot]);
		python_code_unref(held[slot]);
		held[slot] = data[at] & 2 ? code_store_get(s, e.code) : NULL;
		check_code(held[slot]);
	}
	code_store_free(s);
	for (size_t i = 0; i < CODES; i++) {
		check_code(held[i]);
		python_code_unref(held[i]);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 3)
		return 0;
	try_table(data, size);
	try_store(data, size);
	return 0;
}
