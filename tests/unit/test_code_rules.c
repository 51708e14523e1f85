/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Rules from machine code: small programs written by hand, hostile ones, and the
 * machine's own libraries without their call frame information, whose rules are
 * compared with those that the information gives.
 */
#include "unwind/code_rules.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <Zydis/Zydis.h>

#include "unwind/cfi.h"
#include "unwind/eh_frame.h"
#include "unwind/rule_set.h"
#include "unwind_table.h"

#define TEXT 0x401000ull
#define TEXT_AT 0x1000u
#define TEXT_MAX 0x4000u
#define SYMBOLS_MAX 16
#define IMAGE_MAX (TEXT_AT + TEXT_MAX + 4096)

static const struct unwind_rule unknown;
static const struct unwind_rule end_of_stack = {.cfa = UNWIND_CFA(UNWIND_CFA_END, 0)};
static const struct unwind_rule signal_frame = {.cfa = UNWIND_CFA(UNWIND_CFA_SIGNAL, 0)};
static const struct unwind_rule follow_rbp = {.cfa = UNWIND_CFA(UNWIND_CFA_FRAME_POINTER, 0)};

static struct rule_set *rules;
static struct cfi_table *table;
static uint8_t text[TEXT_MAX];
static size_t text_bytes;
static Elf64_Sym symbols[SYMBOLS_MAX];
static size_t symbol_count;
static uint64_t entry;

static int setup(void **state)
{
	(void)state;
	text_bytes = symbol_count = 0;
	entry = 0;
	table = NULL;
	return rule_set_new(&rules);
}

static int teardown(void **state)
{
	(void)state;
	cfi_table_free(table);
	rule_set_free(rules);
	return 0;
}

/* Appends code; returns its address. */
static uint64_t emit(const void *code, size_t bytes)
{
	uint64_t at = TEXT + text_bytes;

	assert_true(bytes <= TEXT_MAX - text_bytes);
	memcpy(text + text_bytes, code, bytes);
	text_bytes += bytes;
	return at;
}

#define EMIT(...) emit((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void pad(size_t bytes, uint8_t with)
{
	assert_true(bytes <= TEXT_MAX - text_bytes);
	memset(text + text_bytes, with, bytes);
	text_bytes += bytes;
}

static void add_symbol(uint64_t vaddr, uint32_t name)
{
	symbols[symbol_count++] = (Elf64_Sym){.st_name = name,
					      .st_info = ELF64_ST_INFO(STB_GLOBAL, STT_FUNC),
					      .st_shndx = 1,
					      .st_value = vaddr,
					      .st_size = 16};
}

static uint64_t function(void)
{
	while (text_bytes % 16)
		EMIT(0x90);
	add_symbol(TEXT + text_bytes, 1);
	return TEXT + text_bytes;
}

#define NAMES "\0f\0f.cold\0"
#define NAME_COLD 3

static size_t make_image(uint8_t *image)
{
	static const char section_names[] = "\0.symtab\0.strtab\0.shstrtab";
	const size_t at = TEXT_AT + TEXT_MAX;
	Elf64_Ehdr eh = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
			 .e_type = ET_EXEC,
			 .e_machine = EM_X86_64,
			 .e_entry = entry,
			 .e_phoff = sizeof(Elf64_Ehdr),
			 .e_phentsize = sizeof(Elf64_Phdr),
			 .e_phnum = 1,
			 .e_shoff = at,
			 .e_shnum = 4,
			 .e_shstrndx = 3,
			 .e_shentsize = sizeof(Elf64_Shdr)};
	Elf64_Phdr ph = {.p_type = PT_LOAD,
			 .p_flags = PF_R | PF_X,
			 .p_offset = TEXT_AT,
			 .p_vaddr = TEXT,
			 .p_filesz = text_bytes,
			 .p_memsz = text_bytes};
	Elf64_Shdr sh[4] = {
		{0},
		{.sh_name = 1, .sh_type = SHT_SYMTAB, .sh_offset = at + 1024},
		{.sh_name = 9, .sh_type = SHT_STRTAB, .sh_offset = at + 512},
		{.sh_name = 17, .sh_type = SHT_STRTAB, .sh_offset = at + 600},
	};

	sh[1].sh_size = symbol_count * sizeof(*symbols);
	sh[2].sh_size = sizeof(NAMES);
	sh[3].sh_size = sizeof(section_names);
	memset(image, 0, IMAGE_MAX);
	memcpy(image, &eh, sizeof(eh));
	memcpy(image + sizeof(eh), &ph, sizeof(ph));
	memcpy(image + TEXT_AT, text, text_bytes);
	memcpy(image + at, sh, sizeof(sh));
	memcpy(image + at + 512, NAMES, sizeof(NAMES));
	memcpy(image + at + 600, section_names, sizeof(section_names));
	memcpy(image + at + 1024, symbols, symbol_count * sizeof(*symbols));
	return IMAGE_MAX;
}

