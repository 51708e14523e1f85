/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * In a loop, a pass costs 1.5 us a process (a virtual machine with Linux 6.18): 0.4 us to
 * find its directory in /proc, 1.1 us to read its statm through a file that is kept open.
 * Opened each time statm costs 6 us, status 10 us kept and 13 us opened, smaps_rollup 20 us,
 * more the larger the process is. Once a second, when nothing is in the processor's caches
 * any more, all this takes about thrice as long. So a process whose memory has not changed
 * for half a minute is read in one pass of four until it changes.
 *
 * A kept file is also the process's identity: it is of this process for ever, and a read
 * says ESRCH when that has gone, whoever has its pid now. It takes the kernel one page. With
 * no more descriptors to be had, files are opened for each pass.
 *
 * statm tells what is resident and what of that is file-backed or shared (shmem counts as
 * shared; fs/proc/task_mmu.c, task_statm()); the rest is anonymous. It does not tell what
 * is swapped out, without which a leak would stop growing when the swapping starts. So
 * while the host has swap in use, status is read too, of one process in eight by turns.
 *
 * Kernel threads, and processes that nobody wants, are asked again after 1, 2, 4, 8 and
 * then each 16 passes: they may have joined a cgroup, or the pid may be another's.
 */
#include "watch/sample.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "target/procfs.h"
#include "target/text_file.h"

#define PROCESSES_MAX 32768
#define STAT_MAX_BYTES 2048 /* 52 numbers and a name */
#define STATM_MAX_BYTES 256
#define MEMINFO_MAX_BYTES 65536
#define SWAP_TURNS 8
#define RECHECK_PASSES 16
#define STILL_READS 32
#define STILL_TURNS 4
#define KERNEL_THREAD 0x00200000 /* PF_KTHREAD, include/linux/sched.h */

struct entry {
	struct sampled_process public;
	uint32_t seen;	 /* in which pass */
	uint32_t passes; /* since it was looked at closely */
	uint32_t still;	 /* reads since its memory last changed */
	int fd;		 /* statm; -1: not kept */
	bool wanted;
};

struct sampler {
	struct sampler_options options;
	struct entry *entries; /* by pid; new ones behind @sorted until the pass ends */
	size_t count, sorted, room;
	size_t *wanted; /* indices */
	size_t wanted_count, wanted_room;
	size_t left_out;
	size_t files, files_max;
	uint32_t pass;
	uint64_t page_bytes;
	bool swap_in_use;
};

/* The number at @*p, which moves behind it. */
static bool take_number(const char **p, uint64_t *out)
{
	char *end;

	*p += strspn(*p, " \t");
	if (!isdigit((unsigned char)**p))
		return false;
	errno = 0;
	*out = strtoull(*p, &end, 10);
	*p = end;
	return !errno;
}

int sample_parse_statm(const char *text, uint64_t page_bytes, struct memory_sample *out)
{
	uint64_t size, resident, shared;

	if (!take_number(&text, &size) || !take_number(&text, &resident) ||
	    !take_number(&text, &shared) || resident > UINT64_MAX / page_bytes)
		return -EINVAL;
	/* The counters are read one after the other. */
	if (shared > resident)
		shared = resident;
	out->rss_bytes = resident * page_bytes;
	out->anon_bytes = (resident - shared) * page_bytes;
	return 0;
}

/* Field @n of proc(5), where @p is at the end of field @at. */
static bool stat_field(const char **p, int *at, int n, uint64_t *out)
{
	for (; *at < n - 1; ++*at) {
		*p += strspn(*p, " ");
		*p += strcspn(*p, " ");
	}
	++*at;
	return take_number(p, out);
}

int sample_parse_stat(const char *text, struct process_stat *out)
{
	uint64_t parent, flags, start_ticks;
	const char *p = strrchr(text, ')');
	int at = 2;

	if (!p++)
		return -EINVAL;
	if (!stat_field(&p, &at, 4, &parent) || !stat_field(&p, &at, 9, &flags) ||
	    !stat_field(&p, &at, 22, &start_ticks) || parent > INT_MAX)
		return -EINVAL;
	out->parent = (pid_t)parent;
	out->is_kernel_thread = flags & KERNEL_THREAD;
	out->start_ticks = start_ticks;
	return 0;
}

static bool meminfo_kib(const char *text, const char *key, uint64_t *out_bytes)
{
	const char *p = strstr(text, key);
	uint64_t kib;

	if (!p || (p != text && p[-1] != '\n'))
		return false;
	p += strlen(key);
	if (!take_number(&p, &kib) || kib > UINT64_MAX / 1024)
		return false;
	*out_bytes = kib * 1024;
	return true;
}

