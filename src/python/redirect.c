/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Between the reading and the writing of a word the process may change it itself, by
 * PyMem_SetAllocator() only. Then either its hook is lost again, which cannot be told from
 * its author having come a moment earlier, or the hook keeps a copy of our value and calls
 * it, which is as good as the original. To keep the first from happening in practice words
 * are compared right before they are written.
 *
 * A hook that was installed over ours (tracemalloc.start()) has such a copy in its own
 * table, and will put it back when it goes. So that is where a word is looked for that is
 * not ours any more.
 */
#include "python/redirect.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "python/alloc_tables.h"
#include "python/interpreter.h"
#include "target/memory.h"
#include "target/procfs.h"

#define HOOKS_MAX 4 /* over ours, one upon the other */
/* What the kernel gave the program at its exec: addresses of the stack and the vdso, which
 * are random. Who has the same has it by fork. */
#define AUXV_BYTES 512

struct word {
	struct redirect_word word;
	uint64_t table; /* of the allocator that it is in; 0: it is in none */
};

struct redirect {
	pid_t pid;
	/* The binary's code, to know it again in other processes. */
	uint64_t inode;
	uint32_t dev_major, dev_minor;
	uint64_t place; /* address - offset in the file */
	uint8_t auxv[AUXV_BYTES];
	bool active;
	struct word words[REDIRECT_WORDS_MAX];
	size_t count;
};

static bool is_binary(const struct redirect *r, const struct mapping *m)
{
	return m->executable && m->inode == r->inode && m->dev_major == r->dev_major &&
	       m->dev_minor == r->dev_minor;
}

/* In the tables that hooks over @w hold copies of: behind ctx, or behind ctx and a letter.
 * 0, also where it is @to already, or -EBUSY: none of them is as it was left. */
static int replace_copy(pid_t pid, const struct word *w, uint64_t from, uint64_t to)
{
	uint64_t field = w->word.address - w->table, table = w->table, ctx, now, inner;
	unsigned int depth;

	for (depth = 0; w->table && depth < HOOKS_MAX; depth++) {
		if (memory_read_u64(pid, table, &ctx) || !ctx || (ctx & 7) ||
		    memory_read_u64(pid, ctx, &now))
			break;
		inner = now && now < 256 ? ctx + 8 : ctx;
		if (!memory_replace_u64(pid, inner + field, from, to) ||
		    (!memory_read_u64(pid, inner + field, &now) && now == to))
			return 0;
		table = inner;
	}
	return -EBUSY;
}

static int replace_word(pid_t pid, const struct word *w, uint64_t from, uint64_t to)
{
	uint64_t now;
	int err = memory_replace_u64(pid, w->word.address, from, to);

	if (err != -EAGAIN)
		return err;
	err = memory_read_u64(pid, w->word.address, &now);
	if (err || now == to)
		return err;
	return replace_copy(pid, w, from, to);
}

static void restore_word(pid_t pid, const struct word *w)
{
	if (!w->word.lasting)
		replace_word(pid, w, w->word.ours, w->word.before);
}

static void restore_words(pid_t pid, const struct redirect *r)
{
	size_t i;

	for (i = 0; i < r->count; i++)
		restore_word(pid, &r->words[i]);
}

void redirect_restore(struct redirect *r)
{
	restore_words(r->pid, r);
	r->active = false;
}

/* What holds our value already is as it should be. */
static int apply_word(pid_t pid, const struct word *w)
{
	return replace_word(pid, w, w->word.before, w->word.ours);
}

int redirect_apply(struct redirect *r)
{
	size_t i;
	int err;

	for (i = 0; i < r->count; i++) {
		if (r->words[i].word.lasting)
			continue;
		err = apply_word(r->pid, &r->words[i]);
		if (err) {
			redirect_restore(r);
			return err;
		}
	}
	r->active = true;
	return 0;
}

/* A word may hold another equal address than ours, of another version of leaktop: that is
 * put right first. */
static int settle(pid_t pid, const struct alloc_function *f)
{
	if (f->now == f->address || f->now == f->equal)
		return 0;
	return memory_replace_u64(pid, f->slot, f->now, f->address);
}

