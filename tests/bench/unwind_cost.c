/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * unwind_cost TARGET TARGET_FP [ROUNDS]: what recording a user stack costs, ours
 * against the kernel's walk along frame pointers and a copy of the stack.
 *
 * TARGET and TARGET_FP are unwind_target.c without and with frame pointers. Each
 * way of recording has a site of its own in them, all attached at once, so a round
 * measures them right after each other and ratios within a round hold when the
 * machine's speed drifts. The cost of an empty probe in the same build is taken
 * off. A stack that is cut short or of another depth than was asked for is an
 * error.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "bpf/kernel.h"
#include "events.h"
#include "probe/method.h"
#include "sym/addr_space.h"
#include "sym/object.h"
#include "target/procfs.h"
#include "unwind/unwinder.h"
#include "unwind_cost.h"
#include "unwind_cost.skel.h"

/* So many records fit into the ring, with those of the warming up. */
#define CALLS 400
#define ROUNDS_MAX 1001
#define SITES 6
#define TABLE_BYTES_MAX (64u << 20)
#define TABLES_TIMEOUT_MS 20000

enum build {
	PLAIN,
	FRAME_POINTERS,
	BUILDS
};

struct target {
	pid_t pid;
	FILE *commands, *answers;
	uint64_t sites[SITES]; /* addresses */
};

enum way {
	EMPTY,
	CAPTURE,
	NUMBER,
	COPY,
	EMPTY_FP,
	STACKID,
	GET_STACK,
	WAYS
};

static const struct {
	const char *name, *program;
	enum build build;
	unsigned int site;
	enum way empty;
} ways[WAYS] = {
	[EMPTY] = {"empty probe", "empty", PLAIN, 0, EMPTY},
	[CAPTURE] = {"our walk", "capture", PLAIN, 1, EMPTY},
	[NUMBER] = {"our walk and stack number", "number", PLAIN, 2, EMPTY},
	[COPY] = {"copy of 8 KiB", "copy", PLAIN, 3, EMPTY},
	[EMPTY_FP] = {"empty probe, frame pointers", "empty", FRAME_POINTERS, 0, EMPTY_FP},
	[STACKID] = {"bpf_get_stackid", "stackid", FRAME_POINTERS, 1, EMPTY_FP},
	[GET_STACK] = {"bpf_get_stack", "get_stack", FRAME_POINTERS, 2, EMPTY_FP},
};

struct bench {
	struct target targets[BUILDS];
	struct kernel *kernel;
	struct object_table *objects;
	struct addr_space *space;
	struct unwinder *unwinder;
	struct unwind_cost_bpf *skel;
	struct ring_buffer *rings;
	size_t rounds;
	double ns[WAYS][ROUNDS_MAX];
	double frames[WAYS]; /* a stack, on average */
};

/* Runs @path with pipes at its standard streams. */
static int target_start(struct target *t, const char *path)
{
	int in[2], out[2];

	if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC))
		return -errno;
	t->pid = fork();
	if (t->pid < 0)
		return -errno;
	if (!t->pid) {
		if (dup2(in[0], STDIN_FILENO) < 0 || dup2(out[1], STDOUT_FILENO) < 0)
			_exit(126);
		execl(path, path, (char *)NULL);
		_exit(127);
	}
	close(in[0]);
	close(out[1]);
	t->commands = fdopen(in[1], "w");
	t->answers = fdopen(out[0], "r");
	return t->commands && t->answers ? 0 : -ENOMEM;
}

static int target_hello(struct target *t)
{
	char line[256], *at = line;

	if (!fgets(line, sizeof(line), t->answers) || strncmp(line, "ready ", 6))
		return -EPROTO;
	strtol(line + 6, &at, 10);
	for (size_t i = 0; i < SITES; i++)
		t->sites[i] = strtoull(at, &at, 16);
	return 0;
}

/* Where in its file the byte at @address of @pid lies. */
static int file_offset(pid_t pid, uint64_t address, uint64_t *out)
{
	struct maps_iter *it;
	struct mapping m;
	int err = maps_iter_new(pid, &it);

	if (err)
		return err;
	while ((err = maps_iter_next(it, &m)) == 1) {
		if (address >= m.start && address < m.end)
			break;
	}
	if (err == 1)
		*out = address - m.start + m.offset;
	maps_iter_free(it);
	return err == 1 ? 0 : -ENOENT;
}

static int attach(struct bench *b, enum way w)
{
	const struct target *t = &b->targets[ways[w].build];
	struct bpf_program *program =
		bpf_object__find_program_by_name(b->skel->obj, ways[w].program);
	uint64_t offset, cookie = 0;
	char path[64];
	int err = file_offset(t->pid, t->sites[ways[w].site], &offset);

	if (err)
		return err;
	snprintf(path, sizeof(path), "/proc/%d/exe", (int)t->pid);
	/* The link lives as long as this program. */
	err = uprobe_multi_link(bpf_program__fd(program), ATTACH_UPROBE_MULTI, 0, t->pid, path,
				&offset, &cookie, 1);
	return err < 0 ? err : 0;
}

