/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tracees.h"

#include <stdlib.h>

#include "probe/prober.h"
#include "sym/addr_space.h"

struct tracees {
	struct tracee **items;
	size_t count, capacity;
};

struct tracees *tracees_new(void)
{
	return calloc(1, sizeof(struct tracees));
}

static void tracee_free(struct tracee *tracee)
{
	attachments_free(tracee->attachments);
	addr_space_free(tracee->addr_space);
	free(tracee);
}

void tracees_free(struct tracees *t)
{
	if (!t)
		return;
	for (size_t i = 0; i < t->count; i++)
		tracee_free(t->items[i]);
	free(t->items);
	free(t);
}

static int make_room(struct tracees *t)
{
	size_t capacity = t->capacity ? t->capacity * 2 : 16;
	struct tracee **items;

	if (t->count < t->capacity)
		return 0;
	items = realloc(t->items, capacity * sizeof(struct tracee *));
	if (!items)
		return -1;
	t->items = items;
	t->capacity = capacity;
	return 0;
}

struct tracee *tracees_add(struct tracees *t, const struct process *process, uint32_t slot,
			   struct attachments *attachments, struct addr_space *as)
{
	struct tracee *tracee = calloc(1, sizeof(*tracee));

	if (!tracee || !attachments || !as || make_room(t)) {
		free(tracee);
		attachments_free(attachments);
		addr_space_free(as);
		return NULL;
	}
	tracee->process = *process;
	tracee->slot = slot;
	tracee->attachments = attachments;
	tracee->addr_space = as;
	t->items[t->count++] = tracee;
	return tracee;
}

void tracees_remove(struct tracees *t, struct tracee *tracee)
{
	for (size_t i = 0; i < t->count; i++) {
		if (t->items[i] != tracee)
			continue;
		t->items[i] = t->items[--t->count];
		tracee_free(tracee);
		return;
	}
}

struct tracee *tracees_by_pid(const struct tracees *t, pid_t pid)
{
	for (size_t i = 0; i < t->count; i++) {
		if (t->items[i]->process.pid == pid && !t->items[i]->exited)
			return t->items[i];
	}
	return NULL;
}

struct tracee *tracees_by_slot(const struct tracees *t, uint32_t slot)
{
	for (size_t i = 0; i < t->count; i++) {
		if (t->items[i]->slot == slot && !t->items[i]->exited)
			return t->items[i];
	}
	return NULL;
}

size_t tracees_alive(const struct tracees *t)
{
	size_t alive = 0;

	for (size_t i = 0; i < t->count; i++)
		alive += !t->items[i]->exited;
	return alive;
}

size_t tracees_count(const struct tracees *t)
{
	return t->count;
}

struct tracee *tracees_at(const struct tracees *t, size_t i)
{
	return t->items[i];
}
