/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * libdw reads, we walk. Its own searches are not used for two reasons.
 * dwarf_getscopes() reads a whole unit for each address and, being recursive,
 * lets the file decide on the depth of our stack; here the functions of a unit
 * are indexed at the first question, and every walk is a loop with a limit. And
 * libdw opens any path that a .gnu_debugaltlink section names, as root and even
 * if it is a pipe; so a file that has one is refused unless we have found the
 * supplement for it. (Split units, .dwo, are left unopened for the same
 * reason: that would take dwarf_get_units() with a sub-DIE, or dwarf_getscopes.)
 */
#include "sym/debug_info.h"

#include <dwarf.h>
#include <elfutils/libdw.h>
#include <elfutils/libdwelf.h>
#include <errno.h>
#include <gelf.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include "sym/debug_image.h"
#include "sym/elf_file.h"
#include "sym/range_index.h"

#define UNITS_MAX (1u << 20)
#define UNIT_BYTES_MAX (128u << 20) /* of DIEs in one unit that is walked */
#define LINE_BYTES_MAX (16u << 20)  /* of one line program: libdw makes 100 times that */
#define WALK_DEPTH 32
#define INDEX_STEPS_MAX (16u << 20) /* DIEs visited to index a unit */
#define INLINE_STEPS_MAX (1u << 20) /* DIEs visited for one address */
#define INLINE_DEPTH_MAX 64
#define RANGES_PER_DIE_MAX (1u << 20)

struct unit {
	Dwarf_Off die;
	uint64_t bytes;
	Dwarf_Half version;
	bool indexed;
	struct range_index functions; /* value: offset of the DIE */
};

struct debug_info {
	struct debug_image *image, *alt_image;
	Dwarf *dwarf, *alt;
	const Elf_Data *lines; /* .debug_line, NULL: none */
	bool units_read;
	struct unit *units;
	size_t unit_count, unit_capacity;
	struct range_index unit_ranges; /* value: index in @units */
};

/* A walk in the order of the file through the DIEs below stack[0]. */
struct die_walk {
	Dwarf_Die stack[WALK_DEPTH];
	size_t depth;
	size_t steps_left;
};

static void walk_init(struct die_walk *w, const Dwarf_Die *root, size_t steps)
{
	w->stack[0] = *root;
	w->depth = 0;
	w->steps_left = steps;
}

static Dwarf_Die *walk_die(struct die_walk *w)
{
	return &w->stack[w->depth];
}

/* To the first child of the present DIE if @descend, else past it. */
static bool walk_next(struct die_walk *w, bool descend)
{
	Dwarf_Die next;

	if (!w->steps_left)
		return false;
	w->steps_left--;
	if (descend && w->depth + 1 < WALK_DEPTH && !dwarf_child(walk_die(w), &next)) {
		w->stack[++w->depth] = next;
		return true;
	}
	for (; w->depth > 0; w->depth--) {
		if (dwarf_siblingof(walk_die(w), &next) ||
		    dwarf_dieoffset(&next) <= dwarf_dieoffset(walk_die(w)))
			continue;
		*walk_die(w) = next;
		return true;
	}
	return false;
}

static int open_dwarf(int fd, uint64_t max_bytes, struct debug_image **image_out, Dwarf **out)
{
	struct debug_image *image;
	Dwarf *dwarf;
	int err;

	err = debug_image_new(fd, max_bytes, &image);
	if (err)
		return err;
	dwarf = dwarf_begin_elf(debug_image_elf(image), DWARF_C_READ, NULL);
	if (!dwarf) {
		debug_image_free(image);
		return -EINVAL;
	}
	*image_out = image;
	*out = dwarf;
	return 0;
}

