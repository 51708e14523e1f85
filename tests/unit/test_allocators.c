/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The objects are built here byte by byte, so that each field can lie; those of
 * the libraries that happen to be installed are read as well.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "probe/allocators.h"

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <gnu/libc-version.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__aarch64__)
#define MACHINE EM_AARCH64
#else
#define MACHINE EM_X86_64
#endif

#define TEXT_VADDR 0x401000
#define SYMS 64

/* ELF header, one PT_LOAD of text, .symtab, its strings, section headers. */
struct image {
	Elf64_Ehdr eh;
	Elf64_Phdr ph;
	uint8_t text[512];
	Elf64_Sym syms[SYMS];
	char strings[2048];
	Elf64_Shdr sh[3];
};

struct builder {
	struct image img;
	size_t sym_count;
	size_t string_len;
};

static void begin(struct builder *b)
{
	struct image *m = &b->img;
	size_t i;

	memset(b, 0, sizeof(*b));
	memcpy(m->eh.e_ident, ELFMAG, SELFMAG);
	m->eh.e_ident[EI_CLASS] = ELFCLASS64;
	m->eh.e_ident[EI_DATA] = ELFDATA2LSB;
	m->eh.e_ident[EI_VERSION] = EV_CURRENT;
	m->eh.e_type = ET_DYN;
	m->eh.e_machine = MACHINE;
	m->eh.e_version = EV_CURRENT;
	m->eh.e_ehsize = sizeof(m->eh);
	m->eh.e_phoff = offsetof(struct image, ph);
	m->eh.e_phentsize = sizeof(m->ph);
	m->eh.e_phnum = 1;
	m->eh.e_shoff = offsetof(struct image, sh);
	m->eh.e_shentsize = sizeof(m->sh[0]);
	m->eh.e_shnum = 3;
	m->ph = (Elf64_Phdr){.p_type = PT_LOAD,
			     .p_flags = PF_R | PF_X,
			     .p_offset = offsetof(struct image, text),
			     .p_vaddr = TEXT_VADDR,
			     .p_filesz = sizeof(m->text),
			     .p_memsz = sizeof(m->text)};
	for (i = 0; i < sizeof(m->text); i++)
		m->text[i] = (uint8_t)i;
	m->sh[1] = (Elf64_Shdr){.sh_type = SHT_SYMTAB,
				.sh_offset = offsetof(struct image, syms),
				.sh_link = 2,
				.sh_entsize = sizeof(Elf64_Sym)};
	m->sh[2] = (Elf64_Shdr){.sh_type = SHT_STRTAB,
				.sh_offset = offsetof(struct image, strings),
				.sh_size = sizeof(m->strings)};
	b->sym_count = 1;
	b->string_len = 1;
}

static Elf64_Sym *add(struct builder *b, const char *name, uint64_t text_offset, uint64_t size)
{
	Elf64_Sym *sym = &b->img.syms[b->sym_count++];

	assert_true(b->sym_count <= SYMS);
	assert_true(b->string_len + strlen(name) < sizeof(b->img.strings));
	*sym = (Elf64_Sym){.st_name = (Elf64_Word)b->string_len,
			   .st_info = ELF64_ST_INFO(STB_GLOBAL, STT_FUNC),
			   .st_shndx = 1,
			   .st_value = TEXT_VADDR + text_offset,
			   .st_size = size};
	memcpy(b->img.strings + b->string_len, name, strlen(name) + 1);
	b->string_len += strlen(name) + 1;
	b->img.sh[1].sh_size = b->sym_count * sizeof(Elf64_Sym);
	return sym;
}

static int scan_bytes(const void *bytes, size_t len, const char *prefix, struct alloc_sites *out)
{
	int err, fd = memfd_create("object", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, len), (ssize_t)len);
	err = alloc_sites_scan(fd, prefix, out);
	close(fd);
	return err;
}

static int scan(const struct builder *b, const char *prefix, struct alloc_sites *out)
{
	return scan_bytes(&b->img, sizeof(b->img), prefix, out);
}

