/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Makes of any bytes a process for the BPF unwinder: mappings, tables, rules,
 * registers and a stack. Numbers are drawn from those that lead somewhere (the
 * stack, the code, limits) as often as they are arbitrary, or hardly any walk
 * would come to a second frame.
 */
#ifndef LEAKTOP_UNWIND_HOSTILE_H
#define LEAKTOP_UNWIND_HOSTILE_H

#include "unwind/byte_reader.h"
#include "unwind_host.h"

#define HOSTILE_STACK 0x7ffd00001000ull
#define HOSTILE_STACK_BYTES 4096u
#define HOSTILE_CODE 0x400000ull
#define HOSTILE_TABLES 3u
#define HOSTILE_RULES 32u
#define HOSTILE_WORDS 256u

static inline void hostile_require(bool what)
{
	if (!what)
		abort();
}

/* The end is far: each frame reads at most four words, each by two reads, and each
 * rule is found in 10 steps over mappings and 17 over rows. */
#define HOSTILE_READS_MAX (STACK_FRAMES_MAX * 8u)
#define HOSTILE_LOOKUPS_MAX (STACK_FRAMES_MAX * 64u)

static inline void hostile_check(const struct event_stack *s)
{
	hostile_require(s->frame_count >= 1 && s->frame_count <= STACK_FRAMES_MAX);
	hostile_require(s->result < UNWIND_RESULTS);
	hostile_require(s->result != UNWIND_DEPTH || s->frame_count == STACK_FRAMES_MAX);
	hostile_require(host.reads <= HOSTILE_READS_MAX && host.lookups <= HOSTILE_LOOKUPS_MAX);
}

static inline const struct event_stack *hostile_capture(struct pt_regs regs)
{
	const struct event_stack *s;

	host.reads = 0;
	host.lookups = 0;
	s = host_capture(regs);
	hostile_check(s);
	return s;
}

static inline uint64_t hostile_number(struct byte_reader *r)
{
	uint8_t how = reader_u8(r);

	switch (how >> 5) {
	case 0:
		return how & 31;
	case 1:
		return ~(uint64_t)(how & 31);
	case 2:
		return HOSTILE_CODE + reader_u8(r) + ((uint64_t)(how & 3) << UNWIND_BLOCK_BITS);
	case 3:
		return HOSTILE_CODE + reader_u16(r) * 16ull;
	case 4:
	case 5:
		return HOSTILE_STACK + 8ull * (reader_u8(r) | (how & 1) << 8);
	case 6:
		return HOSTILE_STACK + reader_u16(r);
	default:
		return how & 1 ? reader_u64(r) : reader_u32(r);
	}
}

static inline void hostile_space(struct byte_reader *r)
{
	static struct unwind_mappings space;
	uint32_t items = 1 + reader_u8(r) % 8;

	for (uint32_t i = 0; i < items; i++) {
		struct unwind_mapping *m = &space.items[i];

		m->start = HOSTILE_CODE + ((uint64_t)i << UNWIND_BLOCK_BITS);
		m->end = m->start + UNWIND_BLOCK_BYTES;
		m->base = HOSTILE_CODE;
		m->table = reader_u8(r) % (HOSTILE_TABLES + 2);
		if (m->table == HOSTILE_TABLES + 1)
			m->table = reader_u32(r);
		if (reader_u8(r) < 200)
			continue;
		/* No process has code in the upper half but for the vsyscall page. */
		m->start = hostile_number(r) & ((1ull << 47) - 1);
		m->end = hostile_number(r) & ((1ull << 47) - 1);
		m->base = hostile_number(r);
	}
	space.count = reader_u8(r) < 230 ? items : (uint32_t)hostile_number(r);
	host_set_space(&space);
}

