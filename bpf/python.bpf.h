/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Walks the Python frames of the current thread, and tells the loader what the code
 * objects in them are called.
 *
 * A stack is recognised by the addresses of code objects and instructions alone, so
 * that a frame costs no look at its code object. Code objects die, and others take
 * their place: a probe on their destructor counts the deaths at each address (its
 * epoch), which is hashed too. Names and line table are copied when a stack is new,
 * while the code runs and therefore lives.
 *
 * Frames are read through a window as the native stack is: those of functions that
 * called each other lie side by side in the thread's data stack, callers below.
 */
#ifndef LEAKTOP_PYTHON_BPF_H
#define LEAKTOP_PYTHON_BPF_H

#include "maps.bpf.h"
#include "outer.bpf.h"
#include "process.bpf.h"
#include "python_walk.h"
#include "unwind.bpf.h"

#define PYTHON_EPOCH_BITS 16
/* Frames, and entry frames between them: so many at a time, so many times (as in stack.bpf.h). */
#define PYTHON_PART_STEPS 8
#define PYTHON_PARTS_MAX (2 * PYTHON_FRAMES_MAX / PYTHON_PART_STEPS)
#define PYTHON_PAGE 4096
#define PYTHON_THREAD_BYTES 256 /* of a thread state */
#define PYTHON_FRAME_BYTES 128	/* that hold the fields (python_walk.h) */
#define PYTHON_AHEAD 512	/* bytes of a window from the frame read on */
#define PYTHON_STACK_BYTES (8u << 20)

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << PYTHON_EPOCH_BITS);
	__type(key, __u32);
	__type(value, __u32);
} python_epochs SEC(".maps");

struct python_code_key {
	__u64 code;
	__u32 slot;
	__u32 serial; /* struct python_walk */
};

/* Code objects that the loader knows, and in which epoch. */
#define PYTHON_CODES_MAX 32768

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, PYTHON_CODES_MAX);
	__type(key, struct python_code_key);
	__type(value, __u32);
} python_codes SEC(".maps");

static __u64 python_codes_told; /* how often one was entered */

static __always_inline __u32 *python_epoch(__u32 slot, __u64 code)
{
	__u64 h = ((code >> 4) + ((__u64)slot << 44)) * 0x9e3779b97f4a7c15ull;
	__u32 at = h >> (64 - PYTHON_EPOCH_BITS);

	return bpf_map_lookup_elem(&python_epochs, &at);
}

/* What stands for a frame in a hash: its code object's death makes another of it. */
static __always_inline __u64 python_hashed(__u32 slot, __u64 frame)
{
	__u32 *epoch = python_epoch(slot, python_frame_code(frame));

	return epoch ? frame ^ *epoch * HASH_BASE : frame;
}

/* Callers lie below. A window stays within a page: what is beyond may not be mapped. */
static __always_inline bool python_move(struct python_state *py, __u64 address)
{
	__u64 page = address & ~(__u64)(PYTHON_PAGE - 1), end = address + PYTHON_AHEAD;
	__u64 start = page, bytes;

	if (end > page + PYTHON_PAGE)
		end = page + PYTHON_PAGE;
	if (end - page > sizeof(py->window))
		start = end - sizeof(py->window);
	bytes = end - start;
	barrier_var(bytes);
	py->window_start = start;
	py->window_bytes = bytes;
	if (bytes <= sizeof(py->window) && !bpf_probe_read_user(py->window, bytes, (void *)start))
		return true;
	py->window_start = UNWIND_NO_WINDOW;
	py->window_bytes = 0;
	return false;
}

/* Entry frames lie on the native stack, all others elsewhere: a window for each. */
static __always_inline bool python_word(struct python_state *py, struct unwind_state *u,
					__u64 address, __u64 *out)
{
	__u64 at = address - py->window_start;

	/* Addresses of the kernel are near to UNWIND_NO_WINDOW. */
	if (address & 7 || address >> 63)
		return false;
	if (at >= py->window_bytes) {
		if (address - u->sp < PYTHON_STACK_BYTES)
			return stack_word(u, address, out);
		if (!python_move(py, address))
			return false;
		at = address - py->window_start;
	}
	*out = py->window[at >> 3 & (UNWIND_WINDOW_WORDS - 1)];
	return true;
}

