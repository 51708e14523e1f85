/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * /proc/PID/maps. The kernel (show_map_vma() in fs/proc/task_mmu.c) escapes the newline
 * of a file name as \012 and nothing else, not even the backslash: a name that holds
 * these four characters cannot be told from one with a newline. Nothing depends on it,
 * as files are opened through map_files.
 */
#include "target/procfs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DELETED " (deleted)"

struct maps_iter {
	FILE *file;
	char *line;
	size_t room;
};

static int digit_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return 16;
}

/* Reads a number (strtoull() would take blanks, signs and 0x) that ends at @stop. */
static bool take_number(char **p, unsigned int base, char stop, uint64_t *out)
{
	uint64_t value = 0;
	char *s = *p;
	int digit;

	for (; (digit = digit_value(*s)) < (int)base; s++) {
		if (value > (UINT64_MAX - (uint64_t)digit) / base)
			return false;
		value = value * base + (uint64_t)digit;
	}
	if (s == *p || *s != stop)
		return false;
	*out = value;
	*p = s + 1;
	return true;
}

static bool take_flag(char **p, char set, char unset, bool *out)
{
	char c = **p;

	if (c != set && c != unset)
		return false;
	*out = c == set;
	(*p)++;
	return true;
}

static bool take_flags(char **p, struct mapping *m)
{
	return take_flag(p, 'r', '-', &m->readable) && take_flag(p, 'w', '-', &m->writable) &&
	       take_flag(p, 'x', '-', &m->executable) && take_flag(p, 's', 'p', &m->shared) &&
	       *(*p)++ == ' ';
}

static bool take_device(char **p, struct mapping *m)
{
	uint64_t major, minor;

	if (!take_number(p, 16, ':', &major) || !take_number(p, 16, ' ', &minor))
		return false;
	if (major > UINT32_MAX || minor > UINT32_MAX)
		return false;
	m->dev_major = (uint32_t)major;
	m->dev_minor = (uint32_t)minor;
	return true;
}

static void unescape_newlines(char *s)
{
	char *to = s;

	while (*s) {
		if (strncmp(s, "\\012", 4) == 0) {
			*to++ = '\n';
			s += 4;
		} else {
			*to++ = *s++;
		}
	}
	*to = '\0';
}

static void take_path(char *p, struct mapping *m)
{
	size_t len, tail = strlen(DELETED);

	p += strspn(p, " ");
	len = strlen(p);
	/* The user may choose the name of an anonymous mapping: "[anon:x (deleted)]". */
	m->deleted = *p != '[' && len > tail && strcmp(p + len - tail, DELETED) == 0;
	if (m->deleted)
		p[len - tail] = '\0';
	unescape_newlines(p);
	m->path = p;
}

int mapping_parse(char *line, struct mapping *out)
{
	struct mapping m = {0};
	char *p = line;

	if (!take_number(&p, 16, '-', &m.start) || !take_number(&p, 16, ' ', &m.end))
		return -EINVAL;
	if (m.start >= m.end || !take_flags(&p, &m))
		return -EINVAL;
	if (!take_number(&p, 16, ' ', &m.offset) || !take_device(&p, &m))
		return -EINVAL;
	/* The kernel puts a blank behind the inode only where a path follows. */
	if (!take_number(&p, 10, ' ', &m.inode)) {
		if (!take_number(&p, 10, '\0', &m.inode))
			return -EINVAL;
		p--;
	}
	take_path(p, &m);
	*out = m;
	return 0;
}

int maps_iter_new(pid_t pid, struct maps_iter **out)
{
	struct maps_iter *it;
	char path[64];
	int err;

	it = calloc(1, sizeof(*it));
	if (!it)
		return -ENOMEM;
	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	it->file = fopen(path, "re");
	if (!it->file) {
		err = errno == ENOENT ? -ESRCH : -errno;
		free(it);
		return err;
	}
	*out = it;
	return 0;
}

int maps_iter_next(struct maps_iter *it, struct mapping *out)
{
	ssize_t n;
	int err;

	errno = 0;
	n = getline(&it->line, &it->room, it->file);
	if (n < 0)
		return feof(it->file) ? 0 : -(errno ? errno : EIO);
	if (n > 0 && it->line[n - 1] == '\n')
		it->line[n - 1] = '\0';
	err = mapping_parse(it->line, out);
	return err ? err : 1;
}

void maps_iter_free(struct maps_iter *it)
{
	if (!it)
		return;
	fclose(it->file);
	free(it->line);
	free(it);
}

void mapping_path(pid_t pid, const struct mapping *m, char *buf, size_t size)
{
	snprintf(buf, size, "/proc/%d/map_files/%llx-%llx", pid, (unsigned long long)m->start,
		 (unsigned long long)m->end);
}

static int open_error(pid_t pid, int err)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d", pid);
	return err == -ENOENT && access(path, F_OK) < 0 ? -ESRCH : err;
}

/* A process may map a device, and to open a device may do things: look at what it is
 * through a descriptor that opens nothing, then open what was looked at. */
int mapping_open(pid_t pid, const struct mapping *m)
{
	char path[96];
	struct stat st;
	int handle, fd;

	mapping_path(pid, m, path, sizeof(path));
	handle = open(path, O_PATH | O_CLOEXEC);
	if (handle < 0)
		return open_error(pid, -errno);
	if (fstat(handle, &st) < 0) {
		fd = -errno;
	} else if (!S_ISREG(st.st_mode)) {
		fd = -EINVAL;
	} else {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", handle);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			fd = -errno;
	}
	close(handle);
	return fd;
}
