/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "account/stack_rows.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "account/ledger.h"
#include "account/snapshot.h"
#include "base/arena.h"
#include "sym/object.h"
#include "sym/symbolizer.h"
#include "unwind/unwinder.h"

#define INLINE_MAX 16
#define UNKNOWN_STACK_ID 1 /* merged id of blocks whose stack was not recorded */

/* A row while it is put together. */
struct row {
	const struct ledger_stack *example; /* any of its stacks; NULL: not recorded */
	struct snapshot_stack out;
	uint64_t oldest_birth_ns;
	size_t process_capacity;
};

struct rows {
	struct arena *arena;
	struct row *items;
	size_t count, capacity;
	uint32_t *index; /* hash of merged id -> row + 1, 0: empty */
	size_t index_size;
};

static int rows_init(struct rows *r, struct arena *arena, size_t capacity)
{
	r->arena = arena;
	r->capacity = capacity;
	for (r->index_size = 64; r->index_size < capacity * 2; r->index_size *= 2)
		;
	r->items = calloc(capacity, sizeof(*r->items));
	r->index = calloc(r->index_size, sizeof(*r->index));
	return r->items && r->index ? 0 : -ENOMEM;
}

static void rows_release(struct rows *r)
{
	free(r->items);
	free(r->index);
}

/* The row of @merged_id, made if it is new; NULL when there is no room. */
static struct row *rows_get(struct rows *r, uint64_t merged_id)
{
	size_t at = merged_id & (r->index_size - 1);
	struct row *row;

	while (r->index[at]) {
		row = &r->items[r->index[at] - 1];
		if (row->out.id == merged_id)
			return row;
		at = (at + 1) & (r->index_size - 1);
	}
	if (r->count == r->capacity)
		return NULL;
	row = &r->items[r->count++];
	row->out.id = merged_id;
	row->oldest_birth_ns = UINT64_MAX;
	r->index[at] = (uint32_t)r->count;
	return row;
}

/* A process can have several stacks in one row (the part that differs was cut).
 * Looking 64 back finds it again without a search that grows with the row. */
static int row_add_pid(struct rows *r, struct row *row, pid_t pid)
{
	for (size_t i = row->out.pid_count; i && i + 64 > row->out.pid_count; i--) {
		if (row->out.pids[i - 1] == pid)
			return 0;
	}
	if (row->out.pid_count == row->process_capacity) {
		size_t capacity = row->process_capacity ? row->process_capacity * 2 : 4;
		pid_t *pids = arena_alloc(r->arena, capacity, sizeof(*pids));

		if (!pids)
			return -ENOMEM;
		if (row->out.pid_count)
			memcpy(pids, row->out.pids, row->out.pid_count * sizeof(*pids));
		row->out.pids = pids;
		row->process_capacity = capacity;
	}
	row->out.pids[row->out.pid_count++] = pid;
	return 0;
}

static int row_add_stack(struct rows *r, struct row *row, const struct ledger_stack *s, pid_t pid)
{
	double slope = history_slope(&s->history);

	row->out.growth_bytes_per_s = row->example ? row->out.growth_bytes_per_s + slope : slope;
	row->example = s;
	row->out.live_bytes += s->live_bytes;
	row->out.live_blocks += s->live_blocks;
	row->out.allocated_bytes += s->allocated_bytes;
	row->out.allocated_blocks += s->allocated_blocks;
	row->out.freed_bytes += s->freed_bytes;
	row->out.freed_blocks += s->freed_blocks;
	row->out.domain = s->domain;
	if (s->oldest_birth_ns < row->oldest_birth_ns)
		row->oldest_birth_ns = s->oldest_birth_ns;
	return row_add_pid(r, row, pid);
}

static int collect(const struct ledger *l, struct rows *r)
{
	struct row *row;
	int err = 0;

	for (uint32_t i = 0; i < ledger_stack_limit(l) && !err; i++) {
		const struct ledger_stack *s = ledger_stack(l, i);
		const struct ledger_process *p = s ? ledger_process(l, s->slot) : NULL;

		if (!p || !s->live_blocks)
			continue;
		row = rows_get(r, s->merged_id);
		err = row ? row_add_stack(r, row, s, p->pid) : -ENOMEM;
	}
	for (uint32_t i = 0; i < ledger_slot_limit(l) && !err; i++) {
		const struct ledger_process *p = ledger_process(l, i);

		if (!p || !p->unknown_blocks)
			continue;
		row = rows_get(r, UNKNOWN_STACK_ID);
		if (!row)
			return -ENOMEM;
		row->out.live_bytes += p->unknown_bytes;
		row->out.live_blocks += p->unknown_blocks;
		row->out.growth_bytes_per_s = NAN;
		err = row_add_pid(r, row, p->pid);
	}
	return err;
}

