/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The memory of all processes but ourselves, or of some, read again and again at little cost. */
#ifndef LEAKTOP_SAMPLE_H
#define LEAKTOP_SAMPLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct memory_sample {
	uint64_t rss_bytes;
	uint64_t anon_bytes;
	uint64_t swap_bytes;
};

struct sampled_process {
	pid_t pid;
	uint64_t start_ticks; /* with the pid, its identity */
	struct memory_sample memory;
	void *owner_data; /* NULL at first; given to sampler_options.release */
};

struct sampler_options {
	/* Whether to sample this process; asked again now and then. NULL: all. */
	bool (*wants)(pid_t pid, void *arg);
	/* An owner_data that is not NULL, when its process has gone. */
	void (*release)(void *owner_data);
	void *arg;	      /* of wants */
	bool follow_children; /* of wanted processes */
};

struct sampler;
/* 0 or negative errno. */
int sampler_new(const struct sampler_options *options, struct sampler **out);
void sampler_free(struct sampler *s);

/* Looks at all processes once. Those that have gone are forgotten. 0 or negative errno. */
int sampler_pass(struct sampler *s);
/* Of the last pass, by ascending pid; valid until the next one. */
size_t sampler_count(const struct sampler *s);
struct sampled_process *sampler_at(struct sampler *s, size_t i);
/* Processes left out because there were too many. */
size_t sampler_left_out(const struct sampler *s);

struct host_memory {
	uint64_t total_bytes;
	uint64_t available_bytes;
	uint64_t swap_used_bytes;
};
int host_memory_read(struct host_memory *out);

/* The parsers behind it. 0 or -EINVAL. @text of /proc/PID/statm: */
int sample_parse_statm(const char *text, uint64_t page_bytes, struct memory_sample *out);
int sample_parse_meminfo(const char *text, struct host_memory *out);

struct process_stat {
	pid_t parent;
	bool is_kernel_thread;
	uint64_t start_ticks;
};
/* @text of /proc/PID/stat, whose comm may hold anything. */
int sample_parse_stat(const char *text, struct process_stat *out);

#endif
