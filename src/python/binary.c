/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Every executable mapping of a process is asked whether it exports an interpreter, so
 * names are looked up by the GNU hash table of the dynamic section as the dynamic linker
 * does: a few small reads where reading .dynsym of a large library takes milliseconds.
 */
#include "python/binary.h"

#include <elf.h>
#include <errno.h>
#include <gelf.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sym/elf_file.h"
#include "target/procfs.h"
#include "unwind/elf_image.h"

#define DYNAMIC_ENTRIES_MAX 1024
#define SEGMENTS_MAX 128
#define CHAIN_MAX 1024 /* symbols of one bucket */
#define NAME_BYTES_MAX 64
#define PAGE_BYTES 4096ull

struct binary {
	pid_t pid;
	int fd;
	uint64_t bias;
	struct elf_image *image;
	uint64_t hash, symbols, strings; /* virtual addresses, 0: none */
	uint64_t strings_bytes;
};

/* As glibc (elf/dl-lookup.c, do_lookup_x()) reads DT_GNU_HASH: behind the header the bloom
 * filter, then the buckets, then the chains of hashes. */
struct hash_table {
	uint32_t buckets;
	uint32_t first; /* symbol in the chains */
	uint32_t bloom_words;
	uint32_t bloom_shift;
};

static bool segment_holds(const GElf_Phdr *ph, uint64_t offset)
{
	uint64_t start = ph->p_offset & ~(PAGE_BYTES - 1);

	return ph->p_type == PT_LOAD && (ph->p_flags & PF_X) && offset >= start &&
	       offset - start < ph->p_filesz + (ph->p_offset - start);
}

static int read_bias(struct binary *b, const struct mapping *m)
{
	size_t i, count;
	GElf_Phdr ph;
	Elf *elf;
	int err;

	err = elf_file_open(b->fd, &elf);
	if (err)
		return err;
	err = -EINVAL;
	if (elf_getphdrnum(elf, &count))
		count = 0;
	for (i = 0; err && i < count && i < SEGMENTS_MAX; i++) {
		if (!gelf_getphdr(elf, (int)i, &ph) || !segment_holds(&ph, m->offset))
			continue;
		b->bias = m->start - m->offset - (ph.p_vaddr - ph.p_offset);
		err = 0;
	}
	elf_end(elf);
	return err;
}

/* A program that is linked statically has no such segment. */
static int read_dynamic(struct binary *b)
{
	struct elf_part part;
	Elf64_Dyn dyn;
	size_t i;
	int err;

	err = elf_image_segment(b->image, PT_DYNAMIC, &part);
	if (err)
		return err == -ENOENT ? 0 : err;
	for (i = 0; i < DYNAMIC_ENTRIES_MAX && (i + 1) * sizeof(dyn) <= part.size_bytes; i++) {
		memcpy(&dyn, part.data + i * sizeof(dyn), sizeof(dyn));
		if (dyn.d_tag == DT_NULL)
			break;
		if (dyn.d_tag == DT_GNU_HASH)
			b->hash = dyn.d_un.d_ptr;
		else if (dyn.d_tag == DT_SYMTAB)
			b->symbols = dyn.d_un.d_ptr;
		else if (dyn.d_tag == DT_STRTAB)
			b->strings = dyn.d_un.d_ptr;
		else if (dyn.d_tag == DT_STRSZ)
			b->strings_bytes = dyn.d_un.d_val;
	}
	free(part.data);
	return 0;
}

int binary_new(pid_t pid, const struct mapping *m, struct binary **out)
{
	struct binary *b = calloc(1, sizeof(*b));
	int err;

	if (!b)
		return -ENOMEM;
	b->pid = pid;
	b->fd = mapping_open(pid, m);
	err = b->fd < 0 ? b->fd : elf_image_new_fd(b->fd, &b->image);
	if (!err)
		err = read_bias(b, m);
	if (!err)
		err = read_dynamic(b);
	if (err) {
		binary_free(b);
		return err;
	}
	*out = b;
	return 0;
}

void binary_free(struct binary *b)
{
	if (!b)
		return;
	elf_image_free(b->image);
	if (b->fd >= 0)
		close(b->fd);
	free(b);
}

pid_t binary_pid(const struct binary *b)
{
	return b->pid;
}

