/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The index is a stack of runs, each sorted and free of overlaps, the newest on top.
 * A line that continues the top run is appended; any other opens a new run, after
 * runs of similar size were merged so that what the newer covers is cut out of the
 * older. So an address belongs to the topmost run that has it, there are never more
 * than some 25 runs, and lines added to a large file cost little.
 *
 * The writer may cut the file and begin anew while we read. That is noticed by its
 * size, by the bytes before the place where reading goes on, and by a line that is
 * not what the index says; then all is read again.
 */
#include "sym/perf_map.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "sym/file_root.h"
#include "target/procfs.h"
#include "target/text_file.h"

#define FILE_BYTES_MAX (256u << 20)
#define SEGMENTS_MAX (4u << 20)
#define ALL_SEGMENTS_MAX (16u << 20)
#define RUNS_MAX 40u
#define CHUNK_BYTES (256u << 10)
#define LINE_BYTES (PERF_MAP_NAME_BYTES + 64) /* with both numbers */
#define MARK_BYTES 64u
#define STATUS_BYTES_MAX (1u << 20)
#define NS_PER_S 1000000000ull
/* A file larger than this is read anew at most once a second. */
#define RESTART_BYTES (1u << 20)

struct segment {
	uint64_t start;
	uint32_t bytes;
	uint32_t line; /* where in the file its line begins */
};

struct run {
	struct segment *items; /* sorted, not overlapping */
	size_t count, capacity;
};

struct perf_map {
	unsigned int references;
	int fd;
	struct run runs[RUNS_MAX];
	size_t run_count;
	size_t segment_count;
	size_t bad_lines;
	uint64_t offset;       /* read up to here */
	uint64_t size_seen;    /* of the file, when it was last read */
	bool in_long_line;     /* the rest of it is skipped */
	char mark[MARK_BYTES]; /* the last bytes before @offset */
	size_t mark_bytes;
	uint64_t read_ns, restart_ns; /* last read; not to be read anew before */
};

struct line {
	uint64_t start, bytes;
	const char *name;
	size_t name_bytes;
};

/* Of all maps, so that many processes cannot take more than a bound. */
static size_t all_segments;

static void count_segments(struct perf_map *m, size_t added, size_t removed)
{
	m->segment_count += added - removed;
	__atomic_add_fetch(&all_segments, added - removed, __ATOMIC_RELAXED);
}

static uint64_t segment_end(const struct segment *s)
{
	return s->start + s->bytes;
}

static int run_reserve(struct run *run, size_t count)
{
	struct segment *items;

	if (count <= run->capacity)
		return 0;
	items = reallocarray(run->items, count, sizeof(*items));
	if (!items)
		return -ENOMEM;
	run->items = items;
	run->capacity = count;
	return 0;
}

/* Appends what of @s lies in [@low, @high). */
static void run_add_part(struct run *run, const struct segment *s, uint64_t low, uint64_t high)
{
	uint64_t start = s->start > low ? s->start : low;
	uint64_t end = segment_end(s) < high ? segment_end(s) : high;

	if (start < end)
		run->items[run->count++] =
			(struct segment){start, (uint32_t)(end - start), s->line};
}

/* Lays @above over @below; @out has room for below + 2 * above. */
static void run_overlay(const struct run *below, const struct run *above, struct run *out)
{
	uint64_t covered = 0;
	size_t i = 0, j;

	for (j = 0; j <= above->count; j++) {
		const struct segment *top = j < above->count ? &above->items[j] : NULL;
		uint64_t limit = top ? top->start : UINT64_MAX;

		while (i < below->count && below->items[i].start < limit) {
			run_add_part(out, &below->items[i], covered, limit);
			if (segment_end(&below->items[i]) > limit)
				break;
			i++;
		}
		if (top) {
			out->items[out->count++] = *top;
			covered = segment_end(top);
		}
	}
}

static int merge_top_runs(struct perf_map *m)
{
	struct run *above = &m->runs[m->run_count - 1], *below = above - 1, merged = {0};
	int err;

	err = run_reserve(&merged, below->count + 2 * above->count);
	if (err)
		return err;
	run_overlay(below, above, &merged);
	count_segments(m, merged.count, below->count + above->count);
	free(below->items);
	free(above->items);
	*below = merged;
	*above = (struct run){0};
	m->run_count--;
	return 0;
}

