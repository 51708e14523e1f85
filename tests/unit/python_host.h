/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A process that runs CPython, for the BPF programs compiled for the host, drawn from a
 * picture of its stack, innermost first:
 *	a[BC]d[E]f.
 * Function a was called by a run of the evaluation loop that runs Python function B,
 * called by C; that loop was called by d, and so on. '.' is the outermost function, '!'
 * one that cannot be unwound, '@' the evaluation loop where it runs nothing that it has
 * told of. What is captured is rendered the same way: aBCdEf. here, with '@' for a loop
 * that was not replaced by what it runs.
 *
 * To 3.10 each Python function has a loop of its own, whatever the brackets say.
 */
#ifndef LEAKTOP_PYTHON_HOST_H
#define LEAKTOP_PYTHON_HOST_H

#include <ctype.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "python/layout.h"
#include "unwind_host.h"

#define PAGE 4096u
#define NATIVE_STACK 0x7ffd00010000ull
#define NATIVE_PAGES 16u
#define HEAP 0x55d000000000ull
#define HEAP_PAGES 64u
#define HEAP_END (HEAP + HEAP_PAGES * PAGE)
#define THREADS 0x55e000000000ull /* thread states */
#define THREAD (THREADS + 0x100)
#define OTHER_THREAD (THREADS + 0x900)
#define ROOT_CFRAME (THREADS + 0xf00)
#define TLS 0x7f1000000000ull
#define FS_BASE (TLS + 0x800)
#define DTV (TLS + 0x1000)
#define GLOBALS 0x7f2000000000ull
#define CODE_OBJECTS 0x55f000000000ull /* not mapped: a walk looks at none of them */
#define CODE_OBJECT_BYTES 0x1000u
#define PICTURE_MAX 1024u
#define LETTERS 26u

#define NATIVE_CODE 0x400000ull
#define NATIVE_TABLE 3u
#define FUNCTION_BYTES 0x100u /* a, b, c... */
#define EVAL_START 0x4000u
#define EVAL_END 0x5000u
#define OUTERMOST 0x6000u
#define WITHOUT_RULE 0x7000u
#define FUNCTION_FRAME_BYTES 32u
#define EVAL_FRAME_BYTES 192u
#define ANCHOR_AT 32u /* in a frame of the loop: its CFrame */
#define ENTRY_AT 56u  /* and its entry frame */

#define MINOR_FIRST 8
#define MINOR_LAST 15
#define OWNER_GENERATOR 1
#define OWNER_FRAME_OBJECT 2
#define OWNER_ENTRY_FRAME 3

enum placement {
	IN_DATA_STACK, /* side by side, callers below */
	AT_HEAP_END,   /* the same, up to where mapped memory ends */
	SCATTERED,     /* as those of generators */
	OVER_PAGES,    /* as above, each over a border of pages */
	PLACEMENTS,
};

static struct {
	int minor;
	struct python_walk walk;
	enum placement placement;
	uint64_t stack[(1 + NATIVE_PAGES) * PAGE / 8], heap[HEAP_PAGES * PAGE / 8];
	uint64_t threads[PAGE / 8], tls[2 * PAGE / 8], globals[PAGE / 8];
	uint64_t frames[PICTURE_MAX]; /* of Python code, innermost first */
	uint32_t frame_count;
	uint64_t sp; /* where the frame that is drawn begins */
	struct pt_regs regs;
	char rendered[STACK_FRAMES_MAX + 1];
} ph;

struct region {
	uint64_t start;
	uint64_t *words;
	size_t bytes;
};

#define REGIONS 5u

static const struct region regions[REGIONS] = {
	{NATIVE_STACK - PAGE, ph.stack, sizeof(ph.stack)}, {HEAP, ph.heap, sizeof(ph.heap)},
	{THREADS, ph.threads, sizeof(ph.threads)},	   {TLS, ph.tls, sizeof(ph.tls)},
	{GLOBALS, ph.globals, sizeof(ph.globals)},
};

/* NULL: nothing is mapped there. */
static inline void *find_address(uint64_t address, size_t bytes)
{
	for (size_t i = 0; i < REGIONS; i++) {
		const struct region *r = &regions[i];

		if (address >= r->start && address + bytes <= r->start + r->bytes)
			return (uint8_t *)r->words + (address - r->start);
	}
	return NULL;
}

static inline void *at_address(uint64_t address, size_t bytes)
{
	void *at = find_address(address, bytes);

	if (!at)
		abort();
	return at;
}

static inline void put_bytes(uint64_t address, const void *from, size_t bytes)
{
	memcpy(at_address(address, bytes), from, bytes);
}