static void assert_spec(const char *symbol, const char *row, unsigned int op, unsigned int size,
			unsigned int count, unsigned int ptr)
{
	const struct alloc_func *f = alloc_func_find(symbol, NULL);

	if (!f)
		fail_msg("no row for %s", symbol);
	assert_string_equal(f->name, row);
	assert_int_equal(f->spec.op, op);
	assert_int_equal(f->spec.size_arg, size);
	assert_int_equal(f->spec.count_arg, count);
	assert_int_equal(f->spec.ptr_arg, ptr);
	assert_int_equal(f->spec.sp_words, 0);
}

#define NONE SPEC_NO_ARG

static void test_rows(void **state)
{
	(void)state;
	assert_spec("malloc", "malloc", OP_ALLOC, 0, NONE, NONE);
	assert_spec("calloc", "calloc", OP_ALLOC, 1, 0, NONE);
	assert_spec("reallocarray", "reallocarray", OP_REALLOC, 2, 1, 0);
	assert_spec("posix_memalign", "posix_memalign", OP_ALLOC_OUT, 2, NONE, 0);
	assert_spec("aligned_alloc", "aligned_alloc", OP_ALLOC, 1, NONE, NONE);
	assert_spec("free_aligned_sized", "free_aligned_sized", OP_FREE, NONE, NONE, 0);
	assert_spec("rallocx", "rallocx", OP_REALLOC, 1, NONE, 0);
	assert_spec("_ZnamSt11align_val_tRKSt9nothrow_t", "_ZnamSt11align_val_tRKSt9nothrow_t",
		    OP_ALLOC, 0, NONE, NONE);
	assert_spec("_ZdaPvmSt11align_val_t", "_ZdaPvmSt11align_val_t", OP_FREE, NONE, NONE, 0);
	assert_spec("tc_newarray_aligned", "tc_newarray_aligned", OP_ALLOC, 0, NONE, NONE);
	assert_spec("mi_heap_recalloc", "mi_heap_recalloc", OP_REALLOC, 3, 2, 1);
	assert_spec("mi_heap_calloc", "mi_heap_calloc", OP_ALLOC, 2, 1, NONE);
	assert_spec("mremap", "mremap", OP_MREMAP, 2, NONE, 0);
	assert_int_equal(alloc_func_find("mmap64", NULL)->spec.domain, DOMAIN_MMAP);
	assert_int_equal(alloc_func_find("malloc", NULL)->spec.domain, DOMAIN_MALLOC);
}

static void test_prefixes(void **state)
{
	(void)state;
	assert_spec("je_malloc", "malloc", OP_ALLOC, 0, NONE, NONE);
	assert_spec("_rjem_mallocx", "mallocx", OP_ALLOC, 0, NONE, NONE);
	assert_spec("_rjem_sdallocx", "sdallocx", OP_FREE, NONE, NONE, 0);
	assert_spec("tc_posix_memalign", "posix_memalign", OP_ALLOC_OUT, 2, NONE, 0);
	assert_spec("mi_reallocarray", "reallocarray", OP_REALLOC, 2, 1, 0);
	assert_spec("__libc_memalign", "memalign", OP_ALLOC, 1, NONE, NONE);
	/* a row of its own goes before prefix and rest */
	assert_spec("mi_zalloc", "mi_zalloc", OP_ALLOC, 0, NONE, NONE);

	assert_null(alloc_func_find("acme_malloc", NULL));
	assert_null(alloc_func_find("acme_malloc", "acm_"));
	assert_string_equal(alloc_func_find("acme_malloc", "acme_")->name, "malloc");
	assert_string_equal(alloc_func_find("malloc", "")->name, "malloc");
}