static int open_supplement(struct debug_info *d, int fd, uint64_t max_bytes)
{
	const void *id;
	const char *name;
	ssize_t bytes;
	int err;

	bytes = dwelf_dwarf_gnu_debugaltlink(d->dwarf, &name, &id);
	if (bytes == 0)
		return 0;
	if (bytes < 0)
		return -EINVAL;
	if (fd < 0)
		return -ENOENT;
	err = open_dwarf(fd, max_bytes, &d->alt_image, &d->alt);
	if (err)
		return err;
	/* One that has a link itself would let libdw open what it names. */
	if (dwelf_dwarf_gnu_debugaltlink(d->alt, &name, &id) != 0)
		return -EINVAL;
	dwarf_setalt(d->dwarf, d->alt);
	return 0;
}

bool debug_info_exists(int fd)
{
	bool found;
	Elf *elf;

	if (elf_file_open(fd, &elf))
		return false;
	found = elf_file_section(elf, ".debug_info", UINT64_MAX);
	elf_end(elf);
	return found;
}

int debug_info_new(int fd, int supplement_fd, uint64_t max_bytes, struct debug_info **out)
{
	struct debug_info *d = calloc(1, sizeof(*d));
	Elf_Scn *lines;
	int err;

	if (!d)
		return -ENOMEM;
	err = open_dwarf(fd, max_bytes, &d->image, &d->dwarf);
	if (!err)
		err = open_supplement(d, supplement_fd, max_bytes - debug_image_bytes(d->image));
	if (err) {
		debug_info_free(d);
		return err;
	}
	lines = elf_file_section(debug_image_elf(d->image), ".debug_line", UINT64_MAX);
	d->lines = lines ? elf_getdata(lines, NULL) : NULL;
	*out = d;
	return 0;
}

void debug_info_free(struct debug_info *d)
{
	size_t i;

	if (!d)
		return;
	for (i = 0; i < d->unit_count; i++)
		range_index_release(&d->units[i].functions);
	free(d->units);
	range_index_release(&d->unit_ranges);
	dwarf_end(d->dwarf);
	dwarf_end(d->alt);
	debug_image_free(d->image);
	debug_image_free(d->alt_image);
	free(d);
}

uint64_t debug_info_bytes(const struct debug_info *d)
{
	return debug_image_bytes(d->image) + (d->alt_image ? debug_image_bytes(d->alt_image) : 0);
}

/* Adds the addresses of @die with @value to @index. */
static int add_ranges(struct range_index *index, Dwarf_Die *die, uint64_t value)
{
	Dwarf_Addr base, low, high;
	ptrdiff_t offset = 0;
	size_t i;
	int err = 0;

	for (i = 0; !err && i < RANGES_PER_DIE_MAX; i++) {
		offset = dwarf_ranges(die, offset, &base, &low, &high);
		if (offset <= 0)
			break;
		err = range_index_add(index, low, high, value);
	}
	return err;
}

static int add_unit(struct debug_info *d, Dwarf_Die *die, const struct unit *unit)
{
	if (d->unit_count >= UNITS_MAX)
		return -E2BIG;
	if (d->unit_count == d->unit_capacity) {
		size_t capacity = d->unit_capacity ? 2 * d->unit_capacity : 16;
		struct unit *units = reallocarray(d->units, capacity, sizeof(*units));

		if (!units)
			return -ENOMEM;
		d->units = units;
		d->unit_capacity = capacity;
	}
	d->units[d->unit_count] = *unit;
	return add_ranges(&d->unit_ranges, die, d->unit_count++);
}

static void read_units(struct debug_info *d)
{
	Dwarf_Off offset = 0, next;
	struct unit unit = {0};
	size_t header;

	d->units_read = true;
	while (!dwarf_next_unit(d->dwarf, offset, &next, &header, &unit.version, NULL, NULL, NULL,
				NULL, NULL) &&
	       next > offset) {
		Dwarf_Die die;

		unit.die = offset + header;
		unit.bytes = next - offset;
		offset = next;
		if (!dwarf_offdie(d->dwarf, unit.die, &die) ||
		    (dwarf_tag(&die) != DW_TAG_compile_unit &&
		     dwarf_tag(&die) != DW_TAG_skeleton_unit))
			continue;
		if (add_unit(d, &die, &unit))
			break;
	}
	range_index_sort(&d->unit_ranges);
}

