/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Both hierarchies may be mounted at once; the memory controller is in one of them, and
 * struct cgroup_path says which one a path is of. The files stay open: then usage and limit
 * cost 0.6 us each, memory.stat 8 us, against 6 and 13 us when they are opened each time.
 *
 * A limit is rounded down to pages by the kernel; v1 writes the largest number of pages
 * (PAGE_COUNTER_MAX, include/linux/page_counter.h) where there is none, v2 "max".
 */
#include "watch/cgroup_memory.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "target/cgroup.h"
#include "target/mountinfo.h"

#define STAT_MAX_BYTES 8192 /* some 70 figures, each with its name */
#define V1_NO_LIMIT (UINT64_C(1) << 62)

struct cgroup_mount {
	char *point, *root;
};

struct cgroup_mounts {
	struct cgroup_mount v1, v2;
};

static const struct files {
	const char *usage, *limit, *inactive;
} v1_files = {"memory.usage_in_bytes", "memory.limit_in_bytes", "\ntotal_inactive_file "},
  v2_files = {"memory.current", "memory.max", "\ninactive_file "};

struct cgroup_memory {
	const struct files *files;
	int usage_fd, limit_fd, stat_fd;
};

static void mount_release(struct cgroup_mount *m)
{
	free(m->point);
	free(m->root);
	*m = (struct cgroup_mount){0};
}

void cgroup_mounts_free(struct cgroup_mounts *m)
{
	if (!m)
		return;
	mount_release(&m->v1);
	mount_release(&m->v2);
	free(m);
}

static bool has_option(const char *options, const char *wanted)
{
	size_t len = strlen(wanted);

	for (;; options++) {
		if (!strncmp(options, wanted, len) && (!options[len] || options[len] == ','))
			return true;
		options = strchr(options, ',');
		if (!options)
			return false;
	}
}

static int take_mount(struct cgroup_mount *to, const struct mount *from)
{
	if (to->point)
		return 0;
	to->point = strdup(from->point);
	to->root = strdup(from->root);
	return to->point && to->root ? 0 : -ENOMEM;
}

int cgroup_mounts_read(struct cgroup_mounts **out)
{
	struct cgroup_mounts *m = calloc(1, sizeof(*m));
	struct mount_iter *it = NULL;
	struct mount mount;
	int err = m ? mount_iter_new(0, &it) : -ENOMEM;

	while (!err && (err = mount_iter_next(it, &mount)) > 0) {
		err = 0;
		if (!strcmp(mount.fs_type, "cgroup2"))
			err = take_mount(&m->v2, &mount);
		else if (!strcmp(mount.fs_type, "cgroup") && has_option(mount.options, "memory"))
			err = take_mount(&m->v1, &mount);
	}
	mount_iter_free(it);
	if (err) {
		cgroup_mounts_free(m);
		return err;
	}
	*out = m;
	return 0;
}

/* A cgroup outside of our cgroup name space has a path that starts with "/..". */
static bool leads_up(const char *path)
{
	const char *p = path;

	while ((p = strstr(p, "/.."))) {
		p += 3;
		if (!*p || *p == '/')
			return true;
	}
	return false;
}

static int open_dir(const struct cgroup_mount *m, const char *path)
{
	const char *below = m->point ? path_below(path, m->root) : NULL;
	char *dir;
	int fd;

	if (!below || leads_up(path))
		return -ENOENT;
	if (asprintf(&dir, "%s%s", m->point, below) < 0)
		return -ENOMEM;
	fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	fd = fd < 0 ? -errno : fd;
	free(dir);
	return fd;
}

static int open_file(int dir_fd, const char *name)
{
	int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	return fd < 0 ? -errno : fd;
}

int cgroup_memory_open(const struct cgroup_mounts *m, const struct cgroup_path *path,
		       struct cgroup_memory **out)
{
	struct cgroup_memory *c;
	int dir_fd = open_dir(path->v1 ? &m->v1 : &m->v2, path->path), err = 0;

	if (dir_fd < 0)
		return dir_fd;
	c = malloc(sizeof(*c));
	if (!c) {
		close(dir_fd);
		return -ENOMEM;
	}
	c->files = path->v1 ? &v1_files : &v2_files;
	c->usage_fd = open_file(dir_fd, c->files->usage);
	c->limit_fd = open_file(dir_fd, c->files->limit);
	c->stat_fd = open_file(dir_fd, "memory.stat");
	close(dir_fd);
	if (c->usage_fd < 0)
		err = c->usage_fd;
	if (err) {
		cgroup_memory_free(c);
		return err;
	}
	*out = c;
	return 0;
}

void cgroup_memory_free(struct cgroup_memory *c)
{
	if (!c)
		return;
	if (c->usage_fd >= 0)
		close(c->usage_fd);
	if (c->limit_fd >= 0)
		close(c->limit_fd);
	if (c->stat_fd >= 0)
		close(c->stat_fd);
	free(c);
}

static int read_text(int fd, char *buf, size_t size)
{
	ssize_t n = fd < 0 ? 0 : pread(fd, buf, size - 1, 0);

	if (n < 0)
		return -errno;
	buf[n] = '\0';
	return n ? 0 : -ENOENT;
}

static bool parse_number(const char *text, uint64_t *out)
{
	if (!isdigit((unsigned char)*text))
		return false;
	errno = 0;
	*out = strtoull(text, NULL, 10);
	return !errno;
}

static uint64_t read_limit(const struct cgroup_memory *c)
{
	uint64_t bytes;
	char text[32];

	if (read_text(c->limit_fd, text, sizeof(text)) || !parse_number(text, &bytes))
		return CGROUP_NO_LIMIT;
	return bytes >= V1_NO_LIMIT ? CGROUP_NO_LIMIT : bytes;
}

static uint64_t read_inactive(const struct cgroup_memory *c)
{
	char text[STAT_MAX_BYTES];
	uint64_t bytes;
	const char *p;

	if (read_text(c->stat_fd, text, sizeof(text)))
		return 0;
	p = strstr(text, c->files->inactive);
	return p && parse_number(p + strlen(c->files->inactive), &bytes) ? bytes : 0;
}

int cgroup_memory_read(const struct cgroup_memory *c, struct cgroup_usage *out)
{
	uint64_t usage, inactive;
	char text[32];
	int err = read_text(c->usage_fd, text, sizeof(text));

	if (err)
		return err;
	if (!parse_number(text, &usage))
		return -EINVAL;
	inactive = read_inactive(c);
	out->used_bytes = inactive < usage ? usage - inactive : 0;
	out->limit_bytes = read_limit(c);
	return 0;
}
