/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "account/snapshot_names.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "account/snapshot.h"
#include "base/arena.h"
#include "python/code_store.h"
#include "sym/object.h"
#include "sym/perf_map.h"
#include "sym/symbolizer.h"

#define INLINE_MAX 16 /* frames of one address */
#define JIT_NAME_BYTES 512

/* Code that was made at run time, by what its maker says of it. */
static void name_jit(struct arena *a, struct perf_map *map, const struct frame_ref *ref,
		     struct frame *out)
{
	char name[JIT_NAME_BYTES];
	uint64_t start;

	out->module = ref->name;
	if (!map || perf_map_find(map, ref->address - 1, name, sizeof(name), &start))
		return;
	out->function = arena_strdup(a, name);
	out->func_offset = ref->address - 1 - start;
}

static void name_python(struct arena *a, const struct frame_ref *ref, struct frame *out)
{
	out->lang = FRAME_PYTHON;
	out->function = arena_strdup(a, python_code_function(ref->code));
	out->file = arena_strdup(a, python_code_file(ref->code));
	out->module = "python";
	out->line = python_code_line(ref->code, ref->unit);
}

/* Frames of one address, innermost first; returns how many. */
static size_t name_frame(struct arena *a, struct symbolizer *sym, struct perf_map *map,
			 const struct frame_ref *ref, struct frame *out)
{
	size_t n = 1;

	memset(out, 0, INLINE_MAX * sizeof(*out));
	if (ref->code)
		name_python(a, ref, out);
	else if (ref->object)
		n = symbolizer_resolve(sym, ref->object, ref->vaddr - 1, out, INLINE_MAX);
	else
		name_jit(a, map, ref, out);
	if (!n) {
		out->module = object_path(ref->object);
		n = 1;
	}
	for (size_t i = 0; i < n; i++)
		out[i].address = ref->address;
	return n;
}

static bool has_python(const struct snapshot_stack *stack)
{
	for (size_t i = 0; i < stack->ref_count; i++) {
		if (stack->refs[i].code)
			return true;
	}
	return false;
}

static int name_stack(struct arena *a, struct symbolizer *sym, struct snapshot_stack *stack)
{
	struct frame *all = calloc(stack->ref_count * INLINE_MAX + 1, sizeof(*all));
	bool python = has_python(stack);
	size_t count = 0;

	if (!all)
		return -ENOMEM;
	for (size_t i = 0; i < stack->ref_count; i++) {
		const struct frame_ref *ref = &stack->refs[i];
		size_t n = name_frame(a, sym, stack->perf_map, ref, &all[count]);

		for (size_t j = count; python && j < count + n; j++)
			all[j].interpreter = ref->object && object_is_interpreter(ref->object);
		count += n;
	}
	stack->frames = arena_alloc(a, count + 1, sizeof(*all));
	if (stack->frames) {
		memcpy(stack->frames, all, count * sizeof(*all));
		stack->frame_count = count;
	}
	free(all);
	return stack->frames ? 0 : -ENOMEM;
}

int snapshot_name(struct snapshot *s, struct symbolizer *sym)
{
	int err = 0;

	for (size_t i = 0; i < s->stack_count && !err; i++)
		err = name_stack(s->arena, sym, &s->stacks[i]);
	return err;
}
