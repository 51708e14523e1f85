/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sym/addr_space.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sym/object.h"
#include "sym/perf_map.h"
#include "target/procfs.h"

#define PAGE 4096u

struct fixture {
	struct object_table *objects;
	struct addr_space *as;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->objects = object_table_new();
	f->as = addr_space_new(getpid(), f->objects);
	*state = f;
	return f->objects && f->as ? 0 : -1;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	addr_space_free(f->as);
	addr_space_free(NULL);
	object_table_free(f->objects);
	free(f);
	return 0;
}

static uint64_t address_of(const void *p)
{
	return (uintptr_t)p;
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void *map_code(int fd, size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_EXEC,
		       fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_PRIVATE, fd, 0);

	assert_true(p != MAP_FAILED);
	return p;
}

/* ELF address by what the dynamic linker says. */
static uint64_t linked_address(const void *p)
{
	struct link_map *map;
	Dl_info info;

	assert_true(dladdr1(p, &info, (void **)&map, RTLD_DL_LINKMAP));
	return address_of(p) - map->l_addr;
}

static void test_own_code_and_libraries(void **state)
{
	struct fixture *f = *state;
	struct addr_location here, libc;
	const void *in_libc = (const void *)(uintptr_t)getauxval;

	assert_int_equal(addr_space_find(f->as, address_of(in_libc), &libc), -ENOENT);
	assert_int_equal(addr_space_refresh(f->as), 0);
	assert_int_equal(addr_space_find(f->as, (uintptr_t)setup, &here), 0);
	assert_non_null(here.object);
	assert_int_equal(here.vaddr, linked_address((const void *)(uintptr_t)setup));
	assert_non_null(strstr(here.name, "test_addr_space"));
	assert_string_equal(here.name, object_path(here.object));

	assert_int_equal(addr_space_find(f->as, address_of(in_libc), &libc), 0);
	assert_non_null(strstr(libc.name, "libc.so.6"));
	assert_int_equal(libc.vaddr, linked_address(in_libc));
	assert_ptr_not_equal(libc.object, here.object);
}

static void test_data_is_not_code(void **state)
{
	struct fixture *f = *state;
	struct addr_location at = {.vaddr = 5};
	static int data;

	assert_int_equal(addr_space_refresh(f->as), 0);
	assert_int_equal(addr_space_find(f->as, address_of(&data), &at), -ENOENT);
	assert_int_equal(addr_space_find(f->as, address_of(&at), &at), -ENOENT);
	assert_int_equal(addr_space_find(f->as, 0, &at), -ENOENT);
	assert_int_equal(addr_space_find(f->as, UINT64_MAX, &at), -ENOENT);
	assert_int_equal(at.vaddr, 5);
}

static void test_code_without_a_file(void **state)
{
	struct fixture *f = *state;
	uint64_t vdso = getauxval(AT_SYSINFO_EHDR);
	char *anon = map_code(-1, PAGE);
	struct addr_location at;

	assert_int_equal(addr_space_refresh(f->as), 0);
	assert_int_equal(addr_space_find(f->as, address_of(anon) + 9, &at), 0);
	assert_null(at.object);
	assert_string_equal(at.name, "[anon]");
	if (vdso) {
		assert_int_equal(addr_space_find(f->as, vdso + 0x123, &at), 0);
		assert_non_null(at.object);
		assert_ptr_equal(at.object, object_table_vdso(f->objects));
		assert_string_equal(at.name, "[vdso]");
		assert_int_equal(at.vaddr, 0x123);
	}
	munmap(anon, PAGE);
}

/* A file that is mapped as code and is no ELF file, and a device. */
static void test_odd_files(void **state)
{
	struct fixture *f = *state;
	char text_name[] = "/tmp/leaktop-test-XXXXXX";
	int text = mkstemp(text_name), zero = open("/dev/zero", O_RDWR | O_CLOEXEC);
	struct addr_location at;
	char *a, *b;

	assert_true(text >= 0 && zero >= 0);
	assert_int_equal(write(text, "hello", 5), 5);
	a = map_code(text, PAGE);
	b = map_code(zero, PAGE);
	assert_int_equal(addr_space_refresh(f->as), 0);
	assert_int_equal(addr_space_find(f->as, address_of(a), &at), 0);
	assert_null(at.object);
	assert_string_equal(at.name, text_name);
	assert_int_equal(addr_space_find(f->as, address_of(b), &at), 0);
	assert_null(at.object);
	munmap(a, PAGE);
	munmap(b, PAGE);
	close(text);
	close(zero);
	unlink(text_name);
}

