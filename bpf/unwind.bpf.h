/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Walks a user stack by the tables that the loader compiled from the objects'
 * call frame information, frame pointer or not.
 *
 * Two things make it cheap. A cache holds what is known of a pc (its rule's id and
 * its place in a table fit in 64 bits), and the stack is copied in pieces of 1 KiB
 * instead of word by word. The cache is lock-free: an entry is {tag xor data,
 * data}, so one that two CPUs wrote at once matches no tag.
 *
 * Look-ups are global functions with scalar arguments, which the verifier checks
 * once instead of along every path that leads to them.
 */
#ifndef LEAKTOP_UNWIND_BPF_H
#define LEAKTOP_UNWIND_BPF_H

#include "code.bpf.h"
#include "maps.bpf.h"
#include "unwind_maps.h"
#include "unwind_table.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, UNWIND_RULES_MAX);
	__type(key, __u32);
	__type(value, __u64); /* struct unwind_rule */
} unwind_rules SEC(".maps");

struct unwind_words {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE | BPF_F_INNER_MAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64); /* two words: an element takes 8 bytes in any case */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, UNWIND_TABLES_MAX);
	__type(key, __u32);
	__array(values, struct unwind_words);
} unwind_tables SEC(".maps");

/* Set to 1 when a table is looked at; the loader takes it back now and then, and so
 * learns which tables it can do without. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, UNWIND_TABLES_MAX);
	__type(key, __u32);
	__type(value, __u64);
} unwind_used SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct unwind_failure);
	__type(value, __u64);
} unwind_failures SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 32768);
	__type(key, __u32); /* slot */
	__type(value, struct unwind_mappings);
} unwind_spaces SEC(".maps");

#define UNWIND_CACHE_BITS 14

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << UNWIND_CACHE_BITS);
	__type(key, __u32);
	__type(value, struct unwind_cached);
} unwind_cache SEC(".maps");

/* Ids beside those of rules, the lowest last. */
#define ID_FRAME_POINTER 0xffffu
#define ID_NO_MAPPING 0xfffeu
#define ID_NOT_READY 0xfffdu
#define ID_PENDING 0xfffcu
#define ID_NEW_FILE 0xfffbu /* the loader has not told of it yet */
#define ID_BUSY 0xfffau	    /* the kernel's list could not be looked at */

/* What is known of a pc: the id of its rule, and the frame that names it. */
#define FOUND(table, at, id) ((__u64)(table) << 48 | (__u64)(at) << 16 | (id))

static __always_inline __u32 found_id(__u64 found)
{
	return found & 0xffff;
}

/* Word @i of table @table; 0 outside. */
static __always_inline __u32 table_word(void *words, __u32 i)
{
	__u32 element = i / 2;
	__u64 *pair = bpf_map_lookup_elem(words, &element);

	if (!pair)
		return 0;
	return *pair >> 32 * (i & 1);
}

/* The id of the rule for table-relative address @at of @table. */
__noinline __u32 table_rule(__u32 table, __u64 at)
{
	void *words = bpf_map_lookup_elem(&unwind_tables, &table);
	__u32 limit = unwind_row_limit(at), block, blocks, low, high, id;

	if (!words)
		return ID_PENDING;
	blocks = table_word(words, 0);
	if (!blocks)
		return ID_FRAME_POINTER;
	if (at >> UNWIND_BLOCK_BITS >= blocks)
		return UNWIND_RULE_UNKNOWN;
	block = at >> UNWIND_BLOCK_BITS;
	low = table_word(words, UNWIND_TABLE_HEAD + block);
	high = table_word(words, UNWIND_TABLE_HEAD + block + 1);
	/* A row stands at the block's first byte, so there is one to find. */
	for (int i = 0; i < 17; i++) {
		__u32 middle = low + (high - low) / 2;
		__u64 above;

		if (high - low < 2)
			break;
		/* Without a branch, of which the verifier would follow both ways each time. */
		above = (__u64)limit - table_word(words, UNWIND_TABLE_HEAD + blocks + 1 + middle);
		above = (__u64)((__s64)above >> 63);
		barrier_var(above);
		low = (low & above) | (middle & ~above);
		high = (high & ~above) | (middle & above);
	}
	id = unwind_row_rule(table_word(words, UNWIND_TABLE_HEAD + blocks + 1 + low));
	return id < UNWIND_RULES_MAX ? id : UNWIND_RULE_UNKNOWN;
}

