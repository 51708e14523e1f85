/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What unwind tables cost: memory, and time to compile them.
 *
 *	table_cost FILE...	each object, the best of RUNS
 *	table_cost --all	what all processes of the system map, each object once
 */
#include <errno.h>
#include <fcntl.h>
#include <libelf.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <gelf.h>

#include "sym/addr_space.h"
#include "sym/object.h"
#include "target/procfs.h"
#include "unwind/cfi.h"
#include "unwind/rule_set.h"
#include "unwind_maps.h"

#define RUNS 5
#define KIB 1024.0
#define MIB (1024.0 * 1024.0)

static double cpu_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

/* Bytes of .eh_frame, 0 if there is no such section. */
static uint64_t eh_frame_bytes(int fd)
{
	Elf *elf = elf_begin(fd, ELF_C_READ_MMAP, NULL);
	uint64_t bytes = 0;
	size_t names;

	if (elf && !elf_getshdrstrndx(elf, &names)) {
		for (Elf_Scn *scn = elf_nextscn(elf, NULL); scn; scn = elf_nextscn(elf, scn)) {
			GElf_Shdr header;
			const char *name = gelf_getshdr(scn, &header)
						   ? elf_strptr(elf, names, header.sh_name)
						   : NULL;

			if (name && !strcmp(name, ".eh_frame"))
				bytes = header.sh_size;
		}
	}
	elf_end(elf);
	return bytes;
}

struct cost {
	uint32_t rows, rules;
	size_t bytes;
	double ms;
};

static int compile_once(int fd, struct cost *out)
{
	struct cfi_table *table = NULL;
	struct rule_set *rules;
	double start;
	int err = rule_set_new(&rules);

	if (err)
		return err;
	start = cpu_ms();
	err = cfi_table_read(fd, rules, &table);
	if (!err) {
		out->ms = cpu_ms() - start;
		out->rows = cfi_table_row_count(table);
		out->bytes = cfi_table_bytes(table);
		out->rules = rule_set_count(rules);
	}
	cfi_table_free(table);
	rule_set_free(rules);
	return err;
}

static int compile_best(int fd, struct cost *out)
{
	struct cost c;
	int err = compile_once(fd, out);

	for (int i = 1; i < RUNS && !err; i++) {
		err = compile_once(fd, &c);
		if (!err && c.ms < out->ms)
			*out = c;
	}
	return err;
}

static int report_file(const char *path)
{
	const char *slash = strrchr(path, '/');
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	double eh_frame_mib;
	struct stat st;
	struct cost c;
	int err;

	if (fd < 0 || fstat(fd, &st)) {
		err = -errno;
		goto out;
	}
	err = compile_best(fd, &c);
	if (err)
		goto out;
	eh_frame_mib = (double)eh_frame_bytes(fd) / MIB;
	printf("%-28s %9.0f %9.0f %9u %9.0f %6u %8.2f %7.1f\n", slash ? slash + 1 : path,
	       (double)st.st_size / KIB, eh_frame_mib * KIB, c.rows, (double)c.bytes / KIB, c.rules,
	       c.ms, eh_frame_mib > 0 ? c.ms / eh_frame_mib : 0);
out:
	if (fd >= 0)
		close(fd);
	if (err)
		fprintf(stderr, "table_cost: %s: %s\n", path, strerror(-err));
	return err;
}

static int report_files(char **paths)
{
	int err = 0;

	printf("%-28s %9s %9s %9s %9s %6s %8s %7s\n", "object", "file KiB", "eh_frame", "rows",
	       "table KiB", "rules", "ms", "ms/MiB");
	for (; *paths; paths++)
		err = report_file(*paths) ? 1 : err;
	return err;
}

struct system_cost {
	struct rule_set *rules;
	const struct object **seen;
	size_t objects, seen_count, without, processes;
	uint64_t rows, bytes, eh_frame_bytes;
	double ms, slowest_ms;
};

static bool is_new(struct system_cost *s, const struct object *object)
{
	const struct object **more;

	for (size_t i = 0; i < s->seen_count; i++) {
		if (s->seen[i] == object)
			return false;
	}
	more = realloc(s->seen, (s->seen_count + 1) * sizeof(*more));
	if (!more)
		return false;
	s->seen = more;
	s->seen[s->seen_count++] = object;
	return true;
}

static void add_object(struct system_cost *s, const struct object *object)
{
	struct cfi_table *table = NULL;
	double start = cpu_ms();

	if (cfi_table_read(object_fd(object), s->rules, &table)) {
		s->without++;
		return;
	}
	start = cpu_ms() - start;
	s->objects++;
	s->ms += start;
	s->slowest_ms = start > s->slowest_ms ? start : s->slowest_ms;
	s->rows += cfi_table_row_count(table);
	s->bytes += cfi_table_bytes(table);
	s->eh_frame_bytes += eh_frame_bytes(object_fd(object));
	cfi_table_free(table);
}

static void add_process(struct system_cost *s, pid_t pid, struct object_table *objects)
{
	struct addr_space *as = addr_space_new(pid, objects);
	struct addr_location where;
	uint64_t start, end;

	if (as && !addr_space_refresh(as) && addr_space_count(as)) {
		s->processes++;
		for (size_t i = 0; i < addr_space_count(as); i++) {
			addr_space_at(as, i, &start, &end, &where);
			/* The vdso has no file. */
			if (where.object && object_fd(where.object) >= 0 && is_new(s, where.object))
				add_object(s, where.object);
		}
	}
	addr_space_free(as);
}

static int report_system(void)
{
	struct object_table *objects = object_table_new();
	struct system_cost s = {0};
	struct pid_iter *it;
	pid_t pid;
	int err = objects ? rule_set_new(&s.rules) : -ENOMEM;

	if (!err)
		err = pid_iter_new(&it);
	if (err)
		return err;
	while (pid_iter_next(it, &pid))
		add_process(&s, pid, objects);
	pid_iter_free(it);
	printf("%zu processes map %zu objects with call frame information, %zu without\n",
	       s.processes, s.objects, s.without);
	printf("tables: %llu rows, %.0f KiB, %u rules, for %.0f KiB of .eh_frame\n",
	       (unsigned long long)s.rows, (double)s.bytes / KIB, rule_set_count(s.rules),
	       (double)s.eh_frame_bytes / KIB);
	printf("mappings: %.0f KiB\n",
	       (double)(s.processes * sizeof(struct unwind_mappings)) / KIB);
	printf("compiled in %.0f ms of CPU time, the slowest in %.1f\n", s.ms, s.slowest_ms);
	rule_set_free(s.rules);
	free(s.seen);
	object_table_free(objects);
	return 0;
}

int main(int argc, char **argv)
{
	elf_version(EV_CURRENT);
	if (argc < 2)
		return 2;
	if (!strcmp(argv[1], "--all"))
		return report_system() ? 1 : 0;
	return report_files(argv + 1);
}
