/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "account/ledger.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "account/block_list.h"
#include "account/cut_stacks.h"
#include "account/mappings.h"
#include "bpf/kernel.h"
#include "python/code_store.h"
#include "sym/addr_space.h"
#include "sym/object.h"
#include "target/procfs.h"
#include "unwind/unwinder.h"

/* When more numbers than this are in use, stacks that rest are forgotten. */
#define ALLOCATOR_FRAMES 12 /* in which an allocator comes to map memory */
#define STACK_IDS_HIGH (STACK_IDS / 4 * 3)

#define REFRESH_NS 1000000000u
#define CODES_MAX 65536 /* Python functions remembered of a process, beside those in stacks */

struct ledger {
	struct kernel *kernel;
	struct unwinder *unwinder;
	struct ledger_stack *stacks[STACK_IDS];
	struct ledger_process *processes[LIVE_PROC_MAX + 1];
	struct cut_stacks *cuts;
	uint32_t stack_limit, slot_limit; /* one past the highest in use */
	size_t stack_count, buried_count;
	struct block_list *list; /* for the next sweep; NULL: not wanted */
	uint64_t young_after_ns; /* while sweeping: born later counts for no stack */
};

struct ledger *ledger_new(struct kernel *k, struct unwinder *u)
{
	struct ledger *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	l->kernel = k;
	l->unwinder = u;
	l->cuts = cut_stacks_new();
	if (!l->cuts) {
		free(l);
		return NULL;
	}
	return l;
}

static void stack_free(struct ledger *l, uint32_t id)
{
	struct ledger_stack *s = l->stacks[id];

	if (!s)
		return;
	for (size_t i = 0; i < s->frame_count; i++)
		python_code_unref(s->frames[i].code);
	free(l->stacks[id]);
	l->stacks[id] = NULL;
	l->stack_count--;
}

static void process_free(struct ledger_process *p)
{
	if (!p)
		return;
	mappings_free(p->mappings);
	code_store_free(p->codes);
	free(p);
}

void ledger_free(struct ledger *l)
{
	if (!l)
		return;
	for (uint32_t i = 0; i < STACK_IDS; i++)
		stack_free(l, i);
	for (uint32_t i = 0; i <= LIVE_PROC_MAX; i++)
		process_free(l->processes[i]);
	cut_stacks_free(l->cuts);
	free(l);
}

int ledger_process_open(struct ledger *l, uint32_t slot, pid_t pid, struct addr_space *as)
{
	struct ledger_process *p;

	if (!slot || slot > LIVE_PROC_MAX)
		return -EINVAL;
	p = calloc(1, sizeof(*p));
	if (p)
		p->mappings = mappings_new();
	if (!p || !p->mappings) {
		process_free(p);
		return -ENOMEM;
	}
	p->slot = slot;
	p->pid = pid;
	p->addr_space = as;
	process_free(l->processes[slot]);
	l->processes[slot] = p;
	if (slot >= l->slot_limit)
		l->slot_limit = slot + 1;
	return 0;
}

int ledger_python_open(struct ledger *l, uint32_t slot, int minor)
{
	struct ledger_process *p = ledger_process(l, slot);

	if (!p)
		return -ESRCH;
	if (!p->codes)
		p->codes = code_store_new(minor, CODES_MAX);
	return p->codes ? 0 : -ENOMEM;
}

void ledger_python_by_malloc(struct ledger *l, uint32_t slot)
{
	struct ledger_process *p = ledger_process(l, slot);

	if (p)
		p->python_by_malloc = true;
}

struct ledger_process *ledger_process(const struct ledger *l, uint32_t slot)
{
	return slot <= LIVE_PROC_MAX ? l->processes[slot] : NULL;
}

void ledger_process_bury(struct ledger *l, uint32_t slot)
{
	struct ledger_process *p = ledger_process(l, slot);

	if (!p || p->buried)
		return;
	p->buried = true;
	p->addr_space = NULL;
	l->buried_count++;
}

bool ledger_has_buried(const struct ledger *l)
{
	return l->buried_count > 0;
}

