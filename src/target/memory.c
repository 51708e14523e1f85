/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "target/memory.h"

#include <errno.h>
#include <sys/uio.h>

#define PIECES_A_CALL 1024 /* IOV_MAX */

static int read_errno(void)
{
	/* An address that is none at all is EFAULT like one that is not mapped. */
	return errno == EINVAL || errno == EIO ? -EFAULT : -errno;
}

ssize_t memory_read_some(pid_t pid, uint64_t address, void *to, size_t bytes)
{
	struct iovec local = {to, bytes}, remote = {(void *)(uintptr_t)address, bytes};
	ssize_t n = process_vm_readv(pid, &local, 1, &remote, 1, 0);

	return n < 0 ? read_errno() : n;
}

int memory_read(pid_t pid, uint64_t address, void *to, size_t bytes)
{
	ssize_t n = memory_read_some(pid, address, to, bytes);

	if (n < 0)
		return (int)n;
	return (size_t)n == bytes ? 0 : -EFAULT;
}

int memory_read_u64(pid_t pid, uint64_t address, uint64_t *out)
{
	return memory_read(pid, address, out, sizeof(*out));
}

/* Marks the first pieces that @bytes read fill; returns how many. */
static size_t pieces_filled(struct memory_piece *pieces, size_t count, size_t bytes)
{
	size_t i = 0;

	while (i < count && bytes >= pieces[i].bytes) {
		bytes -= pieces[i].bytes;
		pieces[i++].err = 0;
	}
	return i;
}

/* One call; returns how many pieces are dealt with. The kernel stops at the first that
 * is not mapped. */
static ssize_t read_pieces(pid_t pid, struct memory_piece *pieces, size_t count)
{
	struct iovec local[PIECES_A_CALL], remote[PIECES_A_CALL];
	size_t done;
	ssize_t n;

	if (!count || count > PIECES_A_CALL)
		return -EINVAL;
	for (size_t i = 0; i < count; i++) {
		local[i] = (struct iovec){pieces[i].to, pieces[i].bytes};
		remote[i] = (struct iovec){(void *)(uintptr_t)pieces[i].address, pieces[i].bytes};
	}
	n = process_vm_readv(pid, local, count, remote, count, 0);
	if (n < 0 && read_errno() != -EFAULT)
		return read_errno();
	done = n < 0 ? 0 : pieces_filled(pieces, count, (size_t)n);
	if (done < count)
		pieces[done++].err = -EFAULT;
	return (ssize_t)done;
}

int memory_read_many(pid_t pid, struct memory_piece *pieces, size_t count)
{
	size_t done = 0;

	while (done < count) {
		size_t n = count - done < PIECES_A_CALL ? count - done : PIECES_A_CALL;
		ssize_t got = read_pieces(pid, pieces + done, n);

		if (got < 0)
			return (int)got;
		done += (size_t)got;
	}
	return 0;
}

int memory_replace_u64(pid_t pid, uint64_t address, uint64_t from, uint64_t to)
{
	struct iovec local = {&to, sizeof(to)}, remote = {(void *)(uintptr_t)address, sizeof(to)};
	uint64_t now;
	int err;

	if (address & 7)
		return -EINVAL;
	err = memory_read_u64(pid, address, &now);
	if (err)
		return err;
	if (now != from)
		return -EAGAIN;
	if (process_vm_writev(pid, &local, 1, &remote, 1, 0) != sizeof(to))
		return errno ? -errno : -EIO;
	return 0;
}
