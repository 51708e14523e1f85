/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "pythons.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "account/ledger.h"
#include "base/clock.h"
#include "base/log.h"
#include "bpf/kernel.h"
#include "probe/prober.h"
#include "python/alloc_tables.h"
#include "python/coverage.h"
#include "python/interpreter.h"
#include "python/redirect.h"
#include "sym/object.h"
#include "tracees.h"
#include "unwind/unwinder.h"

/* An interpreter that starts is ready some milliseconds later. */
#define LOOK_AGAIN_NS 2000000u
/* One that was not ready by then may never be (embedded, and not used): no hurry. */
#define LOOK_FOR_NS 10000000000u
#define LOOK_SELDOM_NS 1000000000u
#define GONE_MAX 1024
#define PLACES_MAX (ALLOC_DOMAINS * VERBS + 3)

struct pythons {
	struct pythons_options options;
	struct pythons_modules m;
	size_t hurry;		/* how many are just starting */
	struct redirect **gone; /* of those let go: what their children hold is put right too */
	size_t gone_count;
};

struct python {
	struct coverage_python coverage;
	struct interpreter_problem problem;
	struct interpreter interpreter;
	struct redirect *redirect; /* NULL: nothing was changed */
	bool followed;		   /* its frames are */
	bool opened;		   /* its objects have been looked at, traced or not */
	bool pending;		   /* it was not initialised when last looked at */
	bool hurry;		   /* and has just been started */
	bool absent;		   /* there is none, after all */
	uint64_t first_ns, looked_ns;
};

#define NONE SPEC_NO_ARG

/* CPython's allocator functions, whose first argument is a context
 * (PyMemAllocatorEx, Include/cpython/pymem.h). */
static const struct alloc_func functions[VERBS] = {
	[VERB_MALLOC] = {"pymalloc_malloc",
			 {.op = OP_ALLOC,
			  .domain = DOMAIN_PYMALLOC,
			  .size_arg = 1,
			  .count_arg = NONE,
			  .ptr_arg = NONE}},
	[VERB_CALLOC] = {"pymalloc_calloc",
			 {.op = OP_ALLOC,
			  .domain = DOMAIN_PYMALLOC,
			  .size_arg = 2,
			  .count_arg = 1,
			  .ptr_arg = NONE}},
	[VERB_REALLOC] = {"pymalloc_realloc",
			  {.op = OP_REALLOC,
			   .domain = DOMAIN_PYMALLOC,
			   .size_arg = 2,
			   .count_arg = NONE,
			   .ptr_arg = 1}},
	[VERB_FREE] = {"pymalloc_free",
		       {.op = OP_FREE,
			.domain = DOMAIN_PYMALLOC,
			.size_arg = NONE,
			.count_arg = NONE,
			.ptr_arg = 1}},
};

static const struct alloc_func code_dealloc = {"code_dealloc",
					       {.op = OP_CODE_FREE,
						.domain = DOMAIN_PYMALLOC,
						.size_arg = NONE,
						.count_arg = NONE,
						.ptr_arg = 0}};

static const struct alloc_func finalize = {
	"Py_FinalizeEx",
	{.op = OP_PYTHON_END, .size_arg = NONE, .count_arg = NONE, .ptr_arg = NONE}};

static const struct alloc_func ref_tracer = {"ref_tracer",
					     {.op = OP_OBJECT,
					      .domain = DOMAIN_PYMALLOC,
					      .size_arg = 1, /* the event */
					      .count_arg = NONE,
					      .ptr_arg = 0}};

/* What is to be probed in one interpreter. */
struct places {
	struct alloc_place items[PLACES_MAX];
	size_t count;
};

struct pythons *pythons_new(const struct pythons_options *o, const struct pythons_modules *m)
{
	struct pythons *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->options = *o;
	p->m = *m;
	return p;
}

void pythons_free(struct pythons *p)
{
	if (!p)
		return;
	redirect_sweep((const struct redirect *const *)p->gone, p->gone_count);
	for (size_t i = 0; i < p->gone_count; i++)
		redirect_free(p->gone[i]);
	free(p->gone);
	free(p);
}

bool pythons_are_pending(const struct pythons *p)
{
	return p->hurry > 0;
}

