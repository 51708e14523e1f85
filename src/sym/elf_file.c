/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * libelf checks offsets against the size of the file, but that size is the
 * target's choice too: a sparse file of terabytes costs nothing to make. So the
 * tables that libelf allocates for are bounded here first. And the file is
 * read, not mapped (ELF_C_READ), because a target that truncates a file we had
 * mapped would end us with SIGBUS.
 */
#include "sym/elf_file.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECTIONS_MAX (1u << 20)
#define SECTION_NAMES_MAX (64u << 20) /* bytes of .shstrtab */
#define HEADERS_MAX 4096u	      /* program headers looked at */
#define NOTE_BYTES_MAX (1u << 20)

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define NATIVE_ELFDATA ELFDATA2LSB
#else
#define NATIVE_ELFDATA ELFDATA2MSB
#endif

static bool header_good(const Elf64_Ehdr *eh)
{
	return !memcmp(eh->e_ident, ELFMAG, SELFMAG) && eh->e_ident[EI_CLASS] == ELFCLASS64 &&
	       eh->e_ident[EI_DATA] == NATIVE_ELFDATA && eh->e_phnum != PN_XNUM;
}

static bool is_program(const Elf64_Ehdr *eh)
{
	return eh->e_type == ET_EXEC || eh->e_type == ET_DYN;
}

/* From SHN_LORESERVE on, the number of sections stands in the first one's sh_size. */
static int check_section_count(int fd, const Elf64_Ehdr *eh)
{
	Elf64_Shdr first;

	if (eh->e_shnum || !eh->e_shoff)
		return 0;
	if (eh->e_shoff > INT64_MAX ||
	    pread(fd, &first, sizeof(first), (off_t)eh->e_shoff) != (ssize_t)sizeof(first))
		return -EINVAL;
	return first.sh_size <= SECTIONS_MAX ? 0 : -EINVAL;
}

static int check_file(int fd, bool debug)
{
	Elf64_Ehdr eh;
	struct stat st;
	ssize_t n;

	if (fstat(fd, &st))
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	n = pread(fd, &eh, sizeof(eh), 0);
	if (n < 0)
		return -errno;
	if (n != (ssize_t)sizeof(eh) || !header_good(&eh) ||
	    !(is_program(&eh) || (debug && eh.e_type == ET_REL)))
		return -EINVAL;
	return check_section_count(fd, &eh);
}

static bool section_names_good(Elf *elf)
{
	GElf_Shdr sh;
	size_t index;

	if (elf_getshdrstrndx(elf, &index) || index == SHN_UNDEF)
		return true;
	return !gelf_getshdr(elf_getscn(elf, index), &sh) || sh.sh_size <= SECTION_NAMES_MAX;
}

static int open_checked(int fd, bool debug, Elf **out)
{
	Elf *elf;
	int err;

	err = check_file(fd, debug);
	if (err)
		return err;
	if (elf_version(EV_CURRENT) == EV_NONE)
		return -ENOTSUP;
	elf = elf_begin(fd, ELF_C_READ, NULL);
	if (!elf)
		return -EINVAL;
	/* The file may have changed since it was checked. */
	if (elf_kind(elf) != ELF_K_ELF || gelf_getclass(elf) != ELFCLASS64 ||
	    !section_names_good(elf)) {
		elf_end(elf);
		return -EINVAL;
	}
	*out = elf;
	return 0;
}

int elf_file_open(int fd, Elf **out)
{
	return open_checked(fd, false, out);
}

int elf_file_open_debug(int fd, Elf **out)
{
	return open_checked(fd, true, out);
}

Elf_Scn *elf_file_section(Elf *elf, const char *name, uint64_t max_bytes)
{
	size_t names;
	Elf_Scn *section = NULL;

	if (elf_getshdrstrndx(elf, &names))
		return NULL;
	while ((section = elf_nextscn(elf, section))) {
		const char *found;
		GElf_Shdr sh;

		if (!gelf_getshdr(section, &sh))
			continue;
		found = elf_strptr(elf, names, sh.sh_name);
		if (found && !strcmp(found, name))
			return sh.sh_type != SHT_NOBITS && sh.sh_size <= max_bytes ? section : NULL;
	}
	return NULL;
}

void build_id_to_hex(const uint8_t *id, size_t bytes, char *hex)
{
	size_t i;

	if (bytes > BUILD_ID_BYTES_MAX)
		bytes = BUILD_ID_BYTES_MAX;
	*hex = '\0';
	for (i = 0; i < bytes; i++)
		sprintf(hex + 2 * i, "%02x", id[i]);
}

static bool build_id_in_notes(Elf_Data *data, char *hex)
{
	size_t offset = 0, next, name, desc;
	GElf_Nhdr nh;

	while (data && offset < data->d_size &&
	       (next = gelf_getnote(data, offset, &nh, &name, &desc))) {
		const uint8_t *bytes = data->d_buf;

		if (nh.n_type == NT_GNU_BUILD_ID && nh.n_namesz == sizeof("GNU") &&
		    !memcmp(bytes + name, "GNU", sizeof("GNU")) && nh.n_descsz > 0 &&
		    nh.n_descsz <= BUILD_ID_BYTES_MAX) {
			build_id_to_hex(bytes + desc, nh.n_descsz, hex);
			return true;
		}
		offset = next;
	}
	return false;
}

static bool build_id_in_segments(Elf *elf, char *hex)
{
	size_t i, count;
	GElf_Phdr ph;

	if (elf_getphdrnum(elf, &count))
		return false;
	for (i = 0; i < count && i < HEADERS_MAX && gelf_getphdr(elf, (int)i, &ph); i++) {
		Elf_Type type = ph.p_align == 8 ? ELF_T_NHDR8 : ELF_T_NHDR;

		if (ph.p_type != PT_NOTE || ph.p_filesz > NOTE_BYTES_MAX || ph.p_offset > INT64_MAX)
			continue;
		if (build_id_in_notes(
			    elf_getdata_rawchunk(elf, (int64_t)ph.p_offset, ph.p_filesz, type),
			    hex))
			return true;
	}
	return false;
}

int elf_file_build_id(Elf *elf, char *hex)
{
	Elf_Scn *section = NULL;
	GElf_Shdr sh;

	if (build_id_in_segments(elf, hex))
		return 0;
	/* A separate debug file keeps program headers that point nowhere. */
	while ((section = elf_nextscn(elf, section))) {
		if (!gelf_getshdr(section, &sh) || sh.sh_type != SHT_NOTE ||
		    sh.sh_size > NOTE_BYTES_MAX)
			continue;
		if (build_id_in_notes(elf_getdata(section, NULL), hex))
			return 0;
	}
	return -ENOENT;
}