static int add_function(struct redirect *r, const struct alloc_function *f, unsigned int verb)
{
	struct word *w = &r->words[r->count];
	int err;

	if (!f->equal || !f->inlined)
		return 0;
	if (r->count == REDIRECT_WORDS_MAX)
		return -E2BIG;
	err = settle(r->pid, f);
	if (err)
		return err == -EAGAIN ? -EBUSY : err;
	*w = (struct word){
		.word = {.address = f->outer, .before = f->address, .ours = f->equal},
		.table = f->outer - 8 - 8 * verb,
	};
	r->count++;
	return 0;
}

static int add_functions(struct redirect *r, const struct alloc_tables *t)
{
	unsigned int domain, verb;
	int err;

	/* The C library's functions are probed as such. */
	if (t->hook == HOOK_RAW)
		return 0;
	for (domain = ALLOC_MEM; domain < ALLOC_DOMAINS; domain++) {
		for (verb = 0; verb < VERBS; verb++) {
			err = add_function(r, &t->functions[domain][verb], verb);
			if (err)
				return err;
		}
	}
	return 0;
}

static int find_place(struct redirect *r, const struct interpreter *i)
{
	struct maps_iter *it;
	struct mapping m;
	int err, got = 0;

	err = maps_iter_new(i->pid, &it);
	if (err)
		return err;
	r->pid = i->pid;
	r->inode = i->inode;
	r->dev_major = i->dev_major;
	r->dev_minor = i->dev_minor;
	err = -ENOENT;
	while (err == -ENOENT && (got = maps_iter_next(it, &m)) > 0) {
		if (!is_binary(r, &m))
			continue;
		r->place = m.start - m.offset;
		err = 0;
	}
	maps_iter_free(it);
	return got < 0 ? got : err;
}

