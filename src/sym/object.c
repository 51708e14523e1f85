/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An inode number is not given to another file while we hold the old one open,
 * so (device, inode) alone would do on most filesystems. On btrfs it would not:
 * /proc/PID/maps names the superblock's device there, and every subvolume
 * counts its inodes anew. So a descriptor, where one is given, must also agree
 * in what fstat() says, and several objects may share one id.
 */
#include "sym/object.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "sym/elf_file.h"
#include "target/procfs.h"

#define BUCKETS 4096u
#define OBJECTS_MAX 16384u
#define LOADS_MAX 64u
#define HEADERS_MAX 4096u
#define CODE_PAGE_BYTES UINT64_C(4096)

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8u /* Linux 6.3, include/uapi/linux/memfd.h */
#endif

struct load_segment {
	uint64_t offset, bytes; /* in the file */
	uint64_t vaddr;
	bool executable;
};

#define ALLOCATORS_MAX 16 /* functions that give out memory; those of the C library are first */

struct code_range {
	uint64_t vaddr, size_bytes;
};

struct object {
	struct object *next;
	struct object_id id;
	struct stat st;
	int fd;
	char *path;
	char *build_id;
	uint64_t identity;
	/* Set while other threads look; the pid last, as it tells that both are there. */
	bool is_allocator, is_interpreter;
	struct code_range allocators[ALLOCATORS_MAX];
	size_t allocator_count;
	pid_t origin_pid;
	uint64_t origin_ticks;
	size_t load_count;
	struct load_segment loads[LOADS_MAX];
};

struct object_table {
	size_t count;
	bool vdso_tried;
	struct object *vdso;
	struct object *buckets[BUCKETS];
};

struct object_table *object_table_new(void)
{
	return calloc(1, sizeof(struct object_table));
}

static void object_free(struct object *o)
{
	if (!o)
		return;
	if (o->fd >= 0)
		close(o->fd);
	free(o->path);
	free(o->build_id);
	free(o);
}

void object_table_free(struct object_table *t)
{
	size_t i;

	if (!t)
		return;
	for (i = 0; i < BUCKETS; i++) {
		while (t->buckets[i]) {
			struct object *o = t->buckets[i];

			t->buckets[i] = o->next;
			object_free(o);
		}
	}
	object_free(t->vdso);
	free(t);
}

static struct object **bucket(struct object_table *t, const struct object_id *id)
{
	uint64_t dev = (uint64_t)id->dev_major << 32 | id->dev_minor;
	uint64_t hash = (id->inode ^ dev * 0x9e3779b97f4a7c15u) * 0x9e3779b97f4a7c15u;

	return &t->buckets[hash >> 52 & (BUCKETS - 1)];
}

