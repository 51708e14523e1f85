/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "probe/prober.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/log.h"
#include "probe/closer.h"
#include "sym/object.h"
#include "target/procfs.h"

#define OBJECTS_MAX 65536

struct prober {
	struct kernel *kernel;
	struct object_table *objects;
	struct closer *closer;
	bool warned_unguarded;
	struct prober_options options;
	struct object_probes **known; /* by pointer, never moved */
	size_t known_count, known_capacity;
	struct object_probes **placed; /* of functions without symbols; likewise */
	size_t placed_count, placed_capacity;
};

struct attachment {
	const struct object_probes *probes;
	struct probe_links *links; /* NULL: nothing to probe, or it failed */
};

struct attachments {
	pid_t pid;
	struct closer *closer;
	struct attachments *shared; /* NULL: the probes are our own */
	struct attachment *items;
	size_t count, capacity;
	bool guarded; /* exceptions can pass through return probes */
	size_t failed;
	int last_error;
};

struct prober *prober_new(struct kernel *k, struct object_table *objects,
			  const struct prober_options *options)
{
	struct prober *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->kernel = k;
	p->objects = objects;
	p->options = *options;
	p->closer = closer_new();
	if (!p->closer) {
		free(p);
		return NULL;
	}
	return p;
}

static void probes_free(struct object_probes **probes, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		probe_plan_free(probes[i]->plan);
		alloc_sites_release(&probes[i]->sites);
		free(probes[i]);
	}
	free(probes);
}

void prober_free(struct prober *p)
{
	if (!p)
		return;
	closer_free(p->closer);
	probes_free(p->known, p->known_count);
	probes_free(p->placed, p->placed_count);
	free(p);
}

struct attachments *attachments_new(struct prober *p, pid_t pid)
{
	struct attachments *a = calloc(1, sizeof(*a));

	if (!a)
		return NULL;
	a->pid = pid;
	a->closer = p->closer;
	return a;
}

struct attachments *attachments_new_shared(struct prober *p, struct attachments *shared)
{
	struct attachments *a = attachments_new(p, 0);

	if (a)
		a->shared = shared;
	return a;
}

void attachments_free(struct attachments *a)
{
	if (!a)
		return;
	for (size_t i = 0; i < a->count; i++)
		probe_links_free(a->items[i].links, a->closer);
	free(a->items);
	free(a);
}

/* Makes room for one more item of @size bytes. */
static int grow(void **items, size_t *capacity, size_t count, size_t size)
{
	size_t wanted = *capacity ? *capacity * 2 : 16;
	void *p;

	if (count < *capacity)
		return 0;
	if (wanted > OBJECTS_MAX)
		return -ENOSPC;
	p = realloc(*items, wanted * size);
	if (!p)
		return -ENOMEM;
	*items = p;
	*capacity = wanted;
	return 0;
}

/* Allocators that come as a library of their own: what they map is for the
 * blocks they hand out. (In libc, mmap serves the program as well.) */
/* Where the C library's own functions are told from: a mapping made in them is theirs. */
static void note_allocators(struct object_probes *o)
{
	for (size_t i = 0; i < o->sites.count; i++) {
		const struct alloc_site *s = &o->sites.items[i];

		if (s->func->spec.domain == DOMAIN_MALLOC && s->func->spec.op != OP_FREE)
			object_add_allocator(o->object, s->vaddr, s->size);
	}
}

static bool is_allocator_library(const struct object *o, const struct alloc_sites *sites)
{
	const char *name = strrchr(object_path(o), '/');

	name = name ? name + 1 : object_path(o);
	return sites->has_malloc && strncmp(name, "lib", 3) == 0 && sites->allocator &&
	       strcmp(sites->allocator, "glibc") && strcmp(sites->allocator, "musl");
}

static int probes_read(struct prober *p, struct object_probes *o)
{
	int err = alloc_sites_scan(object_fd(o->object), p->options.extra_prefix, &o->sites);

	if (err)
		return err;
	if (!o->sites.count && !o->sites.dl_debug_offset)
		return 0;
	if (is_allocator_library(o->object, &o->sites))
		object_set_allocator(o->object);
	note_allocators(o);
	o->plan = probe_plan_new(&o->sites, false);
	return o->plan ? 0 : -ENOMEM;
}

static int probes_get(struct prober *p, struct object *object, const struct object_probes **out)
{
	struct object_probes *o;
	int err;

	for (size_t i = 0; i < p->known_count; i++) {
		if (p->known[i]->object == object) {
			*out = p->known[i];
			return 0;
		}
	}
	err = grow((void **)&p->known, &p->known_capacity, p->known_count, sizeof(*p->known));
	if (err)
		return err;
	o = calloc(1, sizeof(*o));
	if (!o)
		return -ENOMEM;
	o->object = object;
	err = probes_read(p, o);
	if (err)
		log_debug("%s: no probes: %s", object_path(object), strerror(-err));
	p->known[p->known_count++] = o;
	*out = o;
	return 0;
}

