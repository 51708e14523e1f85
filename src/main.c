/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bpf/libbpf.h>
#include <cap-ng.h>

#include "base/log.h"
#include "census.h"
#include "doctor.h"
#include "options.h"
#include "session.h"
#include "watch/watch_command.h"

enum exit_code {
	EXIT_DONE = 0,
	EXIT_COULD_NOT_RUN = 1,
	EXIT_USAGE = 2,
};

/* The initial pid namespace's inode is fixed (include/linux/proc_ns.h, PROC_PID_INIT_INO). */
#define PID_NAMESPACE_INITIAL 0xeffffffcu

static int __attribute__((format(printf, 2, 0)))
libbpf_says(enum libbpf_print_level level, const char *fmt, va_list ap)
{
	char *text, *line, *rest = NULL;

	if (level == LIBBPF_DEBUG || log_get_level() < LOG_DEBUG || vasprintf(&text, fmt, ap) < 0)
		return 0;
	/* The verifier's log is one message of many lines. */
	for (line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
		log_debug("%s", line);
	free(text);
	return 0;
}

static void set_up_logging(const struct options *o)
{
	if (o->verbosity < 0)
		log_set_level(LOG_ERROR_ONLY);
	else if (o->verbosity > 0)
		log_set_level(o->verbosity > 1 ? LOG_DEBUG : LOG_VERBOSE);
	libbpf_set_print(libbpf_says);
	libbpf_set_strict_mode(LIBBPF_STRICT_ALL);
}

/* Many objects and links are held open; the hard limit is ours to use. */
static void raise_file_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit))
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

/* One line for each thing that would make everything else fail obscurely. */
static int check_system(void)
{
	struct stat st;

	if (capng_get_caps_process() || !capng_have_capability(CAPNG_EFFECTIVE, CAP_SYS_ADMIN)) {
		log_error("needs root: probes and other users' memory maps take CAP_SYS_ADMIN; run "
			  "it with sudo");
		return -EPERM;
	}
	if (access("/sys/kernel/btf/vmlinux", R_OK)) {
		log_error("this kernel has no BTF (/sys/kernel/btf/vmlinux); use a kernel built "
			  "with CONFIG_DEBUG_INFO_BTF, as distributions' are");
		return -ENOTSUP;
	}
	if (!stat("/proc/self/ns/pid", &st) && st.st_ino != PID_NAMESPACE_INITIAL) {
		log_error("runs inside of a pid namespace, where pids are not the kernel's; run it "
			  "on the host (docker: --pid=host)");
		return -ENOTSUP;
	}
	return 0;
}

static int trace(const struct options *o)
{
	struct session *session;
	int err = session_open(o, &session);

	if (err)
		return err;
	err = session_run(session);
	session_close(session);
	return err;
}

static int run(const struct options *o)
{
	int err;

	raise_file_limit();
	/* It probes nothing, so it needs none of that. */
	if (o->command == COMMAND_WATCH)
		return watch_command(o);
	err = check_system();
	if (err)
		return o->command == COMMAND_DOCTOR ? doctor_run(o) : err;
	switch (o->command) {
	case COMMAND_DOCTOR:
		return doctor_run(o);
	case COMMAND_CENSUS:
		return census_command(o->census_pid, o->every_s, o->count, o->freeze, stdout);
	default:
		return trace(o);
	}
}

int main(int argc, char **argv)
{
	struct options options;
	int err = options_parse(argc, argv, &options);
	int code = EXIT_DONE;

	prctl(PR_SET_NAME, "leaktop"); /* the watch runs itself by way of /proc */
	if (err) {
		code = err == -EINVAL ? EXIT_USAGE : EXIT_COULD_NOT_RUN;
	} else if (options.help) {
		options_print_help();
	} else if (options.version) {
		puts("leaktop " LEAKTOP_VERSION);
	} else {
		set_up_logging(&options);
		code = run(&options) ? EXIT_COULD_NOT_RUN : EXIT_DONE;
	}
	options_release(&options);
	return code;
}
