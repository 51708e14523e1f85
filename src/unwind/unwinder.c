/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Two threads: the caller's, which says who maps what and what is wanted, and the
 * loader, which compiles. A mapping can name its table before that is there,
 * because a table's place and the address it counts from follow from the program
 * headers alone; so a table that is loaded, or taken out, changes nothing
 * in the mappings of the processes.
 *
 * What the loader publishes waits for grace periods of the kernel, some 10 ms
 * each time, so it collects what it has compiled meanwhile.
 */
#include "unwind/unwinder.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "bpf/unwind_store.h"
#include "live_table.h"
#include "sym/addr_space.h"
#include "sym/object.h"
#include "unwind/cfi.h"
#include "unwind/rule_set.h"
#include "unwind/table_set.h"

#define BATCH_MAX 32u
#define BATCH_NS 15000000u /* compiling for longer than a grace period gains nothing */
#define IDLE_S 60	   /* a table that nobody maps stays for the next process that does */

#define RETRY_S 5
#define QUIET_MS 300 /* before time is spent on the whole of a large table */

/* What a process holds references to. */
struct space_refs {
	size_t count;
	uint32_t ids[];
};

struct unwinder {
	struct unwind_store *store;
	struct rule_set *rules; /* the loader's */
	uint32_t rules_sent;
	size_t max_bytes;

	pthread_mutex_t lock; /* for what follows, down to the blank line */
	pthread_cond_t work, done;
	struct table_set *tables;
	uint32_t doomed[BATCH_MAX];
	size_t doomed_count;
	size_t evicted;
	bool busy, stop;

	pthread_t loader;
	bool started;
	uint32_t generation;
	size_t left_out;
	struct space_refs *refs[LIVE_PROC_MAX + 1];
	struct unwind_mappings space; /* put together here; too large for a stack */
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

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t now_s(void)
{
	return now_ns() / 1000000000u;
}

static struct timespec deadline(int timeout_ms)
{
	uint64_t end_ns = now_ns() + (uint64_t)timeout_ms * 1000000u;

