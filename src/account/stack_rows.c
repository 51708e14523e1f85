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
#include "python/code_store.h"
#include "sym/addr_space.h"
#include "sym/perf_map.h"
#include "unwind/unwinder.h"

#define UNKNOWN_STACK_ID 1 /* merged id of blocks whose stack was not recorded */

/* A row while it is put together. */
struct row {
	const struct ledger_stack *example; /* any of its stacks; NULL: not recorded */
	struct snapshot_stack out;
	struct estimate live;
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
	estimate_merge(&row->live, &s->live);
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

		if (!p || !s->live.recorded)
			continue;
		row = rows_get(r, s->merged_id);
		err = row ? row_add_stack(r, row, s, p->pid) : -ENOMEM;
	}
	for (uint32_t i = 0; i < ledger_slot_limit(l) && !err; i++) {
		const struct ledger_process *p = ledger_process(l, i);

		if (!p || !p->unknown.recorded)
			continue;
		row = rows_get(r, UNKNOWN_STACK_ID);
		if (!row)
			return -ENOMEM;
		estimate_merge(&row->live, &p->unknown);
		row->out.growth_bytes_per_s = NAN;
		err = row_add_pid(r, row, p->pid);
	}
	return err;
}

static int by_live(const void *a, const void *b)
{
	const struct row *x = a, *y = b;

	if (x->live.bytes != y->live.bytes)
		return x->live.bytes < y->live.bytes ? 1 : -1;
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

/* The frames are copied: the ledger and the process may be gone when they are named. */
static int copy_frames(const struct ledger *l, struct arena *a, const struct ledger_stack *s,
		       struct snapshot_stack *out)
{
	struct ledger_process *p = ledger_process(l, s->slot);
	struct frame_ref *refs = arena_alloc(a, s->frame_count + 1, sizeof(*refs));
	bool unnamed = false;

	if (!refs)
		return -ENOMEM;
	for (size_t i = 0; i < s->frame_count; i++) {
		refs[i] = s->frames[i];
		refs[i].name = arena_strdup(a, refs[i].name);
		if (refs[i].code)
			python_code_ref(refs[i].code);
		unnamed |= !refs[i].object && !refs[i].code;
	}
	out->refs = refs;
	out->ref_count = s->frame_count;
	if (unnamed && p && p->addr_space)
		out->perf_map = perf_map_ref(addr_space_perf_map(p->addr_space));
	return 0;
}

static const char *why_cut(const struct ledger_stack *s)
{
	if (!s)
		return "the stack could not be recorded";
	if (s->python_cut && s->result == UNWIND_COMPLETE)
		return "more Python frames than are taken";
	return unwind_result_text(s->result);
}

static int publish(const struct rows *r, const struct ledger *l, struct snapshot *s, size_t top,
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
		out->live_bytes = row->live.bytes;
		out->live_blocks = estimate_blocks(&row->live);
		out->live_bytes_ci95 = estimate_bytes_ci95(&row->live);
		out->live_blocks_ci95 = estimate_blocks_ci95(&row->live);
		if (row->oldest_birth_ns != UINT64_MAX)
			out->oldest_s = (now_ns - (double)row->oldest_birth_ns) / 1e9;
		out->incomplete = why_cut(row->example);
		if (row->example)
			err = copy_frames(l, s->arena, row->example, out);
	}
	return err;
}

/* Which of the published rows each stack is in. */
static void map_stacks(const struct ledger *l, struct rows *r, size_t published,
		       uint32_t *row_of_stack)
{
	struct row *row;

	memset(r->index, 0, r->index_size * sizeof(*r->index));
	for (size_t i = 0; i < published; i++) {
		size_t at = r->items[i].out.id & (r->index_size - 1);

		while (r->index[at])
			at = (at + 1) & (r->index_size - 1);
		r->index[at] = (uint32_t)i + 1;
	}
	r->count = r->capacity; /* rows_get() adds none */
	for (uint32_t i = 0; i < ledger_stack_limit(l); i++) {
		const struct ledger_stack *s = ledger_stack(l, i);

		row = s ? rows_get(r, s->merged_id) : NULL;
		row_of_stack[i] = row ? (uint32_t)(row - r->items) : UINT32_MAX;
	}
}

int stack_rows_fill(const struct ledger *l, struct snapshot *s, bool by_growth_wanted, size_t top,
		    uint32_t *row_of_stack)
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
		err = publish(&rows, l, s, top, (double)now.tv_sec * 1e9 + (double)now.tv_nsec);
	}
	if (!err && row_of_stack)
		map_stacks(l, &rows, s->stack_count, row_of_stack);
	rows_release(&rows);
	return err;
}
