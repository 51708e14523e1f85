/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Truth comes from three sides: from this program itself (its lines by
 * __LINE__), from addr2line for a C++ program that is compiled here (skipped
 * without a compiler), and from the dynamic linker for the C library.
 */
#include "sym/symbolizer.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <link.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sym/debug_info.h"
#include "sym/object.h"
#include "sym/symtab.h"

#define DEPTH 16

static const char program[] =
	"#include <cstdlib>\n"
	"void *volatile sink;\n"
	"namespace outer {\n"
	"template <typename T> inline __attribute__((always_inline)) T *make(size_t n)\n"
	"{\n"
	"	T *p = static_cast<T *>(malloc(n * sizeof(T)));\n"
	"	p[0] = T(n);\n"
	"	sink = p;\n"
	"	return p;\n"
	"}\n"
	"static __attribute__((noinline)) int helper(int x)\n"
	"{\n"
	"	return rand() + x;\n"
	"}\n"
	"class Box {\n"
	"public:\n"
	"	int *grow(int n);\n"
	"};\n"
	"__attribute__((noinline)) int *Box::grow(int n)\n"
	"{\n"
	"	struct Local {\n"
	"		static __attribute__((noinline)) int twice(int z)\n"
	"		{\n"
	"			return helper(z) * 2;\n"
	"		}\n"
	"	};\n"
	"	if (n > 3) {\n"
	"		int q = n * 2;\n"
	"		for (int i = 0; i < q; i++)\n"
	"			free(make<char>(i + 1));\n"
	"	}\n"
	"	return make<int>(n + Local::twice(n));\n"
	"}\n"
	"}\n"
	"int main(int argc, char **)\n"
	"{\n"
	"	outer::Box b;\n"
	"	return b.grow(argc)[0] + outer::make<long>(argc)[0];\n"
	"}\n";

struct fixture {
	char dir[64];
	struct object_table *objects;
	struct symbolizer *symbolizer;
	uint64_t inode;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	strcpy(f->dir, "/tmp/leaktop-test-XXXXXX");
	f->objects = object_table_new();
	f->symbolizer = symbolizer_new();
	*state = f;
	return mkdtemp(f->dir) && f->objects && f->symbolizer ? 0 : -1;
}

static int run(const char *dir, const char *command)
{
	char line[1024];

	snprintf(line, sizeof(line), "cd '%s' && { %s; } >log 2>&1", dir, command);
	return system(line);
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	char command[128];

	symbolizer_free(f->symbolizer);
	object_table_free(f->objects);
	snprintf(command, sizeof(command), "rm -r '%s'", f->dir);
	if (system(command))
		return -1;
	free(f);
	return 0;
}

static void write_file(const struct fixture *f, const char *name, const char *text)
{
	char path[128];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", f->dir, name);
	file = fopen(path, "we");
	assert_non_null(file);
	fputs(text, file);
	assert_int_equal(fclose(file), 0);
}

static int open_file(const struct fixture *f, const char *name)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", f->dir, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

static int try_object(struct fixture *f, int fd, const char *path, struct object **out)
{
	struct object_id id = {8, 1, f->inode++};
	int err = object_table_get(f->objects, &id, fd, path, out);

	close(fd);
	return err;
}

static struct object *add_object(struct fixture *f, int fd, const char *path)
{
	struct object *o = NULL;

	assert_int_equal(try_object(f, fd, path, &o), 0);
	return o;
}

static void build(const struct fixture *f, const char *flags)
{
	char command[256];

	write_file(f, "program.cpp", program);
	snprintf(command, sizeof(command), "c++ -O2 %s -o program program.cpp", flags);
	if (run(f->dir, "c++ --version") || run(f->dir, "addr2line --version"))
		skip();
	assert_int_equal(run(f->dir, command), 0);
}

static struct link_map *map_of(const void *p)
{
	struct link_map *map;
	Dl_info info;

	assert_true(dladdr1(p, &info, (void **)&map, RTLD_DL_LINKMAP));
	return map;
}

static int call_line, inner_line;

