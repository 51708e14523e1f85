/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One frame of a stack: where it lies, and as a person reads it. */
#ifndef LEAKTOP_FRAME_H
#define LEAKTOP_FRAME_H

#include <stdbool.h>
#include <stdint.h>

struct object;
struct python_code;

/* Kept after its process is gone. */
struct frame_ref {
	struct python_code *code; /* a Python frame: its function, a reference; else NULL */
	uint32_t unit;		  /* and in it the instruction (python_walk.h) */

	const struct object *object; /* NULL: no ELF file */
	const char *name;	     /* of what is there if there is no object */
	uint64_t address;	     /* return address in the process; 0: not known */
	uint64_t vaddr;		     /* return address in @object */
};

enum frame_lang {
	FRAME_NATIVE = 0,
	FRAME_PYTHON,
};

/* A frame as it is shown; whoever fills it owns the strings. */
struct frame {
	enum frame_lang lang;
	bool inlined;	      /* an inlined call: shares its address with the next frame */
	bool has_offset;      /* @offset is known */
	bool interpreter;     /* of the binary that runs the Python frames of the stack */
	uint32_t line;	      /* 0: unknown */
	uint64_t address;     /* in the process */
	uint64_t offset;      /* virtual address in the object: what addr2line wants */
	uint64_t func_offset; /* bytes from the start of @function */
	const char *function; /* demangled; NULL: unknown */
	const char *file;     /* NULL: unknown */
	const char *module;   /* path of the object as the target sees it, or "[vdso]", "[anon]" */
	const char *build_id; /* hex, NULL: none */
};

#endif
