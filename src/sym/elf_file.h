/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Opens an ELF file that a target may have made to hurt its reader. */
#ifndef LEAKTOP_ELF_FILE_H
#define LEAKTOP_ELF_FILE_H

#include <gelf.h>
#include <stddef.h>
#include <stdint.h>

#define BUILD_ID_BYTES_MAX 64
#define BUILD_ID_HEX_BYTES (2 * BUILD_ID_BYTES_MAX + 1)

/*
 * @fd stays the caller's and must outlive *out, which elf_end() closes.
 * Returns 0, -EINVAL if it is no regular 64-bit ELF program or library of this
 * machine's byte order, or another negative errno.
 */
int elf_file_open(int fd, Elf **out);
/* The same for a debug file: those that dwz makes say they are ET_REL. */
int elf_file_open_debug(int fd, Elf **out);

/* The section called @name with at most @max_bytes in the file, or NULL. */
Elf_Scn *elf_file_section(Elf *elf, const char *name, uint64_t max_bytes);

/* Writes the GNU build id as hex, at least BUILD_ID_HEX_BYTES. 0 or -ENOENT. */
int elf_file_build_id(Elf *elf, char *hex);
void build_id_to_hex(const uint8_t *id, size_t bytes, char *hex);

#endif
