/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * libdw trusts strings of a line table to end inside their section (0.188: a
 * file name without its NUL is read past the buffer), and a file mapped by us
 * could be truncated under us. So libdw gets an image of our own: as large as
 * the file, but filled with headers and debug sections only, the rest being
 * untouched zero pages, and with zeros behind its end. Compressed sections are
 * unpacked here, because libelf would put them into buffers of exact size.
 */
#include "sym/debug_image.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sym/elf_file.h"

#define PAD_BYTES 4096
#define FILE_BYTES_MAX (64ull << 30) /* address space, not memory */

struct unpacked {
	struct unpacked *next;
	char bytes[];
};

struct debug_image {
	char *base;
	size_t file_bytes;
	uint64_t bytes; /* in memory */
	Elf *elf;
	struct unpacked *unpacked;
};

static int load(struct debug_image *image, int fd, uint64_t offset, uint64_t bytes)
{
	if (offset > image->file_bytes || bytes > image->file_bytes - offset)
		return -EINVAL;
	while (bytes) {
		ssize_t n = pread(fd, image->base + offset, bytes, (off_t)offset);

		if (n < 0)
			return -errno;
		if (n == 0)
			return -EINVAL;
		offset += (uint64_t)n;
		bytes -= (uint64_t)n;
	}
	return 0;
}

static bool is_debug_section(const char *name)
{
	return !strncmp(name, ".debug_", 7) || !strncmp(name, ".gnu_debug", 10) ||
	       !strncmp(name, ".zdebug", 7);
}

/* The name if it is a debug section with contents, else NULL. */
static const char *debug_section(Elf *elf, Elf_Scn *section, GElf_Shdr *sh)
{
	const char *name;
	size_t names;

	if (elf_getshdrstrndx(elf, &names) || !gelf_getshdr(section, sh) ||
	    sh->sh_type == SHT_NOBITS)
		return NULL;
	name = elf_strptr(elf, names, sh->sh_name);
	return name && is_debug_section(name) ? name : NULL;
}

static int load_headers(struct debug_image *image, int fd, Elf *elf)
{
	size_t sections, names;
	GElf_Ehdr eh;
	GElf_Shdr sh;
	int err;

	if (!gelf_getehdr(elf, &eh) || elf_getshdrnum(elf, &sections) ||
	    elf_getshdrstrndx(elf, &names) || !gelf_getshdr(elf_getscn(elf, names), &sh))
		return -ENOENT;
	err = load(image, fd, 0, sizeof(Elf64_Ehdr));
	if (!err)
		err = load(image, fd, eh.e_shoff, sections * sizeof(Elf64_Shdr));
	if (!err && sh.sh_type != SHT_NOBITS)
		err = load(image, fd, sh.sh_offset, sh.sh_size);
	return err;
}

static int load_sections(struct debug_image *image, int fd, Elf *elf, uint64_t max_bytes)
{
	Elf_Scn *section = NULL;
	bool found = false;
	GElf_Shdr sh;
	int err = 0;

	while (!err && (section = elf_nextscn(elf, section))) {
		const char *name = debug_section(elf, section, &sh);

		if (!name)
			continue;
		/* The old compressed form, of which libelf tells no size. */
		if (!strncmp(name, ".zdebug", 7))
			return -ENOTSUP;
		if (sh.sh_size > max_bytes - image->bytes)
			return -E2BIG;
		image->bytes += sh.sh_size;
		found = found || !strcmp(name, ".debug_info");
		err = load(image, fd, sh.sh_offset, sh.sh_size);
	}
	if (!err && !found)
		err = -ENOENT;
	return err;
}

static int fill(struct debug_image *image, int fd, uint64_t max_bytes)
{
	Elf *elf;
	int err;

	err = elf_file_open_debug(fd, &elf);
	if (err)
		return err;
	err = load_headers(image, fd, elf);
	if (!err)
		err = load_sections(image, fd, elf, max_bytes);
	elf_end(elf);
	return err;
}

/*
 * Deflate makes up to 1,032 bytes of one, so the size that the compression
 * header announces (and libelf insists on) is checked before.
 */
static int unpack(struct debug_image *image, Elf_Scn *section, uint64_t max_bytes)
{
	struct unpacked *copy;
	Elf_Data *data;
	GElf_Chdr ch;

	if (!gelf_getchdr(section, &ch))
		return -EINVAL;
	/* libelf's buffer and ours. */
	if (ch.ch_size > (max_bytes - image->bytes) / 2)
		return -E2BIG;
	if (elf_compress(section, 0, 0) < 0)
		return -EINVAL;
	data = elf_getdata(section, NULL);
	if (!data || !data->d_buf || data->d_size > ch.ch_size)
		return -EINVAL;
	copy = malloc(sizeof(*copy) + data->d_size + PAD_BYTES);
	if (!copy)
		return -ENOMEM;
	image->bytes += 2 * ch.ch_size;
	memcpy(copy->bytes, data->d_buf, data->d_size);
	memset(copy->bytes + data->d_size, 0, PAD_BYTES);
	/* libelf frees its buffer by another pointer than this one. */
	data->d_buf = copy->bytes;
	copy->next = image->unpacked;
	image->unpacked = copy;
	return 0;
}

static int unpack_sections(struct debug_image *image, uint64_t max_bytes)
{
	Elf_Scn *section = NULL;
	GElf_Shdr sh;
	int err = 0;

	while (!err && (section = elf_nextscn(image->elf, section))) {
		if (debug_section(image->elf, section, &sh) && sh.sh_flags & SHF_COMPRESSED)
			err = unpack(image, section, max_bytes);
	}
	return err;
}

static int map_image(struct debug_image *image, int fd)
{
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_size <= 0)
		return -EINVAL;
	if ((uint64_t)st.st_size > FILE_BYTES_MAX)
		return -E2BIG;
	image->base = mmap(NULL, (size_t)st.st_size + PAD_BYTES, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (image->base == MAP_FAILED) {
		image->base = NULL;
		return -ENOMEM;
	}
	image->file_bytes = (size_t)st.st_size;
	return 0;
}

int debug_image_new(int fd, uint64_t max_bytes, struct debug_image **out)
{
	struct debug_image *image = calloc(1, sizeof(*image));
	int err;

	if (!image)
		return -ENOMEM;
	err = map_image(image, fd);
	if (!err)
		err = fill(image, fd, max_bytes);
	if (err)
		goto fail;
	image->elf = elf_memory(image->base, image->file_bytes);
	err = image->elf ? unpack_sections(image, max_bytes) : -EINVAL;
	if (err)
		goto fail;
	*out = image;
	return 0;
fail:
	debug_image_free(image);
	return err;
}

void debug_image_free(struct debug_image *image)
{
	if (!image)
		return;
	elf_end(image->elf);
	while (image->unpacked) {
		struct unpacked *next = image->unpacked->next;

		free(image->unpacked);
		image->unpacked = next;
	}
	if (image->base)
		munmap(image->base, image->file_bytes + PAD_BYTES);
	free(image);
}

Elf *debug_image_elf(const struct debug_image *image)
{
	return image->elf;
}

uint64_t debug_image_bytes(const struct debug_image *image)
{
	return image->bytes;
}