static __always_inline bool python_byte(struct python_state *py, struct unwind_state *u,
					__u64 address, __u32 *out)
{
	__u64 word;

	if (!python_word(py, u, address & ~7ull, &word))
		return false;
	*out = word >> 8 * (address & 7) & 0xff;
	return true;
}

static __always_inline bool user_word(__u64 address, __u64 *out)
{
	return !bpf_probe_read_user(out, sizeof(*out), (void *)address);
}

static __always_inline bool slot_read(const struct python_slot *slot, __u64 fs_base, __u64 *out)
{
	__u64 at = slot->address ? slot->address : fs_base;

	if (!slot->hops)
		return false;
	for (__u32 i = 0; i < PYTHON_HOPS_MAX; i++) {
		if (i < slot->hops && !user_word(at + (__s64)slot->hop[i], &at))
			return false;
	}
	*out = at;
	return at != 0;
}

/* The words of the thread state that matter lie in its first PYTHON_THREAD_BYTES; read into
 * the window, one read for all. */
static __always_inline bool thread_read(struct python_state *py, __u64 state)
{
	return !bpf_probe_read_user(py->window, PYTHON_THREAD_BYTES, (void *)state);
}

static __always_inline __u64 thread_word(const struct python_state *py, __u16 offset)
{
	return py->window[offset >> 3 & (PYTHON_THREAD_BYTES / 8 - 1)];
}

/* Reads the thread state of this thread: the one that runs Python code (a thread may have
 * several, of subinterpreters), or its own where none does. */
static __always_inline bool python_thread(struct python_state *py, const struct python_walk *w)
{
	__u64 fs_base = task_fs_base(), state;

	/* What is in the thread's own storage is the thread's: under its own id or, with
	 * subinterpreters, that of the thread it was made for. A global says who runs. */
	if (slot_read(&w->current, fs_base, &state) && thread_read(py, state) &&
	    (!w->current.address || thread_word(py, w->thread_id) == fs_base))
		return true;
	return slot_read(&w->attached, fs_base, &state) && thread_read(py, state);
}

/* Where the current thread's innermost frame is. */
static __always_inline int python_begin(struct python_state *py, struct unwind_state *u,
					const struct python_walk *w)
{
	if (!py || !u || !w)
		return 0;
	py->count = py->segments = py->cut = 0;
	py->frame = py->cframe = 0;
	py->cframe_previous = w->owner_entry == 0xff ? w->cframe_previous : PYTHON_NONE;
	py->window_start = UNWIND_NO_WINDOW;
	py->window_bytes = 0;
	if (!python_thread(py, w))
		return 0;
	py->frame = thread_word(py, w->thread_frame);
	if (w->cframe_frame != PYTHON_NONE) {
		py->cframe = py->frame;
		/* Where the native walk will have to look as well. */
		if (py->cframe - u->sp < UNWIND_AHEAD)
			window_move(u, u->sp);
		return python_word(py, u, py->cframe + w->cframe_frame, &py->frame);
	}
	if (w->thread_cframe != PYTHON_NONE)
		py->cframe = thread_word(py, w->thread_cframe);
	return 1;
}

static __always_inline __u32 python_unit(const struct python_walk *w, __u64 code, __u64 instr)
{
	__s64 unit;

	if (w->instr_kind == PYTHON_INSTR_POINTER)
		unit = (__s64)(instr - code - w->code_instructions) >> 1;
	else if (w->instr_kind == PYTHON_LASTI_UNITS)
		unit = (__s32)instr;
	else
		unit = (__s32)instr >> 1;
	if (unit < 0)
		return PYTHON_UNIT_START;
	return unit < PYTHON_UNIT_UNKNOWN ? unit : PYTHON_UNIT_UNKNOWN;
}

/* @place: of the last frame, or its loop. False if there is no room for more. */
static __always_inline bool python_segment_end(struct python_state *py, struct outer_stack *outer,
					       __u64 anchor, __u64 place)
{
	__u32 n = py->segments;

	if (n >= PYTHON_SEGMENTS_MAX) {
		py->cut = 1;
		return false;
	}
	barrier_var(n); /* or clang drops the masks, which Linux 6.1 wants */
	py->anchors[n & (PYTHON_SEGMENTS_MAX - 1)] = anchor;
	py->ends[n & (PYTHON_SEGMENTS_MAX - 1)] = py->count;
	py->segments = n + 1;
	outer_python_end(outer, n, place);
	return true;
}

