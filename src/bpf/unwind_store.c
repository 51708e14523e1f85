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

#define CODE_MAX 65536 /* entries looked through */
#define RULES UNWIND_RULES_MAX

struct unwind_store {
	const struct kernel *kernel;
	uint64_t *rules, *used; /* shared with the BPF programs */
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

static int share(const struct unwind_store *s, enum kernel_map which, size_t count, uint64_t **out)
{
	void *p = mmap(NULL, page_round(count * sizeof(**out)), PROT_READ | PROT_WRITE, MAP_SHARED,
		       map_fd(s, which), 0);

	if (p == MAP_FAILED)
		return -errno;
	*out = p;
	return 0;
}

int unwind_store_new(const struct kernel *k, struct unwind_store **out)
{
	struct unwind_store *s = calloc(1, sizeof(*s));
	int err;

	if (!s)
		return -ENOMEM;
	s->kernel = k;
	err = share(s, MAP_UNWIND_RULES, RULES, &s->rules);
	if (!err)
		err = share(s, MAP_UNWIND_USED, UNWIND_TABLES_MAX, &s->used);
	if (err) {
		unwind_store_free(s);
		return err;
	}
	*out = s;
	return 0;
}

void unwind_store_free(struct unwind_store *s)
{
	if (!s)
		return;
	if (s->rules)
		munmap(s->rules, page_round(RULES * sizeof(*s->rules)));
	if (s->used)
		munmap(s->used, page_round(UNWIND_TABLES_MAX * sizeof(*s->used)));
	free(s);
}

void unwind_store_rule(struct unwind_store *s, uint32_t id, uint64_t rule)
{
	if (id < RULES)
		__atomic_store_n(&s->rules[id], rule, __ATOMIC_RELEASE);
}

/* Filled through memory, not by a call a word. */
int unwind_store_words(const struct word_piece *pieces, size_t count)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = BPF_F_MMAPABLE | BPF_F_INNER_MAP);
	size_t total = 0, at = 0, bytes;
	uint32_t *words;
	int fd;

	for (size_t i = 0; i < count; i++)
		total += pieces[i].count;
	bytes = page_round((total + 1) / 2 * sizeof(uint64_t));
	fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "unwind_words", sizeof(uint32_t), sizeof(uint64_t),
			    (uint32_t)((total + 1) / 2), &opts);
	if (fd < 0)
		return -errno;
	words = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (words == MAP_FAILED) {
		int err = -errno;

		close(fd);
		return err;
	}
	for (size_t i = 0; i < count; at += pieces[i++].count)
		memcpy(words + at, pieces[i].words, pieces[i].count * sizeof(*words));
	munmap(words, bytes);
	return fd;
}

int unwind_store_publish(struct unwind_store *s, const uint32_t *ids, const int *fds, size_t count)
{
	LIBBPF_OPTS(bpf_map_batch_opts, opts);
	int tables = map_fd(s, MAP_UNWIND_TABLES);
	uint32_t n = (uint32_t)count;

	if (!bpf_map_update_batch(tables, ids, fds, &n, &opts))
		return 0;
	/* Before Linux 5.19 there is no batch for maps of maps. */
	for (size_t i = 0; i < count; i++) {
		if (bpf_map_update_elem(tables, &ids[i], &fds[i], BPF_ANY))
			return -errno;
	}
	return 0;
}

void unwind_store_withdraw(struct unwind_store *s, uint32_t id)
{
	bpf_map_delete_elem(map_fd(s, MAP_UNWIND_TABLES), &id);
}

bool unwind_store_take_used(struct unwind_store *s, uint32_t id)
{
	return id < UNWIND_TABLES_MAX && __atomic_exchange_n(&s->used[id], 0, __ATOMIC_RELAXED);
}

void unwind_store_renew(struct unwind_store *s, uint32_t id)
{
	int fd = map_fd(s, MAP_UNWIND_CODE);
	struct code_key *at = NULL, key, next;
	struct code_place place;

	for (size_t i = 0; i < CODE_MAX && !bpf_map_get_next_key(fd, at, &next); i++) {
		if (at && !bpf_map_lookup_elem(fd, at, &place) && place.table == id)
			bpf_map_delete_elem(fd, at);
		key = next;
		at = &key;
	}
	if (at && !bpf_map_lookup_elem(fd, at, &place) && place.table == id)
		bpf_map_delete_elem(fd, at);
}

int unwind_store_space(struct unwind_store *s, uint32_t slot, const struct unwind_mappings *m)
{
	return bpf_map_update_elem(map_fd(s, MAP_UNWIND_SPACES), &slot, m, BPF_ANY) ? -errno : 0;
}

void unwind_store_forget(struct unwind_store *s, uint32_t slot)
{
	bpf_map_delete_elem(map_fd(s, MAP_UNWIND_SPACES), &slot);
}
