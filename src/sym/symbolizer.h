/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Turns (object, address) into function, file and line: symbol tables through
 * libelf, lines and inlined calls through libdw, names demangled by libiberty.
 * Answers are cached; an object's tables are read at its first question, and what
 * was not found then is not looked for again.
 *
 * Used by one thread at a time, which need not be the one that goes on adding objects:
 * of an object only that is read which never changes. Files are read by pread() alone,
 * so the offset of an object's descriptor is nobody's. It may take long: seconds where
 * debug information is large, a minute and more where servers are asked (debuginfod.h).
 *
 * In memory at most: 2 GiB of debug sections plus what libdw makes of them, 512 MiB of
 * symbol tables, 256 MiB of names, a million frames of answers. A stack address has at
 * most 64 frames, a name at most 4 KiB. An object keeps up to two files open besides
 * its own.
 */
#ifndef LEAKTOP_SYMBOLIZER_H
#define LEAKTOP_SYMBOLIZER_H

#include <stddef.h>
#include <stdint.h>

#include "sym/frame.h"

struct object;
struct symbolizer;

/* While there is only one thread: DEBUGINFOD_URLS changes the environment. */
struct symbolizer *symbolizer_new(void);
void symbolizer_free(struct symbolizer *s);

/*
 * The frames at ELF virtual address @vaddr of @object, innermost first: inlined
 * calls, then the function that stands in the symbol table. @vaddr is inside
 * the call instruction (return address - 1). At least one frame, at most @max.
 * Unknown parts stay NULL or 0. Returns the number of frames written.
 * @object must live as long as the symbolizer, which remembers it by its address.
 */
size_t symbolizer_resolve(struct symbolizer *s, const struct object *object, uint64_t vaddr,
			  struct frame *frames, size_t max);

/* From any thread: what waits for a server waits no longer, nor is one asked again. */
void symbolizer_cancel(struct symbolizer *s);

#endif
