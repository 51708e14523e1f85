/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One pass over the part. A CIE is run once, when it is met, and only records of
 * the walk count as CIEs, before the FDEs that point to them (assemblers and
 * linkers write them so). Otherwise many FDEs could point to one long CIE, or
 * each to another place inside one, and the work would be the square of the size.
 */
#include "unwind/cfi_records.h"

#include <dwarf.h>
#include <errno.h>
#include <stdlib.h>

#include "unwind/cfi_pointer.h"

#define CIES_MAX (1u << 17)
#define LENGTH_64_BIT 0xffffffffu
#define LENGTH_RESERVED 0xfffffff0u
#define RETURN_COLUMN 16

struct cfi_records {
	struct cfi_part part;
	struct byte_reader rest;
	struct cfi_cie *cies; /* by offset */
	size_t count, capacity;
	uint32_t bad;
};

/* One record: what follows its length. */
struct record {
	struct byte_reader body;
	uint64_t offset;
	bool wide; /* 64-bit DWARF */
};

int cfi_records_new(const struct cfi_part *part, struct cfi_records **out)
{
	struct cfi_records *r = calloc(1, sizeof(*r));

	if (!r)
		return -ENOMEM;
	r->part = *part;
	r->rest = byte_reader(part->data, part->size_bytes);
	*out = r;
	return 0;
}

void cfi_records_free(struct cfi_records *r)
{
	if (!r)
		return;
	free(r->cies);
	free(r);
}

uint32_t cfi_records_bad(const struct cfi_records *r)
{
	return r->bad;
}

static uint64_t offset_of(const struct cfi_records *r, const uint8_t *at)
{
	return (uint64_t)(at - r->part.data);
}

static uint64_t vaddr_of(const struct cfi_records *r, const uint8_t *at)
{
	return r->part.vaddr + offset_of(r, at);
}

/* Returns 1, 0 at the end, -EINVAL if the next record does not fit. */
static int next_record(struct cfi_records *r, struct record *rec)
{
	uint64_t length;

	do {
		rec->offset = offset_of(r, r->rest.at);
		if (!reader_left(&r->rest) || rec->offset > r->part.last)
			return 0;
		length = reader_u32(&r->rest);
		if (!length && r->part.ends_at_zero)
			return 0;
	} while (!length && !r->rest.bad);
	rec->wide = length == LENGTH_64_BIT;
	if (rec->wide)
		length = reader_u64(&r->rest);
	else if (length >= LENGTH_RESERVED)
		return -EINVAL;
	rec->body = reader_take(&r->rest, length);
	return rec->body.bad ? -EINVAL : 1;
}

static struct cfi_cie *find_cie(const struct cfi_records *r, uint64_t offset)
{
	size_t low = 0, high = r->count, middle;

	if (high && r->cies[high - 1].offset == offset)
		return &r->cies[high - 1];
	while (low < high) {
		middle = low + (high - low) / 2;
		if (r->cies[middle].offset < offset)
			low = middle + 1;
		else
			high = middle;
	}
	return low < r->count && r->cies[low].offset == offset ? &r->cies[low] : NULL;
}

static int add_cie(struct cfi_records *r, const struct cfi_cie *cie)
{
	size_t capacity = r->capacity ? 2 * r->capacity : 16;
	struct cfi_cie *cies;

	if (r->count == CIES_MAX)
		return -EINVAL;
	if (r->count == r->capacity) {
		cies = realloc(r->cies, capacity * sizeof(*cies));
		if (!cies)
			return -ENOMEM;
		r->cies = cies;
		r->capacity = capacity;
	}
	r->cies[r->count++] = *cie;
	return 0;
}

/* The letters after z say what the augmentation data holds; its length bounds it. */
static void read_augmentation(struct cfi_records *r, const char *letters, struct byte_reader data,
			      struct cfi_cie *cie)
{
	for (; *letters; letters++) {
		switch (*letters) {
		case 'R':
			cie->factors.encoding = reader_u8(&data);
			break;
		case 'P': {
			uint8_t encoding = reader_u8(&data);

			cfi_pointer_skip(&data, encoding, vaddr_of(r, data.at));
			break;
		}
		case 'L':
			reader_u8(&data);
			break;
		case 'S':
			cie->signal = true;
			break;
		case 'B': /* arm64's pointer authentication: no data, no meaning here */
			break;
		default:
			return;
		}
	}
}

