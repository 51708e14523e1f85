/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "target/container.h"

#include <stdio.h>
#include <string.h>

#include "target/container_names.h"

#define ID_DIGITS 64
#define MIN_ID_CHARS 3

/* A part of a cgroup path between two slashes, within the whole path. */
struct part {
	const char *path, *s;
	size_t len;
};

static bool is_hex_id(const char *s, size_t len)
{
	return len == ID_DIGITS && strspn(s, "0123456789abcdef") >= ID_DIGITS;
}

static bool part_starts(const struct part *p, const char *prefix)
{
	size_t len = strlen(prefix);

	return p->len > len && memcmp(p->s, prefix, len) == 0;
}

static bool part_ends(const struct part *p, const char *suffix)
{
	size_t len = strlen(suffix);

	return p->len > len && memcmp(p->s + p->len - len, suffix, len) == 0;
}

static bool part_is(const struct part *p, const char *s)
{
	return p->len == strlen(s) && memcmp(p->s, s, p->len) == 0;
}

/* Moves to the part above; false at the top. */
static bool part_up(struct part *p)
{
	const char *end = p->s;

	if (p->s <= p->path + 1)
		return false;
	end--; /* the slash */
	p->s = end;
	while (p->s > p->path && p->s[-1] != '/')
		p->s--;
	p->len = (size_t)(end - p->s);
	return true;
}

static struct part last_part(const char *path)
{
	const char *end = path + strlen(path);
	struct part p = {.path = path, .s = end + 1};

	part_up(&p);
	return p;
}

static bool any_above_starts(struct part p, const char *prefix)
{
	while (part_up(&p)) {
		if (part_is(&p, prefix) || part_starts(&p, prefix))
			return true;
	}
	return false;
}

static bool parent_is(struct part p, const char *name)
{
	return part_up(&p) && part_is(&p, name);
}

static void set_text(char *buf, size_t size, const char *s, size_t len)
{
	if (len >= size)
		len = size - 1;
	memcpy(buf, s, len);
	buf[len] = '\0';
}

static bool set_id(struct container *c, const char *s, size_t len)
{
	if (!is_hex_id(s, len))
		return false;
	set_text(c->id, sizeof(c->id), s, len);
	return true;
}

static bool set_name(struct container *c, const char *s, size_t len)
{
	if (!len)
		return false;
	set_text(c->id, sizeof(c->id), s, len);
	set_text(c->name, sizeof(c->name), s, len);
	return true;
}

/* PREFIX<id>.scope of the systemd drivers, PREFIX<id> of the cgroupfs drivers. */
static bool match_prefixed_id(const struct part *p, const char *prefix, struct container *c)
{
	size_t skip = strlen(prefix), scope = strlen(".scope");

	if (!part_starts(p, prefix))
		return false;
	if (part_ends(p, ".scope"))
		return p->len > skip + scope && set_id(c, p->s + skip, p->len - skip - scope);
	return set_id(c, p->s + skip, p->len - skip);
}

static bool match_bare_id_below(const struct part *p, const char *parent, struct container *c)
{
	return parent_is(*p, parent) && set_id(c, p->s, p->len);
}

static bool match_kubepods(const struct part *p, const char *parent, struct container *c)
{
	return is_hex_id(p->s, p->len) && any_above_starts(*p, parent) && set_id(c, p->s, p->len);
}

static bool match_name_below(const struct part *p, const char *parent, struct container *c)
{
	return parent_is(*p, parent) && set_name(c, p->s, p->len);
}

