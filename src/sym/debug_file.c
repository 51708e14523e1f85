/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sym/debug_file.h"

#include <errno.h>
#include <gelf.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "sym/debug_link.h"
#include "sym/debuginfod.h"
#include "sym/elf_file.h"
#include "sym/file_root.h"

#define BLOCK_BYTES 65536

/* What a file must be to be the one that is looked for. */
struct wanted {
	const char *build_id; /* hex, NULL: none */
	const uint32_t *crc;  /* where one of both has no build id; NULL: none will do */
};

void debug_places_open(struct debug_places *p, pid_t pid, uint64_t start_ticks,
		       struct debuginfod *server)
{
	p->target = pid ? file_root_open(pid, start_ticks) : -1;
	if (p->target < 0)
		p->target = -1;
	p->host = file_root_open_host();
	if (p->host < 0)
		p->host = -1;
	p->foreign = p->target >= 0 && !file_root_same(p->target, p->host);
	p->server = server;
}

void debug_places_release(struct debug_places *p)
{
	if (p->target >= 0)
		close(p->target);
	if (p->host >= 0)
		close(p->host);
}

static int check_crc(int fd, uint32_t expected)
{
	unsigned char block[BLOCK_BYTES];
	uLong crc = crc32(0, NULL, 0);
	struct stat st;
	off_t offset = 0;
	ssize_t n;

	if (fstat(fd, &st))
		return -errno;
	if ((uint64_t)st.st_size > DEBUG_LINK_BYTES_MAX)
		return -E2BIG;
	while (offset < st.st_size && (n = pread(fd, block, sizeof(block), offset)) > 0) {
		crc = crc32(crc, block, (uInt)n);
		offset += n;
	}
	return crc == expected ? 0 : -ENOENT;
}

static int check(int fd, const struct wanted *wanted)
{
	char hex[BUILD_ID_HEX_BYTES];
	bool has_build_id;
	Elf *elf;
	int err;

	err = elf_file_open_debug(fd, &elf);
	if (err)
		return err;
	has_build_id = !elf_file_build_id(elf, hex);
	elf_end(elf);
	if (has_build_id && wanted->build_id)
		return strcmp(hex, wanted->build_id) ? -ENOENT : 0;
	return wanted->crc ? check_crc(fd, *wanted->crc) : -ENOENT;
}

/* @fd itself, or closes it: it may be an error already. */
static int checked(int fd, const struct wanted *wanted)
{
	int err = fd < 0 ? fd : check(fd, wanted);

	if (err && fd >= 0)
		close(fd);
	return err ? err : fd;
}

static int try_path(int root, const char *path, const struct wanted *wanted)
{
	return root < 0 ? -ENOENT : checked(file_root_open_file(root, path), wanted);
}

static int try_both_roots(const struct debug_places *p, const char *path,
			  const struct wanted *wanted)
{
	int fd = try_path(p->target, path, wanted);

	return fd >= 0 ? fd : try_path(p->host, path, wanted);
}

static bool build_id_good(const char *build_id)
{
	size_t length = strlen(build_id);

	return length >= 4 && length < BUILD_ID_HEX_BYTES &&
	       strspn(build_id, "0123456789abcdef") == length;
}

static int open_by_build_id(const struct debug_places *p, const char *build_id)
{
	const struct wanted wanted = {.build_id = build_id};
	char path[sizeof(DEBUG_DIRECTORY) + BUILD_ID_HEX_BYTES + 32];

	snprintf(path, sizeof(path), DEBUG_DIRECTORY "/.build-id/%.2s/%s.debug", build_id,
		 build_id + 2);
	return try_both_roots(p, path, &wanted);
}

static int ask_server(const struct debug_places *p, const char *build_id, const char *name)
{
	const struct wanted wanted = {.build_id = build_id};

	if (!p->server)
		return -ENOENT;
	return checked(debuginfod_open(p->server, build_id, name), &wanted);
}

/* The search of gdb, "Debugging Information in Separate Files", in one root. */
static int open_by_link(int root, const char *path, const struct debug_link *link,
			const struct wanted *wanted)
{
	static const char *const places[][2] = {
		{"", ""},
		{"", ".debug/"},
		{DEBUG_DIRECTORY, ""},
	};
	int directory = (int)(strrchr(path, '/') - path), fd = -ENOENT, n;
	char candidate[PATH_MAX];
	size_t i;

	for (i = 0; fd < 0 && i < sizeof(places) / sizeof(places[0]); i++) {
		n = snprintf(candidate, sizeof(candidate), "%s%.*s/%s%s", places[i][0], directory,
			     path, places[i][1], link->name);
		/* Where both have one name, the first candidate is the object. */
		if (n > 0 && (size_t)n < sizeof(candidate) && strcmp(candidate, path))
			fd = try_path(root, candidate, wanted);
	}
	return fd;
}

static int read_link(int fd, struct debug_link *link)
{
	Elf *elf;
	int err = elf_file_open(fd, &elf);

	if (err)
		return err;
	err = debug_link_read(elf, link);
	elf_end(elf);
	return err;
}

static int open_linked(const struct debug_places *p, int fd, const char *path, const char *build_id)
{
	struct debug_link link;
	const struct wanted wanted = {.build_id = build_id, .crc = &link.crc};
	int found;

	if (*path != '/' || strlen(path) >= PATH_MAX || read_link(fd, &link))
		return -ENOENT;
	found = open_by_link(p->target, path, &link, &wanted);
	if (found < 0 && !p->foreign)
		found = open_by_link(p->host, path, &link, &wanted);
	return found;
}

int debug_file_open(const struct debug_places *p, int fd, const char *path, const char *build_id)
{
	int found = -ENOENT;

	if (build_id && !build_id_good(build_id))
		return -EINVAL;
	if (build_id)
		found = open_by_build_id(p, build_id);
	if (found < 0)
		found = open_linked(p, fd, path, build_id);
	if (found < 0 && build_id)
		found = ask_server(p, build_id, path);
	return found;
}

/*
 * The name is absolute, or relative to where the file with the link lies, which we
 * need not know: dwz puts these files into one directory.
 */
static int open_dwz_file(const struct debug_places *p, const struct debug_supplement *link)
{
	const struct wanted wanted = {.build_id = link->build_id};
	const char *name = strstr(link->name, "/.dwz/");
	char path[PATH_MAX];
	int n;

	if (!name)
		return -ENOENT;
	n = snprintf(path, sizeof(path), DEBUG_DIRECTORY "%s", name);
	if (n < 0 || (size_t)n >= sizeof(path))
		return -ENOENT;
	return try_both_roots(p, path, &wanted);
}

static int read_supplement(int fd, struct debug_supplement *link)
{
	Elf *elf;
	int err = elf_file_open(fd, &elf);

	if (err)
		return err;
	err = debug_supplement_read(elf, link);
	elf_end(elf);
	return err == -ENOENT ? -ENODATA : err;
}

int debug_file_open_supplement(const struct debug_places *p, int fd)
{
	struct debug_supplement link;
	int found, err;

	err = read_supplement(fd, &link);
	if (err)
		return err;
	if (!build_id_good(link.build_id))
		return -EINVAL;
	found = open_by_build_id(p, link.build_id);
	if (found < 0)
		found = open_dwz_file(p, &link);
	if (found < 0)
		found = ask_server(p, link.build_id, link.name);
	return found;
}