static void test_names_that_are_no_rows(void **state)
{
	static const char *const names[] = {
		"",
		"m",
		"mallo",
		"malloc_",
		"xmalloc",
		"je_",
		"je_je_malloc",
		"new",
		"delete",
		"zalloc",
		"xallocx",
		"mi_expand",
		"tc_mmap",
		"mi__Znwm",
		"tc_mi_zalloc",
		"_Znwj",
		"MALLOC",
		"mi_reallocarr",
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (alloc_func_find(names[i], NULL))
			fail_msg("%s has a row", names[i]);
}

static void test_arguments(void **state)
{
	(void)state;
	assert_int_equal(alloc_func_args(alloc_func_find("malloc", NULL)), 1);
	assert_int_equal(alloc_func_args(alloc_func_find("calloc", NULL)), 3);
	assert_int_equal(alloc_func_args(alloc_func_find("posix_memalign", NULL)), 5);
	assert_int_equal(alloc_func_args(alloc_func_find("mi_heap_reallocn", NULL)), 14);
	assert_int_equal(alloc_func_args(alloc_func_find("mmap", NULL)), 0x3f);
}

/* Every row fits the cookie. */
static void test_rows_survive_packing(void **state)
{
	static const char *const names[] = {"mi_heap_reallocn", "malloc", "mremap", "sbrk", "free"};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		const struct alloc_func *f = alloc_func_find(names[i], NULL);
		struct probe_spec s;

		probe_spec_unpack(probe_spec_pack(&f->spec), &s);
		assert_memory_equal(&s, &f->spec, sizeof(s));
	}
}

static void test_scan_sites(void **state)
{
	struct alloc_sites s;
	struct builder b;

	(void)state;
	begin(&b);
	add(&b, "free", 0x40, 0);
	add(&b, "main", 0x60, 16);
	add(&b, "malloc", 0x10, 8);
	add(&b, "_dl_debug_state", 0x30, 1);
	assert_int_equal(scan(&b, NULL, &s), 0);
	assert_int_equal(s.count, 2);
	assert_true(s.has_malloc);
	assert_string_equal(s.allocator, "custom");
	assert_int_equal(s.dl_debug_offset, offsetof(struct image, text) + 0x30);

	assert_string_equal(s.items[0].func->name, "malloc");
	assert_int_equal(s.items[0].vaddr, TEXT_VADDR + 0x10);
	assert_int_equal(s.items[0].offset, offsetof(struct image, text) + 0x10);
	assert_int_equal(s.items[0].size, 8);
	assert_int_equal(s.items[0].code_len, 8);
	assert_memory_equal(s.items[0].code, b.img.text + 0x10, 8);
	assert_string_equal(s.items[1].symbol, "free");
	assert_int_equal(s.items[1].code_len, 256);
	assert_memory_equal(s.items[1].code, b.img.text + 0x40, 256);
	alloc_sites_release(&s);
	assert_null(s.items);
	alloc_sites_release(&s);
}

static void test_scan_skips(void **state)
{
	struct alloc_sites s;
	struct builder b;

	(void)state;
	begin(&b);
	add(&b, "malloc", 0x10, 8)->st_shndx = SHN_UNDEF;
	add(&b, "calloc", 0x20, 8)->st_info = ELF64_ST_INFO(STB_GLOBAL, STT_GNU_IFUNC);
	add(&b, "realloc", 0x30, 8)->st_info = ELF64_ST_INFO(STB_GLOBAL, STT_OBJECT);
	add(&b, "free", 0x200, 8);		     /* just behind the segment */
	add(&b, "cfree", 0, 8)->st_value = 0x400fff; /* just before it */
	add(&b, "valloc", 0, 8)->st_value = UINT64_MAX;
	assert_int_equal(scan(&b, NULL, &s), 0);
	assert_int_equal(s.count, 0);
	assert_false(s.has_malloc);
	assert_null(s.allocator);
	alloc_sites_release(&s);

	add(&b, "pvalloc", 0x1ff, 8); /* the last byte: code ends with the segment */
	assert_int_equal(scan(&b, NULL, &s), 0);
	assert_int_equal(s.count, 1);
	assert_int_equal(s.items[0].code_len, 1);
	alloc_sites_release(&s);

	b.img.ph.p_flags = PF_R | PF_W;
	assert_int_equal(scan(&b, NULL, &s), 0);
	assert_int_equal(s.count, 0);
	alloc_sites_release(&s);
}

