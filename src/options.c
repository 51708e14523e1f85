/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "options.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/sampling_tables.h"
#include "report/report.h"
#include "target/selector.h"
#include "watch/watch_report.h"

#define DEFAULT_MAX_BLOCKS (1u << 20)
#define DEFAULT_RING_BYTES (4u << 20)
#define DEFAULT_UNWIND_BYTES (128u << 20) /* all libraries of a distribution take 40 MiB */

typedef int (*option_fn)(struct options *o, const char *arg);

struct option_row {
	char letter; /* 0: none */
	const char *name;
	const char *arg; /* NULL: takes none */
	option_fn set;
	const char *help;
};

static int bad(const char *what, const char *arg)
{
	log_error("%s: %s; see leaktop --help", what, arg);
	return -EINVAL;
}

/* A whole number with an optional binary unit: 64, 4K, 2MiB, 1G. */
static int parse_size(const char *arg, uint64_t *out)
{
	static const char units[] = "KMGT";
	const char *unit;
	char *end;
	unsigned long long v;
	int shift = 0;

	errno = 0;
	v = strtoull(arg, &end, 10);
	if (errno || end == arg || !isdigit((unsigned char)arg[0]))
		return -EINVAL;
	unit = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
	if (unit) {
		shift = 10 * (int)(unit - units + 1);
		end++;
		if (!strcmp(end, "iB") || !strcmp(end, "B"))
			end += strlen(end);
	}
	if (*end || (v << shift) >> shift != v)
		return -EINVAL;
	*out = v << shift;
	return 0;
}

static int parse_seconds(const char *arg, double *out)
{
	char *end;
	double v = strtod(arg, &end);

	if (end == arg || *end || !isfinite(v) || v <= 0 || v > 1e9)
		return -EINVAL;
	*out = v;
	return 0;
}

static int set_size(const char *arg, const char *what, uint64_t *out)
{
	return parse_size(arg, out) ? bad(what, arg) : 0;
}

/* -p 12,34: each must exist now; the identity is the pid with its start time. */
static int set_pids(struct options *o, const char *arg)
{
	const char *p = arg;

	for (;;) {
		char *end;
		long pid = strtol(p, &end, 10);
		int err;

		if (end == p || pid <= 0 || pid > INT32_MAX || (*end && *end != ','))
			return bad("not a list of process ids", arg);
		err = selector_add_pid(o->selector, (pid_t)pid);
		if (err == -ESRCH) {
			log_error("no process with pid %ld; it may have ended: try -n NAME", pid);
			return err;
		}
		if (err)
			return err;
		if (!*end)
			return 0;
		p = end + 1;
	}
}

static int set_name(struct options *o, const char *arg)
{
	return selector_add_name(o->selector, arg);
}

static int set_cgroup(struct options *o, const char *arg)
{
	int err = selector_add_cgroup(o->selector, arg);

	if (err)
		log_error("no cgroup '%s'; name a directory below /sys/fs/cgroup or a path as in "
			  "/proc/PID/cgroup",
			  arg);
	return err ? -ESRCH : 0;
}

static int set_container(struct options *o, const char *arg)
{
	return selector_add_container(o->selector, arg);
}

static int set_unit(struct options *o, const char *arg)
{
	return selector_add_unit(o->selector, arg);
}

static int set_all(struct options *o, const char *arg)
{
	(void)arg;
	selector_add_all(o->selector);
	return 0;
}

/* -c "CMD ARG...": words are split at blanks; `--` keeps words as they are. */
static int set_command(struct options *o, const char *arg)
{
	size_t room = strlen(arg) / 2 + 2, n = 0;
	char *text = strdup(arg), *save = NULL;

	free(o->run_text);
	free(o->run_words);
	o->run_text = text;
	o->run_words = calloc(room + 1, sizeof(*o->run_words));
	if (!text || !o->run_words)
		return -ENOMEM;
	for (char *w = strtok_r(text, " \t", &save); w; w = strtok_r(NULL, " \t", &save))
		o->run_words[n++] = w;
	if (!n)
		return bad("no command in -c", arg);
	o->run = o->run_words;
	return 0;
}

static int set_top(struct options *o, const char *arg)
{
	if (parse_size(arg, &o->top) || !o->top)
		return bad("-T wants a number of stacks", arg);
	return 0;
}

static int set_older(struct options *o, const char *arg)
{
	return set_size(arg, "-o wants milliseconds", &o->min_age_ms);
}

