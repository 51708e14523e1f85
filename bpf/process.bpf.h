/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Births, deaths and moves of processes. */
#ifndef LEAKTOP_PROCESS_BPF_H
#define LEAKTOP_PROCESS_BPF_H

#include "maps.bpf.h"
#include "unwind.bpf.h"

/* Where the current thread keeps its own storage. */
static __always_inline __u64 task_fs_base(void)
{
#if defined(__TARGET_ARCH_x86)
	return bpf_get_current_task_btf()->thread.fsbase;
#else
	return 0;
#endif
}

static __always_inline void event_init(struct event *e, __u32 kind, __u32 slot, __u32 tgid)
{
	e->kind = kind;
	e->proc = slot;
	e->pid = tgid;
	e->parent_pid = 0;
	e->time_ns = bpf_ktime_get_ns();
}

static __always_inline void process_event(__u32 kind, __u32 slot, __u32 tgid, __u32 parent)
{
	struct event e;

	event_init(&e, kind, slot, tgid);
	e.parent_pid = parent;
	if (bpf_ringbuf_output(&ring, &e, sizeof(e), 0)) {
		count(COUNT_RING_FULL);
		count(COUNT_PROCESS_LOST);
	}
}

/*
 * Makes @tgid a target under a new slot and returns it, 0 if there is none left.
 * With BPF_ANY it takes the place of what the process was; with BPF_NOEXIST a
 * slot that another thread or the loader gave it meanwhile is kept.
 */
static __always_inline __u32 proc_adopt(__u32 tgid, __u64 flags)
{
	struct proc_info info = {}, *there;

	info.slot = id_take(&free_slots, &next_slot, LIVE_PROC_MAX);
	if (!info.slot) {
		count(COUNT_PROCESS_LOST);
		return 0;
	}
	if (bpf_map_update_elem(&procs, &tgid, &info, flags)) {
		bpf_map_push_elem(&free_slots, &info.slot, 0);
		there = flags == BPF_NOEXIST ? bpf_map_lookup_elem(&procs, &tgid) : NULL;
		if (there)
			return there->slot;
		count(COUNT_PROCESS_LOST);
		return 0;
	}
	return info.slot;
}

/* The slot of the current process, 0 if it is no target. */
static __always_inline __u32 task_slot(struct task_state *task, __u32 tgid)
{
	struct proc_info *info;

	if (task->slot)
		return task->slot;
	info = bpf_map_lookup_elem(&procs, &tgid);
	if (info) {
		task->slot = info->slot;
	} else if (adopt_all) {
		task->slot = proc_adopt(tgid, BPF_NOEXIST);
		if (task->slot)
			process_event(EVENT_EXEC, task->slot, tgid, 0);
	}
	return task->slot;
}

/* A child's code lies where its parent's does. */
static __always_inline void space_inherit(__u32 parent_tgid, __u32 slot)
{
	struct proc_info *parent = bpf_map_lookup_elem(&procs, &parent_tgid);
	struct unwind_mappings *space;
	__u32 from;

	if (!parent)
		return;
	from = parent->slot;
	space = bpf_map_lookup_elem(&unwind_spaces, &from);
	if (space)
		bpf_map_update_elem(&unwind_spaces, &slot, space, BPF_ANY);
}

/* And so does its interpreter. */
static __always_inline void python_inherit(__u32 parent_tgid, __u32 slot)
{
	struct proc_info *parent = bpf_map_lookup_elem(&procs, &parent_tgid);
	struct python_walk *w;
	__u32 from;

	if (!parent || !want_python)
		return;
	from = parent->slot;
	w = bpf_map_lookup_elem(&python_walks, &from);
	if (!w || bpf_map_update_elem(&python_walks, &slot, w, BPF_ANY))
		return;
	w = bpf_map_lookup_elem(&python_walks, &slot);
	if (w)
		w->serial = __sync_fetch_and_add(&next_python_serial, 1);
}

/* And its allocations are sampled in the same way. */
static __always_inline void sampling_inherit(__u32 parent_tgid, __u32 slot)
{
	struct proc_info *parent = bpf_map_lookup_elem(&procs, &parent_tgid);
	struct process_sampling *from, *to;
	__u32 parent_slot;

	if (!parent)
		return;
	parent_slot = parent->slot;
	from = bpf_map_lookup_elem(&process_samplings, &parent_slot);
	to = bpf_map_lookup_elem(&process_samplings, &slot);
	if (from && to)
		*to = *from;
}

/* include/trace/events/sched.h: (struct task_struct *parent, struct task_struct *child) */
SEC("raw_tp/sched_process_fork")
int on_fork(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *parent = (void *)ctx->args[0];
	struct task_struct *child = (void *)ctx->args[1];
	__u32 parent_tgid = BPF_CORE_READ(parent, tgid);
	__u32 tgid = BPF_CORE_READ(child, tgid);
	__u32 slot;

	if ((__u32)BPF_CORE_READ(child, pid) != tgid) /* a thread */
		return 0;
	if (!follow_forks || !bpf_map_lookup_elem(&procs, &parent_tgid))
		return 0;
	slot = proc_adopt(tgid, BPF_ANY);
	if (slot) {
		space_inherit(parent_tgid, slot);
		python_inherit(parent_tgid, slot);
		sampling_inherit(parent_tgid, slot);
	}
	if (slot)
		process_event(EVENT_FORK, slot, tgid, parent_tgid);
	return 0;
}

/*
 * (struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm). The old
 * image's blocks stay under the old slot, which the loader buries; the other
 * threads are gone by now, so this thread's state is all there is to reset.
 */
SEC("raw_tp/sched_process_exec")
int on_exec(struct bpf_raw_tracepoint_args *ctx __attribute__((unused)))
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct task_state *task;
	__u32 slot = 0;

	if (tgid == self_tgid)
		return 0;
	if (bpf_map_lookup_elem(&procs, &tgid)) {
		slot = proc_adopt(tgid, BPF_ANY);
		task = bpf_task_storage_get(&tasks, bpf_get_current_task_btf(), 0, 0);
		if (task) {
			task->slot = slot;
			task->depth = 0;
			task->hits = task->probe_ns = task->record_ns = 0;
			__builtin_memset(task->cache, 0, sizeof(task->cache));
		}
	} else if (!watch_execs) {
		return 0;
	}
	process_event(EVENT_EXEC, slot, tgid, 0);
	return 0;
}

/* (struct task_struct *p): signal->live has been decremented by now (kernel/exit.c). */
SEC("raw_tp/sched_process_exit")
int on_exit(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *p = (void *)ctx->args[0];
	__u32 tgid = BPF_CORE_READ(p, tgid);
	struct proc_info *info = bpf_map_lookup_elem(&procs, &tgid);
	__u32 slot;

	if (!info || BPF_CORE_READ(p, signal, live.counter) != 0)
		return 0;
	slot = info->slot;
	if (bpf_map_delete_elem(&procs, &tgid)) /* the other last thread was first */
		return 0;
	process_event(EVENT_EXIT, slot, tgid, 0);
	return 0;
}

/* include/trace/events/cgroup.h: (struct cgroup *dst, const char *path, struct task_struct *task,
 * bool threadgroup) */
SEC("raw_tp/cgroup_attach_task")
int on_cgroup_attach(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (void *)ctx->args[2];
	__u32 tgid = BPF_CORE_READ(task, tgid);

	if (tgid != self_tgid && (__u32)BPF_CORE_READ(task, pid) == tgid)
		process_event(EVENT_CGROUP, 0, tgid, 0);
	return 0;
}

#endif
