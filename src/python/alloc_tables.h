/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * CPython's allocator tables: {ctx, malloc, calloc, realloc, free} for the domains
 * raw, mem and obj, through which every allocation goes that the compiler did not
 * inline (PyMemAllocatorEx, Include/cpython/pymem.h).
 */
#ifndef LEAKTOP_ALLOC_TABLES_H
#define LEAKTOP_ALLOC_TABLES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct interpreter;

enum alloc_domain {
	ALLOC_RAW = 0,
	ALLOC_MEM,
	ALLOC_OBJ,
	ALLOC_DOMAINS
};
enum alloc_verb {
	VERB_MALLOC = 0,
	VERB_CALLOC,
	VERB_REALLOC,
	VERB_FREE,
	VERBS
};

enum alloc_hook {
	HOOK_NONE = 0,	  /* pymalloc (or mimalloc) itself */
	HOOK_TRACEMALLOC, /* tracemalloc is on */
	HOOK_DEBUG,	  /* PYTHONMALLOC=debug, PYTHONDEVMODE */
	HOOK_RAW,	  /* PYTHONMALLOC=malloc: the C library's functions */
	HOOK_FOREIGN,	  /* something else, such as a profiler's */
};

/* A function that allocates, at the end of the chain of hooks. Addresses are of the process. */
struct alloc_function {
	uint64_t address;     /* the function proper, also when the table holds an equal address */
	uint64_t slot;	      /* the word in the (innermost) table that leads to it */
	uint64_t outer;	      /* the same in the outermost table: a hook's, or @slot */
	uint64_t now;	      /* what the word at @slot holds */
	uint64_t equal;	      /* does the same, safe to put there; 0: none found */
	unsigned int inlined; /* promoted copies: see inlined_copies.h */
	bool outside;	      /* not in the interpreter's binary (only with HOOK_FOREIGN) */
};

struct alloc_tables {
	enum alloc_hook hook; /* the outermost that is not ours */
	struct alloc_function functions[ALLOC_DOMAINS][VERBS];
};

/*
 * Finds the tables of @i without symbols (facts: from 3.12 in _PyRuntime, before by
 * data references of the exported PyMem_ and PyObject_ functions), follows hooks, and
 * looks for equal addresses and promoted copies in the text. Functions whose table is
 * the C library's own are given too (HOOK_RAW when obj's are).
 * 0; -ENOENT: not found; -ESRCH; or another negative errno.
 */
int alloc_tables_find(const struct interpreter *i, struct alloc_tables *out);

/* An equal address for @function in @text, which begins at @text_address; 0 if there is none. */
uint64_t equal_address(const uint8_t *text, size_t bytes, uint64_t text_address, uint64_t function);
/* The function that code at @address falls or jumps into; @address itself if it is none
 * of the known forms (no-ops, endbr64, jmp). */
uint64_t equal_target(const uint8_t *text, size_t bytes, uint64_t text_address, uint64_t address);

/*
 * 3.13 on: "nop; xor eax,eax; ret", a jump to that, or such in the binary, for the reference
 * tracer (CPython ignores what that returns). 0 and its address, or -ENOENT. It can lie
 * within a function, behind a jump, where the unwinding rules need not be right: at a
 * probe on it the return address is what the stack pointer points to.
 */
int alloc_find_stub(const struct interpreter *i, uint64_t *address);

#endif