/* The tables that leaktop itself would make, in maps that our programs share. */
static int make_tables(struct bench *b)
{
	const struct kernel_options options = {.method = METHOD_MULTI,
					       .ring_bytes = 1 << 20,
					       .max_blocks = 1024,
					       .size_max_bytes = UINT64_MAX,
					       .stacks = true};
	int err = kernel_open(&options, &b->kernel);

	if (!err)
		err = unwinder_new(b->kernel, TABLE_BYTES_MAX, &b->unwinder);
	if (err)
		return err;
	b->objects = object_table_new();
	b->space = addr_space_new(b->targets[PLAIN].pid, b->objects);
	err = addr_space_refresh(b->space);
	if (!err)
		err = unwinder_update(b->unwinder, UNWIND_COST_SLOT, b->space);
	if (err)
		return err;
	unwinder_prefetch(b->unwinder, b->space);
	return unwinder_wait(b->unwinder, TABLES_TIMEOUT_MS) ? 0 : -ETIMEDOUT;
}

static int load(struct bench *b)
{
	struct bpf_program *p;
	int err;

	b->skel = unwind_cost_bpf__open();
	if (!b->skel)
		return -errno;
	bpf_object__for_each_program(p, b->skel->obj)
	{
		bool ours = !strcmp(bpf_program__section_name(p), "uprobe");

		bpf_program__set_autoload(p, ours);
		if (ours)
			bpf_program__set_expected_attach_type(
				p, (enum bpf_attach_type)ATTACH_UPROBE_MULTI);
	}
	err = bpf_map__reuse_fd(b->skel->maps.unwind_rules,
				kernel_map_fd(b->kernel, MAP_UNWIND_RULES));
	if (!err)
		err = bpf_map__reuse_fd(b->skel->maps.unwind_tables,
					kernel_map_fd(b->kernel, MAP_UNWIND_TABLES));
	if (!err)
		err = bpf_map__reuse_fd(b->skel->maps.unwind_spaces,
					kernel_map_fd(b->kernel, MAP_UNWIND_SPACES));
	return err ? err : unwind_cost_bpf__load(b->skel);
}

static int ignore(void *arg, void *data, size_t size)
{
	(void)arg;
	(void)data;
	(void)size;
	return 0;
}

static int prepare(struct bench *b, char **paths)
{
	int err = 0;

	for (int i = 0; i < BUILDS && !err; i++) {
		err = target_start(&b->targets[i], paths[i]);
		if (!err)
			err = target_hello(&b->targets[i]);
	}
	if (!err)
		err = make_tables(b);
	if (!err)
		err = load(b);
	for (enum way w = 0; w < WAYS && !err; w++)
		err = attach(b, w);
	if (err)
		return err;
	b->rings = ring_buffer__new(bpf_map__fd(b->skel->maps.copies), ignore, NULL, NULL);
	return b->rings ? ring_buffer__add(b->rings, bpf_map__fd(b->skel->maps.ring), ignore, NULL)
			: -errno;
}

/* Frames of the stack that bpf_get_stackid recorded last. */
static double frames_of_stackid(const struct bench *b)
{
	uint64_t frames[STACK_FRAMES_MAX] = {0};
	uint32_t id = (uint32_t)b->skel->bss->seen.stack_id;
	size_t n = 0;

	if (bpf_map_lookup_elem(bpf_map__fd(b->skel->maps.stack_traces), &id, frames))
		return 0;
	while (n < STACK_FRAMES_MAX && frames[n])
		n++;
	return (double)n;
}

/* @calls stacks by @w, @depth functions deep; notes what one took. */
static int measure(struct bench *b, enum way w, char shape, unsigned int depth, unsigned long count,
		   double *ns)
{
	struct target *t = &b->targets[ways[w].build];
	struct unwind_cost_seen *seen = &b->skel->bss->seen;
	unsigned long calls;
	double total_ns;

	ring_buffer__consume(b->rings);
	memset(seen, 0, sizeof(*seen));
	fprintf(t->commands, "%u %c %u %lu\n", ways[w].site, shape, depth, count);
	fflush(t->commands);
	if (fscanf(t->answers, "%lf %lu", &total_ns, &calls) != 2)
		return -EPROTO;
	if (seen->calls < calls || seen->incomplete) {
		fprintf(stderr, "unwind_cost: %s: %lu calls, %llu seen, %llu stacks incomplete\n",
			ways[w].name, calls, seen->calls, seen->incomplete);
		return -EBADMSG;
	}
	*ns = total_ns / (double)calls;
	b->frames[w] =
		w == STACKID ? frames_of_stackid(b) : (double)seen->frames / (double)seen->calls;
	return 0;
}

