/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Called back from the C library. */
#include <ftw.h>
#include <link.h>
#include <pthread.h>
#include <search.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "leak.h"

static int once;

static int first(unsigned bit)
{
	int is_new = !(once & 1 << bit);

	once |= 1 << bit;
	return is_new;
}

static int compare_sort(const void *a, const void *b)
{
	if (first(1))
		LEAK(1);
	return *(const int *)a - *(const int *)b;
}

static int compare_search(const void *a, const void *b)
{
	if (first(2))
		LEAK(2);
	return *(const int *)a - *(const int *)b;
}

static int compare_tree(const void *a, const void *b)
{
	if (first(3))
		LEAK(3);
	return *(const int *)a - *(const int *)b;
}

static void walk_tree(const void *node, VISIT which, int depth)
{
	(void)node;
	(void)which;
	(void)depth;
	if (first(4))
		LEAK(4);
}

static int file(const char *path, const struct stat *s, int type, struct FTW *f)
{
	(void)path;
	(void)s;
	(void)type;
	(void)f;
	if (first(5))
		LEAK(5);
	return 1;
}

static int object(struct dl_phdr_info *i, size_t size, void *data)
{
	(void)i;
	(void)size;
	(void)data;
	LEAK(6);
	return 1;
}

static void initialise(void)
{
	LEAK(7);
}

static void at_end(void)
{
	LEAK(8);
}

__attribute__((constructor)) static void before_main(void)
{
	LEAK(9);
}

__attribute__((destructor)) static void after_main(void)
{
	LEAK(10);
}

#ifdef __GLIBC__
static ssize_t cookie_write(void *cookie, const char *text, size_t size)
{
	(void)cookie;
	(void)text;
	if (first(11))
		LEAK(11);
	return (ssize_t)size;
}

static void print_to_cookie(void)
{
	cookie_io_functions_t io = {.write = cookie_write};
	FILE *f = fopencookie(NULL, "w", io);

	setvbuf(f, NULL, _IOLBF, 64);
	fprintf(f, "%s %5d %f %100s\n", "text", 12, 1.5, "wide");
	fclose(f);
}
#else
static void print_to_cookie(void)
{
}
#endif

int main(void)
{
	static pthread_once_t control = PTHREAD_ONCE_INIT;
	int v[100], key = 5;
	void *root = NULL;

	for (int i = 0; i < 100; i++)
		v[i] = (i * 37) % 100;
	atexit(at_end);
	qsort(v, 100, sizeof(*v), compare_sort);
	bsearch(&key, v, 100, sizeof(*v), compare_search);
	tsearch(&v[0], &root, compare_tree);
	tsearch(&v[1], &root, compare_tree);
	twalk(root, walk_tree);
	nftw("/", file, 5, FTW_PHYS);
	dl_iterate_phdr(object, NULL);
	pthread_once(&control, initialise);
	print_to_cookie();
	return 0;
}
