/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef BENCH_LOAD_SERVER_H
#define BENCH_LOAD_SERVER_H

/* What load_client sends and load_server answers; of fixed sizes, so that a count will do. */
#define REQUEST_SIZE 64
#define REPLY_SIZE 256

#endif