static int compare_unit(const void *key, const void *item)
{
	const Dwarf_Off *die = key;
	const struct unit *unit = item;

	return *die < unit->die ? -1 : *die > unit->die;
}

static struct unit *find_unit(struct debug_info *d, uint64_t vaddr)
{
	const struct range *range;
	Dwarf_Off offset;
	Dwarf_Die die;

	if (!d->units_read)
		read_units(d);
	range = range_index_find(&d->unit_ranges, vaddr);
	if (range)
		return &d->units[range->value];
	/* A unit DIE need not have its ranges if .debug_aranges does. */
	if (!d->unit_count || !dwarf_addrdie(d->dwarf, vaddr, &die))
		return NULL;
	offset = dwarf_dieoffset(&die);
	return bsearch(&offset, d->units, d->unit_count, sizeof(*d->units), compare_unit);
}

/* Whether functions with code may be found below a DIE of this tag. */
static bool holds_functions(int tag)
{
	switch (tag) {
	case DW_TAG_namespace:
	case DW_TAG_module:
	case DW_TAG_class_type:
	case DW_TAG_structure_type:
	case DW_TAG_union_type:
	case DW_TAG_subprogram:
	case DW_TAG_inlined_subroutine:
	case DW_TAG_lexical_block:
	case DW_TAG_try_block:
	case DW_TAG_catch_block:
		return true;
	default:
		return false;
	}
}

static void index_functions(struct unit *unit, const Dwarf_Die *root)
{
	bool descend = true;
	struct die_walk w;

	unit->indexed = true;
	if (unit->bytes > UNIT_BYTES_MAX)
		return;
	walk_init(&w, root, INDEX_STEPS_MAX);
	while (walk_next(&w, descend)) {
		Dwarf_Die *die = walk_die(&w);
		int tag = dwarf_tag(die);

		descend = holds_functions(tag);
		if (tag == DW_TAG_subprogram &&
		    add_ranges(&unit->functions, die, dwarf_dieoffset(die)))
			break;
	}
	range_index_sort(&unit->functions);
}

/* A block without addresses of its own, which only groups what is in it. */
static bool transparent_block(Dwarf_Die *die, int tag)
{
	return tag == DW_TAG_lexical_block && !dwarf_hasattr(die, DW_AT_low_pc) &&
	       !dwarf_hasattr(die, DW_AT_ranges);
}

/* The inlined calls around @vaddr in @function, outermost first. */
static size_t find_inlined(const Dwarf_Die *function, uint64_t vaddr, Dwarf_Die *chain, size_t max)
{
	bool descend = true;
	struct die_walk w;
	size_t count = 0;

	walk_init(&w, function, INLINE_STEPS_MAX);
	while (count < max && walk_next(&w, descend)) {
		Dwarf_Die *die = walk_die(&w);
		int tag = dwarf_tag(die);

		descend = false;
		if (tag != DW_TAG_inlined_subroutine && tag != DW_TAG_lexical_block &&
		    tag != DW_TAG_try_block && tag != DW_TAG_catch_block)
			continue;
		if (dwarf_haspc(die, vaddr) > 0) {
			Dwarf_Die inside = *die;

			if (tag == DW_TAG_inlined_subroutine)
				chain[count++] = inside;
			/* What stands beside it cannot hold the address as well. */
			walk_init(&w, &inside, w.steps_left);
			descend = true;
		} else {
			descend = transparent_block(die, tag);
		}
	}
	return count;
}

static const char *function_name(Dwarf_Die *die)
{
	Dwarf_Attribute attr;
	const char *name;

	if (dwarf_attr_integrate(die, DW_AT_linkage_name, &attr) ||
	    dwarf_attr_integrate(die, DW_AT_MIPS_linkage_name, &attr)) {
		name = dwarf_formstring(&attr);
		if (name)
			return name;
	}
	return dwarf_diename(die);
}

