/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "bpf/kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "base/log.h"
#include "base/sampling_tables.h"
#include "guard.skel.h"
#include "leaktop.skel.h"

#define EVENTS_A_DRAIN 4096
#define FAILURES_MAX 8192 /* read at a time */

/* As in bpf/maps.bpf.h. */
struct proc_info {
	uint32_t slot, link_changes;
};

#define SLOTS (LIVE_PROC_MAX + 1)

struct kernel {
	struct leaktop_bpf *skel;
	struct guard_bpf *guard; /* NULL until it is needed */
	int guard_error;
	enum probe_method method;
	struct ring_buffer *ring;
	struct live_bucket *buckets; /* shared with the BPF programs */
	size_t bucket_count;
	struct process_sampling *samplings; /* by slot; shared, as is what follows */
	struct process_costs *costs;
	struct stack_counters *stacks;
	size_t stack_count;
	struct sampling_tables tables;
	uint16_t new_rate;
	int cpu_count;
	void (*on_event)(void *arg, const struct event *e, size_t size); /* while draining */
	void *on_event_arg;
	int event_budget;
};

static uint64_t round_up_pow2(uint64_t v)
{
	uint64_t p = 1;

	while (p < v && p < 1ull << 62)
		p <<= 1;
	return p;
}

/* The table fills to 70 per cent before a block can find no place (see
 * live_table.h): half as many slots again keep the promise of @max_blocks. */
static size_t buckets_for(uint64_t max_blocks)
{
	uint64_t slots = max_blocks + max_blocks / 2;

	return (slots + LIVE_SLOTS - 1) / LIVE_SLOTS;
}

static void choose_programs(struct leaktop_bpf *skel, const struct kernel_options *o)
{
	int plain = o->method == METHOD_PERF ? 0 : ATTACH_UPROBE_MULTI;
	bool session = o->method == METHOD_SESSION;

	bpf_program__set_autoload(skel->progs.session, session);
	bpf_program__set_autoload(skel->progs.call_entry, !session);
	bpf_program__set_autoload(skel->progs.call_return, !session);
	bpf_program__set_autoload(skel->progs.on_cgroup_attach, o->watch_execs);
	if (session)
		bpf_program__set_expected_attach_type(skel->progs.session,
						      (enum bpf_attach_type)ATTACH_UPROBE_SESSION);
	if (plain) {
		enum bpf_attach_type type = (enum bpf_attach_type)plain;

		bpf_program__set_expected_attach_type(skel->progs.call_entry, type);
		bpf_program__set_expected_attach_type(skel->progs.call_return, type);
		bpf_program__set_expected_attach_type(skel->progs.free_entry, type);
		bpf_program__set_expected_attach_type(skel->progs.dlopen_hook, type);
		bpf_program__set_expected_attach_type(skel->progs.object_entry, type);
	}
}

/* Documentation/mm/overcommit-accounting.rst */
static bool overcommit_is_never(void)
{
	int fd = open("/proc/sys/vm/overcommit_memory", O_RDONLY | O_CLOEXEC);
	char mode = '2'; /* unknown: the safe answer */

	if (fd < 0 || read(fd, &mode, 1) != 1)
		mode = '2';
	if (fd >= 0)
		close(fd);
	return mode == '2';
}

static int configure(struct kernel *k, const struct kernel_options *o)
{
	struct leaktop_bpf *skel = k->skel;
	uint64_t ring = round_up_pow2(o->ring_bytes);
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	int err;

	skel->rodata->self_tgid = (uint32_t)getpid();
	skel->rodata->bucket_count = (uint32_t)k->bucket_count;
	skel->rodata->size_min_bytes = o->size_min_bytes;
	skel->rodata->size_max_bytes = o->size_max_bytes;
	skel->rodata->want_stacks = o->stacks;
	skel->rodata->adopt_all = o->all;
	skel->rodata->watch_execs = o->watch_execs;
	skel->rodata->follow_forks = o->follow_forks;
	sampling_tables_fill(&k->tables);
	memcpy((void *)&skel->rodata->sampling_tables_data, &k->tables, sizeof(k->tables));
	/* For tests: what is remembered of stacks is compared with what they are. */
	skel->rodata->check_outer = getenv("LEAKTOP_CHECK_STACKS");
	skel->rodata->overcommit_never = overcommit_is_never();
	err = bpf_map__set_max_entries(skel->maps.live, (uint32_t)k->bucket_count);
	if (!err)
		err = bpf_map__set_max_entries(skel->maps.ring,
					       (uint32_t)(ring < page ? page : ring));
	choose_programs(skel, o);
	return err;
}

