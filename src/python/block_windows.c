/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "python/block_windows.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#include "target/memory.h"

#define BATCH_BYTES (4u << 20)
#define WINDOW_BYTES_MAX (64u << 10)
#define WINDOWS_MAX 1024
#define GAP_BYTES_MAX 512 /* copying them costs no more than another piece */
#define NO_OFFSET UINT32_MAX

struct block_windows {
	pid_t pid;
	struct typed_block *const *blocks;
	size_t count, next, first; /* first: of the batch */
	size_t batch_count;
	struct memory_piece windows[WINDOWS_MAX];
	size_t window_first[WINDOWS_MAX + 1]; /* block of the batch it begins with */
	size_t window_count;
	uint32_t offsets[BLOCKS_A_BATCH]; /* in bytes[] */
	uint8_t bytes[BATCH_BYTES + BLOCK_BYTES_READ];
};

struct block_windows *block_windows_new(pid_t pid, struct typed_block *const *blocks, size_t count)
{
	struct block_windows *w = malloc(sizeof(*w));

	if (!w)
		return NULL;
	w->pid = pid;
	w->blocks = blocks;
	w->count = count;
	w->next = w->first = w->batch_count = w->window_count = 0;
	return w;
}

void block_windows_free(struct block_windows *w)
{
	free(w);
}

static uint64_t bytes_of(const struct typed_block *b)
{
	return b->size_bytes && b->size_bytes < BLOCK_BYTES_READ ? b->size_bytes : BLOCK_BYTES_READ;
}

/* Puts block @b into the last window or begins another; false: the batch is full. */
static bool place(struct block_windows *w, const struct typed_block *b, size_t *used)
{
	struct memory_piece *last = w->window_count ? &w->windows[w->window_count - 1] : NULL;
	uint64_t bytes = bytes_of(b), end = last ? last->address + last->bytes : 0;

	if (last && b->address < end + GAP_BYTES_MAX && b->address >= last->address &&
	    b->address - last->address < WINDOW_BYTES_MAX) {
		size_t grown = (size_t)(b->address + bytes - last->address);

		if (grown <= last->bytes)
			return true;
		if (*used + grown - last->bytes > BATCH_BYTES)
			return false;
		*used += grown - last->bytes;
		last->bytes = grown;
		return true;
	}
	if (w->window_count == WINDOWS_MAX || *used + bytes > BATCH_BYTES)
		return false;
	w->window_first[w->window_count] = w->batch_count;
	w->windows[w->window_count++] =
		(struct memory_piece){b->address, w->bytes + *used, bytes, 0};
	*used += bytes;
	return true;
}

static void plan_batch(struct block_windows *w)
{
	size_t used = 0;

	w->first = w->next;
	w->batch_count = w->window_count = 0;
	while (w->next < w->count && w->batch_count < BLOCKS_A_BATCH) {
		const struct typed_block *b = w->blocks[w->next];

		if (!place(w, b, &used))
			break;
		w->offsets[w->batch_count++] =
			(uint32_t)((const uint8_t *)w->windows[w->window_count - 1].to - w->bytes +
				   (b->address - w->windows[w->window_count - 1].address));
		w->next++;
	}
	w->window_first[w->window_count] = w->batch_count;
}

/* The blocks of a window in which something is not mapped, one by one. */
static int read_single(struct block_windows *w, size_t window)
{
	for (size_t i = w->window_first[window]; i < w->window_first[window + 1]; i++) {
		const struct typed_block *b = w->blocks[w->first + i];
		int err = memory_read(w->pid, b->address, w->bytes + w->offsets[i], bytes_of(b));

		if (err == -EFAULT)
			w->offsets[i] = NO_OFFSET;
		else if (err)
			return err;
	}
	return 0;
}

ssize_t block_windows_next(struct block_windows *w, size_t *first)
{
	int err;

	plan_batch(w);
	if (!w->batch_count)
		return 0;
	err = memory_read_many(w->pid, w->windows, w->window_count);
	for (size_t i = 0; !err && i < w->window_count; i++)
		if (w->windows[i].err)
			err = read_single(w, i);
	if (err)
		return err;
	*first = w->first;
	return (ssize_t)w->batch_count;
}

const uint8_t *block_windows_at(const struct block_windows *w, size_t nth)
{
	return w->offsets[nth] == NO_OFFSET ? NULL : w->bytes + w->offsets[nth];
}
