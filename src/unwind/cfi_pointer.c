/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "unwind/cfi_pointer.h"

#include <dwarf.h>

#define FORMAT_MASK 0x0f
#define APPLICATION_MASK 0x70

uint64_t cfi_pointer_read_value(struct byte_reader *r, uint8_t encoding)
{
	switch (encoding & FORMAT_MASK) {
	case DW_EH_PE_absptr:
	case DW_EH_PE_udata8:
	case DW_EH_PE_sdata8:
		return reader_u64(r);
	case DW_EH_PE_uleb128:
		return reader_uleb128(r);
	case DW_EH_PE_sleb128:
		return (uint64_t)reader_sleb128(r);
	case DW_EH_PE_udata2:
		return reader_u16(r);
	case DW_EH_PE_sdata2:
		return (uint64_t)(int64_t)(int16_t)reader_u16(r);
	case DW_EH_PE_udata4:
		return reader_u32(r);
	case DW_EH_PE_sdata4:
		return (uint64_t)(int64_t)(int32_t)reader_u32(r);
	default:
		reader_fail(r);
		return 0;
	}
}

uint64_t cfi_pointer_read(struct byte_reader *r, uint8_t encoding, uint64_t vaddr,
			  uint64_t data_base)
{
	uint64_t value;

	if (encoding & DW_EH_PE_indirect) {
		reader_fail(r);
		return 0;
	}
	value = cfi_pointer_read_value(r, encoding);
	switch (encoding & APPLICATION_MASK) {
	case DW_EH_PE_absptr:
		return value;
	case DW_EH_PE_pcrel:
		return vaddr + value;
	case DW_EH_PE_datarel:
		if (data_base)
			return data_base + value;
		/* fall through */
	default:
		reader_fail(r);
		return 0;
	}
}

void cfi_pointer_skip(struct byte_reader *r, uint8_t encoding, uint64_t vaddr)
{
	if (encoding == DW_EH_PE_omit)
		return;
	if ((encoding & APPLICATION_MASK) == DW_EH_PE_aligned)
		reader_take(r, -vaddr & 7);
	cfi_pointer_read_value(r, encoding);
}
