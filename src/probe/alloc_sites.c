/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Looks the functions of the allocator table up in the symbol tables of an
 * object.
 *
 * The object belongs to a traced process and may be made to hurt the reader.
 * libelf checks offsets, but allocates what a header asks for and maps files on
 * request, so sizes are bounded before it sees them, it reads instead of mapping
 * (a mapped file that shrinks raises SIGBUS), and compressed or extended-number
 * forms, which no linker writes for these sections, are refused.
 */
#include "probe/allocators.h"

#include <errno.h>
#include <gelf.h>
#include <libelf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SYMBOLS_MAX (4u << 20)
#define STRINGS_MAX_BYTES (256ull << 20)
#define SEGMENTS_MAX 64
#define SITES_MAX 4096
#define NAME_MAX_BYTES 128 /* longer than any row behind any sensible prefix */

#if defined(__aarch64__)
#define HOST_MACHINE EM_AARCH64
#else
#define HOST_MACHINE EM_X86_64
#endif

/* An executable PT_LOAD, clipped to the file. */
struct segment {
	uint64_t vaddr;
	uint64_t size;
	uint64_t offset;
};

enum mark {
	MARK_MIMALLOC,
	MARK_TCMALLOC,
	MARK_JEMALLOC,
	MARK_GLIBC,
	MARK_MUSL,
	MARK_PYTHON,
	MARK_RTLD, /* the dynamic linker of glibc, whose malloc serves only itself */
	MARK_COUNT
};

struct scan {
	Elf *elf;
	int fd;
	const char *extra_prefix;
	struct segment segments[SEGMENTS_MAX];
	size_t segment_count;
	struct alloc_site *sites;
	size_t site_count;
	size_t site_room;
	uint32_t symbols_left;
	bool marks[MARK_COUNT];
	uint64_t dl_debug_offset;
	bool imports_malloc;
};

/* Symbols that only this allocator defines, __libc_malloc being everybody's. */
static const struct {
	const char *name;
	enum mark mark;
} marks[] = {
	{"mi_malloc", MARK_MIMALLOC},
	{"mi_version", MARK_MIMALLOC},
	{"tc_malloc", MARK_TCMALLOC},
	{"TCMallocInternalMalloc", MARK_TCMALLOC},
	{"mallctl", MARK_JEMALLOC},
	{"je_mallctl", MARK_JEMALLOC},
	{"_rjem_mallctl", MARK_JEMALLOC},
	{"gnu_get_libc_version", MARK_GLIBC},
	{"_int_malloc", MARK_GLIBC},	   /* static executables */
	{"__libc_malloc_impl", MARK_MUSL}, /* static, 1.2.2 and later */
	{"__malloc_donate", MARK_MUSL},	   /* static, 1.1.20 and later */
	{"__dls3", MARK_MUSL},		   /* shared */
	{"Py_GetVersion", MARK_PYTHON},
	{"_rtld_global", MARK_RTLD},
};

static const char *const allocator_names[] = {
	[MARK_MIMALLOC] = "mimalloc", [MARK_TCMALLOC] = "tcmalloc", [MARK_JEMALLOC] = "jemalloc",
	[MARK_GLIBC] = "glibc",	      [MARK_MUSL] = "musl",
};

static int check_header(int fd)
{
	Elf64_Ehdr eh;
	ssize_t n = pread(fd, &eh, sizeof(eh), 0);

	if (n < 0)
		return -errno;
	if (n < EI_NIDENT || memcmp(eh.e_ident, ELFMAG, SELFMAG) != 0)
		return -EINVAL;
	if (eh.e_ident[EI_CLASS] != ELFCLASS64 || eh.e_ident[EI_DATA] != ELFDATA2LSB)
		return -ENOTSUP;
	if (n < (ssize_t)sizeof(eh))
		return -EINVAL;
	if (eh.e_machine != HOST_MACHINE || (eh.e_type != ET_DYN && eh.e_type != ET_EXEC))
		return -ENOTSUP;
	/* libelf would take a count of up to 2^64 from section 0 */
	if ((eh.e_shnum == 0 && eh.e_shoff != 0) || eh.e_phnum == PN_XNUM)
		return -ENOTSUP;
	return 0;
}

static void add_segment(struct scan *s, const GElf_Phdr *ph, uint64_t file_size)
{
	uint64_t size = ph->p_filesz;

	if (ph->p_type != PT_LOAD || !(ph->p_flags & PF_X) || ph->p_offset >= file_size)
		return;
	if (size > file_size - ph->p_offset)
		size = file_size - ph->p_offset;
	if (s->segment_count < SEGMENTS_MAX)
		s->segments[s->segment_count++] = (struct segment){ph->p_vaddr, size, ph->p_offset};
}

