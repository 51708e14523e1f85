/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A stub is any place where a call begins, does nothing and returns. Best is a nop that
 * the kernel need not single-step, before the return: a compiler puts it between a jump
 * and an aligned "return 0" that is jumped to, so that nobody comes by it but who is sent.
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

/* Cheapest first: replaced by a call (Linux 6.18 on), emulated, single-stepped. The nops
 * are those of x86_nops[] in the kernel (arch/x86/include/asm/nops.h). */
static const struct pattern patterns[] = {
	{8, {0x0f, 0x1f, 0x44, 0x00, 0x00, 0x31, 0xc0, 0xc3}},
	{6, {0x0f, 0x1f, 0x44, 0x00, 0x00, 0xc3}},
	{6, {0x0f, 0x1f, 0x00, 0x31, 0xc0, 0xc3}},
	{7, {0x0f, 0x1f, 0x40, 0x00, 0x31, 0xc0, 0xc3}},
	{9, {0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00, 0x31, 0xc0, 0xc3}},
	{10, {0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00, 0x31, 0xc0, 0xc3}},
	{11, {0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00, 0x31, 0xc0, 0xc3}},
	{5, {0x66, 0x90, 0x31, 0xc0, 0xc3}},
	{4, {0x90, 0x31, 0xc0, 0xc3}},
	{4, {0x0f, 0x1f, 0x00, 0xc3}},
	{5, {0x0f, 0x1f, 0x40, 0x00, 0xc3}},
	{3, {0x66, 0x90, 0xc3}},
	{2, {0x90, 0xc3}},
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

/* Keeps in @best the first of patterns[] that was found. */
static void look_into(const struct elf_part *text, size_t *best, uint64_t *vaddr)
{
	uint64_t found;
	size_t i;

	for (i = 0; i < *best; i++) {
		found = find_pattern(&patterns[i], text);
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