int sample_parse_meminfo(const char *text, struct host_memory *out)
{
	uint64_t swap_total = 0, swap_free = 0;
	struct host_memory m = {0};

	if (!meminfo_kib(text, "MemTotal:", &m.total_bytes) ||
	    !meminfo_kib(text, "MemAvailable:", &m.available_bytes))
		return -EINVAL;
	if (meminfo_kib(text, "SwapTotal:", &swap_total) &&
	    meminfo_kib(text, "SwapFree:", &swap_free) && swap_free < swap_total)
		m.swap_used_bytes = swap_total - swap_free;
	*out = m;
	return 0;
}

int host_memory_read(struct host_memory *out)
{
	char *text;
	int err = text_file_read("/proc/meminfo", MEMINFO_MAX_BYTES, &text, NULL);

	if (err)
		return err;
	err = sample_parse_meminfo(text, out);
	free(text);
	return err;
}

/* Half of the descriptors: others need some too. */
static size_t files_allowed(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit))
		return 0;
	return limit.rlim_cur / 2 < PROCESSES_MAX ? limit.rlim_cur / 2 : PROCESSES_MAX;
}

int sampler_new(const struct sampler_options *options, struct sampler **out)
{
	struct sampler *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->options = *options;
	s->page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
	s->files_max = files_allowed();
	*out = s;
	return 0;
}

static void close_file(struct sampler *s, struct entry *e)
{
	if (e->fd < 0)
		return;
	close(e->fd);
	e->fd = -1;
	s->files--;
}

/* What was known of this pid is of another process, or of none. */
static void forget(struct sampler *s, struct entry *e)
{
	close_file(s, e);
	if (e->public.owner_data && s->options.release)
		s->options.release(e->public.owner_data);
	e->public.owner_data = NULL;
	e->wanted = false;
	e->still = 0;
}

void sampler_free(struct sampler *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < s->count; i++)
		forget(s, &s->entries[i]);
	free(s->wanted);
	free(s->entries);
	free(s);
}

static int read_at(int fd, char *buf, size_t size)
{
	ssize_t n = pread(fd, buf, size - 1, 0);

	if (n < 0)
		return -errno;
	buf[n] = '\0';
	return n ? 0 : -ESRCH;
}

static int read_below(int dir_fd, const char *name, char *buf, size_t size)
{
	int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC), err;

	if (fd < 0)
		return -errno;
	err = read_at(fd, buf, size);
	close(fd);
	return err;
}

static struct entry *find(const struct sampler *s, pid_t pid)
{
	size_t low = 0, high = s->sorted;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (s->entries[mid].public.pid < pid)
			low = mid + 1;
		else
			high = mid;
	}
	return low < s->sorted && s->entries[low].public.pid == pid ? &s->entries[low] : NULL;
}

/* New ones are not sorted in yet, but /proc lists in ascending order. */
static bool is_wanted_pid(const struct sampler *s, pid_t pid)
{
	const struct entry *e = find(s, pid);

	if (e)
		return e->wanted;
	for (size_t i = s->count; i-- > s->sorted;)
		if (s->entries[i].public.pid == pid)
			return s->entries[i].wanted;
	return false;
}

static bool wants(const struct sampler *s, const struct entry *e, const struct process_stat *stat)
{
	if (stat->is_kernel_thread || e->public.pid == getpid())
		return false;
	if (e->wanted || !s->options.wants || s->options.wants(e->public.pid, s->options.arg))
		return true;
	return s->options.follow_children && is_wanted_pid(s, stat->parent);
}

/* All is read below one directory, which is of one process. */
static int look_closely(struct sampler *s, struct entry *e)
{
	char path[32], text[STAT_MAX_BYTES];
	struct process_stat stat;
	int dir_fd, err;

	snprintf(path, sizeof(path), "/proc/%d", e->public.pid);
	dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir_fd < 0)
		return -errno;
	err = read_below(dir_fd, "stat", text, sizeof(text));
	if (!err)
		err = sample_parse_stat(text, &stat);
	if (err)
		goto out;
	if (stat.start_ticks != e->public.start_ticks)
		forget(s, e);
	e->public.start_ticks = stat.start_ticks;
	e->wanted = wants(s, e, &stat);
	if (e->wanted && e->fd < 0 && s->files < s->files_max) {
		e->fd = openat(dir_fd, "statm", O_RDONLY | O_CLOEXEC);
		s->files += e->fd >= 0;
	}
out:
	close(dir_fd);
	return err;
}

static bool is_recheck(uint32_t passes)
{
	return passes % RECHECK_PASSES == 0 || (passes & (passes - 1)) == 0;
}