bool ledger_is_short(const struct ledger *l)
{
	return l->buried_count && l->stack_count > STACK_IDS / 2;
}

uint32_t ledger_stack_limit(const struct ledger *l)
{
	return l->stack_limit;
}

const struct ledger_stack *ledger_stack(const struct ledger *l, uint32_t id)
{
	return id < STACK_IDS ? l->stacks[id] : NULL;
}

uint32_t ledger_slot_limit(const struct ledger *l)
{
	return l->slot_limit;
}

/* A multiply and shift (constants of MurmurHash3's finalizer), for identities that must
 * be equal in every run. */
static uint64_t hash_step(uint64_t h, uint64_t value)
{
	h = (h ^ value) * 0xff51afd7ed558ccdu;
	return h ^ h >> 32;
}

static uint64_t hash_text(uint64_t h, const char *text)
{
	for (; *text; text++)
		h = hash_step(h, (unsigned char)*text);
	return h;
}

static uint64_t merged_id(const struct ledger_stack *s)
{
	uint64_t h = hash_step(0, s->domain + 1);

	for (size_t i = 0; i < s->frame_count; i++) {
		const struct frame_ref *f = &s->frames[i];

		if (f->code) {
			h = hash_step(hash_step(h, python_code_identity(f->code)), f->unit);
			h = hash_step(h, python_code_line(f->code, f->unit));
			continue;
		}
		h = f->object ? hash_step(h, object_identity(f->object)) : hash_text(h, f->name);
		h = hash_step(h, f->object ? f->vaddr : f->address);
	}
	return h;
}

/* A frame of the kernel side that names a table. */
static void locate_in_table(const struct ledger *l, uint64_t frame, struct frame_ref *f)
{
	uint64_t vaddr;

	if (unwinder_locate(l->unwinder, frame, &f->object, &vaddr))
		return;
	f->vaddr = vaddr + 1;
}

static int find(const struct addr_space *as, uint64_t address, uint64_t new_at_ns,
		struct addr_location *where)
{
	return new_at_ns ? addr_space_find_at(as, address, new_at_ns, where)
			 : addr_space_find(as, address, where);
}

/* Code that appeared since the mappings were read (a JIT; libraries are announced)
 * is found by reading them again, but not for every stack. */
static int locate_address(struct ledger_process *p, uint64_t address, uint64_t taken_ns,
			  bool is_new, struct frame_ref *f)
{
	uint64_t new_at_ns = is_new ? taken_ns : 0;
	struct addr_space *as = p ? p->addr_space : NULL;
	struct addr_location where;
	int err = as ? find(as, address - 1, new_at_ns, &where) : -ENOENT;

	f->address = address;
	if (err && as && taken_ns >= p->refreshed_ns + REFRESH_NS) {
		p->refreshed_ns = taken_ns;
		if (!addr_space_refresh(as))
			err = find(as, address - 1, new_at_ns, &where);
	}
	if (err)
		return err;
	f->object = where.object;
	f->vaddr = where.vaddr + 1;
	f->name = where.name;
	/* The names of a JIT's code can be had while it lives. */
	if (!f->object)
		addr_space_perf_map(as);
	return 0;
}

/* What the code object at its address is called now; what comes later cannot change it. */
static void locate_python(const struct ledger_process *p, uint64_t frame, struct frame_ref *f)
{
	f->name = "[python]";
	f->unit = python_frame_unit(frame);
	if (p && p->codes)
		f->code = code_store_get(p->codes, python_frame_code(frame));
}

static bool is_shim(const struct frame_ref *f)
{
	return f->code && python_code_is_shim(f->code);
}

/* An address where nothing is executable is no return address: the walk lost its way
 * there, so the stack ends before it. */
