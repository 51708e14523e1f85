/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "probe/closer.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>

#define THREADS 16

struct job {
	struct job *next;
	void (*fn)(void *arg);
	void *arg;
};

struct closer {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct job *jobs;
	pthread_t threads[THREADS];
	size_t thread_count, idle_count;
	bool stop;
};

struct closer *closer_new(void)
{
	struct closer *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->changed, NULL);
	return c;
}

/* The next job, or NULL when there will be none. Called and returns locked. */
static struct job *next_job(struct closer *c)
{
	struct job *job;

	c->idle_count++;
	while (!c->jobs && !c->stop)
		pthread_cond_wait(&c->changed, &c->lock);
	c->idle_count--;
	job = c->jobs;
	if (job)
		c->jobs = job->next;
	return job;
}

static void *work(void *arg)
{
	struct closer *c = arg;
	struct job *job;

	pthread_mutex_lock(&c->lock);
	while ((job = next_job(c))) {
		pthread_mutex_unlock(&c->lock);
		job->fn(job->arg);
		free(job);
		pthread_mutex_lock(&c->lock);
	}
	pthread_mutex_unlock(&c->lock);
	return NULL;
}

/* Called locked. */
static void add_thread(struct closer *c)
{
	if (c->idle_count || c->thread_count == THREADS)
		return;
	if (!pthread_create(&c->threads[c->thread_count], NULL, work, c))
		c->thread_count++;
}

void closer_put(struct closer *c, void (*fn)(void *arg), void *arg)
{
	struct job *job = calloc(1, sizeof(*job));
	bool taken;

	pthread_mutex_lock(&c->lock);
	if (job)
		add_thread(c);
	taken = job && c->thread_count;
	if (taken) {
		*job = (struct job){c->jobs, fn, arg};
		c->jobs = job;
		pthread_cond_signal(&c->changed);
	}
	pthread_mutex_unlock(&c->lock);
	if (taken)
		return;
	free(job);
	fn(arg);
}

void closer_free(struct closer *c)
{
	if (!c)
		return;
	pthread_mutex_lock(&c->lock);
	c->stop = true;
	pthread_cond_broadcast(&c->changed);
	pthread_mutex_unlock(&c->lock);
	for (size_t i = 0; i < c->thread_count; i++)
		pthread_join(c->threads[i], NULL);
	pthread_cond_destroy(&c->changed);
	pthread_mutex_destroy(&c->lock);
	free(c);
}