static int measure_all(struct bench *b, char shape, const unsigned int *depth)
{
	int err = 0;

	for (size_t i = 0; i < b->rounds; i++) {
		for (enum way w = 0; w < WAYS && !err; w++)
			err = measure(b, w, shape, depth[ways[w].build], CALLS, &b->ns[w][i]);
	}
	return err;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

struct spread {
	double low, median, high; /* quartiles */
};

static struct spread spread_of(double *values, size_t count)
{
	qsort(values, count, sizeof(*values), compare);
	return (struct spread){values[count / 4], values[count / 2], values[count * 3 / 4]};
}

/* The cost of @w in round @i, less that of an empty probe. */
static double net_ns(const struct bench *b, enum way w, size_t i)
{
	return b->ns[w][i] - (w == ways[w].empty ? 0 : b->ns[ways[w].empty][i]);
}

static void report(const struct bench *b, enum way w)
{
	double ns[ROUNDS_MAX] = {0}, ratio[ROUNDS_MAX] = {0};
	struct spread cost, r;

	for (size_t i = 0; i < b->rounds; i++) {
		ns[i] = net_ns(b, w, i);
		ratio[i] = ns[i] / net_ns(b, STACKID, i);
	}
	cost = spread_of(ns, b->rounds);
	r = spread_of(ratio, b->rounds);
	printf("  %-28s %6.1f %8.0f", ways[w].name, b->frames[w], cost.median);
	if (w != ways[w].empty)
		printf(" %7.2f   %.2f..%.2f", r.median, r.low, r.high);
	printf("\n");
}

static int run(struct bench *b, const char *title, char shape, const unsigned int *depth)
{
	int err = measure_all(b, shape, depth);

	if (err)
		return err;
	printf("%s\n", title);
	for (enum way w = 0; w < WAYS; w++)
		report(b, w);
	return 0;
}

/* How many frames a stack has besides the functions that call each other. */
static int frames_around(struct bench *b, enum way w, unsigned int *out)
{
	double ns;
	int err = measure(b, w, 'r', 0, 1, &ns);

	if (!err)
		*out = (unsigned int)b->frames[w];
	return err;
}

/* Stacks of as many frames by all ways, in spite of what each sees of the C library. */
static int run_at(struct bench *b, unsigned int frames, const unsigned int *around)
{
	unsigned int depth[BUILDS];
	char title[64];
	int err;

	for (int i = 0; i < BUILDS; i++) {
		if (frames < around[i])
			return -EDOM;
		depth[i] = frames - around[i];
	}
	snprintf(title, sizeof(title), "stacks of %u frames", frames);
	err = run(b, title, 'r', depth);
	for (enum way w = 0; w < WAYS && !err; w++) {
		/* Empty probes and copies tell no frames. */
		if (b->frames[w] == 0 || b->frames[w] == frames)
			continue;
		fprintf(stderr, "unwind_cost: %s: %.1f frames for %u\n", ways[w].name, b->frames[w],
			frames);
		err = -EBADMSG;
	}
	return err;
}

static int run_all(struct bench *b)
{
	static const unsigned int frames[] = {5, 10, 30, 60};
	static const unsigned int in_sort[BUILDS] = {5, 5};
	unsigned int around[BUILDS];
	int err = frames_around(b, CAPTURE, &around[PLAIN]);

	if (!err)
		err = frames_around(b, GET_STACK, &around[FRAME_POINTERS]);
	printf("CPU time of one stack, less that of an empty probe, and the ratio to\n"
	       "bpf_get_stackid, paired by rounds: median and quartiles of %zu rounds\n"
	       "  %-28s %6s %8s %7s\n",
	       b->rounds, "", "frames", "ns", "ratio");
	for (size_t i = 0; i < sizeof(frames) / sizeof(frames[0]) && !err; i++)
		err = run_at(b, frames[i], around);
	return err ? err
		   : run(b,
			 "a comparison in qsort(), whose library has no frame pointers to follow",
			 'q', in_sort);
}

static void bench_release(struct bench *b)
{
	for (int i = 0; i < BUILDS; i++) {
		/* It ends at the end of its input. */
		if (b->targets[i].commands)
			fclose(b->targets[i].commands);
		if (b->targets[i].answers)
			fclose(b->targets[i].answers);
		if (b->targets[i].pid > 0)
			waitpid(b->targets[i].pid, NULL, 0);
	}
	ring_buffer__free(b->rings);
	unwind_cost_bpf__destroy(b->skel);
	unwinder_free(b->unwinder);
	addr_space_free(b->space);
	object_table_free(b->objects);
	kernel_close(b->kernel);
}

int main(int argc, char **argv)
{
	static struct bench b;
	int err;

	if (argc < 3)
		return 2;
	b.rounds = argc > 3 ? strtoul(argv[3], NULL, 10) : 201;
	if (b.rounds < 1 || b.rounds > ROUNDS_MAX)
		return 2;
	err = prepare(&b, argv + 1);
	if (!err)
		err = run_all(&b);
	bench_release(&b);
	if (err)
		fprintf(stderr, "unwind_cost: %s\n", strerror(-err));
	return err ? 1 : 0;
}
