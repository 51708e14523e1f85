/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Finds where each thread of a process keeps its Python thread state. What is found is
 * compared with the thread states that the process has.
 */
#ifndef LEAKTOP_THREAD_SLOTS_H
#define LEAKTOP_THREAD_SLOTS_H

#include <stdbool.h>
#include <stdint.h>

struct binary;
struct python_layout;

/*
 * Fills in walk.current and walk.attached of @layout, and corrects the offsets of the
 * variables in _PyRuntime (at @runtime) that they are read from. @musl: its C library is musl,
 * which decides how blocks of modules are found. A slot that is not there, or holds something else
 * than a thread's state, has no hops. 0, -EAGAIN (there is no thread state yet), or another
 * negative errno.
 */
int thread_slots_find(const struct binary *b, uint64_t runtime, bool musl,
		      struct python_layout *layout);

#endif
