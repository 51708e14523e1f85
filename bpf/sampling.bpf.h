/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which allocations are recorded (include/sampling.h), and what tracing costs each process.
 *
 * The choice is made where the function is entered, so one that is not recorded takes no
 * return trap and leaves nothing behind. If it then calls another probed function for the
 * same memory (PyObject_Malloc malloc, musl's calloc malloc), that one is not the program's:
 * it is known by its size and by being entered a little deeper on the stack.
 */
#ifndef LEAKTOP_SAMPLING_BPF_H
#define LEAKTOP_SAMPLING_BPF_H

#include "maps.bpf.h"
#include "probe_spec.h"

/* Between the return addresses of a wrapper and of what it calls. */
#define WRAPPER_STACK_BYTES 1024
/* Objects/obmalloc.c, SMALL_REQUEST_THRESHOLD: smaller ones never reach malloc. */
#define PYMALLOC_SMALL_BYTES 512
#define COSTS_FLUSH_HITS 64

static __always_inline const struct sampling_tables *sampling_tables(void)
{
	const struct sampling_tables *t = (const void *)&sampling_tables_data;

	barrier_var(t); /* its contents are not what clang sees here */
	return t;
}

/* Global functions are looked at once by the verifier, and not for every way to them. */
__noinline int gap_draw(struct task_state *task, __u32 rate)
{
	const struct sampling_tables *t = sampling_tables();

	if (!task)
		return 0;
	task->gap_bytes = sampling_gap(t, sampling_interval(t, rate), bpf_get_prandom_u32());
	task->gap_rate = rate;
	return 0;
}

/* One at the very same place of the stack went on to this function by a jump, or has returned
 * and this is the next call: then it is of the same function. */
static __always_inline bool is_wrapped(struct task_state *task, __u64 ip, __u64 slot_sp,
				       __u64 size_bytes)
{
	__u64 depth = task->wrapper_slot_sp - slot_sp;
	bool wrapped = task->wrapper_slot_sp && depth < WRAPPER_STACK_BYTES &&
		       task->wrapper_bytes == size_bytes && (depth || ip != task->wrapper_ip);

	task->wrapper_slot_sp = 0;
	return wrapped;
}

/* Whether one that is about to begin is recorded at @rate. */
__noinline int is_sampled(struct task_state *task, const struct call *c, __u64 ip)
{
	__u64 size_bytes, slot_sp;
	struct probe_spec spec;
	__u64 one;
	__u32 rate;

	if (!task || !c)
		return 0;
	size_bytes = c->size_bytes;
	slot_sp = c->slot_sp;
	rate = c->rate;
	one = size_bytes ? size_bytes : 1;
	if (is_wrapped(task, ip, slot_sp, size_bytes))
		return 0;
	if (task->gap_rate != rate)
		gap_draw(task, rate);
	if (task->gap_bytes < one) {
		gap_draw(task, rate);
		return 1;
	}
	task->gap_bytes -= one;
	probe_spec_unpack(c->spec, &spec);
	if (spec.wraps && (spec.domain != DOMAIN_PYMALLOC || size_bytes > PYMALLOC_SMALL_BYTES)) {
		task->wrapper_slot_sp = slot_sp;
		task->wrapper_bytes = size_bytes;
		task->wrapper_ip = ip;
	}
	return 0;
}

/* Whether the allocation that @c begins is to be recorded. */
static __always_inline bool sample(struct task_state *task, struct call *c, __u64 ip)
{
	__u32 slot = task->slot;
	struct process_sampling *s = bpf_map_lookup_elem(&process_samplings, &slot);

	c->rate = s ? s->rate : 0;
	c->duty = s ? s->duty : 0;
	return !c->rate || is_sampled(task, c, ip);
}

static __always_inline void costs_add(__u32 slot, __u64 hits, __u64 probe_ns, __u64 record_ns)
{
	struct process_costs *c = bpf_map_lookup_elem(&costs, &slot);

	if (!c)
		return;
	__sync_fetch_and_add(&c->hits, hits);
	__sync_fetch_and_add(&c->probe_ns, probe_ns);
	__sync_fetch_and_add(&c->record_ns, record_ns);
}

/*
 * One hit of a probe. They are added up by thread, whose memory no other CPU writes. Of every
 * COSTS_FLUSH_HITS the time that the program takes is measured: then the time is returned,
 * to be given to cost_end(); else 0.
 */
static __always_inline __u64 cost_hit(struct task_state *task, __u64 cookie)
{
	__u32 insn = cookie >> 25 & (SPEC_INSNS - 1);

	task->probe_ns += hit_ns[insn];
	if (++task->hits < COSTS_FLUSH_HITS)
		return 0;
	costs_add(task->slot, task->hits, task->probe_ns, task->record_ns);
	task->hits = task->probe_ns = task->record_ns = 0;
	return bpf_ktime_get_ns();
}

/* What takes longer was not the program: an interrupt, or another thread was let run. */
#define HIT_NS_MAX 4000
#define RECORD_NS_MAX 40000

static __always_inline __u64 time_since(__u64 begin_ns, __u64 max_ns)
{
	__u64 ns = bpf_ktime_get_ns() - begin_ns;

	return ns < max_ns ? ns : max_ns;
}

static __always_inline void cost_end(struct task_state *task, __u64 begin_ns)
{
	if (begin_ns && task)
		task->probe_ns += time_since(begin_ns, HIT_NS_MAX) * COSTS_FLUSH_HITS;
}

/* It will return through a trap. */
static __always_inline void cost_return(struct task_state *task, __u64 cookie)
{
	task->probe_ns += return_ns[cookie >> 25 & (SPEC_INSNS - 1)];
}

static __always_inline void cost_record(struct task_state *task, __u64 begin_ns)
{
	task->record_ns += time_since(begin_ns, RECORD_NS_MAX);
}

#endif
