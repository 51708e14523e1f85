/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Threads' first functions, their ends, and signals in them. */
#include <pthread.h>
#include <signal.h>
#include <string.h>

#include "leak.h"

static pthread_key_t key;

NOINLINE static void work(unsigned k)
{
	LEAK(k);
}

static void *plain(void *arg)
{
	work((unsigned)(unsigned long)arg);
	LEAK((unsigned)(unsigned long)arg + 1);
	return NULL;
}

static void on_signal(int signo)
{
	(void)signo;
	work(10);
}

static void *with_signal(void *arg)
{
	raise(SIGUSR1);
	return arg;
}

static void clean(void *arg)
{
	work((unsigned)(unsigned long)arg);
}

static void *exits(void *arg)
{
	pthread_cleanup_push(clean, arg);
	pthread_exit(NULL);
	pthread_cleanup_pop(0);
	return NULL;
}

static void *with_key(void *arg)
{
	pthread_setspecific(key, arg);
	return NULL;
}

static void run(void *(*f)(void *), unsigned long arg)
{
	pthread_t t;

	pthread_create(&t, NULL, f, (void *)arg);
	pthread_join(t, NULL);
}

int main(void)
{
	struct sigaction a;

	memset(&a, 0, sizeof(a));
	a.sa_handler = on_signal;
	sigaction(SIGUSR1, &a, NULL);
	pthread_key_create(&key, clean);
	run(plain, 1);
	run(with_signal, 0);
	run(exits, 20);
	run(with_key, 30);
	work(40);
	return 0;
}
