/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "probe/planner.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <gnu/libc-version.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "probe/allocators.h"

#define VADDR 0x7f0000001000ull

static size_t unhex(const char *hex, uint8_t *out)
{
	size_t i, len = strlen(hex) / 2;

	for (i = 0; i < len; i++)
		assert_int_equal(sscanf(hex + 2 * i, "%2hhx", &out[i]), 1);
	return len;
}

/* The bytes go through the heap, so that AddressSanitizer sees a read behind them. */
static struct plan plan_hex(const char *hex, enum plan_kind kind, bool multi_nop, unsigned int args)
{
	uint8_t bytes[256], *code;
	size_t len = unhex(hex, bytes);
	struct plan p;

	code = malloc(len ? len : 1);
	assert_non_null(code);
	memcpy(code, bytes, len);
	p = plan_probe_args(code, len, VADDR, kind, multi_nop, args);
	free(code);
	return p;
}

static void assert_plan(struct plan p, uint32_t offset, uint32_t sp_words, enum insn_class insn)
{
	assert_int_equal(p.offset, offset);
	assert_int_equal(p.sp_words, sp_words);
	assert_int_equal(p.insn, insn);
}

#if defined(__x86_64__)

#define ALL PLAN_ALL_ARGS

struct prologue {
	const char *library;
	const char *function;
	const char *hex;
	enum plan_kind kind;
	unsigned int args;
	struct plan want;
};

