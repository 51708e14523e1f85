/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The ways to record a user stack that unwind_cost compares, a program each. Ours
 * is the code of bpf/stack.bpf.h itself.
 */
#include "maps.bpf.h"
#include "stack.bpf.h"
#include "unwind_cost.h"

/* include/uapi/linux/bpf.h, errno-base.h */
#define BPF_MAP_TYPE_STACK_TRACE 7
#define BPF_RB_NO_WAKEUP 1
#define EEXIST 17

struct unwind_cost_seen seen; /* one thread is measured at a time */

static __always_inline void saw(__u32 frames, bool complete)
{
	seen.calls++;
	seen.frames += frames;
	seen.incomplete += !complete;
}

static __always_inline struct task_state *bench_task(void)
{
	struct task_state *task = bpf_task_storage_get(&tasks, bpf_get_current_task_btf(), 0,
						       BPF_LOCAL_STORAGE_GET_F_CREATE);

	if (task)
		task->slot = UNWIND_COST_SLOT;
	return task;
}

SEC("uprobe")
int empty(struct pt_regs *ctx)
{
	USE_THREAD_STACK(ctx, no_probe);
	saw(0, true);
	return 0;
}

SEC("uprobe")
int capture(struct pt_regs *ctx)
{
	struct task_state *task = bench_task();

	USE_THREAD_STACK(ctx, no_probe);
	if (!task)
		return 0;
	stack_capture(ctx, task, stack_outer(task->slot), false);
	saw(task->stack.frame_count, task->stack.result == UNWIND_COMPLETE);
	return 0;
}

SEC("uprobe")
int number(struct pt_regs *ctx)
{
	struct task_state *task = bench_task();
	__u32 id;

	USE_THREAD_STACK(ctx, no_probe);
	if (!task)
		return 0;
	id = stack_id_of(ctx, task, bpf_get_current_pid_tgid() >> 32, 1, false);
	saw(task->stack.frame_count, id && task->stack.result == UNWIND_COMPLETE);
	return 0;
}

/* Of the size and flags that memleak has. */
struct {
	__uint(type, BPF_MAP_TYPE_STACK_TRACE);
	__uint(max_entries, 10240);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, STACK_FRAMES_MAX * sizeof(__u64));
} stack_traces SEC(".maps");

/* How many frames it were unwind_cost sees in the map. A stack whose place there is
 * taken by another is lost, after the same work. */
SEC("uprobe")
int stackid(struct pt_regs *ctx)
{
	long id;

	USE_THREAD_STACK(ctx, no_probe);
	id = bpf_get_stackid(ctx, &stack_traces, BPF_F_USER_STACK);
	saw(0, id >= 0 || id == -EEXIST);
	if (id >= 0)
		seen.stack_id = id;
	return 0;
}

SEC("uprobe")
int get_stack(struct pt_regs *ctx)
{
	struct task_state *task = bench_task();
	long bytes;

	USE_THREAD_STACK(ctx, no_probe);
	if (!task)
		return 0;
	bytes = bpf_get_stack(ctx, task->stack.frames, sizeof(task->stack.frames),
			      BPF_F_USER_STACK);
	saw(bytes > 0 ? (__u32)bytes / 8 : 0, bytes > 0);
	return 0;
}

struct stack_copy {
	__u64 ip, sp, bp; /* at least */
	__u8 bytes[UNWIND_COST_COPY_BYTES];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, UNWIND_COST_RING_BYTES);
} copies SEC(".maps");

/* For tools that unwind later, in user space. */
SEC("uprobe")
int copy(struct pt_regs *ctx)
{
	struct stack_copy *c;
	long err;

	USE_THREAD_STACK(ctx, no_probe);
	c = bpf_ringbuf_reserve(&copies, sizeof(*c), 0);
	if (!c) {
		saw(0, false);
		return 0;
	}
	c->ip = PT_REGS_IP(ctx);
	c->sp = PT_REGS_SP(ctx);
	c->bp = PT_REGS_FP(ctx);
	err = bpf_probe_read_user(c->bytes, sizeof(c->bytes), (void *)c->sp);
	bpf_ringbuf_submit(c, BPF_RB_NO_WAKEUP);
	saw(0, !err);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
