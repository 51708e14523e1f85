/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Every test has a directory with "target" and "host", which stand for two roots, and
 * "outside", which neither may show. "program" is stripped, "full" is its debug file.
 */
#include "sym/debug_file.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "child.h"
#include "scratch_dir.h"
#include "sym/debug_info.h"
#include "sym/file_root.h"
#include "sym/frame.h"
#include "sym/object.h"
#include "sym/symbolizer.h"
#include "target/procfs.h"

#define DEBUG_PATH "usr/lib/debug/.build-id/12/345678.debug"

static const char source[] = "__attribute__((noinline)) static int hidden(int x)\n"
			     "{\n"
			     "	__asm__ volatile(\"\" : \"+r\"(x));\n"
			     "	return x + 1;\n"
			     "}\n"
			     "int main(int argc, char **argv)\n"
			     "{\n"
			     "	return hidden(argc) + !argv;\n"
			     "}\n";

struct fixture {
	struct scratch_dir dir;
	struct debug_places places;
	int program;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	int err;

	*state = f;
	f->program = -1;
	err = scratch_make(&f->dir) ||
	      scratch_run(&f->dir, "mkdir -p target/usr/lib/debug/.build-id/12 "
				   "host/usr/lib/debug/.build-id/12 outside");
	f->places.target = scratch_open(&f->dir, "target", O_PATH | O_DIRECTORY);
	f->places.host = scratch_open(&f->dir, "host", O_PATH | O_DIRECTORY);
	return err || f->places.target < 0 || f->places.host < 0 ? -1 : 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	int err;

	debug_places_release(&f->places);
	if (f->program >= 0)
		close(f->program);
	err = scratch_remove(&f->dir);
	free(f);
	return err;
}

static void run(const struct fixture *f, const char *command)
{
	assert_int_equal(scratch_run(&f->dir, command), 0);
}

/* @build_id: what the linker takes. */
static void build(struct fixture *f, const char *build_id)
{
	char command[256];

	if (scratch_run(&f->dir, "cc --version && objcopy --version"))
		skip();
	assert_int_equal(scratch_write(&f->dir, "p.c", source, sizeof(source) - 1), 0);
	snprintf(command, sizeof(command),
		 "cc -g -O1 -Wl,--build-id=%s -o full p.c && strip -o program full", build_id);
	run(f, command);
	f->program = scratch_open(&f->dir, "program", O_RDONLY);
	assert_true(f->program >= 0);
}

/* Adds a link to @name to the program, with the checksum that "full" has now. */
static void link_program(struct fixture *f, const char *name)
{
	char command[256];

	snprintf(command, sizeof(command),
		 "cp full '%s' && objcopy --add-gnu-debuglink='%s' program linked && rm '%s'", name,
		 name, name);
	run(f, command);
	close(f->program);
	f->program = scratch_open(&f->dir, "linked", O_RDONLY);
}

/* Whether what is found is the file called @name, or nothing if that is NULL. */
static void expect(const struct fixture *f, const char *build_id, const char *name)
{
	int fd = debug_file_open(&f->places, f->program, "/opt/x/program", build_id);
	struct stat found, expected;
	char path[PATH_MAX];

	if (!name) {
		assert_true(fd < 0);
		return;
	}
	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &found), 0);
	assert_int_equal(stat(scratch_path(&f->dir, name, path), &expected), 0);
	assert_int_equal(found.st_ino, expected.st_ino);
	assert_int_equal(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY);
	close(fd);
}

static void test_build_id(void **state)
{
	struct fixture *f = *state;

	build(f, "0x12345678");
	expect(f, "12345678", NULL);
	run(f, "cp full host/" DEBUG_PATH);
	expect(f, "12345678", "host/" DEBUG_PATH);
	run(f, "cp full target/" DEBUG_PATH);
	expect(f, "12345678", "target/" DEBUG_PATH);
	run(f, "echo bad >target/" DEBUG_PATH);
	expect(f, "12345678", "host/" DEBUG_PATH);
	/* Another build under that name. */
	run(f, "cc -g -Wl,--build-id=0x12345679 -o host/" DEBUG_PATH " p.c");
	expect(f, "12345678", NULL);
}