static int read_auxv(pid_t pid, uint8_t auxv[AUXV_BYTES])
{
	char path[32];
	ssize_t n;
	int fd;

	memset(auxv, 0, AUXV_BYTES);
	snprintf(path, sizeof(path), "/proc/%d/auxv", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	n = read(fd, auxv, AUXV_BYTES);
	close(fd);
	return n > 0 ? 0 : -ESRCH;
}

static bool is_related(pid_t pid, const struct redirect *r)
{
	uint8_t auxv[AUXV_BYTES];

	return !read_auxv(pid, auxv) && !memcmp(auxv, r->auxv, AUXV_BYTES);
}

int redirect_new(const struct interpreter *i, const struct alloc_tables *t, struct redirect **out)
{
	struct redirect *r;
	int err;

	/* CPython's own hooks call what they hide through a table of theirs; what others do
	 * is not known. */
	if (t->hook == HOOK_FOREIGN)
		return -EBUSY;
	r = calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	err = find_place(r, i);
	if (!err)
		err = read_auxv(i->pid, r->auxv);
	if (!err)
		err = add_functions(r, t);
	if (!err)
		err = redirect_apply(r);
	if (err) {
		free(r);
		return err;
	}
	*out = r;
	return 0;
}

int redirect_ref_tracer(struct redirect *r, const struct interpreter *i, uint64_t stub)
{
	struct word w = {.word = {.ours = stub, .lasting = true}};
	int err;

	if (r->count == REDIRECT_WORDS_MAX)
		return -E2BIG;
	if (i->layout.runtime_ref_tracer == UINT32_MAX)
		return -ENOTSUP;
	w.word.address = i->runtime + i->layout.runtime_ref_tracer;
	err = apply_word(r->pid, &w);
	if (err)
		return err;
	r->words[r->count++] = w;
	return 0;
}

/*
 * A kernel without kcmp(2) does not say; then it may be so as long as one is the other's
 * child, for what vfork() makes goes its own way by exec or ends.
 */
static bool share_memory(pid_t pid, pid_t child)
{
	long order = syscall(SYS_kcmp, pid, child, KCMP_VM, 0, 0);
	pid_t parent;

	if (order >= 0)
		return !order;
	return errno == ENOSYS && !procfs_parent(child, &parent) && parent == pid;
}

struct redirect *redirect_copy(const struct redirect *r, pid_t child)
{
	struct redirect *copy = malloc(sizeof(*copy));

	if (!copy)
		return NULL;
	*copy = *r;
	copy->pid = child;
	if (child != r->pid && share_memory(r->pid, child))
		copy->count = 0;
	return copy;
}

void redirect_free(struct redirect *r)
{
	free(r);
}

void redirect_withdraw(struct redirect *r)
{
	if (!r)
		return;
	redirect_restore(r);
	redirect_free(r);
}

size_t redirect_count(const struct redirect *r)
{
	return r ? r->count : 0;
}

const struct redirect_word *redirect_at(const struct redirect *r, size_t n)
{
	return &r->words[n].word;
}

size_t redirect_lost(const struct redirect *r)
{
	size_t i, lost = 0;
	uint64_t now;

	for (i = 0; i < r->count; i++) {
		const struct redirect_word *w = &r->words[i].word;

		if ((r->active || w->lasting) && !memory_read_u64(r->pid, w->address, &now) &&
		    now != w->ours)
			lost++;
	}
	return lost;
}

size_t redirect_renew(struct redirect *r)
{
	size_t i, renewed = 0;

	for (i = 0; i < r->count; i++) {
		const struct redirect_word *w = &r->words[i].word;

		if (r->active && !w->lasting)
			renewed += !memory_replace_u64(r->pid, w->address, w->before, w->ours);
	}
	return renewed;
}

static bool is_mapped(pid_t pid, const struct redirect *r)
{
	struct maps_iter *it;
	struct mapping m;
	bool found = false;

	if (maps_iter_new(pid, &it))
		return false;
	while (!found && maps_iter_next(it, &m) > 0)
		found = is_binary(r, &m) && m.start - m.offset == r->place;
	maps_iter_free(it);
	return found;
}

static bool holds_ours(pid_t pid, const struct redirect *r)
{
	uint64_t now;
	size_t i;

	for (i = 0; i < r->count; i++) {
		const struct redirect_word *w = &r->words[i].word;

		if (!w->lasting && !memory_read_u64(pid, w->address, &now) && now == w->ours)
			return true;
	}
	return false;
}

/* The same words of the same binary, so that one look is enough. */
static bool is_alike(const struct redirect *a, const struct redirect *b)
{
	size_t i;

	if (a->inode != b->inode || a->dev_major != b->dev_major || a->dev_minor != b->dev_minor ||
	    a->place != b->place || a->count != b->count || memcmp(a->auxv, b->auxv, AUXV_BYTES))
		return false;
	for (i = 0; i < a->count; i++) {
		if (a->words[i].word.address != b->words[i].word.address ||
		    a->words[i].word.ours != b->words[i].word.ours)
			return false;
	}
	return true;
}

static bool is_repeat(const struct redirect *const *all, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++) {
		if (is_alike(all[i], all[n]))
			return true;
	}
	return false;
}

static bool is_under_trace(pid_t pid, const struct redirect *const *all, size_t count)
{
	size_t i;

	for (i = 0; i < count; i++) {
		if (all[i]->active && (all[i]->pid == pid || share_memory(all[i]->pid, pid)))
			return true;
	}
	return false;
}

static void sweep_process(pid_t pid, const struct redirect *const *all, size_t count)
{
	size_t i;

	for (i = 0; i < count; i++) {
		if (is_repeat(all, i) || !is_related(pid, all[i]) || !holds_ours(pid, all[i]) ||
		    !is_mapped(pid, all[i]))
			continue;
		if (is_under_trace(pid, all, count))
			return;
		restore_words(pid, all[i]);
	}
}

void redirect_sweep(const struct redirect *const *all, size_t count)
{
	struct pid_iter *it;
	pid_t pid;

	if (pid_iter_new(&it))
		return;
	while (pid_iter_next(it, &pid))
		sweep_process(pid, all, count);
	pid_iter_free(it);
}
