/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The DWARF expressions that compilers, linkers and assembly use in call frame information. */
#ifndef LEAKTOP_CFI_EXPRESSION_H
#define LEAKTOP_CFI_EXPRESSION_H

#include "unwind/byte_reader.h"
#include "unwind/cfi_program.h"

/* The CFA that @expression computes, CFI_CFA_OTHER if it has none of the known forms. */
struct cfi_cfa cfi_expression_cfa(struct byte_reader expression);
/* Where DW_CFA_expression says that a register was saved: CFI_SAVED_AT or CFI_OTHER. */
struct cfi_where cfi_expression_where(struct byte_reader expression);

#endif