/* First bytes of the functions in Debian 12's packages, but where noted. */
/* clang-format off */
static const struct prologue prologues[] = {
	{"glibc 2.36", "malloc",
	 "415455534889fb4883ec10803d461b1400000f84f80100004885db0f88fd0100",
	 PLAN_RETURN, ALL, {0, 0, INSN_PUSH}},
	{"glibc 2.36", "calloc",
	 "41554889f8415455534883ec1848f7e64889c30f90c04885db0f88d90200000f",
	 PLAN_RETURN, ALL, {0, 0, INSN_PUSH}},
	{"glibc 2.36", "realloc",
	 "4157415641554154554889f5534889fb4883ec28803d3d131400000f84570100",
	 PLAN_RETURN, ALL, {0, 0, INSN_PUSH}},
	{"glibc 2.36", "free",
	 "4885ff0f84bf00000055488d77f0534883ec18488b1dd69e1300488b47f8648b",
	 PLAN_FREE_NULL, 1, {9, 0, INSN_PUSH}},
	{"glibc 2.36", "free",
	 "4885ff0f84bf00000055488d77f0534883ec18488b1dd69e1300488b47f8648b",
	 PLAN_ENTRY, ALL, {3, 0, INSN_JUMP}},
	{"glibc 2.41, Debian 13", "malloc",
	 "415455534889fb4883ec10803d46991400000f84680100004885db0f886d0100",
	 PLAN_RETURN, ALL, {0, 0, INSN_PUSH}},
	{"glibc 2.41, Debian 13", "calloc",
	 "41564889f84155415455534883ec1048f7e64889c30f90c04885db0f882f0200",
	 PLAN_RETURN, ALL, {0, 0, INSN_PUSH}},
	{"glibc 2.41, Debian 13", "realloc",
	 "4157415641554154554889f5534889fb4883ec38803dfd8e1400000f84af0100",
	 PLAN_RETURN, ALL, {0, 0, INSN_PUSH}},
	{"glibc 2.41, Debian 13", "free",
	 "4885ff0f847f010000415741564155415455488d6ff0534883ec284c8b250e1e",
	 PLAN_FREE_NULL, 1, {9, 0, INSN_PUSH}},
	{"glibc 2.41, Debian 13", "free",
	 "4885ff0f847f010000415741564155415455488d6ff0534883ec284c8b250e1e",
	 PLAN_ENTRY, ALL, {3, 0, INSN_JUMP}},
	{"jemalloc 5.3.0", "malloc",
	 "4881ff001000000f8793000000488d155c7f2c00488d4707488b0d49960a0048",
	 PLAN_RETURN, ALL, {7, 0, INSN_JUMP}},
	{"jemalloc 5.3.0", "calloc",
	 "41574156415541544989f455534889fb4881ec8800000064488b2c2500000000",
	 PLAN_RETURN, ALL, {0, 0, INSN_PUSH}},
	{"jemalloc 5.3.0", "realloc",
	 "4157415641554154554889fd534889f34881ec8800000064488b042528000000",
	 PLAN_RETURN, ALL, {0, 0, INSN_PUSH}},
	{"jemalloc 5.3.0", "free",
	 "4889f8488b150e530a004889f948c1e81a4881e1000000c025f0000000644803"
	 "0425000000004801d0483b88b00100000f858a0000004889fe4c8b80b8010000",
	 PLAN_FREE_NULL, 1, {48, 0, INSN_JUMP}},
	{"jemalloc 5.3.0", "free",
	 "4889f8488b150e530a004889f948c1e81a4881e1000000c025f0000000644803"
	 "0425000000004801d0483b88b00100000f858a0000004889fe4c8b80b8010000",
	 PLAN_ENTRY, ALL, {0, 0, INSN_STEPPED}},
	{"gperftools 2.10", "malloc",
	 "488b05f93201004989f84885c00f858e000000488b05b621010064488b384885",
	 PLAN_RETURN, ALL, {0, 0, INSN_STEPPED}},
	{"gperftools 2.10", "malloc",
	 "488b05f93201004989f84885c00f858e000000488b05b621010064488b384885",
	 PLAN_RETURN, 1, {13, 0, INSN_JUMP}},
	{"gperftools 2.10", "calloc",
	 "488b0d1939010064807910000f857e01000041574889f8415641554154555348",
	 PLAN_RETURN, ALL, {0, 0, INSN_STEPPED}},
	{"gperftools 2.10", "calloc",
	 "488b0d1939010064807910000f857e01000041574889f8415641554154555348",
	 PLAN_RETURN, 3, {12, 0, INSN_JUMP}},
	{"gperftools 2.10", "realloc",
	 "4157415641554154554889f5534883ec484885ff0f844e0200004989fc4885f6",
	 PLAN_RETURN, ALL, {0, 0, INSN_PUSH}},
	{"gperftools 2.10", "free",
	 "488b0599411c004885c00f85900000004889fa488b05f6420100488d0ddf9c01",
	 PLAN_FREE_NULL, 1, {10, 0, INSN_JUMP}},
	{"mimalloc 2.0.9", "malloc",
	 "488b0549b400004889fe64488b384881fe000400007729488d460748c1e80348",
	 PLAN_RETURN, ALL, {0, 0, INSN_STEPPED}},
	{"mimalloc 2.0.9", "malloc",
	 "488b0549b400004889fe64488b384881fe000400007729488d460748c1e80348",
	 PLAN_RETURN, 1, {0, 0, INSN_STEPPED}},
	{"mimalloc 2.0.9", "calloc",
	 "488b15c9ad00004889f864488b3a4883f801740848f7e64889c670644881fe00",
	 PLAN_RETURN, ALL, {0, 0, INSN_STEPPED}},
	{"mimalloc 2.0.9", "realloc",
	 "488b0549a900004889f24889fe64488b004889c7e9f74effff",
	 PLAN_RETURN, ALL, {0, 0, INSN_STEPPED}},
	{"mimalloc 2.0.9", "free",
	 "4889f94885ff745d488d7fff4889c84881e7000000fe4829f848c1e810488d04",
	 PLAN_FREE_NULL, 1, {6, 0, INSN_JUMP}},
	{"mimalloc 2.0.9", "free",
	 "4889f94885ff745d488d7fff4889c84881e7000000fe4829f848c1e810488d04",
	 PLAN_ENTRY, ALL, {0, 0, INSN_STEPPED}},
	{"mimalloc 2.0.9", "mi_heap_malloc",
	 "4881fe000400007727488d460748c1e803488b44c708488b50104885d2742148",
	 PLAN_RETURN, ALL, {7, 0, INSN_JUMP}},
	{"musl 1.2.3", "malloc",
	 "e96b190000",
	 PLAN_RETURN, ALL, {0, 0, INSN_JUMP}},
	{"musl 1.2.3", "calloc",
	 "41544989f455534885f6740c4889f848f7e60f80b90000004c0fafe74c89e7e8",
	 PLAN_RETURN, ALL, {0, 0, INSN_PUSH}},
	{"musl 1.2.3", "realloc",
	 "e9fbfaffff",
	 PLAN_RETURN, ALL, {0, 0, INSN_JUMP}},
	{"musl 1.2.3", "free",
	 "e9bb0a0000",
	 PLAN_FREE_NULL, 1, {0, 0, INSN_JUMP}},
	{"libstdc++ 12", "_Znwm",
	 "f30f1efa4885ffb80100000053480f45c74889c34889dfe86408ffff4885c074",
	 PLAN_RETURN, ALL, {12, 0, INSN_PUSH}},
	{"libstdc++ 12", "_ZdlPv",
	 "f30f1efae9872fffff",
	 PLAN_FREE_NULL, 1, {4, 0, INSN_JUMP}},
	{"libstdc++ 12", "_ZnwmRKSt9nothrow_t",
	 "f30f1efa4883ec08e81303ffff4883c408c3f30f1efa4889c7e9563fffff",
	 PLAN_RETURN, ALL, {0, 0, INSN_STEPPED}},
	{"libstdc++ 12", "_ZnwmRKSt9nothrow_t",
	 "f30f1efa4883ec08e81303ffff4883c408c3f30f1efa4889c7e9563fffff",
	 PLAN_ENTRY, ALL, {8, 1, INSN_CALL}},

	/* Debian 13 and later build these with endbr64 */
	{"jemalloc, -fcf-protection", "malloc",
	 "f30f1efa4881ff001000000f8793000000",
	 PLAN_RETURN, ALL, {11, 0, INSN_JUMP}},
	{"musl, -fcf-protection", "free",
	 "f30f1efae9bb0a0000",
	 PLAN_FREE_NULL, 1, {4, 0, INSN_JUMP}},

	/* assembled after the sequences of glibc 2.43 */
	{"glibc 2.43", "malloc",
	 "4885ff0f8800010000488d47174889f94883f81f",
	 PLAN_RETURN, ALL, {3, 0, INSN_JUMP}},
	{"glibc 2.43", "calloc",
	 "4889f848f7e60f80000100000f90c14885c0",
	 PLAN_RETURN, ALL, {0, 0, INSN_STEPPED}},
	{"glibc 2.43", "calloc",
	 "4889f848f7e60f80000100000f90c14885c0",
	 PLAN_RETURN, 3, {6, 0, INSN_JUMP}},
	{"glibc 2.43", "realloc",
	 "4889f84885ff0f8400010000554889f5",
	 PLAN_RETURN, ALL, {6, 0, INSN_JUMP}},
	{"glibc 2.43", "free",
	 "4885ff7440f647f80f7520488b47f8",
	 PLAN_FREE_NULL, 1, {3, 0, INSN_JUMP}},
};
/* clang-format on */

