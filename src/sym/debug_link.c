/* SPDX-License-Identifier: GPL-2.0-or-later */
/* By hand and not by libdwelf, which reads these sections whatever size they claim. */
#include "sym/debug_link.h"

#include <errno.h>
#include <string.h>

#define SECTION_BYTES_MAX (PATH_MAX + BUILD_ID_BYTES_MAX)

/* A section that begins with a string: its bytes, and those of the string with its end. */
static int read_section(Elf *elf, const char *section_name, const char **bytes, size_t *size,
			size_t *name_bytes)
{
	Elf_Scn *section = elf_file_section(elf, section_name, SECTION_BYTES_MAX);
	Elf_Data *data = section ? elf_getdata(section, NULL) : NULL;
	size_t length;

	if (!section)
		return -ENOENT;
	if (!data || !data->d_buf)
		return -EINVAL;
	length = strnlen(data->d_buf, data->d_size);
	if (length == 0 || length == data->d_size)
		return -EINVAL;
	*bytes = data->d_buf;
	*size = data->d_size;
	*name_bytes = length + 1;
	return 0;
}

int debug_link_read(Elf *elf, struct debug_link *out)
{
	size_t size, name_bytes, crc_at;
	const char *bytes;
	int err;

	err = read_section(elf, ".gnu_debuglink", &bytes, &size, &name_bytes);
	if (err)
		return err;
	crc_at = (name_bytes + 3) & ~(size_t)3;
	if (name_bytes > sizeof(out->name) || memchr(bytes, '/', name_bytes) ||
	    crc_at + sizeof(out->crc) > size)
		return -EINVAL;
	memcpy(out->name, bytes, name_bytes);
	memcpy(&out->crc, bytes + crc_at, sizeof(out->crc));
	return 0;
}

int debug_supplement_read(Elf *elf, struct debug_supplement *out)
{
	size_t size, name_bytes, id_bytes;
	const char *bytes;
	int err;

	err = read_section(elf, ".gnu_debugaltlink", &bytes, &size, &name_bytes);
	if (err)
		return err;
	id_bytes = size - name_bytes;
	if (name_bytes > sizeof(out->name) || id_bytes == 0 || id_bytes > BUILD_ID_BYTES_MAX)
		return -EINVAL;
	memcpy(out->name, bytes, name_bytes);
	build_id_to_hex((const uint8_t *)bytes + name_bytes, id_bytes, out->build_id);
	return 0;
}
