/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Holds all threads of a process by ptrace, without a signal that it could see. The tracer is
 * a child of ours: when that ends, or we do, however it happens, the kernel lets all
 * threads run on, with the signals that came meanwhile (ptrace(2); PTRACE_O_EXITKILL is
 * not set).
 */
#ifndef LEAKTOP_FREEZER_H
#define LEAKTOP_FREEZER_H

#include <sys/types.h>

struct freezer;

/* 0; -EPERM: it has another tracer, or not allowed; -ETIMEDOUT: a thread does not stop (it is
 * in the kernel, uninterruptibly); -ESRCH; or another negative errno. On failure it runs on. */
int freezer_new(pid_t pid, struct freezer **out);
/* Lets it run on. Accepts NULL. */
void freezer_free(struct freezer *f);

#endif
