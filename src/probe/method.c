/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "probe/method.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <linux/bpf.h>

#include "probe/self.h"

static const char *const names[] = {"auto", "session", "multi", "perf"};

const char *probe_method_name(enum probe_method m)
{
	return names[m];
}

int probe_method_parse(const char *name, enum probe_method *out)
{
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(name, names[i]))
			continue;
		*out = (enum probe_method)i;
		return 0;
	}
	return -EINVAL;
}

/* The part of union bpf_attr that BPF_LINK_CREATE reads for uprobe_multi, as in
 * include/uapi/linux/bpf.h of Linux 6.6. */
struct link_create_uprobe_multi {
	uint32_t prog_fd;
	uint32_t target_fd;
	uint32_t attach_type;
	uint32_t flags;
	uint64_t path;
	uint64_t offsets;
	uint64_t ref_ctr_offsets;
	uint64_t cookies;
	uint32_t count;
	uint32_t multi_flags;
	uint32_t pid;
	uint32_t pad;
};

int uprobe_multi_link(int prog_fd, int attach_type, uint32_t flags, pid_t pid, const char *path,
		      const uint64_t *offsets, const uint64_t *cookies, size_t count)
{
	struct link_create_uprobe_multi attr = {
		.prog_fd = (uint32_t)prog_fd,
		.attach_type = (uint32_t)attach_type,
		.path = (uintptr_t)path,
		.offsets = (uintptr_t)offsets,
		.cookies = (uintptr_t)cookies,
		.count = (uint32_t)count,
		.multi_flags = flags,
		.pid = (uint32_t)pid,
	};
	long fd = syscall(SYS_bpf, BPF_LINK_CREATE, &attr, sizeof(attr));

	return fd < 0 ? -errno : (int)fd;
}

/* return 0; exit */
int uprobe_empty_program(int attach_type)
{
	const struct bpf_insn insns[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0},
		{.code = BPF_JMP | BPF_EXIT},
	};
	LIBBPF_OPTS(bpf_prog_load_opts, opts,
		    .expected_attach_type = (enum bpf_attach_type)attach_type);
	int fd = bpf_prog_load(BPF_PROG_TYPE_KPROBE, "leaktop_probe", "GPL", insns, 2, &opts);

	return fd < 0 ? -errno : fd;
}

/* A link is the only proof: kernels that do not know an attach type load the
 * program all the same. */
static int multi_supported(int attach_type)
{
	uint64_t offset, cookie = 0;
	int prog, link, err;

	err = self_function_offset(&offset);
	if (err)
		return err;
	prog = uprobe_empty_program(attach_type);
	if (prog < 0)
		return prog;
	link = uprobe_multi_link(prog, attach_type, 0, getpid(), "/proc/self/exe", &offset, &cookie,
				 1);
	close(prog);
	if (link < 0)
		return link;
	close(link);
	return 1;
}

int probe_method_supported(enum probe_method m)
{
	switch (m) {
	case METHOD_SESSION:
		return multi_supported(ATTACH_UPROBE_SESSION);
	case METHOD_MULTI:
		return multi_supported(ATTACH_UPROBE_MULTI);
	default:
		return access("/sys/bus/event_source/devices/uprobe/type", R_OK) ? -ENOENT : 1;
	}
}

enum probe_method probe_method_best(void)
{
	if (probe_method_supported(METHOD_SESSION) == 1)
		return METHOD_SESSION;
	if (probe_method_supported(METHOD_MULTI) == 1)
		return METHOD_MULTI;
	return METHOD_PERF;
}