static __always_inline __u64 found_in_table(__u32 table, __u64 at)
{
	if (at >> 32)
		return FOUND(0, 0, UNWIND_RULE_UNKNOWN);
	return FOUND(table, at, table_rule(table, at));
}

/* What the loader told of @pc. NULL: nothing. */
static __always_inline struct unwind_mapping *space_find(struct unwind_mappings *space, __u64 pc)
{
	struct unwind_mapping *m;
	__u32 low = 0, high = space->count;

	for (int i = 0; i < 10; i++) {
		__u32 middle = (low + (high - low) / 2) & (UNWIND_MAPPINGS_MAX - 1);

		if (low >= high)
			break;
		if (space->items[middle].end <= pc)
			low = middle + 1;
		else
			high = middle;
	}
	low &= UNWIND_MAPPINGS_MAX - 1;
	m = &space->items[low];
	return low >= space->count || pc < m->start || pc >= m->end ? NULL : m;
}

/* A file that was not seen before, but may lie where the loader told: the mapping is
 * the same, and the file's number. */
static __always_inline __u64 find_new_file(__u32 slot, const struct code_found *found, __u64 pc)
{
	struct unwind_mappings *space = bpf_map_lookup_elem(&unwind_spaces, &slot);
	struct unwind_mapping *m = space ? space_find(space, pc) : NULL;

	if (!m || !m->table || m->start != found->start || m->inode != found->inode_number)
		return ID_NEW_FILE;
	code_learn(found, m->table, pc - m->base, pc);
	return found_in_table(m->table, pc - m->base);
}

/* @pc by the kernel's list of mappings, for which the loader's may be too old. */
__noinline __u64 find_by_vma(__u32 slot, __u64 pc)
{
	struct code_found found = {};
	struct code_place *place;
	long err = code_find(pc, &found);

	if (err)
		return err == -2 /* ENOENT */ ? ID_NO_MAPPING : ID_BUSY;
	if (found.kind == CODE_NONE)
		return ID_NO_MAPPING;
	if (found.kind == CODE_ANONYMOUS)
		return ID_FRAME_POINTER;
	place = bpf_map_lookup_elem(&unwind_code, &found.key);
	if (!place)
		return find_new_file(slot, &found, pc);
	return found_in_table(place->table, code_offset(&found, pc) + place->base);
}

/* @pc in what the loader told of the process of @slot. */
__noinline __u64 find_by_space(__u32 slot, __u64 pc)
{
	struct unwind_mappings *space = bpf_map_lookup_elem(&unwind_spaces, &slot);
	struct code_found code = {};
	struct unwind_mapping *m;
	if (!space)
		return ID_NOT_READY;
	m = space_find(space, pc);
	if (!m)
		return ID_NO_MAPPING;
	if (!m->table)
		return ID_FRAME_POINTER;
	if (m->inode) {
		m->inode = 0;
		if (!code_find(pc, &code) && code.kind == CODE_FILE)
			code_learn(&code, m->table, pc - m->base, pc);
	}
	return found_in_table(m->table, pc - m->base);
}

static __always_inline __u64 find_pc(__u32 slot, __u64 pc)
{
	struct unwind_mappings *space = bpf_map_lookup_elem(&unwind_spaces, &slot);
	__u32 stale = !space || space->stale, table;
	__u64 found, *used;

	found = stale ? find_by_vma(slot, pc) : find_by_space(slot, pc);
	/* The other one may know what this one does not. */
	if (stale && found_id(found) == ID_BUSY)
		found = find_by_space(slot, pc);
	else if (!stale && found_id(found) == ID_NO_MAPPING)
		found = find_by_vma(slot, pc);
	table = found >> 48;
	used = bpf_map_lookup_elem(&unwind_used, &table);
	if (table && used && !*used)
		*used = 1;
	return found;
}

/* An answer that stays true as long as the mappings do. */
static __always_inline bool found_lasts(const struct unwind_state *u, __u64 found)
{
	__u32 slot = u->slot, id = found_id(found);
	struct unwind_mappings *space;

	if (id >= ID_BUSY && id != ID_FRAME_POINTER)
		return false;
	/* The table may be replaced by one that knows more. */
	if (id == UNWIND_RULE_UNKNOWN)
		return false;
	/* It may come from newer mappings than the tag says. */
	space = bpf_map_lookup_elem(&unwind_spaces, &slot);
	return (space ? space->generation : 0) == u->generation;
}