static void test_bad_build_ids(void **state)
{
	static const char *const ids[] = {"", "12", "1234567g", "../../etc/passwd", "12/45678"};
	struct fixture *f = *state;
	char path[512];
	size_t i;

	build(f, "0x12345678");
	for (i = 0; i < sizeof(ids) / sizeof(ids[0]); i++)
		assert_int_equal(debug_file_open(&f->places, f->program, "/p", ids[i]), -EINVAL);
	memset(path, 'a', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	assert_int_equal(debug_file_open(&f->places, f->program, "/p", path), -EINVAL);
}

/* The three places, the last of them first, so that each wins over the one before. */
static void test_link(void **state)
{
	static const char *const places[] = {"target/usr/lib/debug/opt/x", "target/opt/x/.debug",
					     "target/opt/x"};
	struct fixture *f = *state;
	char command[256], name[128];
	size_t i;

	build(f, "none");
	link_program(f, "p.debug");
	expect(f, NULL, NULL);
	for (i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		snprintf(name, sizeof(name), "%s/p.debug", places[i]);
		snprintf(command, sizeof(command), "mkdir -p %s && cp full %s", places[i], name);
		run(f, command);
		expect(f, NULL, name);
	}
	/* One that has changed is not the one that was meant. */
	run(f, "printf x >>target/opt/x/p.debug");
	expect(f, NULL, "target/opt/x/.debug/p.debug");
}

static void test_link_on_host(void **state)
{
	struct fixture *f = *state;

	build(f, "none");
	link_program(f, "p.debug");
	run(f, "mkdir -p host/opt/x && cp full host/opt/x/p.debug");
	expect(f, NULL, "host/opt/x/p.debug");
	f->places.foreign = true;
	expect(f, NULL, NULL);
	f->places.foreign = false;
	assert_true(debug_file_open(&f->places, f->program, "program", NULL) < 0);
	assert_true(debug_file_open(&f->places, f->program, "", NULL) < 0);
}

/* The build id decides where both have one, whatever the checksum says. */
static void test_link_and_build_id(void **state)
{
	struct fixture *f = *state;

	build(f, "0x12345678");
	link_program(f, "p.debug");
	run(f, "mkdir -p target/opt/x && cp full target/opt/x/p.debug && "
	       "printf x >>target/opt/x/p.debug");
	expect(f, "12345678", "target/opt/x/p.debug");
	expect(f, NULL, NULL);
	run(f, "cc -g -Wl,--build-id=0x12345679 -o target/opt/x/p.debug p.c");
	expect(f, "12345678", NULL);
}

/* With the name of the object itself, it is not its own debug file. */
static void test_link_to_own_name(void **state)
{
	struct fixture *f = *state;

	build(f, "0x12345678");
	run(f, "mkdir d && mv full d/program && cp d/program full && "
	       "objcopy --add-gnu-debuglink=d/program program linked");
	close(f->program);
	f->program = scratch_open(&f->dir, "linked", O_RDONLY);
	run(f,
	    "mkdir -p target/opt/x target/usr/lib/debug/opt/x && cp linked target/opt/x/program");
	expect(f, "12345678", NULL);
	run(f, "cp full target/usr/lib/debug/opt/x/program");
	expect(f, "12345678", "target/usr/lib/debug/opt/x/program");
}

static void test_links_stay_inside(void **state)
{
	static const char *const commands[] = {
		"ln -sf \"$PWD/outside/full\" target/" DEBUG_PATH,
		"ln -sf ../../../../../../outside/full target/" DEBUG_PATH,
		"ln -sf ../../../../../../../../../../../../../../../../..$PWD/outside/full "
		"target/" DEBUG_PATH,
		"rm -r target/usr/lib/debug/.build-id/12 && "
		"ln -s ../../../../../outside target/usr/lib/debug/.build-id/12",
	};
	struct fixture *f = *state;
	size_t i;

	build(f, "0x12345678");
	run(f, "cp full outside/full && cp full outside/345678.debug");
	for (i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		run(f, commands[i]);
		expect(f, "12345678", NULL);
	}
	/* "/" is the root of the target for its own links. */
	run(f, "rm target/usr/lib/debug/.build-id/12 && mkdir target/usr/lib/debug/.build-id/12 "
	       "target/d && cp full target/d/full && ln -s /d/full target/" DEBUG_PATH);
	expect(f, "12345678", "target/d/full");
}

static void test_only_regular_files(void **state)
{
	struct fixture *f = *state;
	int root = f->places.target;

	build(f, "0x12345678");
	alarm(20);
	run(f, "mkfifo target/" DEBUG_PATH);
	expect(f, "12345678", NULL);
	assert_int_equal(file_root_open_file(root, DEBUG_PATH), -EINVAL);
	assert_int_equal(file_root_open_file(root, "/usr"), -EINVAL);
	assert_int_equal(file_root_open_file(root, "/nowhere"), -ENOENT);
	run(f, "ln -s /proc/self/fd/0 target/loop && ln -s again target/again");
	assert_int_equal(file_root_open_file(root, "loop"), -ENOENT);
	assert_int_equal(file_root_open_file(root, "again"), -ELOOP);
	alarm(0);
	/* A device is not opened, so what opening would start is not started. */
	root = file_root_open_host();
	assert_int_equal(file_root_open_file(root, "/dev/null"), -EINVAL);
	assert_int_equal(file_root_open_file(root, "/proc/self/exe"), -ELOOP);
	close(root);
}

static void test_root_of_process(void **state)
{
	uint64_t ticks;
	int root, host;

	(void)state;
	assert_int_equal(procfs_start_ticks(getpid(), &ticks), 0);
	root = file_root_open(getpid(), ticks);
	host = file_root_open_host();
	assert_true(root >= 0 && host >= 0);
	assert_true(file_root_same(root, host));
	close(root);
	close(host);
	assert_int_equal(file_root_open(getpid(), ticks + 1), -ESRCH);
	assert_int_equal(file_root_open(0, ticks), -ESRCH);
	assert_int_equal(file_root_open(-1, ticks), -ESRCH);
	assert_int_equal(file_root_open(INT_MAX, ticks), -ESRCH);
}

static void expect_supplement(const struct fixture *f, const char *name)
{
	int fd = debug_file_open_supplement(&f->places, f->program);
	struct stat found, expected;
	char path[PATH_MAX];

	if (!name) {
		assert_int_equal(fd, -ENOENT);
		return;
	}
	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &found), 0);
	assert_int_equal(stat(scratch_path(&f->dir, name, path), &expected), 0);
	assert_int_equal(found.st_ino, expected.st_ino);
	close(fd);
}