static void test_scan_merges(void **state)
{
	struct alloc_sites s;
	struct builder b;

	(void)state;
	begin(&b);
	add(&b, "_ZdlPv", 0x40, 8);
	add(&b, "__libc_free", 0x40, 8);
	add(&b, "mi_free", 0x40, 8);
	add(&b, "cfree@GLIBC_2.2.5", 0x40, 8);
	add(&b, "free@@GLIBC_2.2.5", 0x40, 8);
	add(&b, "tc_malloc", 0x80, 8);
	add(&b, "__libc_valloc", 0xc0, 8);
	assert_int_equal(scan(&b, NULL, &s), 0);
	assert_int_equal(s.count, 3);
	assert_string_equal(s.items[0].symbol, "free");
	assert_string_equal(s.items[1].symbol, "tc_malloc");
	assert_string_equal(s.items[2].symbol, "__libc_valloc");
	assert_true(s.has_malloc);
	assert_string_equal(s.allocator, "tcmalloc");
	alloc_sites_release(&s);
}

/* musl: malloc is a jump to __libc_malloc, one of the two is enough. */
static void test_scan_drops_internal_twins(void **state)
{
	struct alloc_sites s;
	struct builder b;

	(void)state;
	begin(&b);
	add(&b, "free", 0x40, 5);
	add(&b, "__libc_free", 0x80, 8);
	add(&b, "mi_free", 0xc0, 8);
	assert_int_equal(scan(&b, NULL, &s), 0);
	assert_int_equal(s.count, 2);
	assert_string_equal(s.items[0].symbol, "free");
	assert_string_equal(s.items[1].symbol, "mi_free");
	alloc_sites_release(&s);
}

static void assert_allocator(const char *mark, unsigned char type, const char *want)
{
	struct alloc_sites s;
	struct builder b;

	begin(&b);
	add(&b, "malloc", 0x40, 8);
	add(&b, mark, 0x80, 8)->st_info = ELF64_ST_INFO(STB_GLOBAL, type);
	assert_int_equal(scan(&b, NULL, &s), 0);
	if (want)
		assert_string_equal(s.allocator, want);
	else
		assert_null(s.allocator);
	alloc_sites_release(&s);
}

static void test_allocator_names(void **state)
{
	(void)state;
	assert_allocator("gnu_get_libc_version", STT_FUNC, "glibc");
	assert_allocator("_int_malloc", STT_FUNC, "glibc");
	assert_allocator("__dls3", STT_FUNC, "musl");
	assert_allocator("__libc_malloc_impl", STT_FUNC, "musl");
	assert_allocator("mallctl", STT_FUNC, "jemalloc");
	assert_allocator("_rjem_mallctl", STT_FUNC, "jemalloc");
	assert_allocator("_ZN13MallocExtension8instanceEv", STT_FUNC, "tcmalloc");
	assert_allocator("mi_version", STT_FUNC, "mimalloc");
	assert_allocator("nothing", STT_FUNC, "custom");
	/* the malloc of glibc's dynamic linker serves nobody else */
	assert_allocator("_rtld_global", STT_OBJECT, NULL);
}

static void test_extra_prefix(void **state)
{
	struct alloc_sites s;
	struct builder b;

	(void)state;
	begin(&b);
	add(&b, "acme_malloc", 0x40, 8);
	assert_int_equal(scan(&b, "acme_", &s), 0);
	assert_int_equal(s.count, 1);
	assert_true(s.has_malloc);
	assert_string_equal(s.items[0].symbol, "acme_malloc");
	assert_string_equal(s.items[0].func->name, "malloc");
	alloc_sites_release(&s);
}

static void test_only_new(void **state)
{
	struct alloc_sites s;
	struct builder b;

	(void)state;
	begin(&b);
	add(&b, "_Znwm", 0x40, 8);
	assert_int_equal(scan(&b, NULL, &s), 0);
	assert_int_equal(s.count, 1);
	assert_false(s.has_malloc);
	assert_null(s.allocator);
	alloc_sites_release(&s);
}

