/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The command "leaktop census": what a CPython process consists of, and what grows in it. */
#ifndef LEAKTOP_CENSUS_COMMAND_H
#define LEAKTOP_CENSUS_COMMAND_H

#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

/*
 * Prints all types to @out; then, if @every_s is not 0, every so many seconds those whose
 * count is higher than ever, as objgraph's show_growth() does, until @count tables were
 * printed (0: until the process ends). 0, or a negative errno that has been logged.
 */
int census_command(pid_t pid, double every_s, unsigned long count, bool freeze, FILE *out);

#endif