static void test_real_prologues(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(prologues) / sizeof(prologues[0]); i++) {
		const struct prologue *r = &prologues[i];
		struct plan p = plan_hex(r->hex, r->kind, false, r->args);

		if (p.offset != r->want.offset || p.insn != r->want.insn ||
		    p.sp_words != r->want.sp_words)
			fail_msg("%s %s: %s at +%u (%u words)", r->library, r->function,
				 insn_class_name(p.insn), p.offset, p.sp_words);
	}
}

static void test_default_arguments(void **state)
{
	/* mov r8,rdi; push rbx */
	static const uint8_t code[] = {0x49, 0x89, 0xf8, 0x53};

	(void)state;
	assert_plan(plan_probe(code, sizeof(code), 0, PLAN_ENTRY, true), 0, 0, INSN_STEPPED);
	assert_plan(plan_probe(code, sizeof(code), 0, PLAN_FREE_NULL, true), 3, 0, INSN_PUSH);
	assert_plan(plan_probe_args(code, sizeof(code), 0, PLAN_ENTRY, true, 1), 3, 0, INSN_PUSH);
}

static void test_argument_clobbers(void **state)
{
	static const char *const writers[] = {
		"31ff",	    /* xor edi,edi: the 32-bit half */
		"4889c6",   /* mov rsi,rax */
		"b201",	    /* mov dl,1 */
		"8d0c07",   /* lea ecx,[rdi+rax] */
		"4d31c0",   /* xor r8,r8 */
		"4c8b0f",   /* mov r9,[rdi] */
		"48f7e6",   /* mul rsi: rdx, hidden */
		"480f44f8", /* cmove rdi,rax: perhaps */
		"a4",	    /* movsb: rsi and rdi, hidden */
		"480fc1f8", /* xadd rax,rdi: the source as well */
		"87fe",	    /* xchg esi,edi */
		"0fa2",	    /* cpuid */
	};
	char hex[64];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(writers) / sizeof(writers[0]); i++) {
		snprintf(hex, sizeof(hex), "%s53", writers[i]); /* push rbx */
		assert_plan(plan_hex(hex, PLAN_RETURN, true, ALL), 0, 0, INSN_STEPPED);
	}
	/* Readers, and writers of other registers, do not stop. */
	assert_plan(plan_hex("4889f853", PLAN_RETURN, true, ALL), 3, 0, INSN_PUSH);
	assert_plan(plan_hex("8807"
			     "53",
			     PLAN_RETURN, true, ALL),
		    2, 0, INSN_PUSH);
	/* The place itself may clobber: the probe comes before it. */
	assert_plan(plan_hex("4889f8e800000000", PLAN_RETURN, true, ALL), 3, 0, INSN_CALL);
}