const struct coverage_python *python_coverage(const struct python *python)
{
	return python && !python->absent ? &python->coverage : NULL;
}

const struct interpreter *python_interpreter(const struct python *python)
{
	return python && python->followed ? &python->interpreter : NULL;
}

static void place_add(struct places *p, const struct alloc_func *func, uint64_t vaddr,
		      uint64_t equal)
{
	for (size_t i = 0; i < p->count; i++) {
		if (p->items[i].vaddr == vaddr)
			return;
	}
	if (p->count < PLACES_MAX)
		p->items[p->count++] = (struct alloc_place){func, vaddr, equal};
}

/* A function that is called through the table alone, and that by an equal address, may be
 * probed there. */
static void places_of_tables(struct places *p, const struct interpreter *i,
			     const struct alloc_tables *t, bool redirected)
{
	for (int verb = 0; verb < VERBS; verb++) {
		for (int domain = ALLOC_MEM; domain < ALLOC_DOMAINS; domain++) {
			const struct alloc_function *f = &t->functions[domain][verb];
			bool equal = redirected && f->inlined && f->equal;

			place_add(p, &functions[verb], f->address - i->bias,
				  equal ? f->equal - i->bias : 0);
		}
	}
}

static struct object *binary_of(const struct pythons *p, const struct interpreter *i)
{
	struct object_id id = {i->dev_major, i->dev_minor, i->inode};
	struct object *object;

	return object_table_get(p->m.objects, &id, -1, "", &object) ? NULL : object;
}

/* Where the evaluation loop's code is, in the kernel side's terms. */
static void set_eval_range(const struct pythons *p, struct interpreter *i,
			   const struct object *object)
{
	uint64_t start;

	if (!i->eval_vaddr || unwinder_frame(p->m.unwinder, object, i->eval_vaddr, &start))
		return;
	i->layout.walk.eval_start = start;
	i->layout.walk.eval_end = start + i->eval_bytes;
}

static int follow_frames(const struct pythons *p, struct tracee *t, const struct object *object)
{
	struct interpreter *i = &t->python->interpreter;
	int err;

	set_eval_range(p, i, object);
	err = ledger_python_open(p->m.ledger, t->slot, i->minor);
	if (!err)
		err = kernel_python_set(p->m.kernel, t->slot, &i->layout.walk);
	t->python->coverage.frames = !err;
	return err;
}

/* Copies of pymalloc that take no detour through a table, and no address to put there. */
static bool can_redirect(const struct alloc_tables *t)
{
	for (int domain = ALLOC_MEM; domain < ALLOC_DOMAINS; domain++) {
		for (int verb = 0; verb < VERBS; verb++) {
			const struct alloc_function *f = &t->functions[domain][verb];

			if (f->inlined && !f->equal)
				return false;
		}
	}
	return true;
}

static bool needs_redirect(const struct alloc_tables *t)
{
	for (int domain = ALLOC_MEM; domain < ALLOC_DOMAINS; domain++) {
		for (int verb = 0; verb < VERBS; verb++) {
			if (t->functions[domain][verb].inlined)
				return true;
		}
	}
	return false;
}

static bool is_outside(const struct alloc_tables *t)
{
	for (int domain = ALLOC_MEM; domain < ALLOC_DOMAINS; domain++) {
		for (int verb = 0; verb < VERBS; verb++) {
			if (t->functions[domain][verb].outside)
				return true;
		}
	}
	return false;
}

/* Why small objects of this process are left out; NULL: they need not be. */
static const char *why_not_objects(const struct pythons *p, const struct alloc_tables *t)
{
	if (t->hook == HOOK_RAW)
		return NULL;
	if (p->options.anonymous)
		return "small objects are traced only in processes named with -p, -n, --cgroup, "
		       "--container or --unit";
	if (t->hook == HOOK_FOREIGN && is_outside(t))
		return "another tool has replaced the allocator";
	if (t->hook == HOOK_FOREIGN || !needs_redirect(t))
		return NULL;
	if (p->options.no_redirect)
		return "this build inlines its allocator; small objects are seen without "
		       "--no-redirect";
	if (!can_redirect(t))
		return "this build inlines its allocator, and no place to redirect it to was found";
	return NULL;
}