__attribute__((noinline)) static uint64_t return_address(void)
{
	return (uintptr_t)__builtin_return_address(0);
}

static inline __attribute__((always_inline)) uint64_t inner_function(void)
{
	inner_line = __LINE__ + 1;
	uint64_t address = return_address();

	return address - 1;
}

__attribute__((noinline)) static uint64_t outer_function(void)
{
	call_line = __LINE__ + 1;
	uint64_t address = inner_function();

	__asm__ volatile("" ::: "memory");
	return address;
}

static void test_this_program(void **state)
{
	struct fixture *f = *state;
	struct object *o = add_object(f, open("/proc/self/exe", O_RDONLY | O_CLOEXEC), "/a/path");
	uint64_t bias = map_of((const void *)(uintptr_t)outer_function)->l_addr;
	uint64_t vaddr = outer_function() - bias;
	struct frame frames[DEPTH];

	assert_int_equal(symbolizer_resolve(f->symbolizer, o, vaddr, frames, DEPTH), 2);
	assert_string_equal(frames[0].function, "inner_function");
	assert_true(frames[0].inlined);
	assert_int_equal(frames[0].line, inner_line);
	assert_non_null(strstr(frames[0].file, "test_symbolizer.c"));
	assert_string_equal(frames[1].function, "outer_function");
	assert_false(frames[1].inlined);
	assert_int_equal(frames[1].line, call_line);
	assert_string_equal(frames[1].file, frames[0].file);
	assert_int_equal(frames[1].func_offset, vaddr + bias - (uintptr_t)outer_function);

	assert_string_equal(frames[0].module, "/a/path");
	assert_true(frames[0].has_offset);
	assert_int_equal(frames[0].offset, vaddr);
	assert_int_equal(frames[0].address, 0);
	assert_int_equal(frames[0].lang, FRAME_NATIVE);
	if (object_build_id(o))
		assert_string_equal(frames[0].build_id, object_build_id(o));
}

static void test_answers_are_kept(void **state)
{
	struct fixture *f = *state;
	struct object *o = add_object(f, open("/proc/self/exe", O_RDONLY | O_CLOEXEC), "/a/path");
	uint64_t bias = map_of((const void *)(uintptr_t)outer_function)->l_addr;
	uint64_t vaddr = outer_function() - bias;
	struct frame one, two[2];

	assert_int_equal(symbolizer_resolve(f->symbolizer, o, vaddr, &one, 0), 0);
	assert_int_equal(symbolizer_resolve(f->symbolizer, o, vaddr, &one, 1), 1);
	assert_string_equal(one.function, "inner_function");
	/* The rest of the answer was kept although it was not asked for. */
	assert_int_equal(symbolizer_resolve(f->symbolizer, o, vaddr, two, 2), 2);
	assert_ptr_equal(one.function, two[0].function);
	assert_string_equal(two[1].function, "outer_function");
}

static void test_unknown_address(void **state)
{
	struct fixture *f = *state;
	struct object *o = add_object(f, open("/proc/self/exe", O_RDONLY | O_CLOEXEC), "/x");
	const uint64_t addresses[] = {0, 1, UINT64_MAX, UINT64_MAX / 2, 1ull << 40};
	struct frame frames[DEPTH];
	size_t i;

	for (i = 0; i < sizeof(addresses) / sizeof(addresses[0]); i++) {
		memset(frames, 0xff, sizeof(frames));
		assert_int_equal(symbolizer_resolve(f->symbolizer, o, addresses[i], frames, DEPTH),
				 1);
		assert_null(frames[0].function);
		assert_null(frames[0].file);
		assert_int_equal(frames[0].line, 0);
		assert_true(frames[0].has_offset);
		assert_int_equal(frames[0].offset, addresses[i]);
		assert_string_equal(frames[0].module, "/x");
	}
}

