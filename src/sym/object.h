/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One mapped ELF file, opened once however many processes map it. The open
 * descriptor keeps it readable when the file is replaced on disk or the
 * process that showed it to us is gone.
 */
#ifndef LEAKTOP_OBJECT_H
#define LEAKTOP_OBJECT_H

#include <stdbool.h>
#include <stdint.h>

struct object;
struct object_table;

struct object_id {
	uint32_t dev_major, dev_minor;
	uint64_t inode;
};

struct object_table *object_table_new(void);
void object_table_free(struct object_table *t);

/*
 * The object with @id; when it is new, @fd (a descriptor of the file, duplicated)
 * and @path (the name in the target) make it. Owned by the table, never moved.
 * Returns 0, -EINVAL if it is no 64-bit ELF file, or another negative errno.
 * @fd -1: only looks, and trusts @id; -ENOENT if it is not known yet.
 */
int object_table_get(struct object_table *t, const struct object_id *id, int fd, const char *path,
		     struct object **out);

int object_fd(const struct object *o);
const char *object_path(const struct object *o);
const char *object_build_id(const struct object *o); /* hex; NULL if none */
/* Whether two objects are one file seen through two mounts: containers of one
 * image show one inode under different devices (overlayfs). */
bool object_is_same_file(const struct object *a, const struct object *b);
/* A library that is an allocator: what it maps itself is not the program's. */
void object_set_allocator(struct object *o);
bool object_is_allocator(const struct object *o);
/* ELF virtual address of a file offset, by the program headers; -ERANGE outside. */
int object_vaddr(const struct object *o, uint64_t file_offset, uint64_t *vaddr);

#endif