static inline void put(uint64_t address, uint64_t value)
{
	put_bytes(address, &value, sizeof(value));
}

static inline void put_byte(uint64_t address, uint8_t value)
{
	put_bytes(address, &value, sizeof(value));
}

/* Fields that no walk looks at are left out. */
static inline struct python_walk walk_of_3_13(int minor)
{
	return (struct python_walk){
		.code_mask = minor >= 14 ? 7 : 0,
		.thread_id = minor >= 15 ? 176 : 152,
		.thread_frame = 72,
		.thread_cframe = PYTHON_NONE,
		.cframe_frame = PYTHON_NONE,
		.cframe_previous = PYTHON_NONE,
		.frame_back = 8,
		.frame_instr = 56,
		.frame_owner = minor >= 14 ? 74 : 70,
		.frame_entry = PYTHON_NONE,
		.code_instructions = minor >= 14 ? 208 : 200,
		.instr_kind = PYTHON_INSTR_POINTER,
		.owner_entry = OWNER_ENTRY_FRAME,
	};
}

static inline void native_code(void)
{
	const uint32_t words[] = {1,
				  4,
				  0,
				  4,
				  unwind_row(0, 2),
				  unwind_row(EVAL_START, 3),
				  unwind_row(OUTERMOST, UNWIND_RULE_END),
				  unwind_row(WITHOUT_RULE, UNWIND_RULE_UNKNOWN)};
	struct unwind_mappings space = {.count = 1,
					.items = {{NATIVE_CODE, NATIVE_CODE + UNWIND_BLOCK_BYTES,
						   NATIVE_CODE, NATIVE_TABLE, 0}}};

	host_set_table(NATIVE_TABLE, words, sizeof(words) / sizeof(*words));
	host_set_rule(UNWIND_RULE_UNKNOWN, (struct unwind_rule){0});
	host_set_rule(UNWIND_RULE_END, (struct unwind_rule){.cfa = UNWIND_CFA_END << 4});
	host_set_rule(
		2, (struct unwind_rule){.cfa = UNWIND_CFA_BY_RSP, .offset = FUNCTION_FRAME_BYTES});
	host_set_rule(3,
		      (struct unwind_rule){.cfa = UNWIND_CFA_BY_RSP, .offset = EVAL_FRAME_BYTES});
	host_set_space(&space);
}

/* Makes what ph.walk says known to the programs. */
static inline void ph_use_walk(void)
{
	host_set_python(&ph.walk);
}

/* A process that runs Python 3.@minor and has an empty stack. */
static inline void ph_reset(int minor)
{
	struct python_layout layout;

	memset(&ph, 0, sizeof(ph));
	host_reset();
	native_code();
	for (size_t i = 0; i < REGIONS; i++)
		host_add_memory(regions[i].start, regions[i].words, regions[i].bytes);
	host_fs_base = FS_BASE;
	ph.minor = minor;
	if (python_layout_by_version(minor, &layout))
		ph.walk = walk_of_3_13(minor);
	else
		ph.walk = layout.walk;
	ph.walk.eval_start = UNWIND_FRAME_IN_TABLE | (uint64_t)NATIVE_TABLE << 32 | EVAL_START;
	ph.walk.eval_end = ph.walk.eval_start + (EVAL_END - EVAL_START);
	ph.walk.serial = 1;
	if (minor >= 12)
		ph.walk.current = (struct python_slot){.hop = {-24}, .hops = 1};
	else
		ph.walk.current = (struct python_slot){.address = GLOBALS + 0x240, .hops = 1};
	ph_use_walk();
}

/* Evaluation loops have a frame that is none of Python code. */
static inline bool ph_has_entry_frames(void)
{
	return ph.minor >= 12;
}

/* The last byte of a frame that is looked at. */
static inline uint32_t frame_bytes(void)
{
	return ph.walk.frame_instr + 56u;
}

static inline uint64_t frame_address(uint32_t i, uint32_t count)
{
	uint32_t fields = (ph.walk.frame_owner == PYTHON_NONE ? ph.walk.frame_instr
							      : ph.walk.frame_owner & ~7u) +
			  8;

	switch (ph.placement) {
	case AT_HEAP_END:
		return HEAP_END - fields - (uint64_t)i * frame_bytes();
	case SCATTERED:
		return HEAP + (uint64_t)(i * 37 % HEAP_PAGES) * PAGE +
		       i / HEAP_PAGES * 450 / 8 * 8 + 8ull * (i % 40);
	case OVER_PAGES:
		if (i < HEAP_PAGES - 1)
			return HEAP + (HEAP_PAGES - 1 - i) * (uint64_t)PAGE - 8 * (1 + i % 14);
		/* fall through */
	default:
		return HEAP + 8 + (uint64_t)(count - 1 - i) * (frame_bytes() + 16) +
		       (count - 1 - i) % 3 * 8;
	}
}

