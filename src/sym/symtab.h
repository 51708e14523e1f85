/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The functions of one ELF file by its symbol tables, sorted by address. */
#ifndef LEAKTOP_SYMTAB_H
#define LEAKTOP_SYMTAB_H

#include <stddef.h>
#include <stdint.h>

struct symtab;

/* Per table; what is beyond is left out. */
#define SYMTAB_SYMBOLS_MAX (4u << 20)

/*
 * Reads .symtab of @fd, or else of @debug_fd (-1: there is none), or else of the
 * .gnu_debugdata in @fd (limits: mini_debug.h); and .dynsym of @fd. Both are borrowed
 * and must outlive the table. Returns 0 (also if there are no symbols) or negative errno.
 */
int symtab_new(int fd, int debug_fd, struct symtab **out);
void symtab_free(struct symtab *t);

/* Memory it occupies. */
uint64_t symtab_bytes(const struct symtab *t);

/* The function that covers @vaddr: its name, cut to @size, and its start.
 * 0, -ENOENT if there is none, or another negative errno. */
int symtab_find(const struct symtab *t, uint64_t vaddr, char *name, size_t size, uint64_t *start);

#endif
