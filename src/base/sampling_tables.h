/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The tables by which both sides compute what samples stand for (include/sampling.h). */
#ifndef LEAKTOP_SAMPLING_TABLES_H
#define LEAKTOP_SAMPLING_TABLES_H

#include <stdint.h>

#include "sampling.h"

void sampling_tables_fill(struct sampling_tables *out);

/* The rate whose interval is nearest to @bytes; 0 for 0. */
uint32_t sampling_rate_of(double interval_bytes);
/* Probability that a block of @size_bytes is recorded at @rate. */
double sampling_probability(const struct sampling_tables *t, uint64_t size_bytes, uint32_t rate);

#endif