static bool same_file(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
	       a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/* @st NULL: any file with that id. */
static struct object *lookup(struct object_table *t, const struct object_id *id,
			     const struct stat *st)
{
	struct object *o;

	for (o = *bucket(t, id); o; o = o->next) {
		if (o->id.inode == id->inode && o->id.dev_major == id->dev_major &&
		    o->id.dev_minor == id->dev_minor && (!st || same_file(&o->st, st)))
			return o;
	}
	return NULL;
}

/* Half of the descriptors we may have stay free for the rest of the program. */
static bool table_full(const struct object_table *t)
{
	struct rlimit limit;

	if (t->count >= OBJECTS_MAX)
		return true;
	return !getrlimit(RLIMIT_NOFILE, &limit) && t->count >= limit.rlim_cur / 2;
}

static int read_loads(struct object *o, Elf *elf)
{
	size_t i, count;
	GElf_Phdr ph;

	if (elf_getphdrnum(elf, &count))
		return -EINVAL;
	for (i = 0; i < count && i < HEADERS_MAX && gelf_getphdr(elf, (int)i, &ph); i++) {
		struct load_segment *load = &o->loads[o->load_count];

		if (ph.p_type != PT_LOAD || ph.p_filesz > UINT64_MAX - ph.p_offset ||
		    ph.p_filesz > UINT64_MAX - ph.p_vaddr || ph.p_memsz > UINT64_MAX - ph.p_vaddr)
			continue;
		if (o->load_count == LOADS_MAX)
			break;
		load->offset = ph.p_offset;
		load->bytes = ph.p_filesz;
		load->vaddr = ph.p_vaddr;
		load->executable = (ph.p_flags & PF_X) && ph.p_memsz;
		o->load_count++;
	}
	return 0;
}

static int object_read(struct object *o)
{
	char hex[BUILD_ID_HEX_BYTES];
	Elf *elf;
	int err;

	err = elf_file_open(o->fd, &elf);
	if (err)
		return err;
	err = read_loads(o, elf);
	if (!err && !elf_file_build_id(elf, hex)) {
		o->build_id = strdup(hex);
		if (!o->build_id)
			err = -ENOMEM;
	}
	elf_end(elf);
	return err;
}

/* FNV-1a */
static uint64_t hash_text(const char *text)
{
	uint64_t h = 0xcbf29ce484222325u;

	for (; *text; text++)
		h = (h ^ (unsigned char)*text) * 0x100000001b3u;
	return h;
}

static int object_new(const struct object_id *id, int fd, const struct stat *st, const char *path,
		      struct object **out)
{
	struct object *o = calloc(1, sizeof(*o));
	int err;

	if (!o)
		return -ENOMEM;
	o->id = *id;
	o->st = *st;
	o->path = strndup(path, PATH_MAX);
	o->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (o->fd < 0)
		err = -errno;
	else if (!o->path)
		err = -ENOMEM;
	else
		err = object_read(o);
	if (err) {
		object_free(o);
		return err;
	}
	o->identity = hash_text(o->build_id ? o->build_id : o->path);
	*out = o;
	return 0;
}

int object_table_get(struct object_table *t, const struct object_id *id, int fd, const char *path,
		     struct object **out)
{
	struct object *o, **head;
	struct stat st;
	int err;

	if (fd >= 0 && fstat(fd, &st))
		return -errno;
	o = lookup(t, id, fd >= 0 ? &st : NULL);
	if (!o) {
		if (fd < 0)
			return -ENOENT;
		if (table_full(t))
			return -ENFILE;
		err = object_new(id, fd, &st, path, &o);
		if (err)
			return err;
		head = bucket(t, id);
		o->next = *head;
		*head = o;
		t->count++;
	}
	*out = o;
	return 0;
}

static int find_vdso(struct mapping *out)
{
	uint64_t start = getauxval(AT_SYSINFO_EHDR);
	struct maps_iter *it;
	struct mapping m;
	int err;

	if (!start)
		return -ENOENT;
	err = maps_iter_new(getpid(), &it);
	if (err)
		return err;
	err = -ENOENT;
	while (err && maps_iter_next(it, &m) == 1) {
		if (m.start == start && m.readable) {
			*out = m;
			err = 0;
		}
	}
	maps_iter_free(it);
	return err;
}

/* A system may insist on the flag (sysctl vm.memfd_noexec); old kernels refuse it. */
static int make_memfd(void)
{
	int fd = memfd_create("vdso", MFD_CLOEXEC | MFD_NOEXEC_SEAL);

	if (fd < 0 && errno == EINVAL)
		fd = memfd_create("vdso", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	return fd < 0 ? -errno : fd;
}

/* Sealed, so that what was checked of it once stays true. A descriptor or negative errno. */
static int copy_vdso(void)
{
	struct mapping m;
	size_t bytes;
	int fd, err;

	err = find_vdso(&m);
	if (err)
		return err;
	fd = make_memfd();
	if (fd < 0)
		return fd;
	bytes = m.end - m.start;
	if (write(fd, (const void *)(uintptr_t)m.start, bytes) != (ssize_t)bytes)
		err = -EIO;
	else if (fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL))
		err = -errno;
	if (err) {
		close(fd);
		return err;
	}
	return fd;
}

struct object *object_table_vdso(struct object_table *t)
{
	const struct object_id no_file = {0};
	struct stat st;
	int fd;

	if (t->vdso_tried)
		return t->vdso;
	t->vdso_tried = true;
	fd = copy_vdso();
	if (fd < 0)
		return NULL;
	if (!fstat(fd, &st) && object_new(&no_file, fd, &st, "[vdso]", &t->vdso))
		t->vdso = NULL;
	close(fd);
	return t->vdso;
}

int object_fd(const struct object *o)
{
	return o->fd;
}

const char *object_path(const struct object *o)
{
	return o->path;
}

const char *object_build_id(const struct object *o)
{
	return o->build_id;
}

/* How well @offset fits: 3 inside of code, 2 in the pages that are mapped around
 * code, 1 inside of data, 0 not at all. */
static int segment_fits(const struct load_segment *load, uint64_t offset)
{
	bool inside = offset >= load->offset && offset - load->offset < load->bytes;
	uint64_t before = load->offset & (CODE_PAGE_BYTES - 1);
	uint64_t start = load->offset - before;
	uint64_t bytes = (load->bytes + before + CODE_PAGE_BYTES - 1) & ~(CODE_PAGE_BYTES - 1);

	if (!load->executable)
		return inside;
	return inside ? 3 : offset >= start && offset - start < bytes ? 2 : 0;
}

/* The offset is one of a mapping of code, which consists of whole pages: linkers
 * let the first page of the code hold the end of the segment before it. */
int object_vaddr(const struct object *o, uint64_t file_offset, uint64_t *vaddr)
{
	const struct load_segment *best = NULL;
	int best_fit = 0;

	for (size_t i = 0; i < o->load_count; i++) {
		int fit = segment_fits(&o->loads[i], file_offset);

		if (fit > best_fit) {
			best = &o->loads[i];
			best_fit = fit;
		}
	}
	if (!best)
		return -ERANGE;
	*vaddr = best->vaddr + (file_offset - best->offset);
	return 0;
}

uint64_t object_identity(const struct object *o)
{
	return o->identity;
}

uint64_t object_inode(const struct object *o)
{
	return o->id.inode;
}

int object_code_start(const struct object *o, uint64_t *vaddr)
{
	const struct load_segment *first = NULL;

	for (size_t i = 0; i < o->load_count; i++) {
		const struct load_segment *load = &o->loads[i];

		if (load->executable && (!first || load->vaddr < first->vaddr))
			first = load;
	}
	if (!first)
		return -ENODATA;
	*vaddr = first->vaddr;
	return 0;
}

bool object_is_same_file(const struct object *a, const struct object *b)
{
	const char *x = a->build_id ? a->build_id : "", *y = b->build_id ? b->build_id : "";

	return a->id.inode == b->id.inode && a->st.st_size == b->st.st_size &&
	       a->st.st_mtim.tv_sec == b->st.st_mtim.tv_sec &&
	       a->st.st_mtim.tv_nsec == b->st.st_mtim.tv_nsec && !strcmp(x, y);
}

void object_set_allocator(struct object *o)
{
	__atomic_store_n(&o->is_allocator, true, __ATOMIC_RELAXED);
}

bool object_is_allocator(const struct object *o)
{
	return __atomic_load_n(&o->is_allocator, __ATOMIC_RELAXED);
}

void object_add_allocator(struct object *o, uint64_t vaddr, uint64_t size_bytes)
{
	if (o->allocator_count < ALLOCATORS_MAX)
		o->allocators[o->allocator_count++] = (struct code_range){vaddr, size_bytes};
}

bool object_allocates_at(const struct object *o, uint64_t vaddr)
{
	for (size_t i = 0; i < o->allocator_count; i++) {
		if (vaddr - o->allocators[i].vaddr < o->allocators[i].size_bytes)
			return true;
	}
	return false;
}

void object_set_interpreter(struct object *o)
{
	__atomic_store_n(&o->is_interpreter, true, __ATOMIC_RELAXED);
}

bool object_is_interpreter(const struct object *o)
{
	return __atomic_load_n(&o->is_interpreter, __ATOMIC_RELAXED);
}

void object_set_origin(struct object *o, pid_t pid, uint64_t start_ticks)
{
	if (o->origin_pid)
		return;
	o->origin_ticks = start_ticks;
	__atomic_store_n(&o->origin_pid, pid, __ATOMIC_RELEASE);
}

pid_t object_origin(const struct object *o, uint64_t *start_ticks)
{
	pid_t pid = __atomic_load_n(&o->origin_pid, __ATOMIC_ACQUIRE);

	if (pid)
		*start_ticks = o->origin_ticks;
	return pid;
}