static int open_run(struct perf_map *m)
{
	int err = 0;

	while (!err && m->run_count >= 2 &&
	       (m->runs[m->run_count - 2].count < 2 * m->runs[m->run_count - 1].count ||
		m->run_count == RUNS_MAX))
		err = merge_top_runs(m);
	if (!err)
		m->run_count++;
	return err;
}

static int add_segment(struct perf_map *m, const struct segment *s)
{
	struct run *run = m->run_count ? &m->runs[m->run_count - 1] : NULL;
	int err = 0;

	if (m->segment_count >= SEGMENTS_MAX ||
	    __atomic_load_n(&all_segments, __ATOMIC_RELAXED) >= ALL_SEGMENTS_MAX)
		return -ENOSPC;
	if (!run || s->start < segment_end(&run->items[run->count - 1])) {
		err = open_run(m);
		if (err)
			return err;
		run = &m->runs[m->run_count - 1];
	}
	if (run->count == run->capacity)
		err = run_reserve(run, run->capacity ? 2 * run->capacity : 4);
	if (err) {
		if (!run->count)
			m->run_count--;
		return err;
	}
	run->items[run->count++] = *s;
	count_segments(m, 1, 0);
	return 0;
}

static const struct segment *run_find(const struct run *run, uint64_t address)
{
	size_t low = 0, high = run->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (run->items[middle].start <= address)
			low = middle + 1;
		else
			high = middle;
	}
	if (!low || address >= segment_end(&run->items[low - 1]))
		return NULL;
	return &run->items[low - 1];
}

static const struct segment *find_segment(const struct perf_map *m, uint64_t address)
{
	const struct segment *found = NULL;

	for (size_t i = m->run_count; i && !found; i--)
		found = run_find(&m->runs[i - 1], address);
	return found;
}

static unsigned int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return (unsigned int)(c - '0');
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? (unsigned int)(c - 'a' + 10) : 16;
}

/* Reads a number with or without "0x" and the blank behind it. */
static bool take_hex(const char **text, const char *end, uint64_t *out)
{
	const char *p = *text, *first;
	uint64_t value = 0;
	unsigned int digit;

	if (end - p > 2 && p[0] == '0' && (p[1] | 0x20) == 'x')
		p += 2;
	for (first = p; p < end && (digit = hex_digit(*p)) < 16; p++) {
		if (value >> 60)
			return false;
		value = value << 4 | digit;
	}
	if (p == first || p == end || (*p != ' ' && *p != '\t'))
		return false;
	*out = value;
	*text = p + 1;
	return true;
}

static bool parse_line(const char *p, size_t bytes, struct line *out)
{
	const char *end = p + bytes;

	if (!take_hex(&p, end, &out->start) || !take_hex(&p, end, &out->bytes))
		return false;
	out->name = p;
	out->name_bytes = strnlen(p, (size_t)(end - p));
	return out->name_bytes && out->bytes && out->bytes <= UINT32_MAX &&
	       out->start <= UINT64_MAX - out->bytes;
}

static void take_line(struct perf_map *m, const char *text, size_t bytes, uint64_t offset)
{
	struct segment s;
	struct line line;

	if (parse_line(text, bytes, &line)) {
		s = (struct segment){line.start, (uint32_t)line.bytes, (uint32_t)offset};
		if (!add_segment(m, &s))
			return;
	}
	m->bad_lines++;
}

/* Returns how many of the @bytes at m->offset are done with. */
static size_t take_chunk(struct perf_map *m, const char *chunk, size_t bytes)
{
	const char *p = chunk, *end = chunk + bytes, *newline;

	while ((newline = memchr(p, '\n', (size_t)(end - p)))) {
		if (!m->in_long_line)
			take_line(m, p, (size_t)(newline - p), m->offset + (size_t)(p - chunk));
		m->in_long_line = false;
		p = newline + 1;
	}
	if (p == chunk && bytes == CHUNK_BYTES && !m->in_long_line) {
		take_line(m, p, bytes, m->offset);
		m->in_long_line = true;
	}
	return m->in_long_line ? bytes : (size_t)(p - chunk);
}

