/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What one probe means, in the 64 bits of a BPF attach cookie.
 *
 * One generic BPF program serves every allocator: the row of the allocator
 * table that a probe stands for travels in its cookie. Shared by the loader
 * (packs) and the BPF programs (unpack); both include this file, so it uses
 * nothing but fixed-width integers.
 */
#ifndef LEAKTOP_PROBE_SPEC_H
#define LEAKTOP_PROBE_SPEC_H

#ifndef __VMLINUX_H__
#include <stdint.h>
typedef uint64_t spec_u64;
typedef uint32_t spec_u32;
#else
typedef __u64 spec_u64;
typedef __u32 spec_u32;
#endif

/* What the probed function does. */
enum probe_op {
	OP_NONE = 0,
	OP_ALLOC,      /* returns a new block, NULL on failure */
	OP_ALLOC_OUT,  /* stores a new block through argument `ptr`, returns 0 on success */
	OP_REALLOC,    /* argument `ptr` is the old block, returns the new one */
	OP_FREE,       /* argument `ptr` is the block */
	OP_MMAP,       /* mmap(2): returns MAP_FAILED on failure; flags in argument 3 */
	OP_MUNMAP,     /* munmap(addr, length): returns 0 on success */
	OP_MREMAP,     /* mremap(old, old_length, new_length, flags) */
	OP_BRK,	       /* brk() or sbrk(): the program break moves */
	OP_DLOPEN,     /* the dynamic linker's debugger hook: mappings changed */
	OP_UNWIND,     /* starts to unwind the stack for an exception */
	OP_CODE_FREE,  /* CPython's destructor of the code object `ptr` */
	OP_OBJECT,     /* CPython's reference tracer: an object comes (`event` 0) or goes (1) */
	OP_PYTHON_END, /* Py_FinalizeEx: from here on CPython takes everything down */
	OP_COUNT
};

/* Which kind of memory a block is; the `domain` of a report. */
enum probe_domain {
	DOMAIN_MALLOC = 0,
	DOMAIN_PYMALLOC,
	DOMAIN_MMAP,
	DOMAIN_COUNT
};

#define SPEC_NO_ARG 7u /* the function has no such argument */

struct probe_spec {
	spec_u32 op;	    /* enum probe_op */
	spec_u32 domain;    /* enum probe_domain */
	spec_u32 size_arg;  /* 0-5: argument holding the size in bytes, or the element size */
	spec_u32 count_arg; /* 0-5: number of elements to multiply the size with */
	spec_u32 ptr_arg;   /* 0-5: old block, freed block or out-parameter */
	spec_u32 throws;    /* 1: an exception may leave it (see call_may_throw()) */
	spec_u32 sp_words;  /* 8-byte words pushed between function entry and the probe */
	spec_u32 wraps;	    /* 1: it may get its memory from another function that is probed */
	spec_u32 insn;	    /* class of the probed instruction, which says what a hit costs */
};

#define SPEC_INSNS 8

static inline spec_u64 probe_spec_pack(const struct probe_spec *s)
{
	return (spec_u64)(s->op & 15) | (spec_u64)(s->domain & 15) << 4 |
	       (spec_u64)(s->size_arg & 7) << 8 | (spec_u64)(s->count_arg & 7) << 11 |
	       (spec_u64)(s->ptr_arg & 7) << 14 | (spec_u64)(s->sp_words & 63) << 17 |
	       (spec_u64)(s->throws & 1) << 23 | (spec_u64)(s->wraps & 1) << 24 |
	       (spec_u64)(s->insn & (SPEC_INSNS - 1)) << 25;
}

static inline void probe_spec_unpack(spec_u64 cookie, struct probe_spec *s)
{
	s->op = cookie & 15;
	s->domain = cookie >> 4 & 15;
	s->size_arg = cookie >> 8 & 7;
	s->count_arg = cookie >> 11 & 7;
	s->ptr_arg = cookie >> 14 & 7;
	s->sp_words = cookie >> 17 & 63;
	s->throws = cookie >> 23 & 1;
	s->wraps = cookie >> 24 & 1;
	s->insn = cookie >> 25 & (SPEC_INSNS - 1);
}

#endif
