/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Text of /proc that holds whatever names a target chose. The first byte says
 * which file the rest is from: /proc/PID/maps, mountinfo (a line), or cgroup.
 */
#include "target/cgroup.h"
#include "target/mountinfo.h"
#include "target/procfs.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool what)
{
	if (!what)
		abort();
}

static void require_inside(const char *s, const char *line, size_t size)
{
	require(s >= line && s + strlen(s) <= line + size);
}

static void try_maps(char *line, size_t size)
{
	struct mapping m = {.path = NULL};

	if (mapping_parse(line, &m)) {
		require(!m.path);
		return;
	}
	require(m.start < m.end);
	require_inside(m.path, line, size);
}

static void try_mountinfo(char *line, size_t size)
{
	struct mount m = {.root = NULL};

	if (mount_parse(line, &m)) {
		require(!m.root);
		return;
	}
	require_inside(m.root, line, size);
	require_inside(m.point, line, size);
	require_inside(m.fs_type, line, size);
	require_inside(m.options, line, size);
}

static void try_cgroup(const char *text)
{
	static struct cgroup_path path;

	memset(&path, 0xa5, sizeof(path));
	if (cgroup_parse(text, &path))
		return;
	require(path.path[0] == '/');
	require(strnlen(path.path, sizeof(path.path)) < sizeof(path.path));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text;

	if (!size)
		return 0;
	text = malloc(size);
	if (!text)
		return 0;
	memcpy(text, data + 1, size - 1);
	text[size - 1] = '\0';
	if (data[0] % 3 == 0)
		try_maps(text, size - 1);
	else if (data[0] % 3 == 1)
		try_mountinfo(text, size - 1);
	else
		try_cgroup(text);
	free(text);
	return 0;
}
