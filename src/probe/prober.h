/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Finds the allocators that a process has mapped and probes them. An object is
 * read and planned once, whichever processes map it; each process gets links of
 * its own, so that nobody else has a breakpoint.
 */
#ifndef LEAKTOP_PROBER_H
#define LEAKTOP_PROBER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "probe/allocators.h"
#include "probe/attach.h"
#include "probe/method.h"

struct object;
struct object_table;
struct prober;

struct prober_options {
	enum probe_method method;
	const char *extra_prefix; /* -S, NULL: none */
};

/* What one object offers. */
struct object_probes {
	struct object *object;
	struct alloc_sites sites;
	struct probe_plan *plan; /* NULL: nothing to probe */
	bool placed;		 /* by prober_add_places(), besides what has symbols */
};

/* @k and @objects are borrowed. @k may be NULL: then plans are made, not attached. */
struct prober *prober_new(struct kernel *k, struct object_table *objects,
			  const struct prober_options *options);
void prober_free(struct prober *p);

/* The probes on one process, or on all (pid 0). @p must outlive them; freeing it
 * waits until the probes of freed attachments are off. */
struct attachments;
struct attachments *attachments_new(struct prober *p, pid_t pid);
/* Notes what a process has mapped, while the probes themselves go to @shared,
 * which covers every process (-a). @shared is borrowed. */
struct attachments *attachments_new_shared(struct prober *p, struct attachments *shared);
void attachments_free(struct attachments *a);

/* Looks through the mappings of @pid and probes what is new. Returns how many
 * objects were added, or negative errno (-ESRCH: gone). */
int prober_update(struct prober *p, struct attachments *a, pid_t pid);
/* Probes all that @from has on @to's process: a child right after its fork. */
int prober_copy(struct prober *p, const struct attachments *from, struct attachments *to);
/* Probes the object at @path although no process has it mapped yet. -ENOENT:
 * it holds no allocator. */
int prober_add_path(struct prober *p, struct attachments *a, const char *path);

/* Probes functions of @object that were found by other means than their names. 0 or
 * negative errno; then nothing is attached. */
int prober_add_places(struct prober *p, struct attachments *a, struct object *object,
		      const char *allocator, const struct alloc_place *places, size_t count);

size_t attachments_count(const struct attachments *a);
const struct object_probes *attachments_at(const struct attachments *a, size_t i);
/* Whether any of it gives out heap memory. */
bool attachments_have_allocator(const struct attachments *a);
/* Whether a CPython interpreter is among it, perhaps. */
bool attachments_have_python(const struct attachments *a);
/* Whether functions that may throw can have return probes whatever the method. */
bool attachments_guarded(const struct attachments *a);
/* Whether the dynamic linker will tell of libraries that come. */
bool attachments_have_linker(const struct attachments *a);
/* Objects that could not be probed, and why the last one could not. */
size_t attachments_failed(const struct attachments *a, int *err);

#endif
