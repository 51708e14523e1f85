/* SPDX-License-Identifier: GPL-2.0-or-later */
/* load_service: a C++ service that handles one request after the other. */
#include "load.h"
#include "load_store.h"

static unsigned long number;

static uint64_t run(uint64_t deadline_ns, struct latency *latency)
{
	uint64_t now = load_now_ns();
	uint64_t requests = 0;

	for (; now < deadline_ns; requests++) {
		uint64_t before = now;

		store_handle(number++);
		now = load_now_ns();
		latency_add(latency, now - before);
	}
	return requests;
}

int main()
{
	load_serve(run);
}
