/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Argument positions are those of the manual pages malloc(3) and mmap(2), of
 * C23, of the Itanium C++ ABI (64-bit size_t) and of the headers of jemalloc
 * 5.3, gperftools 2.10 and mimalloc 2.0.9.
 *
 * Left out on purpose: xallocx, mi_expand and other in-place resizers, which
 * return a size or keep the block; mi_reallocarr, which stores through its
 * argument and has an old block as well; strdup and its kind, which have no
 * size argument.
 */
#include "probe/allocators.h"

#include <string.h>

#include "probe/planner.h"

#define NONE SPEC_NO_ARG

/* Names that are distinctive only as a whole (a function called "new" or
 * "zalloc" may be anybody's) are not tried behind a prefix. */
struct row {
	struct alloc_func func;
	bool prefixable;
};

#define SPEC(o, d, size, count, ptr)                                                \
	{                                                                           \
		.op = (o), .domain = (d), .size_arg = (size), .count_arg = (count), \
		.ptr_arg = (ptr)                                                    \
	}
#define ROW(n, o, d, size, count, ptr, prefix)                               \
	{                                                                    \
		.func = {.name = (n), .spec = SPEC(o, d, size, count, ptr)}, \
		.prefixable = (prefix)                                       \
	}

/* Behind a prefix as well as bare. */
#define BASE_ALLOC(n, size, count) ROW(n, OP_ALLOC, DOMAIN_MALLOC, size, count, NONE, true)
#define BASE_REALLOC(n, size, count) ROW(n, OP_REALLOC, DOMAIN_MALLOC, size, count, 0, true)
#define BASE_FREE(n) ROW(n, OP_FREE, DOMAIN_MALLOC, NONE, NONE, 0, true)

#define ALLOC(n, size, count) ROW(n, OP_ALLOC, DOMAIN_MALLOC, size, count, NONE, false)
#define REALLOC(n, size, count, ptr) ROW(n, OP_REALLOC, DOMAIN_MALLOC, size, count, ptr, false)
#define FREE(n) ROW(n, OP_FREE, DOMAIN_MALLOC, NONE, NONE, 0, false)
#define MAP(n, o, size, ptr) ROW(n, o, DOMAIN_MMAP, size, NONE, ptr, false)

