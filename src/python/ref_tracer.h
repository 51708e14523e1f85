/* SPDX-License-Identifier: GPL-2.0-or-later */
/* CPython's reference tracer, 3.13 on: called with every object made and destroyed. */
#ifndef LEAKTOP_REF_TRACER_H
#define LEAKTOP_REF_TRACER_H

#include <stdint.h>

struct interpreter;

/* The address of _PyRuntime.ref_tracer.tracer_func, by the code that reads it: it moved
 * within 3.13. 0, -ENOENT, or another negative errno. */
int ref_tracer_slot(const struct interpreter *i, uint64_t *slot);

#endif