static int analyse(void)
{
	uint8_t *image = malloc(IMAGE_MAX);
	size_t size = make_image(image);
	int err;

	cfi_table_free(table);
	table = NULL;
	err = cfi_table_read_memory(image, size, rules, &table);
	free(image);
	return err;
}

static struct unwind_rule rule_at(uint64_t vaddr)
{
	return rule_set_get(rules, cfi_table_find(table, vaddr));
}

static void assert_rule(uint64_t vaddr, struct unwind_rule want)
{
	struct unwind_rule got = rule_at(vaddr);

	assert_memory_equal(&got, &want, sizeof(want));
}

static struct unwind_rule by_rsp(int32_t offset, uint8_t rbp, uint8_t rbx)
{
	return (struct unwind_rule){UNWIND_CFA_BY_RSP, rbp, rbx, 0, offset};
}

static struct unwind_rule by_rbp(int32_t offset, uint8_t rbp, uint8_t rbx)
{
	return (struct unwind_rule){UNWIND_CFA_BY_RBP, rbp, rbx, 0, offset};
}

#define CALL_BYTES 5

/* call @target, or jump there */
static void emit_relative(uint8_t opcode, uint64_t target)
{
	uint32_t distance = (uint32_t)(target - (TEXT + text_bytes + CALL_BYTES));

	emit(&opcode, 1);
	emit(&distance, 4);
}

static void pushes_and_pops(void **state)
{
	uint64_t f = function();

	(void)state;
	EMIT(0x41, 0x54, 0x55, 0x53);	    /* push r12, rbp, rbx */
	EMIT(0x48, 0x83, 0xec, 0x20);	    /* sub $32, %rsp */
	EMIT(0x31, 0xed, 0x89, 0xfb);	    /* xor %ebp, %ebp; mov %edi, %ebx */
	EMIT(0xff, 0xd0);		    /* call *%rax */
	EMIT(0x48, 0x83, 0xc4, 0x20);	    /* add $32, %rsp */
	EMIT(0x5b, 0x5d, 0x41, 0x5c, 0xc3); /* pop rbx, rbp, r12; ret */
	assert_int_equal(analyse(), 0);
	assert_rule(f, by_rsp(8, 0, 0));
	assert_rule(f + 1, by_rsp(8, 0, 0));
	assert_rule(f + 2, by_rsp(16, 0, 0));
	assert_rule(f + 3, by_rsp(24, 3, 0));
	assert_rule(f + 4, by_rsp(32, 3, 4));
	assert_rule(f + 12, by_rsp(64, 3, 4));
	assert_rule(f + 18, by_rsp(32, 3, 4));
	assert_rule(f + 19, by_rsp(24, 3, 0));
	assert_rule(f + 20, by_rsp(16, 0, 0));
	assert_rule(f + 22, by_rsp(8, 0, 0));
}

/* The registers are moved, not pushed, and the branch goes both ways. */
static void moves_and_branches(void **state)
{
	uint64_t f = function();

	(void)state;
	EMIT(0x48, 0x83, 0xec, 0x28);	    /* 0: sub $40, %rsp */
	EMIT(0x48, 0x89, 0x5c, 0x24, 0x18); /* 4: mov %rbx, 24(%rsp) */
	EMIT(0x48, 0x89, 0x6c, 0x24, 0x20); /* 9: mov %rbp, 32(%rsp) */
	EMIT(0x48, 0x89, 0xfb);		    /* 14: mov %rdi, %rbx */
	EMIT(0x85, 0xff, 0x74, 0x0f);	    /* 17: test %edi, %edi; je 36 */
	EMIT(0x48, 0x8b, 0x5c, 0x24, 0x18); /* 21: mov 24(%rsp), %rbx */
	EMIT(0x48, 0x8b, 0x6c, 0x24, 0x20); /* 26 */
	EMIT(0x48, 0x83, 0xc4, 0x28, 0xc3); /* 31: add $40, %rsp; ret */
	EMIT(0xff, 0xd0, 0xeb, 0xed);	    /* 36: call *%rax; jmp 21 */
	assert_int_equal(analyse(), 0);
	assert_rule(f + 4, by_rsp(48, 0, 0));
	assert_rule(f + 9, by_rsp(48, 0, 3));
	assert_rule(f + 14, by_rsp(48, 2, 3));
	assert_rule(f + 36, by_rsp(48, 2, 3));
	assert_rule(f + 26, by_rsp(48, 2, 0));
	assert_rule(f + 31, by_rsp(48, 0, 0));
	assert_rule(f + 35, by_rsp(8, 0, 0));
}