static void locate_frames(const struct ledger *l, struct ledger_process *p, struct ledger_stack *s,
			  const uint64_t *frames, uint64_t taken_ns)
{
	size_t count = s->frame_count, n = 0;

	for (size_t i = 0; i < count; i++) {
		struct frame_ref *f = &s->frames[n++];

		f->name = "[unknown]";
		if (python_frame_is(frames[i]))
			locate_python(p, frames[i], f);
		else if (unwind_frame_table(frames[i]))
			locate_in_table(l, frames[i], f);
		else if (locate_address(p, frames[i], taken_ns,
					s->result == UNWIND_NOT_READY && i + 1 == count, f) &&
			 i) {
			s->frame_count = n - 1;
			s->result = UNWIND_NO_MAPPING;
			return;
		}
		if (is_shim(f)) {
			python_code_unref(f->code);
			*f = (struct frame_ref){0};
			n--;
		}
	}
	s->frame_count = n;
}

static void stack_arrived(struct ledger *l, const struct event_stack *e, size_t size)
{
	size_t room = (size - offsetof(struct event_stack, frames)) / sizeof(e->frames[0]);
	size_t n = e->frame_count < room ? e->frame_count : room;
	struct ledger_process *p = ledger_process(l, e->head.proc);
	struct ledger_stack *s;

	if (!e->stack_id || e->stack_id >= STACK_IDS)
		return;
	/* In one piece: with -a our own allocations hit the probes too. */
	s = calloc(1, sizeof(*s) + n * sizeof(s->frames[0]));
	if (!s)
		return;
	s->id = e->stack_id;
	s->slot = e->head.proc;
	s->hash = e->hash;
	s->domain = e->domain < DOMAIN_COUNT ? (enum probe_domain)e->domain : DOMAIN_MALLOC;
	s->result = e->result;
	s->python_cut = e->python_cut != 0;
	s->frame_count = n;
	s->oldest_birth_ns = UINT64_MAX;
	locate_frames(l, p, s, (const uint64_t *)e->frames, e->head.time_ns);
	s->merged_id = merged_id(s);
	stack_free(l, s->id);
	l->stacks[s->id] = s;
	l->stack_count++;
	if (s->id >= l->stack_limit)
		l->stack_limit = s->id + 1;
}

/* What pymalloc maps at a time: Objects/obmalloc.c, to 3.9 and from 3.10 on. */
#define ARENA_BYTES_OLD (256u << 10)
#define ARENA_BYTES (1u << 20)

/*
 * An allocator's own mapping is what it hands out, not the program's. While a call of it is
 * being recorded, the kernel side knows; this is about the others: its library's background
 * threads and constructors, and calls that were not sampled.
 */
static bool made_by_allocator(const struct ledger *l, const struct event_mapping *e)
{
	const struct ledger_stack *s = ledger_stack(l, e->stack_id);
	const struct object *innermost = s && s->frame_count ? s->frames[0].object : NULL;

	if (!innermost)
		return false;
	if (object_is_allocator(innermost))
		return true;
	if (object_is_interpreter(innermost) &&
	    (e->new_length == ARENA_BYTES || e->new_length == ARENA_BYTES_OLD))
		return true;
	for (size_t i = 0; i < s->frame_count && i < ALLOCATOR_FRAMES; i++) {
		const struct frame_ref *f = &s->frames[i];

		if (f->object && object_allocates_at(f->object, f->vaddr - 1))
			return true;
	}
	return false;
}

static void mapping_arrived(struct ledger *l, const struct event_mapping *e)
{
	struct ledger_process *p = ledger_process(l, e->head.proc);

	if (!p)
		return;
	if (e->moves) {
		mappings_move(p->mappings, e->old_address, e->old_length, e->new_address,
			      e->new_length, e->begin_ns, e->head.time_ns, e->stack_id);
		return;
	}
	mappings_remove(p->mappings, e->old_address, e->old_length, e->begin_ns);
	if (!made_by_allocator(l, e))
		mappings_add(p->mappings, e->new_address, e->new_length, e->head.time_ns,
			     e->stack_id);
}

static void code_arrived(struct ledger *l, const struct event_code *e, size_t size)
{
	struct ledger_process *p = ledger_process(l, e->head.proc);

	if (p && p->codes)
		code_store_add(p->codes, e, size);
}

void ledger_event(struct ledger *l, const struct event *e, size_t size)
{
	if (e->kind == EVENT_STACK)
		stack_arrived(l, (const struct event_stack *)e, size);
	else if (e->kind == EVENT_CODE)
		code_arrived(l, (const struct event_code *)e, size);
	else if (e->kind == EVENT_MAPPING)
		mapping_arrived(l, (const struct event_mapping *)e);
}