static int set_min(struct options *o, const char *arg)
{
	return set_size(arg, "-z wants a size", &o->size_min_bytes);
}

static int set_max(struct options *o, const char *arg)
{
	return set_size(arg, "-Z wants a size", &o->size_max_bytes);
}

static int set_object(struct options *o, const char *arg)
{
	if (o->object_count == OBJECTS_MAX_OPTION)
		return bad("too many -O", arg);
	o->objects[o->object_count++] = arg;
	return 0;
}

static int set_prefix(struct options *o, const char *arg)
{
	o->symbol_prefix = arg;
	return 0;
}

/* Position of @arg in the NULL-terminated @names, or a usage error. */
static int choice(const char *what, const char *const *names, const char *arg)
{
	for (int i = 0; names[i]; i++) {
		if (!strcmp(names[i], arg))
			return i;
	}
	return bad(what, arg);
}

static int set_sort(struct options *o, const char *arg)
{
	static const char *const names[] = {"live", "growth", NULL};
	int i = choice("--sort wants live or growth", names, arg);

	if (i >= 0)
		o->sort = (enum snapshot_sort)i;
	return i < 0 ? i : 0;
}

static int set_by(struct options *o, const char *arg)
{
	static const char *const names[] = {"stack",	 "function", "line", "process",
					    "container", "type",     NULL};
	int i = choice("--by wants stack, function, line, process or container", names, arg);

	if (i >= 0)
		o->group_by = (enum snapshot_group_by)i;
	return i < 0 ? i : 0;
}

static int set_format(struct options *o, const char *arg)
{
	if (!report_format_find(arg))
		return bad("--format wants text, json or folded", arg);
	o->format = arg;
	return 0;
}

static int set_json(struct options *o, const char *arg)
{
	(void)arg;
	return set_format(o, "json");
}

static int set_folded(struct options *o, const char *arg)
{
	(void)arg;
	return set_format(o, "folded");
}

static int set_output(struct options *o, const char *arg)
{
	o->output_path = arg;
	return 0;
}

static int set_duration(struct options *o, const char *arg)
{
	return parse_seconds(arg, &o->duration_s) ? bad("--duration wants seconds", arg) : 0;
}

static int set_color(struct options *o, const char *arg)
{
	static const char *const names[] = {"never", "always", "auto", NULL};
	int i = choice("--color wants auto, always or never", names, arg);

	if (i >= 0)
		o->color = i == 2 ? -1 : i;
	return i < 0 ? i : 0;
}

static int set_verbose(struct options *o, const char *arg)
{
	(void)arg;
	o->verbosity++;
	return 0;
}

static int set_quiet(struct options *o, const char *arg)
{
	(void)arg;
	o->verbosity = -1;
	return 0;
}

static int set_no_follow(struct options *o, const char *arg)
{
	(void)arg;
	o->no_follow = true;
	return 0;
}

static int set_no_stacks(struct options *o, const char *arg)
{
	(void)arg;
	o->no_stacks = true;
	return 0;
}

static int set_blocks(struct options *o, const char *arg)
{
	int err = set_size(arg, "--max-blocks wants a number", &o->max_blocks);

	if (!err && (o->max_blocks < 8 || o->max_blocks > 1u << 30))
		return bad("--max-blocks wants 8 to 1G", arg);
	return err;
}

static int set_unwind_memory(struct options *o, const char *arg)
{
	int err = set_size(arg, "--unwind-memory wants a size", &o->unwind_bytes);

	if (!err && (o->unwind_bytes < 65536 || o->unwind_bytes > 1u << 30))
		return bad("--unwind-memory wants 64K to 1G", arg);
	return err;
}

static int set_ring(struct options *o, const char *arg)
{
	int err = set_size(arg, "--ring-size wants a size", &o->ring_bytes);

	if (!err && (o->ring_bytes < 4096 || o->ring_bytes > 1u << 30))
		return bad("--ring-size wants 4K to 1G", arg);
	return err;
}

static int set_method(struct options *o, const char *arg)
{
	if (probe_method_parse(arg, &o->method))
		return bad("--probe-method wants auto, session, multi or perf", arg);
	return 0;
}

static int set_help(struct options *o, const char *arg)
{
	(void)arg;
	o->help = true;
	return 0;
}