/* Where rsp moves by an unknown amount, rbp still knows. */
static void frame_pointer(void **state)
{
	uint64_t f = function();

	(void)state;
	EMIT(0x55, 0x48, 0x89, 0xe5);	    /* push %rbp; mov %rsp, %rbp */
	EMIT(0x53);			    /* 4: push %rbx */
	EMIT(0x48, 0x29, 0xfc);		    /* 5: sub %rdi, %rsp */
	EMIT(0x48, 0x83, 0xe4, 0xf0);	    /* 8: and $-16, %rsp */
	EMIT(0xff, 0xd0);		    /* 12: call *%rax */
	EMIT(0x48, 0x8b, 0x5d, 0xf8);	    /* 14: mov -8(%rbp), %rbx */
	EMIT(0xc9, 0xc3);		    /* 18: leave; ret */
	EMIT(0x48, 0x8d, 0x64, 0x24, 0xf8); /* 20, another: lea -8(%rsp), %rsp */
	assert_int_equal(analyse(), 0);
	assert_rule(f + 1, by_rsp(16, 2, 0));
	assert_rule(f + 4, by_rbp(16, 2, 0));
	assert_rule(f + 12, by_rbp(16, 2, 3));
	assert_rule(f + 18, by_rbp(16, 2, 0));
	assert_rule(f + 19, by_rsp(8, 0, 0));
}

static void odd_frame_pointer(void **state)
{
	uint64_t f = function();

	(void)state;
	EMIT(0x55, 0x48, 0x83, 0xec, 0x40);	  /* push %rbp; sub $64, %rsp */
	EMIT(0x48, 0x8d, 0x6c, 0x24, 0x20);	  /* 5: lea 32(%rsp), %rbp */
	EMIT(0x48, 0x29, 0xfc, 0xff, 0xd0);	  /* 10: sub %rdi, %rsp; call *%rax */
	EMIT(0x48, 0x8d, 0x65, 0x20, 0x5d, 0xc3); /* 15: lea 32(%rbp), %rsp; pop; ret */
	assert_int_equal(analyse(), 0);
	assert_rule(f + 10, by_rsp(80, 2, 0));
	assert_rule(f + 13, by_rbp(48, 2, 0));
	assert_rule(f + 19, by_rsp(16, 2, 0));
	assert_rule(f + 20, by_rsp(8, 0, 0));
}

static void lost_stack(void **state)
{
	uint64_t f = function();

	(void)state;
	EMIT(0x48, 0x89, 0xfc, 0xff, 0xd0, 0xc3); /* mov %rdi, %rsp; call *%rax; ret */
	EMIT(0x5a, 0x0f, 0x05, 0x52, 0xc3);	  /* vfork: pop %rdx; syscall; push %rdx; ret */
	add_symbol(f + 6, 1);
	pad(16, 0x90);
	assert_int_equal(analyse(), 0);
	assert_rule(f, by_rsp(8, 0, 0));
	assert_rule(f + 3, unknown);
	assert_rule(f + 6, by_rsp(8, 0, 0));
	assert_rule(f + 7, unknown);
	/* Whether this is what was taken away is not looked at. */
	assert_rule(f + 10, unknown);
}

/* As V8's builtins, which code of the JIT jumps to: they leave its frame. */
static void in_the_frame_of_the_caller(void **state)
{
	uint64_t f = function(), usual;

	(void)state;
	EMIT(0x50, 0xff, 0xd0);		    /* push %rax; call *%rax */
	EMIT(0x48, 0x89, 0xec, 0x5d, 0xc3); /* mov %rbp, %rsp; pop %rbp; ret */
	pad(16, 0x90);
	usual = function();
	EMIT(0x50, 0xff, 0xd0, 0x58, 0xc3); /* push %rax; call *%rax; pop %rax; ret */
	pad(16, 0x90);
	assert_int_equal(analyse(), 0);
	assert_rule(f, unknown);
	assert_rule(f + 3, unknown);
	assert_rule(usual + 1, by_rsp(16, 0, 0));
}

static void paths_that_disagree(void **state)
{
	uint64_t f = function();

	(void)state;
	EMIT(0x85, 0xff, 0x74, 0x01); /* test %edi, %edi; je 5 */
	EMIT(0x50);		      /* 4: push %rax */
	EMIT(0x90, 0xff, 0xd0, 0xf4); /* 5: nop; call *%rax; hlt */
	pad(16, 0x90);
	assert_int_equal(analyse(), 0);
	assert_rule(f + 4, by_rsp(8, 0, 0));
	assert_rule(f + 5, unknown);
	assert_rule(f + 7, unknown);
}

