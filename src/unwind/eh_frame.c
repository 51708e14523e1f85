/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * .eh_frame by its section header, or, as the C++ runtime finds it, by
 * PT_GNU_EH_FRAME. That says where .eh_frame begins but not where it ends; the
 * search table behind it names every FDE, so the highest one is the last record
 * (LSB core, 10.6.2). Without a table the first terminator is the end.
 */
#include "unwind/eh_frame.h"

#include <dwarf.h>
#include <elf.h>
#include <errno.h>
#include <stdlib.h>

#include "unwind/byte_reader.h"
#include "unwind/cfi_pointer.h"

#define HDR_VERSION 1

struct hdr {
	const struct elf_part *part;
	struct byte_reader reader;
	uint8_t pointer_encoding, count_encoding, table_encoding;
};

static uint64_t hdr_pointer(struct hdr *h, uint8_t encoding)
{
	uint64_t vaddr = h->part->vaddr + (uint64_t)(h->reader.at - h->part->data);

	return cfi_pointer_read(&h->reader, encoding, vaddr, h->part->vaddr);
}

/* The highest FDE in the search table, 0 if there is none. */
static uint64_t last_fde(struct hdr *h)
{
	uint64_t count, fde, last = 0;

	if (h->count_encoding == DW_EH_PE_omit || h->table_encoding == DW_EH_PE_omit)
		return 0;
	for (count = hdr_pointer(h, h->count_encoding); count && !h->reader.bad; count--) {
		hdr_pointer(h, h->table_encoding);
		fde = hdr_pointer(h, h->table_encoding);
		if (!h->reader.bad && fde > last)
			last = fde;
	}
	return last;
}

static int hdr_read(struct hdr *h, uint64_t *start, uint64_t *last)
{
	h->reader = byte_reader(h->part->data, h->part->size_bytes);
	if (reader_u8(&h->reader) != HDR_VERSION)
		return -EINVAL;
	h->pointer_encoding = reader_u8(&h->reader);
	h->count_encoding = reader_u8(&h->reader);
	h->table_encoding = reader_u8(&h->reader);
	*start = hdr_pointer(h, h->pointer_encoding);
	if (h->reader.bad)
		return -EINVAL;
	*last = last_fde(h);
	return 0;
}

static int find_by_segment(const struct elf_image *image, struct elf_part *contents,
			   struct cfi_part *part)
{
	struct elf_part segment;
	struct hdr h = {.part = &segment};
	uint64_t start, last;
	int err;

	err = elf_image_segment(image, PT_GNU_EH_FRAME, &segment);
	if (err)
		return err;
	err = hdr_read(&h, &start, &last);
	free(segment.data);
	if (err)
		return err;
	err = elf_image_from(image, start, contents);
	if (err)
		return err;
	*part = (struct cfi_part){
		.data = contents->data,
		.size_bytes = contents->size_bytes,
		.vaddr = contents->vaddr,
		.last = last >= start && last ? last - start : UINT64_MAX,
		.ends_at_zero = !last,
	};
	return 0;
}

static int find_by_section(const struct elf_image *image, const char *name,
			   struct elf_part *contents, struct cfi_part *part)
{
	int err;

	err = elf_image_section(image, name, contents);
	if (err)
		return err;
	*part = (struct cfi_part){
		.data = contents->data,
		.size_bytes = contents->size_bytes,
		.vaddr = contents->vaddr,
		.last = UINT64_MAX,
	};
	return 0;
}

int eh_frame_find(const struct elf_image *image, struct elf_part *contents, struct cfi_part *part)
{
	int err;

	err = find_by_section(image, ".eh_frame", contents, part);
	return err == -ENOENT ? find_by_segment(image, contents, part) : err;
}

int debug_frame_find(const struct elf_image *image, struct elf_part *contents,
		     struct cfi_part *part)
{
	int err;

	err = find_by_section(image, ".debug_frame", contents, part);
	if (!err)
		part->debug_frame = true;
	return err;
}