static int read_segments(struct scan *s)
{
	struct stat st;
	GElf_Phdr ph;
	size_t i, count;

	if (fstat(s->fd, &st) < 0)
		return -errno;
	if (elf_getphdrnum(s->elf, &count) != 0)
		return -EINVAL;
	for (i = 0; i < count; i++)
		if (gelf_getphdr(s->elf, (int)i, &ph))
			add_segment(s, &ph, (uint64_t)st.st_size);
	return 0;
}

static const struct segment *find_segment(const struct scan *s, uint64_t vaddr)
{
	size_t i;

	for (i = 0; i < s->segment_count; i++)
		if (vaddr - s->segments[i].vaddr < s->segments[i].size)
			return &s->segments[i];
	return NULL;
}

static bool has_prefix(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

static void note_mark(struct scan *s, const char *name)
{
	size_t i;

	for (i = 0; i < sizeof(marks) / sizeof(marks[0]); i++)
		if (strcmp(name, marks[i].name) == 0)
			s->marks[marks[i].mark] = true;
	if (has_prefix(name, "_ZN13MallocExtension") || has_prefix(name, "MallocExtension_"))
		s->marks[MARK_TCMALLOC] = true;
}

static int add_site(struct scan *s, const struct alloc_func *func, const char *name,
		    const GElf_Sym *sym, const struct segment *seg)
{
	struct alloc_site *site;

	if (s->site_count == SITES_MAX)
		return -E2BIG;
	if (s->site_count == s->site_room) {
		size_t room = s->site_room ? 2 * s->site_room : 64;
		struct alloc_site *sites = realloc(s->sites, room * sizeof(*sites));

		if (!sites)
			return -ENOMEM;
		s->sites = sites;
		s->site_room = room;
	}
	site = &s->sites[s->site_count];
	*site = (struct alloc_site){
		.func = func,
		.symbol = strdup(name),
		.vaddr = sym->st_value,
		.offset = sym->st_value - seg->vaddr + seg->offset,
		.size = sym->st_size,
	};
	if (!site->symbol)
		return -ENOMEM;
	s->site_count++;
	return 0;
}

static int read_function(struct scan *s, const char *name, const GElf_Sym *sym)
{
	const struct segment *seg = find_segment(s, sym->st_value);
	const struct alloc_func *func;

	if (!seg)
		return 0;
	if (strcmp(name, "_dl_debug_state") == 0 || strcmp(name, "dl_debug_state") == 0)
		s->dl_debug_offset = sym->st_value - seg->vaddr + seg->offset;
	func = alloc_func_find(name, s->extra_prefix);
	return func ? add_site(s, func, name, sym, seg) : 0;
}

/* Older linkers write the version into .symtab, as in "cfree@GLIBC_2.2.5". */
static bool copy_name(const char *symbol, char name[NAME_MAX_BYTES])
{
	size_t len = strcspn(symbol, "@");

	if (len == 0 || len >= NAME_MAX_BYTES)
		return false;
	memcpy(name, symbol, len);
	name[len] = '\0';
	return true;
}

/* A C++ name that is neither operator new or delete nor one that marks an allocator.
 * Large objects have a hundred thousand of them, and their process waits for us. */
static bool is_other_cxx(const struct scan *s, const char *symbol)
{
	return symbol[0] == '_' && symbol[1] == 'Z' && symbol[2] != 'n' && symbol[2] != 'd' &&
	       !has_prefix(symbol, "_ZN13MallocExtension") &&
	       !(s->extra_prefix && has_prefix(s->extra_prefix, "_Z"));
}

/* The type is STT_FUNC proper: an STT_GNU_IFUNC is the resolver, not the function. */
static int read_symbol(struct scan *s, const GElf_Sym *sym, size_t strings)
{
	unsigned char type = GELF_ST_TYPE(sym->st_info);
	char name[NAME_MAX_BYTES];
	const char *symbol;

	if (sym->st_shndx != SHN_UNDEF && type != STT_FUNC && type != STT_OBJECT)
		return 0;
	symbol = elf_strptr(s->elf, strings, sym->st_name);
	if (!symbol || is_other_cxx(s, symbol) || !copy_name(symbol, name))
		return 0;
	if (sym->st_shndx == SHN_UNDEF) {
		s->imports_malloc |= strcmp(name, "malloc") == 0;
		return 0;
	}
	note_mark(s, name);
	return type == STT_FUNC ? read_function(s, name, sym) : 0;
}

static bool is_sane_strings(struct scan *s, size_t index)
{
	Elf_Scn *scn = elf_getscn(s->elf, index);
	GElf_Shdr sh;

	return scn && gelf_getshdr(scn, &sh) && sh.sh_type == SHT_STRTAB &&
	       !(sh.sh_flags & SHF_COMPRESSED) && sh.sh_size <= STRINGS_MAX_BYTES;
}

static int read_table(struct scan *s, Elf_Scn *scn, const GElf_Shdr *sh)
{
	Elf_Data *data;
	GElf_Sym sym;
	uint64_t i, count = sh->sh_size / sizeof(Elf64_Sym);
	int err = 0;

	if (sh->sh_entsize != sizeof(Elf64_Sym) || sh->sh_flags & SHF_COMPRESSED)
		return 0;
	if (count > s->symbols_left) /* .dynsym alone is better than nothing */
		return 0;
	if (!is_sane_strings(s, sh->sh_link))
		return 0;
	data = elf_getdata(scn, NULL);
	if (!data)
		return 0;
	s->symbols_left -= (uint32_t)count;
	for (i = 0; i < count && !err && gelf_getsym(data, (int)i, &sym); i++)
		err = read_symbol(s, &sym, sh->sh_link);
	return err;
}

/* The linker writes one table of a kind; only the first is read. */
static int read_symbols(struct scan *s)
{
	bool seen_dynsym = false, seen_symtab = false;
	Elf_Scn *scn = NULL;
	GElf_Shdr sh;
	int err = 0;

	while (!err && (scn = elf_nextscn(s->elf, scn))) {
		bool *seen;

		if (!gelf_getshdr(scn, &sh))
			continue;
		if (sh.sh_type != SHT_DYNSYM && sh.sh_type != SHT_SYMTAB)
			continue;
		seen = sh.sh_type == SHT_DYNSYM ? &seen_dynsym : &seen_symtab;
		if (*seen)
			continue;
		*seen = true;
		err = read_table(s, scn, &sh);
	}
	return err;
}

static bool is_bare(const struct alloc_site *site)
{
	return strcmp(site->symbol, site->func->name) == 0;
}

/* By offset; of the names for one place the bare one first, then table order. */
static int compare_sites(const void *a, const void *b)
{
	const struct alloc_site *x = a, *y = b;

	if (x->offset != y->offset)
		return x->offset < y->offset ? -1 : 1;
	if (is_bare(x) != is_bare(y))
		return is_bare(x) ? -1 : 1;
	if (x->func != y->func)
		return x->func < y->func ? -1 : 1;
	return strcmp(x->symbol, y->symbol);
}

/*
 * musl's malloc is a jump to __libc_malloc, which libc calls for itself under
 * that name: with both probed every call would hit twice.
 */
static bool is_shadowed(const struct scan *s, const struct alloc_site *site)
{
	size_t i;

	if (!has_prefix(site->symbol, "__libc_"))
		return false;
	for (i = 0; i < s->site_count; i++)
		if (s->sites[i].func == site->func && is_bare(&s->sites[i]))
			return true;
	return false;
}

static void drop_sites(struct scan *s, bool (*drop)(const struct scan *, const struct alloc_site *))
{
	bool dropped[SITES_MAX];
	size_t i, kept = 0;

	for (i = 0; i < s->site_count; i++)
		dropped[i] = drop(s, &s->sites[i]);
	for (i = 0; i < s->site_count; i++) {
		if (dropped[i])
			free(s->sites[i].symbol);
		else
			s->sites[kept++] = s->sites[i];
	}
	s->site_count = kept;
}

static bool is_alias(const struct scan *s, const struct alloc_site *site)
{
	return site > s->sites && site[-1].offset == site->offset;
}

static bool is_any(const struct scan *s, const struct alloc_site *site)
{
	(void)s;
	(void)site;
	return true;
}

static void settle_sites(struct scan *s)
{
	if (s->site_count > 0)
		qsort(s->sites, s->site_count, sizeof(*s->sites), compare_sites);
	drop_sites(s, is_alias);
	drop_sites(s, is_shadowed);
	if (s->marks[MARK_RTLD] && !s->marks[MARK_GLIBC])
		drop_sites(s, is_any);
}

static int read_code(const struct scan *s, struct alloc_site *site)
{
	const struct segment *seg = find_segment(s, site->vaddr);
	uint64_t want = seg->size - (site->vaddr - seg->vaddr);
	ssize_t n;

	if (want > sizeof(site->code))
		want = sizeof(site->code);
	if (site->size != 0 && want > site->size)
		want = site->size;
	n = pread(s->fd, site->code, want, (off_t)site->offset);
	if (n < 0)
		return -errno;
	site->code_len = (size_t)n;
	return 0;
}

static int read_codes(struct scan *s)
{
	size_t i;
	int err = 0;

	for (i = 0; i < s->site_count && !err; i++)
		err = read_code(s, &s->sites[i]);
	return err;
}

static bool defines_malloc(const struct scan *s)
{
	size_t i;

	for (i = 0; i < s->site_count; i++)
		if (strcmp(s->sites[i].func->name, "malloc") == 0)
			return true;
	return false;
}

static const char *name_allocator(const struct scan *s)
{
	size_t i;

	for (i = 0; i < sizeof(allocator_names) / sizeof(allocator_names[0]); i++)
		if (s->marks[i])
			return allocator_names[i];
	return "custom";
}

static void free_sites(struct alloc_site *sites, size_t count)
{
	size_t i;

	for (i = 0; i < count; i++)
		free(sites[i].symbol);
	free(sites);
}

static bool is_cxx(const struct alloc_site *site)
{
	return has_prefix(site->func->name, "_Zn") || has_prefix(site->func->name, "_Zd");
}

/*
 * operator new and delete of libstdc++ and libc++ are malloc and free in other
 * clothes: probing malloc alone is cheaper, and no exception meets a return
 * probe. An allocator's own ones are the only door to its memory.
 */
static void drop_cxx_wrappers(struct scan *s, const char *allocator)
{
	size_t kept = 0;
	bool on_libc = allocator && (!strcmp(allocator, "glibc") || !strcmp(allocator, "musl"));

	if (!s->imports_malloc && !on_libc)
		return;
	for (size_t i = 0; i < s->site_count; i++) {
		if (is_cxx(&s->sites[i]))
			free(s->sites[i].symbol);
		else
			s->sites[kept++] = s->sites[i];
	}
	s->site_count = kept;
}

/* Opens s->fd; s->elf is to be ended in any case. */
static int scan_open(struct scan *s)
{
	int err = check_header(s->fd);

	if (err)
		return err;
	if (elf_version(EV_CURRENT) == EV_NONE)
		return -ENOTSUP;
	s->elf = elf_begin(s->fd, ELF_C_READ, NULL);
	if (!s->elf || elf_kind(s->elf) != ELF_K_ELF)
		return -EINVAL;
	return read_segments(s);
}

int alloc_sites_at(int fd, const char *allocator, const struct alloc_place *places, size_t count,
		   struct alloc_sites *out)
{
	struct scan s = {.fd = fd};
	int err = scan_open(&s);

	for (size_t i = 0; i < count && !err; i++) {
		const struct segment *seg = find_segment(&s, places[i].vaddr);
		GElf_Sym sym = {.st_value = places[i].vaddr};

		err = seg ? add_site(&s, places[i].func, places[i].func->name, &sym, seg) : -ERANGE;
	}
	if (!err)
		err = read_codes(&s);
	if (!err) {
		*out = (struct alloc_sites){
			.items = s.sites, .count = s.site_count, .allocator = allocator};
		s.sites = NULL;
		s.site_count = 0;
	}
	free_sites(s.sites, s.site_count);
	elf_end(s.elf);
	return err;
}

int alloc_sites_scan(int fd, const char *extra_prefix, struct alloc_sites *out)
{
	struct scan s = {.fd = fd, .extra_prefix = extra_prefix, .symbols_left = SYMBOLS_MAX};
	int err = scan_open(&s);

	if (!err)
		err = read_symbols(&s);
	if (err)
		goto out;
	settle_sites(&s);
	err = read_codes(&s);
	if (err)
		goto out;

	out->has_malloc = defines_malloc(&s);
	out->allocator = out->has_malloc ? name_allocator(&s) : NULL;
	drop_cxx_wrappers(&s, out->allocator);
	out->items = s.sites;
	out->count = s.site_count;
	out->has_python = s.marks[MARK_PYTHON];
	out->dl_debug_offset = s.dl_debug_offset;
	s.sites = NULL;
	s.site_count = 0;
out:
	free_sites(s.sites, s.site_count);
	elf_end(s.elf);
	return err;
}

void alloc_sites_release(struct alloc_sites *s)
{
	free_sites(s->items, s->count);
	*s = (struct alloc_sites){0};
}
