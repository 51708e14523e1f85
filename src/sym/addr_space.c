/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A stack may be read seconds after it was taken, when the library in it is
 * unloaded or the process is gone. So a new reading of the mappings is laid over
 * the old one, and what it does not cover stays.
 */
#include "sym/addr_space.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "sym/object.h"
#include "sym/perf_map.h"
#include "sym/string_pool.h"
#include "target/procfs.h"

#define REGIONS_MAX 65536u
#define NAME_BYTES_MAX (16u << 20) /* all names of one process */
#define PLAIN_FILES 8u
#define NS_PER_S 1000000000ull

struct region {
	uint64_t start, end; /* addresses */
	uint64_t offset;     /* in the file */
	struct object_id id;
	struct object *object;
	const char *name;
	bool gone;	   /* it is mapped no more */
	uint64_t since_ns; /* it is sure to lie there since then; 0: always */
	uint64_t read_ns;  /* when it was first read of */
};

struct regions {
	struct region *items; /* sorted, not overlapping */
	size_t count, capacity;
};

/* A file that is mapped as code and is no ELF file. */
struct plain_file {
	struct object_id id;
	const char *name;
};

struct addr_space {
	pid_t pid;
	uint64_t start_ticks; /* 0: unknown */
	struct object_table *objects;
	struct string_pool *names;
	struct regions regions;
	struct plain_file plain[PLAIN_FILES]; /* the last ones */
	size_t plain_count;
	struct perf_map *perf_map;
	uint64_t perf_map_due_ns; /* not to be looked for before */
};

struct addr_space *addr_space_new(pid_t pid, struct object_table *objects)
{
	struct addr_space *as = calloc(1, sizeof(*as));

	if (!as)
		return NULL;
	as->names = string_pool_new(NAME_BYTES_MAX);
	if (!as->names) {
		free(as);
		return NULL;
	}
	as->pid = pid;
	as->objects = objects;
	if (procfs_start_ticks(pid, &as->start_ticks))
		as->start_ticks = 0;
	return as;
}

void addr_space_free(struct addr_space *as)
{
	if (!as)
		return;
	perf_map_unref(as->perf_map);
	string_pool_free(as->names);
	free(as->regions.items);
	free(as);
}

static int regions_add(struct regions *list, const struct region *region)
{
	if (list->count >= REGIONS_MAX)
		return -E2BIG;
	if (list->count == list->capacity) {
		size_t capacity = list->capacity ? 2 * list->capacity : 64;
		struct region *items = reallocarray(list->items, capacity, sizeof(*items));

		if (!items)
			return -ENOMEM;
		list->items = items;
		list->capacity = capacity;
	}
	list->items[list->count++] = *region;
	return 0;
}