static int set_python(struct options *o, const char *arg)
{
	static const char *const modes[] = {"auto", "stacks", "off"};

	for (int i = 0; i < 3; i++) {
		if (!strcmp(arg, modes[i])) {
			o->python = (enum python_mode)i;
			return 0;
		}
	}
	return bad("--python is auto, stacks or off, not", arg);
}

#define SAMPLE_BYTES_MIN 16

static int set_sample(struct options *o, const char *arg)
{
	uint64_t interval_bytes;

	o->sample = SAMPLE_AUTO;
	if (!strcmp(arg, "auto"))
		return 0;
	o->sample = SAMPLE_EXACT;
	if (!strcmp(arg, "exact"))
		return 0;
	o->sample = SAMPLE_FIXED;
	if (parse_size(arg, &interval_bytes) || interval_bytes < SAMPLE_BYTES_MIN)
		return bad("--sample wants auto, exact or an interval of at least 16 bytes", arg);
	o->sample_rate = sampling_rate_of((double)interval_bytes);
	return 0;
}

static int set_max_overhead(struct options *o, const char *arg)
{
	double pct;

	if (parse_seconds(arg, &pct) || pct < 0.1 || pct > 1000)
		return bad("--max-overhead wants a percentage of at least 0.1", arg);
	o->max_overhead_pct = pct;
	return 0;
}

static int set_no_redirect(struct options *o, const char *arg)
{
	(void)arg;
	o->no_redirect = true;
	return 0;
}

static int set_no_escalate(struct options *o, const char *arg)
{
	(void)arg;
	o->no_escalate = true;
	return 0;
}

static int set_every(struct options *o, const char *arg)
{
	return parse_seconds(arg, &o->every_s) ? bad("not a number of seconds", arg) : 0;
}

static int set_count(struct options *o, const char *arg)
{
	return parse_size(arg, &o->count) || !o->count ? bad("not a number of counts", arg) : 0;
}

static int set_freeze(struct options *o, const char *arg)
{
	(void)arg;
	o->freeze = true;
	return 0;
}

static int set_version(struct options *o, const char *arg)
{
	(void)arg;
	o->version = true;
	return 0;
}

static const struct option_row rows[] = {
	{0, NULL, NULL, NULL, "Targets (repeatable; together they are a union):"},
	{'p', "pid", "PID[,PID]", set_pids, "processes, and their children"},
	{'n', "name", "GLOB", set_name, "processes by command or executable name"},
	{0, "cgroup", "PATH", set_cgroup, "a cgroup (v1 or v2) and all below it"},
	{0, "container", "NAME|ID", set_container, "a container; a prefix will do"},
	{0, "unit", "NAME", set_unit, "a systemd unit"},
	{'a', "all", NULL, set_all, "the whole system"},
	{'c', "command", "CMD", set_command, "run CMD and trace it; as -- CMD ARG..."},
	{0, "no-follow", NULL, set_no_follow, "leave children of targets alone"},
	{0, NULL, NULL, NULL, "What to count:"},
	{'o', "older", "MS", set_older, "only blocks older than this many milliseconds"},
	{'z', "min-size", "BYTES", set_min, "only blocks of at least this size"},
	{'Z', "max-size", "BYTES", set_max, "only blocks of at most this size"},
	{'O', "object", "OBJ", set_object, "look for an allocator in this file as well"},
	{'S', "symbol-prefix", "PREFIX", set_prefix,
	 "and for functions PREFIXmalloc, PREFIXfree..."},
	{0, "python", "MODE", set_python,
	 "CPython: auto (lines and objects), stacks (lines only) or off"},
	{0, "max-overhead", "PCT", set_max_overhead,
	 "of a target's CPU time that tracing may take (default 2)"},
	{0, "sample", "auto|exact|BYTES", set_sample,
	 "record every allocation, or one in so many bytes (default auto: as the budget allows)"},
	{0, "no-redirect", NULL, set_no_redirect, "write nothing into targets: fewer objects"},
	{0, "no-stacks", NULL, set_no_stacks, "count by process only; costs less"},
	{0, NULL, NULL, NULL, "Report:"},
	{'T', "top", "N", set_top, "rows to show (default 10)"},
	{0, "sort", "live|growth", set_sort, "what the top is (default live)"},
	{0, "by", "KIND", set_by,
	 "stack, function, line, type, process or container (default stack)"},
	{0, "format", "FORMAT", set_format, "text, json (one object a line) or folded"},
	{'j', "json", NULL, set_json, "--format json"},
	{'f', "folded", NULL, set_folded, "--format folded"},
	{'w', "write", "FILE", set_output, "write reports to FILE"},
	{0, "duration", "SECONDS", set_duration, "stop after this time with a last report"},
	{0, "color", "WHEN", set_color, "auto, always or never"},
	{'q', "quiet", NULL, set_quiet, "no messages but errors"},
	{'v', "verbose", NULL, set_verbose, "more: coverage, addresses; -vv: libbpf's words"},
	{0, NULL, NULL, NULL, "Bounds and probes:"},
	{0, "max-blocks", "N", set_blocks, "live blocks to hold, 48 bytes each (default 1M)"},
	{0, "unwind-memory", "BYTES", set_unwind_memory,
	 "unwind tables in kernel memory (default 128M)"},
	{0, "ring-size", "BYTES", set_ring, "ring buffer for stacks and events (default 4M)"},
	{0, "probe-method", "METHOD", set_method, "auto, session, multi or perf"},
	{0, NULL, NULL, NULL, "leaktop watch (memory of all processes, or of targets):"},
	{0, "no-escalate", NULL, set_no_escalate, "trace nothing, however it grows"},
	{0, NULL, NULL, NULL, "leaktop census (live Python objects by type):"},
	{0, "every", "SECONDS", set_every, "count again and show what has grown"},
	{0, "count", "N", set_count, "so many times (default: until Ctrl-C)"},
	{0, "freeze", NULL, set_freeze, "stop the process while it is counted: exact"},
	{0, NULL, NULL, NULL, "Other:"},
	{'h', "help", NULL, set_help, "this text"},
	{'V', "version", NULL, set_version, "version"},
};

