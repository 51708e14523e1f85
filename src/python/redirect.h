/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Points words of a target's CPython at equal addresses, and back again: the
 * allocator tables, so that inlined copies of the allocator are not taken, and the
 * slot of the reference tracer.
 *
 * The only place where leaktop writes into a target. Every word is compared before
 * it is replaced, written in one piece, and leads to code that does the same, so a
 * target that is left behind (SIGKILL) runs on correctly.
 */
#ifndef LEAKTOP_REDIRECT_H
#define LEAKTOP_REDIRECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct interpreter;
struct alloc_tables;
struct redirect;

#define REDIRECT_WORDS_MAX 16

struct redirect_word {
	uint64_t address, before, ours;
	/* It stays when the rest is put back: the reference tracer's. */
	bool lasting;
};

/*
 * Redirects those functions of domains mem and obj that have inlined copies and an
 * equal address; under hooks of CPython's own (tracemalloc, the debug allocator) in the
 * tables that these have of what they hide. Words that already hold our value (left by
 * one that was killed) are taken over, to be put right at the end. On failure all is as
 * it was. 0, also when nothing had to be done; -EBUSY: a foreign hook is in the way; or
 * another negative errno.
 */
int redirect_new(const struct interpreter *i, const struct alloc_tables *t, struct redirect **out);

/*
 * Also points the reference tracer (3.13 on) at @stub, see alloc_find_stub(). -EBUSY:
 * somebody else has it, such as tracemalloc; -ENOTSUP: there is none, or it was not found;
 * or another negative errno.
 * The stub stays there for as long as the process lives, or until it installs a tracer of
 * its own: CPython tests the slot and then reads it again to call, so it must never become
 * NULL again while the process runs. Probes on the stub are what is taken away. One that
 * was left by an earlier leaktop is simply used again.
 */
int redirect_ref_tracer(struct redirect *r, const struct interpreter *i, uint64_t stub);

/* A child has inherited @r by fork; or another record of the same process. A child that
 * shares its parent's memory (vfork) gets no words: they are the parent's. NULL: no memory. */
struct redirect *redirect_copy(const struct redirect *r, pid_t child);

/* Puts back what is still ours, but for lasting words; redirect_apply() redirects again.
 * A process that is gone is fine. */
void redirect_restore(struct redirect *r);
/* 0 or a negative errno; then all is as it was. */
int redirect_apply(struct redirect *r);

/* Restores and frees. NULL is fine. */
void redirect_withdraw(struct redirect *r);
/* Drops the record without touching the process (it has run exec). NULL is fine. */
void redirect_free(struct redirect *r);

/* 0 for NULL. */
size_t redirect_count(const struct redirect *r);
const struct redirect_word *redirect_at(const struct redirect *r, size_t n);
/* Words that are no more ours (tracemalloc was started meanwhile, say). */
size_t redirect_lost(const struct redirect *r);

/* Somebody has put words back to what they were (another leaktop that ended, say): they are
 * ours again. Returns how many there were. */
size_t redirect_renew(struct redirect *r);

/*
 * Looks through all processes for descendants of redirected ones that are not under
 * trace (born in the last moment, or with --no-follow) and puts them right too:
 * processes with the same binary at the same place whose words hold our values.
 * Those of @all that are redirected now are left alone. So that none escapes at the end:
 * restore all, sweep, free all.
 */
void redirect_sweep(const struct redirect *const *all, size_t count);

#endif