static int read_statm(const struct sampler *s, struct entry *e)
{
	uint64_t anon_bytes = e->public.memory.anon_bytes, rss_bytes = e->public.memory.rss_bytes;
	char text[STATM_MAX_BYTES], path[32];
	int err;

	if (e->fd >= 0) {
		err = read_at(e->fd, text, sizeof(text));
	} else {
		snprintf(path, sizeof(path), "/proc/%d/statm", e->public.pid);
		err = read_below(AT_FDCWD, path, text, sizeof(text));
	}
	if (!err)
		err = sample_parse_statm(text, s->page_bytes, &e->public.memory);
	e->still++;
	if (e->public.memory.anon_bytes != anon_bytes || e->public.memory.rss_bytes != rss_bytes)
		e->still = 0;
	return err;
}

static void read_swap(const struct sampler *s, struct entry *e)
{
	struct process_rss rss;

	if (!s->swap_in_use)
		e->public.memory.swap_bytes = 0;
	else if ((uint32_t)e->public.pid % SWAP_TURNS == s->pass % SWAP_TURNS || !e->passes)
		if (!procfs_rss(e->public.pid, &rss))
			e->public.memory.swap_bytes = rss.swap_bytes;
}

/* Its last sample will do for this pass. */
static bool is_asleep(const struct sampler *s, const struct entry *e)
{
	return e->fd >= 0 && e->still >= STILL_READS &&
	       (uint32_t)e->public.pid % STILL_TURNS != s->pass % STILL_TURNS;
}

/* Negative errno: it is no more. */
static int look_at(struct sampler *s, struct entry *e)
{
	int err = 0;

	/* Without a kept file nothing else would tell that the pid is another's. */
	if (!e->passes || (e->fd < 0 && (e->wanted || is_recheck(e->passes))))
		err = look_closely(s, e);
	if (!err && e->wanted && !is_asleep(s, e)) {
		err = read_statm(s, e);
		read_swap(s, e);
	}
	e->passes++;
	return err;
}

static struct entry *append(struct sampler *s, pid_t pid)
{
	size_t room = s->room ? s->room * 2 : 256;
	struct entry *grown;

	if (s->count == s->room) {
		grown = realloc(s->entries, room * sizeof(*grown));
		if (!grown)
			return NULL;
		s->entries = grown;
		s->room = room;
	}
	s->entries[s->count] = (struct entry){.public.pid = pid, .fd = -1};
	return &s->entries[s->count++];
}

static int look_at_pid(struct sampler *s, pid_t pid)
{
	struct entry *e = find(s, pid);

	if (!e && s->count == PROCESSES_MAX) {
		s->left_out++;
		return 0;
	}
	if (!e)
		e = append(s, pid);
	if (!e)
		return -ENOMEM;
	if (look_at(s, e)) {
		forget(s, e);
		/* Perhaps the pid has been given out again: then it is a new one. */
		e->passes = 0;
		e->public.start_ticks = 0;
		if (look_at(s, e)) {
			forget(s, e);
			return 0;
		}
	}
	e->seen = s->pass;
	return 0;
}

static int compare_pids(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	return x->public.pid < y->public.pid ? -1 : x->public.pid > y->public.pid;
}

static void drop_unseen(struct sampler *s)
{
	size_t kept = 0, sorted = s->sorted;

	for (size_t i = 0; i < s->count; i++) {
		if (s->entries[i].seen == s->pass) {
			s->entries[kept++] = s->entries[i];
			continue;
		}
		forget(s, &s->entries[i]);
	}
	if (s->count > sorted)
		qsort(s->entries, kept, sizeof(*s->entries), compare_pids);
	s->count = s->sorted = kept;
}

static int list_wanted(struct sampler *s)
{
	size_t *grown;

	if (s->wanted_room < s->count) {
		grown = realloc(s->wanted, s->room * sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		s->wanted = grown;
		s->wanted_room = s->room;
	}
	for (size_t i = 0; i < s->count; i++)
		if (s->entries[i].wanted)
			s->wanted[s->wanted_count++] = i;
	return 0;
}

int sampler_pass(struct sampler *s)
{
	struct host_memory host;
	struct pid_iter *it;
	pid_t pid;
	int err;

	err = pid_iter_new(&it);
	if (err)
		return err;
	s->pass++;
	s->left_out = 0;
	s->wanted_count = 0;
	s->swap_in_use = !host_memory_read(&host) && host.swap_used_bytes;
	while (!err && pid_iter_next(it, &pid))
		err = look_at_pid(s, pid);
	pid_iter_free(it);
	if (!err) {
		drop_unseen(s);
		return list_wanted(s);
	}
	/* A list that broke off tells of no end. */
	qsort(s->entries, s->count, sizeof(*s->entries), compare_pids);
	s->sorted = s->count;
	return err;
}

size_t sampler_count(const struct sampler *s)
{
	return s->wanted_count;
}

struct sampled_process *sampler_at(struct sampler *s, size_t i)
{
	return &s->entries[s->wanted[i]].public;
}

size_t sampler_left_out(const struct sampler *s)
{
	return s->left_out;
}