/* A register that one path changed without saving it is lost, the CFA is not. */
static void registers_that_disagree(void **state)
{
	uint64_t f = function();

	(void)state;
	EMIT(0x85, 0xff, 0x74, 0x02); /* test %edi, %edi; je 6 */
	EMIT(0x89, 0xfb);	      /* 4: mov %edi, %ebx */
	EMIT(0xff, 0xd0, 0xc3);	      /* 6: call *%rax; ret */
	pad(16, 0x90);
	assert_int_equal(analyse(), 0);
	assert_rule(f + 6, by_rsp(8, 0, UNWIND_SLOT_LOST));
}

/* Known by a call only; what follows a call that cannot return is not its path. */
static void calls(void **state)
{
	uint64_t f = function(), die, g;

	(void)state;
	die = f + 32;
	g = f + 48;
	EMIT(0x50, 0x85, 0xff, 0x74, 0x06); /* push; test; je 11 */
	emit_relative(0xe8, g);
	EMIT(0x90);		  /* 10 */
	EMIT(0x58);		  /* 11: pop */
	emit_relative(0xe8, die); /* 12 */
	EMIT(0x58);		  /* 17: nobody leads here */
	pad(14, 0xcc);
	EMIT(0x48, 0x83, 0xec, 0x08, 0xeb, 0xfe); /* die: for ever */
	pad(10, 0xcc);
	EMIT(0x53, 0x5b, 0xc3); /* g */
	pad(13, 0xcc);
	assert_int_equal(analyse(), 0);
	assert_rule(f + 10, by_rsp(16, 0, 0));
	assert_rule(f + 11, by_rsp(16, 0, 0));
	assert_rule(f + 12, by_rsp(8, 0, 0));
	assert_rule(f + 17, unknown);
	assert_rule(die + 4, by_rsp(16, 0, 0));
	assert_rule(g + 1, by_rsp(16, 0, 2));
}

/* The cold part is not entered like a function, for all that it has a symbol. */
static void cold_part(void **state)
{
	uint64_t f = function();

	(void)state;
	EMIT(0x50, 0x85, 0xff, 0x75, 0x0b); /* push; test; jne 16 */
	EMIT(0x58, 0xc3);
	pad(9, 0x90);
	add_symbol(f + 16, NAME_COLD);
	EMIT(0xff, 0xd0, 0xeb, 0xf1); /* call *%rax; jmp 5 */
	assert_int_equal(analyse(), 0);
	assert_rule(f + 16, by_rsp(16, 0, 0));
}

static void jump_table(void **state)
{
	uint64_t f = function();

	(void)state;
	EMIT(0x53, 0x83, 0xff, 0x01, 0x77, 0x1a);	/* push; cmp $1; ja 32 */
	EMIT(0x48, 0x8d, 0x15, 0x23, 0x00, 0x00, 0x00); /* 6: lea 48(%rip), %rdx */
	EMIT(0x48, 0x63, 0x04, 0xba);			/* 13: movslq (%rdx,%rdi,4), %rax */
	EMIT(0x48, 0x01, 0xd0, 0xff, 0xe0);		/* 17: add; jmp *%rax */
	EMIT(0xff, 0xd0, 0x5b, 0xc3);			/* 22: call *%rax; pop; ret */
	EMIT(0xff, 0xd1, 0x5b, 0xc3);			/* 26 */
	EMIT(0x90, 0x90);
	EMIT(0x5b, 0xc3); /* 32 */
	pad(14, 0x90);
	emit((const int32_t[]){22 - 48, 26 - 48}, 8);
	pad(8, 0x90);
	assert_int_equal(analyse(), 0);
	assert_rule(f + 22, by_rsp(16, 0, 2));
	assert_rule(f + 26, by_rsp(16, 0, 2));
	assert_rule(f + 29, by_rsp(8, 0, 0));
}

/* Without a bound the table is not read; the cases are found behind the jump. */
static void jump_nobody_knows_where_to(void **state)
{
	uint64_t f = function();

	(void)state;
	EMIT(0x53, 0xff, 0xe0);		    /* push %rbx; jmp *%rax */
	EMIT(0xff, 0xd0, 0x5b, 0xc3);	    /* 3: call; pop; ret */
	EMIT(0xff, 0xd1, 0xeb, 0xfa);	    /* 7: call; jmp 5 */
	EMIT(0x58, 0x5b, 0xff, 0xd1, 0xc3); /* 11: not with this stack */
	pad(16, 0x90);
	assert_int_equal(analyse(), 0);
	assert_rule(f + 3, by_rsp(16, 0, 2));
	assert_rule(f + 7, by_rsp(16, 0, 2));
	assert_rule(f + 13, unknown);
}

