/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Names are looked up in the default places first. A data directory elsewhere is found
 * through the mounts of a process of the container: the runtimes bind /etc/hostname and
 * its like from a directory of the container, and the root field of such a mount is the
 * path of that file in its file system; one of our own mounts of the same file system
 * turns it into a path here. The upper directory of an overlay leads to podman's storage.
 *
 * A container may mount what it likes, so a path found in this way proves nothing: it
 * must hold the container's id, only a small regular file is read there, and all that can
 * come of a forged one is a wrong name for the forger's own container.
 */
#include "target/container_names.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "target/mountinfo.h"
#include "target/text_file.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define JSON_MAX_BYTES (4 << 20)
#define MAX_PARTS 32
#define MAX_CANDIDATES 8
#define DOCKER_CONTAINERS "/var/lib/docker/containers"
#define CRIO_STATE "/run/containers/storage/overlay-containers"
#define CRI_NAME "io.kubernetes.cri.container-name"
#define CRIO_NAME "io.kubernetes.container.name"

static const char *const podman_dirs[] = {
	"/var/lib/containers/storage/overlay-containers",
	"/var/lib/containers/storage/vfs-containers",
	"/run/containers/storage/overlay-containers",
	"/run/containers/storage/vfs-containers",
};

/* containers.json, and where newer versions keep what ends with the machine's run. */
static const char *const podman_files[] = {"containers.json", "volatile-containers.json"};

static const char *const containerd_states[] = {
	"/run/containerd/io.containerd.runtime.v2.task",
	"/run/k3s/containerd/io.containerd.runtime.v2.task",
	"/var/snap/microk8s/common/run/containerd/io.containerd.runtime.v2.task",
};

static const struct {
	const char *runtime, *dir, *file;
} oci_states[] = {
	{"runc", "/run/runc", "state.json"},
	{"crun", "/run/crun", "status"},
};

static json_t *load_json(const char *path)
{
	json_t *root;
	size_t size;
	char *text;

	if (text_file_read(path, JSON_MAX_BYTES, &text, &size) < 0)
		return NULL;
	root = json_loadb(text, size, 0, NULL);
	free(text);
	return root;
}

static bool copy_string(const json_t *value, char *buf, size_t size)
{
	const char *s = json_string_value(value);

	if (!s || !*s)
		return false;
	snprintf(buf, size, "%s", s);
	return true;
}

static bool string_is(const json_t *value, const char *wanted)
{
	const char *s = json_string_value(value);

	return s && strcmp(s, wanted) == 0;
}

bool container_name_docker(const char *path, const char *id, char *buf, size_t size)
{
	json_t *root = load_json(path);
	bool found = false;
	const char *name;

	name = json_string_value(json_object_get(root, "Name"));
	if (name && *name == '/')
		name++;
	if (name && *name && string_is(json_object_get(root, "ID"), id)) {
		snprintf(buf, size, "%s", name);
		found = true;
	}
	json_decref(root);
	return found;
}

bool container_name_podman(const char *path, const char *id, char *buf, size_t size)
{
	json_t *root = load_json(path), *entry;
	bool found = false;
	size_t i;

	for (i = 0; i < json_array_size(root) && !found; i++) {
		entry = json_array_get(root, i);
		found = string_is(json_object_get(entry, "id"), id) &&
			copy_string(json_array_get(json_object_get(entry, "names"), 0), buf, size);
	}
	json_decref(root);
	return found;
}

bool container_name_annotation(const char *path, const char *key, char *buf, size_t size)
{
	json_t *root = load_json(path);
	bool found;

	found = copy_string(json_object_get(json_object_get(root, "annotations"), key), buf, size);
	json_decref(root);
	return found;
}

static char *join(const char *a, const char *b, const char *c)
{
	char *path;

	return asprintf(&path, "%s/%s/%s", a, b, c) < 0 ? NULL : path;
}

static bool docker_name_in(const char *containers_dir, struct container *c)
{
	char *path = NULL;
	bool found;

	if (asprintf(&path, "%s/%s/config.v2.json", containers_dir, c->id) < 0)
		return false;
	found = container_name_docker(path, c->id, c->name, sizeof(c->name));
	free(path);
	return found;
}

