/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A mangled name of a few hundred bytes can stand for gigabytes of text,
 * because it may refer back to its own parts over and over. libiberty has no
 * bound for that. Its callback interface keeps everything on the stack, so the
 * way out is to leave by longjmp() when the text has become too long. (For a
 * Rust name with letters outside ASCII that loses one buffer of at most the
 * name's length.) Recursion is bounded by libiberty itself, which in turn
 * leaves C++ names beyond 1,024 bytes as they are.
 */
#include "sym/demangle.h"

#include <libiberty/demangle.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#define INPUT_BYTES_MAX 4096
#define OUTPUT_BYTES_MAX 16384

#define OPTIONS (DMGL_PARAMS | DMGL_ANSI | DMGL_AUTO)

typedef int demangler(const char *name, int options, demangle_callbackref write, void *opaque);

struct output {
	jmp_buf full;
	size_t length;
	char text[OUTPUT_BYTES_MAX];
};

static void collect(const char *text, size_t bytes, void *opaque)
{
	struct output *out = opaque;

	if (!bytes)
		return;
	if (bytes >= sizeof(out->text) - out->length)
		longjmp(out->full, 1);
	memcpy(out->text + out->length, text, bytes);
	out->length += bytes;
}

static bool run(demangler *try, const char *name, struct output *out)
{
	out->length = 0;
	if (setjmp(out->full))
		return false;
	return try(name, OPTIONS, collect, out) && out->length > 0;
}

char *demangle(const char *name)
{
	struct output out;

	if (name[0] != '_' || strnlen(name, INPUT_BYTES_MAX + 1) > INPUT_BYTES_MAX)
		return strdup(name);
	/* Rust first: its older scheme is a subset of the one of C++, plus a hash. */
	if (run(rust_demangle_callback, name, &out) || run(cplus_demangle_v3_callback, name, &out))
		return strndup(out.text, out.length);
	return strdup(name);
}
