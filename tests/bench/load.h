/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef BENCH_LOAD_H
#define BENCH_LOAD_H

#include <stdint.h>

#include "latency.h"

#ifdef __cplusplus
extern "C" {
#endif

uint64_t load_now_ns(void);

/*
 * What `services` speaks with its loads: "ready <pid>" first, then for each line on
 * standard input, which is a number of seconds, the load runs for so long and answers
 * "<operations> <wall ns> <p50 ns> <p99 ns> <p99.9 ns>". Returns at the end of the input.
 *
 * @run works until load_now_ns() has reached its deadline, adds what it sees to
 * @latency and returns how many operations it did.
 */
void load_serve(uint64_t (*run)(uint64_t deadline_ns, struct latency *latency));

/* One such answer. */
void load_answer(uint64_t operations, uint64_t wall_ns, const struct latency *latency);

#ifdef __cplusplus
}
#endif

#endif
