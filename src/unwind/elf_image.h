/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A 64-bit x86-64 ELF program or library, in a file or in memory (the vdso). */
#ifndef LEAKTOP_ELF_IMAGE_H
#define LEAKTOP_ELF_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct elf_image;

struct elf_part {
	uint8_t *data; /* the caller's to free */
	size_t size_bytes;
	uint64_t vaddr;
};

#define ELF_PART_BYTES_MAX (64u << 20)

/*
 * The file is read through @fd, or the @size_bytes at @memory; both are
 * borrowed. 0, -EINVAL (no such ELF file), or another negative errno.
 */
int elf_image_new_fd(int fd, struct elf_image **out);
int elf_image_new_memory(const void *memory, size_t size_bytes, struct elf_image **out);
void elf_image_free(struct elf_image *image);

/* Where the executable segments begin and end. 0 or -ENODATA. */
int elf_image_text(const struct elf_image *image, uint64_t *low, uint64_t *high);
/*
 * The next executable section from number *i on, as far as the file holds it; *i is moved
 * behind it. Segments, in which there may be much else, where no section is executable.
 * False: there are no more.
 */
bool elf_image_next_code(const struct elf_image *image, size_t *i, uint64_t *low, uint64_t *high);
uint64_t elf_image_entry(const struct elf_image *image);

/* Copies @bytes at @vaddr, all of one segment. 0, -ENOENT or another negative errno. */
int elf_image_copy(const struct elf_image *image, uint64_t vaddr, void *to, size_t bytes);

/*
 * Read a section by name (inflated if compressed), the segment of a type, and
 * what is in the file from @vaddr on to the end of its segment, at most
 * ELF_PART_BYTES_MAX. 0, -ENOENT (there is none), -ENODATA (its contents are not
 * in this file, as in separate debug files), -EFBIG, -EINVAL, -ENOMEM.
 */
int elf_image_section(const struct elf_image *image, const char *name, struct elf_part *part);
int elf_image_segment(const struct elf_image *image, uint32_t type, struct elf_part *part);
int elf_image_from(const struct elf_image *image, uint64_t vaddr, struct elf_part *part);

#endif