static bool has_object(const struct attachments *a, const struct object *o)
{
	for (size_t i = 0; i < a->count; i++) {
		if (a->items[i].probes->object == o && !a->items[i].probes->placed)
			return true;
	}
	return false;
}

/* Links without a pid filter hit every process, so one file must get them once. */
static bool has_twin(const struct attachments *a, const struct object *o)
{
	for (size_t i = 0; i < a->count; i++) {
		if (object_is_same_file(a->items[i].probes->object, o))
			return true;
	}
	return false;
}

/* The kernel reads the probed page itself when it is not in memory; some file
 * systems complain of being read in this way, so it is made present first. */
static void touch_pages(const struct object_probes *probes)
{
	char byte;

	for (size_t i = 0; i < probe_plan_count(probes->plan); i++) {
		off_t offset = (off_t)probe_plan_point(probes->plan, i)->offset;

		if (pread(object_fd(probes->object), &byte, 1, offset) != 1)
			return;
	}
}

/* Says once which part of a program's memory will not be seen. */
static void warn_unguarded(struct prober *p, const struct attachments *a,
			   const struct object_probes *probes)
{
	if (a->guarded || p->options.method == METHOD_SESSION || p->warned_unguarded)
		return;
	for (size_t i = 0; i < probe_plan_count(probes->plan); i++) {
		if (!probe_plan_point(probes->plan, i)->throws)
			continue;
		log_warn("%s: operator new is not traced: it may throw, and this kernel has "
			 "neither session probes (Linux 6.13) nor lets BPF repair a stack",
			 object_path(probes->object));
		p->warned_unguarded = true;
		return;
	}
}

/* Attaches what @probes plans; what may throw only with the guard in place. */
static int attach_links(struct prober *p, struct attachments *a, const struct object_probes *probes,
			struct probe_links **links)
{
	bool guards = p->options.method != METHOD_SESSION && probe_plan_guards(probes->plan) &&
		      !kernel_guard_load(p->kernel);
	char path[64];
	int err;

	touch_pages(probes);
	/* Our own descriptor of the mapped file: right whatever its name now means. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", object_fd(probes->object));
	err = probe_attach(p->kernel, p->options.method, probes->plan, path, a->pid,
			   a->guarded || guards, p->closer, links);
	if (!err) {
		a->guarded |= guards;
		warn_unguarded(p, a, probes);
		return 0;
	}
	log_debug("%s: cannot attach to pid %d: %s", object_path(probes->object), a->pid,
		  strerror(-err));
	a->failed++;
	a->last_error = err;
	return err;
}

static int attach(struct prober *p, struct attachments *a, const struct object_probes *probes)
{
	struct attachment item = {.probes = probes};
	int err;

	if (a->shared && !has_twin(a->shared, probes->object))
		attach(p, a->shared, probes);
	err = grow((void **)&a->items, &a->capacity, a->count, sizeof(*a->items));
	if (err)
		return err;
	if (probes->plan && p->kernel && !a->shared)
		err = attach_links(p, a, probes, &item.links);
	a->items[a->count++] = item;
	return err;
}

static int add_object(struct prober *p, struct attachments *a, struct object *object,
		      bool guards_only)
{
	const struct object_probes *probes;
	int err;

	if (has_object(a, object))
		return 0;
	err = probes_get(p, object, &probes);
	if (!err && guards_only && (!probes->plan || !probe_plan_guards(probes->plan)))
		return 0;
	if (!err)
		err = attach(p, a, probes);
	return err ? err : probes->plan != NULL;
}

/* The object behind a mapping: looked up by identity, opened when it is new. */
static int object_of(struct prober *p, pid_t pid, const struct mapping *m, struct object **out)
{
	struct object_id id = {m->dev_major, m->dev_minor, m->inode};
	int fd = mapping_open(pid, m);
	int err;

	if (fd < 0)
		return fd;
	err = object_table_get(p->objects, &id, fd, m->path, out);
	close(fd);
	return err;
}

static int update_pass(struct prober *p, struct attachments *a, pid_t pid, bool guards_only)
{
	struct object *object;
	struct maps_iter *it;
	struct mapping m;
	int added = 0, err;

	err = maps_iter_new(pid, &it);
	if (err)
		return err;
	while ((err = maps_iter_next(it, &m)) == 1) {
		if (!m.executable || !m.inode || object_of(p, pid, &m, &object))
			continue;
		if (add_object(p, a, object, guards_only) > 0)
			added++;
	}
	maps_iter_free(it);
	return err < 0 ? err : added;
}

int prober_update(struct prober *p, struct attachments *a, pid_t pid)
{
	int guards = update_pass(p, a, pid, true);
	int others = guards < 0 ? guards : update_pass(p, a, pid, false);

	return others < 0 ? others : guards + others;
}

int prober_copy(struct prober *p, const struct attachments *from, struct attachments *to)
{
	int err = 0;

	for (size_t i = 0; i < from->count; i++) {
		int e = attach(p, to, from->items[i].probes);

		if (e)
			err = e;
	}
	return err;
}

int prober_add_path(struct prober *p, struct attachments *a, const char *path)
{
	struct object *object;
	struct object_id id;
	struct stat st;
	int fd, err;

	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st)) {
		err = -errno;
		close(fd);
		return err;
	}
	id = (struct object_id){major(st.st_dev), minor(st.st_dev), st.st_ino};
	err = object_table_get(p->objects, &id, fd, path, &object);
	close(fd);
	if (err)
		return err;
	err = add_object(p, a, object, false);
	return err < 0 ? err : err ? 0 : -ENOENT;
}