	return (struct timespec){(time_t)(end_ns / 1000000000u), (long)(end_ns % 1000000000u)};
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

/* An object without call frame information gets a table that says so. */
static void compile(struct unwinder *u, struct load *load)
{
	static const uint32_t nothing[UNWIND_TABLE_HEAD];
	const struct word_piece empty = {nothing, UNWIND_TABLE_HEAD};
	struct cfi_table *cfi = NULL;
	uint64_t start_ns = now_ns();
	int err = load->again ? cfi_table_read(object_fd(load->object), u->rules, &cfi)
			      : cfi_table_read_quick(object_fd(load->object), u->rules, &cfi);

	load->whole = err || cfi_table_is_whole(cfi);
	if (!err && cfi_table_bytes(cfi) > u->max_bytes)
		err = -EFBIG;
	if (err) {
		log_debug("%s: no unwind table: %s", object_path(load->object), strerror(-err));
		load->fd = unwind_store_words(&empty, 1);
		load->size_bytes = 0;
	} else {
		send_rules(u);
		load->fd = send_words(cfi);
		load->size_bytes = cfi_table_bytes(cfi);
		log_debug("%s: unwind table of %zu KiB in %.1f ms", object_path(load->object),
			  load->size_bytes >> 10, (double)(now_ns() - start_ns) / 1e6);
	}
	cfi_table_free(cfi);
}

/* Locked. Fills the list of tables to take out until @more bytes have room. */
static void make_room(struct unwinder *u, size_t more)
{
	size_t bytes = table_set_bytes(u->tables);

	while (bytes + more > u->max_bytes && u->doomed_count < BATCH_MAX) {
		struct table *t = table_set_victim(u->tables);

		if (!t)
			return;
		bytes -= t->size_bytes;
		t->size_bytes = 0;
		t->used_s = now_s();
		t->state = TABLE_OUT;
		u->doomed[u->doomed_count++] = t->id;
		u->evicted++;
	}
}

/* Locked on entry and return. */
static void withdraw_doomed(struct unwinder *u)
{
	while (u->doomed_count) {
		uint32_t id = u->doomed[--u->doomed_count];

		pthread_mutex_unlock(&u->lock);
		unwind_store_withdraw(u->store, id);
		pthread_mutex_lock(&u->lock);
	}
}

/* Locked. */
static bool take_wanted(struct unwinder *u, struct load *load)
{
	struct table *t = table_set_next_wanted(u->tables);

	if (!t)
		return false;
	t->state = TABLE_LOADING;
	*load = (struct load){.id = t->id, .object = t->object, .fd = -1};
	return true;
}

/* Locked. The same for a table that is in use meanwhile. */
static bool take_unfinished(struct unwinder *u, struct load *load)
{
	struct table *t = table_set_next_unfinished(u->tables);

	if (!t)
		return false;
	t->state = TABLE_LOADING;
	*load = (struct load){.id = t->id, .object = t->object, .fd = -1, .again = true};
	return true;
}

/* Locked on entry and return. Compiles the smallest tables first, for a while. */
static size_t compile_batch(struct unwinder *u, struct load loads[BATCH_MAX])
{
	uint64_t start_ns = now_ns();
	size_t n = 0;

	while (n < BATCH_MAX && !u->stop && now_ns() - start_ns < BATCH_NS &&
	       take_wanted(u, &loads[n])) {
		pthread_mutex_unlock(&u->lock);
		compile(u, &loads[n++]);
		pthread_mutex_lock(&u->lock);
	}
	return n;
}

/* Not locked: this waits for the kernel. What cannot be published stays out. */
static void publish(struct unwinder *u, struct load *loads, size_t n)
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
	err = count ? unwind_store_publish(u->store, ids, fds, count) : 0;
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
static void settle(struct unwinder *u, const struct load *loads, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct table *t = table_set_at(u->tables, loads[i].id);
		bool failed = loads[i].fd < 0;

		t->unfinished = !failed && !loads[i].whole;
		t->used_s = now_s();
		t->state = failed && !loads[i].again ? TABLE_OUT : TABLE_LOADED;
		if (!failed || !loads[i].again)
			t->size_bytes = failed ? 0 : loads[i].size_bytes;
	}
}

/* Locked on entry and return. Whether there is any before @timeout_ms are over. */
static bool wait_for_work(struct unwinder *u, int timeout_ms)
{
	struct timespec end = deadline(timeout_ms);

	while (!u->stop && !u->doomed_count && !table_set_next_wanted(u->tables)) {
		if (pthread_cond_timedwait(&u->work, &u->lock, &end) == ETIMEDOUT)
			return false;
	}
	return true;
}

/* Locked on entry and return. What can be improved waits until it has been quiet for a
 * while: it takes long, and who asks meanwhile has to wait. */
static size_t next_batch(struct unwinder *u, struct load loads[BATCH_MAX])
{
	size_t n = compile_batch(u, loads);

	if (n || u->doomed_count)
		return n;
	u->busy = false;
	pthread_cond_broadcast(&u->done);
	if (!table_set_next_unfinished(u->tables) || wait_for_work(u, QUIET_MS) ||
	    !take_unfinished(u, &loads[0]))
		return 0;
	pthread_mutex_unlock(&u->lock);
	compile(u, &loads[0]);
	pthread_mutex_lock(&u->lock);
	return 1;
}

static size_t batch_bytes(const struct load *loads, size_t n)
{
	size_t sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += loads[i].size_bytes;
	return sum;
}

static void *load_tables(void *arg)
{
	struct unwinder *u = arg;
	struct load loads[BATCH_MAX];
	size_t n;

	pthread_mutex_lock(&u->lock);
	while (!u->stop) {
		n = next_batch(u, loads);
		if (!n && !u->doomed_count) {
			if (!table_set_next_wanted(u->tables) && !u->stop)
				pthread_cond_wait(&u->work, &u->lock);
			continue;
		}
		make_room(u, batch_bytes(loads, n));
		withdraw_doomed(u);
		pthread_mutex_unlock(&u->lock);
		publish(u, loads, n);
		pthread_mutex_lock(&u->lock);
		settle(u, loads, n);
	}
	u->busy = false;
	pthread_cond_broadcast(&u->done);
	pthread_mutex_unlock(&u->lock);
	return NULL;
}

static int start_loader(struct unwinder *u)
{
	pthread_condattr_t monotonic;
	int err;

	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_mutex_init(&u->lock, NULL);
	pthread_cond_init(&u->work, &monotonic);
	pthread_cond_init(&u->done, &monotonic);
	pthread_condattr_destroy(&monotonic);
	err = pthread_create(&u->loader, NULL, load_tables, u);
	u->started = !err;
	return -err;
}

int unwinder_new(const struct kernel *k, size_t max_bytes, struct unwinder **out)
{
	struct unwinder *u = calloc(1, sizeof(*u));
	int err;

	if (!u)
		return -ENOMEM;
	u->max_bytes = max_bytes;
	u->tables = table_set_new();
	err = u->tables ? rule_set_new(&u->rules) : -ENOMEM;
	if (!err)
		err = unwind_store_new(k, &u->store);
	if (!err)
		err = start_loader(u);
	if (err) {
		unwinder_free(u);
		return err;
	}
	*out = u;
	return 0;
}

static void stop_loader(struct unwinder *u)
{
	pthread_mutex_lock(&u->lock);
	u->stop = true;
	pthread_cond_signal(&u->work);
	pthread_mutex_unlock(&u->lock);
	pthread_join(u->loader, NULL);
	pthread_cond_destroy(&u->work);
	pthread_cond_destroy(&u->done);
	pthread_mutex_destroy(&u->lock);
}

void unwinder_free(struct unwinder *u)
{
	if (!u)
		return;
	if (u->started)
		stop_loader(u);
	for (uint32_t i = 0; i <= LIVE_PROC_MAX; i++)
		free(u->refs[i]);
	unwind_store_free(u->store);
	rule_set_free(u->rules);
	table_set_free(u->tables);
	free(u);
}

/* Locked. */
static void drop_refs(struct unwinder *u, uint32_t slot)
{
	struct space_refs *refs = u->refs[slot];

	for (size_t i = 0; refs && i < refs->count; i++) {
		struct table *t = table_set_at(u->tables, refs->ids[i]);

		if (!--t->references)
			t->used_s = now_s();
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
	pthread_mutex_lock(&u->lock);
	for (size_t i = 0; i < addr_space_count(as); i++) {
		if (addr_space_at(as, i, &start, &end, &where))
			add_mapping(u, start, end, &where);
	}
	take_refs(u, slot);
	pthread_mutex_unlock(&u->lock);
	return unwind_store_space(u->store, slot, &u->space);
}

void unwinder_forget(struct unwinder *u, uint32_t slot)
{
	if (slot > LIVE_PROC_MAX)
		return;
	pthread_mutex_lock(&u->lock);
	drop_refs(u, slot);
	pthread_mutex_unlock(&u->lock);
	unwind_store_forget(u->store, slot);
}

/* Locked. @t: NULL for none. */
static void want(struct unwinder *u, struct table *t, bool urgent)
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
	u->busy = true;
	pthread_cond_signal(&u->work);
}

void unwinder_want(struct unwinder *u, uint64_t frame)
{
	pthread_mutex_lock(&u->lock);
	want(u, table_set_at(u->tables, unwind_frame_table(frame)), true);
	pthread_mutex_unlock(&u->lock);
}

int unwinder_locate(struct unwinder *u, uint64_t frame, const struct object **object,
		    uint64_t *vaddr)
{
	const struct table *t;
	uint64_t bias;
	int err = -ENOENT;

	pthread_mutex_lock(&u->lock);
	t = table_set_at(u->tables, unwind_frame_table(frame));
	if (t)
		err = object_bias(t->object, &bias);
	if (!err) {
		*object = t->object;
		*vaddr = bias + (uint32_t)frame;
	}
	pthread_mutex_unlock(&u->lock);
	return err;
}

void unwinder_prefetch(struct unwinder *u, const struct addr_space *as)
{
	struct addr_location where;
	uint64_t start, end;
	bool room;

	pthread_mutex_lock(&u->lock);
	room = table_set_bytes(u->tables) < u->max_bytes / 2;
	for (size_t i = 0; room && i < addr_space_count(as); i++) {
		if (addr_space_at(as, i, &start, &end, &where) && where.object)
			want(u, table_of(u, where.object), false);
	}
	pthread_mutex_unlock(&u->lock);
}

bool unwinder_wait(struct unwinder *u, int timeout_ms)
{
	struct timespec end = deadline(timeout_ms);
	bool idle;

	pthread_mutex_lock(&u->lock);
	while (u->busy && pthread_cond_timedwait(&u->done, &u->lock, &end) != ETIMEDOUT)
		;
	idle = !u->busy;
	pthread_mutex_unlock(&u->lock);
	return idle;
}

/* Locked. */
static void retire_idle(struct unwinder *u, struct table *t, uint64_t time_s)
{
	if (t->references || time_s < t->used_s + IDLE_S || u->doomed_count == BATCH_MAX)
		return;
	t->used_s = 0;
	t->state = TABLE_OUT;
	t->size_bytes = 0;
	u->doomed[u->doomed_count++] = t->id;
	u->busy = true;
	pthread_cond_signal(&u->work);
}

void unwinder_tick(struct unwinder *u)
{
	uint64_t time_s = now_s();

	pthread_mutex_lock(&u->lock);
	for (uint32_t id = 1; id < table_set_limit(u->tables); id++) {
		struct table *t = table_set_at(u->tables, id);

		if (t->state != TABLE_LOADED)
			continue;
		if (unwind_store_take_used(u->store, id))
			t->used_s = time_s;
		retire_idle(u, t, time_s);
	}
	pthread_mutex_unlock(&u->lock);
}

void unwinder_stats(struct unwinder *u, struct unwinder_stats *out)
{
	pthread_mutex_lock(&u->lock);
	*out = (struct unwinder_stats){
		.tables = table_set_count(u->tables, TABLE_LOADED),
		.table_bytes = table_set_bytes(u->tables),
		.loading = table_set_count(u->tables, TABLE_WANTED) +
			   table_set_count(u->tables, TABLE_LOADING),
		.evicted = u->evicted,
		.mappings_left_out = u->left_out,
		.rules = __atomic_load_n(&u->rules_sent, __ATOMIC_RELAXED),
	};
	pthread_mutex_unlock(&u->lock);
}
