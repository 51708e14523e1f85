/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The library is loaded at run time, because it brings a web client with a dozen
 * libraries along, which nobody should need to install or to load who does not ask for
 * them. Its interface is that of elfutils, debuginfod/debuginfod.h.in.
 */
#include "sym/debuginfod.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "sym/elf_file.h"

#define LIBRARY "libdebuginfod.so.1"

typedef struct debuginfod_client client;
typedef client *begin_function(void);
typedef void end_function(client *c);
/* @build_id_bytes 0: @build_id is text in hex. */
typedef int find_function(client *c, const unsigned char *build_id, int build_id_bytes,
			  char **path);
typedef int progress_function(client *c, long done, long total);
typedef void set_progress_function(client *c, progress_function *progress);
typedef void set_data_function(client *c, void *data);
typedef void *get_data_function(client *c);

struct question {
	char build_id[BUILD_ID_HEX_BYTES];
	char *path; /* in the user's cache; NULL: not found */
};

struct debuginfod {
	client *client;
	end_function *end;
	find_function *find;
	struct question *questions;
	size_t question_count;
	unsigned int failures; /* in a row */
	atomic_bool cancelled;
};

/* dlsym() gives a pointer to data, which C does not let become a function. */
#define FIND_SYMBOL(library, name, pointer) (*(void **)(pointer) = dlsym(library, name), *(pointer))

/* Of the library. */
static get_data_function *get_user_data;

/* Called by the library between its steps, about once a second; non-zero ends the query. */
static int progress(client *c, long done, long total)
{
	struct debuginfod *d = get_user_data(c);

	(void)done;
	(void)total;
	return d && atomic_load(&d->cancelled);
}

static bool load(struct debuginfod *d, void *library)
{
	set_progress_function *set_progress;
	set_data_function *set_data;
	begin_function *begin;

	if (!FIND_SYMBOL(library, "debuginfod_begin", &begin) ||
	    !FIND_SYMBOL(library, "debuginfod_end", &d->end) ||
	    !FIND_SYMBOL(library, "debuginfod_find_debuginfo", &d->find))
		return false;
	d->client = begin();
	if (!d->client)
		return false;
	/* From elfutils 0.180; without it nothing can be cancelled. */
	if (FIND_SYMBOL(library, "debuginfod_set_progressfn", &set_progress) &&
	    FIND_SYMBOL(library, "debuginfod_set_user_data", &set_data) &&
	    FIND_SYMBOL(library, "debuginfod_get_user_data", &get_user_data)) {
		set_data(d->client, d);
		set_progress(d->client, progress);
	}
	return true;
}

struct debuginfod *debuginfod_new(void)
{
	const char *urls = getenv("DEBUGINFOD_URLS");
	struct debuginfod *d;
	void *library;

	if (!urls || !urls[strspn(urls, " ")])
		return NULL;
	setenv("DEBUGINFOD_TIMEOUT", DEBUGINFOD_STALL_SECONDS, 0);
	setenv("DEBUGINFOD_MAXTIME", DEBUGINFOD_SECONDS, 0);
	setenv("DEBUGINFOD_MAXSIZE", DEBUGINFOD_BYTES_MAX, 0);
	/* Never closed: libraries below it do not like to be unloaded. */
	library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
	if (!library) {
		log_warn("DEBUGINFOD_URLS is set, but there is no " LIBRARY
			 ": no debug information is fetched");
		return NULL;
	}
	d = calloc(1, sizeof(*d));
	if (d && !load(d, library)) {
		log_warn("DEBUGINFOD_URLS is set, but " LIBRARY " does not work");
		free(d);
		d = NULL;
	}
	return d;
}

void debuginfod_free(struct debuginfod *d)
{
	size_t i;

	if (!d)
		return;
	d->end(d->client);
	for (i = 0; i < d->question_count; i++)
		free(d->questions[i].path);
	free(d->questions);
	free(d);
}

static struct question *find_question(struct debuginfod *d, const char *build_id)
{
	size_t i;

	for (i = 0; i < d->question_count; i++) {
		if (!strcmp(d->questions[i].build_id, build_id))
			return &d->questions[i];
	}
	return NULL;
}

static struct question *add_question(struct debuginfod *d, const char *build_id)
{
	struct question *list, *added;

	if (d->question_count >= DEBUGINFOD_QUESTIONS_MAX ||
	    strlen(build_id) >= sizeof(added->build_id))
		return NULL;
	list = reallocarray(d->questions, d->question_count + 1, sizeof(*list));
	if (!list)
		return NULL;
	d->questions = list;
	added = &list[d->question_count++];
	strcpy(added->build_id, build_id);
	added->path = NULL;
	return added;
}

static void count_failure(struct debuginfod *d, int err)
{
	if (err >= 0 || err == -ENOENT) {
		d->failures = 0;
		return;
	}
	if (++d->failures == DEBUGINFOD_FAILURES_MAX && !atomic_load(&d->cancelled))
		log_warn("debuginfod fails (%s): no more debug information is fetched",
			 strerror(-err));
}

static int ask(struct debuginfod *d, struct question *q, const char *name)
{
	char *path = NULL;
	int fd;

	log_info("debuginfod: asking for %s, build id %s", name, q->build_id);
	fd = d->find(d->client, (const unsigned char *)q->build_id, 0, &path);
	log_info("debuginfod: %s: %s", name, fd < 0 ? strerror(-fd) : path ? path : "found");
	if (fd >= 0)
		q->path = path;
	else
		free(path);
	count_failure(d, fd);
	return fd;
}

static int open_again(const struct question *q)
{
	int fd = q->path ? open(q->path, O_RDONLY | O_CLOEXEC) : -1;

	return fd < 0 ? -ENOENT : fd;
}

int debuginfod_open(struct debuginfod *d, const char *build_id, const char *name)
{
	struct question *q = find_question(d, build_id);

	if (q)
		return open_again(q);
	if (atomic_load(&d->cancelled))
		return -ECANCELED;
	if (d->failures >= DEBUGINFOD_FAILURES_MAX)
		return -ENOENT;
	q = add_question(d, build_id);
	return q ? ask(d, q, name) : -E2BIG;
}

void debuginfod_cancel(struct debuginfod *d)
{
	atomic_store(&d->cancelled, true);
}
