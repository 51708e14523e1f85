/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Takes probes off in the background. Each link that is closed waits for grace
 * periods of the kernel, 10 to 100 ms, longest with perf events; threads let
 * these waits overlap, and the event loop never stands still for them.
 */
#ifndef LEAKTOP_CLOSER_H
#define LEAKTOP_CLOSER_H

struct closer;

/* No thread runs until the first link comes. NULL when out of memory. */
struct closer *closer_new(void);
/* Waits until everything is closed. Accepts NULL. */
void closer_free(struct closer *c);

/* Calls @fn(@arg) soon, on another thread, or at once if there can be none. */
void closer_put(struct closer *c, void (*fn)(void *arg), void *arg);

#endif
