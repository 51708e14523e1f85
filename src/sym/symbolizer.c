/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Symbols come from the object, or from its debug file where it is stripped;
 * lines from whichever of the two has them. Answers hold nothing but strings of
 * our own, so the debug information behind them, which can be gigabytes, is
 * dropped again when another object needs the room. What is not there is
 * remembered as well, for as long as the symbolizer lives.
 */
#include "sym/symbolizer.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <unistd.h>

#include "sym/debug_file.h"
#include "sym/debug_info.h"
#include "sym/debuginfod.h"
#include "sym/demangle.h"
#include "sym/object.h"
#include "sym/string_pool.h"
#include "sym/symtab.h"

#define ANSWER_BUCKETS (1u << 17)
#define FRAMES_MAX (1u << 20)		/* in the cache */
#define STRING_BYTES (256u << 20)	/* all names */
#define DEBUG_BYTES_MAX (2048ull << 20) /* debug information in memory */
#define SYMTAB_BYTES_MAX (512ull << 20) /* symbol tables, but the last one asked may be larger */
#define NAME_BYTES 4100			/* the longest name that demangle() takes, and more */
#define DEPTH_MAX 64			/* frames of one address */

/* What we know of one object. */
struct module {
	const struct object *object;
	const char *path, *build_id;
	struct symtab *symtab;
	struct debug_info *debug;
	int debug_fd;	   /* of the separate debug file, -1: none */
	int supplement_fd; /* of what its DWARF, or the object's, is shared with; -1: none */
	bool symtab_read, files_sought, no_debug;
	uint64_t used; /* by the clock of the symbolizer */
};

struct answer {
	struct answer *next;
	const struct object *object;
	uint64_t vaddr;
	size_t count;
	struct frame frames[];
};

struct symbolizer {
	struct string_pool *strings;
	struct debuginfod *server; /* NULL: not wanted */
	struct module **modules;   /* sorted by the address of the object */
	size_t module_count, module_capacity;
	uint64_t clock, debug_bytes, symtab_bytes;
	size_t cached_frames, open_files;
	struct answer *answers[ANSWER_BUCKETS];
};

struct symbolizer *symbolizer_new(void)
{
	struct symbolizer *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->strings = string_pool_new(STRING_BYTES);
	if (!s->strings) {
		free(s);
		return NULL;
	}
	s->server = debuginfod_new();
	return s;
}

void symbolizer_cancel(struct symbolizer *s)
{
	if (s->server)
		debuginfod_cancel(s->server);
}

static void module_free(struct module *m)
{
	symtab_free(m->symtab);
	debug_info_free(m->debug);
	if (m->debug_fd >= 0)
		close(m->debug_fd);
	if (m->supplement_fd >= 0)
		close(m->supplement_fd);
	free(m);
}

static void clear_answers(struct symbolizer *s)
{
	size_t i;

	for (i = 0; i < ANSWER_BUCKETS; i++) {
		while (s->answers[i]) {
			struct answer *a = s->answers[i];

			s->answers[i] = a->next;
			free(a);
		}
	}
	s->cached_frames = 0;
}

void symbolizer_free(struct symbolizer *s)
{
	size_t i;

	if (!s)
		return;
	for (i = 0; i < s->module_count; i++)
		module_free(s->modules[i]);
	free(s->modules);
	clear_answers(s);
	string_pool_free(s->strings);
	debuginfod_free(s->server);
	free(s);
}

