/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A mapping can name its table before that is there, because a table's place and the
 * address it counts from follow from the program headers alone; so a table that is
 * loaded, or taken out, changes nothing in the mappings of the processes.
 */
#include "unwind/unwinder.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "bpf/unwind_store.h"
#include "live_table.h"
#include "sym/addr_space.h"
#include "sym/object.h"
#include "unwind/table_loader.h"
#include "unwind/table_set.h"
#include "unwind_table.h"

/* What a process holds references to. */
struct space_refs {
	size_t count;
	uint32_t ids[];
};

struct unwinder {
	struct unwind_store *store;
	struct table_loader *loader;
	struct table_set *tables; /* while it is locked; NULL else */
	uint32_t generation;
	size_t left_out;
	struct space_refs *refs[LIVE_PROC_MAX + 1];
	struct unwind_mappings space; /* put together here; too large for a stack */
};

static void lock(struct unwinder *u)
{
	u->tables = table_loader_lock(u->loader);
}

static void unlock(struct unwinder *u)
{
	u->tables = NULL;
	table_loader_unlock(u->loader);
}

const char *unwind_result_name(uint32_t result)
{
	static const char *const names[UNWIND_RESULTS] = {
		[UNWIND_DEPTH] = "depth",	    [UNWIND_NOT_READY] = "not_ready",
		[UNWIND_NO_MAPPING] = "no_mapping", [UNWIND_NO_RULE] = "no_rule",
		[UNWIND_NO_FRAME] = "no_frame",	    [UNWIND_REGISTER] = "register",
		[UNWIND_STACK_READ] = "stack_read", [UNWIND_STACK_ORDER] = "stack_order",
		[UNWIND_PENDING] = "pending",
	};

	return result < UNWIND_RESULTS ? names[result] : NULL;
}

const char *unwind_result_text(uint32_t result)
{
	static const char *const texts[UNWIND_RESULTS] = {
		[UNWIND_DEPTH] = "deeper than 127 frames",
		[UNWIND_NOT_READY] = "taken before the process' mappings were known",
		[UNWIND_NO_MAPPING] = "a return address where no code is",
		[UNWIND_NO_RULE] = "code that its unwind information leaves out",
		[UNWIND_NO_FRAME] = "code without unwind information or frame pointer",
		[UNWIND_REGISTER] = "the frame hangs on a register that is not followed",
		[UNWIND_STACK_READ] = "stack memory could not be read",
		[UNWIND_STACK_ORDER] = "a caller's frame below its callee's",
		[UNWIND_PENDING] = "taken while the object's unwind table was being loaded",
	};

	return result < UNWIND_RESULTS ? texts[result] : NULL;
}

int unwinder_new(const struct kernel *k, size_t max_bytes, struct unwinder **out)
{
	struct unwinder *u = calloc(1, sizeof(*u));
	int err;

	if (!u)
		return -ENOMEM;
	err = unwind_store_new(k, &u->store);
	if (!err)
		err = table_loader_new(u->store, max_bytes, &u->loader);
	if (err) {
		unwinder_free(u);
		return err;
	}
	*out = u;
	return 0;
}

void unwinder_free(struct unwinder *u)
{
	if (!u)
		return;
	table_loader_free(u->loader);
	for (uint32_t i = 0; i <= LIVE_PROC_MAX; i++)
		free(u->refs[i]);
	unwind_store_free(u->store);
	free(u);
}

/* Locked. */
static void drop_refs(struct unwinder *u, uint32_t slot)
{
	struct space_refs *refs = u->refs[slot];

	for (size_t i = 0; refs && i < refs->count; i++) {
		struct table *t = table_set_at(u->tables, refs->ids[i]);

		if (!--t->references)
			t->used_s = clock_now_ns() / 1000000000u;
	}
	free(refs);
	u->refs[slot] = NULL;
}

/* Locked. The tables of u->space are @slot's now. Without memory they are nobody's,
 * and live as long as they are used. */
static void take_refs(struct unwinder *u, uint32_t slot)
{
	struct space_refs *refs = malloc(sizeof(*refs) + u->space.count * sizeof(refs->ids[0]));

	for (size_t i = 0; refs && i < u->space.count; i++) {
		if (u->space.items[i].table)
			table_set_at(u->tables, u->space.items[i].table)->references++;
	}
	drop_refs(u, slot);
	if (!refs)
		return;
	refs->count = 0;
	for (size_t i = 0; i < u->space.count; i++) {
		if (u->space.items[i].table)
			refs->ids[refs->count++] = u->space.items[i].table;
	}
	u->refs[slot] = refs;
}

/* Locked. NULL when there are too many objects. */
static struct table *table_of(struct unwinder *u, const struct object *object)
{
	struct table *t = table_set_get(u->tables, object);

