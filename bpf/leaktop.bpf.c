/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The probes: entry and return of every function in the allocator table.
 *
 * One generic program reads from the attach cookie what the function does
 * (include/probe_spec.h). The outermost function that the program called is the
 * one that counts: a call is recorded at entry with the stack address of its
 * return address, and what is entered deeper on the same stack while that call
 * is under way (calloc -> malloc, realloc -> malloc, malloc -> mmap) is the
 * allocator's own business.
 *
 * A call may never return (longjmp, an exception, a dying thread), so there are
 * no counters that must balance. An outer call is believed only while its
 * return address slot still holds the kernel's return trampoline, and it is
 * dropped as soon as the stack has been unwound to its place.
 */
#include "maps.bpf.h"
#include "live.bpf.h"
#include "process.bpf.h"
#include "sampling.bpf.h"
#include "stack.bpf.h"

#define MAP_ANONYMOUS 0x20
#define ERROR_POINTER(v) ((v) >= (__u64)-4095) /* a system call's -errno */
/* Two stack addresses further apart are on different stacks (signal stacks, coroutines). */
#define SAME_STACK_BYTES (8u << 20)
/* An exit code of session programs: no return trap wanted. */
#define NO_RETURN 1

#if defined(__TARGET_ARCH_x86)
/* The call instruction pushed the return address; it was popped when the function returned. */
#define RETURN_SLOT_AT_ENTRY(ctx) PT_REGS_SP(ctx)
#define RETURN_SLOT_AFTER(ctx) (PT_REGS_SP(ctx) - 8)
#else
/* The return address is in a register: the stack pointer itself names the call. */
#define RETURN_SLOT_AT_ENTRY(ctx) PT_REGS_SP(ctx)
#define RETURN_SLOT_AFTER(ctx) PT_REGS_SP(ctx)
#endif

/*
 * The arguments in an array, because the verifier takes only constant offsets
 * into the registers; eight entries, so that a masked index is always inside.
 */
struct arguments {
	__u64 values[8];
};

static __always_inline void arguments_read(struct pt_regs *ctx, struct arguments *a)
{
	a->values[0] = PT_REGS_PARM1(ctx);
	a->values[1] = PT_REGS_PARM2(ctx);
	a->values[2] = PT_REGS_PARM3(ctx);
	a->values[3] = PT_REGS_PARM4(ctx);
	a->values[4] = PT_REGS_PARM5(ctx);
	a->values[5] = 0;
	a->values[6] = 0;
	a->values[SPEC_NO_ARG] = 0;
}

static __always_inline __u64 argument(const struct arguments *a, __u32 n)
{
	return a->values[n & 7];
}

static __always_inline __u64 requested_bytes(const struct arguments *a,
					     const struct probe_spec *spec)
{
	__u64 size = argument(a, spec->size_arg);
	__u64 count, product;

	if (spec->count_arg == SPEC_NO_ARG)
		return size;
	count = argument(a, spec->count_arg);
	product = size * count;
	barrier_var(product); /* or clang sees a 128-bit product, which BPF has not */
	/* The function will fail on an overflow; what matters is that it is not zero. */
	return size && product / size != count ? ~0ull : product;
}

static __always_inline __u64 program_break(void)
{
	struct task_struct *task = bpf_get_current_task_btf();

	return BPF_CORE_READ(task, mm, brk);
}

/* Whether @c is still under way, asked from a place deeper on the stack: the
 * kernel has put the address of its trampoline where the return address was. */
static __always_inline bool call_is_alive(const struct call *c)
{
#if defined(__TARGET_ARCH_x86)
	struct task_struct *task = bpf_get_current_task_btf();
	__u64 trampoline = BPF_CORE_READ(task, mm, uprobes_state.xol_area, vaddr);
	__u64 now = 0;

	if (bpf_probe_read_user(&now, sizeof(now), (void *)c->slot_sp))
		return false;
	return now == trampoline;
#else
	return true;
#endif
}

/* Drops calls that cannot be under way any more; true if one is that encloses
 * @slot_sp. One at the very same place went on to the present function by a jump. */