void ledger_unwind_failed(struct ledger *l, const struct unwind_failure *f, uint64_t count)
{
	const struct ledger_process *p = ledger_process(l, f->slot);
	struct addr_location where = {.name = "[unknown]"};
	uint64_t frame = f->page << 12, vaddr;
	const struct object *object = NULL;

	if (unwind_frame_table(frame))
		unwinder_locate(l->unwinder, frame, &object, &vaddr);
	else if (p && p->addr_space && !addr_space_find(p->addr_space, frame, &where))
		object = where.object;
	cut_stacks_add(l->cuts, object ? object_path(object) : where.name, f->result, count);
}

const struct cut_stacks *ledger_cuts(const struct ledger *l)
{
	return l->cuts;
}

static void sums_reset(struct ledger *l)
{
	for (uint32_t i = 0; i < l->slot_limit; i++) {
		struct ledger_process *p = l->processes[i];

		if (!p)
			continue;
		p->mmap_bytes = p->mmap_blocks = 0;
		p->live = p->python = p->unknown = (struct estimate){0};
	}
	for (uint32_t i = 0; i < l->stack_limit; i++) {
		struct ledger_stack *s = l->stacks[i];

		if (!s)
			continue;
		s->live = (struct estimate){0};
		s->held = false;
		s->oldest_birth_ns = UINT64_MAX;
	}
}

static void block_add(const struct ledger *l, struct estimate *e, const struct live_block *b)
{
	estimate_add(e, kernel_sampling_tables(l->kernel), b->size_bytes, b->rate, b->duty);
}

/* @b: its size, birth, stack, and how it was sampled. */
static void stack_add(struct ledger *l, struct ledger_process *p, const struct live_block *b)
{
	struct ledger_stack *s = b->stack_id < STACK_IDS ? l->stacks[b->stack_id] : NULL;

	if (s && s->slot == p->slot)
		s->held = true;
	if (b->birth_ns > l->young_after_ns)
		return;
	if (!s || s->slot != p->slot) {
		block_add(l, &p->unknown, b);
		return;
	}
	block_add(l, &s->live, b);
	if (b->birth_ns < s->oldest_birth_ns)
		s->oldest_birth_ns = b->birth_ns;
}

static void list_block(struct ledger *l, const struct ledger_process *p, const struct live_entry *e)
{
	struct listed_block b = {e->address,	    e->block.size_bytes, e->block.stack_id,
				 (uint16_t)e->slot, e->block.rate,	 e->block.duty};

	if (!l->list || !p->codes || e->block.birth_ns > l->young_after_ns)
		return;
	if (e->block.domain == DOMAIN_PYMALLOC || p->python_by_malloc)
		block_list_add(l->list, &b);
}

static bool block_swept(void *arg, const struct live_entry *e)
{
	struct ledger *l = arg;
	struct ledger_process *p = ledger_process(l, e->slot);

	/* A slot that is not open yet is a new child whose event still waits. */
	if (!p)
		return true;
	if (p->buried)
		return false;
	block_add(l, e->block.domain == DOMAIN_PYMALLOC ? &p->python : &p->live, &e->block);
	stack_add(l, p, &e->block);
	list_block(l, p, e);
	return true;
}

/* Reads which mappings a process really has. *count stays 0 on failure. */
static struct mapping_range *ranges_present(pid_t pid, size_t *count)
{
	struct mapping_range *ranges = NULL, *grown;
	size_t n = 0, capacity = 0;
	struct maps_iter *it;
	struct mapping m;

	if (maps_iter_new(pid, &it))
		return NULL;
	while (maps_iter_next(it, &m) == 1) {
		if (n == capacity) {
			capacity = capacity ? capacity * 2 : 64;
			grown = realloc(ranges, capacity * sizeof(*ranges));
			if (!grown) {
				n = 0;
				break;
			}
			ranges = grown;
		}
		/* A file's pages are no anonymous memory, whatever was there before. */
		if (m.inode && strncmp(m.path, "/dev/zero", 9) &&
		    strncmp(m.path, "/anon_hugepage", 14))
			continue;
		ranges[n++] = (struct mapping_range){.start = m.start, .end = m.end};
	}
	maps_iter_free(it);
	*count = n;
	return ranges;
}