static int map_shared(struct bpf_map *map, size_t bytes, void **out)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	void *p = mmap(NULL, (bytes + page - 1) / page * page, PROT_READ | PROT_WRITE, MAP_SHARED,
		       bpf_map__fd(map), 0);

	if (p == MAP_FAILED)
		return -errno;
	*out = p;
	return 0;
}

static int dispatch(void *arg, void *data, size_t size)
{
	static const size_t smallest[] = {
		[EVENT_STACK] = offsetof(struct event_stack, frames),
		[EVENT_MAPPING] = sizeof(struct event_mapping),
		[EVENT_CODE] = sizeof(struct event_code),
	};
	struct kernel *k = arg;
	const struct event *e = data;

	if (size < sizeof(*e))
		return 0;
	if (e->kind < sizeof(smallest) / sizeof(smallest[0]) && size < smallest[e->kind])
		return 0;
	k->on_event(k->on_event_arg, e, size);
	return --k->event_budget > 0 ? 0 : -ECANCELED;
}

static int map_all(struct kernel *k)
{
	struct leaktop_bpf *skel = k->skel;
	int err;

	err = map_shared(skel->maps.live, k->bucket_count * sizeof(*k->buckets),
			 (void **)&k->buckets);
	if (err)
		return err;
	k->stack_count = bpf_map__max_entries(skel->maps.stack_counts);
	err = map_shared(skel->maps.process_samplings, SLOTS * sizeof(*k->samplings),
			 (void **)&k->samplings);
	if (!err)
		err = map_shared(skel->maps.costs, SLOTS * sizeof(*k->costs), (void **)&k->costs);
	if (err)
		return err;
	err = map_shared(skel->maps.stack_counts, k->stack_count * sizeof(*k->stacks),
			 (void **)&k->stacks);
	if (err)
		return err;
	for (uint32_t i = 0; i < SLOTS && k->new_rate; i++)
		k->samplings[i].rate = k->new_rate;
	k->ring = ring_buffer__new(bpf_map__fd(skel->maps.ring), dispatch, k, NULL);
	return k->ring ? 0 : -errno;
}

static int attach_tracepoints(struct kernel *k, const struct kernel_options *o)
{
	struct leaktop_bpf *skel = k->skel;

	skel->links.on_fork = bpf_program__attach(skel->progs.on_fork);
	skel->links.on_exec = bpf_program__attach(skel->progs.on_exec);
	skel->links.on_exit = bpf_program__attach(skel->progs.on_exit);
	if (!skel->links.on_fork || !skel->links.on_exec || !skel->links.on_exit)
		return -errno;
	if (!o->watch_execs)
		return 0;
	skel->links.on_cgroup_attach = bpf_program__attach(skel->progs.on_cgroup_attach);
	if (!skel->links.on_cgroup_attach)
		log_debug("no tracepoint cgroup_attach_task: moves are found by polling");
	return 0;
}

static void explain(int err)
{
	if (err == -EPERM || err == -EACCES)
		log_error("cannot load BPF programs: %s; run as root, or with CAP_BPF, CAP_PERFMON "
			  "and CAP_SYS_ADMIN",
			  strerror(-err));
	else if (err == -ENOMEM || err == -E2BIG)
		log_error("cannot allocate the live table: %s; lower --max-blocks", strerror(-err));
	else if (access("/sys/kernel/btf/vmlinux", R_OK))
		log_error("this kernel has no BTF (/sys/kernel/btf/vmlinux); leaktop needs a "
			  "kernel built with CONFIG_DEBUG_INFO_BTF");
	else
		log_error("cannot load BPF programs: %s; 'leaktop doctor' tells what this kernel "
			  "lacks, -vv shows the verifier's words",
			  strerror(-err));
}