static void test_stack_pointer(void **state)
{
	(void)state;
	/* push rbx; nop: a tie goes to the entry; sub rsp,16; push */
	assert_plan(plan_hex("5390", PLAN_ENTRY, true, ALL), 0, 0, INSN_PUSH);
	assert_plan(plan_hex("4883ec1053", PLAN_ENTRY, true, ALL), 4, 2, INSN_PUSH);
	assert_plan(plan_hex("4883ec1053", PLAN_RETURN, true, ALL), 0, 0, INSN_STEPPED);
	/* push imm8 (stepped), then nop */
	assert_plan(plan_hex("6a0090", PLAN_ENTRY, true, ALL), 2, 1, INSN_NOP);
	/* push ax: two bytes; sub rsp,4; and rsp,-16; pop rbx; leave; sub rsp,rax */
	assert_plan(plan_hex("665090", PLAN_ENTRY, true, ALL), 0, 0, INSN_STEPPED);
	assert_plan(plan_hex("4883ec0490", PLAN_ENTRY, true, ALL), 0, 0, INSN_STEPPED);
	assert_plan(plan_hex("4883e4f090", PLAN_ENTRY, true, ALL), 0, 0, INSN_STEPPED);
	assert_plan(plan_hex("5b90", PLAN_ENTRY, true, ALL), 0, 0, INSN_STEPPED);
	assert_plan(plan_hex("c990", PLAN_ENTRY, true, ALL), 0, 0, INSN_STEPPED);
	assert_plan(plan_hex("4829c490", PLAN_ENTRY, true, ALL), 0, 0, INSN_STEPPED);
	/* 63 words fit the cookie, 64 do not; nor does a sum of 64 */
	assert_plan(plan_hex("4881ecf801000090", PLAN_ENTRY, true, ALL), 7, 63, INSN_NOP);
	assert_plan(plan_hex("4881ec0002000090", PLAN_ENTRY, true, ALL), 0, 0, INSN_STEPPED);
	assert_plan(plan_hex("6a004881ecf801000090", PLAN_ENTRY, true, ALL), 0, 0, INSN_STEPPED);
	/* sub rsp,-8 gives stack back */
	assert_plan(plan_hex("4883ecf890", PLAN_ENTRY, true, ALL), 0, 0, INSN_STEPPED);
}

