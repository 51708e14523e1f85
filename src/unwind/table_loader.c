/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is published waits for grace periods of the kernel, some 10 ms each time, so
 * the thread collects what it has compiled meanwhile.
 */
#include "unwind/table_loader.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "bpf/unwind_store.h"
#include "sym/object.h"
#include "unwind/cfi.h"
#include "unwind/rule_set.h"
#include "unwind/unwinder.h"

#define BATCH_MAX 32u
#define BATCH_NS 15000000u /* compiling for longer than a grace period gains nothing */
#define IDLE_S 60	   /* a table that nobody maps stays for the next process that does */
#define RETRY_S 5
#define QUIET_MS 300 /* before time is spent on the whole of a large table */

struct table_loader {
	struct unwind_store *store;
	struct rule_set *rules; /* the thread's */
	uint32_t rules_sent;
	size_t max_bytes;

	pthread_mutex_t lock; /* for what follows */
	pthread_cond_t work, done;
	struct table_set *tables;
	uint32_t doomed[BATCH_MAX]; /* to be taken out */
	size_t doomed_count;
	size_t evicted;
	bool busy, stop;

	pthread_t thread;
	bool started;
};

/* One table on its way into the kernel. */
struct load {
	uint32_t id;
	const struct object *object;
	bool again; /* it is loaded, but unfinished */
	bool whole;
	int fd; /* negative: failed */
	size_t size_bytes;
};

static uint64_t now_s(void)
{
	return clock_now_ns() / 1000000000u;
}

/* Rules first: a row must never name a rule that is not there. */
static void send_rules(struct table_loader *l)
{
	uint32_t count = rule_set_count(l->rules);

	for (; l->rules_sent < count; l->rules_sent++) {
		struct unwind_rule rule = rule_set_get(l->rules, l->rules_sent);
		uint64_t bits;

		memcpy(&bits, &rule, sizeof(bits));
		unwind_store_rule(l->store, l->rules_sent, bits);
	}
}

static int send_words(const struct cfi_table *cfi)
{
	uint32_t blocks = cfi_table_block_count(cfi);
	uint32_t head[UNWIND_TABLE_HEAD] = {blocks, cfi_table_row_count(cfi)};
	const struct word_piece pieces[] = {
		{head, UNWIND_TABLE_HEAD},
		{cfi_table_first_rows(cfi), (size_t)blocks + 1},
		{cfi_table_rows(cfi), cfi_table_row_count(cfi)},
	};

	return unwind_store_words(pieces, sizeof(pieces) / sizeof(pieces[0]));
}

/* A table for an object of which nothing is known, so that its code is followed by the
 * frame pointer; or of which too much is: its code is UNWIND_RULE_UNKNOWN. */
static int send_nothing(bool too_large)
{
	static const uint32_t none[UNWIND_TABLE_HEAD];
	static const uint32_t unknown[UNWIND_TABLE_HEAD + 2] = {1};
	const struct word_piece pieces[] = {
		{too_large ? unknown : none, too_large ? UNWIND_TABLE_HEAD + 2 : UNWIND_TABLE_HEAD},
	};

	return unwind_store_words(pieces, 1);
}

static void compile(struct table_loader *l, struct load *load)
{
	struct cfi_table *cfi = NULL;
	uint64_t start_ns = clock_now_ns();
	int err = load->again ? cfi_table_read(object_fd(load->object), l->rules, &cfi)
			      : cfi_table_read_quick(object_fd(load->object), l->rules, &cfi);

	load->whole = err || cfi_table_is_whole(cfi);
	if (!err && cfi_table_bytes(cfi) > l->max_bytes)
		err = -EFBIG;
	if (err) {
		log_debug("%s: no unwind table: %s", object_path(load->object), strerror(-err));
		/* What is in use is better than nothing. */
		load->fd = load->again ? -1 : send_nothing(err == -EFBIG);
		load->size_bytes = 0;
	} else {
		send_rules(l);
		load->fd = send_words(cfi);
		load->size_bytes = cfi_table_bytes(cfi);
		log_debug("%s: unwind table of %zu KiB in %.1f ms", object_path(load->object),
			  load->size_bytes >> 10, (double)(clock_now_ns() - start_ns) / 1e6);
	}
	cfi_table_free(cfi);
}

/* Locked. Fills the list of tables to take out until @more bytes have room. */
static void make_room(struct table_loader *l, size_t more)
{
	size_t bytes = table_set_bytes(l->tables);

	while (bytes + more > l->max_bytes && l->doomed_count < BATCH_MAX) {
		struct table *t = table_set_victim(l->tables);

		if (!t)
			return;
		bytes -= t->size_bytes;
		t->size_bytes = 0;
		t->used_s = now_s();
		t->state = TABLE_OUT;
		l->doomed[l->doomed_count++] = t->id;
		l->evicted++;
	}
}

