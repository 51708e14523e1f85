/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the BPF unwinder knows about a process: its executable mappings, sorted,
 * each with the table (unwind_table.h) of the object behind it.
 *
 * The table of an object is one BPF array of 32-bit words, two an element, the
 * lower half first:
 *	block count, row count, first_row[block count + 1], rows[row count]
 * A block count of 0 says that the object has no call frame information. A table
 * that is not in the array of tables is not loaded (yet): who enters it is told.
 */
#ifndef LEAKTOP_UNWIND_MAPS_H
#define LEAKTOP_UNWIND_MAPS_H

#ifndef __VMLINUX_H__
#include <linux/types.h>
#endif

#define UNWIND_MAPPINGS_MAX 512 /* a power of two */
#define UNWIND_TABLES_MAX 4096
#define UNWIND_TABLE_HEAD 2 /* words before first_row */

struct unwind_mapping {
	__u64 start, end;
	__u64 base;  /* address - base: what the table is indexed by */
	__u32 table; /* 0: code made at run time, follow the frame pointer */
	__u32 inode; /* low half of the file's number; 0: its code has been learned */
};

struct unwind_mappings {
	__u32 count;
	__u32 generation; /* changes with the contents: makes cached rules void */
	__u32 stale;	  /* libraries came or went since: the kernel's list is asked first */
	__u32 pad;
	struct unwind_mapping items[UNWIND_MAPPINGS_MAX];
};

/* Added to the generation when mappings become stale; the loader counts below. */
#define UNWIND_GENERATION_STALE (1u << 24)

/*
 * A frame of a stack, where the code belongs to a table: UNWIND_FRAME_IN_TABLE |
 * table << 32 | address, counted as the table does. So a frame says what it lies
 * in, whatever happens to the process and its mappings. It names the call (the
 * return address less one). Other frames are return addresses in the process.
 */
#define UNWIND_FRAME_IN_TABLE (1ull << 63)

static inline __u32 unwind_frame_table(__u64 frame)
{
	return frame & UNWIND_FRAME_IN_TABLE ? frame >> 32 & 0xffff : 0;
}

/* A mapping of code: of which file, from which page on. */
struct code_key {
	__u64 inode; /* address of struct inode; compared, never followed */
	__u64 page;
};

/* Offset in the file + base is what the table is indexed by. */
struct code_place {
	__u64 base;
	__u32 table;
	__u32 pad;
};

/* How unwinding a stack ended. */
enum unwind_result {
	UNWIND_COMPLETE = 0,
	UNWIND_DEPTH,	    /* deeper than STACK_FRAMES_MAX */
	UNWIND_NOT_READY,   /* the process' mappings are not known yet */
	UNWIND_NO_MAPPING,  /* an address where nothing is executable */
	UNWIND_NO_RULE,	    /* code that its unwind information leaves out */
	UNWIND_NO_FRAME,    /* code without tables, and no plausible frame pointer */
	UNWIND_REGISTER,    /* needs a register that is not followed */
	UNWIND_STACK_READ,  /* stack memory that could not be read */
	UNWIND_STACK_ORDER, /* the caller's frame is not above the callee's */
	UNWIND_PENDING,	    /* the table of the object is being loaded */
	UNWIND_RESULTS,
	UNWIND_RESULTS_MAX = 16 /* a power of two, for masks */
};

/* Incomplete stacks, counted by where they end. */
struct unwind_failure {
	__u32 slot;
	__u32 result; /* enum unwind_result */
	__u64 page;   /* the last frame >> 12 */
};

_Static_assert(sizeof(struct unwind_failure) == 16, "unwind_failure is an interface");
_Static_assert(sizeof(struct code_key) == 16, "code_key is an interface");
_Static_assert(sizeof(struct code_place) == 16, "code_place is an interface");
_Static_assert(sizeof(struct unwind_mapping) == 32, "unwind_mapping is an interface");

#endif