static __always_inline __u64 cached_pc(const struct unwind_state *u, __u64 pc)
{
	__u64 tag = (pc | (__u64)u->slot << 48) ^ (__u64)u->generation * 0x9e3779b97f4a7c15ull;
	__u32 at = tag * 0x9e3779b97f4a7c15ull >> (64 - UNWIND_CACHE_BITS);
	struct unwind_cached *c = bpf_map_lookup_elem(&unwind_cache, &at);
	__u64 data, found;

	if (!c)
		return 0;
	data = *(volatile __u64 *)&c->data;
	if ((*(volatile __u64 *)&c->check ^ data) == tag)
		return data;
	found = find_pc(u->slot, pc);
	if (found_lasts(u, found)) {
		*(volatile __u64 *)&c->data = found;
		*(volatile __u64 *)&c->check = found ^ tag;
	}
	return found;
}

#define UNWIND_PAGE 4096
#define UNWIND_BELOW 128 /* the words of a frame are read downwards from its return address */
#define UNWIND_AHEAD 1024

/* Reads the stack from a little below @address to the end of its page, or of the next one if
 * that is near. What lies beyond the stack may not be mapped. */
static __always_inline bool window_move(struct unwind_state *u, __u64 address)
{
	__u64 start = address - UNWIND_BELOW, end = (address + UNWIND_AHEAD) | (UNWIND_PAGE - 1);
	__u64 bytes = end + 1 - start;

	if (bytes > sizeof(u->window))
		bytes = sizeof(u->window);
	barrier_var(bytes);
	u->window_start = start;
	if (bytes <= sizeof(u->window) && !bpf_probe_read_user(u->window, bytes, (void *)start)) {
		u->window_bytes = bytes & ~7ull;
		return true;
	}
	bytes = (address | (UNWIND_PAGE - 1)) + 1 - start;
	barrier_var(bytes);
	if (bytes <= sizeof(u->window) && !bpf_probe_read_user(u->window, bytes, (void *)start)) {
		u->window_bytes = bytes & ~7ull;
		return true;
	}
	u->window_start = UNWIND_NO_WINDOW;
	u->window_bytes = 0;
	return false;
}

/* Eight bytes of the stack, from the window or through a new one. */
static __always_inline bool stack_word(struct unwind_state *u, __u64 address, __u64 *out)
{
	__u64 at = address - u->window_start;

	if (at >= u->window_bytes || at & 7) {
		if (address & 7 || !window_move(u, address))
			return !bpf_probe_read_user(out, sizeof(*out), (void *)address);
		at = UNWIND_BELOW;
	}
	*out = u->window[at >> 3 & (UNWIND_WINDOW_WORDS - 1)];
	return true;
}

/* The caller's value of a preserved register; false if its memory cannot be read.
 * A lost one is 0, which no rule can use by mistake: it lies below every stack. */
static __always_inline bool restore(struct unwind_state *u, __u8 slot, __u64 cfa, __u64 *reg)
{
	if (slot == UNWIND_SLOT_SAME)
		return true;
	if (slot == UNWIND_SLOT_LOST) {
		*reg = 0;
		return true;
	}
	if (slot <= UNWIND_SLOT_CFA_MAX)
		return stack_word(u, cfa - 8 * (__u64)slot, reg);
	return stack_word(u, u->bp - 8 * (__u64)(slot - UNWIND_SLOT_RBP), reg);
}

static __always_inline int unwind_stop(struct unwind_state *u, __u32 result)
{
	u->result = result;
	return 1;
}

/* The interrupted function's registers, from the frame the kernel made. */
static __always_inline int unwind_signal(struct unwind_state *u)
{
	__u64 frame = u->sp;

	if (!stack_word(u, frame + UNWIND_SIGNAL_RBP, &u->bp) ||
	    !stack_word(u, frame + UNWIND_SIGNAL_RBX, &u->bx) ||
	    !stack_word(u, frame + UNWIND_SIGNAL_RIP, &u->ip) ||
	    !stack_word(u, frame + UNWIND_SIGNAL_RSP, &u->sp))
		return unwind_stop(u, UNWIND_STACK_READ);
	u->exact = 1;
	return 0;
}

