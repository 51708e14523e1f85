/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where the functions and data that CPython exports are in its binary, by name. */
#ifndef LEAKTOP_EXPORTS_H
#define LEAKTOP_EXPORTS_H

#include <stddef.h>
#include <stdint.h>

struct elf_image;

struct export {
	const char *name;
	uint64_t vaddr, bytes; /* out; both 0 if there is no such symbol */
};

/* Fills in @exports from .dynsym. 0, -ENOENT (no such table), or another negative errno. */
int exports_find(const struct elf_image *image, struct export *exports, size_t count);

#endif
