/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From 3.13 on the process tells its offsets itself, by words of 64 bits at the start of
 * _PyRuntime (struct _Py_DebugOffsets; 3.13: Include/internal/pycore_runtime.h, later
 * pycore_debug_offsets.h), but which word is which differs by minor version, and between
 * its pre-releases. So words whose values are known for every version (sizes and fields of
 * PyObject, bytes and str) are compared first: where they are not in their places, the
 * others are not either.
 */
#include "python/layout.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "python/layout_table.h"

#define COOKIE "xdebugpy"
#define TAG_BITS 7u	       /* of a _PyStackRef, 3.14 on; objects lie on multiples of 16 */
#define STRING_DATA_POINTER 8u /* what PyUnicodeObject has more than PyCompactUnicodeObject */
#define OWNER_ENTRY 3	       /* enum _frameowner: 3.13 .._CSTACK, from 3.14 .._INTERPRETER */

/* Sizes that no offset may exceed. */
#define RUNTIME_BYTES_MAX (16u << 20)
#define INTERP_BYTES_MAX (16u << 20)
#define THREAD_BYTES_MAX 4096u
#define FRAME_BYTES_MAX 128u
#define CODE_BYTES_MAX 1024u

/* The words that a minor version begins its groups with: their size, the fields follow. */
struct offset_words {
	int minor;
	uint8_t gc; /* of the interpreter */
	uint8_t thread, thread_frame, thread_id;
	uint8_t frame, frame_owner;
	uint8_t code;
	uint8_t object, bytes, string;
};

static const struct offset_words offset_words[] = {
	{13, 10, 19, 23, 24, 28, 33, 34, 44, 64, 67},
	{14, 11, 22, 26, 27, 31, 36, 39, 50, 74, 77},
	{15, 11, 22, 26, 30, 39, 44, 47, 58, 86, 89},
};

#define WORDS_MAX 96

enum first_words { /* in all of them */
	WORD_COOKIE = 0,
	WORD_RUNTIME = 3, /* size, finalizing, interpreters_head */
	WORD_INTERP = 6,  /* size, id, next, threads_head */
};

enum group_words { /* from the first of a group on */
	THREAD_NEXT = 2,
	FRAME_BACK = 1,
	FRAME_CODE = 2,
	FRAME_INSTR = 3,
	CODE_FILE = 1,
	CODE_NAME = 2,
	CODE_QUALNAME = 3,
	CODE_LINES = 4,
	CODE_LINE = 5,
	CODE_INSTRUCTIONS = 9,
};

int python_layout_by_version(int minor, struct python_layout *out)
{
	size_t count = sizeof(layout_table) / sizeof(*layout_table);

	if (minor < LAYOUT_MINOR_FIRST || (size_t)(minor - LAYOUT_MINOR_FIRST) >= count)
		return -ENOTSUP;
	*out = layout_table[minor - LAYOUT_MINOR_FIRST];
	return 0;
}

static const struct offset_words *words_of(int minor)
{
	for (size_t i = 0; i < sizeof(offset_words) / sizeof(*offset_words); i++) {
		if (offset_words[i].minor == minor)
			return &offset_words[i];
	}
	return NULL;
}

static bool words_known(const uint64_t *word, const struct offset_words *at)
{
	static const uint64_t object[] = {16, 8};      /* size, ob_type */
	static const uint64_t bytes[] = {40, 16, 32};  /* size, ob_size, ob_sval */
	static const uint64_t string[] = {64, 32, 16}; /* size, state, length */

	_Static_assert(PYTHON_BYTES_SIZE == 16 && PYTHON_BYTES_DATA == 32, "as python_walk.h");
	_Static_assert(PYTHON_STRING_STATE == 32 && PYTHON_STRING_LENGTH == 16, "as above");
	return !memcmp(word + at->object, object, sizeof(object)) &&
	       !memcmp(word + at->bytes, bytes, sizeof(bytes)) &&
	       !memcmp(word + at->string, string, sizeof(string));
}

/* Takes an offset of a word or less out of a structure of @size bytes. */
static bool take16(uint64_t offset, uint64_t size, uint16_t *out)
{
	if (size < sizeof(uint64_t) || offset > size - sizeof(uint64_t))
		return false;
	*out = (uint16_t)offset;
	return true;
}

static bool take32(uint64_t offset, uint64_t size, uint32_t *out)
{
	if (size < sizeof(uint64_t) || offset > size - sizeof(uint64_t))
		return false;
	*out = (uint32_t)offset;
	return true;
}

