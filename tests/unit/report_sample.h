/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A snapshot for the tests of the report formats; each test changes what it is about. */
#ifndef LEAKTOP_REPORT_SAMPLE_H
#define LEAKTOP_REPORT_SAMPLE_H

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "account/snapshot.h"
#include "report/report.h"

struct report_sample {
	struct snapshot s;
	struct coverage_allocator allocator;
	const char *functions[3];
	struct snapshot_process processes[2];
	struct snapshot_stack stacks[2];
	struct snapshot_group groups[2];
	struct coverage_python python;
	struct snapshot_type types[2];
	struct frame frames[4];
	pid_t pids[2];
};

static inline void report_sample_frames(struct report_sample *r)
{
	r->frames[0] = (struct frame){.inlined = true,
				      .has_offset = true,
				      .line = 7,
				      .address = 0x556f6c0d31a9,
				      .offset = 0x31a9,
				      .function = "make_item",
				      .file = "/src/item.h",
				      .module = "/usr/sbin/server",
				      .build_id = "abcd"};
	r->frames[1] = r->frames[0];
	r->frames[1].inlined = false;
	r->frames[1].line = 42;
	r->frames[1].func_offset = 0x2a;
	r->frames[1].function = "handle_request";
	r->frames[1].file = "/src/server.c";
	r->frames[2] = (struct frame){.lang = FRAME_PYTHON,
				      .line = 3,
				      .function = "serve",
				      .file = "/app/web/__init__.py",
				      .module = "python"};
	r->frames[3] = (struct frame){.has_offset = true,
				      .address = 0x7f0000001234,
				      .offset = 0x1234,
				      .module = "/lib/libx.so"};
}

static inline void report_sample_processes(struct report_sample *r)
{
	r->processes[0] = (struct snapshot_process){.pid = 4711,
						    .comm = "server",
						    .exe = "/usr/sbin/server",
						    .container_id = "0123456789abcdef",
						    .container_name = "web",
						    .container_runtime = "docker",
						    .cgroup = "/docker/0123456789abcdef",
						    .rss_bytes = 20971520,
						    .live_bytes = 955959,
						    .live_blocks = 101,
						    .mmap_live_bytes = 1048576,
						    .mmap_live_blocks = 1,
						    .python_live_bytes = UNKNOWN_BYTES,
						    .allocator_free_bytes = UNKNOWN_BYTES,
						    .file_and_shared_bytes = 4194304,
						    .untracked_bytes = 14772681,
						    .growth_bytes_per_s = 10240};
	r->processes[1] = (struct snapshot_process){.pid = 12,
						    .exited = true,
						    .comm = "worker",
						    .exe = "/bin/worker",
						    .cgroup = "/system.slice/w.service",
						    .unit = "w.service",
						    .python_live_bytes = UNKNOWN_BYTES,
						    .allocator_free_bytes = UNKNOWN_BYTES,
						    .untracked_bytes = UNKNOWN_BYTES,
						    .growth_bytes_per_s = NAN};
}

static inline void report_sample_stacks(struct report_sample *r)
{
	r->pids[0] = 4711;
	r->pids[1] = 12;
	r->stacks[0] = (struct snapshot_stack){.id = 0xfeed,
					       .pids = r->pids,
					       .pid_count = 2,
					       .live_bytes = 1048576,
					       .live_blocks = 1,
					       .live_bytes_ci95 = {1048576, 1048576},
					       .live_blocks_ci95 = {1, 1},
					       .growth_bytes_per_s = NAN,
					       .allocated_bytes = 1048576,
					       .allocated_blocks = 1,
					       .oldest_s = 300,
					       .domain = DOMAIN_MMAP,
					       .incomplete = "no caller found",
					       .frames = &r->frames[3],
					       .frame_count = 1};
	r->stacks[1] = (struct snapshot_stack){.id = 0xbeef,
					       .pids = r->pids,
					       .pid_count = 1,
					       .live_bytes = 955959,
					       .live_blocks = 101,
					       .live_bytes_ci95 = {955959, 955959},
					       .live_blocks_ci95 = {101, 101},
					       .growth_bytes_per_s = 10240,
					       .allocated_bytes = 1955959,
					       .allocated_blocks = 201,
					       .freed_bytes = 1000000,
					       .freed_blocks = 100,
					       .oldest_s = 12.3,
					       .domain = DOMAIN_MALLOC,
					       .frames = r->frames,
					       .frame_count = 4};
}

