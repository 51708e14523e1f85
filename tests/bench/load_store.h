/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef BENCH_LOAD_STORE_H
#define BENCH_LOAD_STORE_H

/* The shared library of load_service: handles request number @number. */
unsigned long store_handle(unsigned long number);

#endif
