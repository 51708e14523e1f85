/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Loads a plugin and calls it at once, or a while later (argument: milliseconds); then
 * again after it was unloaded and loaded anew. */
#include <dlfcn.h>
#include <unistd.h>

#include "leak.h"

static void back(unsigned k)
{
	LEAK(k);
}

static int use(const char *path, unsigned k, unsigned int wait_ms)
{
	void *handle = dlopen(path, RTLD_NOW);
	void (*enter)(void (*)(unsigned), unsigned);

	if (!handle)
		return 1;
	enter = (void (*)(void (*)(unsigned), unsigned))dlsym(handle, "plugin_enter");
	usleep(wait_ms * 1000);
	enter(back, k);
	dlclose(handle);
	return 0;
}

int main(int argc, char **argv)
{
	unsigned int wait_ms = argc > 3 ? (unsigned int)atoi(argv[3]) : 0;

	if (argc < 3)
		return 2;
	return use(argv[1], 1, wait_ms) || use(argv[2], 20, wait_ms) || use(argv[1], 40, wait_ms);
}
