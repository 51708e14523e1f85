/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "target/selector.h"

#include <errno.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "target/cgroup.h"
#include "target/container.h"
#include "target/procfs.h"

#define CACHE_SLOTS 64
#define DELETED " (deleted)"

enum kind {
	KIND_PID,
	KIND_NAME,
	KIND_CGROUP,
	KIND_CONTAINER,
	KIND_UNIT,
};

static const char *const kind_words[] = {
	[KIND_PID] = "pid",	  [KIND_NAME] = "name",
	[KIND_CGROUP] = "cgroup", [KIND_CONTAINER] = "container",
	[KIND_UNIT] = "unit",
};

struct item {
	enum kind kind;
	char *text;
	pid_t pid;
	uint64_t start_ticks; /* of the pid */
	struct cgroup_dir *dir;
	bool exact; /* a container is called just so: prefixes do not count */
};

/* Finding the name of a container takes reading files of its runtime, and all processes
 * of one have the same cgroup path. */
struct cache {
	char *paths[CACHE_SLOTS];
	struct container containers[CACHE_SLOTS];
};

struct selector {
	struct item *items;
	size_t count;
	bool all;
	struct cache *cache;
};

/* What the items ask about a process, each read at most once. */
struct facts {
	pid_t pid;
	bool know_names, know_cgroup, know_container;
	char comm[COMM_BYTES];
	char exe[PATH_MAX];
	struct cgroup_path cgroup;
	bool in_container;
	struct container container;
};

struct selector *selector_new(void)
{
	struct selector *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->cache = calloc(1, sizeof(*s->cache));
	if (!s->cache) {
		free(s);
		return NULL;
	}
	return s;
}

static void item_release(struct item *item)
{
	free(item->text);
	cgroup_dir_free(item->dir);
}

void selector_free(struct selector *s)
{
	size_t i;

	if (!s)
		return;
	for (i = 0; i < s->count; i++)
		item_release(&s->items[i]);
	for (i = 0; i < CACHE_SLOTS; i++)
		free(s->cache->paths[i]);
	free(s->cache);
	free(s->items);
	free(s);
}

/* Takes over what @item points to, also when it fails. */
static int add_item(struct selector *s, const struct item *item)
{
	struct item copy = *item;
	struct item *items;

	items = realloc(s->items, (s->count + 1) * sizeof(*items));
	if (!items) {
		item_release(&copy);
		return -ENOMEM;
	}
	s->items = items;
	s->items[s->count++] = copy;
	return 0;
}

static int add_text(struct selector *s, struct item *item, const char *text)
{
	if (!*text) {
		item_release(item);
		return -EINVAL;
	}
	item->text = strdup(text);
	if (!item->text) {
		item_release(item);
		return -ENOMEM;
	}
	return add_item(s, item);
}

int selector_add_pid(struct selector *s, pid_t pid)
{
	struct item item = {.kind = KIND_PID};
	char text[16];
	int err;

	if (pid <= 0)
		return -ESRCH;
	err = procfs_tgid(pid, &item.pid);
	if (!err)
		err = procfs_start_ticks(item.pid, &item.start_ticks);
	if (err)
		return err;
	if (item.pid == getpid())
		return -EINVAL;
	snprintf(text, sizeof(text), "%d", pid);
	return add_text(s, &item, text);
}

int selector_add_name(struct selector *s, const char *glob)
{
	struct item item = {.kind = KIND_NAME};

	return add_text(s, &item, glob);
}

int selector_add_cgroup(struct selector *s, const char *name)
{
	struct item item = {.kind = KIND_CGROUP};
	int err;

	err = cgroup_dir_open(name, &item.dir);
	if (err)
		return err;
	return add_text(s, &item, name);
}

int selector_add_unit(struct selector *s, const char *unit)
{
	struct item item = {.kind = KIND_UNIT};

	return add_text(s, &item, unit);
}

void selector_add_all(struct selector *s)
{
	s->all = true;
}

bool selector_is_empty(const struct selector *s)
{
	return !s->all && !s->count;
}

bool selector_is_all(const struct selector *s)
{
	return s->all;
}