static void test_straight_line_only(void **state)
{
	(void)state;
	/* behind jmp, ret, call, int3, ud2, syscall, an indirect jump */
	assert_plan(plan_hex("e9000100009090", PLAN_ENTRY, true, ALL), 0, 0, INSN_JUMP);
	assert_plan(plan_hex("c390", PLAN_ENTRY, true, ALL), 0, 0, INSN_STEPPED);
	assert_plan(plan_hex("e80001000090", PLAN_ENTRY, true, ALL), 0, 0, INSN_CALL);
	assert_plan(plan_hex("cc90", PLAN_ENTRY, true, ALL), 0, 0, INSN_STEPPED);
	assert_plan(plan_hex("0f0b90", PLAN_ENTRY, true, ALL), 0, 0, INSN_STEPPED);
	assert_plan(plan_hex("0f0590", PLAN_ENTRY, true, 1), 0, 0, INSN_STEPPED);
	assert_plan(plan_hex("ffe090", PLAN_ENTRY, true, ALL), 0, 0, INSN_STEPPED);
	/* test rax,rax; je; push: the jump is the last place */
	assert_plan(plan_hex("4885c0744053", PLAN_FREE_NULL, true, 1), 3, 0, INSN_JUMP);
	/* jrcxz is no jump that the kernel emulates, and ends the line */
	assert_plan(plan_hex("e34053", PLAN_ENTRY, true, ALL), 0, 0, INSN_STEPPED);
}

static void test_null_test(void **state)
{
	(void)state;
	assert_plan(plan_hex("4885ff744053", PLAN_FREE_NULL, true, 1), 5, 0, INSN_PUSH);
	assert_plan(plan_hex("4885ff744053", PLAN_ENTRY, true, ALL), 3, 0, INSN_JUMP);
	/* mov keeps the flags, add does not */
	assert_plan(plan_hex("4885ff4889f8744053", PLAN_FREE_NULL, true, 1), 8, 0, INSN_PUSH);
	assert_plan(plan_hex("4885ff4801f8744053", PLAN_FREE_NULL, true, 1), 6, 0, INSN_JUMP);
	/* jne falls through with NULL; test edi,edi and test rdi,rax ask something else */
	assert_plan(plan_hex("4885ff754053", PLAN_FREE_NULL, true, 1), 3, 0, INSN_JUMP);
	assert_plan(plan_hex("85ff744053", PLAN_FREE_NULL, true, 1), 2, 0, INSN_JUMP);
	assert_plan(plan_hex("4885c7744053", PLAN_FREE_NULL, true, 1), 3, 0, INSN_JUMP);
	/* a second je behind the first is no NULL test any more once flags changed */
	assert_plan(plan_hex("4885ff74404883f80174407453", PLAN_FREE_NULL, true, 1), 3, 0,
		    INSN_JUMP);
}

static void test_branch_targets(void **state)
{
	(void)state;
	/* mov rax,rdi; push rbx; ...; jmp back to the push */
	assert_plan(plan_hex("4889f85331c0ebfb", PLAN_ENTRY, true, ALL), 0, 0, INSN_STEPPED);
	/* the same jump to behind the push */
	assert_plan(plan_hex("4889f85331c0ebfc", PLAN_ENTRY, true, ALL), 3, 0, INSN_PUSH);
	/* a loop that begins before the place goes through it again */
	assert_plan(plan_hex("4889f84889c05331c0ebf8", PLAN_ENTRY, true, ALL), 0, 0, INSN_STEPPED);
	/* to the entry, by jmp and by jcc */
	assert_plan(plan_hex("4889f85331c0ebf8", PLAN_ENTRY, true, ALL), 0, 0, INSN_STEPPED);
	assert_plan(plan_hex("4889f853ffc80f85f4ffffff", PLAN_ENTRY, true, ALL), 0, 0,
		    INSN_STEPPED);
	/* into the middle of the entry */
	assert_plan(plan_hex("4889f853ffc80f85f6ffffff", PLAN_ENTRY, true, ALL), 0, 0,
		    INSN_STEPPED);
	/* into the middle of push r12 and of a 5-byte nop */
	assert_plan(plan_hex("4889f8415431c0ebfb", PLAN_ENTRY, true, ALL), 0, 0, INSN_STEPPED);
	assert_plan(plan_hex("4889f80f1f440000ebfb", PLAN_ENTRY, true, ALL), 0, 0, INSN_STEPPED);
	/* bytes that do not decode (06) do not hide a branch behind them */
	assert_plan(plan_hex("4889f853c306ebfb", PLAN_ENTRY, true, ALL), 0, 0, INSN_STEPPED);
	/* a NULL jump that lands on the fall-through: NULL would be seen, or seen twice */
	assert_plan(plan_hex("4885ff740053", PLAN_FREE_NULL, true, 1), 3, 0, INSN_JUMP);
}

