/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Allocates 4711 bytes in a destructor that runs while an exception passes; with
 * "throw", the exception itself has that size.
 */
#include <cstdlib>
#include <cstring>
#include <vector>

struct witness {
	~witness()
	{
		kept = std::malloc(4711);
	}
	void *volatile kept = nullptr;
};

struct large {
	char bytes[4711];
};

static volatile bool throw_large;

__attribute__((noinline)) static int fall(int depth)
{
	std::vector<int> held(static_cast<size_t>(depth + 1), depth);

	if (depth)
		return fall(depth - 1) + held[0];
	if (throw_large)
		throw large();
	throw 1;
}

__attribute__((noinline)) static int guarded(int depth)
{
	witness w;

	return fall(depth) + (w.kept != nullptr);
}

int main(int argc, char **argv)
{
	throw_large = argc > 1 && !std::strcmp(argv[1], "throw");
	try {
		return guarded(3);
	} catch (int n) {
		return n - 1;
	} catch (const large &) {
		return 0;
	}
}