static int by_live(const void *a, const void *b)
{
	const struct row *x = a, *y = b;

	if (x->out.live_bytes != y->out.live_bytes)
		return x->out.live_bytes < y->out.live_bytes ? 1 : -1;
	return (x->out.id > y->out.id) - (x->out.id < y->out.id);
}

/* What is too young to have a growth comes last. */
static int by_growth(const void *a, const void *b)
{
	const struct row *x = a, *y = b;
	double gx = isnan(x->out.growth_bytes_per_s) ? -INFINITY : x->out.growth_bytes_per_s;
	double gy = isnan(y->out.growth_bytes_per_s) ? -INFINITY : y->out.growth_bytes_per_s;

	if (gx != gy)
		return gx < gy ? 1 : -1;
	return by_live(a, b);
}

/* Frames of one address, innermost first; returns how many. */
static size_t name_frame(struct symbolizer *sym, const struct frame_ref *ref, struct frame *out)
{
	size_t n = 0;

	memset(out, 0, INLINE_MAX * sizeof(*out));
	if (ref->object)
		n = symbolizer_resolve(sym, ref->object, ref->vaddr - 1, out, INLINE_MAX);
	if (!n) {
		out->module = ref->object ? object_path(ref->object) : ref->name;
		n = 1;
	}
	for (size_t i = 0; i < n; i++)
		out[i].address = ref->address;
	return n;
}

static int name_frames(struct arena *a, struct symbolizer *sym, const struct ledger_stack *s,
		       struct snapshot_stack *out)
{
	struct frame frames[INLINE_MAX];
	size_t room = s->frame_count * INLINE_MAX;
	struct frame *all = calloc(room + 1, sizeof(*all));

	if (!all)
		return -ENOMEM;
	for (size_t i = 0; i < s->frame_count; i++) {
		size_t n = name_frame(sym, &s->frames[i], frames);

		memcpy(&all[out->frame_count], frames, n * sizeof(*frames));
		out->frame_count += n;
	}
	out->frames = arena_alloc(a, out->frame_count + 1, sizeof(*all));
	if (out->frames)
		memcpy(out->frames, all, out->frame_count * sizeof(*all));
	free(all);
	return out->frames ? 0 : -ENOMEM;
}

static const char *why_cut(const struct ledger_stack *s)
{
	return s ? unwind_result_text(s->result) : "the stack could not be recorded";
}

static int publish(const struct rows *r, struct symbolizer *sym, struct snapshot *s, size_t top,
		   double now_ns)
{
	size_t n = r->count < top ? r->count : top;
	int err = 0;

	s->stack_count_all = r->count;
	s->stacks = arena_alloc(s->arena, n + 1, sizeof(*s->stacks));
	if (!s->stacks)
		return -ENOMEM;
	for (size_t i = 0; i < n && !err; i++) {
		const struct row *row = &r->items[i];
		struct snapshot_stack *out = &s->stacks[s->stack_count++];

		*out = row->out;
		if (row->oldest_birth_ns != UINT64_MAX)
			out->oldest_s = (now_ns - (double)row->oldest_birth_ns) / 1e9;
		out->incomplete = why_cut(row->example);
		if (row->example)
			err = name_frames(s->arena, sym, row->example, out);
	}
	return err;
}

int stack_rows_fill(const struct ledger *l, struct symbolizer *sym, struct snapshot *s,
		    bool by_growth_wanted, size_t top)
{
	struct rows rows = {0};
	struct timespec now;
	int err;

	clock_gettime(CLOCK_MONOTONIC, &now);
	err = rows_init(&rows, s->arena, (size_t)ledger_stack_limit(l) + 1);
	if (!err)
		err = collect(l, &rows);
	if (!err) {
		qsort(rows.items, rows.count, sizeof(*rows.items),
		      by_growth_wanted ? by_growth : by_live);
		err = publish(&rows, sym, s, top, (double)now.tv_sec * 1e9 + (double)now.tv_nsec);
	}
	rows_release(&rows);
	return err;
}
