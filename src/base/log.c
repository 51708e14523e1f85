/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A line is built in memory and written by one write(2), so that lines of
 * several threads and processes on one terminal do not mix.
 */
#include "base/log.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/escape.h"

#define MESSAGE_MAX_BYTES 8192

static enum log_level log_level = LOG_NORMAL;

void log_set_level(enum log_level level)
{
	log_level = level;
}

enum log_level log_get_level(void)
{
	return log_level;
}

static void write_all(const char *text, size_t size)
{
	while (size > 0) {
		ssize_t written = write(STDERR_FILENO, text, size);

		if (written < 0 && errno == EINTR)
			continue;
		if (written <= 0)
			return; /* nobody left to tell */
		text += written;
		size -= written;
	}
}

static void write_line(const char *prefix, const char *message)
{
	char *line = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&line, &size);
	bool failed;

	if (!out)
		return;
	fprintf(out, "leaktop: %s", prefix);
	escape_terminal(out, message, MESSAGE_MAX_BYTES);
	putc('\n', out);
	failed = ferror(out);
	if (fclose(out) == 0 && !failed)
		write_all(line, size);
	free(line);
}

/* libbpf ends its formats with a newline of its own; one inside an argument is data. */
static void drop_newline(const char *fmt, char *message)
{
	size_t fmt_length = strlen(fmt), length = strlen(message);

	if (fmt_length > 0 && fmt[fmt_length - 1] == '\n' && length > 0)
		message[length - 1] = '\0';
}

static void __attribute__((format(printf, 3, 0)))
write_message(enum log_level level, const char *prefix, const char *fmt, va_list ap)
{
	int saved_errno = errno;
	char *message = NULL;

	if (level > log_level)
		return;
	if (vasprintf(&message, fmt, ap) >= 0) {
		drop_newline(fmt, message);
		write_line(prefix, message);
		free(message);
	}
	errno = saved_errno;
}

void log_write(enum log_level level, const char *fmt, va_list ap)
{
	write_message(level, "", fmt, ap);
}

void log_error(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	write_message(LOG_ERROR_ONLY, "", fmt, ap);
	va_end(ap);
}

void log_warn(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	write_message(LOG_NORMAL, "warning: ", fmt, ap);
	va_end(ap);
}

void log_notice(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	write_message(LOG_NORMAL, "", fmt, ap);
	va_end(ap);
}

void log_info(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	write_message(LOG_VERBOSE, "", fmt, ap);
	va_end(ap);
}

void log_debug(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	write_message(LOG_DEBUG, "", fmt, ap);
	va_end(ap);
}