static inline uint64_t code_object(char letter)
{
	return CODE_OBJECTS + (uint64_t)(letter - 'A') * CODE_OBJECT_BYTES;
}

static inline uint32_t unit_of(char letter)
{
	return 10u + (uint32_t)(letter - 'A') * 3;
}

static inline void put_instruction(uint64_t frame, uint64_t code, int32_t unit)
{
	uint64_t at = frame + ph.walk.frame_instr;
	int32_t lasti = ph.walk.instr_kind == PYTHON_LASTI_BYTES ? unit * 2 : unit;

	if (ph.walk.instr_kind == PYTHON_INSTR_POINTER)
		put(at, code + ph.walk.code_instructions + 2 * (uint64_t)(int64_t)unit);
	else
		put_bytes(at, &lasti, sizeof(lasti));
}

static inline void put_frame(uint32_t i, char letter, bool is_last_of_loop)
{
	uint64_t frame = ph.frames[i], code = code_object(letter);

	/* The other half of lasti's word is something else. */
	put(frame + ph.walk.frame_instr, 0xabcdef0100000000ull);
	put_instruction(frame, code, (int32_t)unit_of(letter));
	put(frame + ph.walk.frame_code, code | (i & 1 ? ph.walk.code_mask & 1 : 0));
	if (ph.walk.frame_owner != PYTHON_NONE)
		put_byte(frame + ph.walk.frame_owner, i % 3); /* thread, generator, object */
	if (ph.walk.frame_entry != PYTHON_NONE)
		put_byte(frame + ph.walk.frame_entry, is_last_of_loop);
}

/* Who is called where: from the native stack's inner end on. */
struct drawing {
	uint64_t link;	 /* where the next frame's address goes */
	uint64_t cframe; /* where the next CFrame's address goes; 0: the version has none */
	uint32_t next;	 /* of ph.frames */
};

static inline uint64_t code_of_function(char c)
{
	switch (c) {
	case '.':
		return OUTERMOST;
	case '!':
		return WITHOUT_RULE;
	case '@':
		return EVAL_START;
	default:
		return (uint64_t)(c - 'a' + 1) * FUNCTION_BYTES;
	}
}

/* A return address into function @c, in the frame below it. */
static inline void draw_native(char c, uint32_t bytes)
{
	uint64_t ip = NATIVE_CODE + code_of_function(c) + 0x11;

	if (!ph.regs.ip)
		ph.regs.ip = ip;
	else
		put(ph.sp - 8, ip);
	ph.sp += bytes;
}

/* The loop's CFrame, which the callee's or the thread state names. */
static inline void draw_cframe(struct drawing *d, uint64_t frame, uint64_t at)
{
	if (!d->cframe)
		return;
	put(d->cframe, at);
	if (ph.walk.cframe_frame != PYTHON_NONE)
		put(at + ph.walk.cframe_frame, frame);
	d->cframe = at + ph.walk.cframe_previous;
}

/* @letters up to the bracket: what one loop runs; none while it tidies up. */
static inline void draw_loop(struct drawing *d, const char *letters, size_t count)
{
	uint64_t native = ph.sp, entry = native + ENTRY_AT;
	uint64_t first = count ? ph.frames[d->next] : ph_has_entry_frames() ? entry : 0;

	draw_native('@', EVAL_FRAME_BYTES);
	draw_cframe(d, first, native + ANCHOR_AT);
	for (size_t i = 0; i < count; i++, d->next++) {
		put(d->link, ph.frames[d->next]);
		put_frame(d->next, letters[i], i + 1 == count);
		d->link = ph.frames[d->next] + ph.walk.frame_back;
	}
	if (!ph_has_entry_frames())
		return;
	put(d->link, entry);
	put(entry + ph.walk.frame_code, 0x55a000000010); /* None */
	put_byte(entry + ph.walk.frame_owner, OWNER_ENTRY_FRAME);
	d->link = entry + ph.walk.frame_back;
}

static inline void draw_loops(struct drawing *d, const char *letters, size_t count)
{
	if (ph.minor > 10) {
		draw_loop(d, letters, count);
		return;
	}
	for (size_t i = 0; i < count; i++)
		draw_loop(d, letters + i, 1);
}

