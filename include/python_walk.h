/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How the BPF programs find and walk the Python frames of the current thread: one
 * struct python_walk for each process that runs CPython, made by the loader from
 * the interpreter's version (src/python/layout.c). Offsets are in bytes.
 *
 * Frames form a list from the innermost outwards. Each run of the evaluation loop
 * on the native stack stands for a segment of the list; where a segment ends, there
 * is an address inside the native frame of that run (its anchor):
 *	to 3.9	 none; every Python frame is a segment of its own
 *	3.10	 the CFrame, one a Python frame
 *	3.11	 the _PyCFrame; the segment ends at a frame marked is_entry
 *	3.12 on	 the entry frame itself, whose owner says so; it is no frame of Python code
 */
#ifndef LEAKTOP_PYTHON_WALK_H
#define LEAKTOP_PYTHON_WALK_H

#ifndef __VMLINUX_H__
#include <linux/types.h>
#endif

#define PYTHON_NONE 0xffffu /* an offset: there is no such field */
#define PYTHON_FRAMES_MAX 64
#define PYTHON_HOPS_MAX 3

/*
 * Where a pointer to a thread state lies: from `address`, or if that is 0 from the
 * fs base, add hop[0] and read the pointer there; add hop[1] to it and read again...
 * The last one read is the result.
 *	thread-local in the executable	{0, {offset}}		    1 hop
 *	in a library (glibc)		{0, {8, 16 * module, offset}} 3 hops
 *	a global variable		{address, {0}}		    1 hop
 */
struct python_slot {
	__u64 address;
	__s32 hop[PYTHON_HOPS_MAX];
	__u32 hops; /* 0: there is no such slot */
};

enum python_instr {
	PYTHON_LASTI_BYTES = 0, /* to 3.9: int, offset in bytes of the last instruction, or -1 */
	PYTHON_LASTI_UNITS,	/* 3.10: the same in code units of two bytes */
	PYTHON_INSTR_POINTER,	/* 3.11 on: address of the (last or next) instruction */
};

struct python_walk {
	struct python_slot current;  /* who runs Python code; its thread id is checked */
	struct python_slot attached; /* this thread's own, also while it runs no Python code */
	__u64 code_mask;	     /* taken off the code pointer: tag bits */
	/* The evaluation function, for versions without anchors; a range of addresses as
	 * frames name them (unwind_maps.h). Filled in by whoever knows the table. */
	__u64 eval_start, eval_end;
	/* thread state */
	__u16 thread_id;     /* unsigned long, equals the fs base */
	__u16 thread_frame;  /* the innermost frame; or with cframe_frame: the CFrame */
	__u16 thread_cframe; /* 3.10: the CFrame, besides thread_frame */
	/* CFrame: 3.10 to 3.12, else PYTHON_NONE */
	__u16 cframe_frame; /* 3.11, 3.12: the innermost frame */
	__u16 cframe_previous;
	/* frame; all within the first 128 bytes */
	__u16 frame_back;
	__u16 frame_code;
	__u16 frame_instr; /* see enum python_instr */
	__u16 frame_owner; /* char; PYTHON_NONE to 3.10 */
	__u16 frame_entry; /* 3.11: bool is_entry */
	/* code object */
	__u16 code_file;	 /* PyObject *co_filename */
	__u16 code_name;	 /* co_name */
	__u16 code_qualname;	 /* co_qualname; PYTHON_NONE to 3.10 */
	__u16 code_line;	 /* int co_firstlineno */
	__u16 code_lines;	 /* bytes object: co_lnotab to 3.9, co_linetable */
	__u16 code_instructions; /* co_code_adaptive, 3.11 on */
	/* str: Include/cpython/unicodeobject.h */
	__u16 string_ascii; /* data of a compact ASCII string */
	__u16 string_wide;  /* data of other compact strings */
	__u8 instr_kind;    /* enum python_instr */
	__u8 owner_entry;   /* 3.12 on: this owner and higher is an entry frame; 0xff: none */
	__u8 pad[2];
	__u32 serial; /* of this record: tells processes apart that had one slot after another */
};

#define PYTHON_STRING_LENGTH 16 /* PyASCIIObject.length */
#define PYTHON_STRING_STATE 32	/* PyASCIIObject.state */
#define PYTHON_BYTES_SIZE 16	/* PyVarObject.ob_size */
#define PYTHON_BYTES_DATA 32	/* PyBytesObject.ob_sval */

/*
 * A Python frame in a stack (beside those of unwind_maps.h): the code object, which
 * lies on a multiple of 8 below 2^47 (static ones as clang aligns them), and the code
 * unit of the instruction.
 */
#define PYTHON_FRAME (1ull << 62)
#define PYTHON_FRAME_UNIT_BITS 18
#define PYTHON_UNIT_START ((1u << PYTHON_FRAME_UNIT_BITS) - 1) /* nothing ran yet */
#define PYTHON_UNIT_UNKNOWN (PYTHON_UNIT_START - 1)	       /* too far to say */

static inline __u64 python_frame(__u64 code, __u32 unit)
{
	return PYTHON_FRAME | (code >> 3) << PYTHON_FRAME_UNIT_BITS | unit;
}

static inline int python_frame_is(__u64 frame)
{
	return (frame >> 62) == 1;
}

static inline __u64 python_frame_code(__u64 frame)
{
	return (frame & (PYTHON_FRAME - 1)) >> PYTHON_FRAME_UNIT_BITS << 3;
}

static inline __u32 python_frame_unit(__u64 frame)
{
	return frame & PYTHON_UNIT_START;
}

_Static_assert(sizeof(struct python_slot) == 24, "python_slot is an interface");
_Static_assert(sizeof(struct python_walk) == 48 + 24 + 36 + 4 + 8, "python_walk is an interface");

#endif
