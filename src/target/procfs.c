/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "target/procfs.h"

#include <ctype.h>
#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "target/text_file.h"

#define STAT_MAX_BYTES 8192
/* "Groups:" alone lists up to 65,536 numbers. */
#define STATUS_MAX_BYTES (1 << 20)

static void proc_path(pid_t pid, const char *name, char *buf, size_t size)
{
	snprintf(buf, size, "/proc/%d/%s", pid, name);
}

static int read_proc(pid_t pid, const char *name, size_t max_bytes, char **out, size_t *size_bytes)
{
	char path[64];
	int err;

	proc_path(pid, name, path, sizeof(path));
	err = text_file_read(path, max_bytes, out, size_bytes);
	return err == -ENOENT ? -ESRCH : err;
}

/* ENOENT of a link in /proc/PID says that there is no such file, or no such process. */
static int link_error(pid_t pid, int err)
{
	char path[64];

	if (err != -ENOENT)
		return err;
	proc_path(pid, "", path, sizeof(path));
	return access(path, F_OK) < 0 ? -ESRCH : -ENOENT;
}

/* Field @n (proc(5) numbering, 3 and up) of /proc/PID/stat. Only numbers follow the
 * comm, so its end is the last parenthesis of the line, whatever it holds. */
static int stat_field(pid_t pid, int n, uint64_t *out)
{
	char *text, *p;
	int i, err;

	err = read_proc(pid, "stat", STAT_MAX_BYTES, &text, NULL);
	if (err)
		return err;
	p = strrchr(text, ')');
	for (i = 2; p && i < n; i++) {
		p = strchr(p, ' ');
		if (p)
			p++;
	}
	if (p && isdigit((unsigned char)*p))
		*out = strtoull(p, NULL, 10);
	else
		err = -EINVAL;
	free(text);
	return err;
}

int procfs_start_ticks(pid_t pid, uint64_t *out)
{
	return stat_field(pid, 22, out);
}

int procfs_parent(pid_t pid, pid_t *out)
{
	uint64_t value;
	int err = stat_field(pid, 4, &value);

	if (err)
		return err;
	if (value > INT_MAX)
		return -EINVAL;
	*out = (pid_t)value;
	return 0;
}

int procfs_cpu_ns(pid_t pid, uint64_t *out)
{
	uint64_t user, system, ticks_a_s = (uint64_t)sysconf(_SC_CLK_TCK);
	int err = stat_field(pid, 14, &user);

	if (!err)
		err = stat_field(pid, 15, &system);
	if (err)
		return err;
	*out = (user + system) * (1000000000 / ticks_a_s);
	return 0;
}

int procfs_comm(pid_t pid, char *buf, size_t size)
{
	size_t len;
	char *text;
	int err;

	err = read_proc(pid, "comm", STAT_MAX_BYTES, &text, &len);
	if (err)
		return err;
	/* The last newline is the kernel's; others may be part of the name. */
	if (len && text[len - 1] == '\n')
		text[len - 1] = '\0';
	snprintf(buf, size, "%s", text);
	free(text);
	return 0;
}

int procfs_exe(pid_t pid, char *buf, size_t size)
{
	char path[64], target[PATH_MAX];
	ssize_t n;

	proc_path(pid, "exe", path, sizeof(path));
	n = readlink(path, target, sizeof(target));
	if (n < 0)
		return link_error(pid, -errno);
	if ((size_t)n >= sizeof(target) || (size_t)n >= size)
		return -ENAMETOOLONG;
	memcpy(buf, target, (size_t)n);
	buf[n] = '\0';
	return 0;
}

/* The number behind "\nKEY:" in /proc/PID/status. A newline in the comm, the only free
 * text above the numbers, is escaped there. */
static bool status_number(const char *text, const char *key, uint64_t *out)
{
	char label[32];
	const char *p;

	snprintf(label, sizeof(label), "\n%s:", key);
	p = strstr(text, label);
	if (!p)
		return false;
	p += strlen(label);
	p += strspn(p, " \t");
	if (!isdigit((unsigned char)*p))
		return false;
	*out = strtoull(p, NULL, 10);
	return true;
}

int procfs_tgid(pid_t pid, pid_t *out)
{
	uint64_t value;
	char *text;
	int err;

	err = read_proc(pid, "status", STATUS_MAX_BYTES, &text, NULL);
	if (err)
		return err;
	if (!status_number(text, "Tgid", &value) || value > INT_MAX)
		err = -EINVAL;
	else
		*out = (pid_t)value;
	free(text);
	return err;
}

int procfs_is_64bit(pid_t pid)
{
	unsigned char ident[EI_NIDENT];
	char path[64];
	ssize_t n;
	int fd, err;

	proc_path(pid, "exe", path, sizeof(path));
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return link_error(pid, -errno);
	n = pread(fd, ident, sizeof(ident), 0);
	err = n < 0 ? -errno : 0;
	close(fd);
	if (err)
		return err;
	if (n < EI_NIDENT || memcmp(ident, ELFMAG, SELFMAG) != 0)
		return -ENOEXEC;
	return ident[EI_CLASS] == ELFCLASS64;
}

static uint64_t status_kib(const char *text, const char *key)
{
	uint64_t kib = 0;

	/* A kernel thread has no such line. */
	if (!status_number(text, key, &kib) || kib > UINT64_MAX / 1024)
		return 0;
	return kib * 1024;
}

int procfs_rss(pid_t pid, struct process_rss *out)
{
	char *text;
	int err;

	err = read_proc(pid, "status", STATUS_MAX_BYTES, &text, NULL);
	if (err)
		return err;
	*out = (struct process_rss){
		.rss_bytes = status_kib(text, "VmRSS"),
		.anon_bytes = status_kib(text, "RssAnon"),
		.file_bytes = status_kib(text, "RssFile"),
		.shmem_bytes = status_kib(text, "RssShmem"),
		.swap_bytes = status_kib(text, "VmSwap"),
	};
	free(text);
	return 0;
}

struct pid_iter {
	DIR *dir;
};

int pid_iter_new(struct pid_iter **out)
{
	struct pid_iter *it = calloc(1, sizeof(*it));
	int err;

	if (!it)
		return -ENOMEM;
	it->dir = opendir("/proc");
	if (!it->dir) {
		err = -errno;
		free(it);
		return err;
	}
	*out = it;
	return 0;
}

bool pid_iter_next(struct pid_iter *it, pid_t *pid)
{
	struct dirent *entry;
	char *end;
	long value;

	while ((entry = readdir(it->dir))) {
		if (!isdigit((unsigned char)entry->d_name[0]))
			continue;
		value = strtol(entry->d_name, &end, 10);
		if (*end || value <= 0 || value > INT_MAX)
			continue;
		*pid = (pid_t)value;
		return true;
	}
	return false;
}

void pid_iter_free(struct pid_iter *it)
{
	if (!it)
		return;
	closedir(it->dir);
	free(it);
}