static void add_supplement_link(struct fixture *f, const char *section)
{
	char command[512];

	snprintf(command, sizeof(command),
		 "printf '%s' >link && objcopy --add-section .gnu_debugaltlink=link program linked",
		 section);
	run(f, command);
	close(f->program);
	f->program = scratch_open(&f->dir, "linked", O_RDONLY);
}

static void test_supplement(void **state)
{
	struct fixture *f = *state;

	build(f, "0x12345678");
	assert_int_equal(debug_file_open_supplement(&f->places, f->program), -ENODATA);
	add_supplement_link(f, "../../.dwz/shared.debug\\000\\022\\064\\126\\170");
	expect_supplement(f, NULL);
	run(f, "mkdir -p host/usr/lib/debug/.dwz && cp full host/usr/lib/debug/.dwz/shared.debug");
	expect_supplement(f, "host/usr/lib/debug/.dwz/shared.debug");
	run(f, "cp full target/" DEBUG_PATH);
	expect_supplement(f, "target/" DEBUG_PATH);
	run(f, "rm target/" DEBUG_PATH " && cc -g -Wl,--build-id=0x12345679 -o "
	       "host/usr/lib/debug/.dwz/shared.debug p.c");
	expect_supplement(f, NULL);
	add_supplement_link(f, "no end");
	assert_int_equal(debug_file_open_supplement(&f->places, f->program), -EINVAL);
	add_supplement_link(f, "no id\\000");
	assert_int_equal(debug_file_open_supplement(&f->places, f->program), -EINVAL);
}