uint64_t binary_bias(const struct binary *b)
{
	return b->bias;
}

int binary_copy(const struct binary *b, uint64_t vaddr, void *to, size_t bytes)
{
	return elf_image_copy(b->image, vaddr, to, bytes);
}

static bool defined(const Elf64_Sym *sym)
{
	return sym->st_shndx != SHN_UNDEF && sym->st_value &&
	       ELF64_ST_BIND(sym->st_info) != STB_LOCAL && ELF64_ST_TYPE(sym->st_info) != STT_TLS;
}

static uint32_t hash_of(const char *name)
{
	uint32_t hash = 5381;

	while (*name)
		hash = hash * 33 + (uint8_t)*name++;
	return hash;
}

static bool in_bloom(const struct binary *b, const struct hash_table *t, uint32_t hash)
{
	uint64_t word;
	uint32_t i = hash / 64 & (t->bloom_words - 1);

	if (binary_copy(b, b->hash + sizeof(*t) + 8ull * i, &word, sizeof(word)))
		return false;
	return word >> hash % 64 & word >> (hash >> (t->bloom_shift & 31)) % 64 & 1;
}

static bool has_name(const struct binary *b, const Elf64_Sym *sym, const char *name)
{
	size_t bytes = strlen(name) + 1;
	char found[NAME_BYTES_MAX];

	return bytes <= sizeof(found) && sym->st_name < b->strings_bytes &&
	       bytes <= b->strings_bytes - sym->st_name &&
	       !binary_copy(b, b->strings + sym->st_name, found, bytes) &&
	       !memcmp(found, name, bytes);
}

static int find_dynamic(const struct binary *b, const char *name, Elf64_Sym *sym)
{
	uint32_t hash = hash_of(name), index, link = 0;
	uint64_t buckets, chains;
	struct hash_table t;

	if (binary_copy(b, b->hash, &t, sizeof(t)) || !t.buckets || !t.bloom_words)
		return -EINVAL;
	if (!in_bloom(b, &t, hash))
		return -ENOENT;
	buckets = b->hash + sizeof(t) + 8ull * t.bloom_words;
	chains = buckets + 4ull * t.buckets;
	if (binary_copy(b, buckets + 4ull * (hash % t.buckets), &index, sizeof(index)))
		return -EINVAL;
	if (index < t.first)
		return -ENOENT;
	for (int i = 0; i < CHAIN_MAX && !(link & 1); i++, index++) {
		if (binary_copy(b, chains + 4ull * (index - t.first), &link, sizeof(link)))
			return -EINVAL;
		if ((link | 1) != (hash | 1))
			continue;
		if (binary_copy(b, b->symbols + sizeof(*sym) * (uint64_t)index, sym, sizeof(*sym)))
			return -EINVAL;
		if (defined(sym) && has_name(b, sym, name))
			return 0;
	}
	return -ENOENT;
}

static int find_in_table(const struct elf_part *table, const struct elf_part *strings,
			 const char *name, Elf64_Sym *sym)
{
	size_t bytes = strlen(name) + 1, i;

	for (i = 0; i < table->size_bytes / sizeof(*sym); i++) {
		memcpy(sym, table->data + i * sizeof(*sym), sizeof(*sym));
		if (defined(sym) && sym->st_name < strings->size_bytes &&
		    bytes <= strings->size_bytes - sym->st_name &&
		    !memcmp(strings->data + sym->st_name, name, bytes))
			return 0;
	}
	return -ENOENT;
}

static int find_static(const struct binary *b, const char *name, Elf64_Sym *sym)
{
	struct elf_part table = {0}, strings = {0};
	int err;

	err = elf_image_section(b->image, ".symtab", &table);
	if (!err)
		err = elf_image_section(b->image, ".strtab", &strings);
	if (!err)
		err = find_in_table(&table, &strings, name, sym);
	free(table.data);
	free(strings.data);
	return err == -ENODATA ? -ENOENT : err;
}

int binary_symbol(const struct binary *b, const char *name, uint64_t *vaddr, uint64_t *bytes)
{
	Elf64_Sym sym;
	int err;

	err = b->hash ? find_dynamic(b, name, &sym) : find_static(b, name, &sym);
	if (err)
		return err;
	*vaddr = sym.st_value;
	if (bytes)
		*bytes = sym.st_size;
	return 0;
}
