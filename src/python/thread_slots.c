/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Two variables name the thread state of a thread: `current` only while it holds the GIL
 * (to 3.11 a global variable, then thread-local), `attached` at all times (to 3.14 a
 * pthread key, then thread-local too). None of them is exported, so they are taken from
 * functions that return them, or from where they were in the release that the table was
 * made of (fields of _PyRuntime move even between patch releases).
 *
 * Any of it may be wrong. The proof is in the process: a thread state holds the fs base of
 * its thread, so what is read through a slot by the fs base of some thread must be a thread
 * state with that fs base, or NULL.
 */
#include "python/thread_slots.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "python/accessor.h"
#include "python/binary.h"
#include "python/layout.h"
#include "target/memory.h"

#define THREADS_MAX 256
#define INTERPRETERS_MAX 64
#define TRIES 5 /* while a thread starts or ends, the lists are not what they were */
#define RUNTIME_BYTES_MAX (1u << 20)

/* struct pthread in glibc's nptl/descr.h: 32 keys within, more in blocks of 32. */
#define GLIBC_KEYS 1024u
#define GLIBC_BLOCK_KEYS 32u
#define GLIBC_FIRST_BLOCK 0x310
#define GLIBC_BLOCKS 0x510
#define GLIBC_KEY_BYTES 16
#define GLIBC_KEY_DATA 8
/* struct dtv in glibc's sysdeps/x86_64/nptl/tls.h; musl's is of plain pointers. */
#define DTV_POINTER 8 /* in the head that the fs base points to, with both */
#define GLIBC_DTV_BYTES 16
#define MUSL_DTV_BYTES 8
#define MODULES_MAX 4096u
/* struct pthread in musl's src/internal/pthread_impl.h */
#define MUSL_KEYS 128u
#define MUSL_TSD 128

struct finder {
	const struct binary *binary;
	pid_t pid;
	uint64_t runtime;
	bool musl;
	struct python_layout *layout;
	struct {
		uint64_t state, base; /* fs base of its thread */
	} threads[THREADS_MAX];
	size_t count;
};

/* --- the thread states there are --- */

static int read_threads(struct finder *f, uint64_t interp)
{
	const struct python_layout *l = f->layout;
	uint64_t state, base;
	int err;

	err = memory_read_u64(f->pid, interp + l->interp_threads_head, &state);
	for (int i = 0; !err && state && i < THREADS_MAX && f->count < THREADS_MAX; i++) {
		err = memory_read_u64(f->pid, state + l->walk.thread_id, &base);
		if (!err && base) { /* 3.12 on: none before the thread runs */
			f->threads[f->count].state = state;
			f->threads[f->count++].base = base;
		}
		if (!err)
			err = memory_read_u64(f->pid, state + l->thread_next, &state);
	}
	return err;
}

static int read_states_once(struct finder *f)
{
	uint64_t interp;
	int err;

	f->count = 0;
	err = memory_read_u64(f->pid, f->runtime + f->layout->runtime_interpreters_head, &interp);
	for (int i = 0; !err && interp && i < INTERPRETERS_MAX; i++) {
		err = read_threads(f, interp);
		if (!err)
			err = memory_read_u64(f->pid, interp + f->layout->interp_next, &interp);
	}
	if (err)
		return err;
	return f->count ? 0 : -EAGAIN;
}

/* A state that is freed meanwhile may be unmapped, too. */
static int read_states(struct finder *f)
{
	int err = -EFAULT;

	for (int i = 0; err == -EFAULT && i < TRIES; i++)
		err = read_states_once(f);
	return err;
}

/* --- the proof --- */

static int read_slot(const struct finder *f, const struct python_slot *slot, uint64_t base,
		     uint64_t *out)
{
	uint64_t at = slot->address ? slot->address : base;
	int err = 0;

	for (uint32_t i = 0; !err && i < slot->hops; i++)
		err = memory_read_u64(f->pid, at + (uint64_t)(int64_t)slot->hop[i], &at);
	if (!err)
		*out = at;
	return err;
}

static bool is_known(const struct finder *f, uint64_t state)
{
	for (size_t i = 0; i < f->count; i++) {
		if (f->threads[i].state == state)
			return true;
	}
	return false;
}

static bool is_base(const struct finder *f, uint64_t base)
{
	for (size_t i = 0; i < f->count; i++) {
		if (f->threads[i].base == base)
			return true;
	}
	return false;
}

struct votes {
	unsigned int empty, right, wrong;
	unsigned int foreign; /* to 3.12 one thread may run on the state made for another */
};

static void count_vote(const struct finder *f, const struct python_slot *slot, uint64_t base,
		       struct votes *v)
{
	uint64_t state, id;

	/* A thread that is gone, or that has not used this library yet. */
	if (read_slot(f, slot, base, &state))
		return;
	if (!state)
		v->empty++;
	else if (memory_read_u64(f->pid, state + f->layout->walk.thread_id, &id))
		v->wrong++;
	else if (slot->address ? is_base(f, id) : id == base)
		v->right++;
	else if (is_known(f, state))
		v->foreign++;
	else
		v->wrong++;
}

/* @found: an empty slot proves nothing, but is no wonder where the variable is known to be
 * thus read, and NULL in threads that wait. */
static bool proved(struct finder *f, const struct python_slot *slot, bool found)
{
	struct votes v;

	for (int i = 0; i < TRIES; i++) {
		if (read_states(f))
			continue;
		v = (struct votes){0};
		for (size_t n = 0; n < f->count; n++)
			count_vote(f, slot, f->threads[n].base, &v);
		if (!v.wrong)
			return v.right || (found && (v.empty || v.foreign));
	}
	return false;
}

/* --- thread-local variables --- */