/* Number of modules whose object lies below @object. */
static size_t module_position(const struct symbolizer *s, const struct object *object)
{
	size_t low = 0, high = s->module_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if ((uintptr_t)s->modules[middle]->object < (uintptr_t)object)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static struct module *add_module(struct symbolizer *s, const struct object *object, size_t at)
{
	struct module *m;

	if (s->module_count == s->module_capacity) {
		size_t capacity = s->module_capacity ? 2 * s->module_capacity : 16;
		struct module **modules = reallocarray(s->modules, capacity, sizeof(*modules));

		if (!modules)
			return NULL;
		s->modules = modules;
		s->module_capacity = capacity;
	}
	m = calloc(1, sizeof(*m));
	if (!m)
		return NULL;
	m->object = object;
	m->path = string_pool_add(s->strings, object_path(object));
	m->build_id = string_pool_add(s->strings, object_build_id(object));
	m->debug_fd = -1;
	m->supplement_fd = -1;
	memmove(&s->modules[at + 1], &s->modules[at], (s->module_count - at) * sizeof(m));
	s->modules[at] = m;
	s->module_count++;
	return m;
}

static struct module *get_module(struct symbolizer *s, const struct object *object)
{
	size_t at = module_position(s, object);

	if (at < s->module_count && s->modules[at]->object == object)
		return s->modules[at];
	return add_module(s, object, at);
}

/* Only where it says nothing itself: a server is not asked for what we have. */
static int find_debug_file(const struct debug_places *places, const struct object *object)
{
	int fd;

	if (debug_info_exists(object_fd(object)))
		return -1;
	fd = debug_file_open(places, object_fd(object), object_path(object),
			     object_build_id(object));
	return fd < 0 ? -1 : fd;
}

/* A quarter of the descriptors we may have; the objects' own are half. */
static bool too_many_files(const struct symbolizer *s)
{
	struct rlimit limit;

	return !getrlimit(RLIMIT_NOFILE, &limit) && s->open_files >= limit.rlim_cur / 4;
}

/* All at once and at the first question, when the process is the most likely to be
 * there still; they stay open. */
static void find_files(struct symbolizer *s, struct module *m)
{
	struct debug_places places;
	uint64_t start_ticks = 0;
	pid_t pid;

	if (m->files_sought)
		return;
	m->files_sought = true;
	if (too_many_files(s))
		return;
	pid = object_origin(m->object, &start_ticks);
	debug_places_open(&places, pid, start_ticks, s->server);
	m->debug_fd = find_debug_file(&places, m->object);
	m->supplement_fd = debug_file_open_supplement(
		&places, m->debug_fd >= 0 ? m->debug_fd : object_fd(m->object));
	debug_places_release(&places);
	if (m->supplement_fd < 0)
		m->supplement_fd = -1;
	s->open_files += (m->debug_fd >= 0) + (m->supplement_fd >= 0);
}

/* Drops the debug information that was not asked for the longest time. */
static bool drop_debug_info(struct symbolizer *s)
{
	struct module *oldest = NULL;
	size_t i;

	for (i = 0; i < s->module_count; i++) {
		struct module *m = s->modules[i];

		if (m->debug && (!oldest || m->used < oldest->used))
			oldest = m;
	}
	if (!oldest)
		return false;
	s->debug_bytes -= debug_info_bytes(oldest->debug);
	debug_info_free(oldest->debug);
	oldest->debug = NULL;
	return true;
}

static int read_debug_info(struct symbolizer *s, struct module *m)
{
	int fd = m->debug_fd >= 0 ? m->debug_fd : object_fd(m->object);
	int err;

	do {
		err = debug_info_new(fd, m->supplement_fd, DEBUG_BYTES_MAX - s->debug_bytes,
				     &m->debug);
	} while (err == -E2BIG && drop_debug_info(s));
	return err;
}

static struct debug_info *get_debug_info(struct symbolizer *s, struct module *m)
{
	if (m->debug || m->no_debug)
		return m->debug;
	if (read_debug_info(s, m))
		m->no_debug = true;
	else
		s->debug_bytes += debug_info_bytes(m->debug);
	return m->debug;
}

/* Drops the symbol table that was not asked for the longest time, but for that of @keep. */
static bool drop_symtab(struct symbolizer *s, const struct module *keep)
{
	struct module *oldest = NULL;
	size_t i;

	for (i = 0; i < s->module_count; i++) {
		struct module *m = s->modules[i];

		if (m->symtab && m != keep && (!oldest || m->used < oldest->used))
			oldest = m;
	}
	if (!oldest)
		return false;
	s->symtab_bytes -= symtab_bytes(oldest->symtab);
	symtab_free(oldest->symtab);
	oldest->symtab = NULL;
	oldest->symtab_read = false;
	return true;
}

static const struct symtab *get_symtab(struct symbolizer *s, struct module *m)
{
	if (m->symtab_read)
		return m->symtab;
	m->symtab_read = true;
	if (symtab_new(object_fd(m->object), m->debug_fd, &m->symtab)) {
		m->symtab = NULL;
		return NULL;
	}
	s->symtab_bytes += symtab_bytes(m->symtab);
	while (s->symtab_bytes > SYMTAB_BYTES_MAX && drop_symtab(s, m))
		;
	return m->symtab;
}

static const char *readable(struct symbolizer *s, const char *name)
{
	const char *kept;
	char *text;

	if (!name)
		return NULL;
	text = demangle(name);
	kept = string_pool_add(s->strings, text);
	free(text);
	return kept;
}

static size_t frames_by_debug_info(struct symbolizer *s, struct module *m, uint64_t vaddr,
				   struct frame *frames)
{
	struct source_frame found[DEPTH_MAX];
	struct debug_info *debug = get_debug_info(s, m);
	size_t i, count;

	count = debug ? debug_info_find(debug, vaddr, found, DEPTH_MAX) : 0;
	for (i = 0; i < count; i++) {
		frames[i].function = readable(s, found[i].function);
		frames[i].file = string_pool_add(s->strings, found[i].file);
		frames[i].line = found[i].line;
		frames[i].inlined = found[i].inlined;
		if (found[i].start && found[i].start <= vaddr)
			frames[i].func_offset = vaddr - found[i].start;
	}
	return count;
}

static void name_by_symtab(struct symbolizer *s, struct module *m, uint64_t vaddr,
			   struct frame *frame)
{
	const struct symtab *symtab = get_symtab(s, m);
	char name[NAME_BYTES];
	uint64_t start;

	if (!symtab || symtab_find(symtab, vaddr, name, sizeof(name), &start))
		return;
	frame->function = readable(s, name);
	frame->func_offset = vaddr - start;
}

/* @frames: DEPTH_MAX of them, all zero. */
static size_t compute(struct symbolizer *s, const struct object *object, uint64_t vaddr,
		      struct frame *frames)
{
	struct module *m = get_module(s, object);
	size_t i, count = 0;

	if (m) {
		m->used = ++s->clock;
		find_files(s, m);
		count = frames_by_debug_info(s, m, vaddr, frames);
	}
	if (!count)
		count = 1;
	if (m && !frames[count - 1].inlined)
		name_by_symtab(s, m, vaddr, &frames[count - 1]);
	for (i = 0; i < count; i++) {
		frames[i].lang = FRAME_NATIVE;
		frames[i].offset = vaddr;
		frames[i].has_offset = true;
		frames[i].module = m && m->path ? m->path : "[unknown]";
		frames[i].build_id = m ? m->build_id : NULL;
	}
	return count;
}

static struct answer **answer_bucket(struct symbolizer *s, const struct object *object,
				     uint64_t vaddr)
{
	uint64_t hash = ((uint64_t)(uintptr_t)object >> 4) * 0x9e3779b97f4a7c15u ^ vaddr;

	return &s->answers[hash * 0x9e3779b97f4a7c15u >> 40 & (ANSWER_BUCKETS - 1)];
}

static const struct answer *find_answer(struct symbolizer *s, const struct object *object,
					uint64_t vaddr)
{
	const struct answer *a = *answer_bucket(s, object, vaddr);

	while (a && (a->object != object || a->vaddr != vaddr))
		a = a->next;
	return a;
}

/* No memory: the answer is not kept. */
static void keep_answer(struct symbolizer *s, const struct object *object, uint64_t vaddr,
			const struct frame *frames, size_t count)
{
	struct answer **head = answer_bucket(s, object, vaddr);
	struct answer *a;

	if (s->cached_frames + count > FRAMES_MAX)
		clear_answers(s);
	a = malloc(sizeof(*a) + count * sizeof(*frames));
	if (!a)
		return;
	a->object = object;
	a->vaddr = vaddr;
	a->count = count;
	memcpy(a->frames, frames, count * sizeof(*frames));
	a->next = *head;
	*head = a;
	s->cached_frames += count;
}

size_t symbolizer_resolve(struct symbolizer *s, const struct object *object, uint64_t vaddr,
			  struct frame *frames, size_t max)
{
	struct frame computed[DEPTH_MAX] = {0};
	const struct answer *a;
	size_t count;

	if (!max)
		return 0;
	a = find_answer(s, object, vaddr);
	if (a) {
		count = a->count < max ? a->count : max;
		memcpy(frames, a->frames, count * sizeof(*frames));
		return count;
	}
	count = compute(s, object, vaddr, computed);
	keep_answer(s, object, vaddr, computed, count);
	if (count > max)
		count = max;
	memcpy(frames, computed, count * sizeof(*frames));
	return count;
}
