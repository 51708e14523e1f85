/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A stub is any place where a call begins, does nothing and returns. Best is an
 * instruction before the return that the kernel emulates: a nop of one byte, or a jump to
 * the return. Not the nop of five bytes: Linux 6.18 replaces that by a call to a
 * trampoline that forked children do not have (probe/planner.c).
 * CPython ignores what a tracer returns; a zero is preferred where it costs nothing.
 *
 * There the unwinding rules may be those of the function around, at its end: a probe on
 * the stub finds its caller by what the stack pointer points to.
 */
#include "python/alloc_tables.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "python/equal_address.h"
#include "python/interpreter.h"
#include "unwind/elf_image.h"

#define TEXT_BYTES_MAX (64u << 20)

struct pattern {
	uint8_t bytes;
	uint8_t code[11];
};

/* Emulated ones first; after these come jumps, then what is single-stepped before Linux
 * 6.18 or always. The nops are those of x86_nops[] (arch/x86/include/asm/nops.h). */
#define PATTERNS_EMULATED 2
static const struct pattern patterns[] = {
	{4, {0x90, 0x31, 0xc0, 0xc3}},
	{2, {0x90, 0xc3}},
	{6, {0x0f, 0x1f, 0x00, 0x31, 0xc0, 0xc3}},
	{7, {0x0f, 0x1f, 0x40, 0x00, 0x31, 0xc0, 0xc3}},
	{9, {0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00, 0x31, 0xc0, 0xc3}},
	{10, {0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00, 0x31, 0xc0, 0xc3}},
	{11, {0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00, 0x31, 0xc0, 0xc3}},
	{5, {0x66, 0x90, 0x31, 0xc0, 0xc3}},
	{4, {0x0f, 0x1f, 0x00, 0xc3}},
	{5, {0x0f, 0x1f, 0x40, 0x00, 0xc3}},
	{3, {0x66, 0x90, 0xc3}},
	{7, {0xf3, 0x0f, 0x1e, 0xfa, 0x31, 0xc0, 0xc3}},
	{3, {0x31, 0xc0, 0xc3}},
};

static uint64_t find_pattern(const struct pattern *p, const struct elf_part *text)
{
	const uint8_t *at = text->data, *end = text->data + text->size_bytes;
	uint64_t vaddr;

	while ((at = memmem(at, (size_t)(end - at), p->code, p->bytes))) {
		vaddr = text->vaddr + (uint64_t)(at - text->data);
		if (text_starts_instruction(text->data, text->size_bytes, text->vaddr, vaddr))
			return vaddr;
		at++;
	}
	return 0;
}

static bool returns_zero(const struct elf_part *text, uint64_t at)
{
	static const uint8_t code[] = {0x31, 0xc0, 0xc3}; /* xor eax,eax; ret */

	return at < text->size_bytes && text->size_bytes - at >= sizeof(code) &&
	       !memcmp(text->data + at, code, sizeof(code));
}

/* A direct jump to "return 0". */
static uint64_t find_jump(const struct elf_part *text)
{
	int32_t distance;

	for (uint64_t at = 0; at + 5 <= text->size_bytes; at++) {
		uint64_t target;

		if (text->data[at] == 0xeb) {
			target = at + 2 + (uint64_t)(int64_t)(int8_t)text->data[at + 1];
		} else if (text->data[at] == 0xe9) {
			memcpy(&distance, text->data + at + 1, sizeof(distance));
			target = at + 5 + (uint64_t)(int64_t)distance;
		} else {
			continue;
		}
		if (returns_zero(text, target) &&
		    text_starts_instruction(text->data, text->size_bytes, text->vaddr,
					    text->vaddr + at))
			return text->vaddr + at;
	}
	return 0;
}

/* Keeps in @best the first of patterns[] that was found. */
static void look_into(const struct elf_part *text, size_t *best, uint64_t *vaddr)
{
	uint64_t found;
	size_t i;

	for (i = 0; i < *best; i++) {
		found = find_pattern(&patterns[i], text);
		if (!found && i == PATTERNS_EMULATED - 1)
			found = find_jump(text);
		if (!found)
			continue;
		*best = i;
		*vaddr = found;
	}
}

static int find_stub(const struct elf_image *image, uint64_t *vaddr)
{
	size_t section = 0, best = sizeof(patterns) / sizeof(patterns[0]);
	const size_t none = best;
	struct elf_part text;
	uint64_t low, high;
	int err = 0;

	while (!err && elf_image_next_code(image, &section, &low, &high)) {
		text.vaddr = low;
		text.size_bytes = high - low < TEXT_BYTES_MAX ? high - low : TEXT_BYTES_MAX;
		text.data = malloc(text.size_bytes);
		if (!text.data)
			return -ENOMEM;
		err = elf_image_copy(image, low, text.data, text.size_bytes);
		if (!err)
			look_into(&text, &best, vaddr);
		free(text.data);
	}
	if (err)
		return err;
	return best < none ? 0 : -ENOENT;
}

int alloc_find_stub(const struct interpreter *i, uint64_t *address)
{
	struct elf_image *image;
	uint64_t vaddr;
	int fd, err;

	fd = interpreter_open_binary(i);
	if (fd < 0)
		return fd;
	err = elf_image_new_fd(fd, &image);
	if (err)
		goto out;
	err = find_stub(image, &vaddr);
	elf_image_free(image);
	if (!err)
		*address = vaddr + i->bias;
out:
	close(fd);
	return err;
}