	if (t && t->renewed) {
		unwind_store_renew(u->store, t->id);
		t->renewed = false;
	}
	return t;
}

/* Tables count addresses from here. */
static int object_bias(const struct object *object, uint64_t *bias)
{
	uint64_t code;
	int err = object_code_start(object, &code);

	if (!err)
		*bias = code / UNWIND_BLOCK_BYTES * UNWIND_BLOCK_BYTES;
	return err;
}

/* Locked. The last mapping grows over one that follows it, when both are code made
 * at run time: JITs map theirs in thousands of pieces. When room is short, gaps
 * between the pieces count as theirs. */
static bool join_last(struct unwinder *u, const struct unwind_mapping *m)
{
	bool crowded = u->space.count > UNWIND_MAPPINGS_MAX / 2;
	struct unwind_mapping *last;

	if (!u->space.count || m->table)
		return false;
	last = &u->space.items[u->space.count - 1];
	if (last->table || (last->end != m->start && !crowded))
		return false;
	last->end = m->end;
	return true;
}

/* Locked. */
static void add_mapping(struct unwinder *u, uint64_t start, uint64_t end,
			const struct addr_location *where)
{
	struct unwind_mapping m = {.start = start, .end = end};
	struct table *t;
	uint64_t bias;

	if (where->object && !object_bias(where->object, &bias)) {
		t = table_of(u, where->object);
		if (t) {
			m.table = t->id;
			m.base = start - (where->vaddr - bias);
			m.inode = (uint32_t)object_inode(where->object);
		}
	}
	if (join_last(u, &m))
		return;
	if (u->space.count == UNWIND_MAPPINGS_MAX)
		u->left_out++;
	else
		u->space.items[u->space.count++] = m;
}

int unwinder_update(struct unwinder *u, uint32_t slot, const struct addr_space *as)
{
	struct addr_location where;
	uint64_t start, end;

	if (slot > LIVE_PROC_MAX)
		return -EINVAL;
	u->space.count = 0;
	u->space.generation = ++u->generation;
	lock(u);
	for (size_t i = 0; i < addr_space_count(as); i++) {
		if (addr_space_at(as, i, &start, &end, &where))
			add_mapping(u, start, end, &where);
	}
	take_refs(u, slot);
	unlock(u);
	return unwind_store_space(u->store, slot, &u->space);
}

void unwinder_forget(struct unwinder *u, uint32_t slot)
{
	if (slot > LIVE_PROC_MAX)
		return;
	lock(u);
	drop_refs(u, slot);
	unlock(u);
	unwind_store_forget(u->store, slot);
}

void unwinder_want(struct unwinder *u, uint64_t frame)
{
	lock(u);
	table_loader_want(u->loader, table_set_at(u->tables, unwind_frame_table(frame)), true);
	unlock(u);
}

int unwinder_locate(struct unwinder *u, uint64_t frame, const struct object **object,
		    uint64_t *vaddr)
{
	const struct table *t;
	uint64_t bias;
	int err = -ENOENT;

	lock(u);
	t = table_set_at(u->tables, unwind_frame_table(frame));
	if (t)
		err = object_bias(t->object, &bias);
	if (!err) {
		*object = t->object;
		*vaddr = bias + (uint32_t)frame;
	}
	unlock(u);
	return err;
}

int unwinder_frame(struct unwinder *u, const struct object *object, uint64_t vaddr, uint64_t *frame)
{
	const struct table *t;
	uint64_t bias;
	int err = object_bias(object, &bias);

	if (err)
		return err;
	if (vaddr < bias || (vaddr - bias) >> 32)
		return -ERANGE;
	lock(u);
	t = table_of(u, object);
	if (t)
		*frame = UNWIND_FRAME_IN_TABLE | (uint64_t)t->id << 32 | (vaddr - bias);
	unlock(u);
	return t ? 0 : -ENOSPC;
}

void unwinder_prefetch(struct unwinder *u, const struct addr_space *as)
{
	struct addr_location where;
	uint64_t start, end;
	bool room;

	lock(u);
	room = table_loader_has_room(u->loader);
	for (size_t i = 0; room && i < addr_space_count(as); i++) {
		if (addr_space_at(as, i, &start, &end, &where) && where.object)
			table_loader_want(u->loader, table_of(u, where.object), false);
	}
	unlock(u);
}

bool unwinder_wait(struct unwinder *u, int timeout_ms)
{
	return table_loader_wait(u->loader, timeout_ms);
}

void unwinder_tick(struct unwinder *u)
{
	table_loader_tick(u->loader);
}

void unwinder_stats(struct unwinder *u, struct unwinder_stats *out)
{
	table_loader_stats(u->loader, out);
	out->mappings_left_out = u->left_out;
}