static int copy_of_self(char *name)
{
	int in = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), out = mkstemp(name);
	char buf[65536];
	ssize_t n;

	assert_true(in >= 0 && out >= 0);
	while ((n = read(in, buf, sizeof(buf))) > 0)
		assert_int_equal(write(out, buf, (size_t)n), n);
	close(in);
	return out;
}

/* Deleted files are opened all the same; unmapped ones stay known. */
static void test_deleted_and_unmapped(void **state)
{
	struct fixture *f = *state;
	char name[] = "/tmp/leaktop-test-XXXXXX";
	int fd = copy_of_self(name);
	char *code = map_code(fd, 4 * PAGE), *other;
	struct addr_location at, later;

	close(fd);
	unlink(name);
	assert_int_equal(addr_space_refresh(f->as), 0);
	assert_int_equal(addr_space_find(f->as, address_of(code) + 100, &at), 0);
	assert_string_equal(at.name, name);
	if (geteuid() == 0)
		assert_non_null(at.object);

	munmap(code, 4 * PAGE);
	assert_int_equal(addr_space_refresh(f->as), 0);
	assert_int_equal(addr_space_find(f->as, address_of(code) + 100, &later), 0);
	assert_ptr_equal(at.object, later.object);
	assert_string_equal(later.name, name);

	/* Something new there, even on a part, takes the old one's place. */
	other = mmap(code + PAGE, PAGE, PROT_READ | PROT_EXEC,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	assert_ptr_equal(other, code + PAGE);
	assert_int_equal(addr_space_refresh(f->as), 0);
	assert_int_equal(addr_space_find(f->as, address_of(other), &later), 0);
	assert_string_equal(later.name, "[anon]");
	assert_int_equal(addr_space_find(f->as, address_of(code) + 100, &later), -ENOENT);
	munmap(other, PAGE);
}

/* What an upgrade does: the name gets another file, the mapping stays. */
static void test_replaced(void **state)
{
	struct fixture *f = *state;
	char name[] = "/tmp/leaktop-test-XXXXXX", newer[] = "/tmp/leaktop-test-XXXXXX";
	struct addr_location old_at, new_at;
	int old_fd = copy_of_self(name), new_fd;
	char *old_code = map_code(old_fd, PAGE), *new_code;
	struct stat old_st, new_st, st;

	if (geteuid()) {
		close(old_fd);
		unlink(name);
		skip();
	}
	new_fd = copy_of_self(newer);
	assert_int_equal(rename(newer, name), 0);
	assert_int_equal(fstat(old_fd, &old_st) | fstat(new_fd, &new_st), 0);
	assert_int_not_equal(old_st.st_ino, new_st.st_ino);
	assert_int_equal(addr_space_refresh(f->as), 0);
	new_code = map_code(new_fd, PAGE);
	assert_int_equal(addr_space_refresh(f->as), 0);
	assert_int_equal(addr_space_find(f->as, address_of(old_code), &old_at), 0);
	assert_int_equal(addr_space_find(f->as, address_of(new_code), &new_at), 0);
	assert_string_equal(old_at.name, name);
	assert_string_equal(new_at.name, name);
	assert_non_null(old_at.object);
	assert_non_null(new_at.object);
	assert_ptr_not_equal(old_at.object, new_at.object);
	assert_int_equal(fstat(object_fd(old_at.object), &st), 0);
	assert_int_equal(st.st_ino, old_st.st_ino);
	assert_int_equal(fstat(object_fd(new_at.object), &st), 0);
	assert_int_equal(st.st_ino, new_st.st_ino);
	munmap(old_code, PAGE);
	munmap(new_code, PAGE);
	close(old_fd);
	close(new_fd);
	unlink(name);
}

/* A library unloaded and another one loaded in its place: who saw the address before
 * the change was known may have seen either. */
static void test_another_one_in_its_place(void **state)
{
	struct fixture *f = *state;
	char first_name[] = "/tmp/leaktop-test-XXXXXX", second_name[] = "/tmp/leaktop-test-XXXXXX";
	int first_fd = copy_of_self(first_name), second_fd = copy_of_self(second_name);
	char *code = map_code(first_fd, PAGE), *again;
	struct addr_location at;
	uint64_t seen_ns;

	unlink(first_name);
	unlink(second_name);
	if (geteuid()) {
		close(first_fd);
		close(second_fd);
		skip();
	}
	assert_int_equal(addr_space_refresh(f->as), 0);
	assert_int_equal(addr_space_find_at(f->as, address_of(code), 1, &at), 0);
	assert_string_equal(at.name, first_name);
	seen_ns = now_ns();
	again = mmap(code, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, second_fd, 0);
	assert_ptr_equal(again, code);
	assert_int_equal(addr_space_refresh(f->as), 0);
	assert_int_equal(addr_space_refresh(f->as), 0);
	assert_int_equal(addr_space_find_at(f->as, address_of(code), seen_ns, &at), 0);
	assert_string_equal(at.name, "[unknown]");
	assert_null(at.object);
	assert_int_equal(addr_space_find(f->as, address_of(code), &at), 0);
	assert_string_equal(at.name, second_name);
	/* This one is known by now: what is not known is another one. */
	assert_int_equal(addr_space_find_at(f->as, address_of(code), now_ns(), &at), 0);
	assert_string_equal(at.name, "[unknown]");
	/* Somebody knows better when it came. */
	assert_int_equal(addr_space_refresh_since(f->as, seen_ns - 1), 0);
	assert_int_equal(addr_space_find_at(f->as, address_of(code), seen_ns, &at), 0);
	assert_string_equal(at.name, second_name);
	assert_int_equal(addr_space_find_at(f->as, address_of(code), seen_ns - 2, &at), 0);
	assert_string_equal(at.name, "[unknown]");
	munmap(code, PAGE);
	close(first_fd);
	close(second_fd);
}

/* Code in a memory file, as .NET keeps it: no object, also when mapped anew. */
static void test_memory_file(void **state)
{
	struct fixture *f = *state;
	int fd = memfd_create("doublemapper", MFD_CLOEXEC);
	struct addr_location at;
	char *code;

	assert_int_equal(ftruncate(fd, 64 * PAGE), 0);
	for (int i = 0; i < 20; i++) {
		code = mmap(NULL, (size_t)(i + 1) * PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, fd,
			    i * PAGE);
		assert_true(code != MAP_FAILED);
		assert_int_equal(addr_space_refresh(f->as), 0);
		assert_int_equal(addr_space_find(f->as, address_of(code) + 5, &at), 0);
		assert_null(at.object);
		assert_string_equal(at.name, "/memfd:doublemapper");
		assert_int_equal(at.vaddr, (uint64_t)i * PAGE + 5);
		munmap(code, (size_t)(i + 1) * PAGE);
	}
	close(fd);
}

static void test_origin(void **state)
{
	struct fixture *f = *state;
	struct addr_location here, vdso;
	uint64_t ticks = 0, own;

	assert_int_equal(addr_space_refresh(f->as), 0);
	assert_int_equal(addr_space_find(f->as, (uintptr_t)setup, &here), 0);
	assert_non_null(here.object);
	assert_int_equal(object_origin(here.object, &ticks), getpid());
	assert_int_equal(procfs_start_ticks(getpid(), &own), 0);
	assert_int_equal(ticks, own);
	if (!addr_space_find(f->as, getauxval(AT_SYSINFO_EHDR), &vdso))
		assert_int_equal(object_origin(vdso.object, &ticks), 0);
}

static void test_perf_map(void **state)
{
	const struct timespec more_than_a_second = {1, 50000000};
	struct fixture *f = *state;
	struct perf_map *map;
	char name[64];
	uint64_t start;
	FILE *file;

	snprintf(name, sizeof(name), "/tmp/perf-%d.map", getpid());
	unlink(name);
	assert_null(addr_space_perf_map(f->as));
	file = fopen(name, "we");
	assert_non_null(file);
	fputs("1000 10 compiled\n", file);
	fclose(file);
	/* Not so soon again. */
	assert_null(addr_space_perf_map(f->as));
	nanosleep(&more_than_a_second, NULL);
	map = addr_space_perf_map(f->as);
	unlink(name);
	assert_non_null(map);
	assert_ptr_equal(addr_space_perf_map(f->as), map);
	assert_int_equal(perf_map_find(map, 0x1000, name, sizeof(name), &start), 0);
	assert_string_equal(name, "compiled");
}

/* The same file in two processes is one object. */
static void test_process_ends(void **state)
{
	struct fixture *f = *state;
	struct addr_location mine, theirs;
	struct addr_space *child_space;
	pid_t child = fork();
	siginfo_t info;

	if (!child) {
		pause();
		_exit(0);
	}
	child_space = addr_space_new(child, f->objects);
	assert_int_equal(addr_space_refresh(child_space), 0);
	assert_int_equal(addr_space_refresh(f->as), 0);
	kill(child, SIGKILL);
	assert_int_equal(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT), 0);
	/* A zombie first, then nothing. */
	assert_int_equal(addr_space_refresh(child_space), -ESRCH);
	assert_int_equal(waitpid(child, NULL, 0), child);
	assert_int_equal(addr_space_refresh(child_space), -ESRCH);

	assert_int_equal(addr_space_find(f->as, (uintptr_t)setup, &mine), 0);
	assert_int_equal(addr_space_find(child_space, (uintptr_t)setup, &theirs), 0);
	assert_ptr_equal(mine.object, theirs.object);
	assert_int_equal(mine.vaddr, theirs.vaddr);
	addr_space_free(child_space);
}

