/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of container runtimes say of a container: its name, that it exists. */
#ifndef LEAKTOP_CONTAINER_NAMES_H
#define LEAKTOP_CONTAINER_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "target/container.h"

/*
 * Fills in c->name, where it is empty, from the files of c->runtime; @pid is a process
 * of the container, whose mounts lead to data directories in unusual places. May
 * correct c->runtime. Leaves the name empty if it cannot be found.
 */
void container_name_find(pid_t pid, struct container *c);

/*
 * The container of a path whose shape says nothing: runc's and crun's "/ID",
 * containerd's "/NAMESPACE/ID", docker's "/PARENT/ID", if the runtime has a record of it.
 */
bool container_plain_find(pid_t pid, const char *cgroup_path, struct container *out);

/* The parsers behind it, for one file each. False if the file does not name @id.
 * docker's config.v2.json: */
bool container_name_docker(const char *path, const char *id, char *buf, size_t size);
/* containers.json of podman's storage: */
bool container_name_podman(const char *path, const char *id, char *buf, size_t size);
/* Annotation @key of an OCI bundle's config.json: */
bool container_name_annotation(const char *path, const char *key, char *buf, size_t size);

#endif