/* Stripped, with several names at most addresses. */
static void test_c_library(void **state)
{
	static const char *const names[] = {"malloc", "free",  "calloc", "realloc",
					    "printf", "write", "read",	 "posix_memalign"};
	struct fixture *f = *state;
	void *libc = dlopen("libc.so.6", RTLD_NOW | RTLD_NOLOAD);
	struct link_map *map;
	struct frame frame;
	struct object *o;
	size_t i;

	if (!libc || !dlsym(libc, "gnu_get_libc_version"))
		skip();
	map = map_of(dlsym(libc, "gnu_get_libc_version"));
	o = add_object(f, open(map->l_name, O_RDONLY | O_CLOEXEC), map->l_name);
	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		uint64_t vaddr = (uintptr_t)dlsym(libc, names[i]) - map->l_addr;

		assert_int_equal(symbolizer_resolve(f->symbolizer, o, vaddr + 1, &frame, 1), 1);
		assert_string_equal(frame.function, names[i]);
		assert_int_equal(frame.func_offset, 1);
	}
	dlclose(libc);
}

struct expectation {
	char function[256], place[512];
};

/* The next address and its frames as addr2line tells them; false at the end. */
static bool next_expectation(FILE *in, char *header, uint64_t *address, struct expectation *e,
			     size_t *count)
{
	if (strncmp(header, "0x", 2))
		return false;
	*address = strtoull(header, NULL, 16);
	for (*count = 0; fgets(header, 512, in) && strncmp(header, "0x", 2); ++*count) {
		assert_true(*count < DEPTH);
		snprintf(e[*count].function, sizeof(e->function), "%.*s",
			 (int)strcspn(header, "\n"), header);
		assert_non_null(fgets(e[*count].place, sizeof(e->place), in));
		e[*count].place[strcspn(e[*count].place, "\n (")] = '\0';
	}
	if (feof(in))
		*header = '\0';
	return true;
}

static void check_frame(const struct frame *frame, const struct expectation *e, bool last)
{
	char place[512];

	if (frame->line)
		snprintf(place, sizeof(place), "%s:%" PRIu32, frame->file, frame->line);
	else
		snprintf(place, sizeof(place), "%s:?", frame->file ? frame->file : "??");
	assert_string_equal(place, e->place);
	assert_int_equal(frame->inlined, !last);
	/* Of a static function DWARF has the bare name, the symbol table the full one. */
	if (last)
		assert_non_null(strstr(frame->function, e->function));
	else
		assert_string_equal(frame->function, e->function);
}

/* Every byte of every function of ours; returns the number of inlined frames. */
static size_t compare_with_addr2line(struct fixture *f, struct object *o)
{
	char command[512], header[512] = "";
	struct expectation expected[DEPTH];
	struct frame frames[DEPTH];
	size_t count, i, inlined = 0, addresses = 0;
	uint64_t address;
	FILE *in;

	snprintf(command, sizeof(command),
		 "cd '%s' && nm -S program | awk '$3 ~ /[tTW]/ && /outer|Box| main/ "
		 "{print $1, $2}' | while read -r at size; do i=0; "
		 "while [ $i -lt $((0x$size)) ]; do printf '%%x\\n' $((0x$at + i)); "
		 "i=$((i + 1)); done; done | addr2line -a -f -i -C -e program",
		 f->dir);
	in = popen(command, "re");
	assert_non_null(in);
	assert_non_null(fgets(header, sizeof(header), in));
	while (next_expectation(in, header, &address, expected, &count)) {
		assert_int_equal(symbolizer_resolve(f->symbolizer, o, address, frames, DEPTH),
				 count);
		for (i = 0; i < count; i++)
			check_frame(&frames[i], &expected[i], i + 1 == count);
		inlined += count - 1;
		addresses++;
	}
	assert_int_equal(pclose(in), 0);
	assert_true(addresses > 100);
	return inlined;
}

static void check_program(struct fixture *f, const char *flags)
{
	build(f, flags);
	assert_true(compare_with_addr2line(f, add_object(f, open_file(f, "program"), "p")) > 50);
}

static void test_cplusplus_dwarf5(void **state)
{
	check_program(*state, "-gdwarf-5");
}

static void test_cplusplus_dwarf4(void **state)
{
	check_program(*state, "-gdwarf-4");
}

