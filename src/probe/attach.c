/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "probe/attach.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bpf/libbpf.h>

#include "probe/closer.h"

struct probe_plan {
	struct probe_point *points;
	size_t count;
};

/* At most: entry or session, return, free, dlopen, object, guard as multi links; one perf link a
 * probe. */
#define MULTI_LINKS 6

struct probe_links {
	int fds[MULTI_LINKS];
	size_t fd_count;
	struct bpf_link **perf;
	size_t perf_count;
};

static bool is_free(const struct probe_spec *spec)
{
	return spec->op == OP_FREE || spec->op == OP_CODE_FREE;
}

static bool is_entry_only(spec_u32 op)
{
	return op == OP_UNWIND || op == OP_OBJECT || op == OP_PYTHON_END;
}

static struct plan plan_of(const struct alloc_site *site, bool multi_nop)
{
	const struct probe_spec *spec = &site->func->spec;
	/* What a NULL test of another argument says is not ours to use. */
	enum plan_kind kind = is_free(spec) && !spec->ptr_arg		 ? PLAN_FREE_NULL
			      : is_free(spec) || is_entry_only(spec->op) ? PLAN_ENTRY
									 : PLAN_RETURN;

	return plan_probe_args(site->code, site->code_len, site->vaddr, kind, multi_nop,
			       alloc_func_args(site->func));
}

enum insn_class probe_site_insn(const struct alloc_site *site)
{
	return plan_of(site, false).insn;
}

/* Whether it may get its memory from another function that is probed. In glibc only what
 * reallocates does; elsewhere most do, by a call or a jump (mimalloc's malloc, mi_malloc,
 * mi_heap_malloc). What is no allocator of a library is Python's, which asks malloc. */
static bool may_wrap(const struct alloc_site *site, const char *allocator)
{
	return !allocator || strcmp(allocator, "glibc") || site->func->spec.op == OP_REALLOC;
}

static void plan_site(struct probe_point *point, const struct alloc_site *site,
		      const char *allocator, bool multi_nop)
{
	struct probe_spec spec = site->func->spec;
	struct plan plan = plan_of(site, multi_nop);

	spec.sp_words = plan.sp_words;
	spec.throws = alloc_func_throws(site->func);
	spec.wraps = may_wrap(site, allocator);
	spec.insn = plan.insn;
	point->throws = spec.throws;
	point->site = site;
	point->offset = site->offset + plan.offset;
	point->cookie = probe_spec_pack(&spec);
	point->program = is_free(&spec)		    ? PROGRAM_FREE
			 : spec.op == OP_UNWIND	    ? PROGRAM_GUARD
			 : spec.op == OP_OBJECT	    ? PROGRAM_OBJECT
			 : spec.op == OP_PYTHON_END ? PROGRAM_DLOPEN
						    : PROGRAM_SESSION;

	point->insn = plan.insn;
}

/* The order of attaching: before anything else the guard that makes return probes
 * harmless; then what takes memory back, because a block whose allocation is seen
 * must not be freed by a function that has no probe yet. */
enum site_turn {
	TAKES_BACK,
	GIVES_OUT,
};

static enum site_turn turn_of(const struct alloc_site *site)
{
	enum probe_op op = (enum probe_op)site->func->spec.op;

	return op == OP_FREE || op == OP_REALLOC || op == OP_UNWIND || op == OP_CODE_FREE
		       ? TAKES_BACK
		       : GIVES_OUT;
}

static void add_sites(struct probe_plan *p, const struct alloc_sites *sites, bool multi_nop,
		      enum site_turn turn)
{
	for (size_t i = 0; i < sites->count; i++) {
		if (turn_of(&sites->items[i]) == turn)
			plan_site(&p->points[p->count++], &sites->items[i], sites->allocator,
				  multi_nop);
	}
}

struct probe_plan *probe_plan_new(const struct alloc_sites *sites, bool multi_nop)
{
	struct probe_plan *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->points = calloc(sites->count + 1, sizeof(*p->points));
	if (!p->points) {
		free(p);
		return NULL;
	}
	add_sites(p, sites, multi_nop, TAKES_BACK);
	add_sites(p, sites, multi_nop, GIVES_OUT);
	if (sites->dl_debug_offset) {
		struct probe_point *hook = &p->points[p->count++];

		hook->offset = sites->dl_debug_offset;
		hook->program = PROGRAM_DLOPEN;
		hook->insn = INSN_STEPPED;
	}
	return p;
}

void probe_plan_free(struct probe_plan *p)
{
	if (!p)
		return;
	free(p->points);
	free(p);
}

bool probe_plan_guards(const struct probe_plan *p)
{
	for (size_t i = 0; i < p->count; i++) {
		if (p->points[i].program == PROGRAM_GUARD)
			return true;
	}
	return false;
}

size_t probe_plan_count(const struct probe_plan *p)
{
	return p->count;
}

const struct probe_point *probe_plan_point(const struct probe_plan *p, size_t i)
{
	return &p->points[i];
}

/* With the guard in place a throw does no harm. */
static uint64_t point_cookie(const struct probe_point *point, bool guarded)
{
	struct probe_spec spec;

	probe_spec_unpack(point->cookie, &spec);
	spec.throws &= !guarded;
	return probe_spec_pack(&spec);
}

