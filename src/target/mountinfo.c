/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "target/mountinfo.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#define MAX_LINES 16384
#define MAX_OPTIONAL_FIELDS 16

struct mount_iter {
	FILE *file;
	char *line;
	size_t room;
	unsigned int lines;
};

static bool is_octal(char c)
{
	return c >= '0' && c <= '7';
}

/* mangle_path() and seq_escape() of the kernel write blanks and backslashes as \ooo. */
static void unescape(char *s)
{
	char *to = s;

	while (*s) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && is_octal(s[2]) &&
		    is_octal(s[3])) {
			*to++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
			s += 4;
		} else {
			*to++ = *s++;
		}
	}
	*to = '\0';
}

static char *take_field(char **p)
{
	char *field = strsep(p, " ");

	return field && *field ? field : NULL;
}

static bool skip_optional_fields(char **p)
{
	const char *field;
	int i;

	for (i = 0; i <= MAX_OPTIONAL_FIELDS; i++) {
		field = take_field(p);
		if (!field)
			return false;
		if (strcmp(field, "-") == 0)
			return true;
	}
	return false;
}

static bool parse_device(const char *s, dev_t *out)
{
	unsigned long major, minor;
	char *end;

	major = strtoul(s, &end, 10);
	if (end == s || *end != ':')
		return false;
	s = end + 1;
	minor = strtoul(s, &end, 10);
	if (end == s || *end || major > UINT32_MAX || minor > UINT32_MAX)
		return false;
	*out = makedev((unsigned int)major, (unsigned int)minor);
	return true;
}

/* 36 35 98:0 /root /point rw,noatime master:1 - ext4 /dev/sda1 rw,errors=continue */
int mount_parse(char *line, struct mount *out)
{
	char *p = line, *dev, *root, *point, *fs_type, *options;
	struct mount m;

	if (!take_field(&p) || !take_field(&p))
		return -EINVAL;
	dev = take_field(&p);
	root = take_field(&p);
	point = take_field(&p);
	if (!dev || !root || !point || !take_field(&p) || !skip_optional_fields(&p))
		return -EINVAL;
	fs_type = take_field(&p);
	strsep(&p, " "); /* the source, which may be empty */
	options = take_field(&p);
	if (!fs_type || !options || !parse_device(dev, &m.dev))
		return -EINVAL;
	unescape(root);
	unescape(point);
	unescape(options);
	m.root = root;
	m.point = point;
	m.fs_type = fs_type;
	m.options = options;
	*out = m;
	return 0;
}

int mount_iter_new(pid_t pid, struct mount_iter **out)
{
	struct mount_iter *it;
	char path[64] = "/proc/self/mountinfo";
	int err;

	it = calloc(1, sizeof(*it));
	if (!it)
		return -ENOMEM;
	if (pid)
		snprintf(path, sizeof(path), "/proc/%d/mountinfo", pid);
	it->file = fopen(path, "re");
	if (!it->file) {
		err = errno == ENOENT ? -ESRCH : -errno;
		free(it);
		return err;
	}
	*out = it;
	return 0;
}

int mount_iter_next(struct mount_iter *it, struct mount *out)
{
	ssize_t n;

	while (it->lines++ < MAX_LINES) {
		errno = 0;
		n = getline(&it->line, &it->room, it->file);
		if (n < 0)
			return feof(it->file) ? 0 : -(errno ? errno : EIO);
		if (n > 0 && it->line[n - 1] == '\n')
			it->line[n - 1] = '\0';
		if (mount_parse(it->line, out) == 0)
			return 1;
	}
	return 0;
}

void mount_iter_free(struct mount_iter *it)
{
	if (!it)
		return;
	fclose(it->file);
	free(it->line);
	free(it);
}

const char *path_below(const char *path, const char *dir)
{
	size_t len = strlen(dir);

	if (len == 1 && dir[0] == '/')
		len = 0;
	if (strncmp(path, dir, len) != 0)
		return NULL;
	return path[len] == '/' || path[len] == '\0' ? path + len : NULL;
}
