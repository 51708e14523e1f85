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
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sym/object.h"

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
		assert_null(at.object);
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
		cmocka_unit_test_setup_teardown(test_process_ends, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_such_process, setup, teardown),
		cmocka_unit_test_setup_teardown(test_random_changes, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
