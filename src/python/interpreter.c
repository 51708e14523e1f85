/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "python/interpreter.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "python/accessor.h"
#include "python/binary.h"
#include "python/thread_slots.h"
#include "target/memory.h"
#include "target/procfs.h"

#define MAPPINGS_MAX 65536
#define OFFSETS_BYTES 4096
#define TYPE_DEALLOC 48	 /* PyTypeObject.tp_dealloc, in all versions */
#define MINOR_OFFSETS 13 /* from here on _PyRuntime begins with _Py_DebugOffsets */

/* What CPython of every version exports, and other programs do not define. */
#define MARK "Py_GetVersion"

struct search {
	pid_t pid;
	struct interpreter *found;
	struct interpreter_problem *problem;
	struct binary *binary;
	bool musl;
};

static int refuse(struct search *s, const char *reason)
{
	s->problem->reason = reason;
	memcpy(s->problem->version, s->found->version, sizeof(s->problem->version));
	return -ENOTSUP;
}

/* --- the binary --- */

/* musl's C library is its dynamic linker too, and mapped by this name or (Debian) the other.
 * In static programs it does not matter. */
static bool is_musl(const char *path)
{
	const char *name = strrchr(path, '/');

	return name &&
	       (!strncmp(name, "/ld-musl-", strlen("/ld-musl-")) || !strcmp(name, "/libc.so"));
}

/* Files that cannot be opened or are no ELF files hold no interpreter. */
static int look_into(struct search *s, const struct mapping *m)
{
	struct binary *b;
	uint64_t vaddr;
	int err;

	err = binary_new(s->pid, m, &b);
	if (err)
		return err == -ESRCH || err == -ENOMEM ? err : 0;
	if (binary_symbol(b, MARK, &vaddr, NULL)) {
		binary_free(b);
		return 0;
	}
	s->binary = b;
	s->found->bias = binary_bias(b);
	s->found->inode = m->inode;
	s->found->dev_major = m->dev_major;
	s->found->dev_minor = m->dev_minor;
	return 0;
}

static bool same_file(const struct mapping *a, const struct mapping *b)
{
	return a->inode == b->inode && a->dev_major == b->dev_major && a->dev_minor == b->dev_minor;
}

static int find_binary(struct search *s)
{
	struct mapping m, last = {0};
	struct maps_iter *it;
	int err, more = 1;

	err = maps_iter_new(s->pid, &it);
	if (err)
		return err;
	for (int i = 0; !err && i < MAPPINGS_MAX; i++) {
		more = maps_iter_next(it, &m);
		if (more <= 0)
			break;
		if (!m.executable || !m.inode || same_file(&m, &last))
			continue;
		last = m;
		s->musl |= is_musl(m.path);
		if (!s->binary)
			err = look_into(s, &m);
	}
	maps_iter_free(it);
	if (!err && more < 0)
		err = more;
	return err ? err : s->binary ? 0 : -ENOENT;
}

/* --- its version --- */

static void __attribute__((format(printf, 2, 3)))
set_version(struct interpreter *i, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(i->version, sizeof(i->version), format, args);
	va_end(args);
}

/* PY_VERSION_HEX (Include/patchlevel.h). */
static void version_from_number(struct interpreter *i, uint64_t hex)
{
	unsigned int level = hex >> 4 & 0xf, serial = hex & 0xf;

	i->major = hex >> 24 & 0xff;
	i->minor = hex >> 16 & 0xff;
	i->micro = hex >> 8 & 0xff;
	set_version(i, "%d.%d.%d", i->major, i->minor, i->micro);
	if (level >= 0xa && level <= 0xc)
		snprintf(i->version + strlen(i->version), 8, "%s%u",
			 level == 0xa	? "a"
			 : level == 0xb ? "b"
					: "rc",
			 serial);
}

/* "3.10.13" or "3.9.0b4+", what the compiler knows as PY_VERSION. */
static bool version_from_text(struct interpreter *i, const char *text)
{
	char tail[8] = "";
	int major, minor, micro, fields;

	fields = sscanf(text, "%1d.%2d.%3d%7[abrc0-9+]", &major, &minor, &micro, tail);
	if (fields < 3 || major < 2 || major > 3)
		return false;
	i->major = major;
	i->minor = minor;
	i->micro = micro;
	set_version(i, "%d.%d.%d%s", major, minor, micro, tail);
	return true;
}

/* Py_GetVersion() names the version and the buffer that it is put in. */
static bool version_from_function(struct search *s)
{
	struct accessor a;
	char text[24];

	if (accessor_read(s->binary, MARK, &a))
		return false;
	for (size_t i = 0; i < a.touched_count; i++) {
		memset(text, 0, sizeof(text));
		if (memory_read_some(s->pid, a.touched[i], text, sizeof(text) - 1) > 0 &&
		    version_from_text(s->found, text))
			return true;
	}
	return false;
}

static bool read_version(struct search *s)
{
	uint64_t vaddr, hex;

	/* Py_Version, from 3.11 on. */
	if (!binary_symbol(s->binary, "Py_Version", &vaddr, NULL) &&
	    !binary_copy(s->binary, vaddr, &hex, sizeof(hex)) && hex >> 24 == 3) {
		version_from_number(s->found, hex);
		return true;
	}
	return version_from_function(s);
}

/* --- its layout --- */

