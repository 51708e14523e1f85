/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where CPython keeps things in its data, told by what its exported functions refer to.
 * All from the file; addresses are virtual addresses in it.
 */
#ifndef LEAKTOP_ALLOC_REFS_H
#define LEAKTOP_ALLOC_REFS_H

#include <stdint.h>

#include "python/alloc_tables.h"

struct elf_image;

/* The tables of the domains, to 3.11, where they are static variables. 0, -ENOENT, or
 * another negative errno. */
int alloc_refs_tables(const struct elf_image *image, uint64_t tables[ALLOC_DOMAINS]);

/* 3.13 on: the offset of ref_tracer.tracer_func in _PyRuntime. It moved within 3.13. */
int alloc_refs_tracer(const struct elf_image *image, uint32_t *offset);

#endif
