/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Outstanding blocks one by one, for whoever wants to look at what is in them. */
#ifndef LEAKTOP_BLOCK_LIST_H
#define LEAKTOP_BLOCK_LIST_H

#include <stddef.h>
#include <stdint.h>

struct listed_block {
	uint64_t address;
	uint64_t size_bytes;
	uint32_t stack_id;
	uint16_t slot;
	uint16_t rate; /* and duty: what it stands for (sampling.h) */
	uint8_t duty;
};

#define BLOCK_LIST_MAX (4u << 20) /* blocks; 96 MiB */

struct block_list {
	struct listed_block *items;
	size_t count, capacity;
	size_t left_out; /* for want of room */
};

void block_list_add(struct block_list *l, const struct listed_block *b);
void block_list_release(struct block_list *l);

#endif
