/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The file is read, never mapped: a target that truncates a file we had mapped
 * would end us with SIGBUS. Nothing is allocated before its size was compared
 * with a limit and with the size of the file.
 */
#include "unwind/elf_image.h"

#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#define SEGMENTS_MAX 4096u
#define SECTIONS_MAX 0xff00u /* SHN_LORESERVE: linked files have no more */
#define NAMES_MAX (4u << 20) /* bytes of .shstrtab */

struct elf_image {
	int fd; /* -1: memory */
	const uint8_t *memory;
	uint64_t size_bytes;
	uint64_t entry;
	Elf64_Phdr *segments;
	size_t segment_count;
	Elf64_Shdr *sections;
	size_t section_count;
	char *names; /* of the sections, with a zero behind */
	size_t names_bytes;
};

static bool inside(const struct elf_image *image, uint64_t offset, uint64_t bytes)
{
	return bytes <= image->size_bytes && offset <= image->size_bytes - bytes;
}

static int read_at(const struct elf_image *image, uint64_t offset, void *to, size_t bytes)
{
	size_t done = 0;
	ssize_t n;

	if (!inside(image, offset, bytes))
		return -EINVAL;
	if (image->fd < 0) {
		memcpy(to, image->memory + offset, bytes);
		return 0;
	}
	while (done < bytes) {
		n = pread(image->fd, (char *)to + done, bytes - done, (off_t)(offset + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			return -EINVAL;
		done += (size_t)n;
	}
	return 0;
}

/* Reads @bytes, followed by a zero, into memory of their own. */
static int read_new(const struct elf_image *image, uint64_t offset, uint64_t bytes, uint64_t max,
		    void **out)
{
	char *data;
	int err;

	if (bytes > max)
		return -EFBIG;
	if (!inside(image, offset, bytes))
		return -EINVAL;
	data = malloc(bytes + 1);
	if (!data)
		return -ENOMEM;
	err = read_at(image, offset, data, bytes);
	if (err) {
		free(data);
		return err;
	}
	data[bytes] = '\0';
	*out = data;
	return 0;
}

static bool header_good(const Elf64_Ehdr *eh)
{
	return !memcmp(eh->e_ident, ELFMAG, SELFMAG) && eh->e_ident[EI_CLASS] == ELFCLASS64 &&
	       eh->e_ident[EI_DATA] == ELFDATA2LSB && eh->e_machine == EM_X86_64 &&
	       (eh->e_type == ET_EXEC || eh->e_type == ET_DYN) &&
	       eh->e_phentsize == sizeof(Elf64_Phdr) && eh->e_phnum && eh->e_phnum <= SEGMENTS_MAX;
}

/* A file without section headers, or with wrong ones, still has its segments. */
static int read_sections(struct elf_image *image, const Elf64_Ehdr *eh)
{
	const Elf64_Shdr *names;
	void *data;
	int err;

	if (!eh->e_shoff || !eh->e_shnum || eh->e_shnum > SECTIONS_MAX ||
	    eh->e_shentsize != sizeof(Elf64_Shdr) || eh->e_shstrndx >= eh->e_shnum)
		return 0;
	err = read_new(image, eh->e_shoff, eh->e_shnum * sizeof(Elf64_Shdr), UINT64_MAX, &data);
	if (err)
		return err == -EINVAL ? 0 : err;
	image->sections = data;
	names = &image->sections[eh->e_shstrndx];
	err = read_new(image, names->sh_offset, names->sh_size, NAMES_MAX, &data);
	if (err)
		return err == -EINVAL || err == -EFBIG ? 0 : err;
	image->names = data;
	image->names_bytes = names->sh_size;
	image->section_count = eh->e_shnum;
	return 0;
}

static int read_headers(struct elf_image *image)
{
	Elf64_Ehdr eh;
	void *data;
	int err;

	err = read_at(image, 0, &eh, sizeof(eh));
	if (err)
		return err;
	if (!header_good(&eh))
		return -EINVAL;
	err = read_new(image, eh.e_phoff, eh.e_phnum * sizeof(Elf64_Phdr), UINT64_MAX, &data);
	if (err)
		return err;
	image->segments = data;
	image->segment_count = eh.e_phnum;
	image->entry = eh.e_entry;
	return read_sections(image, &eh);
}

static int image_new(int fd, const void *memory, uint64_t size_bytes, struct elf_image **out)
{
	struct elf_image *image = calloc(1, sizeof(*image));
	int err;

	if (!image)
		return -ENOMEM;
	image->fd = fd;
	image->memory = memory;
	image->size_bytes = size_bytes;
	err = read_headers(image);
	if (err) {
		elf_image_free(image);
		return err;
	}
	*out = image;
	return 0;
}

int elf_image_new_fd(int fd, struct elf_image **out)
{
	struct stat st;

	if (fd < 0)
		return -EBADF;
	if (fstat(fd, &st))
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	return image_new(fd, NULL, (uint64_t)st.st_size, out);
}

int elf_image_new_memory(const void *memory, size_t size_bytes, struct elf_image **out)
{
	return image_new(-1, memory, size_bytes, out);
}

void elf_image_free(struct elf_image *image)
{
	if (!image)
		return;
	free(image->segments);
	free(image->sections);
	free(image->names);
	free(image);
}

int elf_image_text(const struct elf_image *image, uint64_t *low, uint64_t *high)
{
	uint64_t first = UINT64_MAX, last = 0, end;
	size_t i;

	for (i = 0; i < image->segment_count; i++) {
		const Elf64_Phdr *ph = &image->segments[i];

		if (ph->p_type != PT_LOAD || !(ph->p_flags & PF_X) || !ph->p_memsz ||
		    __builtin_add_overflow(ph->p_vaddr, ph->p_memsz, &end))
			continue;
		if (ph->p_vaddr < first)
			first = ph->p_vaddr;
		if (end > last)
			last = end;
	}
	if (!last)
		return -ENODATA;
	*low = first;
	*high = last;
	return 0;
}

static bool is_code(const struct elf_image *image, size_t i)
{
	const Elf64_Shdr *sh = &image->sections[i];

	return sh->sh_type == SHT_PROGBITS && (sh->sh_flags & SHF_ALLOC) &&
	       (sh->sh_flags & SHF_EXECINSTR) && sh->sh_size;
}

static bool has_code_sections(const struct elf_image *image)
{
	size_t i;

	for (i = 0; i < image->section_count; i++) {
		if (is_code(image, i))
			return true;
	}
	return false;
}

static bool next_section(const struct elf_image *image, size_t *i, uint64_t *low, uint64_t *high)
{
	while (*i < image->section_count) {
		const Elf64_Shdr *sh = &image->sections[(*i)++];

		if (!is_code(image, *i - 1) || !inside(image, sh->sh_offset, sh->sh_size) ||
		    __builtin_add_overflow(sh->sh_addr, sh->sh_size, high))
			continue;
		*low = sh->sh_addr;
		return true;
	}
	return false;
}

static bool next_segment(const struct elf_image *image, size_t *i, uint64_t *low, uint64_t *high)
{
	uint64_t bytes;

	while (*i < image->segment_count) {
		const Elf64_Phdr *ph = &image->segments[(*i)++];

		bytes = ph->p_filesz < ph->p_memsz ? ph->p_filesz : ph->p_memsz;
		if (ph->p_type != PT_LOAD || !(ph->p_flags & PF_X) || !bytes ||
		    !inside(image, ph->p_offset, bytes) ||
		    __builtin_add_overflow(ph->p_vaddr, bytes, high))
			continue;
		*low = ph->p_vaddr;
		return true;
	}
	return false;
}

bool elf_image_next_code(const struct elf_image *image, size_t *i, uint64_t *low, uint64_t *high)
{
	return has_code_sections(image) ? next_section(image, i, low, high)
					: next_segment(image, i, low, high);
}

uint64_t elf_image_entry(const struct elf_image *image)
{
	return image->entry;
}

int elf_image_copy(const struct elf_image *image, uint64_t vaddr, void *to, size_t bytes)
{
	uint64_t skipped, offset;
	size_t i;

	for (i = 0; i < image->segment_count; i++) {
		const Elf64_Phdr *ph = &image->segments[i];

		skipped = vaddr - ph->p_vaddr;
		if (ph->p_type != PT_LOAD || vaddr < ph->p_vaddr || skipped >= ph->p_filesz)
			continue;
		if (bytes > ph->p_filesz - skipped ||
		    __builtin_add_overflow(ph->p_offset, skipped, &offset))
			return -EINVAL;
		return read_at(image, offset, to, bytes);
	}
	return -ENOENT;
}

static int inflate_all(const struct elf_part *from, void *to, uint64_t bytes)
{
	uLongf written = bytes;

	if (uncompress(to, &written, from->data + sizeof(Elf64_Chdr),
		       from->size_bytes - sizeof(Elf64_Chdr)) != Z_OK ||
	    written != bytes)
		return -EINVAL;
	return 0;
}

/* Replaces the contents of an SHF_COMPRESSED section (Go's linker writes such). */
static int inflate_part(struct elf_part *part)
{
	Elf64_Chdr ch;
	void *data;
	int err;

	if (part->size_bytes < sizeof(ch))
		return -EINVAL;
	memcpy(&ch, part->data, sizeof(ch));
	if (ch.ch_type != ELFCOMPRESS_ZLIB)
		return -ENODATA;
	if (ch.ch_size > ELF_PART_BYTES_MAX)
		return -EFBIG;
	data = malloc(ch.ch_size + 1);
	if (!data)
		return -ENOMEM;
	err = inflate_all(part, data, ch.ch_size);
	if (err) {
		free(data);
		return err;
	}
	free(part->data);
	part->data = data;
	part->size_bytes = ch.ch_size;
	return 0;
}

static const Elf64_Shdr *find_section(const struct elf_image *image, const char *name)
{
	size_t i;

	for (i = 0; i < image->section_count; i++) {
		const Elf64_Shdr *sh = &image->sections[i];

		if (sh->sh_name < image->names_bytes && !strcmp(image->names + sh->sh_name, name))
			return sh;
	}
	return NULL;
}

static int read_part(const struct elf_image *image, uint64_t offset, uint64_t bytes, uint64_t vaddr,
		     struct elf_part *part)
{
	void *data;
	int err;

	err = read_new(image, offset, bytes, ELF_PART_BYTES_MAX, &data);
	if (err)
		return err;
	*part = (struct elf_part){data, bytes, vaddr};
	return 0;
}

int elf_image_section(const struct elf_image *image, const char *name, struct elf_part *part)
{
	const Elf64_Shdr *sh = find_section(image, name);
	struct elf_part read;
	int err;

	if (!sh)
		return -ENOENT;
	if (sh->sh_type == SHT_NOBITS || !sh->sh_size)
		return -ENODATA;
	err = read_part(image, sh->sh_offset, sh->sh_size, sh->sh_addr, &read);
	if (err)
		return err;
	if (sh->sh_flags & SHF_COMPRESSED)
		err = inflate_part(&read);
	if (err) {
		free(read.data);
		return err;
	}
	*part = read;
	return 0;
}

int elf_image_segment(const struct elf_image *image, uint32_t type, struct elf_part *part)
{
	size_t i;

	for (i = 0; i < image->segment_count; i++) {
		const Elf64_Phdr *ph = &image->segments[i];

		if (ph->p_type == type && ph->p_filesz)
			return read_part(image, ph->p_offset, ph->p_filesz, ph->p_vaddr, part);
	}
	return -ENOENT;
}

int elf_image_from(const struct elf_image *image, uint64_t vaddr, struct elf_part *part)
{
	uint64_t skipped, bytes;
	size_t i;

	for (i = 0; i < image->segment_count; i++) {
		const Elf64_Phdr *ph = &image->segments[i];

		skipped = vaddr - ph->p_vaddr;
		if (ph->p_type != PT_LOAD || vaddr < ph->p_vaddr || skipped >= ph->p_filesz)
			continue;
		if (!inside(image, ph->p_offset, ph->p_filesz))
			return -EINVAL;
		bytes = ph->p_filesz - skipped;
		if (bytes > ELF_PART_BYTES_MAX)
			bytes = ELF_PART_BYTES_MAX;
		return read_part(image, ph->p_offset + skipped, bytes, vaddr, part);
	}
	return -ENOENT;
}
