/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A command of the user's that is run under the tracer (`leaktop -- CMD`). It is
 * held twice: before its first instruction, when the program and the dynamic
 * linker are mapped, and, by the caller's arrangement, when the dynamic linker
 * has mapped the libraries and none of their constructors has run. So it is
 * traced from its first allocation.
 */
#ifndef LEAKTOP_COMMAND_H
#define LEAKTOP_COMMAND_H

#include <stdbool.h>
#include <sys/types.h>

struct command;

/* Starts @argv and holds it at its exec. The environment and the working
 * directory are ours. -ENOENT, -EACCES...: it could not be executed. */
int command_start(char *const argv[], struct command **out);
/* Kills it if it still runs and was never released. */
void command_free(struct command *c);

pid_t command_pid(const struct command *c);
/*
 * Lets it run until it gets SIGSTOP from the probe on the dynamic linker, and
 * takes that signal away. 1: it is held there; 0: it ended, or ran for
 * @timeout_ms without coming by (then it runs on, untraced by ptrace).
 */
int command_run_to_stop(struct command *c, int timeout_ms);
/* Lets it go for good. */
void command_release(struct command *c);
/* Sends SIGCONT. */
void command_continue(struct command *c);
/* True once it has ended (reaps it). */
bool command_has_ended(struct command *c);

#endif
