/* SPDX-License-Identifier: GPL-2.0-or-later */
/* From an instruction to its source line, by the tables in code objects. */
#ifndef LEAKTOP_LINE_TABLE_H
#define LEAKTOP_LINE_TABLE_H

#include <stddef.h>
#include <stdint.h>

/*
 * The line of code unit @unit (two bytes each) of a function that begins at @first_line:
 * what PyCode_Addr2Line(code, 2 * unit) says in CPython 3.@minor. The table is hostile.
 *	to 3.9	co_lnotab	 (Objects/lnotab_notes.txt)
 *	3.10	co_linetable	 (the same file, PEP 626)
 *	3.11 on	location table	 (Objects/locations.md)
 * @complete 0: the table was cut; then what lies behind its end is unknown.
 * Returns the line, or 0 if it has none or it is unknown.
 */
uint32_t line_table_find(int minor, const uint8_t *table, size_t bytes, int complete,
			 uint32_t first_line, uint32_t unit);

#endif