static void test_nops(void **state)
{
	static const char *const multi[] = {
		"6690",		"0f1f00",	  "0f1f4000",	      "0f1f440000",
		"660f1f440000", "0f1f8000000000", "0f1f840000000000",
	};
	char hex[64];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(multi) / sizeof(multi[0]); i++) {
		snprintf(hex, sizeof(hex), "f30f1efa%s", multi[i]);
		assert_plan(plan_hex(hex, PLAN_RETURN, true, ALL), 4, 0, INSN_NOP);
		assert_plan(plan_hex(hex, PLAN_RETURN, false, ALL), 0, 0, INSN_STEPPED);
	}
	assert_plan(plan_hex("f30f1efa90", PLAN_RETURN, false, ALL), 4, 0, INSN_NOP);
	/* nine bytes; another encoding of three; xchg r8,rax; pause */
	assert_plan(plan_hex("660f1f840000000000", PLAN_RETURN, true, ALL), 0, 0, INSN_STEPPED);
	assert_plan(plan_hex("0f1f01", PLAN_RETURN, true, ALL), 0, 0, INSN_STEPPED);
	assert_plan(plan_hex("4990", PLAN_RETURN, true, ALL), 0, 0, INSN_STEPPED);
	assert_plan(plan_hex("f390", PLAN_RETURN, true, ALL), 0, 0, INSN_STEPPED);
	/* A nop behind a jump's price is taken, one behind a push is a tie. */
	assert_plan(plan_hex("4889f85390", PLAN_ENTRY, true, ALL), 3, 0, INSN_PUSH);
}

static void test_prefixed_are_stepped(void **state)
{
	(void)state;
	assert_plan(plan_hex("66e900010000", PLAN_RETURN, true, ALL), 0, 0, INSN_STEPPED);
	assert_plan(plan_hex("660f8400010000", PLAN_RETURN, true, ALL), 0, 0, INSN_STEPPED);
	assert_plan(plan_hex("f2e900010000", PLAN_RETURN, true, ALL), 0, 0, INSN_STEPPED);
	assert_plan(plan_hex("2e7440", PLAN_RETURN, true, ALL), 0, 0, INSN_STEPPED);
	assert_plan(plan_hex("4853", PLAN_RETURN, true, ALL), 0, 0, INSN_STEPPED);
	assert_plan(plan_hex("ff7708", PLAN_RETURN, true, ALL), 0, 0, INSN_STEPPED);
}

static void test_truncated(void **state)
{
	size_t len, i;
	uint8_t code[64];

	(void)state;
	assert_plan(plan_probe(NULL, 0, 0, PLAN_RETURN, true), 0, 0, INSN_STEPPED);
	assert_plan(plan_hex("0f", PLAN_ENTRY, true, ALL), 0, 0, INSN_STEPPED);
	assert_plan(plan_hex("06", PLAN_ENTRY, true, ALL), 0, 0, INSN_STEPPED);
	/* glibc's free, cut in the je: the entry; cut in the push's successor: the push */
	assert_plan(plan_hex("4885ff0f84bf0000", PLAN_FREE_NULL, true, 1), 0, 0, INSN_STEPPED);
	assert_plan(plan_hex("4885ff0f84bf0000005548", PLAN_FREE_NULL, true, 1), 9, 0, INSN_PUSH);
	for (i = 0; i < sizeof(prologues) / sizeof(prologues[0]); i++)
		for (len = unhex(prologues[i].hex, code); len-- > 0;) {
			char hex[2 * sizeof(code) + 1];

			snprintf(hex, 2 * len + 1, "%s", prologues[i].hex);
			assert_true(plan_hex(hex, prologues[i].kind, true, ALL).offset <= len);
		}
}

/* A probe only ever sits on an instruction that the walk from the entry meets. */
static void test_random_bytes(void **state)
{
	uint8_t code[256];
	unsigned int seed = 1, round;
	size_t i;

	(void)state;
	for (round = 0; round < 20000; round++) {
		enum plan_kind kind = (enum plan_kind)(round % 3);
		size_t len = (size_t)rand_r(&seed) % sizeof(code);
		struct plan p;

		for (i = 0; i < len; i++)
			code[i] = (uint8_t)(rand_r(&seed) >> 7);
		p = plan_probe(code, len, UINT64_MAX - 100, kind, round & 1);
		assert_true(p.offset == 0 || p.offset < len);
		assert_true(p.offset == 0 || p.insn != INSN_STEPPED);
		assert_true(p.sp_words <= (kind == PLAN_RETURN ? 0u : 63u));
	}
}

