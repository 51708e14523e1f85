/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The BPF unwinder, compiled for the host, on a process that the input makes up:
 * see tests/unit/unwind_hostile.h for how, and for what must hold of each walk.
 */
#include "unwind_hostile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	hostile_run(data, size);
	return 0;
}