/* Attaches all points of one program by one multi link. */
static int attach_multi(const struct kernel *k, const struct probe_plan *p, const char *path,
			pid_t pid, enum kernel_program kind, enum kernel_program program,
			bool guarded, struct probe_links *l)
{
	bool session = program == PROGRAM_SESSION;
	uint64_t *offsets = calloc(p->count, 2 * sizeof(*offsets));
	uint64_t *cookies;
	size_t n = 0;
	int fd;

	if (!offsets)
		return -ENOMEM;
	cookies = offsets + p->count;
	for (size_t i = 0; i < p->count; i++) {
		if (p->points[i].program != kind || (p->points[i].throws && !guarded && !session))
			continue;
		offsets[n] = p->points[i].offset;
		cookies[n++] = point_cookie(&p->points[i], guarded);
	}
	fd = n ? uprobe_multi_link(bpf_program__fd(kernel_program(k, program)),
				   session ? ATTACH_UPROBE_SESSION : ATTACH_UPROBE_MULTI,
				   program == PROGRAM_RETURN ? UPROBE_MULTI_RETURN : 0, pid, path,
				   offsets, cookies, n)
	       : 0;
	free(offsets);
	if (fd < 0)
		return fd;
	if (n)
		l->fds[l->fd_count++] = fd;
	return 0;
}

static int attach_by_multi(const struct kernel *k, bool session, const struct probe_plan *p,
			   const char *path, pid_t pid, bool guarded, struct probe_links *l)
{
	int err = attach_multi(k, p, path, pid, PROGRAM_FREE, PROGRAM_FREE, guarded, l);

	if (!err && guarded)
		err = attach_multi(k, p, path, pid, PROGRAM_GUARD, PROGRAM_GUARD, guarded, l);

	if (!err && session)
		err = attach_multi(k, p, path, pid, PROGRAM_SESSION, PROGRAM_SESSION, guarded, l);
	/* The return first: an entry without its return would stay "under way". */
	if (!err && !session)
		err = attach_multi(k, p, path, pid, PROGRAM_SESSION, PROGRAM_RETURN, guarded, l);
	if (!err && !session)
		err = attach_multi(k, p, path, pid, PROGRAM_SESSION, PROGRAM_ENTRY, guarded, l);
	if (!err)
		err = attach_multi(k, p, path, pid, PROGRAM_DLOPEN, PROGRAM_DLOPEN, guarded, l);
	if (!err)
		err = attach_multi(k, p, path, pid, PROGRAM_OBJECT, PROGRAM_OBJECT, guarded, l);
	return err;
}

static int attach_perf(const struct kernel *k, const struct probe_point *point,
		       enum kernel_program program, const char *path, pid_t pid,
		       struct probe_links *l)
{
	LIBBPF_OPTS(bpf_uprobe_opts, opts, .bpf_cookie = point_cookie(point, true),
		    .retprobe = program == PROGRAM_RETURN);
	struct bpf_link *link = bpf_program__attach_uprobe_opts(
		kernel_program(k, program), pid ? pid : -1, path, point->offset, &opts);

	if (!link)
		return -errno;
	l->perf[l->perf_count++] = link;
	return 0;
}

static int attach_by_perf(const struct kernel *k, const struct probe_plan *p, const char *path,
			  pid_t pid, bool guarded, struct probe_links *l)
{
	int err = 0;

	l->perf = calloc(2 * p->count, sizeof(*l->perf));
	if (!l->perf)
		return -ENOMEM;
	for (size_t i = 0; i < p->count && !err; i++) {
		const struct probe_point *point = &p->points[i];

		if ((point->throws || point->program == PROGRAM_GUARD) && !guarded)
			continue;
		if (point->program != PROGRAM_SESSION) {
			err = attach_perf(k, point, point->program, path, pid, l);
			continue;
		}
		err = attach_perf(k, point, PROGRAM_RETURN, path, pid, l);
		if (!err)
			err = attach_perf(k, point, PROGRAM_ENTRY, path, pid, l);
	}
	return err;
}

int probe_attach(const struct kernel *k, enum probe_method method, const struct probe_plan *p,
		 const char *path, pid_t pid, bool guarded, struct closer *closer,
		 struct probe_links **out)
{
	struct probe_links *l = calloc(1, sizeof(*l));
	int err;

	if (!l)
		return -ENOMEM;
	if (method == METHOD_PERF)
		err = attach_by_perf(k, p, path, pid, guarded, l);
	else
		err = attach_by_multi(k, method == METHOD_SESSION, p, path, pid, guarded, l);
	if (err) {
		probe_links_free(l, closer);
		return err;
	}
	*out = l;
	return 0;
}

static void close_fd(void *arg)
{
	close((int)(intptr_t)arg);
}

static void destroy_link(void *arg)
{
	bpf_link__destroy(arg);
}

void probe_links_free(struct probe_links *l, struct closer *c)
{
	if (!l)
		return;
	for (size_t i = 0; i < l->fd_count; i++)
		closer_put(c, close_fd, (void *)(intptr_t)l->fds[i]);
	for (size_t i = 0; i < l->perf_count; i++)
		closer_put(c, destroy_link, l->perf[i]);
	free(l->perf);
	free(l);
}
