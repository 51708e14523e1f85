/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A cgroup has two names: its directory in some cgroup mount, and its path in the
 * hierarchy as /proc/PID/cgroup has it. They differ by the mount point and by the root
 * field of the mount, which is not "/" where only a part of the hierarchy is mounted
 * (in a container). Both the root field and /proc/PID/cgroup are relative to the reader's
 * cgroup name space, so they can be compared. A line of /proc/PID/cgroup belongs to a v1
 * mount if one of its controllers is among the mount's options.
 */
#include "target/cgroup.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "target/mountinfo.h"
#include "target/text_file.h"

#define CGROUP_MAX_BYTES (256 * 1024)
#define MAX_HIERARCHIES 32
#define MAX_DEPTH 64
#define MAX_DIRS 65536

/* A line of /proc/PID/cgroup; the strings point into the text. */
struct line {
	bool v2;
	const char *controllers;
	size_t controllers_len;
	const char *path;
	size_t path_len;
};

struct hierarchy_dir {
	bool v2;
	dev_t dev;
	char *options; /* of the mount: holds the controllers of a v1 hierarchy */
	char *path;    /* in the hierarchy */
	char *dir;     /* in the file system */
};

struct cgroup_dir {
	struct hierarchy_dir dirs[MAX_HIERARCHIES];
	size_t count;
};

static bool parse_line(const char *s, size_t len, struct line *out)
{
	const char *end = s + len, *first, *second;

	first = memchr(s, ':', len);
	if (!first || first == s || !isdigit((unsigned char)*s))
		return false;
	second = memchr(first + 1, ':', (size_t)(end - first - 1));
	if (!second || second + 1 == end || second[1] != '/')
		return false;
	out->controllers = first + 1;
	out->controllers_len = (size_t)(second - first - 1);
	out->v2 = first == s + 1 && *s == '0' && out->controllers_len == 0;
	out->path = second + 1;
	out->path_len = (size_t)(end - second - 1);
	return true;
}

/* The next good line at *@text, which moves on. Names of cgroups hold no newline. */
static bool next_line(const char **text, struct line *out)
{
	const char *s = *text, *end;
	bool found = false;

	while (*s && !found) {
		end = strchrnul(s, '\n');
		found = parse_line(s, (size_t)(end - s), out);
		s = *end ? end + 1 : end;
	}
	*text = s;
	return found;
}

static bool list_has(const char *list, size_t len, const char *word, size_t word_len)
{
	const char *end = list + len, *comma;

	while (list < end) {
		comma = memchr(list, ',', (size_t)(end - list));
		if (!comma)
			comma = end;
		if ((size_t)(comma - list) == word_len && memcmp(list, word, word_len) == 0)
			return true;
		list = comma + 1;
	}
	return false;
}

static bool line_has_controller(const struct line *l, const char *name)
{
	return list_has(l->controllers, l->controllers_len, name, strlen(name));
}

static bool is_root(const struct line *l)
{
	return l->path_len == 1;
}

static unsigned int depth_of(const struct line *l)
{
	unsigned int depth = 0;
	size_t i;

	if (is_root(l))
		return 0;
	for (i = 0; i < l->path_len; i++)
		depth += l->path[i] == '/';
	return depth;
}

/* Higher is better: see cgroup_of() in the header. */
static unsigned int line_rank(const struct line *l)
{
	unsigned int depth = depth_of(l);

	if (is_root(l))
		return l->v2 ? 1 : 0;
	if (line_has_controller(l, "memory"))
		return UINT_MAX;
	return l->v2 ? UINT_MAX - 1 : 1 + depth;
}

int cgroup_parse(const char *text, struct cgroup_path *out)
{
	struct line l, best = {0};

	while (next_line(&text, &l)) {
		if (l.path_len >= sizeof(out->path))
			continue;
		if (!best.path || line_rank(&l) > line_rank(&best))
			best = l;
	}
	if (!best.path)
		return -EINVAL;
	memcpy(out->path, best.path, best.path_len);
	out->path[best.path_len] = '\0';
	out->v1 = line_has_controller(&best, "memory");
	return 0;
}

static int read_cgroups(pid_t pid, char **out)
{
	char path[64];
	int err;

	snprintf(path, sizeof(path), "/proc/%d/cgroup", pid);
	err = text_file_read(path, CGROUP_MAX_BYTES, out, NULL);
	return err == -ENOENT ? -ESRCH : err;
}

