/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What /proc says of a process. A process that is gone is -ESRCH everywhere
 * here, whatever the kernel called it (ENOENT, ESRCH).
 */
#ifndef LEAKTOP_PROCFS_H
#define LEAKTOP_PROCFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define COMM_BYTES 64 /* comm of a kernel thread can exceed TASK_COMM_LEN */

/* Start time in clock ticks since boot (field 22 of /proc/PID/stat): with the
 * pid, the identity of a process. The comm field may hold anything, also ") ". */
int procfs_start_ticks(pid_t pid, uint64_t *out);
int procfs_parent(pid_t pid, pid_t *out);
/* User and system time of all its threads so far; the kernel counts in clock ticks. */
int procfs_cpu_ns(pid_t pid, uint64_t *out);
int procfs_comm(pid_t pid, char *buf, size_t size);
/* Target of /proc/PID/exe. -ENOENT for a kernel thread. " (deleted)" is kept. */
int procfs_exe(pid_t pid, char *buf, size_t size);
/* Thread group id of @pid, which may be a thread. */
int procfs_tgid(pid_t pid, pid_t *out);
/* 1 if the executable is a 64-bit ELF file, 0 if 32-bit, negative errno. */
int procfs_is_64bit(pid_t pid);

struct process_rss {
	uint64_t rss_bytes;   /* VmRSS */
	uint64_t anon_bytes;  /* RssAnon */
	uint64_t file_bytes;  /* RssFile */
	uint64_t shmem_bytes; /* RssShmem */
	uint64_t swap_bytes;  /* VmSwap */
};
int procfs_rss(pid_t pid, struct process_rss *out);

/* Walks the processes (not threads) of /proc. */
struct pid_iter;
int pid_iter_new(struct pid_iter **out);
bool pid_iter_next(struct pid_iter *it, pid_t *pid);
void pid_iter_free(struct pid_iter *it);

/* One line of /proc/PID/maps. */
struct mapping {
	uint64_t start, end; /* addresses */
	uint64_t offset;     /* in the file, bytes */
	uint64_t inode;
	uint32_t dev_major, dev_minor;
	bool readable, writable, executable, shared;
	bool deleted;	  /* the path ended in " (deleted)", which is taken off */
	const char *path; /* unescaped; "" for anonymous; valid until the next call */
};

struct maps_iter;
int maps_iter_new(pid_t pid, struct maps_iter **out);
/* 1 and a mapping, 0 at the end, negative errno. */
int maps_iter_next(struct maps_iter *it, struct mapping *out);
void maps_iter_free(struct maps_iter *it);

/* Parses one line (without its newline) into @out; @out->path points into
 * @line, which is changed. Returns 0 or -EINVAL. */
int mapping_parse(char *line, struct mapping *out);

/* Opens the file behind a mapping through /proc/PID/map_files: the mapped file
 * itself, whatever its path now names. Returns a descriptor or negative errno. */
int mapping_open(pid_t pid, const struct mapping *m);
/* The same as a path, for interfaces that want one. */
void mapping_path(pid_t pid, const struct mapping *m, char *buf, size_t size);

#endif