static __always_inline bool call_is_nested(struct task_state *task, __u64 slot_sp)
{
	for (int i = CALLS_MAX - 1; i >= 0; i--) {
		struct call *c = &task->calls[i];

		if ((__u32)i >= task->depth)
			continue;
		if (c->slot_sp >= slot_sp) {
			if (call_is_alive(c))
				return true;
			task->depth = i;
		} else if (slot_sp - c->slot_sp < SAME_STACK_BYTES) {
			task->depth = i;
		}
	}
	return false;
}

/* Records a call that will return; NULL if it is nested or of no interest. */
static __always_inline struct call *call_begin(struct pt_regs *ctx, struct task_state *task,
					       __u64 cookie)
{
	__u64 slot_sp = RETURN_SLOT_AT_ENTRY(ctx);
	struct call *c;
	__u32 depth;

	if (task->depth && call_is_nested(task, slot_sp))
		return NULL;
	depth = task->depth;
	if (depth >= CALLS_MAX) {
		count(COUNT_ALLOC_LOST);
		return NULL;
	}
	c = &task->calls[depth & (CALLS_MAX - 1)];
	c->slot_sp = slot_sp;
	c->spec = cookie;
	c->has_old = 0;
	c->sampled = 0;
	task->depth = depth + 1;
	return c;
}

static __always_inline void call_drop(struct task_state *task)
{
	task->depth--;
}

/*
 * Whether operator new may fail and throw. An unwinder that meets the kernel's
 * trampoline in place of a return address gives up and ends the program, so
 * such a call must not be given a return probe (bpf/guard.bpf.c is the better
 * remedy, where the kernel allows it). Without a limit on the address space a
 * request fails only if it is huge.
 */
#define THROWING_BYTES (64u << 20)
#define RLIMIT_DATA 2 /* include/uapi/asm-generic/resource.h */
#define RLIMIT_AS 9
#define RLIM_INFINITY (~0ull)

static __always_inline bool call_may_throw(__u64 size_bytes)
{
	struct task_struct *task = bpf_get_current_task_btf();

	return overcommit_never || size_bytes >= THROWING_BYTES ||
	       BPF_CORE_READ(task, signal, rlim[RLIMIT_AS].rlim_cur) != RLIM_INFINITY ||
	       BPF_CORE_READ(task, signal, rlim[RLIMIT_DATA].rlim_cur) != RLIM_INFINITY;
}

/* Fills in a call of an allocation; false if it is outside of -z and -Z, or not sampled. */
static __always_inline bool begin_alloc(struct pt_regs *ctx, const struct probe_spec *spec,
					struct call *c, struct task_state *task)
{
	struct arguments a;

	arguments_read(ctx, &a);
	c->size_bytes = requested_bytes(&a, spec);
	c->pointer = argument(&a, spec->ptr_arg);
	if (spec->throws && call_may_throw(c->size_bytes))
		return false;
	if (c->size_bytes < size_min_bytes || c->size_bytes > size_max_bytes)
		return false;
	c->sampled = sample(task, c, PT_REGS_IP(ctx));
	return c->sampled;
}

/*
 * The old block leaves the live set now: once realloc has freed it, another
 * thread may be given its address before this call returns.
 */
static __always_inline bool begin_realloc(struct pt_regs *ctx, const struct probe_spec *spec,
					  struct call *c, struct task_state *task)
{
	bool wanted = begin_alloc(ctx, spec, c, task);

	if (c->pointer)
		c->has_old = live_take(task->slot, c->pointer, &c->old);
	return wanted || c->has_old;
}

static __always_inline bool begin_mapping(struct pt_regs *ctx, const struct probe_spec *spec,
					  struct call *c)
{
	c->begin_ns = bpf_ktime_get_ns();
	if (spec->op == OP_BRK) {
		c->pointer = program_break();
		return true;
	}
	c->pointer = PT_REGS_PARM1(ctx);
	c->size_bytes = PT_REGS_PARM2(ctx);
	c->new_bytes = PT_REGS_PARM3(ctx);
	return spec->op != OP_MMAP || (PT_REGS_PARM4(ctx) & MAP_ANONYMOUS);
}

/* The current thread's state, if it belongs to a target. */
static __always_inline struct task_state *target_task(__u32 *tgid)
{
	struct task_state *task;

	*tgid = bpf_get_current_pid_tgid() >> 32;
	if (*tgid == self_tgid)
		return NULL;
	task = bpf_task_storage_get(&tasks, bpf_get_current_task_btf(), 0,
				    BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!task) {
		count(COUNT_ALLOC_LOST);
		return NULL;
	}
	return task_slot(task, *tgid) ? task : NULL;
}