bool selector_is_open(const struct selector *s)
{
	size_t i;

	for (i = 0; i < s->count; i++) {
		if (s->items[i].kind != KIND_PID)
			return true;
	}
	return s->all;
}

static size_t cache_slot(const char *path)
{
	uint32_t hash = 2166136261u; /* FNV-1a */

	for (; *path; path++)
		hash = (hash ^ (unsigned char)*path) * 16777619u;
	return hash % CACHE_SLOTS;
}

static bool find_container(struct cache *cache, pid_t pid, const char *path, struct container *out)
{
	size_t slot = cache_slot(path);
	char *copy;

	if (cache->paths[slot] && strcmp(cache->paths[slot], path) == 0) {
		*out = cache->containers[slot];
		return true;
	}
	if (container_of_process(pid, path, out) != 1)
		return false;
	/* A runtime may write the name after the first process has started. */
	copy = out->name[0] ? strdup(path) : NULL;
	if (copy) {
		free(cache->paths[slot]);
		cache->paths[slot] = copy;
		cache->containers[slot] = *out;
	}
	return true;
}

static bool need_cgroup(struct facts *f)
{
	if (!f->know_cgroup) {
		f->know_cgroup = true;
		if (cgroup_of(f->pid, &f->cgroup) < 0)
			f->cgroup.path[0] = '\0';
	}
	return f->cgroup.path[0] == '/';
}

static bool need_container(struct cache *cache, struct facts *f)
{
	if (!f->know_container) {
		f->know_container = true;
		f->in_container = need_cgroup(f) &&
				  find_container(cache, f->pid, f->cgroup.path, &f->container);
	}
	return f->in_container;
}

static bool glob_matches(const char *glob, const char *name)
{
	return strcmp(glob, name) == 0 || fnmatch(glob, name, 0) == 0;
}

static bool name_matches(const char *glob, struct facts *f)
{
	size_t len = strlen(f->exe), tail = strlen(DELETED);
	const char *slash;

	if (!f->know_names) {
		f->know_names = true;
		if (procfs_comm(f->pid, f->comm, sizeof(f->comm)) < 0)
			f->comm[0] = '\0';
		if (len > tail && strcmp(f->exe + len - tail, DELETED) == 0)
			f->exe[len - tail] = '\0';
	}
	slash = strrchr(f->exe, '/');
	return glob_matches(glob, f->comm) || glob_matches(glob, slash ? slash + 1 : f->exe);
}

/* Any part of the path counts: a unit may have units below it (user@1000.service). */
static bool unit_matches(const char *wanted, const char *path)
{
	size_t len = strlen(wanted);
	const char *end;

	for (; *path == '/'; path = end) {
		path++;
		end = strchrnul(path, '/');
		if (strncmp(path, wanted, len) != 0 || path + len > end)
			continue;
		if (path + len == end || ((size_t)(end - path) == len + strlen(".service") &&
					  strncmp(path + len, ".service", strlen(".service")) == 0))
			return true;
	}
	return false;
}

static bool container_item_matches(const struct item *item, const struct container *c)
{
	if (item->exact)
		return strcmp(c->name, item->text) == 0 || strcmp(c->id, item->text) == 0;
	return container_matches(c, item->text);
}

static bool pid_matches(const struct item *item, pid_t pid)
{
	uint64_t start_ticks;

	return item->pid == pid && procfs_start_ticks(pid, &start_ticks) == 0 &&
	       start_ticks == item->start_ticks;
}

static bool item_matches(const struct item *item, struct cache *cache, struct facts *f)
{
	switch (item->kind) {
	case KIND_PID:
		return pid_matches(item, f->pid);
	case KIND_NAME:
		return name_matches(item->text, f);
	case KIND_CGROUP:
		return cgroup_dir_has(item->dir, f->pid) == 1;
	case KIND_CONTAINER:
		return need_container(cache, f) && container_item_matches(item, &f->container);
	case KIND_UNIT:
		return need_cgroup(f) && unit_matches(item->text, f->cgroup.path);
	}
	return false;
}

/* False for kernel threads, zombies and ourselves, which only a pid can name. */
static bool facts_init(struct facts *f, pid_t pid)
{
	f->pid = pid;
	f->know_names = false;
	f->know_cgroup = false;
	f->know_container = false;
	return pid != getpid() && procfs_exe(pid, f->exe, sizeof(f->exe)) == 0;
}

