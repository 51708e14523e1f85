/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "unwind/unwinder.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "bpf/unwind_store.h"
#include "sym/addr_space.h"
#include "sym/object.h"
#include "target/procfs.h"
#include "unwind/cfi.h"
#include "unwind/rule_set.h"

/* All of a distribution's libraries together take 40 MiB. */
#define TABLE_BYTES_MAX (256u << 20)

struct table {
	const struct object *object; /* NULL: the vdso */
	uint64_t bias;
	uint32_t id; /* 0: it has no call frame information */
};

struct unwinder {
	struct unwind_store *store;
	struct rule_set *rules;
	uint32_t rules_sent;
	struct table *tables;
	size_t count, capacity;
	uint32_t next_id;
	uint32_t generation;
	size_t bytes, refused;
	struct unwind_mappings space; /* put together here; too large for a stack */
};

const char *unwind_result_name(uint32_t result)
{
	static const char *const names[UNWIND_RESULTS] = {
		[UNWIND_DEPTH] = "depth",	    [UNWIND_NOT_READY] = "not_ready",
		[UNWIND_NO_MAPPING] = "no_mapping", [UNWIND_NO_RULE] = "no_rule",
		[UNWIND_NO_FRAME] = "no_frame",	    [UNWIND_REGISTER] = "register",
		[UNWIND_STACK_READ] = "stack_read", [UNWIND_STACK_ORDER] = "stack_order",
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
	};

	return result < UNWIND_RESULTS ? texts[result] : NULL;
}

int unwinder_new(const struct kernel *k, struct unwinder **out)
{
	struct unwinder *u = calloc(1, sizeof(*u));
	int err;

	if (!u)
		return -ENOMEM;
	u->next_id = 1;
	err = rule_set_new(&u->rules);
	if (!err)
		err = unwind_store_new(k, &u->store);
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
	unwind_store_free(u->store);
	rule_set_free(u->rules);
	free(u->tables);
	free(u);
}

static struct table *table_find(struct unwinder *u, const struct object *object)
{
	for (size_t i = 0; i < u->count; i++) {
		if (u->tables[i].object == object)
			return &u->tables[i];
	}
	return NULL;
}

static struct table *table_add(struct unwinder *u, const struct object *object)
{
	struct table *t;

	if (u->count == u->capacity) {
		size_t capacity = u->capacity ? u->capacity * 2 : 64;

		t = realloc(u->tables, capacity * sizeof(*t));
		if (!t)
			return NULL;
		u->tables = t;
		u->capacity = capacity;
	}
	t = &u->tables[u->count++];
	*t = (struct table){.object = object};
	return t;
}

/* Rules first: a row must never name a rule that is not there. */
static void send_rules(struct unwinder *u)
{
	uint32_t count = rule_set_count(u->rules);

	for (; u->rules_sent < count; u->rules_sent++) {
		struct unwind_rule rule = rule_set_get(u->rules, u->rules_sent);
		uint64_t bits;

		memcpy(&bits, &rule, sizeof(bits));
		unwind_store_rule(u->store, u->rules_sent, bits);
	}
}

static int send_table(struct unwinder *u, struct table *t, const struct cfi_table *cfi)
{
	uint32_t blocks = cfi_table_block_count(cfi);
	uint32_t head[UNWIND_TABLE_HEAD] = {blocks, cfi_table_row_count(cfi)};
	const struct word_piece pieces[] = {
		{head, UNWIND_TABLE_HEAD},
		{cfi_table_first_rows(cfi), (size_t)blocks + 1},
		{cfi_table_rows(cfi), cfi_table_row_count(cfi)},
	};
	int err;

	if (u->next_id == UNWIND_TABLES_MAX || u->bytes + cfi_table_bytes(cfi) > TABLE_BYTES_MAX) {
		u->refused++;
		return -ENOSPC;
	}
	send_rules(u);
	err = unwind_store_table(u->store, u->next_id, pieces, 3);
	if (err)
		return err;
	u->bytes += cfi_table_bytes(cfi);
	t->bias = cfi_table_bias(cfi);
	t->id = u->next_id++;
	return 0;
}

/* Every process has the same vdso, so ours will do. */
static int compile_vdso(struct unwinder *u, struct cfi_table **out)
{
	struct maps_iter *it;
	struct mapping m;
	int err;

	err = maps_iter_new(getpid(), &it);
	if (err)
		return err;
	err = -ENOENT;
	while (maps_iter_next(it, &m) == 1) {
		if (strcmp(m.path, "[vdso]"))
			continue;
		err = cfi_table_read_memory((const void *)(uintptr_t)m.start, m.end - m.start,
					    u->rules, out);
		break;
	}
	maps_iter_free(it);
	return err;
}

static int compile(struct unwinder *u, const struct object *object, struct cfi_table **out)
{
	return object ? cfi_table_read(object_fd(object), u->rules, out) : compile_vdso(u, out);
}

static const struct table *table_get(struct unwinder *u, const struct object *object)
{
	struct table *t = table_find(u, object);
	struct cfi_table *cfi = NULL;
	int err;

	if (t)
		return t;
	t = table_add(u, object);
	if (!t)
		return NULL;
	err = compile(u, object, &cfi);
	if (!err)
		err = send_table(u, t, cfi);
	if (err)
		log_debug("%s: no unwind table: %s", object ? object_path(object) : "[vdso]",
			  strerror(-err));
	cfi_table_free(cfi);
	return t;
}

static void add_mapping(struct unwinder *u, uint64_t start, uint64_t end,
			const struct addr_location *where)
{
	bool is_vdso = !where->object && !strcmp(where->name, "[vdso]");
	const struct table *t = NULL;
	struct unwind_mapping *m;

	if (u->space.count == UNWIND_MAPPINGS_MAX)
		return;
	if (where->object || is_vdso)
		t = table_get(u, where->object);
	m = &u->space.items[u->space.count++];
	*m = (struct unwind_mapping){.start = start, .end = end};
	if (!t || !t->id)
		return;
	m->table = t->id;
	m->base = start - ((is_vdso ? 0 : where->vaddr) - t->bias);
}

int unwinder_update(struct unwinder *u, uint32_t slot, const struct addr_space *as)
{
	struct addr_location where;
	uint64_t start, end;

	u->space.count = 0;
	u->space.generation = ++u->generation;
	for (size_t i = 0; i < addr_space_count(as); i++) {
		addr_space_at(as, i, &start, &end, &where);
		add_mapping(u, start, end, &where);
	}
	return unwind_store_space(u->store, slot, &u->space);
}

void unwinder_forget(struct unwinder *u, uint32_t slot)
{
	unwind_store_forget(u->store, slot);
}

size_t unwinder_table_bytes(const struct unwinder *u)
{
	return u->bytes;
}

size_t unwinder_tables_refused(const struct unwinder *u)
{
	return u->refused;
}