static bool is_same_place(const struct object_probes *o, const struct object *object,
			  const struct alloc_place *places, size_t count)
{
	if (o->object != object || o->sites.count != count)
		return false;
	for (size_t i = 0; i < count; i++) {
		const struct alloc_site *site = &o->sites.items[i];

		if (site->func != places[i].func ||
		    (site->vaddr != places[i].vaddr && site->vaddr != places[i].equal))
			return false;
	}
	return true;
}

/* Takes the equal address where the function itself can only be probed dearly. */
static void prefer_cheap(const struct object *object, const struct alloc_place *places,
			 struct alloc_sites *sites)
{
	for (size_t i = 0; i < sites->count; i++) {
		struct alloc_place place = {places[i].func, places[i].equal, 0};
		struct alloc_sites other;

		if (!places[i].equal || probe_site_insn(&sites->items[i]) != INSN_STEPPED ||
		    alloc_sites_at(object_fd(object), NULL, &place, 1, &other))
			continue;
		if (probe_site_insn(&other.items[0]) < INSN_STEPPED) {
			struct alloc_site dear = sites->items[i];

			sites->items[i] = other.items[0];
			other.items[0] = dear;
		}
		alloc_sites_release(&other);
	}
}

static int placed_new(struct object *object, const char *allocator,
		      const struct alloc_place *places, size_t count, struct object_probes **out)
{
	struct object_probes *o = calloc(1, sizeof(*o));
	int err;

	if (!o)
		return -ENOMEM;
	o->object = object;
	o->placed = true;
	err = alloc_sites_at(object_fd(object), allocator, places, count, &o->sites);
	if (!err) {
		prefer_cheap(object, places, &o->sites);
		o->plan = probe_plan_new(&o->sites, false);
	}
	if (o->plan) {
		*out = o;
		return 0;
	}
	alloc_sites_release(&o->sites);
	free(o);
	return err ? err : -ENOMEM;
}

int prober_add_places(struct prober *p, struct attachments *a, struct object *object,
		      const char *allocator, const struct alloc_place *places, size_t count)
{
	struct object_probes *o;
	int err;

	for (size_t i = 0; i < p->placed_count; i++) {
		if (is_same_place(p->placed[i], object, places, count))
			return attach(p, a, p->placed[i]);
	}
	err = grow((void **)&p->placed, &p->placed_capacity, p->placed_count, sizeof(*p->placed));
	if (!err)
		err = placed_new(object, allocator, places, count, &o);
	if (err)
		return err;
	p->placed[p->placed_count++] = o;
	return attach(p, a, o);
}

size_t attachments_count(const struct attachments *a)
{
	return a->count;
}

const struct object_probes *attachments_at(const struct attachments *a, size_t i)
{
	return a->items[i].probes;
}

bool attachments_have_allocator(const struct attachments *a)
{
	for (size_t i = 0; i < a->count; i++) {
		if (a->items[i].probes->sites.has_malloc)
			return true;
	}
	return false;
}

bool attachments_have_python(const struct attachments *a)
{
	for (size_t i = 0; i < a->count; i++) {
		if (a->items[i].probes->sites.has_python)
			return true;
	}
	return false;
}

bool attachments_guarded(const struct attachments *a)
{
	return a->shared ? a->shared->guarded : a->guarded;
}

bool attachments_have_linker(const struct attachments *a)
{
	for (size_t i = 0; i < a->count; i++) {
		if (a->items[i].probes->sites.dl_debug_offset)
			return true;
	}
	return false;
}

size_t attachments_failed(const struct attachments *a, int *err)
{
	*err = a->last_error;
	return a->failed;
}
