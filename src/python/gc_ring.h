/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Walks a ring of objects that CPython's collector tracks (PyGC_Head, Include/internal/
 * pycore_gc.h), from outside and through a cache of pages, while it may be changing.
 */
#ifndef LEAKTOP_GC_RING_H
#define LEAKTOP_GC_RING_H

#include <stdint.h>
#include <sys/types.h>

struct gc_ring;

/* NULL: out of memory. One serves for many rings. */
struct gc_ring *gc_ring_new(pid_t pid);
void gc_ring_free(struct gc_ring *r);

void gc_ring_start(struct gc_ring *r, uint64_t head);
/* 1 and the address of an object's collector head; 0 at the end; -EAGAIN: the ring changed
 * and the rest cannot be reached; or another negative errno. */
int gc_ring_next(struct gc_ring *r, uint64_t *address);

#endif