static struct plan plan_live(const struct alloc_sites *s, const char *name, enum plan_kind kind)
{
	size_t i;

	for (i = 0; i < s->count; i++)
		if (strcmp(s->items[i].func->name, name) == 0)
			return plan_probe(s->items[i].code, s->items[i].code_len, s->items[i].vaddr,
					  kind, false);
	fail_msg("no %s in the C library", name);
	return (struct plan){0};
}

static void test_live_libc(void **state)
{
	const char *version = gnu_get_libc_version();
	struct alloc_sites sites;
	Dl_info info;
	int fd;

	(void)state;
	if (strcmp(version, "2.36") != 0 && strcmp(version, "2.41") != 0) {
		print_message("the plans for glibc %s are not written down\n", version);
		skip();
	}
	assert_int_not_equal(dladdr((void *)gnu_get_libc_version, &info), 0);
	fd = open(info.dli_fname, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(alloc_sites_scan(fd, NULL, &sites), 0);
	assert_plan(plan_live(&sites, "malloc", PLAN_RETURN), 0, 0, INSN_PUSH);
	assert_plan(plan_live(&sites, "calloc", PLAN_RETURN), 0, 0, INSN_PUSH);
	assert_plan(plan_live(&sites, "realloc", PLAN_RETURN), 0, 0, INSN_PUSH);
	assert_plan(plan_live(&sites, "free", PLAN_FREE_NULL), 9, 0, INSN_PUSH);
	alloc_sites_release(&sites);
	close(fd);
}

#else

static void test_entry_only(void **state)
{
	(void)state;
	assert_plan(plan_hex("90909090", PLAN_ENTRY, true, PLAN_ALL_ARGS), 0, 0, INSN_STEPPED);
}

#endif

static void test_class_names(void **state)
{
	(void)state;
	assert_string_equal(insn_class_name(INSN_NOP), "nop");
	assert_string_equal(insn_class_name(INSN_STEPPED), "stepped");
	assert_string_equal(insn_class_name((enum insn_class)99), "unknown");
}

/* Linux 6.18 makes a call of a probed nop of five bytes, which forked children die of. */
static void never_on_a_nop_of_five_bytes(void **state)
{
	struct plan p;

	(void)state;
	/* nopl 0(%rax,%rax,1); mov %rdi,%rax; ret */
	p = plan_hex("0f1f4400004889f8c3", PLAN_RETURN, false, PLAN_ALL_ARGS);
	assert_int_equal(p.offset, 5);
	assert_int_equal(p.insn, INSN_STEPPED);
	/* the same before push %rbx, and twice */
	p = plan_hex("0f1f440000534889fb", PLAN_ENTRY, false, PLAN_ALL_ARGS);
	assert_int_equal(p.offset, 5);
	assert_int_equal(p.insn, INSN_PUSH);
	p = plan_hex("0f1f4400000f1f440000c3", PLAN_RETURN, false, PLAN_ALL_ARGS);
	assert_int_equal(p.offset, 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#if defined(__x86_64__)
		cmocka_unit_test(test_real_prologues),
		cmocka_unit_test(test_default_arguments),
		cmocka_unit_test(test_argument_clobbers),
		cmocka_unit_test(test_stack_pointer),
		cmocka_unit_test(test_straight_line_only),
		cmocka_unit_test(test_null_test),
		cmocka_unit_test(test_branch_targets),
		cmocka_unit_test(test_nops),
		cmocka_unit_test(test_prefixed_are_stepped),
		cmocka_unit_test(test_truncated),
		cmocka_unit_test(test_random_bytes),
		cmocka_unit_test(test_live_libc),
#else
		cmocka_unit_test(test_entry_only),
#endif
		cmocka_unit_test(test_class_names),
		cmocka_unit_test(never_on_a_nop_of_five_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
