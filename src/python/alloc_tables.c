/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From 3.12 the tables lie in _PyRuntime.allocators.standard, raw, mem and obj one after
 * the other (Include/internal/pycore_pymem.h), before in variables of their own
 * (alloc_refs.c).
 *
 * A hook puts functions of its own into a table and, as ctx, a pointer to what it needs to
 * call the ones that were there: tracemalloc a copy of the table (allocators in
 * Modules/_tracemalloc.c, Python/tracemalloc.c), the debug hooks a letter and a copy of
 * the table behind it (debug_alloc_api_t). So these are followed by what they look like,
 * down to a table that is no hook's.
 */
#include "python/alloc_tables.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "python/alloc_refs.h"
#include "python/binary.h"
#include "python/equal_address.h"
#include "python/inlined_copies.h"
#include "python/interpreter.h"
#include "target/memory.h"
#include "target/procfs.h"
#include "unwind/elf_image.h"

#define HOOKS_MAX 8		      /* one upon the other */
#define RUNTIME_BYTES_MAX (64u << 10) /* of _PyRuntime in which the tables are looked for */
#define TEXT_BYTES_MAX (64u << 20)
#define RANGES_MAX 65536u

/* PyMemAllocatorEx */
struct table {
	uint64_t ctx;
	uint64_t functions[VERBS];
};
_Static_assert(sizeof(struct table) == 40, "layout of PyMemAllocatorEx");

struct range {
	uint64_t start, end;
};

/* Addresses are of the process, but for the image's. */
struct finder {
	const struct interpreter *interpreter;
	int fd;
	struct elf_image *image; /* reads from fd */
	struct range binary;	 /* the interpreter's code */
	struct range *code;	 /* all code of the process */
	size_t code_count;
	uint8_t *text; /* the section with the allocator */
	size_t text_bytes;
	uint64_t text_address;
};

static bool in_range(const struct range *r, uint64_t address)
{
	return address >= r->start && address < r->end;
}

static bool is_code(const struct finder *f, uint64_t address)
{
	size_t i;

	if (in_range(&f->binary, address))
		return true;
	for (i = 0; i < f->code_count; i++) {
		if (in_range(&f->code[i], address))
			return true;
	}
	return false;
}

