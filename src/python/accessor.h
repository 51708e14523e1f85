/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a short function of the interpreter reads. CPython exports functions that return
 * one variable which itself is not exported; their instructions tell where it is.
 */
#ifndef LEAKTOP_ACCESSOR_H
#define LEAKTOP_ACCESSOR_H

#include <stddef.h>
#include <stdint.h>

struct binary;

enum accessor_tls {
	ACCESSOR_NO_TLS = 0,
	ACCESSOR_TLS_FIXED,  /* a fixed offset from the fs base */
	ACCESSOR_TLS_MODULE, /* in the block of a module */
};

#define ACCESSOR_TOUCHED_MAX 24

struct accessor {
	/* Addresses in the process that it names, reads or writes, in this order. */
	uint64_t touched[ACCESSOR_TOUCHED_MAX];
	size_t touched_count;
	/* The first thread-local variable it reads. */
	enum accessor_tls tls;
	uint64_t tls_module;
	int64_t tls_offset;
};

/* 0, -ENOENT (no such function is exported), or another negative errno. */
int accessor_read(const struct binary *b, const char *function, struct accessor *out);

#endif
