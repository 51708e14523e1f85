/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LEAKTOP_EH_FRAME_H
#define LEAKTOP_EH_FRAME_H

#include "unwind/cfi_records.h"
#include "unwind/elf_image.h"

/*
 * Find the call frame information of @image. *part borrows *contents, whose data
 * is the caller's to free. 0, -ENOENT or -ENODATA (there is none), or another negative
 * errno.
 */
int eh_frame_find(const struct elf_image *image, struct elf_part *contents, struct cfi_part *part);
int debug_frame_find(const struct elf_image *image, struct elf_part *contents,
		     struct cfi_part *part);

#endif
