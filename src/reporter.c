/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "reporter.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

#include "account/groups.h"
#include "account/snapshot.h"
#include "account/snapshot_names.h"
#include "account/snapshot_types.h"
#include "base/clock.h"
#include "sym/symbolizer.h"

struct reporter {
	const struct report_format *format;
	struct report_options options;
	FILE *out;
	struct symbolizer *symbolizer; /* the thread's, which keeps what it has read */
	struct type_cache *types;      /* likewise */

	pthread_mutex_t lock; /* for what follows */
	pthread_cond_t work, done;
	struct snapshot *snapshot; /* NULL: idle */
	int error;
	bool stop;

	pthread_t thread;
	bool started;
};

static int write_report(struct reporter *r, struct snapshot *s)
{
	int err = snapshot_name(s, r->symbolizer);

	if (!err)
		err = snapshot_type(s, r->types);
	if (!err)
		err = groups_fill(s);
	return err ? err : r->format->write(r->out, s, &r->options);
}

static void *write_reports(void *arg)
{
	struct reporter *r = arg;
	struct snapshot *s;
	int err;

	pthread_mutex_lock(&r->lock);
	while (!r->stop || r->snapshot) {
		s = r->snapshot;
		if (!s) {
			pthread_cond_wait(&r->work, &r->lock);
			continue;
		}
		pthread_mutex_unlock(&r->lock);
		err = write_report(r, s);
		snapshot_free(s);
		pthread_mutex_lock(&r->lock);
		if (!r->error)
			r->error = err;
		r->snapshot = NULL;
		pthread_cond_broadcast(&r->done);
	}
	pthread_mutex_unlock(&r->lock);
	return NULL;
}

static int start_thread(struct reporter *r)
{
	pthread_condattr_t monotonic;
	int err;

	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->work, NULL);
	pthread_cond_init(&r->done, &monotonic);
	pthread_condattr_destroy(&monotonic);
	err = pthread_create(&r->thread, NULL, write_reports, r);
	r->started = !err;
	return -err;
}

int reporter_new(const struct report_format *format, const struct report_options *options,
		 FILE *out, struct reporter **out_reporter)
{
	struct reporter *r = calloc(1, sizeof(*r));
	int err;

	if (!r)
		return -ENOMEM;
	r->format = format;
	r->options = *options;
	r->out = out;
	r->symbolizer = symbolizer_new();
	r->types = type_cache_new();
	err = r->symbolizer && r->types ? start_thread(r) : -ENOMEM;
	if (err) {
		reporter_free(r);
		return err;
	}
	*out_reporter = r;
	return 0;
}

void reporter_free(struct reporter *r)
{
	if (!r)
		return;
	if (r->started) {
		/* Whatever is still fetched is for nobody. */
		symbolizer_cancel(r->symbolizer);
		pthread_mutex_lock(&r->lock);
		r->stop = true;
		pthread_cond_signal(&r->work);
		pthread_mutex_unlock(&r->lock);
		pthread_join(r->thread, NULL);
		pthread_cond_destroy(&r->work);
		pthread_cond_destroy(&r->done);
		pthread_mutex_destroy(&r->lock);
	}
	type_cache_free(r->types);
	symbolizer_free(r->symbolizer);
	free(r);
}

void reporter_submit(struct reporter *r, struct snapshot *s)
{
	pthread_mutex_lock(&r->lock);
	r->snapshot = s;
	pthread_cond_signal(&r->work);
	pthread_mutex_unlock(&r->lock);
}

bool reporter_is_busy(struct reporter *r, int timeout_ms)
{
	struct timespec end = clock_deadline(timeout_ms);
	bool busy;

	pthread_mutex_lock(&r->lock);
	while (r->snapshot && timeout_ms &&
	       pthread_cond_timedwait(&r->done, &r->lock, &end) != ETIMEDOUT)
		;
	busy = r->snapshot != NULL;
	pthread_mutex_unlock(&r->lock);
	return busy;
}

int reporter_error(struct reporter *r)
{
	int err;

	pthread_mutex_lock(&r->lock);
	err = r->error;
	pthread_mutex_unlock(&r->lock);
	return err;
}