int cgroup_of(pid_t pid, struct cgroup_path *out)
{
	char *text;
	int err = read_cgroups(pid, &text);

	if (err)
		return err;
	err = cgroup_parse(text, out);
	free(text);
	return err;
}

static void hierarchy_dir_release(struct hierarchy_dir *h)
{
	free(h->options);
	free(h->path);
	free(h->dir);
}

/* Path in the hierarchy of @below, which is what follows the mount point. */
static char *hierarchy_path(const struct mount *m, const char *below)
{
	const char *root = strcmp(m->root, "/") == 0 ? "" : m->root;
	char *path;

	if (!*root && !*below)
		return strdup("/");
	return asprintf(&path, "%s%s", root, below) < 0 ? NULL : path;
}

/* A hierarchy may be mounted in several places. */
static bool has_dir(const struct cgroup_dir *d, dev_t dev, const char *path)
{
	size_t i;

	for (i = 0; i < d->count; i++) {
		if (d->dirs[i].dev == dev && strcmp(d->dirs[i].path, path) == 0)
			return true;
	}
	return false;
}

static int append(struct cgroup_dir *d, const struct mount *m, const char *dir, const char *below)
{
	struct hierarchy_dir h = {.v2 = strcmp(m->fs_type, "cgroup2") == 0, .dev = m->dev};
	struct hierarchy_dir first;

	h.options = strdup(m->options);
	h.path = hierarchy_path(m, below);
	h.dir = strdup(dir);
	if (!h.options || !h.path || !h.dir) {
		hierarchy_dir_release(&h);
		return -ENOMEM;
	}
	if (d->count == MAX_HIERARCHIES || has_dir(d, h.dev, h.path)) {
		hierarchy_dir_release(&h);
		return 0;
	}
	d->dirs[d->count++] = h;
	if (!h.v2 && list_has(h.options, strlen(h.options), "memory", strlen("memory"))) {
		first = d->dirs[0];
		d->dirs[0] = h;
		d->dirs[d->count - 1] = first;
	}
	return 0;
}

/* Adds @name if it is a directory of mount @m. That the device is the same shows that no
 * other mount hides this one. */
static int add_if_below(struct cgroup_dir *d, const struct mount *m, const char *name)
{
	const char *below;
	struct stat st;
	char *dir;
	int err = 0;

	dir = realpath(name, NULL);
	if (!dir)
		return errno == ENOMEM ? -ENOMEM : 0;
	below = path_below(dir, m->point);
	if (below && stat(dir, &st) == 0 && S_ISDIR(st.st_mode) && st.st_dev == m->dev)
		err = append(d, m, dir, below);
	free(dir);
	return err;
}

static int add_relative(struct cgroup_dir *d, const struct mount *m, const char *name)
{
	char *full;
	int err;

	if (asprintf(&full, "%s/%s", m->point, name) < 0)
		return -ENOMEM;
	err = add_if_below(d, m, full);
	free(full);
	return err;
}

static bool is_cgroup_mount(const struct mount *m)
{
	return strcmp(m->fs_type, "cgroup") == 0 || strcmp(m->fs_type, "cgroup2") == 0;
}

static int for_each_mount(struct cgroup_dir *d, const char *name,
			  int (*add)(struct cgroup_dir *, const struct mount *, const char *))
{
	struct mount_iter *it;
	struct mount m;
	int err;

	err = mount_iter_new(0, &it);
	if (err)
		return err;
	while ((err = mount_iter_next(it, &m)) > 0) {
		if (!is_cgroup_mount(&m))
			continue;
		err = add(d, &m, name);
		if (err)
			break;
	}
	mount_iter_free(it);
	return err;
}

int cgroup_dir_open(const char *name, struct cgroup_dir **out)
{
	struct cgroup_dir *d;
	int err = 0;

	if (!*name)
		return -ENOENT;
	d = calloc(1, sizeof(*d));
	if (!d)
		return -ENOMEM;
	if (name[0] == '/')
		err = for_each_mount(d, name, add_if_below);
	if (!err && !d->count)
		err = for_each_mount(d, name, add_relative);
	if (!err && !d->count)
		err = name[0] == '/' && access(name, F_OK) == 0 ? -ENOTDIR : -ENOENT;
	if (err) {
		cgroup_dir_free(d);
		return err;
	}
	*out = d;
	return 0;
}