static void test_refuses_foreign(void **state)
{
	struct alloc_sites s = {.count = 42};
	struct builder b;
	int fd;

	(void)state;
	assert_int_equal(scan_bytes("", 0, NULL, &s), -EINVAL);
	assert_int_equal(scan_bytes("#!/bin/sh\nexit 0\n", 17, NULL, &s), -EINVAL);
	begin(&b);
	assert_int_equal(scan_bytes(&b.img, 17, NULL, &s), -EINVAL);
	assert_int_equal(scan_bytes(&b.img, sizeof(Elf64_Ehdr) - 1, NULL, &s), -EINVAL);
	b.img.eh.e_ident[EI_CLASS] = ELFCLASS32;
	assert_int_equal(scan(&b, NULL, &s), -ENOTSUP);
	begin(&b);
	b.img.eh.e_ident[EI_DATA] = ELFDATA2MSB;
	assert_int_equal(scan(&b, NULL, &s), -ENOTSUP);
	begin(&b);
	b.img.eh.e_machine = EM_RISCV;
	assert_int_equal(scan(&b, NULL, &s), -ENOTSUP);
	begin(&b);
	b.img.eh.e_type = ET_CORE;
	assert_int_equal(scan(&b, NULL, &s), -ENOTSUP);
	begin(&b);
	b.img.eh.e_shnum = 0;
	b.img.sh[0].sh_size = UINT64_MAX;
	assert_int_equal(scan(&b, NULL, &s), -ENOTSUP);
	begin(&b);
	b.img.eh.e_phnum = PN_XNUM;
	assert_int_equal(scan(&b, NULL, &s), -ENOTSUP);
	assert_int_equal(alloc_sites_scan(-1, NULL, &s), -EBADF);
	fd = open("/", O_RDONLY | O_CLOEXEC);
	assert_int_equal(alloc_sites_scan(fd, NULL, &s), -EISDIR);
	close(fd);
	assert_int_equal(s.count, 42); /* written only on success */
}

/* Each lie leaves an object without sites, not a crash. */
static void assert_no_sites(const struct builder *b)
{
	struct alloc_sites s;

	if (scan(b, NULL, &s))
		return;
	assert_int_equal(s.count, 0);
	alloc_sites_release(&s);
}

static void test_lying_tables(void **state)
{
	struct builder good, b;

	(void)state;
	begin(&good);
	add(&good, "malloc", 0x10, 8);

	b = good;
	b.img.syms[1].st_name = UINT32_MAX;
	assert_no_sites(&b);
	b = good;
	b.img.sh[1].sh_link = 77;
	assert_no_sites(&b);
	b = good;
	b.img.sh[1].sh_link = 1;
	assert_no_sites(&b);
	b = good;
	b.img.sh[1].sh_entsize = 1;
	assert_no_sites(&b);
	b = good;
	b.img.sh[1].sh_offset = UINT64_MAX - 8;
	assert_no_sites(&b);
	b = good;
	b.img.sh[1].sh_size = UINT64_MAX;
	assert_no_sites(&b);
	b = good;
	b.img.sh[1].sh_flags = SHF_COMPRESSED;
	assert_no_sites(&b);
	b = good;
	b.img.sh[2].sh_size = 1ull << 62;
	assert_no_sites(&b);
	b = good;
	b.img.sh[2].sh_flags = SHF_COMPRESSED;
	assert_no_sites(&b);
	b = good;
	b.img.ph.p_offset = UINT64_MAX;
	assert_no_sites(&b);
	b = good;
	b.img.ph.p_vaddr = UINT64_MAX;
	assert_no_sites(&b);
	b = good;
	b.img.eh.e_phoff = UINT64_MAX - 3;
	assert_no_sites(&b);
	b = good;
	memset(b.img.strings, 'm', sizeof(b.img.strings)); /* no end */
	assert_no_sites(&b);
}

static void test_lying_segment_size(void **state)
{
	struct alloc_sites s;
	struct builder b;

	(void)state;
	begin(&b);
	add(&b, "malloc", sizeof(b.img) - offsetof(struct image, text) - 4, UINT64_MAX);
	b.img.ph.p_filesz = UINT64_MAX;
	assert_int_equal(scan(&b, NULL, &s), 0);
	assert_int_equal(s.count, 1);
	assert_int_equal(s.items[0].code_len, 4); /* the file ends here */
	alloc_sites_release(&s);
}

