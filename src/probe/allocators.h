/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The table of functions that give out and take back memory: one row a
 * function name. Adding an allocator is adding rows or a prefix.
 */
#ifndef LEAKTOP_ALLOCATORS_H
#define LEAKTOP_ALLOCATORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "probe_spec.h"

struct alloc_func {
	const char *name; /* as in the symbol table, without a prefix */
	struct probe_spec spec;
};

/*
 * The row for @symbol, or NULL. The bare names are tried, then each prefix
 * that allocators are built with ("je_", "_rjem_", "tc_", "mi_", ...), then
 * @extra_prefix (may be NULL; option -S). C++ operator new and delete are rows
 * under their mangled names, without prefixes.
 */
const struct alloc_func *alloc_func_find(const char *symbol, const char *extra_prefix);

/* Bit i: the probe reads argument i; for plan_probe_args(). */
unsigned int alloc_func_args(const struct alloc_func *f);

/* Whether an exception can leave the function: it must have no return probe
 * unless unwinding is guarded (bpf/guard.bpf.c). */
bool alloc_func_throws(const struct alloc_func *f);

/* One function found in an object: where it is and what it does. */
struct alloc_site {
	const struct alloc_func *func;
	char *symbol;	   /* name in the symbol table, for messages */
	uint64_t vaddr;	   /* ELF virtual address */
	uint64_t offset;   /* in the file: what a uprobe wants */
	uint64_t size;	   /* bytes of code, 0 if unknown */
	uint8_t code[256]; /* the first bytes of the function */
	size_t code_len;   /* valid bytes in @code, <= size when size is known */
};

struct alloc_sites {
	struct alloc_site *items;
	size_t count;
	const char *allocator; /* "glibc", "musl", "jemalloc", "tcmalloc", "mimalloc", "custom",
				  or NULL if no malloc-like function was found; static storage */
	bool has_malloc;       /* defines malloc/free themselves, not only operator new or mmap */
	bool has_python;       /* it is or holds a CPython interpreter */
	uint64_t dl_debug_offset; /* file offset of _dl_debug_state, 0 if none */
};

/*
 * Finds the functions of the table that are defined in the ELF file @fd
 * (.dynsym and .symtab, through libelf), one site per address: aliases such as
 * malloc and je_malloc become one. Sites are sorted by offset.
 * The file is hostile input: every index is checked.
 * Returns 0 (also when nothing was found), -ENOTSUP for a 32-bit or foreign
 * object, -EINVAL for what is no ELF file, or another negative errno.
 */
int alloc_sites_scan(int fd, const char *extra_prefix, struct alloc_sites *out);
/* A function that has no symbol, but is known to be at @vaddr. */
struct alloc_place {
	const struct alloc_func *func;
	uint64_t vaddr;
	uint64_t equal; /* 0: none; else calls come by there too, on their way to @vaddr */
};
/* The sites at the @vaddr of such functions, in their order. @allocator has static storage. */
int alloc_sites_at(int fd, const char *allocator, const struct alloc_place *places, size_t count,
		   struct alloc_sites *out);
void alloc_sites_release(struct alloc_sites *s);

#endif
