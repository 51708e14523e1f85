/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "python/object_reader.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/escape.h"
#include "target/memory.h"

#define CHARACTERS_MAX 255
#define ENTRIES_MAX 4096 /* of a dict that are looked at */
#define REPLACEMENT 0xfffd

static size_t put_utf8(char *to, uint32_t c)
{
	if (!c || (c >= 0xd800 && c <= 0xdfff) || c > 0x10ffff)
		c = REPLACEMENT;
	if (c < 0x80) {
		to[0] = (char)c;
		return 1;
	}
	if (c < 0x800) {
		to[0] = (char)(0xc0 | c >> 6);
		to[1] = (char)(0x80 | (c & 0x3f));
		return 2;
	}
	if (c < 0x10000) {
		to[0] = (char)(0xe0 | c >> 12);
		to[1] = (char)(0x80 | (c >> 6 & 0x3f));
		to[2] = (char)(0x80 | (c & 0x3f));
		return 3;
	}
	to[0] = (char)(0xf0 | c >> 18);
	to[1] = (char)(0x80 | (c >> 12 & 0x3f));
	to[2] = (char)(0x80 | (c >> 6 & 0x3f));
	to[3] = (char)(0x80 | (c & 0x3f));
	return 4;
}

static uint32_t character_at(const uint8_t *data, unsigned int kind, size_t i)
{
	uint32_t c = 0;

	memcpy(&c, data + i * kind, kind);
	return c;
}

int object_read_string(pid_t pid, const struct object_layout *l, uint64_t address, char *buf,
		       size_t size)
{
	uint8_t head[STRING_STATE + 4], data[4 * CHARACTERS_MAX];
	size_t done = 0, count;
	unsigned int kind;
	uint32_t state;
	int err;

	err = memory_read(pid, address, head, sizeof(head));
	if (err)
		return err;
	memcpy(&state, head + STRING_STATE, sizeof(state));
	kind = string_kind(state);
	if (!string_is_compact(state) || (kind != 1 && kind != 2 && kind != 4))
		return -EINVAL;
	count = word_at(head + STRING_LENGTH) < CHARACTERS_MAX ? word_at(head + STRING_LENGTH)
							       : CHARACTERS_MAX;
	err = memory_read(pid,
			  address + (string_is_ascii(state) ? l->string_ascii : l->string_wide),
			  data, count * kind);
	if (err)
		return err;
	for (size_t i = 0; i < count && done + 4 < size; i++)
		done += put_utf8(buf + done, character_at(data, kind, i));
	buf[done] = '\0';
	return 0;
}

/* Whether the object at @address is the str @key. */
static bool string_equals(pid_t pid, const struct object_layout *l, uint64_t address,
			  const char *key)
{
	char text[64];

	return !object_read_string(pid, l, address, text, sizeof(text)) && !strcmp(text, key);
}

static int find_entry(pid_t pid, const struct object_layout *l, const struct dict_keys *k,
		      const uint8_t *entries, size_t count, const char *key, uint64_t *value)
{
	for (size_t i = 0; i < count; i++) {
		const uint8_t *e = entries + i * k->entry_bytes + k->entry_key;

		if (word_at(e) && word_at(e + 8) && string_equals(pid, l, word_at(e), key)) {
			*value = word_at(e + 8);
			return 0;
		}
	}
	return -ENOENT;
}

int object_find_item(pid_t pid, const struct object_layout *l, uint64_t dict, const char *key,
		     uint64_t *value)
{
	uint8_t head[DICT_KEYS_HEAD_BYTES], *entries;
	struct dict_keys k;
	uint64_t keys;
	size_t count;
	int err;

	err = memory_read_u64(pid, dict + DICT_KEYS, &keys);
	if (!err)
		err = memory_read(pid, keys, head, sizeof(head));
	if (err)
		return err;
	if (!dict_keys_decode(l, head, &k))
		return -EINVAL;
	count = k.used < ENTRIES_MAX ? k.used : ENTRIES_MAX;
	entries = malloc(count * k.entry_bytes + 1);
	if (!entries)
		return -ENOMEM;
	err = memory_read(pid, keys + k.entries, entries, count * k.entry_bytes);
	if (!err)
		err = find_entry(pid, l, &k, entries, count, key, value);
	free(entries);
	return err;
}

/* A C string, cut to fit and at the first byte that is not UTF-8. */
static int read_c_string(pid_t pid, uint64_t address, char *buf, size_t size)
{
	ssize_t n = memory_read_some(pid, address, buf, size - 1);
	size_t at = 0, step;

	if (n <= 0)
		return n ? (int)n : -EFAULT;
	buf[n] = '\0';
	while (buf[at] && (step = utf8_sequence((const unsigned char *)buf + at)))
		at += step;
	buf[at] = '\0';
	return at ? 0 : -EINVAL;
}

/* Types made by PyType_FromSpec() without a module in their name have no __module__. */
static int read_heap_name(pid_t pid, const struct object_layout *l, uint64_t address,
			  const uint8_t *head, char *buf, size_t size)
{
	char module[256], name[256];
	uint64_t word;
	int err;

	err = memory_read_u64(pid, address + l->heap_qualname, &word);
	if (!err)
		err = object_read_string(pid, l, word, name, sizeof(name));
	if (err)
		return err;
	err = object_find_item(pid, l, word_at(head + TYPE_DICT), "__module__", &word);
	if (!err)
		err = object_read_string(pid, l, word, module, sizeof(module));
	if (err == -ESRCH || err == -ENOMEM)
		return err;
	if (err || !strcmp(module, "builtins"))
		snprintf(buf, size, "%s", name);
	else
		snprintf(buf, size, "%s.%s", module, name);
	return 0;
}

int object_read_type_name(pid_t pid, const struct object_layout *l, uint64_t address,
			  const uint8_t *head, char *buf, size_t size)
{
	if (word_at(head + TYPE_FLAGS) & FLAG_HEAP_TYPE)
		return read_heap_name(pid, l, address, head, buf, size);
	return read_c_string(pid, word_at(head + TYPE_NAME), buf, size);
}