static void test_no_such_process(void **state)
{
	struct fixture *f = *state;
	struct addr_space *as = addr_space_new(0x3fffffff, f->objects);
	struct addr_location at;

	assert_non_null(as);
	assert_int_equal(addr_space_refresh(as), -ESRCH);
	assert_int_equal(addr_space_find(as, 0x1000, &at), -ENOENT);
	addr_space_free(as);
}

/* Old and new ones of all kinds of overlap, against a table of pages. */
static void test_random_changes(void **state)
{
	enum {
		PAGES = 64
	};
	struct fixture *f = *state;
	char *area = map_code(-1, PAGES * PAGE);
	unsigned int seed = 7;
	int i, page;

	for (i = 0; i < 300; i++) {
		unsigned char resident[PAGES] = {0};
		int from = rand_r(&seed) % PAGES, count = 1 + rand_r(&seed) % 8;
		struct addr_location at;

		if (from + count > PAGES)
			count = PAGES - from;
		if (rand_r(&seed) % 2)
			munmap(area + (size_t)from * PAGE, (size_t)count * PAGE);
		else
			assert_true(mmap(area + (size_t)from * PAGE, (size_t)count * PAGE,
					 PROT_READ | PROT_EXEC,
					 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
					 0) != MAP_FAILED);
		assert_int_equal(addr_space_refresh(f->as), 0);
		/* What is mapped now must be known; what is not may be. */
		for (page = 0; page < PAGES; page++) {
			if (mincore(area + (size_t)page * PAGE, PAGE, &resident[page]))
				continue;
			assert_int_equal(
				addr_space_find(f->as, address_of(area + (size_t)page * PAGE), &at),
				0);
			assert_string_equal(at.name, "[anon]");
		}
	}
	munmap(area, PAGES * PAGE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_own_code_and_libraries, setup, teardown),
		cmocka_unit_test_setup_teardown(test_data_is_not_code, setup, teardown),
		cmocka_unit_test_setup_teardown(test_code_without_a_file, setup, teardown),
		cmocka_unit_test_setup_teardown(test_odd_files, setup, teardown),
		cmocka_unit_test_setup_teardown(test_deleted_and_unmapped, setup, teardown),
		cmocka_unit_test_setup_teardown(test_replaced, setup, teardown),
		cmocka_unit_test_setup_teardown(test_another_one_in_its_place, setup, teardown),
		cmocka_unit_test_setup_teardown(test_memory_file, setup, teardown),
		cmocka_unit_test_setup_teardown(test_origin, setup, teardown),
		cmocka_unit_test_setup_teardown(test_perf_map, setup, teardown),
		cmocka_unit_test_setup_teardown(test_process_ends, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_such_process, setup, teardown),
		cmocka_unit_test_setup_teardown(test_random_changes, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
