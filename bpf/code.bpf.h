/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which object's code lies at an address, by the kernel's own list of mappings.
 *
 * The loader tells where a process has mapped what, a few milliseconds after the
 * fact. A compiler's child process or a plugin can be through with its work by
 * then, so until the loader has spoken the mapping is looked up here
 * (bpf_find_vma, Linux 5.17) and its file found among those seen before. A file
 * is known by the address of its inode, which cannot become another file's while
 * the loader holds it open. It is learned from a process whose mappings were
 * told: so nothing has to be known of device numbers, which overlayfs and btrfs
 * show differently inside and outside of the kernel.
 */
#ifndef LEAKTOP_CODE_BPF_H
#define LEAKTOP_CODE_BPF_H

#include "maps.bpf.h"
#include "unwind_maps.h"

#define VM_EXEC 4ul /* include/linux/mm.h */
#define PAGE_BITS 12

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct code_key);
	__type(value, struct code_place);
} unwind_code SEC(".maps");

enum code_kind {
	CODE_NONE = 0, /* nothing executable */
	CODE_FILE,
	CODE_ANONYMOUS, /* made at run time */
};

struct code_found {
	struct code_key key; /* CODE_FILE */
	__u64 start;	     /* of the mapping */
	__u32 kind;
	__u32 inode_number; /* low half */
};

static long code_on_vma(struct task_struct *task __attribute__((unused)),
			struct vm_area_struct *vma, void *arg)
{
	struct code_found *found = arg;
	struct file *file = vma->vm_file;

	if (!(vma->vm_flags & VM_EXEC))
		return 0;
	found->kind = file ? CODE_FILE : CODE_ANONYMOUS;
	found->start = vma->vm_start;
	found->key.page = vma->vm_pgoff;
	if (file) {
		found->key.inode = (__u64)file->f_inode;
		found->inode_number = file->f_inode->i_ino;
	}
	return 0;
}

/* 0, -ENOENT if nothing is mapped there, or another error when the kernel's list
 * could not be looked at. */
static __always_inline long code_find(__u64 pc, struct code_found *found)
{
	return bpf_find_vma(bpf_get_current_task_btf(), pc, code_on_vma, found, 0);
}

/* File offset of @pc, which lies in what was found. */
static __always_inline __u64 code_offset(const struct code_found *found, __u64 pc)
{
	return pc - found->start + (found->key.page << PAGE_BITS);
}

/* The code at @pc belongs to @table, @at bytes from where it counts. */
static __always_inline void code_learn(const struct code_found *found, __u32 table, __u64 at,
				       __u64 pc)
{
	struct code_place place = {.table = table, .base = at - code_offset(found, pc)};

	bpf_map_update_elem(&unwind_code, &found->key, &place, BPF_ANY);
}

#endif
