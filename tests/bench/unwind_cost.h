/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What unwind_cost and its BPF programs have in common. */
#ifndef LEAKTOP_UNWIND_COST_H
#define LEAKTOP_UNWIND_COST_H

#ifndef __VMLINUX_H__
#include <linux/types.h>
#endif

#define UNWIND_COST_SLOT 1 /* of the program whose stacks we unwind */
#define UNWIND_COST_COPY_BYTES 8192
#define UNWIND_COST_RING_BYTES (4u << 20)

/* Since the loader last set it to zero. */
struct unwind_cost_seen {
	__u64 calls;
	__u64 frames;
	__u64 incomplete;
	__u64 stack_id; /* the last of bpf_get_stackid */
};

#endif
