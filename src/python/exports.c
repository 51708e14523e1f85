/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "python/exports.h"

#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "unwind/elf_image.h"

/* The name at @offset, ended by a zero within the table; else "". */
static const char *name_at(const struct elf_part *names, uint64_t offset)
{
	if (offset >= names->size_bytes ||
	    !memchr(names->data + offset, '\0', names->size_bytes - offset))
		return "";
	return (const char *)names->data + offset;
}

static void match(const Elf64_Sym *symbol, const char *name, struct export *exports, size_t count)
{
	size_t i;

	for (i = 0; i < count; i++) {
		if (strcmp(exports[i].name, name))
			continue;
		exports[i].vaddr = symbol->st_value;
		exports[i].bytes = symbol->st_size;
	}
}

int exports_find(const struct elf_image *image, struct export *exports, size_t count)
{
	struct elf_part symbols = {0}, names = {0};
	Elf64_Sym symbol;
	size_t i;
	int err;

	err = elf_image_section(image, ".dynsym", &symbols);
	if (!err)
		err = elf_image_section(image, ".dynstr", &names);
	if (err)
		goto out;
	for (i = 0; i < count; i++)
		exports[i].vaddr = exports[i].bytes = 0;
	for (i = 0; i < symbols.size_bytes / sizeof(symbol); i++) {
		memcpy(&symbol, symbols.data + i * sizeof(symbol), sizeof(symbol));
		if (symbol.st_shndx != SHN_UNDEF && symbol.st_value)
			match(&symbol, name_at(&names, symbol.st_name), exports, count);
	}
out:
	free(symbols.data);
	free(names.data);
	return err == -ENODATA ? -ENOENT : err;
}
