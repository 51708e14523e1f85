/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "doctor.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/escape.h"
#include "base/log.h"
#include "options.h"
#include "probe/calibrate.h"
#include "probe/planner.h"
#include "probe/prober.h"
#include "python/alloc_tables.h"
#include "python/interpreter.h"
#include "sym/object.h"
#include "target/process.h"
#include "target/selector.h"

struct doctor {
	const struct options *options;
	struct object_table *objects;
	struct prober *prober;
	enum probe_method method;
	struct calibration costs;
	bool measured;
	bool broken; /* something that tracing needs is missing */
};

static void say(const char *mark, const char *what, const char *detail)
{
	printf("%-6s %-34s %s\n", mark, what, detail);
}

static void need(struct doctor *d, bool ok, const char *what, const char *remedy)
{
	say(ok ? "ok" : "MISSING", what, ok ? "" : remedy);
	d->broken |= !ok;
}

static void check_kernel(struct doctor *d)
{
	struct utsname u;

	uname(&u);
	say("", "kernel", u.release);
	need(d, geteuid() == 0, "root", "run with sudo");
	need(d, access("/sys/kernel/btf/vmlinux", R_OK) == 0, "BTF (/sys/kernel/btf/vmlinux)",
	     "use a kernel built with CONFIG_DEBUG_INFO_BTF");
	need(d, probe_method_supported(METHOD_PERF) == 1, "uprobes",
	     "use a kernel built with CONFIG_UPROBE_EVENTS");
	say(probe_method_supported(METHOD_MULTI) == 1 ? "ok" : "no", "uprobe.multi (Linux 6.6)",
	    probe_method_supported(METHOD_MULTI) == 1
		    ? ""
		    : "probes are perf events; detaching is slow");
	say(probe_method_supported(METHOD_SESSION) == 1 ? "ok" : "no",
	    "uprobe.session (Linux 6.13)",
	    probe_method_supported(METHOD_SESSION) == 1 ? "" : "entry and return are two probes");
}

static void measure(struct doctor *d)
{
	static const char *const names[] = {"nop", "push", "jmp, jcc", "call", "any other"};

	d->measured = !calibrate(d->method, &d->costs);
	if (!d->measured) {
		say("", "cost of a probe", "not measured without uprobe.multi");
		return;
	}
	printf("\nAdded by an empty probe on this machine, by the instruction it sits on:\n"
	       "  %-12s %10s %18s\n",
	       "instruction", "entry ns", "entry+return ns");
	for (int i = 0; i < SELF_FUNCTIONS; i++) {
		printf("  %-12s %10.0f", names[i], d->costs.entry_ns[i]);
		if (isnan(d->costs.return_ns[i]))
			printf(" %18s\n", "-");
		else
			printf(" %18.0f\n", d->costs.return_ns[i]);
	}
}

static void print_point(const struct doctor *d, const struct probe_point *point)
{
	const char *insn = insn_class_name((enum insn_class)point->insn);

	if (!point->site) {
		printf("    %-24s +%-4d %-8s library loading, rare\n", "_dl_debug_state", 0, insn);
		return;
	}
	printf("    ");
	escape_terminal(stdout, point->site->symbol, 64);
	printf("%*s +%-4llu %-8s",
	       (int)(24 - (strlen(point->site->symbol) > 24 ? 24 : strlen(point->site->symbol))),
	       "", (unsigned long long)(point->offset - point->site->offset), insn);
	if (d->measured) {
		const double *ns =
			point->program == PROGRAM_FREE ? d->costs.entry_ns : d->costs.return_ns;

		if (!isnan(ns[point->insn]))
			printf(" %.0f ns", ns[point->insn]);
	}
	printf("\n");
}

/* Sessions need no guard for exceptions. */
static bool is_attached(const struct doctor *d, const struct probe_point *point)
{
	return point->program != PROGRAM_GUARD || d->method != METHOD_SESSION;
}

