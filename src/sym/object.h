/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One mapped ELF file, opened once however many processes map it. The open
 * descriptor keeps it readable when the file is replaced on disk or the
 * process that showed it to us is gone.
 *
 * The table belongs to one thread, which alone calls object_table_*() and
 * object_set_*(). All that takes a const object may be called by any thread that was
 * handed the object, while the table grows and attributes are set. Nobody moves the
 * position of its descriptor.
 */
#ifndef LEAKTOP_OBJECT_H
#define LEAKTOP_OBJECT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

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
/* A function of it gives out memory. Others than that are not told: some at most. */
void object_add_allocator(struct object *o, uint64_t vaddr, uint64_t size_bytes);
/* Whether @vaddr is in one of these. Both for the thread that probes. */
bool object_allocates_at(const struct object *o, uint64_t vaddr);
/* A binary that holds a CPython interpreter which is traced. */
void object_set_interpreter(struct object *o);
bool object_is_interpreter(const struct object *o);
/* A hash of its build id, or of its path if it has none: equal in every run. */
uint64_t object_identity(const struct object *o);
/* The number of its inode, as the mappings of processes show it. */
uint64_t object_inode(const struct object *o);
/* Where its code begins: the lowest virtual address of an executable PT_LOAD.
 * -ENODATA if it has none. */
int object_code_start(const struct object *o, uint64_t *vaddr);
/* The vdso, which is no file: a copy of ours, named "[vdso]"; NULL if there is none.
 * Every 64-bit process has the same. Made at the first call. */
struct object *object_table_vdso(struct object_table *t);
/* The process that showed it to us first, whose root has its debug files perhaps.
 * 0: none. It may be gone, and its number another's; *start_ticks tells. Set once:
 * later calls change nothing. */
pid_t object_origin(const struct object *o, uint64_t *start_ticks);
void object_set_origin(struct object *o, pid_t pid, uint64_t start_ticks);
/* ELF virtual address of a file offset, by the program headers; -ERANGE outside. */
int object_vaddr(const struct object *o, uint64_t file_offset, uint64_t *vaddr);

#endif
