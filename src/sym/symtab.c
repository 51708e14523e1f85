/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Only addresses stay in memory. A name is read from the file when somebody asks
 * for it, which is seldom: answers are cached above. So the tables of a program
 * with a million symbols cost 32 MB here, not their size in the file.
 */
#include "sym/symtab.h"

#include <errno.h>
#include <gelf.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sym/elf_file.h"
#include "sym/mini_debug.h"

#define TABLE_BYTES_MAX (512u << 20) /* a symbol or string table in the file */
#define LOOK_BACK_MAX 64	     /* symbols that may lie inside another one */

/* Among symbols of one address the lowest rank wins; below it counts underscores. */
#define RANK_LOCAL 0x100u
#define RANK_NOSIZE 0x200u

struct symbol {
	uint64_t start, end;
	uint64_t name_position; /* in the file */
	uint32_t name_room;	/* bytes from there to the end of the string table */
	uint16_t rank;
	bool open;	/* has no size: reaches to the next one, at most to @end */
	uint8_t origin; /* of the name */
};

struct symbols {
	struct symbol *items;
	size_t count, capacity;
};

/* The files that symbols come from. */
enum origin {
	FROM_OBJECT = 0,
	FROM_DEBUG_FILE,
	FROM_MINI_DEBUG, /* ours */
	ORIGINS,
};

struct symtab {
	int fds[ORIGINS]; /* -1: none */
	uint64_t mini_bytes;
	struct symbols functions;
	struct symbols labels; /* without a type: asked where no function is */
};

/* Where the symbols of one section come from. */
struct source {
	Elf *elf;
	size_t strings; /* section index */
	GElf_Shdr strings_header;
	enum origin origin;
};

static int symbols_add(struct symbols *list, const struct symbol *symbol)
{
	if (list->count >= SYMTAB_SYMBOLS_MAX)
		return -E2BIG;
	if (list->count == list->capacity) {
		size_t capacity = list->capacity ? 2 * list->capacity : 256;
		struct symbol *items = reallocarray(list->items, capacity, sizeof(*items));

		if (!items)
			return -ENOMEM;
		list->items = items;
		list->capacity = capacity;
	}
	list->items[list->count++] = *symbol;
	return 0;
}

static bool fill_symbol(const struct source *src, const GElf_Sym *sym, const char *name,
			struct symbol *out)
{
	const GElf_Shdr *strings = &src->strings_header;
	Elf_Scn *section = elf_getscn(src->elf, sym->st_shndx);
	size_t underscores = strspn(name, "_");
	uint64_t room, end;
	GElf_Shdr sh;

	if (!section || !gelf_getshdr(section, &sh) || !(sh.sh_flags & SHF_EXECINSTR) ||
	    sh.sh_size > UINT64_MAX - sh.sh_addr)
		return false;
	end = sh.sh_addr + sh.sh_size;
	if (sym->st_value < sh.sh_addr || sym->st_value >= end)
		return false;
	room = strings->sh_size - sym->st_name;
	*out = (struct symbol){
		.start = sym->st_value,
		.end = end,
		.name_position = strings->sh_offset + sym->st_name,
		.name_room = room < UINT32_MAX ? (uint32_t)room : UINT32_MAX,
		.rank = (uint16_t)(underscores < 0xff ? underscores : 0xff),
		.open = sym->st_size == 0,
		.origin = (uint8_t)src->origin,
	};
	if (sym->st_size && sym->st_size < end - out->start)
		out->end = out->start + sym->st_size;
	if (out->open)
		out->rank |= RANK_NOSIZE;
	if (GELF_ST_BIND(sym->st_info) == STB_LOCAL)
		out->rank |= RANK_LOCAL;
	return true;
}

static int add_symbol(struct symtab *t, const struct source *src, const GElf_Sym *sym)
{
	struct symbol symbol;
	const char *name;

	if (sym->st_shndx == SHN_UNDEF || sym->st_shndx >= SHN_LORESERVE)
		return 0;
	switch (GELF_ST_TYPE(sym->st_info)) {
	case STT_FUNC:
	case STT_GNU_IFUNC:
	case STT_NOTYPE:
		break;
	default:
		return 0;
	}
	name = elf_strptr(src->elf, src->strings, sym->st_name);
	if (!name || !*name || !fill_symbol(src, sym, name, &symbol))
		return 0;
	if (GELF_ST_TYPE(sym->st_info) != STT_NOTYPE)
		return symbols_add(&t->functions, &symbol);
	/* "$x" and ".L1" are marks of assemblers, not names. */
	return *name == '$' || *name == '.' ? 0 : symbols_add(&t->labels, &symbol);
}

static int read_section(struct symtab *t, struct source *src, Elf_Scn *section, const GElf_Shdr *sh)
{
	Elf_Data *data;
	GElf_Sym sym;
	int i, err = 0;

	if (sh->sh_size > TABLE_BYTES_MAX ||
	    !gelf_getshdr(elf_getscn(src->elf, sh->sh_link), &src->strings_header) ||
	    src->strings_header.sh_size > TABLE_BYTES_MAX ||
	    src->strings_header.sh_offset > INT64_MAX - TABLE_BYTES_MAX)
		return 0;
	src->strings = sh->sh_link;
	data = elf_getdata(section, NULL);
	for (i = 0; !err && data && gelf_getsym(data, i, &sym); i++)
		err = add_symbol(t, src, &sym);
	return err == -E2BIG ? 0 : err;
}