static const char *hook_text(enum alloc_hook hook)
{
	switch (hook) {
	case HOOK_TRACEMALLOC:
		return "tracemalloc is on: what it costs and holds is counted too";
	case HOOK_DEBUG:
		return "the debug allocator is on: 24 bytes of every block are its own";
	case HOOK_RAW:
		return "PYTHONMALLOC=malloc: objects are counted as live, not as python";
	case HOOK_FOREIGN:
		return "another tool has hooked the allocator; what it hands out is traced";
	default:
		return NULL;
	}
}

/* From 3.13 on CPython tells of objects that come out of a freelist. */
static bool follow_freelists(struct python *python, struct places *places)
{
	const struct interpreter *i = &python->interpreter;
	uint64_t stub;

	if (!python->redirect || alloc_find_stub(i, &stub) ||
	    redirect_ref_tracer(python->redirect, i, stub))
		return false;
	place_add(places, &ref_tracer, stub - i->bias, 0);
	return true;
}

/* Finds out what of its objects can be seen, and sees to it that they can. The tables
 * come first, the probes after them: with probes alone, blocks would be seen to come and
 * not to go. */
static void open_objects(const struct pythons *p, struct python *python, struct places *places)
{
	struct coverage_python *c = &python->coverage;
	struct alloc_tables tables;

	c->objects = PYTHON_OBJECTS_LARGE_ONLY;
	if (p->options.mode == PYTHON_STACKS) {
		c->reason = "--python stacks";
		return;
	}
	if (alloc_tables_find(&python->interpreter, &tables)) {
		c->reason = "its allocator tables were not found";
		return;
	}
	c->reason = why_not_objects(p, &tables);
	if (c->reason)
		return;
	if (tables.hook != HOOK_FOREIGN && !p->options.no_redirect &&
	    redirect_new(&python->interpreter, &tables, &python->redirect)) {
		c->reason = "its allocator tables could not be redirected";
		return;
	}
	c->objects = PYTHON_OBJECTS_FULL;
	c->reason = hook_text(tables.hook);
	c->by_malloc = tables.hook == HOOK_RAW;
	c->debug_heads = tables.hook == HOOK_DEBUG;
	if (!c->by_malloc)
		places_of_tables(places, &python->interpreter, &tables, python->redirect != NULL);
	c->freelists = !follow_freelists(python, places);
}

static void close_objects(struct python *python, const char *reason)
{
	redirect_withdraw(python->redirect);
	python->redirect = NULL;
	python->coverage.objects = PYTHON_OBJECTS_LARGE_ONLY;
	python->coverage.reason = reason;
}

static void announce(const struct tracee *t)
{
	const struct python *python = t->python;

	if (python->coverage.redirected)
		log_notice(
			"pid %d: CPython %s: %zu words of its allocator tables are changed while "
			"it is traced, and put back at the end (--no-redirect: not)",
			t->process.pid, python->interpreter.version,
			redirect_count(python->redirect));
	else
		log_info("pid %d: CPython %s", t->process.pid, python->interpreter.version);
}

static void attach_frames(struct pythons *p, struct tracee *t)
{
	struct python *python = t->python;
	struct object *object = binary_of(p, &python->interpreter);

	if (!object || follow_frames(p, t, object))
		return;
	python->followed = true;
	object_set_interpreter(object);
}

static void attach_objects(struct pythons *p, struct tracee *t)
{
	struct python *python = t->python;
	const struct interpreter *i = &python->interpreter;
	struct object *object = binary_of(p, i);
	struct places places = {0};
	int err;

	if (!object || python->opened)
		return;
	python->opened = true;
	python->coverage.version = i->version;
	if (i->code_dealloc)
		place_add(&places, &code_dealloc, i->code_dealloc - i->bias, 0);
	if (i->finalize_vaddr)
		place_add(&places, &finalize, i->finalize_vaddr, 0);
	open_objects(p, python, &places);
	if (python->coverage.by_malloc)
		ledger_python_by_malloc(p->m.ledger, t->slot);
	err = prober_add_places(p->m.prober, t->attachments, object, "pymalloc", places.items,
				places.count);
	if (err) {
		log_warn("pid %d: CPython's functions cannot be probed: %s", t->process.pid,
			 strerror(-err));
		close_objects(python, "its allocator's functions could not be probed");
	}
	python->coverage.redirected = python->redirect && redirect_count(python->redirect) > 0;
	announce(t);
}