static void test_symbol_behind_the_file(void **state)
{
	struct alloc_sites s;
	struct builder b;

	(void)state;
	begin(&b);
	add(&b, "malloc", sizeof(b.img), 8);
	b.img.ph.p_filesz = UINT64_MAX;
	assert_int_equal(scan(&b, NULL, &s), 0);
	assert_int_equal(s.count, 0);
	alloc_sites_release(&s);
}

/* A sparse file costs its owner nothing; reading its strings would cost memory. */
static void test_sparse_strings(void **state)
{
	const uint64_t size = 300ull << 20;
	struct alloc_sites s;
	struct builder b;
	int fd = memfd_create("object", MFD_CLOEXEC);

	(void)state;
	begin(&b);
	add(&b, "malloc", 0x10, 8);
	b.img.sh[2].sh_size = size - b.img.sh[2].sh_offset;
	assert_int_equal(write(fd, &b.img, sizeof(b.img)), sizeof(b.img));
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	assert_int_equal(alloc_sites_scan(fd, NULL, &s), 0);
	assert_int_equal(s.count, 0);
	alloc_sites_release(&s);
	close(fd);
}

static void test_too_many_sites(void **state)
{
	const size_t count = 5000;
	struct alloc_sites s;
	struct builder b;
	Elf64_Sym sym;
	uint8_t *file;
	size_t i, len = sizeof(b.img) + count * sizeof(sym);

	(void)state;
	begin(&b);
	sym = *add(&b, "malloc", 0, 1);
	b.img.sh[1].sh_offset = sizeof(b.img);
	b.img.sh[1].sh_size = count * sizeof(sym);
	file = malloc(len);
	assert_non_null(file);
	memcpy(file, &b.img, sizeof(b.img));
	for (i = 0; i < count; i++)
		memcpy(file + sizeof(b.img) + i * sizeof(sym), &sym, sizeof(sym));
	assert_int_equal(scan_bytes(file, len, NULL, &s), -E2BIG);
	free(file);
}

static void test_truncated_and_flipped(void **state)
{
	unsigned int seed = 7, round;
	struct alloc_sites s;
	struct builder b;
	size_t len;

	(void)state;
	begin(&b);
	add(&b, "malloc", 0x10, 8);
	add(&b, "free", 0x20, 0);
	add(&b, "_dl_debug_state", 0x30, 1);
	for (len = 0; len < sizeof(b.img); len += 13)
		if (scan_bytes(&b.img, len, NULL, &s) == 0)
			alloc_sites_release(&s);
	for (round = 0; round < 3000; round++) {
		struct builder c = b;
		int flips = 1 + rand_r(&seed) % 4;

		while (flips--) {
			bool tail = rand_r(&seed) & 1;
			uint8_t *area = tail ? (uint8_t *)c.img.sh : (uint8_t *)&c.img;
			size_t room = tail ? sizeof(c.img.sh) : offsetof(struct image, text);

			area[(size_t)rand_r(&seed) % room] = (uint8_t)rand_r(&seed);
		}
		if (scan(&c, NULL, &s) == 0)
			alloc_sites_release(&s);
	}
}

static const struct alloc_site *find(const struct alloc_sites *s, const char *name)
{
	size_t i;

	for (i = 0; i < s->count; i++)
		if (strcmp(s->items[i].func->name, name) == 0)
			return &s->items[i];
	return NULL;
}

static void scan_path(const char *path, struct alloc_sites *out)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(alloc_sites_scan(fd, NULL, out), 0);
	close(fd);
}

static void assert_sorted(const struct alloc_sites *s)
{
	size_t i;

	for (i = 1; i < s->count; i++)
		assert_true(s->items[i - 1].offset < s->items[i].offset);
}

