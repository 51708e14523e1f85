/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sym/mini_debug.h"

#include <errno.h>
#include <gelf.h>
#include <lzma.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sym/elf_file.h"

#define CHUNK_BYTES 65536

static int write_all(int fd, const uint8_t *bytes, size_t size)
{
	while (size) {
		ssize_t n = write(fd, bytes, size);

		if (n < 0)
			return -errno;
		bytes += n;
		size -= (size_t)n;
	}
	return 0;
}

static int lzma_error(lzma_ret ret)
{
	switch (ret) {
	case LZMA_MEM_ERROR:
		return -ENOMEM;
	case LZMA_MEMLIMIT_ERROR:
		return -E2BIG;
	default:
		return -EINVAL;
	}
}

static int unpack(lzma_stream *stream, int fd)
{
	uint8_t chunk[CHUNK_BYTES];
	lzma_ret ret;
	int err;

	do {
		stream->next_out = chunk;
		stream->avail_out = sizeof(chunk);
		/* All input is there: a stream that wants more gives LZMA_BUF_ERROR. */
		ret = lzma_code(stream, LZMA_FINISH);
		if (ret != LZMA_OK && ret != LZMA_STREAM_END)
			return lzma_error(ret);
		if (stream->total_out > MINI_DEBUG_BYTES_MAX)
			return -E2BIG;
		err = write_all(fd, chunk, sizeof(chunk) - stream->avail_out);
	} while (!err && ret != LZMA_STREAM_END);
	return err;
}

static int unpack_to_memory(const Elf_Data *packed)
{
	lzma_stream stream = LZMA_STREAM_INIT;
	int fd, err = 0;
	lzma_ret ret;

	fd = memfd_create("leaktop-symbols", MFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	ret = lzma_stream_decoder(&stream, MINI_DEBUG_MEMORY_MAX, 0);
	if (ret != LZMA_OK) {
		err = lzma_error(ret);
		goto out;
	}
	stream.next_in = packed->d_buf;
	stream.avail_in = packed->d_size;
	err = unpack(&stream, fd);
	lzma_end(&stream);
out:
	if (err)
		close(fd);
	return err ? err : fd;
}

int mini_debug_open(int fd)
{
	Elf_Scn *section;
	Elf_Data *data;
	Elf *elf;
	int err;

	err = elf_file_open(fd, &elf);
	if (err)
		return err;
	err = -ENOENT;
	section = elf_file_section(elf, ".gnu_debugdata", MINI_DEBUG_PACKED_MAX);
	if (section) {
		data = elf_getdata(section, NULL);
		err = data && data->d_buf ? unpack_to_memory(data) : -EINVAL;
	}
	elf_end(elf);
	return err;
}
