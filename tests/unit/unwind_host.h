/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The BPF unwinder compiled for the host, with stack_capture() around it: maps
 * are told apart by their addresses, as in the kernel, and the process' memory is
 * what a test says. Reads outside of that fail. What the programs get from a map
 * is a block of its own wherever the kernel checks no index, so that the address
 * sanitizer sees what goes beyond.
 */
#ifndef LEAKTOP_UNWIND_HOST_H
#define LEAKTOP_UNWIND_HOST_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "vmlinux.h"

#define __TARGET_ARCH_x86
/* libbpf's headers declare helpers for the kernel; these are ours. */
#define __BPF_HELPERS__
#define __BPF_CORE_READ_H__
#define __BPF_TRACING_H__
#define LEAKTOP_PROCESS_BPF_H

#define barrier_var(v) __asm__ volatile("" : "+r"(v))
#define SEC(name)
#define __uint(name, value) int(*name)[value]
#define __type(name, value) __typeof__(value) *name
#define __array(name, value) __typeof__(value) *name[1]
#undef __always_inline
#define __always_inline inline __attribute__((always_inline))
#define __noinline __attribute__((noinline, unused))

static inline void *bpf_map_lookup_elem(void *map, const void *key);
static inline long bpf_probe_read_user(void *to, __u32 bytes, const void *from);

static inline long bpf_map_update_elem(void *map, const void *key, const void *value, __u64 flags)
{
	(void)map, (void)key, (void)value, (void)flags;
	return 0;
}

/* The kernel's list of mappings: nothing is on it. */
static inline long bpf_find_vma(struct task_struct *task, __u64 address, void *fn, void *arg,
				__u64 flags)
{
	(void)task, (void)address, (void)fn, (void)arg, (void)flags;
	return -ENOENT;
}

static inline struct task_struct *bpf_get_current_task_btf(void)
{
	return NULL;
}

#define BPF_LOCAL_STORAGE_GET_F_CREATE 1
static struct outer_stack *host_outer;

static inline void *bpf_task_storage_get(void *map, struct task_struct *task, void *value,
					 __u64 flags)
{
	(void)map, (void)task, (void)value, (void)flags;
	return host_outer;
}

static inline long bpf_map_pop_elem(void *map, void *value)
{
	(void)map, (void)value;
	return -ENOENT;
}

static inline long bpf_map_push_elem(void *map, const void *value, __u64 flags)
{
	(void)map, (void)value, (void)flags;
	return 0;
}

/* Names of Python code go nowhere. */
static inline void *bpf_ringbuf_reserve(void *ring, __u64 bytes, __u64 flags)
{
	(void)ring, (void)bytes, (void)flags;
	return NULL;
}

static inline void bpf_ringbuf_submit(void *data, __u64 flags)
{
	(void)data, (void)flags;
}

static inline long bpf_map_delete_elem(void *map, const void *key)
{
	(void)map, (void)key;
	return 0;
}

/* All that is read of the kernel: the current thread's fs base. */
static __u64 host_fs_base;

static inline __u64 task_fs_base(void)
{
	return host_fs_base;
}

