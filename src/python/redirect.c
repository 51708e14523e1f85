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
#include <linux/kcmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "python/alloc_tables.h"
#include "python/interpreter.h"
#include "python/ref_tracer.h"
#include "target/memory.h"
#include "target/procfs.h"

#define HOOKS_MAX 4 /* over ours, one upon the other */

struct word {
	struct redirect_word word;
	uint64_t table; /* of the allocator that it is in; 0: it is in none */
};

struct redirect {
	pid_t pid;
	/* The binary, to know it again in other processes. */
	uint64_t inode, bias;
	uint32_t dev_major, dev_minor;
	bool active;
	struct word words[REDIRECT_WORDS_MAX];
	size_t count;
};

/* Whether two processes share their memory. Kernels without kcmp(2) do not say. */
static bool share_memory(pid_t a, pid_t b)
{
	return syscall(SYS_kcmp, a, b, KCMP_VM, 0, 0) == 0;
}

/* In the tables that hooks over @w hold copies of: behind ctx, or behind ctx and a letter. */
static void restore_copy(pid_t pid, const struct word *w)
{
	uint64_t field = w->word.address - w->table, table = w->table, ctx, now, inner;
	unsigned int depth;

	for (depth = 0; depth < HOOKS_MAX; depth++) {
		if (memory_read_u64(pid, table, &ctx) || !ctx || (ctx & 7) ||
		    memory_read_u64(pid, ctx, &now))
			return;
		inner = now && now < 256 ? ctx + 8 : ctx;
		if (!memory_replace_u64(pid, inner + field, w->word.ours, w->word.before))
			return;
		table = inner;
	}
}

static void restore_word(pid_t pid, const struct word *w)
{
	if (w->word.lasting)
		return;
	if (memory_replace_u64(pid, w->word.address, w->word.ours, w->word.before) == -EAGAIN &&
	    w->table)
		restore_copy(pid, w);
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
static int apply_word(pid_t pid, const struct redirect_word *w)
{
	uint64_t now;
	int err;

	err = memory_replace_u64(pid, w->address, w->before, w->ours);
	if (err != -EAGAIN)
		return err;
	err = memory_read_u64(pid, w->address, &now);
	if (err)
		return err;
	return now == w->ours ? 0 : -EBUSY;
}

int redirect_apply(struct redirect *r)
{
	size_t i;
	int err;

	for (i = 0; i < r->count; i++) {
		if (r->words[i].word.lasting)
			continue;
		err = apply_word(r->pid, &r->words[i].word);
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
		.word = {.address = f->slot, .before = f->address, .ours = f->equal},
		.table = f->slot - 8 - 8 * verb,
	};
	r->count++;
	return 0;
}

static bool is_hooked(const struct alloc_tables *t)
{
	return t->hook != HOOK_NONE && t->hook != HOOK_RAW;
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

int redirect_new(const struct interpreter *i, const struct alloc_tables *t, struct redirect **out)
{
	struct redirect *r;
	int err;

	if (is_hooked(t))
		return -EBUSY;
	r = calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	r->pid = i->pid;
	r->inode = i->inode;
	r->bias = i->bias;
	r->dev_major = i->dev_major;
	r->dev_minor = i->dev_minor;
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
	struct redirect_word word = {.ours = stub, .lasting = true};
	int err;

	if (r->count == REDIRECT_WORDS_MAX)
		return -E2BIG;
	err = ref_tracer_slot(i, &word.address);
	if (err)
		return err == -ENOENT ? -ENOTSUP : err;
	err = apply_word(r->pid, &word);
	if (err)
		return err;
	r->words[r->count++] = (struct word){.word = word};
	return 0;
}

struct redirect *redirect_copy(const struct redirect *r, pid_t child)
{
	struct redirect *copy = malloc(sizeof(*copy));

	if (!copy)
		return NULL;
	*copy = *r;
	copy->pid = child;
	if (share_memory(r->pid, child))
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
	return r->count;
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

/* Whether the process maps the binary of @r, and where @r has it. */
static bool maps_same(pid_t pid, const struct redirect *r, const struct mapping *m)
{
	(void)pid;
	return m->inode == r->inode && m->dev_major == r->dev_major &&
	       m->dev_minor == r->dev_minor;
}
