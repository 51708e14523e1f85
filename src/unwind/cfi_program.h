/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Runs call frame instructions (DWARF 5, 6.4.2, and GNU's additions) and says
 * for each range of addresses how its registers are found.
 */
#ifndef LEAKTOP_CFI_PROGRAM_H
#define LEAKTOP_CFI_PROGRAM_H

#include <stdbool.h>
#include <stdint.h>

#include "unwind/byte_reader.h"

/* The registers whose rules are kept. */
enum cfi_column {
	CFI_RBX,
	CFI_RBP,
	CFI_RSP,
	CFI_RETURN,
	CFI_COLUMNS
};

enum cfi_how {
	CFI_DEFAULT = 0, /* no instruction named it: untouched; rsp is the CFA */
	CFI_SAME,
	CFI_UNDEFINED,
	CFI_SAVED,    /* at CFA + offset */
	CFI_SAVED_AT, /* at reg + offset */
	CFI_OTHER,    /* in another register, or by an expression that we do not know */
};

struct cfi_where {
	uint8_t how; /* enum cfi_how */
	uint8_t reg;
	int32_t offset;
};

enum cfi_cfa_how {
	CFI_CFA_NONE = 0,
	CFI_CFA_REG,   /* reg + offset */
	CFI_CFA_DEREF, /* *(reg + offset) + arg */
	CFI_CFA_PLT,   /* reg + offset + ((rip & 15) >= arg) * 8 */
	CFI_CFA_OTHER,
};

struct cfi_cfa {
	uint8_t how; /* enum cfi_cfa_how */
	uint8_t reg;
	int32_t offset, arg;
};

struct cfi_state {
	struct cfi_cfa cfa;
	struct cfi_where columns[CFI_COLUMNS];
};

struct cfi_factors {
	uint64_t code;
	int64_t data;
	uint8_t encoding; /* of addresses in DW_CFA_set_loc */
};

#define CFI_REMEMBERED_MAX 16 /* compilers nest two deep */

struct cfi_program {
	struct byte_reader code;
	uint64_t code_vaddr; /* of code.at, when the program is begun */
	const uint8_t *code_start;
	const struct cfi_factors *factors;
	const struct cfi_state *initial; /* what restore goes back to */
	struct cfi_state state;
	struct cfi_state remembered[CFI_REMEMBERED_MAX];
	unsigned int depth;
	bool bad;
	uint64_t row_start, row_end;
	uint64_t at, end;
};

/*
 * Prepares @p for the instructions @code, which hold for [start, end). @initial,
 * the state after the CIE's own instructions, and @factors are borrowed; both
 * for the CIE's instructions @initial is a state of zeros. @code_vaddr is where
 * @code is in memory.
 */
void cfi_program_begin(struct cfi_program *p, struct byte_reader code, uint64_t code_vaddr,
		       const struct cfi_factors *factors, const struct cfi_state *initial,
		       uint64_t start, uint64_t end);

/*
 * 1: [p->row_start, p->row_end), never empty, is described by p->state.
 * 0: the end was reached, p->state is the last state.
 * -EINVAL: malformed from p->row_start on.
 */
int cfi_program_next(struct cfi_program *p);

#endif
