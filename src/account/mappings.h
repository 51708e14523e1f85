/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The anonymous mappings a process made itself (mmap, sbrk), as ranges: unlike
 * heap blocks they can be unmapped, moved and overwritten in parts.
 *
 * Events of different threads can arrive in another order than the kernel
 * worked. A range is born when its call returned and dies when the removing
 * call was entered, so a removal spares what was born after it began: that is a
 * new mapping in the address space just given back.
 */
#ifndef LEAKTOP_MAPPINGS_H
#define LEAKTOP_MAPPINGS_H

#include <stddef.h>
#include <stdint.h>

struct mappings;

struct mapping_range {
	uint64_t start, end;
	uint64_t birth_ns;
	uint32_t stack_id;
};

struct mappings *mappings_new(void);
void mappings_free(struct mappings *m);

/* Whatever was known there is no more. 0, or -ENOMEM; an empty or overflowing
 * range is ignored. */
int mappings_add(struct mappings *m, uint64_t start, uint64_t length, uint64_t birth_ns,
		 uint32_t stack_id);
/* Only what was born before @before_ns goes. */
int mappings_remove(struct mappings *m, uint64_t start, uint64_t length, uint64_t before_ns);
/* mremap: the old range goes, the new one continues it; the old one's birth and
 * stack are kept if the tracer knew it, else the new ones are taken. */
int mappings_move(struct mappings *m, uint64_t old_start, uint64_t old_length, uint64_t new_start,
		  uint64_t new_length, uint64_t begin_ns, uint64_t birth_ns, uint32_t stack_id);
/* Keeps only what lies inside of the @count sorted ranges @present: a check
 * against /proc/PID/maps, which makes a lost event harmless. Only ranges born
 * before @before_ns are judged. */
int mappings_intersect(struct mappings *m, const struct mapping_range *present, size_t count,
		       uint64_t before_ns);

size_t mappings_count(const struct mappings *m);
/* Sorted by address, never overlapping. */
const struct mapping_range *mappings_at(const struct mappings *m, size_t i);

#endif
