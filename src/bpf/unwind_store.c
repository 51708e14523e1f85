/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "bpf/unwind_store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <bpf/bpf.h>

#include "bpf/kernel.h"
#include "unwind_table.h"

#define RULES (UNWIND_RULES_MAX + 1)

struct unwind_store {
	const struct kernel *kernel;
	uint64_t *rules; /* shared with the BPF programs */
};

static size_t page_round(size_t bytes)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	return (bytes + page - 1) / page * page;
}

static int map_fd(const struct unwind_store *s, enum kernel_map which)
{
	return kernel_map_fd(s->kernel, which);
}

int unwind_store_new(const struct kernel *k, struct unwind_store **out)
{
	struct unwind_store *s = calloc(1, sizeof(*s));
	int err;

	if (!s)
		return -ENOMEM;
	s->kernel = k;
	s->rules = mmap(NULL, page_round(RULES * sizeof(*s->rules)), PROT_READ | PROT_WRITE,
			MAP_SHARED, map_fd(s, MAP_UNWIND_RULES), 0);
	if (s->rules == MAP_FAILED) {
		err = -errno;
		free(s);
		return err;
	}
	*out = s;
	return 0;
}

void unwind_store_free(struct unwind_store *s)
{
	if (!s)
		return;
	munmap(s->rules, page_round(RULES * sizeof(*s->rules)));
	free(s);
}

void unwind_store_rule(struct unwind_store *s, uint32_t id, uint64_t rule)
{
	if (id < RULES)
		__atomic_store_n(&s->rules[id], rule, __ATOMIC_RELEASE);
}

/* An array of words that is filled through memory, not by a call a word. */
static int words_create(const struct word_piece *pieces, size_t count)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = BPF_F_MMAPABLE | BPF_F_INNER_MAP);
	size_t total = 0, at = 0;
	uint32_t *words;
	int fd;

	for (size_t i = 0; i < count; i++)
		total += pieces[i].count;
	fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "unwind_words", sizeof(uint32_t), sizeof(uint64_t),
			    (uint32_t)((total + 1) / 2), &opts);
	if (fd < 0)
		return -errno;
	words = mmap(NULL, page_round((total + 1) / 2 * 8), PROT_READ | PROT_WRITE, MAP_SHARED, fd,
		     0);
	if (words == MAP_FAILED) {
		int err = -errno;

		close(fd);
		return err;
	}
	for (size_t i = 0; i < count; i++)
		for (size_t j = 0; j < pieces[i].count; j++)
			words[at++] = pieces[i].words[j];
	munmap(words, page_round((total + 1) / 2 * 8));
	return fd;
}

int unwind_store_table(struct unwind_store *s, uint32_t table, const struct word_piece *pieces,
		       size_t count)
{
	int fd = words_create(pieces, count);
	int err = 0;

	if (fd < 0)
		return fd;
	if (bpf_map_update_elem(map_fd(s, MAP_UNWIND_TABLES), &table, &fd, BPF_ANY))
		err = -errno;
	close(fd); /* the outer map holds it */
	return err;
}

int unwind_store_space(struct unwind_store *s, uint32_t slot, const struct unwind_mappings *m)
{
	return bpf_map_update_elem(map_fd(s, MAP_UNWIND_SPACES), &slot, m, BPF_ANY) ? -errno : 0;
}

void unwind_store_forget(struct unwind_store *s, uint32_t slot)
{
	bpf_map_delete_elem(map_fd(s, MAP_UNWIND_SPACES), &slot);
}