static int read_chunks(struct perf_map *m, uint64_t size)
{
	char *chunk = malloc(CHUNK_BYTES);
	size_t done = 1;
	int err = 0;

	if (!chunk)
		return -ENOMEM;
	while (done && m->offset < size) {
		uint64_t left = size - m->offset;
		size_t room = left < CHUNK_BYTES ? (size_t)left : CHUNK_BYTES;
		ssize_t n = pread(m->fd, chunk, room, (off_t)m->offset);

		if (n < 0) {
			err = -errno;
			break;
		}
		done = take_chunk(m, chunk, (size_t)n);
		m->offset += done;
		if (done) {
			m->mark_bytes = done < MARK_BYTES ? done : MARK_BYTES;
			memcpy(m->mark, chunk + done - m->mark_bytes, m->mark_bytes);
		}
	}
	free(chunk);
	return err;
}

static uint64_t now_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static void free_runs(struct perf_map *m)
{
	count_segments(m, 0, m->segment_count);
	for (size_t i = 0; i < m->run_count; i++)
		free(m->runs[i].items);
	memset(m->runs, 0, sizeof(m->runs));
	m->run_count = 0;
}

/* Forgets all: the file is another one now. */
static void start_again(struct perf_map *m)
{
	free_runs(m);
	m->offset = m->size_seen = 0;
	m->mark_bytes = 0;
	m->in_long_line = false;
}

static bool mark_still_there(const struct perf_map *m)
{
	char now[MARK_BYTES];

	return pread(m->fd, now, m->mark_bytes, (off_t)(m->offset - m->mark_bytes)) ==
		       (ssize_t)m->mark_bytes &&
	       !memcmp(now, m->mark, m->mark_bytes);
}

/* Reads what is new. -ENOENT: nothing is. */
static int read_news(struct perf_map *m)
{
	struct stat st;
	uint64_t size;
	bool anew;
	int err;

	m->read_ns = now_ns(CLOCK_MONOTONIC);
	if (fstat(m->fd, &st))
		return -errno;
	size = st.st_size < FILE_BYTES_MAX ? (uint64_t)st.st_size : FILE_BYTES_MAX;
	if (size == m->size_seen)
		return -ENOENT;
	if (size < m->size_seen || !mark_still_there(m))
		start_again(m);
	anew = !m->offset;
	if (anew && m->read_ns < m->restart_ns)
		return -ENOENT;
	m->size_seen = size;
	err = read_chunks(m, size);
	if (anew && m->offset > RESTART_BYTES)
		m->restart_ns = now_ns(CLOCK_MONOTONIC) + NS_PER_S;
	return err;
}

/* -ESTALE if the line is no longer what the index says. */
static int read_name(const struct perf_map *m, const struct segment *s, uint64_t address,
		     char *name, size_t size, uint64_t *start)
{
	char text[LINE_BYTES], *newline;
	struct line line;
	ssize_t n;

	n = pread(m->fd, text, sizeof(text), s->line);
	if (n < 0)
		return -errno;
	newline = memchr(text, '\n', (size_t)n);
	if (newline)
		n = newline - text;
	if (!parse_line(text, (size_t)n, &line) || address < line.start ||
	    address - line.start >= line.bytes)
		return -ESTALE;
	if (line.name_bytes > PERF_MAP_NAME_BYTES)
		line.name_bytes = PERF_MAP_NAME_BYTES;
	if (size)
		snprintf(name, size, "%.*s", (int)line.name_bytes, line.name);
	*start = line.start;
	return 0;
}

int perf_map_find(struct perf_map *m, uint64_t address, char *name, size_t size, uint64_t *start)
{
	int err;

	if (m->read_ns && now_ns(CLOCK_MONOTONIC) >= m->read_ns + NS_PER_S)
		read_news(m);
	/* Read what was added; find that the file is another; read that. */
	for (int round = 0; round < 3; round++) {
		const struct segment *s = find_segment(m, address);

		err = s ? read_name(m, s, address, name, size, start) : -ENOENT;
		if (!s || err == -ESTALE) {
			if (s)
				start_again(m);
			err = read_news(m);
			if (!err)
				continue;
		}
		return err;
	}
	return -ENOENT;
}