static bool read_version(struct byte_reader *body, uint8_t version, const char *augmentation,
			 struct cfi_cie *cie)
{
	cie->address_bytes = 8;
	if (!augmentation || (version != 1 && version != 3 && version != 4))
		return false;
	if (version == 4) {
		cie->address_bytes = reader_u8(body);
		if (reader_u8(body)) /* segment selectors */
			return false;
	}
	/* GCC 2 had a pointer to exception tables here. */
	if (augmentation[0] == 'e' && augmentation[1] == 'h')
		reader_take(body, cie->address_bytes);
	else if (augmentation[0] && augmentation[0] != 'z')
		return false;
	return cie->address_bytes == 8 || cie->address_bytes == 4;
}

static bool run_initial(struct cfi_records *r, struct byte_reader code, struct cfi_cie *cie)
{
	const struct cfi_state zero = {0};
	struct cfi_program p;
	int more;

	cfi_program_begin(&p, code, vaddr_of(r, code.at), &cie->factors, &zero, 0, UINT64_MAX);
	do
		more = cfi_program_next(&p);
	while (more > 0);
	cie->initial = p.state;
	return !more;
}

static bool read_cie(struct cfi_records *r, struct record *rec, struct cfi_cie *cie)
{
	struct byte_reader *body = &rec->body;
	uint8_t version = reader_u8(body);
	const char *augmentation = reader_string(body);
	uint64_t return_column;

	cie->offset = rec->offset;
	if (!read_version(body, version, augmentation, cie))
		return false;
	cie->factors.code = reader_uleb128(body);
	cie->factors.data = reader_sleb128(body);
	cie->factors.encoding = cie->address_bytes == 4 ? DW_EH_PE_udata4 : DW_EH_PE_udata8;
	return_column = version == 1 ? reader_u8(body) : reader_uleb128(body);
	if (body->bad || return_column != RETURN_COLUMN)
		return false;
	if (*augmentation == 'z') {
		cie->has_augmentation_data = true;
		read_augmentation(r, augmentation + 1, reader_take(body, reader_uleb128(body)),
				  cie);
	}
	return !body->bad && run_initial(r, *body, cie);
}

static bool read_fde(struct cfi_records *r, struct record *rec, struct cfi_fde *fde)
{
	struct byte_reader *body = &rec->body;
	uint8_t encoding = fde->cie->factors.encoding;
	uint64_t size;

	fde->start = cfi_pointer_read(body, encoding, vaddr_of(r, body->at), 0);
	size = cfi_pointer_read_value(body, encoding);
	if (fde->cie->has_augmentation_data)
		reader_take(body, reader_uleb128(body));
	if (body->bad || __builtin_add_overflow(fde->start, size, &fde->end))
		return false;
	fde->code = *body;
	fde->code_vaddr = vaddr_of(r, body->at);
	return true;
}

/*
 * The offset of the CIE of @rec, which is itself one if it says so. .eh_frame
 * has 4 bytes that count backwards even in long records, .debug_frame an offset.
 */
static bool read_cie_offset(const struct cfi_records *r, struct record *rec, uint64_t *offset)
{
	uint64_t here = offset_of(r, rec->body.at);
	bool wide = rec->wide && r->part.debug_frame;
	uint64_t id = reader_fixed(&rec->body, wide ? 8 : 4);

	if (r->part.debug_frame) {
		*offset = id;
		return id == (wide ? UINT64_MAX : UINT32_MAX);
	}
	*offset = here - id;
	return !id;
}

/* Returns 1 with an FDE, 0 after a CIE, -EINVAL if it makes no sense. */
static int read_record(struct cfi_records *r, struct record *rec, struct cfi_fde *fde)
{
	struct cfi_cie cie = {0};
	uint64_t cie_offset;
	bool is_cie = read_cie_offset(r, rec, &cie_offset);

	if (rec->body.bad)
		return -EINVAL;
	if (is_cie)
		return read_cie(r, rec, &cie) ? add_cie(r, &cie) : -EINVAL;
	fde->cie = find_cie(r, cie_offset);
	return fde->cie && read_fde(r, rec, fde) ? 1 : -EINVAL;
}

int cfi_records_next(struct cfi_records *r, struct cfi_fde *fde)
{
	struct record rec;
	int found, err;

	while ((found = next_record(r, &rec)) > 0) {
		err = read_record(r, &rec, fde);
		if (err == 1 || err == -ENOMEM)
			return err;
		r->bad += err < 0;
	}
	if (found < 0) {
		reader_fail(&r->rest);
		r->bad++;
	}
	return 0;
}
