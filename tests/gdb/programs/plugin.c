/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Built twice, with frames of different sizes at the same addresses. */
#include <string.h>

#include "leak.h"

#ifndef ROOM
#define ROOM 100
#endif

void plugin_enter(void (*f)(unsigned), unsigned k);

NOINLINE static void inside(void (*f)(unsigned), unsigned k)
{
	char room[ROOM];

	memset(room, 1, sizeof(room));
	leak_sink = room;
	f(k + 1);
	LEAK(k + 2);
}

__attribute__((constructor)) static void loaded(void)
{
	LEAK(60 + ROOM / 100);
}

void plugin_enter(void (*f)(unsigned), unsigned k)
{
	LEAK(k);
	inside(f, k);
	AFTER();
}