/* The order matters: of two names for one address the earlier row is taken. */
static const struct row rows[] = {
	BASE_ALLOC("malloc", 0, NONE), BASE_ALLOC("calloc", 1, 0), BASE_REALLOC("realloc", 1, NONE),
	BASE_REALLOC("reallocarray", 2, 1),
	ROW("posix_memalign", OP_ALLOC_OUT, DOMAIN_MALLOC, 2, NONE, 0, true),
	BASE_ALLOC("aligned_alloc", 1, NONE), BASE_ALLOC("memalign", 1, NONE),
	BASE_ALLOC("valloc", 0, NONE), BASE_ALLOC("pvalloc", 0, NONE), BASE_FREE("free"),
	BASE_FREE("cfree"), BASE_FREE("free_sized"), BASE_FREE("free_aligned_sized"),

	/* jemalloc: size or pointer first, flags last */
	BASE_ALLOC("mallocx", 0, NONE), BASE_REALLOC("rallocx", 1, NONE), BASE_FREE("dallocx"),
	BASE_FREE("sdallocx"),

	/* where exceptions and thread cancellation start to unwind (libgcc, LLVM's libunwind) */
	ROW("_Unwind_RaiseException", OP_UNWIND, DOMAIN_MALLOC, NONE, NONE, NONE, false),
	ROW("_Unwind_ForcedUnwind", OP_UNWIND, DOMAIN_MALLOC, NONE, NONE, NONE, false),
	ROW("_Unwind_Resume_or_Rethrow", OP_UNWIND, DOMAIN_MALLOC, NONE, NONE, NONE, false),

	/* operator new and new[]: plain, nothrow, align_val_t, both */
	ALLOC("_Znwm", 0, NONE), ALLOC("_ZnwmRKSt9nothrow_t", 0, NONE),
	ALLOC("_ZnwmSt11align_val_t", 0, NONE),
	ALLOC("_ZnwmSt11align_val_tRKSt9nothrow_t", 0, NONE), ALLOC("_Znam", 0, NONE),
	ALLOC("_ZnamRKSt9nothrow_t", 0, NONE), ALLOC("_ZnamSt11align_val_t", 0, NONE),
	ALLOC("_ZnamSt11align_val_tRKSt9nothrow_t", 0, NONE),
	/* operator delete and delete[]: the same and the sized forms */
	FREE("_ZdlPv"), FREE("_ZdlPvm"), FREE("_ZdlPvRKSt9nothrow_t"),
	FREE("_ZdlPvSt11align_val_t"), FREE("_ZdlPvmSt11align_val_t"),
	FREE("_ZdlPvSt11align_val_tRKSt9nothrow_t"), FREE("_ZdaPv"), FREE("_ZdaPvm"),
	FREE("_ZdaPvRKSt9nothrow_t"), FREE("_ZdaPvSt11align_val_t"), FREE("_ZdaPvmSt11align_val_t"),
	FREE("_ZdaPvSt11align_val_tRKSt9nothrow_t"),

	/* gperftools */
	ALLOC("tc_malloc_skip_new_handler", 0, NONE), ALLOC("tc_new", 0, NONE),
	ALLOC("tc_new_nothrow", 0, NONE), ALLOC("tc_new_aligned", 0, NONE),
	ALLOC("tc_new_aligned_nothrow", 0, NONE), ALLOC("tc_newarray", 0, NONE),
	ALLOC("tc_newarray_nothrow", 0, NONE), ALLOC("tc_newarray_aligned", 0, NONE),
	ALLOC("tc_newarray_aligned_nothrow", 0, NONE), FREE("tc_delete"), FREE("tc_delete_sized"),
	FREE("tc_delete_nothrow"), FREE("tc_delete_aligned"), FREE("tc_delete_sized_aligned"),
	FREE("tc_delete_aligned_nothrow"), FREE("tc_deletearray"), FREE("tc_deletearray_sized"),
	FREE("tc_deletearray_nothrow"), FREE("tc_deletearray_aligned"),
	FREE("tc_deletearray_sized_aligned"), FREE("tc_deletearray_aligned_nothrow"),

	/* mimalloc; mi_reallocf frees the old block on failure too */
	ALLOC("mi_malloc_small", 0, NONE), ALLOC("mi_zalloc", 0, NONE),
	ALLOC("mi_zalloc_small", 0, NONE), ALLOC("mi_mallocn", 1, 0),
	REALLOC("mi_reallocn", 2, 1, 0), REALLOC("mi_reallocf", 1, NONE, 0),
	REALLOC("mi_rezalloc", 1, NONE, 0), REALLOC("mi_recalloc", 2, 1, 0),
	ALLOC("mi_malloc_aligned", 0, NONE), ALLOC("mi_malloc_aligned_at", 0, NONE),
	ALLOC("mi_zalloc_aligned", 0, NONE), ALLOC("mi_zalloc_aligned_at", 0, NONE),
	ALLOC("mi_calloc_aligned", 1, 0), ALLOC("mi_calloc_aligned_at", 1, 0),
	REALLOC("mi_realloc_aligned", 1, NONE, 0), REALLOC("mi_realloc_aligned_at", 1, NONE, 0),
	REALLOC("mi_rezalloc_aligned", 1, NONE, 0), REALLOC("mi_rezalloc_aligned_at", 1, NONE, 0),
	REALLOC("mi_recalloc_aligned", 2, 1, 0), REALLOC("mi_recalloc_aligned_at", 2, 1, 0),
	REALLOC("mi_aligned_recalloc", 2, 1, 0), REALLOC("mi_aligned_offset_recalloc", 2, 1, 0),
	ALLOC("mi_new", 0, NONE), ALLOC("mi_new_n", 1, 0), ALLOC("mi_new_nothrow", 0, NONE),
	ALLOC("mi_new_aligned", 0, NONE), ALLOC("mi_new_aligned_nothrow", 0, NONE),
	REALLOC("mi_new_realloc", 1, NONE, 0), REALLOC("mi_new_reallocn", 2, 1, 0),
	FREE("mi_free_size"), FREE("mi_free_aligned"), FREE("mi_free_size_aligned"),
	/* the heap comes first */
	ALLOC("mi_heap_malloc", 1, NONE), ALLOC("mi_heap_malloc_small", 1, NONE),
	ALLOC("mi_heap_zalloc", 1, NONE), ALLOC("mi_heap_calloc", 2, 1),
	ALLOC("mi_heap_mallocn", 2, 1), ALLOC("mi_heap_malloc_aligned", 1, NONE),
	ALLOC("mi_heap_malloc_aligned_at", 1, NONE), ALLOC("mi_heap_zalloc_aligned", 1, NONE),
	ALLOC("mi_heap_zalloc_aligned_at", 1, NONE), ALLOC("mi_heap_calloc_aligned", 2, 1),
	ALLOC("mi_heap_calloc_aligned_at", 2, 1), ALLOC("mi_heap_alloc_new", 1, NONE),
	ALLOC("mi_heap_alloc_new_n", 2, 1), REALLOC("mi_heap_realloc", 2, NONE, 1),
	REALLOC("mi_heap_reallocn", 3, 2, 1), REALLOC("mi_heap_reallocf", 2, NONE, 1),
	REALLOC("mi_heap_rezalloc", 2, NONE, 1), REALLOC("mi_heap_recalloc", 3, 2, 1),
	REALLOC("mi_heap_realloc_aligned", 2, NONE, 1),
	REALLOC("mi_heap_realloc_aligned_at", 2, NONE, 1),
	REALLOC("mi_heap_rezalloc_aligned", 2, NONE, 1),
	REALLOC("mi_heap_rezalloc_aligned_at", 2, NONE, 1),
	REALLOC("mi_heap_recalloc_aligned", 3, 2, 1),
	REALLOC("mi_heap_recalloc_aligned_at", 3, 2, 1),

	MAP("mmap", OP_MMAP, 1, NONE), MAP("mmap64", OP_MMAP, 1, NONE),
	MAP("munmap", OP_MUNMAP, 1, 0),
	MAP("mremap", OP_MREMAP, 2, 0), /* the new length; the old one is argument 1 */
	MAP("brk", OP_BRK, NONE, 0),
	MAP("sbrk", OP_BRK, 0, NONE), /* the increment, a signed number */
};

