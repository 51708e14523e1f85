/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The program or library that holds a CPython interpreter, as mapped by a process: what
 * it exports, and where that lies in the process.
 */
#ifndef LEAKTOP_BINARY_H
#define LEAKTOP_BINARY_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct binary;
struct mapping;

/* Opens the file behind @m. 0, -EINVAL (no 64-bit ELF file, or it does not lie there as
 * its headers say), -ESRCH, or another negative errno. */
int binary_new(pid_t pid, const struct mapping *m, struct binary **out);
void binary_free(struct binary *b);

pid_t binary_pid(const struct binary *b);
/* Address in the process - virtual address in the file. */
uint64_t binary_bias(const struct binary *b);

/*
 * What it defines under @name, in .dynsym, or where it has none in .symtab. 0, -ENOENT,
 * or another negative errno. @bytes may be NULL.
 */
int binary_symbol(const struct binary *b, const char *name, uint64_t *vaddr, uint64_t *bytes);

/* Copies what is in the file at @vaddr. */
int binary_copy(const struct binary *b, uint64_t vaddr, void *to, size_t bytes);

#endif
