/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Names of code that a process made at run time, from the file that its JIT writes
 * for perf: /tmp/perf-PID.map, lines of "START SIZE name" in hex, PID being the
 * process' number in its own pid namespace (Linux, tools/perf/Documentation/
 * jit-interface.txt).
 *
 * The first 256 MiB of a file are read, 4 M ranges of one file and 16 M of all files
 * kept, at 16 bytes each (up to 32 bytes for a moment); names stay in the file.
 */
#ifndef LEAKTOP_PERF_MAP_H
#define LEAKTOP_PERF_MAP_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* What is longer is cut. */
#define PERF_MAP_NAME_BYTES 1024

struct perf_map;

/* Opens the file as @pid sees it, in its root; it stays readable after the process
 * is gone. Nothing is read yet. 0, -ENOENT if there is none or it was last written
 * before the process began, -EPERM if it is neither the process' user's nor root's,
 * -ESRCH, or another negative errno. */
int perf_map_open(pid_t pid, struct perf_map **out);

/* Counted references, safe from any thread; the last one frees it. NULL is accepted. */
struct perf_map *perf_map_ref(struct perf_map *m);
void perf_map_unref(struct perf_map *m);

/*
 * The name of the code at @address, copied to @name, and where it starts: by the last
 * line of the file that covers @address, as JITs use memory again. The file is read at
 * the first question, and what was added to it when @address is not known, otherwise
 * at most once a second. The name holds any bytes but NUL and newline. By one thread
 * at a time. 0, -ENOENT or negative errno.
 */
int perf_map_find(struct perf_map *m, uint64_t address, char *name, size_t size, uint64_t *start);

/* Lines that could not be understood or found no room, so far. As perf_map_find(). */
size_t perf_map_bad_lines(const struct perf_map *m);

#endif