/* 0: it is to be told when the call returns; NO_RETURN: not. */
static __always_inline int enter_call(struct pt_regs *ctx, struct task_state *task, __u64 cookie)
{
	struct probe_spec spec;
	struct call *c;
	bool wanted;

	probe_spec_unpack(cookie, &spec);
	c = call_begin(ctx, task, cookie);
	if (!c)
		return NO_RETURN;
	switch (spec.op) {
	case OP_ALLOC:
	case OP_ALLOC_OUT:
		wanted = begin_alloc(ctx, &spec, c, task);
		break;
	case OP_REALLOC:
		wanted = begin_realloc(ctx, &spec, c, task);
		break;
	default:
		wanted = begin_mapping(ctx, &spec, c);
	}
	if (!wanted) {
		call_drop(task);
		return NO_RETURN;
	}
	cost_return(task, cookie);
	return 0;
}

static __always_inline int enter(struct pt_regs *ctx)
{
	__u64 cookie = bpf_get_attach_cookie(ctx), begin_ns;
	struct task_state *task;
	__u32 tgid;
	int result;

	task = target_task(&tgid);
	if (!task)
		return NO_RETURN;
	count(COUNT_HITS);
	begin_ns = cost_hit(task, cookie);
	result = enter_call(ctx, task, cookie);
	cost_end(task, begin_ns);
	return result;
}

/* Finds the call that just returned and takes it, and all above it, off the list. */
static __always_inline struct call *call_end(struct pt_regs *ctx, struct task_state *task)
{
	__u64 slot_sp = RETURN_SLOT_AFTER(ctx);

	for (int i = CALLS_MAX - 1; i >= 0; i--) {
		if ((__u32)i >= task->depth || task->calls[i].slot_sp != slot_sp)
			continue;
		task->depth = i;
		return &task->calls[i];
	}
	return NULL;
}

static __always_inline void finish_alloc(struct pt_regs *ctx, struct task_state *task, __u32 tgid,
					 const struct call *c, __u64 address, __u32 domain)
{
	struct live_block block = {};

	if (!c->sampled)
		return;
	if (address & ~LIVE_ADDR_MASK) {
		count(COUNT_ALLOC_LOST);
		return;
	}
	block.size_bytes = c->size_bytes;
	block.birth_ns = bpf_ktime_get_ns();
	if (domain == DOMAIN_PYMALLOC)
		task->fresh_block = address;
	block.domain = domain;
	block.rate = c->rate;
	block.duty = c->duty;
	block.stack_id = stack_id_of(ctx, task, tgid, domain, false);
	stack_count_alloc(&block);
	live_put(task->slot, address, &block);
	cost_record(task, block.birth_ns);
}

/* realloc failed, and left the old block alone, if it returned NULL for a size. */
static __always_inline void finish_realloc(struct pt_regs *ctx, struct task_state *task, __u32 tgid,
					   const struct call *c, __u32 domain)
{
	__u64 address = PT_REGS_RC(ctx);

	if (c->has_old && !address && c->size_bytes) {
		live_put(task->slot, c->pointer, &c->old);
		return;
	}
	if (c->has_old)
		stack_count_free(&c->old);
	if (address)
		finish_alloc(ctx, task, tgid, c, address, domain);
}

/* Works out which ranges went and came; false if nothing changed. */
static __always_inline bool mapping_result(struct pt_regs *ctx, const struct call *c, __u32 op,
					   struct event_mapping *m)
{
	__u64 rc = PT_REGS_RC(ctx), now;

	switch (op) {
	case OP_MMAP:
		m->new_address = rc;
		m->new_length = c->size_bytes;
		return !ERROR_POINTER(rc);
	case OP_MUNMAP:
		m->old_address = c->pointer;
		m->old_length = c->size_bytes;
		return rc == 0;
	case OP_MREMAP:
		m->old_address = c->pointer;
		m->old_length = c->size_bytes;
		m->new_address = rc;
		m->new_length = c->new_bytes;
		m->moves = 1;
		return !ERROR_POINTER(rc);
	default:
		now = program_break();
		if (now > c->pointer) {
			m->new_address = c->pointer;
			m->new_length = now - c->pointer;
		} else {
			m->old_address = now;
			m->old_length = c->pointer - now;
		}
		return now != c->pointer;
	}
}

