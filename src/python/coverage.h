/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is seen of a CPython process, and what is not. */
#ifndef LEAKTOP_PYTHON_COVERAGE_H
#define LEAKTOP_PYTHON_COVERAGE_H

#include <stdbool.h>
#include <sys/types.h>

/* How much is seen of the objects of a CPython process. */
enum python_objects {
	PYTHON_OBJECTS_NONE = 0,
	PYTHON_OBJECTS_LARGE_ONLY, /* those that pymalloc passes on to malloc */
	PYTHON_OBJECTS_FULL,
};

struct coverage_python {
	pid_t pid;
	const char *version; /* "3.11.2", "" if not known */
	enum python_objects objects;
	const char *reason; /* why not all, or what to know of it; NULL: nothing; static storage */
	bool frames;	    /* Python frames are in the stacks */
	bool by_malloc;	    /* objects are malloc's blocks (PYTHONMALLOC=malloc) */
	bool debug_heads;   /* blocks begin with 16 bytes of the debug allocator's */
	bool freelists;	    /* blocks of small types can carry the line of an earlier user */
	bool redirected;    /* leaktop has changed words in its memory, to be put back */
};

#endif
