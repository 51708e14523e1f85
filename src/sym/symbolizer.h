/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Turns (object, address) into function, file and line: symbol tables through
 * libelf, lines and inlined calls through libdw, names demangled by libiberty.
 * Answers are cached; an object's tables are read at its first question.
 */
#ifndef LEAKTOP_SYMBOLIZER_H
#define LEAKTOP_SYMBOLIZER_H

#include <stddef.h>
#include <stdint.h>

#include "sym/frame.h"

struct object;
struct symbolizer;

struct symbolizer *symbolizer_new(void);
void symbolizer_free(struct symbolizer *s);

/*
 * The frames at ELF virtual address @vaddr of @object, innermost first: inlined
 * calls, then the function that stands in the symbol table. @vaddr is inside
 * the call instruction (return address - 1). At least one frame, at most @max.
 * Unknown parts stay NULL or 0. Returns the number of frames written.
 * @object must live as long as the symbolizer, which remembers it by its address.
 */
size_t symbolizer_resolve(struct symbolizer *s, struct object *object, uint64_t vaddr,
			  struct frame *frames, size_t max);

#endif