/* What a frame says of itself. */
struct python_record {
	__u64 back, code, instr;
	__u32 owner, entry;
};

/* From the window, where the frame lies in it as a whole: nearly always. */
static __always_inline bool record_fast(const struct python_state *py, const struct python_walk *w,
					__u64 frame, struct python_record *r)
{
	__u64 at = frame - py->window_start;

	if (at >= py->window_bytes || at + PYTHON_FRAME_BYTES > py->window_bytes)
		return false;
	at >>= 3;
#define WORD(offset)                                                       \
	py->window[(at + ((offset) >> 3 & (PYTHON_FRAME_BYTES / 8 - 1))) & \
		   (UNWIND_WINDOW_WORDS - 1)]
	r->back = WORD(w->frame_back);
	r->code = WORD(w->frame_code);
	r->instr = WORD(w->frame_instr);
	r->owner = 0;
	r->entry = 1;
	if (w->owner_entry != 0xff)
		r->owner = WORD(w->frame_owner) >> 8 * (w->frame_owner & 7) & 0xff;
	if (w->frame_entry != PYTHON_NONE)
		r->entry = WORD(w->frame_entry) >> 8 * (w->frame_entry & 7) & 0xff;
#undef WORD
	return true;
}

/* Word by word. A global function, out of the way of the loop that calls it. */
__noinline int record_slow(struct python_state *py, struct unwind_state *u,
			   const struct python_walk *w, struct python_record *r)
{
	__u64 frame;

	if (!py || !u || !w || !r)
		return 0;
	frame = py->frame;
	r->owner = 0;
	r->entry = 1;
	r->code = r->instr = 0;
	if (w->owner_entry != 0xff && !python_byte(py, u, frame + w->frame_owner, &r->owner))
		return 0;
	if (!python_word(py, u, frame + w->frame_back, &r->back))
		return 0;
	if (r->owner >= w->owner_entry)
		return 1;
	if (w->frame_entry != PYTHON_NONE && !python_byte(py, u, frame + w->frame_entry, &r->entry))
		return 0;
	return python_word(py, u, frame + w->frame_code, &r->code) &&
	       python_word(py, u, frame + w->frame_instr, &r->instr);
}

/* Takes down one frame and goes on to its caller; false at the end. */
static __always_inline bool python_step(struct python_state *py, struct unwind_state *u,
					const struct python_walk *w, struct outer_stack *outer)
{
	struct python_record r;
	__u64 frame = py->frame, code, known;

	if (!frame || frame & 7)
		return false;
	if (!record_fast(py, w, frame, &r) && !record_slow(py, u, w, &r))
		return false;
	py->frame = r.back;
	if (r.owner >= w->owner_entry)
		return python_segment_end(py, outer, frame, frame);
	if (py->count >= PYTHON_FRAMES_MAX) {
		py->cut = 1;
		return false;
	}
	code = r.code & ~w->code_mask;
	if (!code || code >> 47 || code & 7)
		return false;
	known = python_frame(code, python_unit(w, code, r.instr));
	py->frames[py->count & (PYTHON_FRAMES_MAX - 1)] = known;
	py->count++;
	if (outer)
		outer_python_frame(outer, python_hashed(py->slot, known));
	/* To 3.11: the evaluation loop that runs it may end here. */
	if (w->owner_entry == 0xff && r.entry)
		return python_segment_end(py, outer, 0, frame);
	return true;
}

#define NO_ANCHOR 1 /* lies on no stack */

/* Says what to look for next on the native stack. */
static __always_inline void python_seek(struct python_state *py)
{
	if (py->segment_next >= py->segments)
		py->anchor = NO_ANCHOR;
	else if (py->cframe_previous != PYTHON_NONE)
		py->anchor = py->cframe;
	else
		py->anchor = py->anchors[py->segment_next & (PYTHON_SEGMENTS_MAX - 1)];
}