static uint64_t address_of(const struct fixture *f, const char *name)
{
	char command[PATH_MAX];
	uint64_t address = 0;
	FILE *in;

	snprintf(command, sizeof(command), "nm '%s/full' | sed -n 's/ . %s$//p'", f->dir.path,
		 name);
	in = popen(command, "re");
	assert_non_null(in);
	assert_int_equal(fscanf(in, "%" SCNx64, &address), 1);
	pclose(in);
	return address;
}

/* A real one: the debug file alone says too little, with its supplement it has lines. */
static void test_dwz(void **state)
{
	struct fixture *f = *state;
	struct debug_info *debug;
	struct source_frame frame;
	int fd, supplement;

	if (scratch_run(&f->dir, "dwz --version"))
		skip();
	build(f, "sha1");
	/* Types enough that dwz finds it worth while to share them. */
	run(f,
	    "printf '#include <stdio.h>\\n#include <signal.h>\\nFILE *a; siginfo_t b;\\n' >t.c && "
	    "cc -gdwarf-4 -O1 -Wl,--build-id=sha1 -o full p.c t.c && "
	    "cc -gdwarf-4 -O1 -DOTHER -Wl,--build-id=0x1234 -o two p.c t.c && "
	    "objcopy --only-keep-debug full one.debug && "
	    "objcopy --only-keep-debug two two.debug && "
	    "dwz -m shared.debug -M ../.dwz/shared.debug one.debug two.debug && "
	    "mkdir -p target/usr/lib/debug/.dwz && mv shared.debug target/usr/lib/debug/.dwz");
	fd = scratch_open(&f->dir, "one.debug", O_RDONLY);
	assert_int_equal(debug_info_new(fd, -1, UINT64_MAX, &debug), -ENOENT);
	supplement = debug_file_open_supplement(&f->places, fd);
	assert_true(supplement >= 0);
	assert_int_equal(debug_info_new(fd, supplement, UINT64_MAX, &debug), 0);
	assert_int_equal(debug_info_find(debug, address_of(f, "hidden"), &frame, 1), 1);
	assert_string_equal(frame.function, "hidden");
	assert_in_range(frame.line, 1, 4);
	debug_info_free(debug);
	/* One that has a supplement itself is none. */
	assert_int_equal(debug_info_new(fd, fd, UINT64_MAX, &debug), -EINVAL);
	close(supplement);
	close(fd);
}

/* A section of which every byte may be anything. */
static void test_damaged_links(void **state)
{
	static const char *const sections[] = {
		"",	   "p.debug",	      "p.debug\\000",		"\\000\\000\\000\\000abcd",
		"a\\000b", "p.debug\\000abc", "../p.debug\\000abcdefgh"};
	struct fixture *f = *state;
	char command[512];
	size_t i;

	build(f, "none");
	run(f, "mkdir -p target/opt/x && cp full target/opt/x/p.debug && "
	       "cp full target/opt/p.debug");
	for (i = 0; i < sizeof(sections) / sizeof(sections[0]); i++) {
		snprintf(command, sizeof(command),
			 "printf '%s' >link && objcopy --add-section .gnu_debuglink=link program "
			 "linked",
			 sections[i]);
		run(f, command);
		close(f->program);
		f->program = scratch_open(&f->dir, "linked", O_RDONLY);
		expect(f, NULL, NULL);
	}
}