/* Where the inlined call @die is made. */
static void call_site(const struct unit *unit, Dwarf_Die *unit_die, Dwarf_Die *die,
		      struct source_frame *frame)
{
	Dwarf_Attribute attr;
	Dwarf_Files *files;
	Dwarf_Word value;
	size_t count;

	if (dwarf_attr(die, DW_AT_call_line, &attr) && !dwarf_formudata(&attr, &value) &&
	    value <= INT32_MAX)
		frame->line = (uint32_t)value;
	if (!dwarf_attr(die, DW_AT_call_file, &attr) || dwarf_formudata(&attr, &value))
		return;
	/* Before DWARF 5 files are counted from 1, and 0 means none. */
	if ((value || unit->version >= 5) && !dwarf_getsrcfiles(unit_die, &files, &count) &&
	    value < count)
		frame->file = dwarf_filesrc(files, value, NULL, NULL);
}

/* Whether the line program of a unit is of a size that libdw may read. */
static bool lines_good(const struct debug_info *d, Dwarf_Die *unit_die)
{
	Dwarf_Attribute attr;
	uint32_t length32;
	uint64_t length;
	Dwarf_Word at;

	if (!d->lines || !dwarf_attr(unit_die, DW_AT_stmt_list, &attr) ||
	    dwarf_formudata(&attr, &at) || d->lines->d_size < 12 || at > d->lines->d_size - 12)
		return false;
	memcpy(&length32, (const char *)d->lines->d_buf + at, sizeof(length32));
	length = length32;
	if (length32 == UINT32_MAX) /* the 64-bit format */
		memcpy(&length, (const char *)d->lines->d_buf + at + 4, sizeof(length));
	return length <= LINE_BYTES_MAX;
}

static void source_line(Dwarf_Die *unit_die, uint64_t vaddr, struct source_frame *frame)
{
	Dwarf_Line *line = dwarf_getsrc_die(unit_die, vaddr);
	int number;

	if (!line)
		return;
	frame->file = dwarf_linesrc(line, NULL, NULL);
	if (!dwarf_lineno(line, &number) && number > 0)
		frame->line = (uint32_t)number;
}

/* Fills the frames of a function and the calls inlined in it, all but the lines. */
static size_t name_frames(Dwarf_Die *function, Dwarf_Die *chain, size_t inlined,
			  struct source_frame *frames, size_t max)
{
	size_t i;

	for (i = 0; i < inlined && i < max; i++) {
		frames[i].function = function_name(&chain[inlined - 1 - i]);
		frames[i].inlined = true;
	}
	if (i < max) {
		Dwarf_Addr start;

		frames[i].function = function_name(function);
		if (!dwarf_entrypc(function, &start))
			frames[i].start = start;
		i++;
	}
	return i;
}

size_t debug_info_find(struct debug_info *d, uint64_t vaddr, struct source_frame *frames,
		       size_t max)
{
	Dwarf_Die unit_die, function, chain[INLINE_DEPTH_MAX];
	struct unit *unit = max ? find_unit(d, vaddr) : NULL;
	const struct range *range;
	size_t inlined = 0, count = 1, i;
	bool lines;

	if (!unit || !dwarf_offdie(d->dwarf, unit->die, &unit_die))
		return 0;
	memset(frames, 0, max * sizeof(*frames));
	if (!unit->indexed)
		index_functions(unit, &unit_die);
	range = range_index_find(&unit->functions, vaddr);
	if (range && dwarf_offdie(d->dwarf, range->value, &function)) {
		inlined = find_inlined(&function, vaddr, chain, INLINE_DEPTH_MAX);
		count = name_frames(&function, chain, inlined, frames, max);
	}

	lines = lines_good(d, &unit_die);
	if (lines)
		source_line(&unit_die, vaddr, &frames[0]);
	for (i = 1; lines && i < count; i++)
		call_site(unit, &unit_die, &chain[inlined - i], &frames[i]);
	return count;
}
