/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The command "leaktop watch", also what leaktop does when no target is named. */
#ifndef LEAKTOP_WATCH_COMMAND_H
#define LEAKTOP_WATCH_COMMAND_H

struct options;

/* Reports until Ctrl-C, --duration, COUNT or the end of all targets, then once more. 0, or
 * a negative errno that has been logged. */
int watch_command(const struct options *o);

#endif
