/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Starts this test program anew as the child of heap_child.h and reads what it says it has. */
#ifndef LEAKTOP_TEST_HEAP_HOST_H
#define LEAKTOP_TEST_HEAP_HOST_H

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "heap_child.h"

#define HEAP_CHILD_ARG "heap-child"

struct heap_host {
	pid_t pid;
	struct heap_truth *truth; /* by address, held ones first */
	size_t count;
};

static inline int heap_truth_order(const void *a, const void *b)
{
	const struct heap_truth *x = a, *y = b;

	if (x->address != y->address)
		return x->address < y->address ? -1 : 1;
	return x->held == y->held ? 0 : x->held ? -1 : 1;
}

/* What was freed at an address that another block has now cannot be told from that one. */
static inline void heap_truth_unique(struct heap_host *h)
{
	size_t kept = 0;

	qsort(h->truth, h->count, sizeof(*h->truth), heap_truth_order);
	for (size_t i = 0; i < h->count; i++)
		if (!kept || h->truth[kept - 1].address != h->truth[i].address)
			h->truth[kept++] = h->truth[i];
	h->count = kept;
}

static inline bool heap_truth_read(struct heap_host *h, const char *file)
{
	FILE *f = fopen(file, "re");
	long bytes;

	if (!f)
		return false;
	fseek(f, 0, SEEK_END);
	bytes = ftell(f);
	rewind(f);
	h->truth = malloc((size_t)bytes + sizeof(*h->truth));
	h->count = fread(h->truth, sizeof(*h->truth), (size_t)bytes / sizeof(*h->truth), f);
	fclose(f);
	heap_truth_unique(h);
	return h->count > 0;
}

static inline bool heap_host_start(struct heap_host *h, const char *mode, unsigned int seed)
{
	char file[] = "/tmp/leaktop-heap-XXXXXX", number[16];
	int fd = mkstemp(file);
	bool ready = false;

	if (fd < 0)
		return false;
	close(fd);
	unlink(file);
	snprintf(number, sizeof(number), "%u", seed);
	fflush(NULL);
	h->truth = NULL;
	h->pid = fork();
	if (h->pid == 0) {
		execl("/proc/self/exe", "test", HEAP_CHILD_ARG, file, number, mode, (char *)NULL);
		_exit(127);
	}
	for (int i = 0; i < 6000 && !ready && !waitpid(h->pid, NULL, WNOHANG); i++) {
		usleep(10000);
		ready = !access(file, R_OK);
	}
	ready = ready && heap_truth_read(h, file);
	unlink(file);
	return ready;
}

static inline void heap_host_stop(struct heap_host *h)
{
	kill(h->pid, SIGKILL);
	waitpid(h->pid, NULL, 0);
	free(h->truth);
}

static inline bool heap_host_write(const struct heap_host *h, uint64_t address, uint64_t word)
{
	struct iovec local = {&word, sizeof(word)};
	struct iovec remote = {(void *)(uintptr_t)address, sizeof(word)};

	return process_vm_writev(h->pid, &local, 1, &remote, 1, 0) == sizeof(word);
}

/* To be called first in main(): the child's return value, or -1 in the test. */
static inline int heap_host_main(int argc, char **argv)
{
	if (argc < 5 || strcmp(argv[1], HEAP_CHILD_ARG) != 0)
		return -1;
	return heap_child_main(argv[2], strtoull(argv[3], NULL, 10), argv[4]);
}

#endif
