/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Keeps the BPF unwinder supplied: compiles the tables of the objects that
 * targets map, each once, and tells where each process has mapped them.
 */
#ifndef LEAKTOP_UNWINDER_H
#define LEAKTOP_UNWINDER_H

#include <stddef.h>
#include <stdint.h>

struct addr_space;
struct kernel;
struct unwinder;

/* @k is borrowed. 0 or negative errno. */
int unwinder_new(const struct kernel *k, struct unwinder **out);
void unwinder_free(struct unwinder *u);

/* The process of @slot has the mappings of @as now. Objects that are new are
 * compiled first, 1 to 50 ms each. 0 or negative errno. */
int unwinder_update(struct unwinder *u, uint32_t slot, const struct addr_space *as);
void unwinder_forget(struct unwinder *u, uint32_t slot);

/* Memory of all tables in the kernel, and tables left out for its bound. */
size_t unwinder_table_bytes(const struct unwinder *u);
size_t unwinder_tables_refused(const struct unwinder *u);

/* What a stack's end is called: "no_rule" in JSON, and for people. NULL for a
 * complete one. */
const char *unwind_result_name(uint32_t result);
const char *unwind_result_text(uint32_t result);

#endif
