/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "account/cut_stacks.h"

#include <stdlib.h>
#include <string.h>

#include "unwind_maps.h"

#define KINDS_MAX 512u
#define OTHERS "[others]"

struct cut_stacks {
	size_t count;
	struct cut_stack items[KINDS_MAX + UNWIND_RESULTS_MAX]; /* the last for "[others]" */
};

struct cut_stacks *cut_stacks_new(void)
{
	return calloc(1, sizeof(struct cut_stacks));
}

void cut_stacks_free(struct cut_stacks *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < c->count; i++)
		free((char *)c->items[i].object);
	free(c);
}

static struct cut_stack *find(struct cut_stacks *c, const char *object, uint32_t result)
{
	for (size_t i = 0; i < c->count; i++) {
		if (c->items[i].result == result && !strcmp(c->items[i].object, object))
			return &c->items[i];
	}
	return NULL;
}

static struct cut_stack *add(struct cut_stacks *c, const char *object, uint32_t result)
{
	char *copy = strdup(object);

	if (!copy)
		return NULL;
	c->items[c->count] = (struct cut_stack){.object = copy, .result = result};
	return &c->items[c->count++];
}

void cut_stacks_add(struct cut_stacks *c, const char *object, uint32_t result, uint64_t count)
{
	struct cut_stack *cut;

	if (result >= UNWIND_RESULTS_MAX)
		return;
	cut = find(c, object, result);
	if (!cut && c->count >= KINDS_MAX) {
		object = OTHERS;
		cut = find(c, object, result);
	}
	if (!cut)
		cut = add(c, object, result);
	if (cut)
		cut->count += count;
}

size_t cut_stacks_count(const struct cut_stacks *c)
{
	return c->count;
}

const struct cut_stack *cut_stacks_at(const struct cut_stacks *c, size_t i)
{
	return &c->items[i];
}
