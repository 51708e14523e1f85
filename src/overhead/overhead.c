/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "overhead/overhead.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>

#include "base/log.h"
#include "bpf/kernel.h"
#include "overhead/governor.h"
#include "probe/calibrate.h"
#include "probe/planner.h"
#include "target/procfs.h"
#include "tracees.h"

/* Where this machine cannot be measured (no multi links): of a slow one, in a virtual
 * machine, by class of instruction. */
static const uint32_t guessed_hit_ns[SPEC_INSNS] = {700, 700, 800, 1300, 5000};
static const uint32_t guessed_return_ns[SPEC_INSNS] = {400, 400, 400, 700, 800};

#define GUESSED_AFTER_WORK_NS 1500
/* After so much of its own CPU time a program has used the caches up. */
#define WORK_NS 100000.0

struct subject {
	uint64_t start_ticks; /* with the slot: which process it is of */
	struct process_costs costs;
	uint64_t cpu_ns;
	bool measured;
	struct governor governor;
};

struct overhead {
	struct kernel *kernel;
	struct overhead_options options;
	double stepped_s;
	double after_work_ns;	  /* what a hit takes in addition when caches are cold */
	struct subject *subjects; /* by slot */
};

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static uint32_t measured_or(double ns, uint32_t guess)
{
	return isfinite(ns) && ns >= 0 && ns < 1e6 ? (uint32_t)ns : guess;
}

static void calibrate_kernel(struct overhead *o)
{
	uint32_t hit_ns[SPEC_INSNS], return_ns[SPEC_INSNS];
	struct calibration c;
	int err = calibrate(o->options.method, &c);

	for (int i = 0; i < SPEC_INSNS; i++) {
		bool known = !err && i < SELF_FUNCTIONS;

		hit_ns[i] = measured_or(known ? c.entry_ns[i] : NAN, guessed_hit_ns[i]);
		return_ns[i] = measured_or(known ? c.return_ns[i] - c.entry_ns[i] : NAN,
					   guessed_return_ns[i]);
		if (known)
			log_info("a probe on %s costs %u ns, its return %u ns",
				 insn_class_name((enum insn_class)i), hit_ns[i], return_ns[i]);
	}
	o->after_work_ns = measured_or(err ? NAN : c.after_work_ns, GUESSED_AFTER_WORK_NS);
	log_info("and %.0f ns more after much other work", o->after_work_ns);
	if (err)
		log_info("probes were not measured on this kernel; their costs are guessed");
	kernel_hit_costs_set(o->kernel, hit_ns, return_ns);
}

struct overhead *overhead_new(const struct overhead_options *options, struct kernel *k)
{
	struct overhead *o = calloc(1, sizeof(*o));

	if (!o)
		return NULL;
	o->kernel = k;
	o->options = *options;
	o->subjects = calloc(LIVE_PROC_MAX + 1, sizeof(*o->subjects));
	if (!o->subjects) {
		free(o);
		return NULL;
	}
	o->stepped_s = now_s();
	calibrate_kernel(o);
	return o;
}

void overhead_free(struct overhead *o)
{
	if (!o)
		return;
	free(o->subjects);
	free(o);
}

static struct subject *subject_of(const struct overhead *o, const struct tracee *t)
{
	struct subject *s = t->slot <= LIVE_PROC_MAX ? &o->subjects[t->slot] : NULL;

	if (!s || t->exited)
		return NULL;
	if (s->start_ticks != t->process.start_ticks) {
		*s = (struct subject){.start_ticks = t->process.start_ticks};
		/* A child is sampled as its parent was. */
		s->governor.rate = kernel_sampling(o->kernel, t->slot).rate;
	}
	return s;
}

/* What @hits took beyond what they take one right after the other. */
static double cold_s(const struct overhead *o, uint64_t hits, double cpu_s)
{
	double between_ns = hits ? cpu_s * 1e9 / (double)hits : 0;

	return (double)hits * o->after_work_ns / 1e9 * fmin(1, between_ns / WORK_NS);
}

static void step(struct overhead *o, const struct tracee *t, double elapsed_s)
{
	struct subject *s = subject_of(o, t);
	struct process_costs costs = kernel_costs(o->kernel, t->slot);
	struct governor_input in = {.elapsed_s = elapsed_s, .budget_pct = o->options.budget_pct};
	uint32_t rate;
	uint64_t cpu_ns;

	if (!s || procfs_cpu_ns(t->process.pid, &cpu_ns))
		return;
	in.cpu_s = (double)(cpu_ns - s->cpu_ns) / 1e9;
	in.probe_s = (double)(costs.probe_ns - s->costs.probe_ns) / 1e9;
	in.record_s = (double)(costs.record_ns - s->costs.record_ns) / 1e9;
	in.probe_s += cold_s(o, costs.hits - s->costs.hits, in.cpu_s);
	s->costs = costs;
	s->cpu_ns = cpu_ns;
	if (!s->measured) { /* there is no step before */
		s->measured = true;
		return;
	}
	rate = s->governor.rate;
	governor_step(&s->governor, &in);
	if (o->options.fixed) {
		s->governor.rate = rate;
	} else if (rate != s->governor.rate) {
		struct process_sampling sampling = kernel_sampling(o->kernel, t->slot);

		sampling.rate = (uint16_t)s->governor.rate;
		kernel_sampling_set(o->kernel, t->slot, sampling);
		log_info("process %d: %.1f %% overhead, sampling interval %.0f bytes",
			 (int)t->process.pid, s->governor.measured_pct,
			 sampling.rate ? exp2((double)sampling.rate / 256) : 0);
	}
}

void overhead_tick(struct overhead *o, const struct tracees *tracees)
{
	double now = now_s(), elapsed_s = now - o->stepped_s;

	if (elapsed_s < GOVERNOR_STEP_S)
		return;
	o->stepped_s = now;
	for (size_t i = 0; i < tracees_count(tracees); i++)
		step(o, tracees_at(tracees, i), elapsed_s);
}

struct overhead_figures overhead_of(const struct overhead *o, const struct tracee *t)
{
	const struct subject *s = subject_of(o, t);
	struct overhead_figures f = {
		.mode = "exact", .budget_pct = o->options.budget_pct, .measured_pct = NAN};
	uint32_t rate = kernel_sampling(o->kernel, t->slot).rate;

	f.interval_bytes = sampling_interval(kernel_sampling_tables(o->kernel), rate);
	if (rate)
		f.mode = "sampled";
	if (s && s->measured)
		f.measured_pct = s->governor.measured_pct;
	f.over_budget = s && s->governor.over_budget;
	return f;
}

struct overhead_figures overhead_of_all(const struct overhead *o, const struct tracees *tracees)
{
	struct overhead_figures all = {
		.mode = "exact", .budget_pct = o->options.budget_pct, .measured_pct = NAN};

	/* The process that is sampled most thinly, and the one that pays most. */
	for (size_t i = 0; i < tracees_count(tracees); i++) {
		struct overhead_figures f;

		if (tracees_at(tracees, i)->exited)
			continue;
		f = overhead_of(o, tracees_at(tracees, i));
		if (f.interval_bytes > all.interval_bytes) {
			all.interval_bytes = f.interval_bytes;
			all.mode = f.mode;
		}
		all.measured_pct = fmax(all.measured_pct, f.measured_pct);
		all.over_budget |= f.over_budget;
	}
	return all;
}