static bool any_pid_matches(const struct selector *s, pid_t pid)
{
	size_t i;

	for (i = 0; i < s->count; i++) {
		if (s->items[i].kind == KIND_PID && pid_matches(&s->items[i], pid))
			return true;
	}
	return false;
}

int selector_match(const struct selector *s, pid_t pid)
{
	struct facts f;
	size_t i;

	if (pid == getpid())
		return 0;
	if (any_pid_matches(s, pid))
		return 1;
	if (!selector_is_open(s) || !facts_init(&f, pid))
		return 0;
	if (s->all)
		return 1;
	for (i = 0; i < s->count; i++) {
		if (s->items[i].kind != KIND_PID && item_matches(&s->items[i], s->cache, &f))
			return 1;
	}
	return 0;
}

static int scan_pids(const struct selector *s, int (*fn)(pid_t pid, void *arg), void *arg)
{
	int ret = 0;
	size_t i, k;

	for (i = 0; i < s->count && !ret; i++) {
		for (k = 0; k < i && s->items[k].pid != s->items[i].pid; k++)
			;
		if (k == i && selector_match(s, s->items[i].pid))
			ret = fn(s->items[i].pid, arg);
	}
	return ret;
}

int selector_scan(const struct selector *s, int (*fn)(pid_t pid, void *arg), void *arg)
{
	struct pid_iter *it;
	pid_t pid;
	int ret;

	if (!selector_is_open(s))
		return scan_pids(s, fn, arg);
	ret = pid_iter_new(&it);
	if (ret)
		return ret;
	while (!ret && pid_iter_next(it, &pid)) {
		if (selector_match(s, pid))
			ret = fn(pid, arg);
	}
	pid_iter_free(it);
	return ret;
}

/* Whether some container is now called @wanted, neither more nor less: then "web" does
 * not mean "web2" as well. */
static bool container_is_called(const struct selector *s, const char *wanted)
{
	struct pid_iter *it;
	bool found = false;
	struct facts f;
	pid_t pid;

	if (pid_iter_new(&it) < 0)
		return false;
	while (!found && pid_iter_next(it, &pid)) {
		if (!facts_init(&f, pid) || !need_container(s->cache, &f))
			continue;
		found = strcmp(f.container.name, wanted) == 0 ||
			strcmp(f.container.id, wanted) == 0;
	}
	pid_iter_free(it);
	return found;
}

int selector_add_container(struct selector *s, const char *name_or_id)
{
	struct item item = {.kind = KIND_CONTAINER};

	item.exact = container_is_called(s, name_or_id);
	return add_text(s, &item, name_or_id);
}

static size_t mark_found(const struct selector *s, pid_t pid, bool *found)
{
	bool open = false, readable = false;
	struct facts f;
	size_t i, marked = 0;

	for (i = 0; i < s->count; i++) {
		if (found[i])
			continue;
		if (s->items[i].kind != KIND_PID && !open) {
			open = true;
			readable = facts_init(&f, pid);
		}
		if (s->items[i].kind == KIND_PID)
			found[i] = pid_matches(&s->items[i], pid);
		else
			found[i] = readable && item_matches(&s->items[i], s->cache, &f);
		marked += found[i];
	}
	return marked;
}

bool selector_missing(const struct selector *s, char *buf, size_t size)
{
	struct pid_iter *it = NULL;
	size_t i, left = s->count;
	bool missing = false;
	bool *found;
	pid_t pid;

	found = calloc(s->count + 1, sizeof(*found));
	if (!found || pid_iter_new(&it) < 0)
		goto out;
	while (left && pid_iter_next(it, &pid))
		left -= mark_found(s, pid, found);
	for (i = 0; i < s->count && found[i]; i++)
		;
	missing = i < s->count;
	if (missing)
		snprintf(buf, size, s->items[i].kind == KIND_PID ? "%s %s" : "%s '%s'",
			 kind_words[s->items[i].kind], s->items[i].text);
out:
	pid_iter_free(it);
	free(found);
	return missing;
}