/* Locked on entry and return. */
static void withdraw_doomed(struct table_loader *l)
{
	while (l->doomed_count) {
		uint32_t id = l->doomed[--l->doomed_count];

		pthread_mutex_unlock(&l->lock);
		unwind_store_withdraw(l->store, id);
		pthread_mutex_lock(&l->lock);
	}
}

/* Locked. */
static bool take_wanted(struct table_loader *l, struct load *load)
{
	struct table *t = table_set_next_wanted(l->tables);

	if (!t)
		return false;
	t->state = TABLE_LOADING;
	*load = (struct load){.id = t->id, .object = t->object, .fd = -1};
	return true;
}

/* Locked. The same for a table that is in use meanwhile. */
static bool take_unfinished(struct table_loader *l, struct load *load)
{
	struct table *t = table_set_next_unfinished(l->tables);

	if (!t)
		return false;
	t->state = TABLE_LOADING;
	*load = (struct load){.id = t->id, .object = t->object, .fd = -1, .again = true};
	return true;
}

static size_t batch_bytes(const struct load *loads, size_t n)
{
	size_t sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += loads[i].size_bytes;
	return sum;
}

/* Locked. Its turn comes with the next batch: together they would break the bound. */
static void put_back(struct table_loader *l, struct load *load)
{
	if (load->fd >= 0)
		close(load->fd);
	table_set_at(l->tables, load->id)->state = TABLE_WANTED;
}

/* Locked on entry and return. Compiles the smallest tables first, for a while. */
static size_t compile_batch(struct table_loader *l, struct load loads[BATCH_MAX])
{
	uint64_t start_ns = clock_now_ns();
	size_t n = 0;

	while (n < BATCH_MAX && !l->stop && clock_now_ns() - start_ns < BATCH_NS &&
	       take_wanted(l, &loads[n])) {
		pthread_mutex_unlock(&l->lock);
		compile(l, &loads[n++]);
		pthread_mutex_lock(&l->lock);
		if (n > 1 && batch_bytes(loads, n) > l->max_bytes) {
			put_back(l, &loads[--n]);
			break;
		}
	}
	return n;
}

/* Not locked: this waits for the kernel. What cannot be published stays out. */
static void publish(struct table_loader *l, struct load *loads, size_t n)
{
	uint32_t ids[BATCH_MAX];
	int fds[BATCH_MAX], err;
	size_t count = 0;

	for (size_t i = 0; i < n; i++) {
		if (loads[i].fd < 0)
			continue;
		ids[count] = loads[i].id;
		fds[count++] = loads[i].fd;
	}
	err = count ? unwind_store_publish(l->store, ids, fds, count) : 0;
	if (err)
		log_debug("cannot store unwind tables: %s", strerror(-err));
	for (size_t i = 0; i < n; i++) {
		if (loads[i].fd >= 0)
			close(loads[i].fd);
		if (err)
			loads[i].fd = -1;
	}
}

/* Locked. */
static void settle(struct table_loader *l, const struct load *loads, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct table *t = table_set_at(l->tables, loads[i].id);
		bool failed = loads[i].fd < 0;

		t->unfinished = !failed && !loads[i].whole;
		t->used_s = now_s();
		t->state = failed && !loads[i].again ? TABLE_OUT : TABLE_LOADED;
		if (!failed || !loads[i].again)
			t->size_bytes = failed ? 0 : loads[i].size_bytes;
	}
}

/* Locked on entry and return. Whether there is any before @timeout_ms are over. */
static bool wait_for_work(struct table_loader *l, int timeout_ms)
{
	struct timespec end = clock_deadline(timeout_ms);

	while (!l->stop && !l->doomed_count && !table_set_next_wanted(l->tables)) {
		if (pthread_cond_timedwait(&l->work, &l->lock, &end) == ETIMEDOUT)
			return false;
	}
	return true;
}

/* Locked on entry and return. What can be improved waits until it has been quiet for a
 * while: it takes long, and who asks meanwhile has to wait. */
static size_t next_batch(struct table_loader *l, struct load loads[BATCH_MAX])
{
	size_t n = compile_batch(l, loads);

	if (n || l->doomed_count)
		return n;
	l->busy = false;
	pthread_cond_broadcast(&l->done);
	if (!table_set_next_unfinished(l->tables) || wait_for_work(l, QUIET_MS) ||
	    !take_unfinished(l, &loads[0]))
		return 0;
	pthread_mutex_unlock(&l->lock);
	compile(l, &loads[0]);
	pthread_mutex_lock(&l->lock);
	return 1;
}