static __always_inline void finish_mapping(struct pt_regs *ctx, struct task_state *task, __u32 tgid,
					   const struct call *c, __u32 op)
{
	struct event_mapping m = {};

	if (!mapping_result(ctx, c, op, &m))
		return;
	if (m.new_length)
		m.stack_id = stack_id_of(ctx, task, tgid, DOMAIN_MMAP, false);
	event_init(&m.head, EVENT_MAPPING, task->slot, tgid);
	m.begin_ns = c->begin_ns;
	if (bpf_ringbuf_output(&ring, &m, sizeof(m), 0)) {
		count(COUNT_RING_FULL);
		count(m.new_length ? COUNT_ALLOC_LOST : COUNT_FREE_LOST);
	}
}

static __always_inline void leave(struct pt_regs *ctx)
{
	struct probe_spec spec;
	struct task_state *task;
	struct call *c;
	__u64 address;
	__u32 tgid;

	task = target_task(&tgid);
	if (!task)
		return;
	c = call_end(ctx, task);
	if (!c)
		return;
	probe_spec_unpack(c->spec, &spec);
	switch (spec.op) {
	case OP_ALLOC:
		address = PT_REGS_RC(ctx);
		if (address)
			finish_alloc(ctx, task, tgid, c, address, spec.domain);
		break;
	case OP_ALLOC_OUT:
		if (PT_REGS_RC(ctx) == 0 &&
		    !bpf_probe_read_user(&address, sizeof(address), (void *)c->pointer) && address)
			finish_alloc(ctx, task, tgid, c, address, spec.domain);
		break;
	case OP_REALLOC:
		finish_realloc(ctx, task, tgid, c, spec.domain);
		break;
	default:
		finish_mapping(ctx, task, tgid, c, spec.op);
	}
}

/*
 * Session probes (uprobe.session, Linux 6.13): one program at both ends, and
 * the entry decides whether there is a return trap at all. Which end this is
 * shows in the instruction pointer, which differs from the probed address only
 * after the return; so no kfunc is needed, whose signature changed in 7.0.
 */
SEC("uprobe")
int session(struct pt_regs *ctx)
{
	USE_THREAD_STACK(ctx, no_session);
	if (PT_REGS_IP(ctx) == bpf_get_func_ip(ctx))
		return enter(ctx);
	leave(ctx);
	return 0;
}

/* The same as two programs, where there are no sessions. */
SEC("uprobe")
int call_entry(struct pt_regs *ctx)
{
	USE_THREAD_STACK(ctx, no_probe);
	enter(ctx);
	return 0;
}

SEC("uretprobe")
int call_return(struct pt_regs *ctx)
{
	USE_THREAD_STACK(ctx, no_probe);
	leave(ctx);
	return 0;
}

/* A free must not fail for want of a thread's state, which it does not need: a
 * thread that never allocated has none, and it is not always to be had. */
static __always_inline __u32 slot_of_free(const struct task_state *task, __u32 tgid)
{
	struct proc_info *info;

	if (task && task->slot)
		return task->slot;
	info = bpf_map_lookup_elem(&procs, &tgid);
	return info ? info->slot : 0;
}

static __always_inline __u64 free_cost(struct task_state *task, __u32 slot, __u64 cookie)
{
	if (task && task->slot)
		return cost_hit(task, cookie);
	costs_add(slot, 1, hit_ns[cookie >> 25 & (SPEC_INSNS - 1)], 0);
	return 0;
}

