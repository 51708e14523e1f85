/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where the fields of CPython's structures are, by version: from a generated table up
 * to 3.12 (tools/python-layouts makes layout_table.h from CPython's own headers), from
 * _Py_DebugOffsets in the process itself from 3.13 on (Include/internal/
 * pycore_debug_offsets.h). PYTHON_NONE: there is no such field.
 */
#ifndef LEAKTOP_PYTHON_LAYOUT_H
#define LEAKTOP_PYTHON_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

#include "python_walk.h"

struct python_layout {
	/* For the BPF programs; the slots and the range of the evaluation function are not
	 * of the version and are filled in by interpreter_find() and later. */
	struct python_walk walk;

	/* _PyRuntime */
	uint32_t runtime_interpreters_head; /* PyInterpreterState *, first of the list */
	uint32_t runtime_gilstate_current;  /* to 3.11: tstate_current; else UINT32_MAX */
	uint32_t runtime_gilstate_key;	    /* Py_tss_t autoTSSkey (int is_initialized, key); else
					       UINT32_MAX */
	uint32_t runtime_ref_tracer;	    /* 3.13 on: ref_tracer.tracer_func; else UINT32_MAX */
	/* PyInterpreterState */
	uint32_t interp_next, interp_threads_head, interp_id;
	uint32_t interp_gc;  /* struct _gc_runtime_state; to 3.8 it is in _PyRuntime: UINT32_MAX */
	uint32_t runtime_gc; /* 3.8: UINT32_MAX else */
	/* PyThreadState */
	uint32_t thread_next;
};

/*
 * The table row for 3.@minor (8 to 12), without slots. -ENOTSUP for others.
 */
int python_layout_by_version(int minor, struct python_layout *out);

/*
 * From the first @bytes of _PyRuntime, which begin with _Py_DebugOffsets (3.13 on).
 * Everything is checked for sense (offsets within bounds). -ENOTSUP: a version that
 * is not known; -EINVAL: no such table.
 */
int python_layout_by_offsets(const void *runtime, size_t bytes, int minor,
			     struct python_layout *out);

#endif
