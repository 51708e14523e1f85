/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The code objects that stacks of a process have shown, by their address: names and
 * line table, copied by the BPF programs while the object was alive (struct
 * event_code). When the address is announced again, it is another object.
 *
 * What a stack refers to is kept alive by a reference, also when the code object or
 * the process is gone.
 */
#ifndef LEAKTOP_CODE_STORE_H
#define LEAKTOP_CODE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct code_store;
struct event_code;
struct python_code;

/* Of one process running CPython 3.@minor. Codes that no stack refers to are dropped, least
 * recently announced first, above @max_codes. */
struct code_store *code_store_new(int minor, size_t max_codes);
void code_store_free(struct code_store *s);

/* An event of @size bytes (checked); events of one code object follow each other:
 * EVENT_CODE, then its further pieces of line table (piece > 0). 0 or negative errno. */
int code_store_add(struct code_store *s, const struct event_code *e, size_t size);

/* The code that is known at @address now, with a reference for the caller; NULL: none. */
struct python_code *code_store_get(struct code_store *s, uint64_t address);
struct python_code *python_code_ref(struct python_code *c);
void python_code_unref(struct python_code *c); /* accepts NULL */

/* UTF-8, unescaped (lone surrogates as U+FFFD); live as long as the reference. */
const char *python_code_file(const struct python_code *c);
const char *python_code_function(const struct python_code *c); /* qualified where possible */
/* Line of code unit @unit (python_frame_unit() of a frame); 0: unknown. */
uint32_t python_code_line(const struct python_code *c, uint32_t unit);
/* _Py_InitCleanup (Python/specialize.c, 3.13 on): a frame of the interpreter's own below a
 * specialised __init__, which no traceback shows. */
bool python_code_is_shim(const struct python_code *c);
/* A hash of file, function and first line: equal in every run. */
uint64_t python_code_identity(const struct python_code *c);

#endif