static void set_pending(struct pythons *p, struct python *python, bool pending)
{
	bool hurry = pending && clock_now_ns() < python->first_ns + LOOK_FOR_NS;

	p->hurry += (size_t)hurry - (size_t)python->hurry;
	python->hurry = hurry;
	python->pending = pending;
}

static void explain(struct pythons *p, struct python *python)
{
	set_pending(p, python, false);
	python->coverage.objects = PYTHON_OBJECTS_NONE;
	python->coverage.reason = python->problem.reason;
	python->coverage.version = python->problem.version;
}

static struct python *python_new(void)
{
	struct python *python = calloc(1, sizeof(*python));

	if (!python)
		return NULL;
	python->first_ns = clock_now_ns();
	python->coverage.version = "";
	return python;
}

static bool is_due(const struct python *python)
{
	uint64_t gap_ns = python->hurry ? LOOK_AGAIN_NS : LOOK_SELDOM_NS;

	return python->pending && clock_now_ns() >= python->looked_ns + gap_ns;
}

void pythons_look(struct pythons *p, struct tracee *t)
{
	struct python *python = t->python;
	int err;

	if (p->options.mode == PYTHON_OFF || !attachments_have_python(t->attachments))
		return;
	if (python && !is_due(python))
		return;
	if (!python)
		python = t->python = python_new();
	if (!python)
		return;
	python->looked_ns = clock_now_ns();
	err = interpreter_find(t->process.pid, &python->interpreter, &python->problem);
	set_pending(p, python, err == -EAGAIN);
	if (!err)
		attach_frames(p, t);
	if (!err || err == -EAGAIN) {
		attach_objects(p, t);
	} else if (err == -ENOENT) {
		python->absent = true;
	} else if (err == -ENOTSUP) {
		explain(p, python);
		log_warn("pid %d: CPython %s: %s", t->process.pid, python->coverage.version,
			 python->coverage.reason);
	} else {
		python->problem.reason = "its interpreter could not be read";
		explain(p, python);
	}
}

void pythons_forked(struct pythons *p, const struct tracee *parent, struct tracee *child)
{
	const struct python *from = parent->python;
	struct python *python;

	if (!from || !from->opened || child->python)
		return;
	python = python_new();
	if (!python)
		return;
	*python = *from;
	python->hurry = false;
	set_pending(p, python, from->pending);
	python->interpreter.pid = child->process.pid;
	python->coverage.version = python->interpreter.version;
	python->redirect =
		from->redirect ? redirect_copy(from->redirect, child->process.pid) : NULL;
	child->python = python;
	ledger_python_open(p->m.ledger, child->slot, python->interpreter.minor);
}

void python_check(struct python *python, pid_t pid)
{
	if (!python || !python->redirect || !redirect_renew(python->redirect))
		return;
	if (!python->coverage.reason)
		log_warn("pid %d: somebody else changed its allocator tables for a moment (another "
			 "leaktop?); objects of that time may be missing or outdated",
			 pid);
	python->coverage.reason = "its allocator tables were changed by somebody else meanwhile: "
				  "objects may be missing or outdated";
}

/* Kept, for children that were not traced. */
static void remember(struct pythons *p, const struct python *python)
{
	struct redirect *copy;
	struct redirect **grown;

	if (p->gone_count == GONE_MAX)
		return;
	grown = realloc(p->gone, (p->gone_count + 1) * sizeof(*grown));
	if (!grown)
		return;
	p->gone = grown;
	copy = redirect_copy(python->redirect, python->interpreter.pid);
	if (copy)
		p->gone[p->gone_count++] = copy;
}

void pythons_release(struct pythons *p, struct python *python, bool exec)
{
	if (!python)
		return;
	set_pending(p, python, false);
	if (python->redirect) {
		remember(p, python);
		if (exec)
			redirect_free(python->redirect);
		else
			redirect_withdraw(python->redirect);
	}
	free(python);
}