/* What only a pointer leads to is a function if it behaves like one. */
static void functions_known_by_pointer(void **state)
{
	uint64_t f = function(), g;

	(void)state;
	EMIT(0xc3);
	pad(15, 0x90);
	g = EMIT(0x48, 0x83, 0xec, 0x18, 0xff, 0xd0, 0x48, 0x83, 0xc4, 0x18, 0xc3);
	pad(5, 0x90);
	EMIT(0xff, 0xd0, 0x5b, 0x5d, 0xc3); /* the end of a function without its beginning */
	pad(11, 0x90);
	assert_int_equal(analyse(), 0);
	assert_rule(f, by_rsp(8, 0, 0));
	assert_rule(g + 4, by_rsp(32, 0, 0));
	assert_rule(g + 16, unknown);
}

/* libc_start_main_stage2 of musl: its address is taken, and it never returns. */
static void function_that_exits(void **state)
{
	uint64_t f = function(), g = f + 16;

	(void)state;
	EMIT(0x48, 0x8d, 0x05, 0x09, 0x00, 0x00, 0x00, 0xff, 0xe0); /* lea 16(%rip); jmp *%rax */
	pad(7, 0x90);
	EMIT(0x48, 0x89, 0xf8, 0x50, 0xff, 0xd0); /* mov; push; call *%rax */
	emit_relative(0xe8, f + 32);
	pad(5, 0x90);
	EMIT(0xf4);
	add_symbol(f + 32, 1);
	pad(15, 0x90);
	assert_int_equal(analyse(), 0);
	assert_rule(g + 4, by_rsp(16, 0, 0));
}

static void outermost_frames(void **state)
{
	uint64_t start, clone, zeroes;

	(void)state;
	start = entry = TEXT;
	EMIT(0x31, 0xed, 0x48, 0x89, 0xe7);	  /* xor %ebp, %ebp; mov %rsp, %rdi */
	EMIT(0x48, 0x83, 0xe4, 0xf0, 0xff, 0xd0); /* and $-16, %rsp; call *%rax */
	EMIT(0xf4);
	clone = function();
	EMIT(0x0f, 0x05, 0x85, 0xc0, 0x75, 0x06); /* syscall; test; jne 12 */
	EMIT(0x31, 0xed, 0x5f, 0xff, 0xd0, 0xf4); /* 6: xor %ebp, %ebp; pop; call; hlt */
	EMIT(0xc3);
	zeroes = function();
	EMIT(0x31, 0xed, 0xff, 0xd0, 0xc3); /* it returns: rbp is not a frame pointer here */
	pad(16, 0x90);
	assert_int_equal(analyse(), 0);
	assert_rule(start, end_of_stack);
	assert_rule(start + 10, end_of_stack);
	assert_rule(clone + 6, by_rsp(8, 0, 0));
	assert_rule(clone + 8, end_of_stack);
	assert_rule(clone + 9, end_of_stack);
	assert_rule(clone + 12, by_rsp(8, 0, 0));
	assert_rule(zeroes + 2, by_rsp(8, UNWIND_SLOT_LOST, 0));
}

/* A handler returns to its first byte, and return addresses are looked up less one. */
static void signal_restorer(void **state)
{
	uint64_t f = function(), r;

	(void)state;
	EMIT(0xff, 0xd0, 0xc3);
	EMIT(0x90);
	r = EMIT(0x48, 0xc7, 0xc0, 0x0f, 0x00, 0x00, 0x00, 0x0f, 0x05);
	add_symbol(r, 1);
	EMIT(0x53, 0x5b, 0xc3);
	add_symbol(r + 9, 1);
	assert_int_equal(analyse(), 0);
	assert_rule(f + 2, by_rsp(8, 0, 0));
	assert_rule(r - 1, signal_frame);
	assert_rule(r, signal_frame);
	assert_rule(r + 8, signal_frame);
	assert_rule(r + 9, by_rsp(8, 0, 0));
	assert_rule(r + 10, by_rsp(16, 0, 2));
}

/* A frame pointer is worth a try in much code that nothing is known about. */
static void foreign_code(void **state)
{
	uint64_t f = function();

	(void)state;
	EMIT(0xc3);
	pad(4096, 0x06); /* no instruction */
	assert_int_equal(analyse(), 0);
	assert_rule(f, by_rsp(8, 0, 0));
	assert_rule(f + 2048, follow_rbp);
	text_bytes = 4095;
	assert_int_equal(analyse(), 0);
	assert_rule(f + 2048, unknown);
}

