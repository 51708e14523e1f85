/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The kernel interfaces by which a function's entry and return can be probed. */
#ifndef LEAKTOP_METHOD_H
#define LEAKTOP_METHOD_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum probe_method {
	METHOD_AUTO = 0, /* the best this kernel has */
	METHOD_SESSION,	 /* uprobe.session, Linux 6.13 */
	METHOD_MULTI,	 /* uprobe.multi, Linux 6.6: entry and return programs */
	METHOD_PERF,	 /* one perf event a probe */
};

const char *probe_method_name(enum probe_method m);
/* METHOD_AUTO and -EINVAL for an unknown name. */
int probe_method_parse(const char *name, enum probe_method *out);

/* Tries the methods on a function of our own. */
int probe_method_supported(enum probe_method m);
enum probe_method probe_method_best(void);

/* Attach types and flags that libbpf 1.1's headers do not have (include/uapi/linux/bpf.h). */
#define ATTACH_UPROBE_MULTI 48
#define ATTACH_UPROBE_SESSION 57
#define UPROBE_MULTI_RETURN 1u

/*
 * Creates a uprobe-multi link by a bpf() call of our own (libbpf 1.1 has none).
 * @offsets and @cookies hold @count entries; @pid 0 means every process.
 * Returns a descriptor or negative errno.
 */
int uprobe_multi_link(int prog_fd, int attach_type, uint32_t flags, pid_t pid, const char *path,
		      const uint64_t *offsets, const uint64_t *cookies, size_t count);

/* A program that does nothing, for feature tests and calibration. A descriptor
 * or negative errno. */
int uprobe_empty_program(int attach_type);

#endif