static void test_live_libc(void **state)
{
	static const char *const names[] = {"malloc", "calloc", "realloc", "free", "posix_memalign",
					    "munmap", "mremap", "brk",	   "sbrk"};
	const struct alloc_site *site;
	struct alloc_sites s;
	Dl_info info;
	size_t i;

	(void)state;
	assert_int_not_equal(dladdr((void *)gnu_get_libc_version, &info), 0);
	scan_path(info.dli_fname, &s);
	assert_string_equal(s.allocator, "glibc");
	assert_true(s.has_malloc);
	assert_sorted(&s);
	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (!find(&s, names[i]))
			fail_msg("no %s in %s", names[i], info.dli_fname);
	/* What is read from the file is what is mapped. */
	site = find(&s, "calloc");
	assert_memory_equal(site->code, (const uint8_t *)info.dli_fbase + site->vaddr,
			    site->code_len);
	alloc_sites_release(&s);
}

static void test_dynamic_linker(void **state)
{
	const char *path = "/lib64/ld-linux-x86-64.so.2";
	struct alloc_sites s;

	(void)state;
	if (access(path, R_OK) != 0)
		skip();
	scan_path(path, &s);
	assert_int_equal(s.count, 0);
	assert_null(s.allocator);
	assert_true(s.dl_debug_offset != 0);
	alloc_sites_release(&s);
}

static void test_installed_libraries(void **state)
{
	static const struct {
		const char *path;
		const char *allocator;
		const char *function;
	} libraries[] = {
		{"/usr/lib/x86_64-linux-gnu/libjemalloc.so.2", "jemalloc", "mallocx"},
		{"/usr/lib/x86_64-linux-gnu/libtcmalloc.so.4", "tcmalloc", "_Znwm"},
		{"/usr/lib/x86_64-linux-gnu/libmimalloc.so.2", "mimalloc", "mi_heap_malloc"},
		{"/lib/ld-musl-x86_64.so.1", "musl", "calloc"},
		{"/lib/x86_64-linux-gnu/libgcc_s.so.1", NULL, "_Unwind_RaiseException"},
	};
	struct alloc_sites s;
	size_t i, seen = 0;

	(void)state;
	for (i = 0; i < sizeof(libraries) / sizeof(libraries[0]); i++) {
		if (access(libraries[i].path, R_OK) != 0) {
			print_message("%s is not installed\n", libraries[i].path);
			continue;
		}
		seen++;
		scan_path(libraries[i].path, &s);
		assert_sorted(&s);
		assert_int_equal(s.has_malloc, libraries[i].allocator != NULL);
		if (libraries[i].allocator)
			assert_string_equal(s.allocator, libraries[i].allocator);
		assert_non_null(find(&s, libraries[i].function));
		alloc_sites_release(&s);
	}
	if (seen == 0)
		skip();
}

/* Its operator new is malloc, which is probed anyway. */
static void test_wrappers_are_no_sites(void **state)
{
	struct alloc_sites s;

	(void)state;
	if (access("/usr/lib/x86_64-linux-gnu/libstdc++.so.6", R_OK) != 0)
		skip();
	scan_path("/usr/lib/x86_64-linux-gnu/libstdc++.so.6", &s);
	assert_null(find(&s, "_Znwm"));
	assert_null(find(&s, "_ZdlPv"));
	alloc_sites_release(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_wrappers_are_no_sites),
		cmocka_unit_test(test_rows),
		cmocka_unit_test(test_prefixes),
		cmocka_unit_test(test_names_that_are_no_rows),
		cmocka_unit_test(test_arguments),
		cmocka_unit_test(test_rows_survive_packing),
		cmocka_unit_test(test_scan_sites),
		cmocka_unit_test(test_scan_skips),
		cmocka_unit_test(test_scan_merges),
		cmocka_unit_test(test_scan_drops_internal_twins),
		cmocka_unit_test(test_allocator_names),
		cmocka_unit_test(test_extra_prefix),
		cmocka_unit_test(test_only_new),
		cmocka_unit_test(test_refuses_foreign),
		cmocka_unit_test(test_lying_tables),
		cmocka_unit_test(test_lying_segment_size),
		cmocka_unit_test(test_symbol_behind_the_file),
		cmocka_unit_test(test_sparse_strings),
		cmocka_unit_test(test_too_many_sites),
		cmocka_unit_test(test_truncated_and_flipped),
		cmocka_unit_test(test_live_libc),
		cmocka_unit_test(test_dynamic_linker),
		cmocka_unit_test(test_installed_libraries),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
