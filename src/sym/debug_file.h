/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Finds the separate file with the debug information of an object: by build id, or by
 * the name and checksum in its .gnu_debuglink. What is found is as little to be
 * trusted as the object itself, except that it says it belongs to it.
 */
#ifndef LEAKTOP_DEBUG_FILE_H
#define LEAKTOP_DEBUG_FILE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct debuginfod;

/* Where debug files are in every root. */
#define DEBUG_DIRECTORY "/usr/lib/debug"
/* A larger file is not taken by its checksum, for which all of it is read. */
#define DEBUG_LINK_BYTES_MAX (4ull << 30)

/* Where to look, in this order. */
struct debug_places {
	int target;		   /* root of the process (file_root.h), -1: none, or gone */
	int host;		   /* ours, -1: none */
	bool foreign;		   /* the paths of the process are not ours */
	struct debuginfod *server; /* NULL: none */
};

/* Of the process with this pid (0: unknown) and start time. @server is borrowed. */
void debug_places_open(struct debug_places *p, pid_t pid, uint64_t start_ticks,
		       struct debuginfod *server);
/* The open roots would keep file systems of containers busy: release it soon. */
void debug_places_release(struct debug_places *p);

/*
 * The debug file of the object open at @fd, whose process knows it by @path, with
 * @build_id (hex, NULL: none). Both ids agree, or where one has none the checksum
 * does. A descriptor, -ENOENT, or another negative errno. Servers are asked last, and
 * then it may take a minute or more (debuginfod.h).
 */
int debug_file_open(const struct debug_places *p, int fd, const char *path, const char *build_id);

/*
 * The file that @fd, an object or a debug file, shares DWARF with (.gnu_debugaltlink, by
 * dwz), by build id or in DEBUG_DIRECTORY/.dwz. A descriptor, -ENODATA if it has no such
 * link, -ENOENT, or another negative errno.
 */
int debug_file_open_supplement(const struct debug_places *p, int fd);

#endif
