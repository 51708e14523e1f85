/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The memory of another process, by process_vm_readv(2) and process_vm_writev(2):
 * nobody is stopped, so what is read may change meanwhile, and every length and
 * pointer in it is to be checked.
 */
#ifndef LEAKTOP_MEMORY_H
#define LEAKTOP_MEMORY_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* All of it: 0, -EFAULT (not all is mapped), -ESRCH (gone), or another negative errno. */
int memory_read(pid_t pid, uint64_t address, void *to, size_t bytes);
/* As much as is there from @address on: bytes read, or negative errno. */
ssize_t memory_read_some(pid_t pid, uint64_t address, void *to, size_t bytes);
int memory_read_u64(pid_t pid, uint64_t address, uint64_t *out);

struct memory_piece {
	uint64_t address;
	void *to;
	size_t bytes;
	int err; /* out: 0 or -EFAULT */
};
/* Many small pieces with few system calls; one that is not mapped spoils no other.
 * 0, or negative errno (-ESRCH) when nothing could be read. */
int memory_read_many(pid_t pid, struct memory_piece *pieces, size_t count);

/* Replaces the aligned word at @address by @to if it is @from. The word is written in
 * one piece. 0, -EAGAIN (it is something else), or another negative errno. */
int memory_replace_u64(pid_t pid, uint64_t address, uint64_t from, uint64_t to);

#endif