#define ROWS (sizeof(rows) / sizeof(rows[0]))
#define LONG_BASE 256 /* getopt values of rows: above all letters */

void options_print_help(void)
{
	puts("leaktop: which code holds the memory of running processes\n\n"
	     "  leaktop [TARGET]... [OPTION]... [INTERVAL [COUNT]]   report every INTERVAL s (5)\n"
	     "  leaktop [OPTION]... -- CMD ARG...                    run and trace a command\n"
	     "  leaktop watch [TARGET]... [INTERVAL [COUNT]]         no probes: growth, time to "
	     "limit\n"
	     "                                                       (also when no target is "
	     "named)\n"
	     "  leaktop census PID [--every S] [--count N] [--freeze]\n"
	     "                                                       Python objects by type\n"
	     "  leaktop doctor [TARGET]...                           what works here\n");
	for (size_t i = 0; i < ROWS; i++) {
		char left[64];

		if (!rows[i].set) {
			printf("%s\n", rows[i].help);
			continue;
		}
		snprintf(left, sizeof(left), "%c%c%c --%s%s%s", rows[i].letter ? '-' : ' ',
			 rows[i].letter ? rows[i].letter : ' ', rows[i].letter ? ',' : ' ',
			 rows[i].name, rows[i].arg ? " " : "", rows[i].arg ? rows[i].arg : "");
		printf("  %-30s %s\n", left, rows[i].help);
	}
	puts("\nExit status: 0 done, 1 could not run, 2 usage.");
}

static void build_getopt(struct option *longs, char *shorts)
{
	size_t n = 0;

	*shorts++ = '+';
	*shorts++ = ':';
	for (size_t i = 0; i < ROWS; i++) {
		if (!rows[i].set)
			continue;
		longs[n++] =
			(struct option){rows[i].name, rows[i].arg ? required_argument : no_argument,
					NULL, LONG_BASE + (int)i};
		if (!rows[i].letter)
			continue;
		*shorts++ = rows[i].letter;
		if (rows[i].arg)
			*shorts++ = ':';
	}
	longs[n] = (struct option){0};
	*shorts = '\0';
}

static const struct option_row *row_of(int value)
{
	if (value >= LONG_BASE)
		return &rows[value - LONG_BASE];
	for (size_t i = 0; i < ROWS; i++) {
		if (rows[i].set && rows[i].letter == value)
			return &rows[i];
	}
	return NULL;
}

static int set_census_pid(struct options *o, const char *arg, int position)
{
	char *end;
	long pid = strtol(arg, &end, 10);

	if (position || end == arg || *end || pid <= 0 || pid > INT32_MAX)
		return bad("census wants one process id, not", arg);
	o->census_pid = (pid_t)pid;
	return 0;
}

