/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The CPython interpreters under trace: each is found, its frames are followed, its
 * allocator's functions are probed, and where the compiler has inlined copies of these,
 * its allocator tables are redirected (python/redirect.h), to be put right at the end.
 */
#ifndef LEAKTOP_PYTHONS_H
#define LEAKTOP_PYTHONS_H

#include <stdbool.h>
#include <sys/types.h>

struct coverage_python;
struct interpreter;
struct kernel;
struct ledger;
struct object_table;
struct prober;
struct python;
struct pythons;
struct tracee;
struct unwinder;

enum python_mode {
	PYTHON_AUTO = 0, /* frames and objects */
	PYTHON_STACKS,	 /* frames only: nothing is written, no function of Python's probed */
	PYTHON_OFF,
};

struct pythons_options {
	enum python_mode mode;
	bool no_redirect; /* write nothing into any target */
	bool anonymous;	  /* the targets were not named by the user (-a) */
};

/* Borrowed; all must outlive the pythons. */
struct pythons_modules {
	struct kernel *kernel;
	struct object_table *objects;
	struct prober *prober;
	struct ledger *ledger;
	struct unwinder *unwinder;
};

struct pythons *pythons_new(const struct pythons_options *o, const struct pythons_modules *m);
/* Puts right what forked children nobody traces have inherited. All tracees must have
 * let go of their interpreters before. */
void pythons_free(struct pythons *p);

/* Looks whether @t runs Python now, and traces it if so. Cheap when nothing is new. To be
 * called when its mappings changed, and by pythons_tick(). */
void pythons_look(struct pythons *p, struct tracee *t);
/* An interpreter was just starting when it was looked at: look again soon. */
bool pythons_are_pending(const struct pythons *p);
/* @child was born by fork and has all that @parent had. */
void pythons_forked(struct pythons *p, const struct tracee *parent, struct tracee *child);

/* To be called now and then: sees to it that what was changed stays so. */
void python_check(struct python *python, pid_t pid);

/* Lets go: puts back what was changed, unless @exec, after which nothing of it is left. */
void pythons_release(struct pythons *p, struct python *python, bool exec);

/* NULL: it runs no Python. */
const struct coverage_python *python_coverage(const struct python *python);
/* NULL: not followed. */
const struct interpreter *python_interpreter(const struct python *python);

#endif