static bool podman_name_in(const char *containers_dir, struct container *c)
{
	bool found = false;
	char *path;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(podman_files) && !found; i++) {
		if (asprintf(&path, "%s/%s", containers_dir, podman_files[i]) < 0)
			return false;
		found = container_name_podman(path, c->id, c->name, sizeof(c->name));
		free(path);
	}
	return found;
}

typedef bool (*name_in_fn)(const char *containers_dir, struct container *c);

/* Tries @dir, a path in the file system @dev, wherever that is mounted here. */
static bool try_mounted(dev_t dev, const char *dir, name_in_fn name_in, struct container *c)
{
	struct mount_iter *it;
	const char *below;
	int candidates = 0;
	bool found = false;
	struct mount m;
	char *path;

	if (mount_iter_new(0, &it) < 0)
		return false;
	while (!found && candidates < MAX_CANDIDATES && mount_iter_next(it, &m) > 0) {
		below = m.dev == dev ? path_below(dir, m.root) : NULL;
		if (!below)
			continue;
		candidates++;
		if (asprintf(&path, "%s%s", strcmp(m.point, "/") ? m.point : "", below) < 0)
			break;
		found = name_in(path, c);
		free(path);
	}
	mount_iter_free(it);
	return found;
}

/* The part of @root before "/ID/", where ID is the container's: its parent directory. */
static char *containers_dir_of(const char *root, const char *id)
{
	size_t id_len = strlen(id);
	const char *p = root;

	while ((p = strstr(p, id))) {
		if (p - root >= 2 && p[-1] == '/' && p[id_len] == '/')
			return strndup(root, (size_t)(p - root) - 1);
		p += id_len;
	}
	return NULL;
}

/* "upperdir=STORAGE/overlay/LAYER/diff" gives "STORAGE/overlay-containers". */
static char *overlay_containers_dir(const char *options)
{
	const char *p, *last = NULL, *end;
	char *dir;

	p = strstr(options, "upperdir=/");
	if (!p)
		return NULL;
	p += strlen("upperdir=");
	end = strchrnul(p, ',');
	for (options = p; (options = strstr(options, "/overlay/")) && options < end; options++)
		last = options;
	if (!last)
		return NULL;
	return asprintf(&dir, "%.*s/overlay-containers", (int)(last - p), p) < 0 ? NULL : dir;
}

static bool try_mount(const struct mount *m, name_in_fn name_in, struct container *c)
{
	bool found = false;
	char *dir;

	dir = containers_dir_of(m->root, c->id);
	if (dir)
		found = try_mounted(m->dev, dir, name_in, c);
	free(dir);
	if (found || name_in != podman_name_in || strcmp(m->fs_type, "overlay") != 0)
		return found;
	dir = overlay_containers_dir(m->options);
	found = dir && name_in(dir, c);
	free(dir);
	return found;
}

static bool name_by_mounts(pid_t pid, name_in_fn name_in, struct container *c)
{
	struct mount_iter *it;
	int candidates = 0;
	bool found = false;
	struct mount m;

	if (mount_iter_new(pid, &it) < 0)
		return false;
	while (!found && candidates < MAX_CANDIDATES && mount_iter_next(it, &m) > 0) {
		if (!strstr(m.root, c->id) && strcmp(m.fs_type, "overlay") != 0)
			continue;
		candidates++;
		found = try_mount(&m, name_in, c);
	}
	mount_iter_free(it);
	return found;
}

static bool find_docker(pid_t pid, struct container *c)
{
	return docker_name_in(DOCKER_CONTAINERS, c) || name_by_mounts(pid, docker_name_in, c);
}

static bool find_podman(pid_t pid, struct container *c)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(podman_dirs); i++) {
		if (podman_name_in(podman_dirs[i], c))
			return true;
	}
	return name_by_mounts(pid, podman_name_in, c);
}

/* Kubernetes' containers are in the name space k8s.io; an id below kubepods may also be
 * docker's, where that is the runtime. */