static __always_inline int unwind_frame_pointer(struct unwind_state *u)
{
	__u64 frame = u->bp;

	if (!frame)
		return unwind_stop(u, UNWIND_COMPLETE); /* as the ABI marks the outermost frame */
	if (frame < u->sp || frame - u->sp > UNWIND_FRAME_BYTES_MAX || frame & 7)
		return unwind_stop(u, UNWIND_NO_FRAME);
	if (!stack_word(u, frame + 8, &u->ip) || !stack_word(u, frame, &u->bp))
		return unwind_stop(u, UNWIND_STACK_READ);
	u->sp = frame + 16;
	u->exact = 0;
	return 0;
}

/* False if it is not followed, or was lost on the way. */
static __always_inline bool register_value(const struct unwind_state *u, __u32 reg, __u64 *out)
{
	if (reg == UNWIND_RSP)
		*out = u->sp;
	else if (reg == UNWIND_RBP)
		*out = u->bp;
	else if (reg == UNWIND_RBX)
		*out = u->bx;
	else
		return false;
	return *out != 0;
}

/* The canonical frame address by @rule. */
static __always_inline bool rule_cfa(struct unwind_state *u, __u64 rule, __u64 *cfa)
{
	__u32 kind = (rule & 0xff) >> 4, arg = rule >> 24 & 0xff;
	__u64 at;

	if (!register_value(u, rule & 15, &at)) {
		u->result = UNWIND_REGISTER;
		return false;
	}
	at += (__s64)rule >> 32;
	if (kind == UNWIND_CFA_PLT && (u->ip & 15) >= arg)
		at += 8;
	if (kind == UNWIND_CFA_DEREF) {
		if (!stack_word(u, at, &at)) {
			u->result = UNWIND_STACK_READ;
			return false;
		}
		at += 8 * (__u64)arg;
	}
	*cfa = at;
	return true;
}

/* Goes on to the caller. 0, or 1 and u->result when there is none to go to. */
static __always_inline int unwind_caller(struct unwind_state *u, __u64 rule)
{
	__u64 cfa, bp = u->bp, bx = u->bx;

	if (!rule_cfa(u, rule, &cfa))
		return 1;
	if (cfa <= u->sp || cfa & 7)
		return unwind_stop(u, UNWIND_STACK_ORDER);
	if (!stack_word(u, cfa - 8, &u->ip) || !restore(u, rule >> 8 & 0xff, cfa, &bp) ||
	    !restore(u, rule >> 16 & 0xff, cfa, &bx))
		return unwind_stop(u, UNWIND_STACK_READ);
	u->bp = bp;
	u->bx = bx;
	u->sp = cfa;
	u->exact = 0;
	return 0;
}

/*
 * The common rules: the CFA by rsp or rbp, rbp and rbx unchanged or saved near the
 * return address, all of it in the window. Which of these it is differs from frame to
 * frame, so a branch for each would be mispredicted more often than not: the choices
 * are made by masks. False: not such a rule, or the window has to be moved.
 */
#define FAST_RULE_MASK 0x8080feull
#define FAST_RULE ((__u64)UNWIND_CFA_BY_RBP)

static __always_inline bool unwind_fast(struct unwind_state *u, __u64 rule)
{
	__u64 bp = u->bp, bx = u->bx, sp = u->sp;
	__u64 by_rsp = -(rule & 1), bp_slot = rule >> 8 & 0x7f, bx_slot = rule >> 16 & 0x7f;
	__u64 cfa, at, bp_mask, bx_mask;

	if ((rule & FAST_RULE_MASK) != FAST_RULE)
		return false;
	barrier_var(by_rsp);
	cfa = (bp ^ ((bp ^ sp) & by_rsp)) + ((__s64)rule >> 32);
	at = cfa - u->window_start;
	if (cfa <= sp || (cfa | at) & 7 || at > u->window_bytes || !at)
		return false;
	at >>= 3;
	if (at < bp_slot || at < bx_slot)
		return false;
	bp_mask = -((bp_slot + 127) >> 7);
	bx_mask = -((bx_slot + 127) >> 7);
	barrier_var(bp_mask);
	barrier_var(bx_mask);
	u->ip = u->window[(at - 1) & (UNWIND_WINDOW_WORDS - 1)];
	u->bp = bp ^ ((bp ^ u->window[(at - bp_slot) & (UNWIND_WINDOW_WORDS - 1)]) & bp_mask);
	u->bx = bx ^ ((bx ^ u->window[(at - bx_slot) & (UNWIND_WINDOW_WORDS - 1)]) & bx_mask);
	u->sp = cfa;
	u->exact = 0;
	return true;
}