static void mappings_sum(struct ledger *l, struct ledger_process *p, uint64_t now_ns)
{
	size_t present_count = 0;
	struct mapping_range *present;

	if (!mappings_count(p->mappings))
		return;
	present = ranges_present(p->pid, &present_count);
	if (present_count)
		mappings_intersect(p->mappings, present, present_count, now_ns);
	free(present);
	for (size_t i = 0; i < mappings_count(p->mappings); i++) {
		const struct mapping_range *r = mappings_at(p->mappings, i);

		p->mmap_bytes += r->end - r->start;
		p->mmap_blocks++;
		stack_add(l, p,
			  &(struct live_block){.size_bytes = r->end - r->start,
					       .birth_ns = r->birth_ns,
					       .stack_id = r->stack_id});
	}
}

/* Stacks of the dead go at once; with numbers running short, those that hold
 * nothing and did nothing lately go in two steps, so that a thread which has
 * just looked the number up can still use it. */
static void stack_tidy(struct ledger *l, struct ledger_stack *s)
{
	const struct ledger_process *p = ledger_process(l, s->slot);
	bool idle = !s->held && s->idle_blocks == s->allocated_blocks;

	s->idle_blocks = s->allocated_blocks;
	if (!p || p->buried || (s->retiring && idle)) {
		kernel_stack_release(l->kernel, s->id, s->slot, s->hash, s->domain);
		stack_free(l, s->id);
		return;
	}
	if (idle && !s->retiring && l->stack_count > STACK_IDS_HIGH) {
		kernel_stack_retire(l->kernel, s->id, s->slot, s->hash, s->domain);
		s->retiring = true;
	}
}

static void clear_away(struct ledger *l)
{
	for (uint32_t i = 0; i < l->stack_limit; i++) {
		if (l->stacks[i])
			stack_tidy(l, l->stacks[i]);
	}
	for (uint32_t i = 0; i < l->slot_limit; i++) {
		struct ledger_process *p = l->processes[i];

		if (!p || !p->buried)
			continue;
		l->processes[i] = NULL;
		process_free(p);
		kernel_slot_release(l->kernel, i);
	}
	l->buried_count = 0;
}

static void histories_add(struct ledger *l, double time_s)
{
	for (uint32_t i = 0; i < l->slot_limit; i++) {
		struct ledger_process *p = l->processes[i];

		if (p)
			history_add(&p->history, time_s,
				    (double)(p->live.bytes + p->mmap_bytes + p->python.bytes));
	}
	for (uint32_t i = 0; i < l->stack_limit; i++) {
		struct ledger_stack *s = l->stacks[i];
		struct stack_counters c;

		if (!s)
			continue;
		c = kernel_stack_counters(l->kernel, i);
		s->allocated_bytes = c.allocated_bytes;
		s->allocated_blocks = (c.allocated_blocks_256 + 128) / 256;
		s->freed_bytes = c.freed_bytes;
		s->freed_blocks = (c.freed_blocks_256 + 128) / 256;
		history_add(&s->history, time_s, (double)s->live.bytes);
	}
}

void ledger_list_blocks(struct ledger *l, struct block_list *list)
{
	l->list = list;
}

void ledger_sweep(struct ledger *l, uint64_t now_ns, uint64_t min_age_ns)
{
	l->young_after_ns = min_age_ns < now_ns ? now_ns - min_age_ns : 0;
	if (!min_age_ns)
		l->young_after_ns = UINT64_MAX;
	sums_reset(l);
	kernel_sweep(l->kernel, block_swept, l);
	l->list = NULL;
	for (uint32_t i = 0; i < l->slot_limit; i++) {
		if (l->processes[i] && !l->processes[i]->buried)
			mappings_sum(l, l->processes[i], now_ns);
	}
	histories_add(l, (double)now_ns / 1e9);
	clear_away(l);
}