static inline long bpf_ringbuf_output(void *ring, const void *data, __u64 bytes, __u64 flags)
{
	(void)ring, (void)data, (void)bytes, (void)flags;
	return 0;
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunknown-pragmas"
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#include "../../bpf/maps.bpf.h"

static inline void event_init(struct event *e, __u32 kind, __u32 slot, __u32 tgid)
{
	*e = (struct event){.kind = kind, .proc = slot, .pid = tgid};
}

#include "../../bpf/stack.bpf.h"
#include "../../bpf/unwind.bpf.h"
#pragma GCC diagnostic pop

#define HOST_SLOT 7u
#define HOST_MEMORY_MAX 8

/* A table, two words an element; the kernel reads none beyond `elements`. */
struct host_table {
	__u64 *pairs; /* NULL: the outer array holds no table */
	__u32 elements;
};

struct host_memory {
	__u64 start;
	size_t bytes;
	const uint8_t *data;
};

static struct {
	__u64 rules[UNWIND_RULES_MAX];
	struct host_table tables[UNWIND_TABLES_MAX];
	__u32 rules_end, tables_end;   /* none was set from there on */
	struct unwind_mappings *space; /* of HOST_SLOT */
	__u32 generation;
	struct unwind_cached cache[1 << UNWIND_CACHE_BITS];
	struct python_walk *python; /* of HOST_SLOT */
	__u32 epochs[1 << PYTHON_EPOCH_BITS];
	struct host_memory memory[HOST_MEMORY_MAX];
	size_t memory_count;
	struct task_state *task;
	uint64_t lookups, reads;
	bool words_only; /* reads of more than 8 bytes fail */
} host;

static inline void *host_word(const struct host_table *table, __u32 i)
{
	return i < table->elements ? &table->pairs[i] : NULL;
}

/* Any other map is an array of numbers that this test does not look at. */
static inline void *host_spare(__u32 i)
{
	static __u64 numbers[UNWIND_TABLES_MAX];

	return i < UNWIND_TABLES_MAX ? &numbers[i] : NULL;
}

static inline void *bpf_map_lookup_elem(void *map, const void *key)
{
	uintptr_t at = (uintptr_t)map, tables = (uintptr_t)host.tables;
	__u32 i = *(const __u32 *)key;

	host.lookups++;
	if (at - tables < sizeof(host.tables))
		return host_word(map, i);
	if (map == &unwind_rules)
		return i < UNWIND_RULES_MAX ? &host.rules[i] : NULL;
	if (map == &unwind_tables)
		return i < UNWIND_TABLES_MAX && host.tables[i].pairs ? &host.tables[i] : NULL;
	if (map == &unwind_spaces)
		return i == HOST_SLOT ? host.space : NULL;
	if (map == &unwind_cache)
		return i < 1 << UNWIND_CACHE_BITS ? &host.cache[i] : NULL;
	if (map == &python_walks)
		return i == HOST_SLOT ? host.python : NULL;
	if (map == &python_epochs)
		return i < 1 << PYTHON_EPOCH_BITS ? &host.epochs[i] : NULL;
	return host_spare(i);
}

/* Like the kernel's: all or nothing, and nothing is zeros. */
static inline long bpf_probe_read_user(void *to, __u32 bytes, const void *from)
{
	__u64 at = (uintptr_t)from;

	host.reads++;
	for (size_t i = 0; i < host.memory_count && !(host.words_only && bytes > 8); i++) {
		const struct host_memory *m = &host.memory[i];

		if (at >= m->start && at - m->start <= m->bytes &&
		    bytes <= m->bytes - (at - m->start)) {
			memcpy(to, m->data + (at - m->start), bytes);
			return 0;
		}
	}
	memset(to, 0, bytes);
	return -EFAULT;
}

static inline void *host_alloc(size_t bytes)
{
	void *data = calloc(1, bytes ? bytes : 1);

	if (!data)
		abort();
	return data;
}

/* The cache stays, but no generation comes again. */
static inline void host_release(void)
{
	for (__u32 i = 0; i < host.tables_end; i++)
		free(host.tables[i].pairs);
	memset(host.tables, 0, host.tables_end * sizeof(*host.tables));
	memset(host.rules, 0, host.rules_end * sizeof(*host.rules));
	free(host.space);
	free(host.python);
	free(host.task);
	host.tables_end = host.rules_end = 0;
	host.space = NULL;
	host.python = NULL;
	host.task = NULL;
	host.memory_count = 0;
	host.words_only = false;
}

/* A process without tables, mappings or memory. */
static inline void host_reset(void)
{
	host_release();
	host.task = host_alloc(sizeof(*host.task));
	host.task->slot = HOST_SLOT;
}

/* What is cached no longer counts. */
static inline void host_next_generation(void)
{
	if (host.space)
		host.space->generation = ++host.generation;
}

/* Words as unwind_maps.h lays them out; a copy is kept. */
static inline void host_set_table(__u32 id, const __u32 *words, size_t count)
{
	struct host_table *t = &host.tables[id];

	free(t->pairs);
	t->elements = (__u32)((count + 1) / 2);
	t->pairs = host_alloc(t->elements * sizeof(*t->pairs));
	for (size_t i = 0; i < count; i++)
		t->pairs[i / 2] |= (__u64)words[i] << (i & 1 ? 32 : 0);
	if (id >= host.tables_end)
		host.tables_end = id + 1;
	host_next_generation();
}

static inline void host_set_rule(__u32 id, struct unwind_rule rule)
{
	memcpy(&host.rules[id], &rule, sizeof(rule));
	if (id >= host.rules_end)
		host.rules_end = id + 1;
	host_next_generation();
}

static inline void host_set_space(const struct unwind_mappings *space)
{
	free(host.space);
	host.space = host_alloc(sizeof(*space));
	memcpy(host.space, space, sizeof(*space));
	host_next_generation();
}

/* The process runs CPython. */
static inline void host_set_python(const struct python_walk *walk)
{
	free(host.python);
	host.python = host_alloc(sizeof(*walk));
	memcpy(host.python, walk, sizeof(*walk));
	want_python = true;
}

/* @data is borrowed. */
static inline void host_add_memory(__u64 start, const void *data, size_t bytes)
{
	if (host.memory_count == HOST_MEMORY_MAX)
		abort();
	host.memory[host.memory_count++] = (struct host_memory){start, bytes, data};
}

/* The return address of a frame, which may name its place in a table instead. */
static inline __u64 host_address(__u64 frame)
{
	__u32 table = unwind_frame_table(frame), at = (__u32)frame;

	for (__u32 i = 0; table && i < host.space->count && i < UNWIND_MAPPINGS_MAX; i++) {
		const struct unwind_mapping *m = &host.space->items[i];

		if (m->table == table && m->base + at >= m->start && m->base + at < m->end)
			return m->base + at + 1;
	}
	return frame;
}

/* What a thread's state holds from an earlier stack must not matter. */
static inline const struct event_stack *host_capture(struct pt_regs regs)
{
	int left = host.words_only ? 0x18 : 0xa5;

	memset(&host.task->unwind, left, sizeof(host.task->unwind));
	memset(&host.task->python, left, sizeof(host.task->python));
	memset(&host.task->stack, left, sizeof(host.task->stack));
	stack_capture(&regs, host.task, NULL, false);
	return &host.task->stack;
}

#endif