/* *found tells whether there is a section of that @type. */
static int read_file(struct symtab *t, enum origin origin, uint32_t type, bool *found)
{
	struct source src = {.origin = origin};
	Elf_Scn *section = NULL;
	int err;

	err = elf_file_open(t->fds[origin], &src.elf);
	if (err)
		return err;
	while (!err && (section = elf_nextscn(src.elf, section))) {
		GElf_Shdr sh;

		if (!gelf_getshdr(section, &sh) || sh.sh_type != type)
			continue;
		*found = true;
		err = read_section(t, &src, section, &sh);
	}
	elf_end(src.elf);
	return err;
}

static int compare(const void *left, const void *right)
{
	const struct symbol *a = left, *b = right;

	if (a->start != b->start)
		return a->start < b->start ? -1 : 1;
	if (a->rank != b->rank)
		return a->rank < b->rank ? -1 : 1;
	/* Anything, as long as it is the same every time. */
	if (a->name_position != b->name_position)
		return a->name_position < b->name_position ? -1 : 1;
	return (int)a->origin - (int)b->origin;
}

static void symbols_finish(struct symbols *list)
{
	size_t i, kept = 0;

	if (!list->count)
		return;
	qsort(list->items, list->count, sizeof(*list->items), compare);
	for (i = 1; i < list->count; i++) {
		if (list->items[i].start != list->items[kept].start)
			list->items[++kept] = list->items[i];
	}
	list->count = kept + 1;
	for (i = 0; i < kept; i++) {
		struct symbol *symbol = &list->items[i];

		if (symbol->open && symbol->end > symbol[1].start)
			symbol->end = symbol[1].start;
	}
}

static void open_mini_debug(struct symtab *t)
{
	int fd = mini_debug_open(t->fds[FROM_OBJECT]);
	struct stat st;

	if (fd < 0)
		return;
	t->fds[FROM_MINI_DEBUG] = fd;
	if (!fstat(fd, &st))
		t->mini_bytes = (uint64_t)st.st_size;
}

/* A damaged file does not take away what the object itself says. */
static int read_other_file(struct symtab *t, enum origin origin, bool *found)
{
	if (*found || t->fds[origin] < 0)
		return 0;
	return read_file(t, origin, SHT_SYMTAB, found) == -ENOMEM ? -ENOMEM : 0;
}

static int read_files(struct symtab *t)
{
	bool found = false;
	int err;

	err = read_file(t, FROM_OBJECT, SHT_SYMTAB, &found);
	if (!err)
		err = read_other_file(t, FROM_DEBUG_FILE, &found);
	if (!err && !found) {
		open_mini_debug(t);
		err = read_other_file(t, FROM_MINI_DEBUG, &found);
	}
	if (!err)
		err = read_file(t, FROM_OBJECT, SHT_DYNSYM, &found);
	return err;
}

int symtab_new(int fd, int debug_fd, struct symtab **out)
{
	struct symtab *t = calloc(1, sizeof(*t));
	int err;

	if (!t)
		return -ENOMEM;
	t->fds[FROM_OBJECT] = fd;
	t->fds[FROM_DEBUG_FILE] = debug_fd;
	t->fds[FROM_MINI_DEBUG] = -1;
	err = read_files(t);
	if (err) {
		symtab_free(t);
		return err;
	}
	symbols_finish(&t->functions);
	symbols_finish(&t->labels);
	*out = t;
	return 0;
}

void symtab_free(struct symtab *t)
{
	if (!t)
		return;
	if (t->fds[FROM_MINI_DEBUG] >= 0)
		close(t->fds[FROM_MINI_DEBUG]);
	free(t->functions.items);
	free(t->labels.items);
	free(t);
}

uint64_t symtab_bytes(const struct symtab *t)
{
	size_t symbols = t->functions.capacity + t->labels.capacity;

	return sizeof(*t) + symbols * sizeof(struct symbol) + t->mini_bytes;
}

/* Number of symbols that start at or below @vaddr. */
static size_t count_below(const struct symbols *list, uint64_t vaddr)
{
	size_t low = 0, high = list->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (list->items[middle].start <= vaddr)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static const struct symbol *covering(const struct symbols *list, uint64_t vaddr)
{
	size_t i = count_below(list, vaddr);
	size_t steps;

	for (steps = 0; i > 0 && steps < LOOK_BACK_MAX; steps++) {
		if (vaddr < list->items[--i].end)
			return &list->items[i];
	}
	return NULL;
}

static const struct symbol *find_symbol(const struct symtab *t, uint64_t vaddr)
{
	const struct symbol *symbol = covering(&t->functions, vaddr);
	size_t below;

	if (symbol)
		return symbol;
	symbol = covering(&t->labels, vaddr);
	below = count_below(&t->functions, vaddr);
	if (symbol && symbol->open && below && t->functions.items[below - 1].start > symbol->start)
		return NULL;
	return symbol;
}

static int read_name(const struct symtab *t, const struct symbol *symbol, char *name, size_t size)
{
	size_t bytes = size - 1 < symbol->name_room ? size - 1 : symbol->name_room;
	ssize_t n;

	n = pread(t->fds[symbol->origin], name, bytes, (off_t)symbol->name_position);
	if (n < 0)
		return -errno;
	name[n] = '\0';
	/* "memcpy@@GLIBC_2.14" in .symtab is memcpy. */
	name[strcspn(name, "@")] = '\0';
	return *name ? 0 : -ENOENT;
}

int symtab_find(const struct symtab *t, uint64_t vaddr, char *name, size_t size, uint64_t *start)
{
	const struct symbol *symbol = find_symbol(t, vaddr);
	int err;

	if (!symbol || !size)
		return -ENOENT;
	err = read_name(t, symbol, name, size);
	if (!err)
		*start = symbol->start;
	return err;
}