static inline void hostile_table(struct byte_reader *r, uint32_t id)
{
	uint32_t words[HOSTILE_WORDS], count = reader_u8(r), blocks = reader_u8(r) % 8;
	bool sane = reader_u8(r) & 1;

	for (uint32_t i = 0; i < count; i++)
		words[i] = sane && i > blocks + UNWIND_TABLE_HEAD
				   ? unwind_row(reader_u8(r), reader_u8(r) % HOSTILE_RULES)
				   : (uint32_t)hostile_number(r);
	words[0] = reader_u8(r) < 230 ? blocks : reader_u32(r);
	for (uint32_t i = 0; sane && i <= blocks; i++)
		words[UNWIND_TABLE_HEAD + i] = i * (count / (blocks + 1));
	host_set_table(id, words, count);
}

/* Half of them with a register that is followed. */
static inline uint8_t hostile_cfa(uint8_t how)
{
	static const uint8_t regs[] = {UNWIND_RSP, UNWIND_RBP, UNWIND_RBX, UNWIND_RSP};

	return how < 128 ? UNWIND_CFA(how / 4 % 6, regs[how % 4]) : (uint8_t)(how << 1 | how >> 6);
}

static inline void hostile_rules(struct byte_reader *r)
{
	for (uint32_t i = 0; i < HOSTILE_RULES; i++) {
		uint8_t how = reader_u8(r);
		struct unwind_rule rule = {.cfa = UNWIND_CFA_BY_RSP, .offset = 8 * (how % 32)};

		if (how & 32)
			rule.cfa = hostile_cfa(reader_u8(r));
		if (how & 64) {
			rule.rbp = reader_u8(r);
			rule.rbx = reader_u8(r);
			rule.arg = reader_u8(r);
		}
		if (how & 128)
			rule.offset = (int32_t)hostile_number(r);
		host_set_rule(i, rule);
	}
}

/* A word of the stack that the input says nothing about. */
static inline uint64_t hostile_word(uint8_t how, uint32_t i)
{
	switch (how & 7) {
	case 0:
		return 0;
	case 1:
		return ~0ull;
	case 2:
		return HOSTILE_STACK + 8ull * i; /* points to itself */
	case 3:					 /* as with frame pointers, each frame two words */
		return i & 1 ? HOSTILE_CODE + i : HOSTILE_STACK + 8ull * (i + 2);
	default:
		return HOSTILE_CODE + i * 37ull;
	}
}

static inline void hostile_stack(struct byte_reader *r, uint64_t *words)
{
	uint8_t how = reader_u8(r), every = 1 + reader_u8(r) % 16;

	for (uint32_t i = 0; i < HOSTILE_STACK_BYTES / 8; i++)
		words[i] =
			reader_left(r) && i % every == 0 ? hostile_number(r) : hostile_word(how, i);
	host_add_memory(HOSTILE_STACK, words, HOSTILE_STACK_BYTES - how);
}

static inline struct pt_regs hostile_registers(struct byte_reader *r)
{
	struct pt_regs regs;

	regs.ip = HOSTILE_CODE + reader_u16(r);
	regs.sp = HOSTILE_STACK + 8 * (reader_u8(r) % 64);
	regs.bp = hostile_number(r);
	regs.bx = hostile_number(r);
	if (reader_u8(r) > 240)
		regs.ip = hostile_number(r);
	if (reader_u8(r) > 240)
		regs.sp = hostile_number(r);
	return regs;
}

/*
 * Also, what the cache says must be what the tables say, and the same must come out
 * whether the stack is read in pieces or word by word. Returns the result.
 */
static inline uint32_t hostile_run(const uint8_t *data, size_t size)
{
	static uint64_t words[HOSTILE_STACK_BYTES / 8];
	struct byte_reader r = byte_reader(data, size);
	struct event_stack first;
	struct pt_regs regs;

	host_reset();
	regs = hostile_registers(&r);
	hostile_space(&r);
	hostile_rules(&r);
	for (uint32_t id = 1; id <= HOSTILE_TABLES; id++)
		hostile_table(&r, id);
	hostile_stack(&r, words);
	first = *hostile_capture(regs);
	for (int i = 0; i < 2; i++) {
		host.words_only = i > 0;
		hostile_capture(regs);
		hostile_require(host.task->stack.hash == first.hash);
		hostile_require(host.task->stack.result == first.result);
	}
	host_release();
	return first.result;
}

#endif
