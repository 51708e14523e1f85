/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A private copy of the debug sections of an ELF file, fit to be given to libdw. */
#ifndef LEAKTOP_DEBUG_IMAGE_H
#define LEAKTOP_DEBUG_IMAGE_H

#include <gelf.h>
#include <stdint.h>

struct debug_image;

/* @fd is needed during the call only. Returns 0, -ENOENT if the file has no
 * .debug_info, -E2BIG beyond @max_bytes, or another negative errno. */
int debug_image_new(int fd, uint64_t max_bytes, struct debug_image **out);
void debug_image_free(struct debug_image *image);

Elf *debug_image_elf(const struct debug_image *image);
/* Memory it occupies. */
uint64_t debug_image_bytes(const struct debug_image *image);

#endif