static const char *const prefixes[] = {"je_", "_rjem_", "tc_", "mi_", "__libc_"};

/* The first letter is compared here: objects have a million symbols. */
static const struct alloc_func *find_row(const char *name, bool behind_prefix)
{
	size_t i;

	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct row *r = &rows[i];

		if (r->func.name[0] == name[0] && (r->prefixable || !behind_prefix) &&
		    strcmp(r->func.name, name) == 0)
			return &r->func;
	}
	return NULL;
}

static const struct alloc_func *find_behind(const char *prefix, const char *symbol)
{
	size_t len = strlen(prefix);

	return strncmp(symbol, prefix, len) == 0 ? find_row(symbol + len, true) : NULL;
}

const struct alloc_func *alloc_func_find(const char *symbol, const char *extra_prefix)
{
	const struct alloc_func *f = find_row(symbol, false);
	size_t i;

	for (i = 0; !f && i < sizeof(prefixes) / sizeof(prefixes[0]); i++)
		f = find_behind(prefixes[i], symbol);
	if (!f && extra_prefix)
		f = find_behind(extra_prefix, symbol);
	return f;
}

bool alloc_func_throws(const struct alloc_func *f)
{
	bool is_new = strncmp(f->name, "_Zn", 3) == 0 || strstr(f->name, "new");

	/* Nothrow forms call the others and catch: what they let out is no exception. */
	return is_new && !strstr(f->name, "nothrow") && !strstr(f->name, "skip_new");
}

unsigned int alloc_func_args(const struct alloc_func *f)
{
	unsigned int bits =
		1u << f->spec.size_arg | 1u << f->spec.count_arg | 1u << f->spec.ptr_arg;

	/* Mappings have arguments without a field, flags for one. */
	return f->spec.domain == DOMAIN_MMAP ? PLAN_ALL_ARGS : bits & PLAN_ALL_ARGS;
}
