/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Stands in for the kernel's types where BPF headers are compiled for the host. */
#ifndef __VMLINUX_H__
#define __VMLINUX_H__

#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>

/* As the kernel names them (arch/x86/include/asm/ptrace.h). */
struct pt_regs {
	__u64 ip, sp, bp, bx;
};

struct task_struct;
struct inode {
	unsigned long i_ino;
};

struct file {
	struct inode *f_inode;
};

struct vm_area_struct {
	unsigned long vm_start, vm_flags, vm_pgoff;
	struct file *vm_file;
};

#endif