static void test_cplusplus_compressed(void **state)
{
	check_program(*state, "-g -gz");
}

static uint64_t symbol_address(const struct fixture *f, const char *pattern)
{
	char command[256];
	uint64_t address = 0;
	FILE *in;

	snprintf(command, sizeof(command), "cd '%s' && nm program | grep '%s'", f->dir, pattern);
	in = popen(command, "re");
	assert_non_null(in);
	assert_int_equal(fscanf(in, "%" SCNx64, &address), 1);
	pclose(in);
	return address;
}

/*
 * The names are in a file that is not opened, whatever it is: here a pipe, which would
 * never end. Functions by the symbol table, and lines, stay.
 */
static void check_split(struct fixture *f, const char *flags)
{
	struct frame frames[DEPTH];
	char command[256];
	struct object *o;
	uint64_t address;

	build(f, "");
	snprintf(command, sizeof(command),
		 "rm -f *.dwo && c++ -O2 %s -c program.cpp && c++ -o program program.o && "
		 "test -f program.dwo && rm program.dwo && mkfifo program.dwo",
		 flags);
	assert_int_equal(run(f->dir, command), 0);
	address = symbol_address(f, "helper");
	o = add_object(f, open_file(f, "program"), "p");
	alarm(20);
	assert_int_equal(symbolizer_resolve(f->symbolizer, o, address + 1, frames, DEPTH), 1);
	alarm(0);
	assert_string_equal(frames[0].function, "outer::helper(int)");
	assert_int_equal(frames[0].func_offset, 1);
	assert_int_equal(frames[0].line, 12);
	assert_non_null(strstr(frames[0].file, "program.cpp"));
	assert_false(frames[0].inlined);
}

static void test_split_dwarf(void **state)
{
	check_split(*state, "-gdwarf-5 -gsplit-dwarf");
	check_split(*state, "-gdwarf-4 -gsplit-dwarf");
}

static void check_debug_file(int fd, int debug_fd, uint64_t address)
{
	struct source_frame frame;
	struct debug_info *debug;
	struct symtab *symtab;
	char name[64];
	uint64_t start;

	assert_int_equal(symtab_new(fd, debug_fd, &symtab), 0);
	assert_int_equal(symtab_find(symtab, address, name, sizeof(name), &start), 0);
	assert_string_equal(name, "_ZN5outerL6helperEi");
	assert_int_equal(start, address);
	symtab_free(symtab);

	assert_int_equal(debug_info_new(debug_fd, -1, 10, &debug), -E2BIG);
	assert_int_equal(debug_info_new(debug_fd, -1, UINT64_MAX, &debug), 0);
	assert_int_equal(debug_info_find(debug, address, &frame, 1), 1);
	assert_string_equal(frame.function, "helper");
	assert_int_equal(frame.line, 12);
	debug_info_free(debug);
}

/* What a stripped program tells, and what its debug file adds. */
static void test_debug_file(void **state)
{
	struct fixture *f = *state;
	struct debug_info *debug;
	struct symtab *symtab;
	uint64_t address, start;
	struct object *o;
	char name[64];
	int debug_fd;

	build(f, "-g -Wl,--build-id=0x12345678");
	address = symbol_address(f, "helper");
	assert_int_equal(
		run(f->dir, "objcopy --only-keep-debug program program.debug && strip program"), 0);
	o = add_object(f, open_file(f, "program"), "p");
	assert_string_equal(object_build_id(o), "12345678");
	assert_int_equal(debug_info_new(object_fd(o), -1, UINT64_MAX, &debug), -ENOENT);
	assert_int_equal(symtab_new(object_fd(o), -1, &symtab), 0);
	assert_int_equal(symtab_find(symtab, address, name, sizeof(name), &start), -ENOENT);
	symtab_free(symtab);

	debug_fd = open_file(f, "program.debug");
	check_debug_file(object_fd(o), debug_fd, address);
	close(debug_fd);
}