static void print_object(const struct doctor *d, const struct object_probes *o)
{
	size_t count = probe_plan_count(o->plan), attached = 0;

	for (size_t i = 0; i < count; i++)
		attached += is_attached(d, probe_plan_point(o->plan, i));
	if (!attached)
		return;
	printf("  ");
	escape_terminal(stdout, object_path(o->object), 256);
	printf(" (%s)\n", o->sites.allocator ? o->sites.allocator : "no allocator");
	for (size_t i = 0; i < count; i++) {
		if (is_attached(d, probe_plan_point(o->plan, i)))
			print_point(d, probe_plan_point(o->plan, i));
	}
}

/* What tracing its objects takes. */
static void print_python_objects(const struct interpreter *i)
{
	struct alloc_tables tables;
	unsigned int copies = 0, words = 0, stuck = 0;

	if (alloc_tables_find(i, &tables)) {
		puts("    objects: its allocator tables were not found; those above 512 bytes "
		     "only");
		return;
	}
	for (int n = 0; n < 2 * VERBS; n++) {
		const struct alloc_function *f =
			&tables.functions[n < VERBS ? ALLOC_MEM : ALLOC_OBJ][n % VERBS];

		copies += n < VERBS ? 0 : f->inlined;
		words += f->inlined && f->equal;
		stuck += f->inlined && !f->equal;
	}
	if (tables.hook == HOOK_RAW)
		puts("    objects: all, as malloc's blocks (PYTHONMALLOC=malloc)");
	else if (!copies)
		puts("    objects: all; no inlined copies of its allocator");
	else if (stuck)
		printf("    objects: above 512 bytes only; %u inlined copies of its allocator, and "
		       "no way round them\n",
		       copies);
	else
		printf("    objects: all; round %u inlined copies of its allocator, by changing %u "
		       "words while it is traced\n             (with --no-redirect nothing is "
		       "changed: objects above 512 bytes only)\n",
		       copies, words);
}

static void print_python(pid_t pid)
{
	struct interpreter_problem problem = {.version = ""};
	struct interpreter i;
	int err = interpreter_find(pid, &i, &problem);

	if (err == -ENOTSUP)
		printf("  CPython %s: native stacks only: %s\n", problem.version, problem.reason);
	else if (err == -EAGAIN)
		puts("  CPython: its interpreter is just starting");
	if (err)
		return;
	printf("  CPython %s\n    frames: Python's lines in the stacks\n", i.version);
	print_python_objects(&i);
}

static int examine(pid_t pid, void *arg)
{
	struct doctor *d = arg;
	struct attachments *a = attachments_new(d->prober, pid);
	struct process p;

	if (a && !process_read(pid, &p) && prober_update(d->prober, a, pid) >= 0) {
		printf("\npid %d (", pid);
		escape_terminal(stdout, p.comm, sizeof(p.comm));
		printf(")%s\n", procfs_is_64bit(pid) == 0 ? ": a 32-bit program, not supported"
				: attachments_have_allocator(a)
					? ""
					: ": no allocator found; name its object with -O or its "
					  "prefix with -S");
		for (size_t i = 0; i < attachments_count(a); i++) {
			if (attachments_at(a, i)->plan)
				print_object(d, attachments_at(a, i));
		}
		if (attachments_have_python(a))
			print_python(pid);
	}
	attachments_free(a);
	return 0;
}

int doctor_run(const struct options *o)
{
	struct prober_options p = {.extra_prefix = o->symbol_prefix};
	struct doctor d = {.options = o, .method = probe_method_best()};
	char missing[512];

	check_kernel(&d);
	if (!d.broken)
		measure(&d);
	d.objects = object_table_new();
	p.method = d.method;
	d.prober = prober_new(NULL, d.objects, &p);
	if (d.objects && d.prober && !selector_is_empty(o->selector)) {
		if (selector_missing(o->selector, missing, sizeof(missing)))
			printf("\n%s is not there\n", missing);
		selector_scan(o->selector, examine, &d);
	}
	prober_free(d.prober);
	object_table_free(d.objects);
	return d.broken ? -ENOTSUP : 0;
}