/* The thread state names the first frame, by what the version has in between. */
static inline struct drawing draw_thread(uint64_t thread)
{
	struct drawing d = {.link = thread + ph.walk.thread_frame};

	put(thread + ph.walk.thread_id, FS_BASE);
	if (ph.walk.thread_cframe != PYTHON_NONE)
		d.cframe = thread + ph.walk.thread_cframe;
	if (ph.walk.cframe_frame == PYTHON_NONE)
		return d;
	/* The loop puts the frame where the CFrame says; this link is for none. */
	d.cframe = thread + ph.walk.thread_frame;
	d.link = ROOT_CFRAME + 0x40;
	return d;
}

static inline void put_slot(const struct python_slot *s, uint64_t value)
{
	uint64_t at = s->address ? s->address : FS_BASE;

	for (uint32_t i = 0; i < s->hops; i++) {
		at += (uint64_t)(int64_t)s->hop[i];
		if (i + 1 < s->hops)
			memcpy(&at, at_address(at, 8), 8);
	}
	put(at, value);
}

static inline void ph_clear(void)
{
	for (size_t i = 0; i < REGIONS; i++)
		memset(regions[i].words, 0, regions[i].bytes);
	/* Two modules of the DTV, on another page. */
	put(FS_BASE + 8, DTV);
	put(DTV + 16, TLS + 0x100);
	put(DTV + 32, TLS + 0x200);
}

static inline void place_frames(const char *picture)
{
	ph.frame_count = 0;
	for (const char *c = picture; *c; c++)
		ph.frame_count += isupper((unsigned char)*c) != 0;
	for (uint32_t i = 0; i < ph.frame_count; i++)
		ph.frames[i] = frame_address(i, ph.frame_count);
}

/* Draws @picture into memory, its inner end at @sp; its thread state is in the slot "current". */
static inline void draw_at(const char *picture, uint64_t sp)
{
	struct drawing d;

	ph_clear();
	place_frames(picture);
	ph.regs = (struct pt_regs){.sp = sp};
	ph.sp = sp;
	d = draw_thread(THREAD);
	for (const char *c = picture; *c; c++) {
		if (*c == '[') {
			size_t count = strcspn(c + 1, "]");

			draw_loops(&d, c + 1, count);
			c += count + 1;
		} else {
			draw_native(*c, *c == '@' ? EVAL_FRAME_BYTES : FUNCTION_FRAME_BYTES);
		}
	}
	draw_cframe(&d, 0, ROOT_CFRAME);
	put_slot(&ph.walk.current, THREAD);
}

static inline void ph_draw(const char *picture)
{
	draw_at(picture, NATIVE_STACK);
	host_next_generation();
}

/* The same with the outer end in one place, whatever the picture: as the same thread later. */
static inline void ph_draw_later(const char *picture)
{
	draw_at(picture, NATIVE_STACK);
	draw_at(picture, NATIVE_STACK + NATIVE_PAGES * PAGE - (ph.sp - NATIVE_STACK));
}

static inline char native_letter(uint64_t frame)
{
	uint32_t at = (uint32_t)frame;

	if (unwind_frame_table(frame) != NATIVE_TABLE)
		return '?';
	if (at >= EVAL_START && at < EVAL_END)
		return '@';
	if (at >= WITHOUT_RULE)
		return '!';
	if (at >= OUTERMOST)
		return '.';
	return at / FUNCTION_BYTES <= LETTERS ? (char)('a' + at / FUNCTION_BYTES - 1) : '?';
}

/* '?' also if the instruction is not the one drawn. */
static inline char python_letter(uint64_t frame)
{
	uint64_t number = (python_frame_code(frame) - CODE_OBJECTS) / CODE_OBJECT_BYTES;
	char letter = (char)('A' + number % LETTERS);

	return number < LETTERS && code_object(letter) == python_frame_code(frame) &&
			       python_frame_unit(frame) == unit_of(letter)
		       ? letter
		       : '?';
}

static inline const char *ph_render(const struct event_stack *s)
{
	uint32_t count = s->frame_count < STACK_FRAMES_MAX ? s->frame_count : STACK_FRAMES_MAX;

	for (uint32_t i = 0; i < count; i++) {
		uint64_t frame = s->frames[i];

		ph.rendered[i] =
			python_frame_is(frame) ? python_letter(frame) : native_letter(frame);
	}
	ph.rendered[count] = 0;
	return ph.rendered;
}

static inline const struct event_stack *ph_capture(void)
{
	host.reads = 0;
	return host_capture(ph.regs);
}

#endif