/* libdw would open whatever the section names, and wait on this pipe for ever. */
static void test_foreign_supplement(void **state)
{
	struct fixture *f = *state;
	char command[512];
	struct debug_info *debug;
	int fd;

	build(f, "-g");
	snprintf(command, sizeof(command),
		 "mkfifo pipe && printf '%s/pipe\\0aaaaaaaaaaaaaaaaaaaa' >link && objcopy "
		 "--add-section .gnu_debugaltlink=link program",
		 f->dir);
	assert_int_equal(run(f->dir, command), 0);
	fd = open_file(f, "program");
	alarm(20);
	assert_int_equal(debug_info_new(fd, -1, UINT64_MAX, &debug), -ENOENT);
	alarm(0);
	close(fd);
}

static void expect_symbol(const struct symtab *t, uint64_t vaddr, const char *expected)
{
	uint64_t start = 0;
	char name[32];
	int err = symtab_find(t, vaddr, name, sizeof(name), &start);

	assert_int_equal(err, expected ? 0 : -ENOENT);
	if (expected) {
		assert_string_equal(name, expected);
		assert_true(start <= vaddr);
	}
}

static const char symbols[] =
	".text\n"
	".type __libc_x, @function\n.globl __libc_x\n__libc_x:\n"
	".type x, @function\n.globl x\nx:\n"
	".type a, @function\na:\n"
	".fill 16, 1, 0x90\n.size x, 8\n.size __libc_x, 16\n.size a, 16\n"
	".type nosize, @function\n.globl nosize\nnosize:\n.fill 16, 1, 0x90\n"
	".type outer, @function\n.globl outer\nouter:\n.fill 4, 1, 0x90\n"
	".type nested, @function\nnested:\n.fill 4, 1, 0x90\n.size nested, 4\n"
	"label_inside:\n.fill 8, 1, 0x90\n.size outer, 16\n"
	"label:\n.fill 8, 1, 0x90\n"
	".type last, @function\n.globl last\nlast:\n.fill 8, 1, 0x90\n"
	".type __alpha, @function\n.globl __alpha\n__alpha:\n"
	".type beta, @function\n.globl beta\nbeta:\n.fill 8, 1, 0x90\n"
	".type aa, @function\naa:\n"
	".type zz, @function\n.globl zz\nzz:\n.fill 8, 1, 0x90\n"
	".type gamma, @function\n.globl gamma\ngamma:\n"
	".type __delta, @function\n.globl __delta\n__delta:\n.fill 8, 1, 0x90\n"
	".data\n.type data, @function\n.globl data\ndata:\n.fill 8, 1, 0\n";

/* Which of several names, and how far a symbol reaches. */
static void test_symbol_choice(void **state)
{
	struct fixture *f = *state;
	struct symtab *t;
	int fd;

	write_file(f, "s.s", symbols);
	if (run(f->dir, "cc --version"))
		skip();
	assert_int_equal(run(f->dir,
			     "cc -static -nostdlib -Wl,--build-id=none,-e,x,-Ttext=0x100000 "
			     "-o s.so s.s"),
			 0);
	fd = open_file(f, "s.so");
	assert_int_equal(symtab_new(fd, -1, &t), 0);
	expect_symbol(t, 0xfffff, NULL);
	expect_symbol(t, 0x100000, "x");
	expect_symbol(t, 0x100007, "x");
	expect_symbol(t, 0x100008, NULL); /* one symbol an address is kept, the best */
	expect_symbol(t, 0x100010, "nosize");
	expect_symbol(t, 0x10001f, "nosize");
	expect_symbol(t, 0x100020, "outer");
	expect_symbol(t, 0x100027, "nested");
	expect_symbol(t, 0x100028, "outer");
	expect_symbol(t, 0x100030, "label");
	expect_symbol(t, 0x10003f, "last");
	expect_symbol(t, 0x100040, "beta");
	expect_symbol(t, 0x100048, "zz");
	expect_symbol(t, 0x100050, "gamma");
	expect_symbol(t, 0x100058, NULL);
	symtab_free(t);
	close(fd);
}