/* What is no rule. */
static __always_inline int unwind_without_rule(struct unwind_state *u, __u32 id)
{
	switch (id) {
	case ID_FRAME_POINTER:
		return unwind_frame_pointer(u);
	case ID_NO_MAPPING:
		u->result = u->ip ? UNWIND_NO_MAPPING : UNWIND_COMPLETE;
		return 2;
	case ID_PENDING:
		return unwind_stop(u, UNWIND_PENDING);
	default:
		return unwind_stop(u, UNWIND_NOT_READY);
	}
}

/*
 * One frame: u->frame names it for the report. 0: go on; 1: this was the last; 2: this
 * is none, the one before was.
 */
__noinline int unwind_step(struct unwind_state *u)
{
	__u64 found, pc, *rule;
	__u32 id;

	if (!u)
		return 2;
	pc = u->exact ? u->ip : u->ip - 1;
	found = cached_pc(u, pc);
	u->frame = found >> 48 ? UNWIND_FRAME_IN_TABLE | found >> 16 : pc + 1;
	id = found_id(found);
	rule = bpf_map_lookup_elem(&unwind_rules, &id);
	if (!rule)
		return unwind_without_rule(u, id);
	if (unwind_fast(u, *rule))
		return 0;
	switch ((*rule & 0xff) >> 4) {
	case UNWIND_CFA_END:
		return unwind_stop(u, UNWIND_COMPLETE);
	case UNWIND_CFA_UNKNOWN:
		return unwind_stop(u, UNWIND_NO_RULE);
	case UNWIND_CFA_SIGNAL:
		return unwind_signal(u);
	case UNWIND_CFA_FRAME_POINTER:
		return unwind_frame_pointer(u);
	default:
		return unwind_caller(u, *rule);
	}
}

/* The same where all is at hand: what is known of the pc, a common rule, the window. False:
 * it is not, and nothing was done. */
static __always_inline bool unwind_quick(struct unwind_state *u)
{
	__u64 pc = u->exact ? u->ip : u->ip - 1;
	__u64 tag = (pc | (__u64)u->slot << 48) ^ (__u64)u->generation * 0x9e3779b97f4a7c15ull;
	__u32 at = tag * 0x9e3779b97f4a7c15ull >> (64 - UNWIND_CACHE_BITS), id;
	struct unwind_cached *c = bpf_map_lookup_elem(&unwind_cache, &at);
	__u64 found, *rule;

	if (!c)
		return false;
	found = *(volatile __u64 *)&c->data;
	if ((*(volatile __u64 *)&c->check ^ found) != tag)
		return false;
	id = found_id(found);
	rule = bpf_map_lookup_elem(&unwind_rules, &id);
	if (!rule || !unwind_fast(u, *rule))
		return false;
	u->frame = found >> 48 ? UNWIND_FRAME_IN_TABLE | found >> 16 : pc + 1;
	return true;
}

/* Where a stack that is not whole ended, for whoever wants to know why. */
static __noinline int unwind_failed(__u32 slot, __u32 result, __u64 last_frame)
{
	struct unwind_failure key = {.slot = slot, .result = result, .page = last_frame >> 12};
	__u64 one = 1, *n = bpf_map_lookup_elem(&unwind_failures, &key);

	if (n)
		__sync_fetch_and_add(n, 1);
	else
		bpf_map_update_elem(&unwind_failures, &key, &one, BPF_NOEXIST);
	return 0;
}

#if defined(__TARGET_ARCH_x86)
static __always_inline void unwind_begin(struct unwind_state *u, struct pt_regs *regs, __u32 slot)
{
	struct unwind_mappings *space = bpf_map_lookup_elem(&unwind_spaces, &slot);

	u->ip = regs->ip;
	u->sp = regs->sp;
	u->bp = regs->bp;
	u->bx = regs->bx;
	u->slot = slot;
	u->generation = space ? space->generation : 0;
	u->exact = 0;
	u->result = UNWIND_DEPTH;
	u->window_start = UNWIND_NO_WINDOW;
	u->window_bytes = 0;
}

/* The same at the entry of a function, as if it had just returned. */
static __always_inline bool unwind_begin_entry(struct unwind_state *u, struct pt_regs *regs,
					       __u32 slot)
{
	unwind_begin(u, regs, slot);
	u->sp += 8;
	return !bpf_probe_read_user(&u->ip, sizeof(u->ip), (void *)regs->sp);
}
#endif

#endif