size_t perf_map_bad_lines(const struct perf_map *m)
{
	return m->bad_lines;
}

/* What stands behind "\nKEY:" in /proc/PID/status; a newline in the comm, the only
 * free text of the file, is written as "\n" there. */
static const char *status_value(const char *text, const char *key)
{
	const char *p = strstr(text, key);

	return p ? p + strlen(key) : NULL;
}

/* The process' number in its own namespace, the last of its numbers, and the user as
 * whom it makes files, the last of its four. */
static int read_owner(pid_t pid, long *own_pid, uid_t *uid)
{
	const char *pids, *users;
	char path[64], *text, *end;
	unsigned long value;
	int err;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	err = text_file_read(path, STATUS_BYTES_MAX, &text, NULL);
	if (err)
		return err == -ENOENT ? -ESRCH : err;
	users = status_value(text, "\nUid:");
	if (!users || sscanf(users, "%*u %*u %*u %lu", &value) != 1) {
		free(text);
		return -EPROTO;
	}
	*uid = (uid_t)value;
	*own_pid = pid;
	pids = status_value(text, "\nNSpid:");
	while (pids && *pids != '\n') {
		value = strtoul(pids, &end, 10);
		if (end == pids)
			break;
		*own_pid = (long)value;
		pids = end;
	}
	free(text);
	return 0;
}

static int find_file(pid_t pid, uint64_t start_ticks, long own_pid)
{
	int root = file_root_open(pid, start_ticks), fd;
	char path[64];

	if (root < 0)
		return root;
	snprintf(path, sizeof(path), "tmp/perf-%ld.map", own_pid);
	fd = file_root_open_no_link(root, path);
	close(root);
	return fd;
}

/* When a process that started at @ticks began, by the clock of files. */
static time_t start_time(uint64_t ticks)
{
	uint64_t hz = (uint64_t)sysconf(_SC_CLK_TCK);

	return (time_t)(now_ns(CLOCK_REALTIME) / NS_PER_S) -
	       (time_t)(now_ns(CLOCK_BOOTTIME) / NS_PER_S) + (time_t)(ticks / hz);
}

/* A file left by an earlier process of that number names nothing of this one; of two
 * seconds the clocks and their rounding may be apart. */
static int check_file(int fd, uint64_t start_ticks, uid_t uid)
{
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	if (st.st_uid && st.st_uid != uid)
		return -EPERM;
	return st.st_mtime + 2 < start_time(start_ticks) ? -ENOENT : 0;
}

static int open_file(pid_t pid)
{
	uint64_t start_ticks;
	long own_pid;
	uid_t uid;
	int fd, err;

	err = procfs_start_ticks(pid, &start_ticks);
	if (!err)
		err = read_owner(pid, &own_pid, &uid);
	if (err)
		return err;
	fd = find_file(pid, start_ticks, own_pid);
	if (fd < 0)
		return fd;
	err = check_file(fd, start_ticks, uid);
	if (err) {
		close(fd);
		return err;
	}
	return fd;
}

int perf_map_open(pid_t pid, struct perf_map **out)
{
	struct perf_map *m;
	int fd;

	fd = open_file(pid);
	if (fd < 0)
		return fd;
	m = calloc(1, sizeof(*m));
	if (!m) {
		close(fd);
		return -ENOMEM;
	}
	m->references = 1;
	m->fd = fd;
	*out = m;
	return 0;
}

struct perf_map *perf_map_ref(struct perf_map *m)
{
	if (m)
		__atomic_add_fetch(&m->references, 1, __ATOMIC_RELAXED);
	return m;
}

void perf_map_unref(struct perf_map *m)
{
	if (!m || __atomic_sub_fetch(&m->references, 1, __ATOMIC_ACQ_REL))
		return;
	free_runs(m);
	close(m->fd);
	free(m);
}