void cgroup_dir_free(struct cgroup_dir *d)
{
	size_t i;

	if (!d)
		return;
	for (i = 0; i < d->count; i++)
		hierarchy_dir_release(&d->dirs[i]);
	free(d);
}

static bool same_hierarchy(const struct hierarchy_dir *h, const struct line *l)
{
	const char *p = l->controllers, *end = p + l->controllers_len, *comma;

	if (h->v2 || l->v2)
		return h->v2 && l->v2;
	while (p < end) {
		comma = memchr(p, ',', (size_t)(end - p));
		if (!comma)
			comma = end;
		if (comma > p && list_has(h->options, strlen(h->options), p, (size_t)(comma - p)))
			return true;
		p = comma + 1;
	}
	return false;
}

static bool line_is_below(const struct line *l, const char *dir)
{
	size_t len = strlen(dir);

	if (len == 1)
		return true;
	return l->path_len >= len && memcmp(l->path, dir, len) == 0 &&
	       (l->path_len == len || l->path[len] == '/');
}

/* Whether @pid is in one of the first @count directories of @d. */
static int in_first(const struct cgroup_dir *d, size_t count, pid_t pid)
{
	const char *rest;
	struct line l;
	int err, found = 0;
	char *text;
	size_t i;

	err = read_cgroups(pid, &text);
	if (err)
		return err;
	rest = text;
	while (!found && next_line(&rest, &l)) {
		for (i = 0; i < count && !found; i++)
			found = same_hierarchy(&d->dirs[i], &l) &&
				line_is_below(&l, d->dirs[i].path);
	}
	free(text);
	return found;
}

int cgroup_dir_has(const struct cgroup_dir *d, pid_t pid)
{
	return in_first(d, d->count, pid);
}

struct walk {
	const struct cgroup_dir *d;
	size_t index; /* of the hierarchy being walked */
	unsigned int dirs;
	int (*fn)(pid_t pid, void *arg);
	void *arg;
};

static int report_pid(const struct walk *w, const char *line)
{
	char *end;
	long value = strtol(line, &end, 10);

	/* 0 stands for a process of another pid name space. */
	if (end == line || value <= 0 || value > INT_MAX)
		return 0;
	if (w->index && in_first(w->d, w->index, (pid_t)value) == 1)
		return 0; /* was reported from an earlier hierarchy */
	return w->fn((pid_t)value, w->arg);
}

static int walk_procs(const struct walk *w, int dir_fd)
{
	char *line = NULL;
	size_t room = 0;
	FILE *file;
	int fd, ret = 0;

	/* A cgroup may be removed meanwhile, and a threaded one (v2) lists no processes:
	 * they are listed by the cgroup above it. */
	fd = openat(dir_fd, "cgroup.procs", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return 0;
	file = fdopen(fd, "r");
	if (!file) {
		close(fd);
		return -ENOMEM;
	}
	while (!ret && getline(&line, &room, file) > 0)
		ret = report_pid(w, line);
	free(line);
	fclose(file);
	return ret;
}

static bool is_dots(const char *name)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

static int walk_dir(struct walk *w, int parent_fd, const char *name, unsigned int depth)
{
	struct dirent *entry;
	int fd, ret;
	DIR *dir;

	if (depth >= MAX_DEPTH || w->dirs >= MAX_DIRS)
		return 0;
	w->dirs++;
	fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return 0;
	dir = fdopendir(fd);
	if (!dir) {
		close(fd);
		return -ENOMEM;
	}
	ret = walk_procs(w, fd);
	while (!ret && (entry = readdir(dir))) {
		if (entry->d_type == DT_DIR && !is_dots(entry->d_name))
			ret = walk_dir(w, fd, entry->d_name, depth + 1);
	}
	closedir(dir);
	return ret;
}

int cgroup_dir_walk(const struct cgroup_dir *d, int (*fn)(pid_t pid, void *arg), void *arg)
{
	struct walk w = {.d = d, .fn = fn, .arg = arg};
	int ret = 0;

	for (w.index = 0; !ret && w.index < d->count; w.index++)
		ret = walk_dir(&w, AT_FDCWD, d->dirs[w.index].dir, 0);
	return ret;
}