static bool fits(int64_t n)
{
	return n >= INT32_MIN && n <= INT32_MAX;
}

static bool tls_slot(const struct finder *f, const struct accessor *a, struct python_slot *slot)
{
	int32_t entry = f->musl ? MUSL_DTV_BYTES : GLIBC_DTV_BYTES;

	memset(slot, 0, sizeof(*slot));
	if (!fits(a->tls_offset))
		return false;
	if (a->tls == ACCESSOR_TLS_FIXED) {
		slot->hops = 1;
		slot->hop[0] = (int32_t)a->tls_offset;
		return true;
	}
	if (a->tls != ACCESSOR_TLS_MODULE || !a->tls_module || a->tls_module > MODULES_MAX)
		return false;
	slot->hops = 3;
	slot->hop[0] = DTV_POINTER;
	slot->hop[1] = entry * (int32_t)a->tls_module;
	slot->hop[2] = (int32_t)a->tls_offset;
	return true;
}

static void find_tls(struct finder *f, const char *const *functions, struct python_slot *out)
{
	struct python_slot slot;
	struct accessor a;

	for (; *functions; functions++) {
		if (accessor_read(f->binary, *functions, &a) || !tls_slot(f, &a, &slot))
			continue;
		if (proved(f, &slot, true)) {
			*out = slot;
			return;
		}
	}
}

/* --- the pthread key --- */

static bool glibc_key_slot(uint32_t key, struct python_slot *slot)
{
	int32_t in_block = (int32_t)(GLIBC_KEY_BYTES * (key % GLIBC_BLOCK_KEYS) + GLIBC_KEY_DATA);

	if (key >= GLIBC_KEYS)
		return false;
	if (key < GLIBC_BLOCK_KEYS)
		*slot = (struct python_slot){.hops = 1, .hop = {GLIBC_FIRST_BLOCK + in_block}};
	else
		*slot = (struct python_slot){
			.hops = 2,
			.hop = {GLIBC_BLOCKS + (int32_t)(8 * (key / GLIBC_BLOCK_KEYS)), in_block},
		};
	return true;
}

static bool musl_key_slot(uint32_t key, struct python_slot *slot)
{
	if (key >= MUSL_KEYS)
		return false;
	*slot = (struct python_slot){.hops = 2, .hop = {MUSL_TSD, (int32_t)(8 * key)}};
	return true;
}

/* Whether the Py_tss_t {int is_initialized, pthread_key_t} at @offset is the one. */
static bool is_key(struct finder *f, uint32_t offset, struct python_slot *out)
{
	struct python_slot slot;
	uint32_t tss[2];

	if (memory_read(f->pid, f->runtime + offset, tss, sizeof(tss)) || tss[0] != 1)
		return false;
	/* The wrong one of the two is not proved. */
	if (!(glibc_key_slot(tss[1], &slot) && proved(f, &slot, false)) &&
	    !(musl_key_slot(tss[1], &slot) && proved(f, &slot, false)))
		return false;
	f->layout->runtime_gilstate_key = offset;
	*out = slot;
	return true;
}

static bool in_runtime(const struct finder *f, uint64_t address)
{
	return address > f->runtime && address - f->runtime < RUNTIME_BYTES_MAX;
}

static void find_key(struct finder *f, struct python_slot *out)
{
	uint32_t known = f->layout->runtime_gilstate_key;
	struct accessor a;

	if (known != UINT32_MAX && is_key(f, known, out))
		return;
	if (accessor_read(f->binary, "PyGILState_GetThisThreadState", &a))
		return;
	for (size_t i = 0; i < a.touched_count; i++) {
		if (in_runtime(f, a.touched[i]) &&
		    is_key(f, (uint32_t)(a.touched[i] - f->runtime), out))
			return;
	}
}

/* --- the global variable, to 3.11 --- */

static bool is_current(struct finder *f, uint32_t offset, bool found, struct python_slot *out)
{
	struct python_slot slot = {.address = f->runtime + offset, .hops = 1};

	if (!proved(f, &slot, found))
		return false;
	f->layout->runtime_gilstate_current = offset;
	*out = slot;
	return true;
}

static void find_current(struct finder *f, struct python_slot *out)
{
	uint32_t known = f->layout->runtime_gilstate_current;
	struct accessor a;

	if (!accessor_read(f->binary, "_PyThreadState_UncheckedGet", &a)) {
		for (size_t i = 0; i < a.touched_count; i++) {
			if (in_runtime(f, a.touched[i]) &&
			    is_current(f, (uint32_t)(a.touched[i] - f->runtime),
				       a.touched[i] - f->runtime == known, out))
				return;
		}
	}
	is_current(f, known, true, out);
}

int thread_slots_find(const struct binary *b, uint64_t runtime, bool musl,
		      struct python_layout *layout)
{
	static const char *const current[] = {
		"_PyThreadState_GetCurrent",
		"PyThreadState_GetUnchecked",
		"_PyThreadState_UncheckedGet",
		"PyThreadState_Get",
		NULL,
	};
	static const char *const attached[] = {"PyGILState_GetThisThreadState", NULL};
	struct python_walk *w = &layout->walk;
	struct finder f = {
		.binary = b,
		.pid = binary_pid(b),
		.runtime = runtime,
		.musl = musl,
		.layout = layout,
	};
	int err;

	memset(&w->current, 0, sizeof(w->current));
	memset(&w->attached, 0, sizeof(w->attached));
	err = read_states(&f);
	if (err)
		return err;
	if (layout->runtime_gilstate_current != UINT32_MAX)
		find_current(&f, &w->current);
	else
		find_tls(&f, current, &w->current);
	find_key(&f, &w->attached);
	if (!w->attached.hops)
		find_tls(&f, attached, &w->attached);
	return 0;
}
