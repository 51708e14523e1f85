/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Whether blocks are still in a program's hands, by what its allocator's own memory says:
 * read from outside while the program runs. glibc's malloc (2.28 and later) and CPython's
 * pymalloc are understood; of blocks of any other allocator it is only known when their
 * memory is no longer mapped.
 *
 * BLOCK_FREE is said only of what was found twice in a place where no held block can be.
 * Such a block was freed, whoever has its memory now. BLOCK_HELD means that a block of
 * this size is held at this address: if the first was freed and another of its size took its
 * place, nobody can tell. When a size does not fit, that is BLOCK_UNKNOWN (a realloc() in
 * place is possible).
 *
 * Only ask about blocks held before the call, at the addresses that malloc() itself returned.
 * An address in the middle of a block of malloc's counts as freed, so blocks of an allocator
 * that cuts up malloc's (user-defined pools, mcheck()) must not be asked about.
 */
#ifndef LEAKTOP_BLOCK_STATE_H
#define LEAKTOP_BLOCK_STATE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum block_state {
	BLOCK_UNKNOWN = 0,
	BLOCK_HELD,
	BLOCK_FREE,
};

struct block_question {
	uint64_t address;
	uint64_t size_bytes;	/* as the program asked for it */
	uint32_t domain;	/* enum probe_domain */
	enum block_state state; /* out */
};

struct interpreter;
struct block_oracle;

/* @python may be NULL and is not needed afterwards. 0 or negative errno. */
int block_oracle_new(pid_t pid, const struct interpreter *python, struct block_oracle **out);
void block_oracle_free(struct block_oracle *o);

/*
 * Answers @count questions, in any order. The heap is read once for all of them (twice
 * where that decides), so many at a time cost little more than one. 0, and all states are
 * set; -ESRCH (gone) or another negative errno, and all are BLOCK_UNKNOWN.
 */
int block_oracle_ask(struct block_oracle *o, struct block_question *questions, size_t count);

/* Bytes of the process that the latest questions made us read. */
uint64_t block_oracle_read_bytes(const struct block_oracle *o);

#endif