static void nothing_known(void **state)
{
	(void)state;
	pad(256, 0x06);
	assert_int_equal(analyse(), -ENODATA);
	text_bytes = 8;
	assert_int_equal(analyse(), -ENODATA);
	text_bytes = 0;
	assert_int_equal(analyse(), -ENODATA);
}

static void hostile_symbols(void **state)
{
	uint64_t f = function();

	(void)state;
	EMIT(0x50, 0x58, 0xc3);
	pad(29, 0x90);
	entry = UINT64_MAX;
	add_symbol(TEXT + text_bytes, 1);
	add_symbol(TEXT + text_bytes - 1, UINT32_MAX);
	add_symbol(TEXT - 1, NAME_COLD);
	add_symbol(UINT64_MAX, sizeof(NAMES));
	add_symbol(0, 0);
	add_symbol(f + 1, 1); /* overlapping */
	assert_int_equal(analyse(), 0);
	assert_rule(f, by_rsp(8, 0, 0));
}

/* More symbols than the file has bytes, and names that are elsewhere. */
static void hostile_sections(void **state)
{
	uint8_t *image = malloc(IMAGE_MAX);
	Elf64_Shdr *sh = (Elf64_Shdr *)(image + TEXT_AT + TEXT_MAX);
	uint64_t sizes[] = {0, 1, 23, 4096, 1ull << 32, UINT64_MAX};
	size_t i;

	(void)state;
	function();
	EMIT(0x50, 0x58, 0xc3);
	pad(13, 0x90);
	entry = TEXT;
	for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		make_image(image);
		sh[1].sh_size = sizes[i];
		sh[2].sh_size = sizes[i];
		assert_int_equal(cfi_table_read_memory(image, IMAGE_MAX, rules, &table), 0);
		assert_rule(TEXT, end_of_stack);
		cfi_table_free(table);
		table = NULL;
	}
	free(image);
}

/* Every length that a file can be cut to, in memory of exactly that size. */
static void truncated(void **state)
{
	uint8_t *image = malloc(IMAGE_MAX), *copy;
	size_t size, i;

	(void)state;
	function();
	EMIT(0x55, 0x48, 0x89, 0xe5, 0xff, 0xd0, 0xc9, 0xc3);
	size = make_image(image);
	for (i = 0; i < size; i += i < 0x1100 ? 1 : 61) {
		copy = malloc(i ? i : 1);
		memcpy(copy, image, i);
		if (!cfi_table_read_memory(copy, i, rules, &table))
			cfi_table_free(table);
		table = NULL;
		free(copy);
	}
	free(image);
}

/* Bytes of all kinds: whatever comes out, nothing may break. */
static void random_code(void **state)
{
	int round;
	size_t i;

	(void)state;
	srandom(1);
	for (round = 0; round < 300; round++) {
		text_bytes = symbol_count = 0;
		pad((size_t)random() % 1000 + 16, 0);
		/* Mostly short instructions of interest, jumps among them. */
		for (i = 0; i < text_bytes; i++) {
			static const uint8_t often[] = {0x50, 0x58, 0x55, 0x5d, 0x53, 0x5b, 0xeb,
							0x74, 0xe8, 0xc9, 0xc3, 0x48, 0x89, 0xe5,
							0x31, 0xed, 0x00, 0xfc, 0x90, 0xff, 0xe0};

			text[i] = random() % 4 ? often[(size_t)random() % sizeof(often)]
					       : (uint8_t)random();
		}
		for (i = 0; i < 4; i++)
			add_symbol(TEXT + (uint64_t)random() % text_bytes, 1);
		entry = TEXT + (uint64_t)random() % text_bytes;
		assert_int_equal(analyse(), 0);
	}
}

struct object {
	uint8_t *data;
	size_t size;
	struct elf_image *image;
	struct cfi_ranges ranges; /* what .eh_frame says */
};

static bool object_open(const char *path, struct object *o)
{
	struct elf_part contents;
	struct cfi_part part;
	int fd = open(path, O_RDONLY);
	struct stat st;

	memset(o, 0, sizeof(*o));
	if (fd < 0)
		return false;
	assert_int_equal(fstat(fd, &st), 0);
	o->size = (size_t)st.st_size;
	o->data = malloc(o->size);
	assert_int_equal(read(fd, o->data, o->size), o->size);
	close(fd);
	assert_int_equal(elf_image_new_memory(o->data, o->size, &o->image), 0);
	o->ranges.rules = rules;
	o->ranges.rules_limit = UNWIND_RULES_MAX;
	assert_int_equal(elf_image_text(o->image, &o->ranges.low, &o->ranges.high), 0);
	o->ranges.bias = o->ranges.low & ~(uint64_t)(UNWIND_BLOCK_BYTES - 1);
	assert_int_equal(eh_frame_find(o->image, &contents, &part), 0);
	assert_int_equal(cfi_ranges_add(&o->ranges, &part), 0);
	assert_int_equal(cfi_ranges_sort(&o->ranges), 0);
	free(contents.data);
	return true;
}