/* The last region that starts at or below @address. */
static const struct region *regions_at(const struct regions *list, uint64_t address)
{
	size_t low = 0, high = list->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (list->items[middle].start <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low ? &list->items[low - 1] : NULL;
}

static bool same_id(const struct object_id *a, const struct object_id *b)
{
	return a->inode == b->inode && a->dev_major == b->dev_major && a->dev_minor == b->dev_minor;
}

/* JITs that map one memory file twice, to write and to run it (.NET's "doublemapper"),
 * have many mappings of it, and new ones all the time. */
static bool is_plain(const struct addr_space *as, const struct object_id *id, const char *name)
{
	for (size_t i = 0; i < PLAIN_FILES && i < as->plain_count; i++) {
		if (same_id(&as->plain[i].id, id) && !strcmp(as->plain[i].name, name))
			return true;
	}
	return false;
}

static void remember_plain(struct addr_space *as, const struct object_id *id, const char *name)
{
	as->plain[as->plain_count++ % PLAIN_FILES] = (struct plain_file){*id, name};
}

/*
 * Devices without a major number are filesystems without a block device, of
 * which btrfs gives one inode number to several files; there only the file
 * itself tells.
 */
static struct object *find_file(struct addr_space *as, const struct mapping *m,
				const struct object_id *id, const char *name)
{
	struct object *object = NULL;
	int fd, err;

	if (id->dev_major && !object_table_get(as->objects, id, -1, m->path, &object))
		return object;
	if (name && is_plain(as, id, name))
		return NULL;

	fd = mapping_open(as->pid, m);
	err = fd < 0 ? fd : object_table_get(as->objects, id, fd, m->path, &object);
	if (fd >= 0)
		close(fd);
	if (err == -EINVAL && name)
		remember_plain(as, id, name);
	return err ? NULL : object;
}

static struct object *find_object(struct addr_space *as, const struct mapping *m,
				  const struct object_id *id, const char *name)
{
	struct object *object;

	/* The kernel's own mappings have no inode, and names in brackets. */
	if (!id->inode)
		return strcmp(m->path, "[vdso]") ? NULL : object_table_vdso(as->objects);
	object = find_file(as, m, id, name);
	if (object && as->start_ticks)
		object_set_origin(object, as->pid, as->start_ticks);
	return object;
}

static struct region make_region(struct addr_space *as, const struct mapping *m)
{
	struct region region = {
		.start = m->start,
		.end = m->end,
		.offset = m->offset,
		.id = {m->dev_major, m->dev_minor, m->inode},
	};
	const struct region *known = regions_at(&as->regions, m->start);
	const char *path = m->path[0] ? m->path : "[anon]";

	if (known && known->start == region.start && known->end == region.end &&
	    known->offset == region.offset && same_id(&known->id, &region.id) &&
	    !strcmp(known->name, path)) {
		region = *known;
		region.gone = false; /* merge() says, and since when */
		region.since_ns = 0;
		return region;
	}
	region.name = string_pool_add(as->names, path);
	region.object = find_object(as, m, &region.id, region.name);
	if (!region.name)
		region.name = region.object ? object_path(region.object) : "[unknown]";
	return region;
}

/* Reads the executable mappings of now; *total counts all mappings. */
static int read_mappings(struct addr_space *as, struct regions *list, size_t *total)
{
	struct maps_iter *it = NULL;
	uint64_t last_end = 0;
	struct mapping m;
	int err;

	err = maps_iter_new(as->pid, &it);
	if (err)
		return err;
	while ((err = maps_iter_next(it, &m)) > 0) {
		struct region region;

		++*total;
		/* The kernel sorts them, but a reading may span a change. */
		if (!m.executable || m.start < last_end || m.end <= m.start)
			continue;
		last_end = m.end;
		region = make_region(as, &m);
		region.read_ns = clock_now_ns();
		err = regions_add(list, &region);
		if (err)
			break;
	}
	maps_iter_free(it);
	return err == -E2BIG ? 0 : err;
}

/* @b lies where @a was: since when at the latest? */
static uint64_t replaced_ns(const struct region *a, const struct region *b, uint64_t since_ns)
{
	bool same = a->object == b->object &&
		    (!a->object || a->start - a->offset == b->start - b->offset);

	return same && a->since_ns < since_ns ? a->since_ns : since_ns;
}

static uint64_t first_read_ns(const struct region *a, const struct region *b)
{
	bool same = a->object == b->object && a->start - a->offset == b->start - b->offset;

	return same && a->read_ns < b->read_ns ? a->read_ns : b->read_ns;
}

/* Lays @now over @old into @out: what of @old does not overlap it stays. */
static int merge(const struct regions *old, struct regions *now, uint64_t since_ns,
		 struct regions *out)
{
	size_t i = 0, j = 0;
	bool met = false; /* something was where the next of @now is */
	int err = 0;

	while (!err && (i < old->count || j < now->count)) {
		const struct region *a = i < old->count ? &old->items[i] : NULL;
		struct region *b = j < now->count ? &now->items[j] : NULL;

		if (a && (!b || a->end <= b->start)) {
			err = regions_add(out, a);
			if (!err)
				out->items[out->count - 1].gone = true;
			i++;
		} else if (a && a->start < b->end) {
			uint64_t ns = replaced_ns(a, b, since_ns);

			if (ns > b->since_ns)
				b->since_ns = ns;
			b->read_ns = first_read_ns(a, b);
			met = true;
			i++;
		} else {
			/* Others may have come and gone here since the last reading. */
			if (!met && old->count && b->object)
				b->since_ns = since_ns;
			err = regions_add(out, b);
			met = false;
			j++;
		}
	}
	return err;
}

static bool other_process(const struct addr_space *as)
{
	uint64_t ticks;

	return as->start_ticks && !procfs_start_ticks(as->pid, &ticks) && ticks != as->start_ticks;
}

int addr_space_refresh(struct addr_space *as)
{
	return addr_space_refresh_since(as, 0);
}

int addr_space_refresh_since(struct addr_space *as, uint64_t since_ns)
{
	struct regions now = {0}, merged = {0};
	size_t total = 0;
	int err;

	err = read_mappings(as, &now, &total);
	/* A zombie has a file of no lines; a reused pid has somebody else's. */
	if (!err && (!total || other_process(as)))
		err = -ESRCH;
	if (err)
		goto out;

	err = merge(&as->regions, &now, since_ns ? since_ns : clock_now_ns(), &merged);
	if (err == -E2BIG) {
		/* No room for the past. */
		free(merged.items);
		merged = now;
		now = (struct regions){0};
		err = 0;
	}
	if (err)
		goto out;
	free(as->regions.items);
	as->regions = merged;
	merged = (struct regions){0};
out:
	free(now.items);
	free(merged.items);
	return err;
}

struct perf_map *addr_space_perf_map(struct addr_space *as)
{
	uint64_t now_ns = clock_now_ns();
	struct perf_map *found;

	if (as->perf_map || now_ns < as->perf_map_due_ns)
		return as->perf_map;
	as->perf_map_due_ns = now_ns + NS_PER_S;
	if (perf_map_open(as->pid, &found))
		return NULL;
	if (other_process(as))
		perf_map_unref(found);
	else
		as->perf_map = found;
	return as->perf_map;
}

int addr_space_find(const struct addr_space *as, uint64_t address, struct addr_location *out)
{
	const struct region *region = regions_at(&as->regions, address);
	struct addr_location found = {0};
	uint64_t file_offset;

	if (!region || address >= region->end)
		return -ENOENT;
	file_offset = region->offset + (address - region->start);
	found.name = region->name;
	found.vaddr = file_offset;
	if (region->object && !object_vaddr(region->object, file_offset, &found.vaddr))
		found.object = region->object;
	*out = found;
	return 0;
}

int addr_space_find_at(const struct addr_space *as, uint64_t address, uint64_t time_ns,
		       struct addr_location *out)
{
	const struct region *region = regions_at(&as->regions, address);
	int err = addr_space_find(as, address, out);

	if (!err && region->object && (region->since_ns > time_ns || region->read_ns < time_ns))
		*out = (struct addr_location){.name = "[unknown]"};
	return err;
}

size_t addr_space_count(const struct addr_space *as)
{
	return as->regions.count;
}

bool addr_space_at(const struct addr_space *as, size_t i, uint64_t *start, uint64_t *end,
		   struct addr_location *where)
{
	const struct region *region = &as->regions.items[i];

	*start = region->start;
	*end = region->end;
	return !addr_space_find(as, region->start, where) && !region->gone;
}