int kernel_open(const struct kernel_options *o, struct kernel **out)
{
	struct kernel *k = calloc(1, sizeof(*k));
	int err;

	if (!k)
		return -ENOMEM;
	k->bucket_count = buckets_for(o->max_blocks);
	k->method = o->method;
	k->new_rate = (uint16_t)o->sampling_rate;
	k->cpu_count = libbpf_num_possible_cpus();
	k->skel = leaktop_bpf__open();
	err = k->skel ? configure(k, o) : -errno;
	if (!err)
		err = leaktop_bpf__load(k->skel);
	if (!err)
		err = map_all(k);
	if (!err)
		err = attach_tracepoints(k, o);
	if (err) {
		explain(err);
		kernel_close(k);
		return err;
	}
	*out = k;
	return 0;
}

void kernel_close(struct kernel *k)
{
	if (!k)
		return;
	ring_buffer__free(k->ring);
	if (k->buckets)
		munmap(k->buckets, k->bucket_count * sizeof(*k->buckets));
	if (k->stacks)
		munmap(k->stacks, k->stack_count * sizeof(*k->stacks));
	if (k->samplings)
		munmap(k->samplings, SLOTS * sizeof(*k->samplings));
	if (k->costs)
		munmap(k->costs, SLOTS * sizeof(*k->costs));
	guard_bpf__destroy(k->guard);
	leaktop_bpf__destroy(k->skel);
	free(k);
}

struct bpf_program *kernel_program(const struct kernel *k, enum kernel_program which)
{
	switch (which) {
	case PROGRAM_SESSION:
		return k->skel->progs.session;
	case PROGRAM_ENTRY:
		return k->skel->progs.call_entry;
	case PROGRAM_RETURN:
		return k->skel->progs.call_return;
	case PROGRAM_FREE:
		return k->skel->progs.free_entry;
	case PROGRAM_OBJECT:
		return k->skel->progs.object_entry;
	case PROGRAM_GUARD:
		return k->guard ? k->guard->progs.unwind_guard : NULL;
	default:
		return k->skel->progs.dlopen_hook;
	}
}

int kernel_guard_load(struct kernel *k)
{
	struct guard_bpf *guard;

	if (k->guard || k->guard_error)
		return k->guard_error;
	guard = guard_bpf__open();
	if (!guard)
		return k->guard_error = -errno;
	if (k->method != METHOD_PERF)
		bpf_program__set_expected_attach_type(guard->progs.unwind_guard,
						      (enum bpf_attach_type)ATTACH_UPROBE_MULTI);
	k->guard_error = guard_bpf__load(guard);
	if (k->guard_error)
		guard_bpf__destroy(guard);
	else
		k->guard = guard;
	return k->guard_error;
}

int kernel_map_fd(const struct kernel *k, enum kernel_map which)
{
	switch (which) {
	case MAP_UNWIND_RULES:
		return bpf_map__fd(k->skel->maps.unwind_rules);
	case MAP_UNWIND_TABLES:
		return bpf_map__fd(k->skel->maps.unwind_tables);
	case MAP_UNWIND_CODE:
		return bpf_map__fd(k->skel->maps.unwind_code);
	case MAP_UNWIND_USED:
		return bpf_map__fd(k->skel->maps.unwind_used);
	default:
		return bpf_map__fd(k->skel->maps.unwind_spaces);
	}
}

int kernel_python_set(struct kernel *k, uint32_t slot, const struct python_walk *walk)
{
	struct python_walk w = *walk;

	w.serial = __atomic_fetch_add(&k->skel->data->next_python_serial, 1, __ATOMIC_SEQ_CST);
	if (bpf_map_update_elem(bpf_map__fd(k->skel->maps.python_walks), &slot, &w, BPF_ANY))
		return -errno;
	k->skel->bss->want_python = true;
	return 0;
}

int kernel_event_fd(const struct kernel *k)
{
	return ring_buffer__epoll_fd(k->ring);
}