static void object_close(struct object *o)
{
	cfi_ranges_release(&o->ranges);
	elf_image_free(o->image);
	free(o->data);
}

/* Takes the object's call frame information away. */
static void hide_cfi(struct object *o)
{
	Elf64_Ehdr *eh = (Elf64_Ehdr *)o->data;
	Elf64_Phdr *ph = (Elf64_Phdr *)(o->data + eh->e_phoff);
	Elf64_Shdr *sh = (Elf64_Shdr *)(o->data + eh->e_shoff);
	char *names = (char *)o->data + sh[eh->e_shstrndx].sh_offset;
	int i;

	for (i = 0; i < eh->e_phnum; i++) {
		if (ph[i].p_type == PT_GNU_EH_FRAME)
			ph[i].p_type = PT_NULL;
	}
	for (i = 0; i < eh->e_shnum; i++) {
		if (!strcmp(names + sh[i].sh_name, ".eh_frame"))
			names[sh[i].sh_name + 1] = '-';
	}
}

struct tally {
	uint32_t equal, unknown, wrong;
};

/*
 * Compilers do not say where an epilogue restored a register; below rsp its old word
 * is still there, so both rules are right.
 */
static bool slot_agrees(uint8_t code, uint8_t cfi, int32_t depth, bool by_rsp_rule)
{
	if (code == cfi)
		return true;
	if (code || cfi > UNWIND_SLOT_CFA_MAX)
		return false;
	return !by_rsp_rule || 8 * cfi >= depth;
}

static bool rules_agree(struct unwind_rule code, struct unwind_rule cfi, uint64_t vaddr)
{
	bool by_rsp_rule;

	if (cfi.cfa == UNWIND_CFA(UNWIND_CFA_PLT, UNWIND_RSP)) {
		cfi.cfa = UNWIND_CFA_BY_RSP;
		cfi.offset += (vaddr & 15) >= cfi.arg ? 8 : 0;
		cfi.arg = 0;
	}
	by_rsp_rule = cfi.cfa == UNWIND_CFA_BY_RSP;
	return code.cfa == cfi.cfa && code.offset == cfi.offset && code.arg == cfi.arg &&
	       slot_agrees(code.rbp, cfi.rbp, cfi.offset, by_rsp_rule) &&
	       slot_agrees(code.rbx, cfi.rbx, cfi.offset, by_rsp_rule);
}

static void compare_at(uint64_t vaddr, uint16_t cfi_rule, struct tally *tally)
{
	struct unwind_rule code = rule_at(vaddr), cfi = rule_set_get(rules, cfi_rule);

	if (!cfi.cfa)
		return;
	if (!code.cfa || code.cfa == follow_rbp.cfa)
		tally->unknown++;
	else if (rules_agree(code, cfi, vaddr))
		tally->equal++;
	else
		tally->wrong++;
}

static void compare_range(const struct object *o, const struct cfi_range *range,
			  const ZydisDecoder *decoder, struct tally *all, struct tally *calls)
{
	const struct cfi_range_row *row = &o->ranges.rows[range->first_row];
	const struct cfi_range_row *last = row + range->row_count - 1;
	uint8_t code[ZYDIS_MAX_INSTRUCTION_LENGTH];
	ZydisDecodedInstruction insn;
	uint32_t at;

	for (at = range->start; at < range->end; at += insn.length) {
		size_t bytes = range->end - at < sizeof(code) ? range->end - at : sizeof(code);

		if (elf_image_copy(o->image, o->ranges.bias + at, code, bytes) ||
		    !ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(decoder, NULL, code, bytes, &insn)))
			return;
		while (row < last && row[1].start <= at)
			row++;
		if (insn.meta.category == ZYDIS_CATEGORY_CALL)
			compare_at(o->ranges.bias + at, row->rule, calls);
		if (insn.mnemonic != ZYDIS_MNEMONIC_NOP)
			compare_at(o->ranges.bias + at, row->rule, all);
	}
}

static void report(const char *path, const char *what, const struct tally *t)
{
	double sum = (double)t->equal + t->unknown + t->wrong;

	print_message("%s: %.0f %s, %.2f%% equal, %.2f%% unknown, %.3f%% wrong\n", path, sum, what,
		      100 * t->equal / sum, 100 * t->unknown / sum, 100 * t->wrong / sum);
}