static void *load_tables(void *arg)
{
	struct table_loader *l = arg;
	struct load loads[BATCH_MAX];
	size_t n;

	pthread_mutex_lock(&l->lock);
	while (!l->stop) {
		n = next_batch(l, loads);
		if (!n && !l->doomed_count) {
			if (!table_set_next_wanted(l->tables) && !l->stop)
				pthread_cond_wait(&l->work, &l->lock);
			continue;
		}
		make_room(l, batch_bytes(loads, n));
		withdraw_doomed(l);
		pthread_mutex_unlock(&l->lock);
		publish(l, loads, n);
		pthread_mutex_lock(&l->lock);
		settle(l, loads, n);
	}
	l->busy = false;
	pthread_cond_broadcast(&l->done);
	pthread_mutex_unlock(&l->lock);
	return NULL;
}

static int start_thread(struct table_loader *l)
{
	pthread_condattr_t monotonic;
	int err;

	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_mutex_init(&l->lock, NULL);
	pthread_cond_init(&l->work, &monotonic);
	pthread_cond_init(&l->done, &monotonic);
	pthread_condattr_destroy(&monotonic);
	err = pthread_create(&l->thread, NULL, load_tables, l);
	l->started = !err;
	return -err;
}

int table_loader_new(struct unwind_store *store, size_t max_bytes, struct table_loader **out)
{
	struct table_loader *l = calloc(1, sizeof(*l));
	int err;

	if (!l)
		return -ENOMEM;
	l->store = store;
	l->max_bytes = max_bytes;
	l->tables = table_set_new();
	err = l->tables ? rule_set_new(&l->rules) : -ENOMEM;
	if (!err)
		err = start_thread(l);
	if (err) {
		table_loader_free(l);
		return err;
	}
	*out = l;
	return 0;
}

static void stop_thread(struct table_loader *l)
{
	pthread_mutex_lock(&l->lock);
	l->stop = true;
	pthread_cond_signal(&l->work);
	pthread_mutex_unlock(&l->lock);
	pthread_join(l->thread, NULL);
	pthread_cond_destroy(&l->work);
	pthread_cond_destroy(&l->done);
	pthread_mutex_destroy(&l->lock);
}

void table_loader_free(struct table_loader *l)
{
	if (!l)
		return;
	if (l->started)
		stop_thread(l);
	rule_set_free(l->rules);
	table_set_free(l->tables);
	free(l);
}

struct table_set *table_loader_lock(struct table_loader *l)
{
	pthread_mutex_lock(&l->lock);
	return l->tables;
}

void table_loader_unlock(struct table_loader *l)
{
	pthread_mutex_unlock(&l->lock);
}

bool table_loader_has_room(const struct table_loader *l)
{
	return table_set_bytes(l->tables) < l->max_bytes / 2;
}

void table_loader_want(struct table_loader *l, struct table *t, bool urgent)
{
	if (t && t->state == TABLE_WANTED)
		t->urgent |= urgent;
	if (!t || t->state != TABLE_OUT)
		return;
	/* It failed, or went for another one to have room: not in a circle. */
	if (t->used_s && now_s() < t->used_s + RETRY_S)
		return;
	t->state = TABLE_WANTED;
	t->urgent = urgent;
	l->busy = true;
	pthread_cond_signal(&l->work);
}

bool table_loader_wait(struct table_loader *l, int timeout_ms)
{
	struct timespec end = clock_deadline(timeout_ms);
	bool idle;

	pthread_mutex_lock(&l->lock);
	while (l->busy && pthread_cond_timedwait(&l->done, &l->lock, &end) != ETIMEDOUT)
		;
	idle = !l->busy;
	pthread_mutex_unlock(&l->lock);
	return idle;
}

/* Locked. */
static void retire_idle(struct table_loader *l, struct table *t, uint64_t time_s)
{
	if (t->references || time_s < t->used_s + IDLE_S || l->doomed_count == BATCH_MAX)
		return;
	t->used_s = 0;
	t->state = TABLE_OUT;
	t->size_bytes = 0;
	l->doomed[l->doomed_count++] = t->id;
	l->busy = true;
	pthread_cond_signal(&l->work);
}

void table_loader_tick(struct table_loader *l)
{
	uint64_t time_s = now_s();

	pthread_mutex_lock(&l->lock);
	for (uint32_t id = 1; id < table_set_limit(l->tables); id++) {
		struct table *t = table_set_at(l->tables, id);

		if (t->state != TABLE_LOADED)
			continue;
		if (unwind_store_take_used(l->store, id))
			t->used_s = time_s;
		retire_idle(l, t, time_s);
	}
	pthread_mutex_unlock(&l->lock);
}

void table_loader_stats(struct table_loader *l, struct unwinder_stats *out)
{
	pthread_mutex_lock(&l->lock);
	*out = (struct unwinder_stats){
		.tables = table_set_count(l->tables, TABLE_LOADED),
		.table_bytes = table_set_bytes(l->tables),
		.loading = table_set_count(l->tables, TABLE_WANTED) +
			   table_set_count(l->tables, TABLE_LOADING),
		.evicted = l->evicted,
		.rules = __atomic_load_n(&l->rules_sent, __ATOMIC_RELAXED),
	};
	pthread_mutex_unlock(&l->lock);
}