static int add_code(struct finder *f, const struct mapping *m)
{
	struct range *grown;

	if (f->code_count >= RANGES_MAX)
		return -E2BIG;
	if (!(f->code_count & (f->code_count + 1))) {
		grown = realloc(f->code, 2 * (f->code_count + 1) * sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		f->code = grown;
	}
	f->code[f->code_count++] = (struct range){m->start, m->end};
	return 0;
}

static int read_code_ranges(struct finder *f)
{
	struct maps_iter *it;
	struct mapping m;
	int err, got;

	err = maps_iter_new(f->interpreter->pid, &it);
	if (err)
		return err;
	while (!err && (got = maps_iter_next(it, &m))) {
		if (got < 0)
			err = got;
		else if (m.executable)
			err = add_code(f, &m);
	}
	maps_iter_free(it);
	return err;
}

static void finder_release(struct finder *f)
{
	elf_image_free(f->image);
	if (f->fd >= 0)
		close(f->fd);
	free(f->code);
	free(f->text);
}

/* Released in any case. */
static int finder_init(struct finder *f, const struct interpreter *i)
{
	uint64_t low, high;
	int err;

	memset(f, 0, sizeof(*f));
	f->interpreter = i;
	f->fd = interpreter_open_binary(i);
	if (f->fd < 0)
		return f->fd;
	err = elf_image_new_fd(f->fd, &f->image);
	if (!err)
		err = elf_image_text(f->image, &low, &high);
	if (!err)
		err = read_code_ranges(f);
	if (err)
		return err;
	f->binary = (struct range){low + i->bias, high + i->bias};
	return 0;
}

/*
 * The executable section that holds @address, or as much of it around as is allowed.
 * Of foreign functions, in another binary, nothing more can be told: no text.
 */
static int read_text(struct finder *f, uint64_t address)
{
	uint64_t vaddr = address - f->interpreter->bias, low, high;
	size_t section = 0;
	int err;

	while (elf_image_next_code(f->image, &section, &low, &high)) {
		if (vaddr < low || vaddr >= high)
			continue;
		if (vaddr - low > TEXT_BYTES_MAX / 2)
			low = vaddr - TEXT_BYTES_MAX / 2;
		if (high - low > TEXT_BYTES_MAX)
			high = low + TEXT_BYTES_MAX;
		f->text = malloc(high - low);
		if (!f->text)
			return -ENOMEM;
		err = elf_image_copy(f->image, low, f->text, high - low);
		if (err)
			return err;
		f->text_bytes = high - low;
		f->text_address = low + f->interpreter->bias;
		return 0;
	}
	return 0;
}

/* Four functions, and a ctx that is none. */
static bool is_table(const struct finder *f, const struct table *t)
{
	unsigned int i, k;

	for (i = 0; i < VERBS; i++) {
		for (k = 0; k < i; k++) {
			if (t->functions[i] == t->functions[k])
				return false;
		}
		if (!is_code(f, t->functions[i]))
			return false;
	}
	return !is_code(f, t->ctx);
}

static int find_in_runtime(const struct finder *f, uint64_t tables[ALLOC_DOMAINS])
{
	const struct interpreter *i = f->interpreter;
	struct table t[ALLOC_DOMAINS];
	uint8_t *memory = malloc(RUNTIME_BYTES_MAX);
	size_t at, domain;
	ssize_t got;
	int err = -ENOENT;

	if (!memory)
		return -ENOMEM;
	got = memory_read_some(i->pid, i->runtime, memory, RUNTIME_BYTES_MAX);
	if (got < 0)
		err = (int)got;
	for (at = 0; err == -ENOENT && at + sizeof(t) <= (size_t)got; at += 8) {
		memcpy(t, memory + at, sizeof(t));
		if (!is_table(f, &t[ALLOC_RAW]) || !is_table(f, &t[ALLOC_MEM]) ||
		    !is_table(f, &t[ALLOC_OBJ]))
			continue;
		for (domain = 0; domain < ALLOC_DOMAINS; domain++)
			tables[domain] = i->runtime + at + domain * sizeof(t[0]);
		err = 0;
	}
	free(memory);
	return err;
}

static bool is_mapping_of(const struct interpreter *i, const struct mapping *m)
{
	return m->executable && m->inode == i->inode && m->dev_major == i->dev_major &&
	       m->dev_minor == i->dev_minor;
}

static int open_binary(const struct interpreter *i, struct binary **out)
{
	struct maps_iter *it;
	struct mapping m;
	int err, got = 0;

	err = maps_iter_new(i->pid, &it);
	if (err)
		return err;
	err = -ENOENT;
	while (err == -ENOENT && (got = maps_iter_next(it, &m)) > 0) {
		if (is_mapping_of(i, &m))
			err = binary_new(i->pid, &m, out);
	}
	maps_iter_free(it);
	return got < 0 ? got : err;
}

static int find_by_refs(const struct interpreter *i, uint64_t tables[ALLOC_DOMAINS])
{
	struct binary *b;
	unsigned int domain;
	int err;

	err = open_binary(i, &b);
	if (err)
		return err;
	err = alloc_refs_tables(b, tables);
	for (domain = 0; !err && domain < ALLOC_DOMAINS; domain++)
		tables[domain] += i->bias;
	binary_free(b);
	return err;
}

static int find_outermost(const struct finder *f, uint64_t tables[ALLOC_DOMAINS])
{
	const struct interpreter *i = f->interpreter;
	unsigned int domain;
	struct table t;
	int err;

	if (i->major != 3 || i->minor >= 12)
		return find_in_runtime(f, tables);
	err = find_by_refs(i, tables);
	for (domain = 0; !err && domain < ALLOC_DOMAINS; domain++) {
		err = memory_read(i->pid, tables[domain], &t, sizeof(t));
		if (!err && !is_table(f, &t))
			err = -ENOENT;
	}
	return err;
}

struct chain {
	enum alloc_hook outermost;
	uint64_t first;	  /* address of the outermost table */
	uint64_t address; /* of the innermost one, which follows */
	struct table table;
};

/* Whether @c's table is a hook that hides another table, and where that is. */
static enum alloc_hook next_table(const struct finder *f, const struct chain *c, uint64_t *inner)
{
	bool ours = in_range(&f->binary, c->table.functions[VERB_MALLOC]);
	uint64_t words[1 + sizeof(struct table) / 8];
	struct table t;

	*inner = 0;
	if (!c->table.ctx || memory_read(f->interpreter->pid, c->table.ctx, words, sizeof(words)))
		return ours ? HOOK_NONE : HOOK_FOREIGN;
	memcpy(&t, words, sizeof(t));
	if (is_table(f, &t)) {
		*inner = c->table.ctx;
		return ours ? HOOK_TRACEMALLOC : HOOK_FOREIGN;
	}
	memcpy(&t, words + 1, sizeof(t));
	if (is_table(f, &t) && (words[0] & 0xff)) {
		*inner = c->table.ctx + 8;
		return ours ? HOOK_DEBUG : HOOK_FOREIGN;
	}
	return HOOK_FOREIGN;
}

static int follow_hooks(const struct finder *f, uint64_t address, struct chain *c)
{
	enum alloc_hook hook;
	unsigned int depth;
	uint64_t inner;
	int err;

	c->outermost = HOOK_NONE;
	c->first = address;
	for (depth = 0; depth < HOOKS_MAX; depth++) {
		c->address = address;
		err = memory_read(f->interpreter->pid, address, &c->table, sizeof(c->table));
		if (err)
			return err;
		hook = next_table(f, c, &inner);
		if (!depth)
			c->outermost = hook;
		if (!inner)
			return 0;
		address = inner;
	}
	return -ELOOP;
}

static unsigned int count_compares(const struct finder *f, uint64_t address)
{
	struct compared_function one = {.address = address};

	inlined_copies_count(f->text, f->text_bytes, f->text_address, &one, 1);
	return one.compares;
}

/*
 * The word may hold an equal address that a leaktop put there which was killed. No code
 * compares with such an address, and it is what would be chosen today, or else one of a
 * function that code does compare with.
 */
static uint64_t function_proper(const struct finder *f, uint64_t word)
{
	uint64_t target = equal_target(f->text, f->text_bytes, f->text_address, word);

	if (target == word || count_compares(f, word))
		return word;
	if (equal_address(f->text, f->text_bytes, f->text_address, target) == word ||
	    count_compares(f, target))
		return target;
	return word;
}

static void describe(const struct finder *f, const struct chain *c, unsigned int verb,
		     struct alloc_function *out)
{
	uint64_t word = c->table.functions[verb];

	*out = (struct alloc_function){
		.slot = c->address + offsetof(struct table, functions) + 8 * verb,
		.outer = c->first + offsetof(struct table, functions) + 8 * verb,
		.now = word,
		.address = word,
	};
	out->outside = !in_range(&f->binary, word);
	if (word < f->text_address || word - f->text_address >= f->text_bytes)
		return;
	out->address = function_proper(f, word);
	out->equal = equal_address(f->text, f->text_bytes, f->text_address, out->address);
}

static void count_inlined(const struct finder *f, struct alloc_tables *t)
{
	struct compared_function all[ALLOC_DOMAINS * VERBS];
	struct alloc_function *functions = &t->functions[0][0];
	size_t i;

	for (i = 0; i < ALLOC_DOMAINS * VERBS; i++)
		all[i] = (struct compared_function){.address = functions[i].address};
	inlined_copies_count(f->text, f->text_bytes, f->text_address, all, ALLOC_DOMAINS * VERBS);
	for (i = 0; i < ALLOC_DOMAINS * VERBS; i++)
		functions[i].inlined = all[i].compares;
}

static bool is_raw(const struct alloc_tables *t)
{
	unsigned int verb;

	for (verb = 0; verb < VERBS; verb++) {
		if (t->functions[ALLOC_OBJ][verb].address != t->functions[ALLOC_RAW][verb].address)
			return false;
	}
	return true;
}

static void describe_all(const struct finder *f, const struct chain chains[ALLOC_DOMAINS],
			 struct alloc_tables *out)
{
	unsigned int domain, verb;

	out->hook = chains[ALLOC_OBJ].outermost ?: chains[ALLOC_MEM].outermost;
	for (domain = 0; domain < ALLOC_DOMAINS; domain++) {
		for (verb = 0; verb < VERBS; verb++)
			describe(f, &chains[domain], verb, &out->functions[domain][verb]);
	}
	count_inlined(f, out);
	if (out->hook == HOOK_NONE && is_raw(out))
		out->hook = HOOK_RAW;
}

int alloc_tables_find(const struct interpreter *i, struct alloc_tables *out)
{
	struct chain chains[ALLOC_DOMAINS];
	uint64_t tables[ALLOC_DOMAINS];
	unsigned int domain;
	struct finder f;
	int err;

	err = finder_init(&f, i);
	if (!err)
		err = find_outermost(&f, tables);
	for (domain = 0; !err && domain < ALLOC_DOMAINS; domain++)
		err = follow_hooks(&f, tables[domain], &chains[domain]);
	if (!err)
		err = read_text(&f, chains[ALLOC_OBJ].table.functions[VERB_MALLOC]);
	if (!err)
		describe_all(&f, chains, out);
	finder_release(&f);
	return err;
}
