/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Lets exceptions pass through functions that have a return probe.
 *
 * While such a function runs, the kernel keeps the address of its trampoline in
 * place of the return address. An unwinder finds no frame there and gives up:
 * std::bad_alloc thrown by operator new would end the program instead of being
 * caught. So when a thread starts to unwind, the return addresses that the
 * kernel remembers are put back on its stack. It costs the report one call that
 * does not return anyway; the kernel drops its record of it as it does after a
 * longjmp.
 *
 * A file of its own, loaded only when a target needs it: the kernel logs a
 * warning for every program that can write user memory.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

/* Functions with return probes that can be under way at once in a thread; the
 * kernel's own bound is 64 (MAX_URETPROBE_DEPTH). */
#define INSTANCES_MAX 64

/* A global function, which is verified once and not on every turn of the loop: the
 * kernel warns in its log each time the verifier meets bpf_probe_write_user. */
__noinline int put_back(__u64 place, __u64 trampoline, __u64 original)
{
	__u64 now;

	if (!bpf_probe_read_user(&now, sizeof(now), (void *)place) && now == trampoline)
		bpf_probe_write_user((void *)place, &original, sizeof(original));
	return 0;
}

SEC("uprobe")
int unwind_guard(void *ctx __attribute__((unused)))
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u64 trampoline = BPF_CORE_READ(task, mm, uprobes_state.xol_area, vaddr);
	struct return_instance *i = BPF_CORE_READ(task, utask, return_instances);
	__u64 place, original;

	for (int n = 0; n < INSTANCES_MAX && i; n++) {
		place = BPF_CORE_READ(i, stack);
		original = BPF_CORE_READ(i, orig_ret_vaddr);
		put_back(place, trampoline, original);
		i = BPF_CORE_READ(i, next);
	}
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