bool kernel_drain(struct kernel *k, void (*fn)(void *arg, const struct event *e, size_t size),
		  void *arg)
{
	k->on_event = fn;
	k->on_event_arg = arg;
	k->event_budget = EVENTS_A_DRAIN;
	return ring_buffer__consume(k->ring) == -ECANCELED;
}

int kernel_process_add(struct kernel *k, pid_t tgid, uint32_t *slot)
{
	uint32_t key = (uint32_t)tgid;
	struct proc_info info = {0};
	int queue = bpf_map__fd(k->skel->maps.free_slots);

	if (bpf_map_lookup_and_delete_elem(queue, NULL, &info.slot))
		info.slot = __atomic_fetch_add(&k->skel->data->next_slot, 1, __ATOMIC_SEQ_CST);
	if (info.slot >= LIVE_PROC_MAX)
		return -ENOSPC;
	if (bpf_map_update_elem(bpf_map__fd(k->skel->maps.procs), &key, &info, BPF_NOEXIST)) {
		int err = -errno;

		kernel_slot_release(k, info.slot);
		info.slot = err == -EEXIST ? kernel_process_slot(k, tgid) : 0;
		if (!info.slot)
			return err == -E2BIG ? -ENOSPC : err;
	}
	*slot = info.slot;
	return 0;
}

uint32_t kernel_link_changes(const struct kernel *k, pid_t tgid)
{
	uint32_t key = (uint32_t)tgid;
	struct proc_info info;

	if (bpf_map_lookup_elem(bpf_map__fd(k->skel->maps.procs), &key, &info))
		return 0;
	return info.link_changes;
}

uint32_t kernel_process_slot(const struct kernel *k, pid_t tgid)
{
	uint32_t key = (uint32_t)tgid;
	struct proc_info info;

	if (bpf_map_lookup_elem(bpf_map__fd(k->skel->maps.procs), &key, &info))
		return 0;
	return info.slot;
}

void kernel_process_remove(struct kernel *k, pid_t tgid, uint32_t slot)
{
	int fd = bpf_map__fd(k->skel->maps.procs);
	uint32_t key = (uint32_t)tgid;
	struct proc_info info;

	if (!bpf_map_lookup_elem(fd, &key, &info) && info.slot == slot)
		bpf_map_delete_elem(fd, &key);
}

void kernel_slot_release(struct kernel *k, uint32_t slot)
{
	if (slot < SLOTS) {
		k->samplings[slot] = (struct process_sampling){.rate = k->new_rate};
		memset(&k->costs[slot], 0, sizeof(k->costs[slot]));
	}
	bpf_map_delete_elem(bpf_map__fd(k->skel->maps.python_walks), &slot);
	bpf_map_update_elem(bpf_map__fd(k->skel->maps.free_slots), NULL, &slot, BPF_ANY);
}

void kernel_stack_retire(struct kernel *k, uint32_t stack_id, uint32_t slot, uint64_t hash,
			 uint32_t domain)
{
	struct {
		uint64_t hash;
		uint32_t slot, domain;
	} key = {hash, slot, domain};
	int table = bpf_map__fd(k->skel->maps.stack_table);
	uint32_t known;

	if (!bpf_map_lookup_elem(table, &key, &known) && known == stack_id)
		bpf_map_delete_elem(table, &key);
	__atomic_add_fetch(&k->skel->data->stack_generation, 1, __ATOMIC_SEQ_CST);
}

void kernel_stack_release(struct kernel *k, uint32_t stack_id, uint32_t slot, uint64_t hash,
			  uint32_t domain)
{
	kernel_stack_retire(k, stack_id, slot, hash, domain);
	memset(&k->stacks[stack_id], 0, sizeof(k->stacks[stack_id]));
	bpf_map_update_elem(bpf_map__fd(k->skel->maps.free_stack_ids), NULL, &stack_id, BPF_ANY);
}

