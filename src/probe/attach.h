/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Puts the probes of one mapped object on one process, or on all. */
#ifndef LEAKTOP_ATTACH_H
#define LEAKTOP_ATTACH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "bpf/kernel.h"
#include "probe/allocators.h"
#include "probe/method.h"
#include "probe/planner.h"

/* Where the probes of one object go: made once an object, used for each process. */
struct probe_plan;

/* @sites is borrowed and must outlive the plan. NULL when out of memory. */
struct probe_plan *probe_plan_new(const struct alloc_sites *sites, bool multi_nop);
void probe_plan_free(struct probe_plan *p);
size_t probe_plan_count(const struct probe_plan *p);

/* What a probe of @site would sit on. */
enum insn_class probe_site_insn(const struct alloc_site *site);

/* One probe, for doctor and coverage. */
struct probe_point {
	const struct alloc_site *site; /* NULL: the dynamic linker's hook */
	uint64_t offset;	       /* in the file */
	uint64_t cookie;
	enum kernel_program program; /* PROGRAM_SESSION stands for entry and return */
	enum insn_class insn;
	bool throws; /* not without PROGRAM_GUARD */
};
/* Whether it holds the place where unwinding starts. */
bool probe_plan_guards(const struct probe_plan *p);
const struct probe_point *probe_plan_point(const struct probe_plan *p, size_t i);

/* The links of one attachment; closing them takes the probes off. */
struct probe_links;
struct closer;

/*
 * @path leads to the object (a map_files path stays right whatever happens to
 * names); @pid 0 means every process. Functions that may throw are left out unless
 * @guarded or by a session, which spares the calls that may fail. Returns 0 or negative errno, in
 * which case nothing is attached.
 */
int probe_attach(const struct kernel *k, enum probe_method method, const struct probe_plan *p,
		 const char *path, pid_t pid, bool guarded, struct closer *closer,
		 struct probe_links **out);
/* The probes go soon, by @c. Accepts NULL. */
void probe_links_free(struct probe_links *l, struct closer *c);

#endif
