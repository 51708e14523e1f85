/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Makes of any bytes a process that runs CPython (python_host.h), and holds the walk to what
 * is true of every stack. The picture is checked first; then words of the process'
 * memory, and what is known of its layout, become something else.
 */
#ifndef LEAKTOP_PYTHON_HOSTILE_H
#define LEAKTOP_PYTHON_HOSTILE_H

#include "python_host.h"
#include "unwind/byte_reader.h"

/* A step reads four fields of a frame, each perhaps through a new window, and a CFrame; a
 * frame of the native stack four words, each by two reads. */
#define HOSTILE_PYTHON_READS_MAX (5u * 2 * PYTHON_FRAMES_MAX + 16 + 8u * STACK_FRAMES_MAX)

static inline void hostile_python_require(bool what)
{
	if (!what)
		abort();
}

static inline void hostile_python_check(const struct event_stack *s)
{
	uint32_t python = 0;

	hostile_python_require(s->frame_count >= 1 && s->frame_count <= STACK_FRAMES_MAX);
	hostile_python_require(s->result < UNWIND_RESULTS);
	hostile_python_require(s->python_cut <= 1);
	hostile_python_require(host.reads <= HOSTILE_PYTHON_READS_MAX);
	for (uint32_t i = 0; i < s->frame_count; i++) {
		if (!python_frame_is(s->frames[i]))
			continue;
		python++;
		hostile_python_require(python_frame_code(s->frames[i]) != 0);
	}
	hostile_python_require(python <= PYTHON_FRAMES_MAX);
}

/* What an earlier stack left, and that looks like frames, changes nothing. */
static inline void hostile_python_twice(void)
{
	struct event_stack first = *ph_capture();
	struct python_state *left = &host.task->python;
	const struct event_stack *s = &host.task->stack;

	hostile_python_check(&first);
	memset(left, 0, sizeof(*left));
	for (size_t i = 0; i < UNWIND_WINDOW_WORDS; i++)
		left->window[i] = i & 1 ? code_object('Z') : HEAP + 8 * i;
	host.reads = 0;
	stack_capture(&ph.regs, host.task, NULL, false);
	hostile_python_check(s);
	hostile_python_require(s->hash == first.hash && s->result == first.result);
	hostile_python_require(s->frame_count == first.frame_count);
	hostile_python_require(s->python_cut == first.python_cut);
	hostile_python_require(!memcmp(s->frames, first.frames, 8 * first.frame_count));
}

/* A picture, and as what it is to be captured. */
static inline void hostile_picture(struct byte_reader *r, char *picture, char *rendered)
{
	uint32_t parts = reader_u8(r) % 12, python = 0;
	const char *start = rendered;

	for (uint32_t i = 0; i < parts; i++) {
		uint8_t how = reader_u8(r), letters = how >> 4 & 7;

		if (!(how & 1)) {
			*picture++ = *rendered++ = (char)('a' + how % LETTERS);
			continue;
		}
		/* Whether an innermost loop that runs nothing is shown is left open. */
		if (!letters && (ph.minor < 12 || rendered == start))
			letters = 1;
		python += letters;
		if (python > PYTHON_FRAMES_MAX)
			break;
		*picture++ = '[';
		for (uint32_t k = 0; k < letters; k++)
			*picture++ = *rendered++ = (char)('A' + reader_u8(r) % LETTERS);
		*picture++ = ']';
	}
	strcpy(picture, ".");
	strcpy(rendered, ".");
}

static inline uint64_t hostile_python_number(struct byte_reader *r)
{
	uint8_t how = reader_u8(r);

	switch (how & 7) {
	case 0:
		return how >> 3;
	case 1:
		return ph.frame_count ? ph.frames[reader_u8(r) % ph.frame_count] : 0;
	case 2:
		return NATIVE_STACK + 8ull * (reader_u16(r) % 512);
	case 3:
		return HEAP + reader_u16(r) * (how & 8 ? 8ull : 1);
	case 4:
		return code_object((char)('A' + how / 8 % LETTERS)) + (how & 128 ? 8 : 0);
	case 5:
		return THREADS + reader_u16(r) % PAGE;
	case 6:
		return 1ull << (reader_u8(r) & 63);
	default:
		return reader_u64(r);
	}
}

/* Mostly words that a walk looks at. */
static inline void hostile_python_word(struct byte_reader *r)
{
	uint8_t how = reader_u8(r);
	const struct region *region = &regions[how % REGIONS];
	uint64_t at = region->start + 8ull * (reader_u16(r) % (region->bytes / 8));
	uint64_t value = hostile_python_number(r);
	uint64_t frame = ph.frame_count ? ph.frames[how % ph.frame_count] : 0;

	if (how < 60)
		at = THREAD + at % 0x100 / 8 * 8;
	else if (how < 160 && frame)
		at = frame + at % 0x70 / 8 * 8;
	else if (how < 220)
		at = NATIVE_STACK + at % 0x400 / 8 * 8;
	if (find_address(at, 8))
		put_bytes(at, &value, how & 8 ? 8 : 1);
}

static inline void hostile_python_walk(struct byte_reader *r)
{
	uint8_t how = reader_u8(r);
	uint16_t offset = how & 1 ? reader_u16(r) : (uint16_t)(reader_u8(r) / 8 * 8);

	if (how < 150)
		return;
	memcpy((uint8_t *)&ph.walk + reader_u8(r) % (sizeof(ph.walk) / 2) * 2, &offset,
	       sizeof(offset));
	ph_use_walk();
}

/* Returns how many Python frames there are in the end. */
static inline uint32_t hostile_python_run(const uint8_t *data, size_t size)
{
	char picture[PICTURE_MAX], rendered[PICTURE_MAX];
	struct byte_reader r = byte_reader(data, size);
	uint32_t count = 0;
	uint8_t how = reader_u8(&r);

	ph_reset(MINOR_FIRST + how % (MINOR_LAST - MINOR_FIRST + 1));
	ph.placement = how / 32 % PLACEMENTS;
	ph.walk.attached = (struct python_slot){.hop = {8, 16, 0x28}, .hops = 3};
	ph_use_walk();
	hostile_picture(&r, picture, rendered);
	ph_draw(picture);
	put_slot(&ph.walk.attached, THREAD);
	hostile_python_twice();
	hostile_python_require(!strcmp(ph_render(&host.task->stack), rendered));
	for (int i = 0; i < 20 && reader_left(&r); i++) {
		hostile_python_word(&r);
		hostile_python_walk(&r);
		hostile_python_twice();
	}
	for (uint32_t i = 0; i < host.task->stack.frame_count; i++)
		count += python_frame_is(host.task->stack.frames[i]) != 0;
	host_release();
	want_python = false;
	return count;
}

#endif