static bool find_containerd(pid_t pid, struct container *c)
{
	char bundle[160], *path;
	bool found = false;
	size_t i;

	(void)pid;
	snprintf(bundle, sizeof(bundle), "k8s.io/%s", c->id);
	for (i = 0; i < ARRAY_SIZE(containerd_states) && !found; i++) {
		path = join(containerd_states[i], bundle, "config.json");
		if (!path)
			return false;
		found = container_name_annotation(path, CRI_NAME, c->name, sizeof(c->name));
		free(path);
	}
	if (!found && docker_name_in(DOCKER_CONTAINERS, c)) {
		c->runtime = "docker";
		found = true;
	}
	return found;
}

static bool find_crio(pid_t pid, struct container *c)
{
	char *path = join(CRIO_STATE, c->id, "userdata/config.json");
	bool found;

	(void)pid;
	found = path && container_name_annotation(path, CRIO_NAME, c->name, sizeof(c->name));
	free(path);
	return found;
}

static const struct {
	const char *runtime;
	bool (*find)(pid_t pid, struct container *c);
} finders[] = {
	{"docker", find_docker},
	{"podman", find_podman},
	{"containerd", find_containerd},
	{"cri-o", find_crio},
};

void container_name_find(pid_t pid, struct container *c)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(finders) && !c->name[0]; i++) {
		if (strcmp(finders[i].runtime, c->runtime) == 0) {
			finders[i].find(pid, c);
			return;
		}
	}
}

static bool exists(const char *dir, const char *id, const char *file)
{
	char *path = join(dir, id, file);
	bool found = path && access(path, F_OK) == 0;

	free(path);
	return found;
}

static void set_plain(const char *runtime, const char *id, struct container *out)
{
	struct container c = {.runtime = runtime};

	snprintf(c.id, sizeof(c.id), "%s", id);
	snprintf(c.name, sizeof(c.name), "%s", id);
	*out = c;
}

static bool find_oci(const char *id, struct container *out)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(oci_states); i++) {
		if (!exists(oci_states[i].dir, id, oci_states[i].file))
			continue;
		set_plain(oci_states[i].runtime, id, out);
		return true;
	}
	return false;
}

static bool find_bundle(const char *namespace, const char *id, struct container *out)
{
	char *bundle;
	bool found = false;
	size_t i;

	if (asprintf(&bundle, "%s/%s", namespace, id) < 0)
		return false;
	for (i = 0; i < ARRAY_SIZE(containerd_states) && !found; i++)
		found = exists(containerd_states[i], bundle, "config.json");
	free(bundle);
	if (found)
		set_plain("containerd", id, out);
	return found;
}

/* Below a parent that the operator chose ("--cgroup-parent"). */
static bool find_docker_id(pid_t pid, const char *id, struct container *out)
{
	struct container c = {.runtime = "docker"};

	if (strlen(id) != 64 || strspn(id, "0123456789abcdef") != 64)
		return false;
	snprintf(c.id, sizeof(c.id), "%s", id);
	if (!find_docker(pid, &c))
		return false;
	*out = c;
	return true;
}

static bool has_suffix(const char *s, const char *suffix)
{
	size_t len = strlen(s), tail = strlen(suffix);

	return len >= tail && strcmp(s + len - tail, suffix) == 0;
}

static bool may_be_id(const char *part)
{
	return *part && strcmp(part, ".") != 0 && strcmp(part, "..") != 0 &&
	       !has_suffix(part, ".slice") && !has_suffix(part, ".service") &&
	       !has_suffix(part, ".scope");
}

static size_t split(char *path, char **parts)
{
	char *rest = path, *part;
	size_t n = 0;

	while (n < MAX_PARTS && (part = strsep(&rest, "/"))) {
		if (*part)
			parts[n++] = part;
	}
	return n;
}

bool container_plain_find(pid_t pid, const char *cgroup_path, struct container *out)
{
	char *copy = strdup(cgroup_path), *parts[MAX_PARTS];
	bool found = false;
	size_t n;

	if (!copy)
		return false;
	for (n = split(copy, parts); n > 0 && !found; n--) {
		if (!may_be_id(parts[n - 1]))
			continue;
		found = find_oci(parts[n - 1], out) || find_docker_id(pid, parts[n - 1], out) ||
			(n > 1 && may_be_id(parts[n - 2]) &&
			 find_bundle(parts[n - 2], parts[n - 1], out));
	}
	free(copy);
	return found;
}