/* In thousandths. */
static void assert_share(const struct tally *t, uint32_t equal_min, uint32_t wrong_max)
{
	uint64_t sum = (uint64_t)t->equal + t->unknown + t->wrong;

	assert_true(sum > 1000);
	assert_true(1000ull * t->equal >= equal_min * sum);
	assert_true(1000ull * t->wrong <= wrong_max * sum);
}

static void compare_object(const char *path)
{
	struct tally all = {0}, calls = {0};
	ZydisDecoder decoder;
	struct object o;
	uint32_t i;

	if (!object_open(path, &o)) {
		print_message("%s is not there\n", path);
		skip();
	}
	hide_cfi(&o);
	assert_int_equal(cfi_table_read_memory(o.data, o.size, rules, &table), 0);
	ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	for (i = 0; i < o.ranges.count; i++)
		compare_range(&o, &o.ranges.ranges[i], &decoder, &all, &calls);
	report(path, "instructions", &all);
	report(path, "calls", &calls);
	assert_share(&all, 900, 1);
	assert_share(&calls, 900, 1);
	object_close(&o);
}

static void libc_without_its_cfi(void **state)
{
	(void)state;
	compare_object("/lib/x86_64-linux-gnu/libc.so.6");
}

static void libm_without_its_cfi(void **state)
{
	(void)state;
	compare_object("/lib/x86_64-linux-gnu/libm.so.6");
}

/* Not one rule that the call frame information gives is another one now. */
static void assert_cfi_first(const char *path)
{
	const struct cfi_range *range;
	struct object o;
	uint32_t i, k;

	if (!object_open(path, &o))
		return;
	assert_int_equal(cfi_table_read_memory(o.data, o.size, rules, &table), 0);
	for (i = 0; i < o.ranges.count; i++) {
		range = &o.ranges.ranges[i];
		for (k = 0; k < range->row_count; k++) {
			struct cfi_range_row row = o.ranges.rows[range->first_row + k];
			uint32_t end = k + 1 < range->row_count
					       ? o.ranges.rows[range->first_row + k + 1].start
					       : range->end;

			if (row.start >= range->end)
				break;
			if (end > range->end)
				end = range->end;
			assert_int_equal(cfi_table_find(table, o.ranges.bias + row.start),
					 row.rule);
			assert_int_equal(cfi_table_find(table, o.ranges.bias + end - 1), row.rule);
		}
	}
	print_message("%s: %u functions as before\n", path, o.ranges.count);
	cfi_table_free(table);
	table = NULL;
	object_close(&o);
}

static void cfi_comes_first(void **state)
{
	(void)state;
	assert_cfi_first("/proc/self/exe");
	assert_cfi_first("/lib/x86_64-linux-gnu/libc.so.6");
	assert_cfi_first("/usr/lib/x86_64-linux-gnu/libstdc++.so.6");
	assert_cfi_first("/usr/bin/python3");
}

static void musl(void **state)
{
	int fd = open("/usr/lib/x86_64-linux-musl/libc.so", O_RDONLY);
	uint32_t i, rows, counts[16] = {0};

	(void)state;
	if (fd < 0) {
		print_message("musl is not installed\n");
		skip();
	}
	assert_int_equal(cfi_table_read(fd, rules, &table), 0);
	close(fd);
	rows = cfi_table_row_count(table);
	for (i = 0; i < rows; i++)
		counts[rule_set_get(rules, unwind_row_rule(cfi_table_rows(table)[i])).cfa >> 4]++;
	assert_true(rows > 5000);
	assert_int_equal(counts[UNWIND_CFA_SIGNAL], 1);
	assert_true(counts[UNWIND_CFA_END] >= 2);
	assert_true(counts[UNWIND_CFA_UNKNOWN] < rows / 25); /* 28 of musl 1.2.3, 219 of 1.2.5 */
	assert_int_equal(counts[UNWIND_CFA_FRAME_POINTER], 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(pushes_and_pops),
		TEST(moves_and_branches),
		TEST(frame_pointer),
		TEST(odd_frame_pointer),
		TEST(lost_stack),
		TEST(in_the_frame_of_the_caller),
		TEST(paths_that_disagree),
		TEST(registers_that_disagree),
		TEST(calls),
		TEST(cold_part),
		TEST(jump_table),
		TEST(jump_nobody_knows_where_to),
		TEST(functions_known_by_pointer),
		TEST(function_that_exits),
		TEST(outermost_frames),
		TEST(signal_restorer),
		TEST(foreign_code),
		TEST(nothing_known),
		TEST(hostile_symbols),
		TEST(hostile_sections),
		TEST(truncated),
		TEST(random_code),
		TEST(libc_without_its_cfi),
		TEST(libm_without_its_cfi),
		TEST(cfi_comes_first),
		TEST(musl),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