/* 1: there may be more. A global function, so that the verifier looks at it once. */
__noinline int python_part(struct python_state *py, struct unwind_state *u,
			   const struct python_walk *w, struct outer_stack *outer)
{
	if (!py || !u || !w)
		return 0;
	for (int i = 0; i < PYTHON_PART_STEPS; i++) {
		if (!python_step(py, u, w, outer))
			return 0;
	}
	return 1;
}

/* All of them, in py->frames, in segments. */
__noinline int python_collect(struct python_state *py, struct unwind_state *u,
			      struct outer_stack *outer)
{
	struct python_walk *w;
	__u32 slot, closed;

	if (!py || !u)
		return 0;
	slot = py->slot;
	py->count = py->segments = py->cut = py->next = py->segment_next = 0;
	py->anchor = NO_ANCHOR;
	if (!want_python)
		return 0;
	w = bpf_map_lookup_elem(&python_walks, &slot);
	if (!w)
		return 0;
	py->eval_start = w->eval_start;
	py->eval_end = w->eval_end;
	if (!python_begin(py, u, w))
		return 0;
	outer_python_begin(outer);
	for (int i = 0; i < PYTHON_PARTS_MAX; i++) {
		if (!python_part(py, u, w, outer))
			break;
		if (i == PYTHON_PARTS_MAX - 1 && py->frame)
			py->cut = 1;
	}
	/* What was not closed is of a loop whose place is not known. */
	closed = py->segments ? py->ends[(py->segments - 1) & (PYTHON_SEGMENTS_MAX - 1)] : 0;
	if (py->count > closed)
		python_segment_end(py, outer, 0, py->frame);
	python_seek(py);
	return 0;
}

/* Whether the native frame between @sp and @caller_sp is the evaluation loop that runs
 * the next segment. */
static __always_inline bool python_is_eval(const struct python_state *py, __u64 frame, __u64 sp,
					   __u64 caller_sp)
{
	if (py->anchor)
		return py->anchor >= sp && py->anchor < caller_sp;
	return frame >= py->eval_start && frame < py->eval_end;
}

/* The segment's loop was found, and with it the CFrame there: it names the next. */
static __always_inline void python_passed(struct python_state *py, struct unwind_state *u)
{
	if (py->cframe_previous != PYTHON_NONE && py->cframe &&
	    !stack_word(u, py->cframe + py->cframe_previous, &py->cframe))
		py->cframe = 0;
	python_seek(py);
}

/* Puts the next segment, or all that is left, into the stack. */
__noinline int python_emit(struct task_state *task, int all)
{
	struct python_state *py;
	struct event_stack *s;
	__u32 end, at, n;

	if (!task)
		return 0;
	py = &task->python;
	s = &task->stack;
	end = all ? py->count : py->ends[py->segment_next & (PYTHON_SEGMENTS_MAX - 1)];
	n = s->frame_count;
	py->segment_next++;
	at = py->next;
	for (__u32 i = 0; i < PYTHON_FRAMES_MAX; i++) {
		__u64 frame;

		/* Or clang counts with pointers, whose bounds the verifier loses. */
		barrier_var(at);
		barrier_var(n);
		if (at >= end || at >= PYTHON_FRAMES_MAX || n >= STACK_FRAMES_MAX)
			break;
		frame = py->frames[at];
		s->frames[n] = frame;
		frames_hash_add(&task->hash, python_hashed(py->slot, frame));
		at++;
		n++;
	}
	py->next = at;
	s->frame_count = n;
	return 0;
}

/* The contents of the str at @string: bytes copied to @to, and what they are. */
static __always_inline void code_string(const struct python_walk *w, __u64 string, __u8 *to,
					__u32 room, struct event_string *out)
{
	struct {
		__u64 length;
		__u64 hash;
		__u64 state;
	} head = {};
	__u64 bytes;
	__u32 n;

	out->length = out->state = out->bytes = 0;
	if (!string ||
	    bpf_probe_read_user(&head, sizeof(head), (void *)(string + PYTHON_STRING_LENGTH)))
		return;
	out->state = head.state;
	out->length = head.length > 0xffffffff ? 0xffffffff : head.length;
	bytes = head.length * (head.state >> 2 & 7);
	n = bytes > room ? room : bytes;
	string += head.state >> 6 & 1 ? w->string_ascii : w->string_wide;
	barrier_var(n);
	if (n > room || bpf_probe_read_user(to, n, (void *)string))
		return;
	out->bytes = n;
}

