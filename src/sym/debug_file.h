/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Finds the separate file with the debug information of an object. */
#ifndef LEAKTOP_DEBUG_FILE_H
#define LEAKTOP_DEBUG_FILE_H

#define DEBUG_ROOT "/usr/lib/debug"

/*
 * Opens @root/.build-id/xx/yyyy.debug, if it is an ELF file of that build id
 * (hex). Returns a descriptor or negative errno.
 */
int debug_file_open(const char *root, const char *build_id);

#endif