/* The first process runs Python, and the second stack holds its objects. */
static inline void report_sample_python(struct report_sample *r)
{
	r->python = (struct coverage_python){.pid = 4711,
					     .version = "3.11.2",
					     .objects = PYTHON_OBJECTS_LARGE_ONLY,
					     .reason = "--python stacks",
					     .frames = true};
	r->types[0] = (struct snapshot_type){"app.Connection", 100, 5600};
	r->types[1] = (struct snapshot_type){"a\nb", 1, 64};
	r->processes[0].python_live_bytes = 5664;
	r->processes[0].python_live_blocks = 101;
	r->stacks[1].domain = DOMAIN_PYMALLOC;
	r->stacks[1].types = r->types;
	r->stacks[1].type_count = 2;
	r->frames[0].interpreter = true;
	r->s.pythons = &r->python;
	r->s.python_count = 1;
}

static inline void report_sample_init(struct report_sample *r)
{
	memset(r, 0, sizeof(*r));
	report_sample_frames(r);
	report_sample_processes(r);
	report_sample_stacks(r);
	r->functions[0] = "malloc";
	r->functions[1] = "free";
	r->allocator = (struct coverage_allocator){.pid = 4711,
						   .object = "/lib/libc.so.6",
						   .build_id = "beef",
						   .allocator = "glibc",
						   .functions = r->functions,
						   .return_method = "session"};
	r->groups[0] = (struct snapshot_group){"handle_request", 955959, 101, 10240};
	r->groups[1] = (struct snapshot_group){"a\nb", 2048, 2, NAN};
	r->s = (struct snapshot){
		.time_s = 1700000000.25,
		.elapsed_s = 10,
		.allocators = &r->allocator,
		.allocator_count = 1,
		.process_count_covered = 2,
		.stacks_complete_pct = 98.25,
		.overhead = {.figures = {.mode = "exact", .budget_pct = 2, .measured_pct = NAN},
			     .probe_hits = 123456,
			     .probe_hits_per_s = 12345.6,
			     .tracer_cpu_pct = 1.25,
			     .tracer_rss_bytes = 24536678},
		.processes = r->processes,
		.process_count = 2,
		.stacks = r->stacks,
		.stack_count = 2,
		.stack_count_all = 153,
		.total_live_bytes = 2004535,
		.total_live_blocks = 102};
}

/* As text, to be freed; NULL when the format failed. */
static inline char *report_sample_print(const char *format, const struct snapshot *s,
					const struct report_options *options)
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);
	int err = report_format_find(format)->write(out, s, options);

	fclose(out);
	if (err) {
		free(text);
		return NULL;
	}
	return text;
}

/* What the format returns when the reader has closed the pipe. */
static inline int report_sample_to_closed_pipe(const char *format, const struct snapshot *s)
{
	int fds[2], err;
	FILE *out;

	signal(SIGPIPE, SIG_IGN);
	if (pipe(fds))
		return -errno;
	close(fds[0]);
	out = fdopen(fds[1], "w");
	err = report_format_find(format)->write(out, s, &(struct report_options){0});
	fclose(out);
	return err;
}

/* What it returns when the disk is full. */
static inline int report_sample_to_full_disk(const char *format, const struct snapshot *s)
{
	FILE *out = fopen("/dev/full", "w");
	int err = report_format_find(format)->write(out, s, &(struct report_options){0});

	fclose(out);
	return err;
}

#endif