/* True and the block if the slot held still while it was read. */
static bool slot_read(struct live_bucket *b, int i, struct live_entry *out, __u64 *key)
{
	*key = __atomic_load_n(&b->keys[i], __ATOMIC_ACQUIRE);
	if (*key == LIVE_KEY_EMPTY || *key == LIVE_KEY_BUSY)
		return false;
	memcpy(&out->block, &b->blocks[i], sizeof(out->block));
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	out->slot = live_key_proc(*key);
	out->address = live_key_address(*key);
	return __atomic_load_n(&b->keys[i], __ATOMIC_ACQUIRE) == *key;
}

void kernel_sweep(struct kernel *k, bool (*fn)(void *arg, const struct live_entry *e), void *arg)
{
	struct live_entry entry;
	__u64 key;

	for (size_t b = 0; b < k->bucket_count; b++) {
		for (int i = 0; i < LIVE_SLOTS; i++) {
			if (!slot_read(&k->buckets[b], i, &entry, &key) || fn(arg, &entry))
				continue;
			__atomic_compare_exchange_n(&k->buckets[b].keys[i], &key, LIVE_KEY_EMPTY,
						    false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
		}
	}
}

void kernel_take_failures(struct kernel *k,
			  void (*fn)(void *arg, const struct unwind_failure *f, uint64_t count),
			  void *arg)
{
	int fd = bpf_map__fd(k->skel->maps.unwind_failures);
	struct unwind_failure key;
	uint64_t count;

	/* What is counted while we take comes next time. */
	for (int i = 0; i < FAILURES_MAX && !bpf_map_get_next_key(fd, NULL, &key); i++) {
		if (bpf_map_lookup_elem(fd, &key, &count))
			count = 0;
		bpf_map_delete_elem(fd, &key);
		if (count)
			fn(arg, &key, count);
	}
}

void kernel_sampling_set(struct kernel *k, uint32_t slot, struct process_sampling s)
{
	if (slot < SLOTS)
		k->samplings[slot] = s;
}

struct process_sampling kernel_sampling(const struct kernel *k, uint32_t slot)
{
	return slot < SLOTS ? k->samplings[slot] : (struct process_sampling){0};
}

struct process_costs kernel_costs(const struct kernel *k, uint32_t slot)
{
	return slot < SLOTS ? k->costs[slot] : (struct process_costs){0};
}

void kernel_hit_costs_set(struct kernel *k, const uint32_t hit_ns[SPEC_INSNS],
			  const uint32_t return_ns[SPEC_INSNS])
{
	memcpy(k->skel->bss->hit_ns, hit_ns, SPEC_INSNS * sizeof(*hit_ns));
	memcpy(k->skel->bss->return_ns, return_ns, SPEC_INSNS * sizeof(*return_ns));
}

const struct sampling_tables *kernel_sampling_tables(const struct kernel *k)
{
	return &k->tables;
}

struct stack_counters kernel_stack_counters(const struct kernel *k, uint32_t stack_id)
{
	struct stack_counters none = {0};

	return stack_id < k->stack_count ? k->stacks[stack_id] : none;
}

void kernel_counters(const struct kernel *k, uint64_t out[COUNTERS])
{
	uint64_t per_cpu[COUNTERS];
	uint64_t *values = calloc((size_t)k->cpu_count, sizeof(per_cpu));
	uint32_t zero = 0;

	memset(out, 0, COUNTERS * sizeof(*out));
	if (values && !bpf_map_lookup_elem(bpf_map__fd(k->skel->maps.counts), &zero, values)) {
		for (int cpu = 0; cpu < k->cpu_count; cpu++)
			for (int i = 0; i < COUNTERS; i++)
				out[i] += values[cpu * COUNTERS + i];
	}
	free(values);
}

uint64_t kernel_table_bytes(const struct kernel *k)
{
	return k->bucket_count * sizeof(*k->buckets);
}

void kernel_stop_at_dlopen(struct kernel *k, pid_t tgid)
{
	__atomic_store_n(&k->skel->bss->stop_at_dlopen_tgid, (uint32_t)tgid, __ATOMIC_SEQ_CST);
}

void kernel_stop_at_end(struct kernel *k, pid_t tgid)
{
	__atomic_store_n(&k->skel->bss->stop_at_end_tgid, (uint32_t)tgid, __ATOMIC_SEQ_CST);
}
