/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Names of C++ and Rust functions as their programmers wrote them. */
#ifndef LEAKTOP_DEMANGLE_H
#define LEAKTOP_DEMANGLE_H

/* The demangled @name, or a copy of it where there is nothing to demangle.
 * The caller frees it. NULL: no memory. */
char *demangle(const char *name);

#endif
