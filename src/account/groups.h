/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The sums of `--by`: over functions, lines, processes or containers. */
#ifndef LEAKTOP_GROUPS_H
#define LEAKTOP_GROUPS_H

struct snapshot;

/*
 * Fills the groups that s->request asks for from the stacks, which must be named,
 * and cuts groups and stacks to the request's top. A stack belongs to the function
 * or line of its first frame that is the program's own: not operator new, nor a
 * function of the C or C++ library that allocates for its caller. 0 or -ENOMEM.
 */
int groups_fill(struct snapshot *s);

#endif
