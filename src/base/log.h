/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Messages to the operator. All of them go to stderr: stdout is for results. Lowest layer. */
#ifndef LEAKTOP_LOG_H
#define LEAKTOP_LOG_H

#include <stdarg.h>

enum log_level {
	LOG_ERROR_ONLY = 0, /* -q */
	LOG_NORMAL,
	LOG_VERBOSE, /* -v */
	LOG_DEBUG,   /* -vv: libbpf's own words too */
};

void log_set_level(enum log_level level);
enum log_level log_get_level(void);

/*
 * One line each; the newline is added, control characters in arguments are escaped.
 * log_error is always printed, log_warn and log_notice from LOG_NORMAL on, log_info from
 * LOG_VERBOSE on, log_debug at LOG_DEBUG. errno is kept.
 */
void log_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_notice(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_debug(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_write(enum log_level level, const char *fmt, va_list ap)
	__attribute__((format(printf, 2, 0)));

#endif
