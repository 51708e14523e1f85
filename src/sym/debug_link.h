/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What an ELF file says of the files that hold its debug information. */
#ifndef LEAKTOP_DEBUG_LINK_H
#define LEAKTOP_DEBUG_LINK_H

#include <gelf.h>
#include <limits.h>
#include <stdint.h>

#include "sym/elf_file.h"

struct debug_link {
	char name[NAME_MAX + 1]; /* no slash in it */
	uint32_t crc;		 /* of the whole file */
};

struct debug_supplement {
	char name[PATH_MAX];
	char build_id[BUILD_ID_HEX_BYTES];
};

/* .gnu_debuglink. 0, -ENOENT if there is none, -EINVAL if it is damaged. */
int debug_link_read(Elf *elf, struct debug_link *out);
/* .gnu_debugaltlink, which dwz makes. The same. */
int debug_supplement_read(Elf *elf, struct debug_supplement *out);

#endif