static int layout_from_offsets(struct search *s)
{
	struct interpreter *i = s->found;
	uint64_t offsets[OFFSETS_BYTES / sizeof(uint64_t)] = {0};
	ssize_t bytes;
	int err;

	bytes = memory_read_some(s->pid, i->runtime, offsets, sizeof(offsets));
	if (bytes < 0)
		return bytes == -EFAULT ? refuse(s, "its _PyRuntime cannot be read") : (int)bytes;
	/* cookie, version, free_threaded: the first words of all of them. */
	if (offsets[2]) {
		i->free_threaded = true;
		snprintf(i->version + strlen(i->version), 2, "t");
		return refuse(s, "free-threaded CPython is not supported yet");
	}
	err = python_layout_by_offsets(offsets, (size_t)bytes, i->minor, &i->layout);
	if (err == -EINVAL)
		return refuse(s, "its debug offsets are not those of a release of this version");
	return err;
}

static int read_layout(struct search *s)
{
	struct interpreter *i = s->found;
	uint64_t vaddr;
	int err;

	if (i->major < 3 || i->minor < 8)
		return refuse(s, "CPython before 3.8 is not supported");
	if (binary_symbol(s->binary, "_PyRuntime", &vaddr, NULL))
		return refuse(s, "it does not export _PyRuntime");
	i->runtime = i->bias + vaddr;
	if (i->minor >= MINOR_OFFSETS) {
		err = layout_from_offsets(s);
	} else {
		/* With Py_REF_DEBUG objects and frames have more fields. */
		if (!binary_symbol(s->binary, "_Py_NegativeRefcount", &vaddr, NULL))
			return refuse(s, "debug builds of CPython before 3.13 are not supported");
		err = python_layout_by_version(i->minor, &i->layout);
	}
	if (err == -ENOTSUP && !s->problem->reason)
		return refuse(s, "this version of CPython is not known");
	return err;
}

/*
 * _PyRuntime.ref_tracer moves even between patch releases, and is to be written to. Its two
 * words, function and data, are all of _PyRuntime that PyRefTracer_GetTracer() touches.
 */
static void find_ref_tracer(struct search *s)
{
	struct interpreter *found = s->found;
	uint64_t vaddr, bytes, low = UINT64_MAX, high = 0;
	struct accessor a;

	if (binary_symbol(s->binary, "_PyRuntime", &vaddr, &bytes) ||
	    accessor_read(s->binary, "PyRefTracer_GetTracer", &a))
		return;
	for (size_t i = 0; i < a.touched_count; i++) {
		uint64_t offset = a.touched[i] - found->runtime;

		if (!offset || offset >= bytes)
			continue;
		low = offset < low ? offset : low;
		high = offset > high ? offset : high;
	}
	if (low < UINT32_MAX && high == low + 8 && !(low & 7))
		found->layout.runtime_ref_tracer = (uint32_t)low;
}

/* --- its functions --- */

static bool is_code(pid_t pid, uint64_t address)
{
	struct maps_iter *it;
	struct mapping m;
	bool code = false;

	if (maps_iter_new(pid, &it))
		return false;
	for (int i = 0; !code && i < MAPPINGS_MAX && maps_iter_next(it, &m) == 1; i++)
		code = m.executable && address >= m.start && address < m.end;
	maps_iter_free(it);
	return code;
}

static void find_functions(struct search *s)
{
	struct interpreter *i = s->found;
	uint64_t vaddr, bytes, dealloc;

	if (!binary_symbol(s->binary, "_PyEval_EvalFrameDefault", &vaddr, &bytes)) {
		i->eval_vaddr = vaddr;
		i->eval_bytes = bytes;
	}
	if (!binary_symbol(s->binary, "Py_FinalizeEx", &vaddr, NULL))
		i->finalize_vaddr = vaddr;
	if (!binary_symbol(s->binary, "PyCode_Type", &vaddr, NULL) &&
	    !memory_read_u64(s->pid, i->bias + vaddr + TYPE_DEALLOC, &dealloc) &&
	    is_code(s->pid, dealloc))
		i->code_dealloc = dealloc;
}

static int examine(struct search *s)
{
	int err;

	if (!read_version(s))
		return refuse(s, "its version cannot be read");
	err = read_layout(s);
	if (err)
		return err;
	find_ref_tracer(s);
	find_functions(s);
	err = thread_slots_find(s->binary, s->found->runtime, s->musl, &s->found->layout);
	if (err == -EFAULT)
		return refuse(s, "its threads are not where this version has them");
	return err;
}

int interpreter_find(pid_t pid, struct interpreter *out, struct interpreter_problem *problem)
{
	struct interpreter found = {.pid = pid};
	struct interpreter_problem why = {0};
	struct search s = {.pid = pid, .found = &found, .problem = &why};
	int err;

	err = find_binary(&s);
	if (!err)
		err = examine(&s);
	binary_free(s.binary);
	if (err == -ENOTSUP)
		*problem = why;
	if (!err || err == -EAGAIN)
		*out = found;
	return err;
}

int interpreter_open_binary(const struct interpreter *i)
{
	struct maps_iter *it;
	struct mapping m;
	int fd;

	fd = maps_iter_new(i->pid, &it);
	if (fd)
		return fd;
	fd = -ENOENT;
	for (int n = 0; fd == -ENOENT && n < MAPPINGS_MAX && maps_iter_next(it, &m) == 1; n++) {
		if (m.executable && m.inode == i->inode && m.dev_major == i->dev_major &&
		    m.dev_minor == i->dev_minor)
			fd = mapping_open(i->pid, &m);
	}
	maps_iter_free(it);
	return fd;
}
