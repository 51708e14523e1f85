/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One run of the tracer: targets come, are probed, are reported on, and go. It
 * ties the modules together and is the only one that knows them all.
 */
#ifndef LEAKTOP_SESSION_H
#define LEAKTOP_SESSION_H

struct options;
struct session;

/* Attaches to every target that exists now. 0 or negative errno; what failed
 * has been logged. @o is borrowed. */
int session_open(const struct options *o, struct session **out);
void session_close(struct session *s);

/* Reports until the end that the options, a signal or the targets set. 0, or
 * negative errno if reports could not be written (logged). */
int session_run(struct session *s);

#endif