/* Asks a damaged file a few things; whatever it says, it must end. */
static void question(struct fixture *f, const uint8_t *bytes, size_t size, uint64_t vaddr)
{
	struct symbolizer *s = symbolizer_new();
	int fd = memfd_create("damaged", MFD_CLOEXEC);
	struct frame frames[DEPTH];
	struct object *o;
	uint64_t i;

	assert_int_equal(write(fd, bytes, size), (ssize_t)size);
	if (!try_object(f, fd, "damaged", &o)) {
		for (i = 0; i < 5; i++)
			assert_in_range(symbolizer_resolve(s, o, vaddr + i * 37, frames, DEPTH), 1,
					DEPTH);
	}
	symbolizer_free(s);
}

static uint8_t *read_program(const struct fixture *f, size_t *size)
{
	int fd = open_file(f, "program");
	struct stat st;
	uint8_t *bytes;

	assert_int_equal(fstat(fd, &st), 0);
	*size = (size_t)st.st_size;
	bytes = malloc(*size);
	assert_int_equal(read(fd, bytes, *size), st.st_size);
	close(fd);
	return bytes;
}

static void renew_objects(struct fixture *f)
{
	object_table_free(f->objects);
	f->objects = object_table_new();
}

static void test_truncated_files(void **state)
{
	struct fixture *f = *state;
	uint64_t vaddr;
	uint8_t *bytes;
	size_t size, cut;

	build(f, "-g");
	vaddr = symbol_address(f, "grow");
	bytes = read_program(f, &size);
	for (cut = 0; cut < size; cut += cut < 256 ? 3 : 101) {
		question(f, bytes, cut, vaddr);
		if (cut % 100 == 0)
			renew_objects(f);
	}
	free(bytes);
}

/* Changes a few bytes in the headers, or in the debug sections behind the code. */
static void damage(uint8_t *bytes, size_t size, unsigned int *seed)
{
	size_t sections = (size_t)((Elf64_Ehdr *)bytes)->e_shoff;
	int i, changes = 1 + rand_r(seed) % 8, where = rand_r(seed) % 4;

	for (i = 0; i < changes; i++) {
		size_t from = 0, to = size;

		if (where == 0)
			from = 16, to = 1024;
		else if (where == 1)
			from = sections;
		else if (where == 2)
			from = size / 2;
		bytes[from + (size_t)rand_r(seed) % (to - from)] =
			(uint8_t)(rand_r(seed) % 3 ? rand_r(seed) : 0xff);
	}
}

static void damage_program(struct fixture *f, const char *flags, unsigned int seed, int rounds)
{
	uint8_t *bytes, *copy;
	uint64_t vaddr;
	size_t size;
	int i;

	build(f, flags);
	vaddr = symbol_address(f, "grow");
	bytes = read_program(f, &size);
	copy = malloc(size);
	for (i = 0; i < rounds; i++) {
		memcpy(copy, bytes, size);
		damage(copy, size, &seed);
		question(f, copy, size, vaddr);
		if (i % 100 == 0)
			renew_objects(f);
	}
	free(copy);
	free(bytes);
}

/* LEAKTOP_FUZZ_ROUNDS: more files than the same few hundred of every day. */
static void test_damaged_files(void **state)
{
	struct fixture *f = *state;
	const char *env = getenv("LEAKTOP_FUZZ_ROUNDS");
	unsigned int seed = env ? (unsigned int)getpid() : 11;
	int rounds = env ? atoi(env) : 400;

	damage_program(f, "-gdwarf-5", seed, rounds);
	damage_program(f, "-gdwarf-4", seed, rounds);
	damage_program(f, "-g -gz", seed, rounds);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_this_program),	 TEST(test_answers_are_kept),
		TEST(test_unknown_address),	 TEST(test_c_library),
		TEST(test_cplusplus_dwarf5),	 TEST(test_cplusplus_dwarf4),
		TEST(test_cplusplus_compressed), TEST(test_split_dwarf),
		TEST(test_debug_file),		 TEST(test_foreign_supplement),
		TEST(test_symbol_choice),	 TEST(test_truncated_files),
		TEST(test_damaged_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
