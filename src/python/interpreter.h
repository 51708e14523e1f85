/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The CPython interpreter in a process: where it is, which version, and how its
 * objects are laid out. Found in the executable or in a library, whatever their
 * names, by what CPython exports; nothing is run and nobody is stopped.
 */
#ifndef LEAKTOP_INTERPRETER_H
#define LEAKTOP_INTERPRETER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "python/layout.h"

struct interpreter {
	pid_t pid;
	int major, minor, micro;
	char version[24]; /* "3.11.2", "3.15.0b1", "3.13.5t" for free-threaded ones */
	bool free_threaded;
	uint64_t bias;	  /* address in the process - virtual address in the ELF file */
	uint64_t runtime; /* address of _PyRuntime */
	uint64_t inode;	  /* of the binary, with the device as /proc/PID/maps shows it */
	uint32_t dev_major, dev_minor;
	uint64_t eval_vaddr, eval_bytes; /* _PyEval_EvalFrameDefault; 0: not exported */
	uint64_t finalize_vaddr;	 /* Py_FinalizeEx; 0: not exported */
	uint64_t code_dealloc;		 /* address of the destructor of code objects */
	struct python_layout layout;
};

/* Why a process' Python is not followed, in the user's words; static storage. */
struct interpreter_problem {
	const char *reason;
	char version[24]; /* "" if not known */
};

/*
 * 0; -ENOENT: the process runs no Python; -ENOTSUP: it does, but none that can be
 * followed, and @problem says why (then version is what could be read, "" if nothing);
 * -EAGAIN: it is just starting, so all but the thread slots of its layout is known, look
 * again; -ESRCH: gone.
 */
int interpreter_find(pid_t pid, struct interpreter *out, struct interpreter_problem *problem);

/* Opens the binary (read only) behind @i for reading its text. A descriptor or negative errno. */
int interpreter_open_binary(const struct interpreter *i);

#endif
