/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What one report of the watch says: plain data, complete and immutable, and the formats
 * that write it. */
#ifndef LEAKTOP_WATCH_REPORT_H
#define LEAKTOP_WATCH_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

struct arena;

/* How fast something grows, and how long that can last. */
struct watch_trend {
	double growth_bytes_per_s;	/* NAN: too early */
	double growth_low, growth_high; /* 95 % interval */
	uint64_t limit_bytes;		/* of the cgroup or host that has least room; 0: unknown */
	const char *limit_of;		/* its path, or "host" */
	double seconds_to_limit;	/* NAN: it does not grow for sure */
	bool suspicious;		/* a growth that nothing speaks against */
	const char *why;		/* NULL: there is nothing to say */
};

struct watch_container {
	const char *id;	  /* NULL: in no container, as the others */
	const char *name; /* NULL: unknown */
	const char *runtime;
};

struct watch_process {
	pid_t pid;
	const char *comm;
	const char *exe;
	struct watch_container container;
	const char *cgroup;
	const char *unit; /* NULL: none */
	uint64_t rss_bytes, anon_bytes, swap_bytes;
	struct watch_trend trend; /* of anonymous memory with what of it is swapped out */
};

struct watch_cgroup {
	const char *path;
	bool v1;
	struct watch_container container;
	const char *unit;
	size_t processes;	  /* in itself */
	uint64_t used_bytes;	  /* without inactive file pages, with all cgroups below */
	uint64_t own_limit_bytes; /* 0: none */
	struct watch_trend trend;
};

struct watch_report {
	struct arena *arena; /* holds everything below */
	double time_s;	     /* wall clock, seconds since the epoch */
	double elapsed_s;
	bool final;
	uint64_t host_total_bytes, host_available_bytes; /* 0: unknown */
	struct watch_process *processes;		 /* most suspicious first */
	size_t process_count;
	size_t left_out;	      /* processes not watched, because there were too many */
	struct watch_cgroup *cgroups; /* likewise */
	size_t cgroup_count;
	double tracer_cpu_pct; /* leaktop's own, per cent of one CPU; NAN: unknown */
	uint64_t tracer_rss_bytes;
};

void watch_report_free(struct watch_report *r);

struct watch_format_options {
	size_t top; /* text: rows of each table */
	bool color, verbose;
};

/* To memory; write errors are looked at by the caller. 0 or negative errno. */
typedef int watch_render_fn(FILE *out, const struct watch_report *r,
			    const struct watch_format_options *options);
watch_render_fn watch_render_text, watch_render_json;

/* By the name of a format; NULL: the watch has no such one. */
watch_render_fn *watch_format_find(const char *name);
/* Renders, then writes and flushes. 0 or negative errno: -EPIPE when the reader is gone. */
int watch_report_write(FILE *out, const struct watch_report *r,
		       const struct watch_format_options *options, watch_render_fn *render);

#endif