static __always_inline void code_names(const struct python_walk *w, __u64 code,
				       struct event_code *e)
{
	__u16 name_at = w->code_qualname != PYTHON_NONE ? w->code_qualname : w->code_name;
	__u64 file = 0, name = 0;

	user_word(code + w->code_file, &file);
	user_word(code + name_at, &name);
	code_string(w, file, e->file_data, CODE_FILE_BYTES, &e->file);
	code_string(w, name, e->name_data, CODE_NAME_BYTES, &e->name);
}

/* Sends one piece; 1: there are more, 0: that was all, -1: it could not be sent. */
__noinline int code_piece(__u32 slot, __u32 tgid, __u64 code, __u32 piece)
{
	struct python_walk *w = bpf_map_lookup_elem(&python_walks, &slot);
	__u64 lines = 0, total = 0, from = (__u64)piece * CODE_LINES_BYTES;
	struct event_code *e;
	__u32 n;

	if (!w)
		return -1;
	e = bpf_ringbuf_reserve(&ring, sizeof(*e), 0);
	if (!e) {
		count(COUNT_RING_FULL);
		return -1;
	}
	event_init(&e->head, EVENT_CODE, slot, tgid);
	e->code = code;
	e->first_line = 0;
	bpf_probe_read_user(&e->first_line, sizeof(e->first_line), (void *)(code + w->code_line));
	e->piece = piece;
	e->file.bytes = e->name.bytes = 0;
	if (!piece)
		code_names(w, code, e);
	if (!user_word(code + w->code_lines, &lines) ||
	    !user_word(lines + PYTHON_BYTES_SIZE, &total))
		total = 0;
	n = from >= total ? 0 : total - from > CODE_LINES_BYTES ? CODE_LINES_BYTES : total - from;
	barrier_var(n);
	if (n > CODE_LINES_BYTES ||
	    bpf_probe_read_user(e->lines, n, (void *)(lines + PYTHON_BYTES_DATA + from)))
		n = 0;
	e->lines_total = total > 0xffffffff ? 0xffffffff : total;
	e->lines_bytes = n;
	bpf_ringbuf_submit(e, 0);
	return from + CODE_LINES_BYTES < total;
}

/* Makes sure that the loader knows the code object of @frame. */
__noinline int code_announce(__u32 slot, __u32 tgid, __u64 frame)
{
	struct python_walk *w = bpf_map_lookup_elem(&python_walks, &slot);
	struct python_code_key key = {.code = python_frame_code(frame), .slot = slot};
	__u32 *epoch = python_epoch(slot, key.code), *known, now;
	int more = 1;

	if (!epoch || !w)
		return 0;
	key.serial = w->serial;
	now = *epoch;
	known = bpf_map_lookup_elem(&python_codes, &key);
	if (known && *known == now)
		return 0;
	for (__u32 piece = 0; piece < CODE_PIECES_MAX && more > 0; piece++)
		more = code_piece(slot, tgid, key.code, piece);
	if (more < 0) {
		count(COUNT_CODE_LOST);
		return 0;
	}
	bpf_map_update_elem(&python_codes, &key, &now, BPF_ANY);
	__sync_fetch_and_add(&python_codes_told, 1);
	return 0;
}

/* A code object is no more; the next one at its address is another. */
static __always_inline void code_died(__u32 slot, __u64 code)
{
	struct python_walk *w = bpf_map_lookup_elem(&python_walks, &slot);
	struct python_code_key key = {.code = code, .slot = slot};
	__u32 *epoch;

	if (!w)
		return;
	key.serial = w->serial;
	/* No stack shows one that is not known, unless others may have driven it out. */
	if (bpf_map_delete_elem(&python_codes, &key) && python_codes_told < PYTHON_CODES_MAX / 2)
		return;
	epoch = python_epoch(slot, code);
	if (epoch)
		__sync_fetch_and_add(epoch, 1);
}

#endif