static bool take_runtime(const uint64_t *word, const struct offset_words *at,
			 struct python_layout *l)
{
	uint64_t runtime = word[WORD_RUNTIME], interp = word[WORD_INTERP];

	return runtime <= RUNTIME_BYTES_MAX && interp <= INTERP_BYTES_MAX &&
	       take32(word[WORD_RUNTIME + 2], runtime, &l->runtime_interpreters_head) &&
	       take32(word[WORD_INTERP + 1], interp, &l->interp_id) &&
	       take32(word[WORD_INTERP + 2], interp, &l->interp_next) &&
	       take32(word[WORD_INTERP + 3], interp, &l->interp_threads_head) &&
	       take32(word[at->gc], interp, &l->interp_gc);
}

static bool take_thread(const uint64_t *word, const struct offset_words *at,
			struct python_layout *l)
{
	uint64_t size = word[at->thread];

	return size <= THREAD_BYTES_MAX &&
	       take32(word[at->thread + THREAD_NEXT], size, &l->thread_next) &&
	       take16(word[at->thread_frame], size, &l->walk.thread_frame) &&
	       take16(word[at->thread_id], size, &l->walk.thread_id);
}

static bool take_frame(const uint64_t *word, const struct offset_words *at, struct python_walk *w)
{
	uint64_t size = word[at->frame], owner = word[at->frame_owner];

	if (size > FRAME_BYTES_MAX || owner >= size)
		return false;
	w->frame_owner = (uint16_t)owner;
	return take16(word[at->frame + FRAME_BACK], size, &w->frame_back) &&
	       take16(word[at->frame + FRAME_CODE], size, &w->frame_code) &&
	       take16(word[at->frame + FRAME_INSTR], size, &w->frame_instr);
}

static bool take_code(const uint64_t *word, const struct offset_words *at, struct python_walk *w)
{
	const uint64_t *code = word + at->code;

	return *code <= CODE_BYTES_MAX && take16(code[CODE_FILE], *code, &w->code_file) &&
	       take16(code[CODE_NAME], *code, &w->code_name) &&
	       take16(code[CODE_QUALNAME], *code, &w->code_qualname) &&
	       take16(code[CODE_LINES], *code, &w->code_lines) &&
	       take16(code[CODE_LINE], *code, &w->code_line) &&
	       take16(code[CODE_INSTRUCTIONS], *code, &w->code_instructions);
}

static bool take_string(const uint64_t *word, const struct offset_words *at, struct python_walk *w)
{
	uint64_t wide = word[at->string] - STRING_DATA_POINTER;

	w->string_wide = (uint16_t)wide;
	return take16(word[at->string + 3], wide, &w->string_ascii);
}

/* What the version has but not the table. */
static struct python_layout layout_of_minor(int minor)
{
	return (struct python_layout){
		.walk.code_mask = minor >= 14 ? TAG_BITS : 0,
		.walk.thread_cframe = PYTHON_NONE,
		.walk.cframe_frame = PYTHON_NONE,
		.walk.cframe_previous = PYTHON_NONE,
		.walk.frame_entry = PYTHON_NONE,
		.walk.instr_kind = PYTHON_INSTR_POINTER,
		.walk.owner_entry = OWNER_ENTRY,
		.runtime_gilstate_current = UINT32_MAX,
		.runtime_gilstate_key = UINT32_MAX,
		.runtime_ref_tracer = UINT32_MAX,
		.runtime_gc = UINT32_MAX,
	};
}

int python_layout_by_offsets(const void *runtime, size_t bytes, int minor,
			     struct python_layout *out)
{
	const struct offset_words *at = words_of(minor);
	struct python_layout l = layout_of_minor(minor);
	uint64_t word[WORDS_MAX];

	if (!at)
		return -ENOTSUP;
	if (bytes < sizeof(word))
		return -EINVAL;
	memcpy(word, runtime, sizeof(word));
	if (memcmp(&word[WORD_COOKIE], COOKIE, strlen(COOKIE)) || !words_known(word, at))
		return -EINVAL;
	if (!take_runtime(word, at, &l) || !take_thread(word, at, &l) ||
	    !take_frame(word, at, &l.walk) || !take_code(word, at, &l.walk) ||
	    !take_string(word, at, &l.walk))
		return -EINVAL;
	*out = l;
	return 0;
}
