/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Makes call frame information by hand, and ELF images in memory around it. */
#ifndef LEAKTOP_CFI_IMAGE_H
#define LEAKTOP_CFI_IMAGE_H

#include <dwarf.h>
#include <elf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define TEXT 0x400000ull /* where the code of an image begins */
#define DATA 0x70000000ull
#define EH_FRAME_AT 0x1000u /* in the file; in memory DATA further up */
#define EH_FRAME_VADDR (DATA + EH_FRAME_AT)
#define BYTES_MAX 8192u

struct bytes {
	size_t size;
	uint8_t data[BYTES_MAX];
};

static inline void put(struct bytes *b, const void *data, size_t size)
{
	if (size > BYTES_MAX - b->size)
		abort();
	memcpy(b->data + b->size, data, size);
	b->size += size;
}

static inline void put_number(struct bytes *b, uint64_t value, size_t size)
{
	put(b, &value, size);
}

/* A record is begun, filled and ended; its length is 4 bytes, or 12 if @wide. */
static inline size_t record_begin(struct bytes *b, bool wide)
{
	put_number(b, wide ? 0xffffffff : 0, 4);
	if (wide)
		put_number(b, 0, 8);
	return b->size;
}

static inline void record_end(struct bytes *b, size_t start, bool wide)
{
	uint64_t length = b->size - start;

	memcpy(b->data + start - (wide ? 8 : 4), &length, wide ? 8 : 4);
}

/* The usual rest of a CIE: factors 1 and -8, column 16. */
#define CIE_FACTORS 1, 0x78, 16
/* The usual state at a function's entry: CFA = rsp + 8, return address at CFA - 8. */
#define CIE_ENTRY DW_CFA_def_cfa, 7, 8, DW_CFA_offset | 16, 1

/* A CIE of .eh_frame from its version on; returns its offset. */
static inline size_t put_cie(struct bytes *b, const void *body, size_t size)
{
	size_t at = b->size, start = record_begin(b, false);

	put_number(b, 0, 4);
	put(b, body, size);
	record_end(b, start, false);
	return at;
}

static inline size_t put_usual_cie(struct bytes *b)
{
	static const uint8_t body[] = {
		1, 'z', 'R', 0, CIE_FACTORS, 1, DW_EH_PE_sdata4 | DW_EH_PE_pcrel, CIE_ENTRY};

	return put_cie(b, body, sizeof(body));
}

/* An FDE with 4-byte relative addresses, for the CIE at offset @cie of .eh_frame. */
static inline void put_fde(struct bytes *b, size_t cie, uint64_t start, uint32_t size,
			   const void *code, size_t code_size)
{
	size_t at = record_begin(b, false);

	put_number(b, at - cie, 4);
	put_number(b, start - (EH_FRAME_VADDR + b->size), 4);
	put_number(b, size, 4);
	put_number(b, 0, 1);
	put(b, code, code_size);
	record_end(b, at, false);
}

struct image_parts {
	const void *eh_frame, *eh_frame_hdr, *debug_frame;
	size_t eh_frame_bytes, eh_frame_hdr_bytes, debug_frame_bytes;
	uint64_t debug_frame_flags;
	uint64_t text_vaddr, text_bytes;
	bool no_sections;
};

struct image {
	uint8_t *data;
	size_t size;
};

static inline uint64_t image_place(struct image *image, const void *data, size_t size)
{
	size_t at = image->size;

	image->data = realloc(image->data, at + size + 1);
	if (!image->data)
		abort();
	if (size)
		memcpy(image->data + at, data, size);
	image->size += size;
	return at;
}

static inline Elf64_Shdr image_section(uint32_t name, uint64_t at, uint64_t size, uint64_t flags)
{
	return (Elf64_Shdr){.sh_name = name,
			    .sh_type = SHT_PROGBITS,
			    .sh_flags = flags,
			    .sh_addr = DATA + at,
			    .sh_offset = at,
			    .sh_size = size};
}

/* The caller frees image.data. .eh_frame_hdr stands behind .eh_frame. */
static inline struct image image_make(const struct image_parts *p)
{
	static const char names[] = "\0.shstrtab\0.eh_frame\0.debug_frame";
	static const uint8_t zeros[EH_FRAME_AT];
	struct image image = {0};
	Elf64_Ehdr eh = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
			 .e_type = ET_DYN,
			 .e_machine = EM_X86_64,
			 .e_phoff = sizeof(Elf64_Ehdr),
			 .e_phentsize = sizeof(Elf64_Phdr),
			 .e_phnum = 3,
			 .e_shentsize = sizeof(Elf64_Shdr)};
	Elf64_Phdr ph[3] = {{.p_type = PT_LOAD, .p_flags = PF_R | PF_X},
			    {.p_type = PT_LOAD, .p_flags = PF_R, .p_vaddr = DATA},
			    {.p_type = PT_NULL, .p_flags = PF_R}};
	Elf64_Shdr sh[4] = {0};
	uint64_t eh_at, hdr_at, debug_at, names_at;

	image_place(&image, zeros, EH_FRAME_AT);
	eh_at = image_place(&image, p->eh_frame, p->eh_frame_bytes);
	hdr_at = image_place(&image, p->eh_frame_hdr, p->eh_frame_hdr_bytes);
	debug_at = image_place(&image, p->debug_frame, p->debug_frame_bytes);
	names_at = image_place(&image, names, sizeof(names));
	sh[1] = image_section(1, names_at, sizeof(names), 0);
	sh[2] = image_section(11, eh_at, p->eh_frame_bytes, SHF_ALLOC);
	sh[3] = image_section(21, debug_at, p->debug_frame_bytes, p->debug_frame_flags);
	ph[0].p_vaddr = p->text_vaddr ? p->text_vaddr : TEXT;
	ph[0].p_memsz = p->text_bytes ? p->text_bytes : 0x30000;
	if (p->eh_frame_hdr_bytes)
		ph[2] = (Elf64_Phdr){.p_type = PT_GNU_EH_FRAME,
				     .p_offset = hdr_at,
				     .p_vaddr = DATA + hdr_at,
				     .p_filesz = p->eh_frame_hdr_bytes};
	if (!p->no_sections) {
		eh.e_shnum = 4;
		eh.e_shstrndx = 1;
		image_place(&image, zeros, -image.size % 8);
		eh.e_shoff = image_place(&image, sh, sizeof(sh));
	}
	ph[1].p_filesz = ph[1].p_memsz = image.size;
	memcpy(image.data, &eh, sizeof(eh));
	memcpy(image.data + sizeof(eh), ph, sizeof(ph));
	return image;
}

#endif
