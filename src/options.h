/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The command line. One table of options; parsed once, constant afterwards. */
#ifndef LEAKTOP_OPTIONS_H
#define LEAKTOP_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "account/snapshot_builder.h"
#include "probe/method.h"
#include "pythons.h"

struct selector;

enum command_kind {
	COMMAND_TRACE = 0,
	COMMAND_DOCTOR,
	COMMAND_CENSUS,
	COMMAND_WATCH,
};

enum sample_mode {
	SAMPLE_AUTO = 0, /* as the budget allows */
	SAMPLE_EXACT,
	SAMPLE_FIXED,
};

#define OBJECTS_MAX_OPTION 16

struct options {
	enum command_kind command;
	struct selector *selector;   /* owned */
	char *const *run;	     /* command after --, NULL: none; points into argv */
	char **run_words, *run_text; /* owned: words of -c */
	double interval_s;	     /* 0: default of the command */
	uint64_t count;		     /* reports; 0: endless */
	double duration_s;	     /* 0: endless */
	uint64_t top;
	uint64_t min_age_ms;
	uint64_t size_min_bytes, size_max_bytes;
	const char *objects[OBJECTS_MAX_OPTION]; /* -O */
	size_t object_count;
	const char *symbol_prefix; /* -S, NULL: none */
	enum snapshot_sort sort;
	enum snapshot_group_by group_by;
	const char *format;
	const char *output_path; /* -w, NULL: stdout */
	int color;		 /* 0 never, 1 always, -1: if stdout is a terminal */
	int verbosity;		 /* -1: -q */
	bool no_follow;
	bool no_stacks;
	uint64_t max_blocks;
	uint64_t ring_bytes;
	uint64_t unwind_bytes; /* kernel memory for unwind tables */
	enum probe_method method;
	enum python_mode python;
	bool no_redirect;
	bool no_escalate;
	double max_overhead_pct;
	enum sample_mode sample;
	uint32_t sample_rate; /* SAMPLE_FIXED: sampling.h */
	double every_s;	      /* census: between two counts, 0: one count */
	pid_t census_pid;
	bool freeze;
	bool help, version;
};

/*
 * Parses @argv. 0; -EINVAL: usage error, -ESRCH: a named target does not exist;
 * the one line that explains it has been logged. @out is to be released in any case.
 */
int options_parse(int argc, char **argv, struct options *out);
void options_release(struct options *o);
void options_print_help(void);

#endif
