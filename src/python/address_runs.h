/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A set of ranges of addresses that are added in ascending order. */
#ifndef LEAKTOP_ADDRESS_RUNS_H
#define LEAKTOP_ADDRESS_RUNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct address_run {
	uint64_t start, end;
};

struct address_runs { /* starts as zeroes */
	struct address_run *items;
	size_t count, room;
	size_t last; /* where the latest look-up hit */
};

/* @start is not below what is in already. 0 or -ENOMEM. */
int address_runs_add(struct address_runs *r, uint64_t start, uint64_t end);
bool address_runs_have(struct address_runs *r, uint64_t address);
void address_runs_release(struct address_runs *r);

#endif