static int enter_root(const char *path)
{
	return chroot(path) || chdir("/");
}

/* The hidden function, as an object of the process that has this start time. */
static void resolve(const struct fixture *f, struct symbolizer *s, struct object_table *objects,
		    pid_t pid, uint64_t start_ticks, struct frame *frame)
{
	static uint64_t inode = 1;
	struct object_id id = {8, 1, inode++};
	struct object *o;

	assert_int_equal(object_table_get(objects, &id, f->program, "/opt/x/program", &o), 0);
	object_set_origin(o, pid, start_ticks);
	assert_int_equal(symbolizer_resolve(s, o, address_of(f, "hidden"), frame, 1), 1);
}

/* From a process in a root of its own to a line of its source. */
static void test_container(void **state)
{
	struct fixture *f = *state;
	struct object_table *objects;
	struct symbolizer *s;
	char root[PATH_MAX];
	struct frame frame;
	uint64_t ticks;
	pid_t pid;

	build(f, "0x12345678");
	run(f, "mkdir -p target/opt/x && cp full target/opt/x/p.debug");
	link_program(f, "p.debug");
	pid = child_start(enter_root, scratch_path(&f->dir, "target", root));
	if (pid < 0)
		skip(); /* not root */
	objects = object_table_new();
	s = symbolizer_new();
	assert_int_equal(procfs_start_ticks(pid, &ticks), 0);
	resolve(f, s, objects, pid, ticks, &frame);
	assert_string_equal(frame.function, "hidden");
	assert_string_equal(strrchr(frame.file, '/'), "/p.c");
	assert_true(frame.line >= 1 && frame.line <= 4);
	/* Another process by that number now. */
	resolve(f, s, objects, pid, ticks + 1, &frame);
	assert_null(frame.function);
	child_stop(pid);
	resolve(f, s, objects, pid, ticks, &frame);
	assert_null(frame.function);
	symbolizer_free(s);
	object_table_free(objects);
}

/* That there is nothing is not found out anew for each address. */
static void test_absence_is_remembered(void **state)
{
	struct fixture *f = *state;
	struct object_table *objects = object_table_new();
	struct symbolizer *s = symbolizer_new();
	const struct object_id id = {8, 1, 1000};
	struct object *o;
	char root[PATH_MAX];
	struct frame frame;
	uint64_t ticks;
	pid_t pid;
	int i;

	build(f, "0x12345678");
	pid = child_start(enter_root, scratch_path(&f->dir, "target", root));
	assert_int_equal(object_table_get(objects, &id, f->program, "/opt/x/program", &o), 0);
	if (pid > 0 && !procfs_start_ticks(pid, &ticks)) {
		object_set_origin(o, pid, ticks);
		for (i = 0; i < 2; i++) {
			symbolizer_resolve(s, o, address_of(f, "hidden") + (uint64_t)i, &frame, 1);
			assert_null(frame.function);
			run(f, "cp full target/" DEBUG_PATH);
		}
		/* It was there to be found. */
		symbolizer_free(s);
		s = symbolizer_new();
		symbolizer_resolve(s, o, address_of(f, "hidden"), &frame, 1);
		assert_string_equal(frame.function, "hidden");
	}
	child_stop(pid);
	symbolizer_free(s);
	object_table_free(objects);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_build_id),
		TEST(test_bad_build_ids),
		TEST(test_link),
		TEST(test_link_on_host),
		TEST(test_link_and_build_id),
		TEST(test_link_to_own_name),
		TEST(test_links_stay_inside),
		TEST(test_only_regular_files),
		TEST(test_root_of_process),
		TEST(test_supplement),
		TEST(test_dwz),
		TEST(test_damaged_links),
		TEST(test_container),
		TEST(test_absence_is_remembered),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