/* INTERVAL and COUNT, in this order, wherever they stand between options. */
static int set_positional(struct options *o, const char *arg, int position)
{
	if (o->command == COMMAND_CENSUS)
		return set_census_pid(o, arg, position);
	if (position == 0)
		return parse_seconds(arg, &o->interval_s)
			       ? bad("not an interval in seconds, nor a command of leaktop", arg)
			       : 0;
	if (position == 1)
		return parse_size(arg, &o->count) ? bad("not a number of reports", arg) : 0;
	return bad("too many arguments", arg);
}

static int parse_option(struct options *o, int value, char **argv)
{
	const struct option_row *row;

	if (value == '?')
		return bad("unknown option", argv[optind - 1]);
	if (value == ':')
		return bad("option wants a value", argv[optind - 1]);
	row = row_of(value);
	return row ? row->set(o, optarg) : bad("unknown option", argv[optind - 1]);
}

static int parse_all(int argc, char **argv, struct options *o)
{
	struct option longs[ROWS + 1];
	char shorts[2 * ROWS + 4];
	int value, err, position = 0;

	build_getopt(longs, shorts);
	optind = 1;
	opterr = 0;
	for (;;) {
		int at = optind;

		value = getopt_long(argc, argv, shorts, longs, NULL);
		if (value != -1) {
			err = parse_option(o, value, argv);
		} else if (optind > at && !strcmp(argv[optind - 1], "--")) {
			o->run = optind < argc ? argv + optind : NULL;
			return o->run ? 0 : bad("no command after", "--");
		} else if (optind < argc) {
			err = set_positional(o, argv[optind++], position++);
		} else {
			return 0;
		}
		if (err)
			return err;
	}
}

static int check(const struct options *o)
{
	if (o->help || o->version || o->command == COMMAND_DOCTOR)
		return 0;
	if (o->command == COMMAND_CENSUS)
		return o->census_pid ? 0 : bad("census of which process?", "no pid");
	if (o->every_s > 0 || o->freeze)
		return bad("--every, --count and --freeze are for", "leaktop census PID");
	if (o->size_min_bytes > o->size_max_bytes)
		return bad("-z is larger than -Z", "nothing would be counted");
	if (o->no_escalate && o->command != COMMAND_WATCH)
		return bad("--no-escalate is for", "leaktop watch");
	if (o->command == COMMAND_WATCH && o->run)
		return bad("watch runs no command", o->run[0]);
	if (o->command == COMMAND_WATCH && !watch_format_find(o->format))
		return bad("watch has no stacks: --format wants text or json", o->format);
	if (o->command == COMMAND_TRACE && selector_is_empty(o->selector) && !o->run) {
		log_error("no target: name one with -p, -n, --cgroup, --container or --unit, take "
			  "the whole system with -a, or run a command after --");
		return -EINVAL;
	}
	return 0;
}

int options_parse(int argc, char **argv, struct options *out)
{
	bool named = true; /* the command */
	int err;

	*out = (struct options){
		.selector = selector_new(),
		.top = 10,
		.max_overhead_pct = 2,
		.size_max_bytes = UINT64_MAX,
		.format = "text",
		.color = -1,
		.max_blocks = DEFAULT_MAX_BLOCKS,
		.ring_bytes = DEFAULT_RING_BYTES,
		.unwind_bytes = DEFAULT_UNWIND_BYTES,
	};
	if (!out->selector)
		return -ENOMEM;
	if (argc > 1 && !strcmp(argv[1], "doctor")) {
		out->command = COMMAND_DOCTOR;
		argv++;
		argc--;
	} else if (argc > 1 && !strcmp(argv[1], "census")) {
		out->command = COMMAND_CENSUS;
		argv++;
		argc--;
	} else if (argc > 1 && !strcmp(argv[1], "watch")) {
		out->command = COMMAND_WATCH;
		argv++;
		argc--;
	} else if (argc > 1 && !strcmp(argv[1], "trace")) {
		argv++;
		argc--;
	} else {
		named = false;
	}
	err = parse_all(argc, argv, out);
	if (!named && selector_is_empty(out->selector) && !out->run)
		out->command = COMMAND_WATCH;
	return err ? err : check(out);
}

void options_release(struct options *o)
{
	free(o->run_text);
	free(o->run_words);
	selector_free(o->selector);
}
