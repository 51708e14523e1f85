/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The walk over Python's frames, compiled for the host, in a process that the input makes
 * up: see tests/unit/python_hostile.h for how, and for what must hold of each stack.
 */
#include "python_hostile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	hostile_python_run(data, size);
	return 0;
}