/* free and its kin: the block leaves the live set before its address can be reused. */
SEC("uprobe")
int free_entry(struct pt_regs *ctx)
{
	__u64 cookie = bpf_get_attach_cookie(ctx);
	struct task_state *task;
	struct live_block block = {};
	struct probe_spec spec;
	struct arguments a;
	__u64 address, begin_ns;
	__u32 tgid, slot;

	USE_THREAD_STACK(ctx, no_probe);
	tgid = bpf_get_current_pid_tgid() >> 32;
	task = bpf_task_storage_get(&tasks, bpf_get_current_task_btf(), 0, 0);
	slot = slot_of_free(task, tgid);
	if (!slot)
		return 0;
	count(COUNT_HITS);
	begin_ns = free_cost(task, slot, cookie);
	probe_spec_unpack(cookie, &spec);
	arguments_read(ctx, &a);
	address = argument(&a, spec.ptr_arg);
	if (spec.op == OP_CODE_FREE)
		code_died(slot, address);
	else if (address && live_take(slot, address, &block))
		stack_count_free(&block);
	cost_end(task, begin_ns);
	return 0;
}

/*
 * CPython's reference tracer (3.13 on; Include/cpython/object.h, PyRefTracer). Blocks are
 * known from the allocator. What is learned here is that one which never went back to it
 * has become another object: it lay in a freelist, and now belongs to this stack.
 */
#define REF_TRACER_CREATE 0
/* What may lie before an object in its block: GC head and pre-header of two words each
 * (Include/internal/pycore_object.h). */
#define PYTHON_HEAD_BYTES 16
#define PYTHON_HEADS 3

static __always_inline bool take_object(__u32 slot, __u64 object, __u64 *address,
					struct live_block *block)
{
	for (int i = 0; i < PYTHON_HEADS; i++) {
		/* Nearly all that have a freelist have a GC head. */
		*address = object - PYTHON_HEAD_BYTES * (i == 0 ? 1 : i == 1 ? 0 : 2);
		if (live_take(slot, *address, block))
			return true;
	}
	return false;
}

SEC("uprobe")
int object_entry(struct pt_regs *ctx)
{
	struct live_block block = {};
	struct task_state *task;
	__u64 object, address;
	__u32 tgid;

	USE_THREAD_STACK(ctx, no_probe);
	task = target_task(&tgid);
	if (!task)
		return 0;
	count(COUNT_HITS);
	cost_hit(task, bpf_get_attach_cookie(ctx));
	if (PT_REGS_PARM2(ctx) != REF_TRACER_CREATE)
		return 0;
	object = PT_REGS_PARM1(ctx);
	if (object - task->fresh_block < PYTHON_HEADS * PYTHON_HEAD_BYTES) {
		task->fresh_block = 0;
		return 0;
	}
	if (!take_object(task->slot, object, &address, &block))
		return 0;
	stack_count_free(&block);
	block.birth_ns = bpf_ktime_get_ns();
	block.stack_id = stack_id_of(ctx, task, tgid, DOMAIN_PYMALLOC, true);
	block.domain = DOMAIN_PYMALLOC;
	stack_count_alloc(&block);
	live_put(task->slot, address, &block);
	cost_record(task, block.birth_ns);
	return 0;
}

#define SIGSTOP 19

/* What it holds is seen once more while it is there. */
static __always_inline void python_ends(__u32 slot, __u32 tgid)
{
	if (stop_at_end_tgid != tgid)
		return;
	stop_at_end_tgid = 0;
	process_event(EVENT_PYTHON_END, slot, tgid, 0);
	bpf_send_signal(SIGSTOP);
}

/* The dynamic linker tells its debugger that libraries came or went. */
SEC("uprobe")
int dlopen_hook(struct pt_regs *ctx)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct proc_info *info = bpf_map_lookup_elem(&procs, &tgid);
	struct unwind_mappings *space;

	USE_THREAD_STACK(ctx, no_probe);
	if (!info)
		return 0;
	if ((bpf_get_attach_cookie(ctx) & 15) == OP_PYTHON_END) {
		python_ends(info->slot, tgid);
		return 0;
	}
	if (stop_at_dlopen_tgid == tgid) {
		stop_at_dlopen_tgid = 0;
		bpf_send_signal(SIGSTOP); /* leaktop is the tracer of its own command */
	}
	space = bpf_map_lookup_elem(&unwind_spaces, &info->slot);
	if (space) {
		/* From now on until the loader has looked. What is cached may be of
		 * something that is gone. */
		space->generation += UNWIND_GENERATION_STALE;
		space->stale = 1;
	}
	process_event(EVENT_DLOPEN, info->slot, tgid,
		      __sync_fetch_and_add(&info->link_changes, 1) + 1);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
