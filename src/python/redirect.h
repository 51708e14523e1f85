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

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct interpreter;
struct alloc_tables;
struct redirect;

#define REDIRECT_WORDS_MAX 16

struct redirect_word {
	uint64_t address, before, ours;
};

/*
 * Redirects those functions of domains mem and obj that have inlined copies and an
 * equal address. Words that already hold our value (left by one that was killed)
 * are taken over, to be put right at the end. On failure all is as it was. 0, also when
 * nothing had to be done; -EBUSY: a hook is in the way; or another negative errno.
 */
int redirect_new(const struct interpreter *i, const struct alloc_tables *t, struct redirect **out);
/* A child has inherited @r by fork. */
struct redirect *redirect_copy(const struct redirect *r, pid_t child);
/* Puts back what is still ours, and frees. A process that is gone is fine. NULL is fine. */
void redirect_withdraw(struct redirect *r);
/* Drops the record without touching the process (it has run exec). */
void redirect_free(struct redirect *r);

size_t redirect_count(const struct redirect *r);
const struct redirect_word *redirect_at(const struct redirect *r, size_t n);
/* Words that are no more ours (tracemalloc was started meanwhile, say). */
size_t redirect_lost(const struct redirect *r);

/* Looks through all processes for descendants of redirected ones that are not under
 * trace (born in the last moment, or with --no-follow) and puts them right too:
 * processes with the same binary at the same place whose words hold our values. */
void redirect_sweep(const struct redirect *const *all, size_t count);

#endif