static bool match_prefixed_name(const struct part *p, const char *prefix, struct container *c)
{
	size_t skip = strlen(prefix);

	return part_starts(p, prefix) && set_name(c, p->s + skip, p->len - skip);
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

/* unit_name_unescape() of systemd: \xNN, and "-" for "/", which no machine name has. */
static size_t unescape_unit(const char *s, size_t len, char *buf, size_t size)
{
	size_t i = 0, n = 0;

	while (i < len && n + 1 < size) {
		if (len - i >= 4 && s[i] == '\\' && s[i + 1] == 'x' && hex_digit(s[i + 2]) >= 0 &&
		    hex_digit(s[i + 3]) >= 0) {
			buf[n++] = (char)(hex_digit(s[i + 2]) * 16 + hex_digit(s[i + 3]));
			i += 4;
		} else {
			buf[n++] = s[i++];
		}
	}
	buf[n] = '\0';
	return strlen(buf);
}

static bool match_machine(const struct part *p, const char *prefix, const char *suffix,
			  struct container *c)
{
	size_t skip = strlen(prefix), end = strlen(suffix), len;
	const char *below = p->s + p->len;
	char name[sizeof(c->name)];

	if (!part_starts(p, prefix) || !part_ends(p, suffix) || p->len <= skip + end)
		return false;
	/* systemd-nspawn itself sits beside its payload. */
	if (strcmp(below, "/supervisor") == 0)
		return false;
	len = unescape_unit(p->s + skip, p->len - skip - end, name, sizeof(name));
	return set_name(c, name, len);
}

static bool match_nspawn_service(const struct part *p, const char *prefix, struct container *c)
{
	return match_machine(p, prefix, ".service", c);
}

static bool match_machine_scope(const struct part *p, const char *prefix, struct container *c)
{
	/* Virtual machines of libvirt are registered in the same way. */
	if (part_starts(p, "machine-qemu\\x2d"))
		return false;
	return match_machine(p, prefix, ".scope", c);
}

/* The conmon of podman and CRI-O ("libpod-conmon-ID", "crio-conmon-ID"), the monitor of
 * LXC ("lxc.monitor.NAME") match no row: they are not in the container. */
static const struct runtime {
	const char *name;
	const char *text; /* prefix or name of the parent */
	bool (*match)(const struct part *p, const char *text, struct container *c);
} runtimes[] = {
	{"docker", "docker-", match_prefixed_id},
	{"docker", "docker", match_bare_id_below},
	{"podman", "libpod-", match_prefixed_id},
	{"cri-o", "crio-", match_prefixed_id},
	{"containerd", "cri-containerd-", match_prefixed_id},
	{"containerd", "nerdctl-", match_prefixed_id},
	{"containerd", "kubepods", match_kubepods},
	{"lxc", "lxc.payload.", match_prefixed_name},
	{"lxc", "lxc.payload", match_name_below},
	{"lxc", "lxc", match_name_below},
	{"nspawn", "systemd-nspawn@", match_nspawn_service},
	{"nspawn", "machine-", match_machine_scope},
};

bool container_from_cgroup(const char *cgroup_path, struct container *out)
{
	struct part p = last_part(cgroup_path);
	struct container c;
	size_t i;

	do {
		for (i = 0; i < sizeof(runtimes) / sizeof(runtimes[0]); i++) {
			memset(&c, 0, sizeof(c));
			if (!runtimes[i].match(&p, runtimes[i].text, &c))
				continue;
			c.runtime = runtimes[i].name;
			*out = c;
			return true;
		}
	} while (part_up(&p));
	return false;
}

int container_of_process(pid_t pid, const char *cgroup_path, struct container *out)
{
	struct container c;

	if (container_from_cgroup(cgroup_path, &c)) {
		container_name_find(pid, &c);
		*out = c;
		return 1;
	}
	return container_plain_find(pid, cgroup_path, out);
}

bool container_matches(const struct container *c, const char *wanted)
{
	size_t len = strlen(wanted);

	if (!len)
		return false;
	if (strncmp(c->name, wanted, len) == 0)
		return true;
	return len >= MIN_ID_CHARS && strncmp(c->id, wanted, len) == 0;
}

bool unit_from_cgroup(const char *cgroup_path, char *buf, size_t size)
{
	struct part p = last_part(cgroup_path);

	do {
		if (!part_ends(&p, ".service") && !part_ends(&p, ".scope"))
			continue;
		if (p.len >= size)
			return false;
		memcpy(buf, p.s, p.len);
		buf[p.len] = '\0';
		return true;
	} while (part_up(&p));
	return false;
}
