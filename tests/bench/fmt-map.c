/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * What a format costs where everything is mapped: fmt-map ROUNDS COUNT DEPTH FORMAT=FILE...
 *
 * COUNT random 4 KiB reads, then as many writes, of each image in turn, ROUNDS times. The volume below answers the requests'
 * data at once, without looking at it (what is left is core/fmt, core/blk and the loop); everything else, that is metadata,
 * is read from FILE and written to memory's copy of it. Prints one line an image and operation: the median ns of CPU time of a
 * request (all happens on one thread, which never sleeps), the smallest and largest, and how often the plugin was called while it was measured. Every cluster of the images has data.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "fmt/image.h"
#include "instant.h"

#define BLOCK 4096u
#define DEPTH_MAX 256u
#define ROUNDS_MAX 99u

static uint8_t *buffers; /* DEPTH_MAX blocks: a request with these is data */

struct file {
	struct instant v;
	const char *format, *path;
	uint8_t *bytes; /* a private mapping */
	struct fmt_image *image;
	struct fmt_queue *q;
	struct vh_loop *loop;
	double ns[2][ROUNDS_MAX];
	uint64_t calls[2];
};

static int answer(struct instant *v, struct vh_req *r)
{
	struct file *f = (struct file *)v; /* its first member */
	uint64_t at = r->off;

	if (r->op == VH_FLUSH)
		return 0;
	if (r->op != VH_READ && r->op != VH_WRITE)
		return -EOPNOTSUPP;
	for (uint32_t i = 0; i < r->niov; i++) {
		uint8_t *p = r->iov[i].iov_base;
		size_t n = r->iov[i].iov_len;

		if (p >= buffers && p < buffers + DEPTH_MAX * BLOCK)
			return 0;
		if (at + n > v->info.bytes)
			return -EIO;
		if (r->op == VH_READ)
			memcpy(p, f->bytes + at, n);
		else
			memcpy(f->bytes + at, p, n);
		at += n;
	}
	return 0;
}

static struct file *now_on;
static uint64_t left, flying, blocks, seed = 88172645463325252u;
static uint16_t op;

static void submit(struct fmt_io *io)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	io->op = op;
	io->off = seed % blocks * BLOCK;
	left--;
	flying++;
	fmt_submit(now_on->q, io);
}

static void done(struct fmt_io *io, int result)
{
	if (result < 0) {
		fprintf(stderr, "fmt-map: %s: a request failed: %s\n", now_on->path, strerror(-result));
		exit(1);
	}
	flying--;
	if (left)
		submit(io);
	else if (!flying)
		loop_stop(now_on->loop);
}

static double run(struct file *f, uint16_t what, uint64_t count, unsigned depth, uint64_t *calls)
{
	static struct fmt_io io[DEPTH_MAX];
	static struct iovec iov[DEPTH_MAX];
	struct fmt_info info;
	struct fmt_stats before, after;
	struct timespec a, b;

	now_on = f;
	op = what;
	left = count;
	fmt_get_info(f->image, &info);
	blocks = info.bytes / BLOCK;
	fmt_get_stats(f->image, &before);
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a);
	for (unsigned i = 0; i < depth; i++) {
		iov[i] = (struct iovec){buffers + (size_t)i * BLOCK, BLOCK};
		memset(&io[i], 0, sizeof(io[i]));
		io[i].iov = &iov[i];
		io[i].niov = 1;
		io[i].len = BLOCK;
		io[i].done = done;
		submit(&io[i]);
	}
	loop_run(f->loop);
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &b);
	fmt_get_stats(f->image, &after);
	*calls += after.map_calls - before.map_calls + after.commits - before.commits;
	return ((double)(b.tv_sec - a.tv_sec) * 1e9 + (double)(b.tv_nsec - a.tv_nsec)) / (double)count;
}

static int open_file(struct file *f, char *arg, unsigned depth, struct vh_err *e)
{
	struct blk_config c = {.label = arg};
	struct fmt_spec s = {.label = arg};
	char *path = strchr(arg, '=');
	struct stat st;
	int fd, r;

	if (!path)
		return err_set(e, -EINVAL, "%s: not FORMAT=FILE", arg);
	*path++ = 0;
	f->format = arg;
	f->path = path;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_set(e, -errno, "cannot open %s: %s", path, strerror(errno));
	f->bytes = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	close(fd);
	if (f->bytes == MAP_FAILED)
		return err_set(e, -errno, "cannot map %s: %s", path, strerror(errno));
	f->v.answer = answer;
	f->v.info = (struct vh_volume_info){.size = sizeof(f->v.info), .fd = -1, .logical_block = 512, .bytes = (uint64_t)st.st_size};
	r = blk_vol_new(&f->v, &instant_ops, &c, &s.vol, e);
	if (r < 0)
		return r;
	r = plug_format(f->format, &s.ops, e);
	if (r < 0 || (r = fmt_open(&s, &f->image, e)) < 0 || (r = loop_new("bench", &f->loop, e)) < 0)
		return r;
	return fmt_queue_open(f->image, f->loop, depth, &f->q, e);
}

static int ascending(const void *a, const void *b)
{
	return *(const double *)a < *(const double *)b ? -1 : *(const double *)a > *(const double *)b;
}

int main(int argc, char **argv)
{
	static const uint16_t what[2] = {VH_READ, VH_WRITE};
	struct file *f;
	unsigned n, rounds, depth;
	uint64_t count;
	ERR_AUTO(e);

	if (argc < 5) {
		fprintf(stderr, "usage: fmt-map ROUNDS COUNT DEPTH FORMAT=FILE...\n");
		return 2;
	}
	rounds = (unsigned)atoi(argv[1]);
	count = strtoull(argv[2], NULL, 10);
	depth = (unsigned)atoi(argv[3]);
	n = (unsigned)argc - 4;
	if (!rounds || rounds > ROUNDS_MAX || !depth || depth > DEPTH_MAX || count < depth) {
		fprintf(stderr, "fmt-map: at most %u rounds, a depth of 1 to %u, and as many requests at least\n", ROUNDS_MAX, DEPTH_MAX);
		return 2;
	}
	instant_io = plug_service(VH_SVC_IO);
	buffers = aligned_alloc(BLOCK, DEPTH_MAX * BLOCK);
	memset(buffers, 0, DEPTH_MAX * BLOCK);
	f = calloc(n, sizeof(*f));
	for (unsigned i = 0; i < n; i++) {
		uint64_t none = 0;

		if (open_file(&f[i], argv[4 + i], depth, &e) < 0)
			return err_report(&e, 0);
		for (unsigned k = 0; k < 2; k++)
			run(&f[i], what[k], count, depth, &none); /* fills the caches */
	}
	for (unsigned r = 0; r < rounds; r++)
		for (unsigned i = 0; i < n; i++)
			for (unsigned k = 0; k < 2; k++)
				f[i].ns[k][r] = run(&f[i], what[k], count, depth, &f[i].calls[k]);
	for (unsigned i = 0; i < n; i++)
		for (unsigned k = 0; k < 2; k++) {
			qsort(f[i].ns[k], rounds, sizeof(double), ascending);
			printf("%s %s depth %u: %.1f ns (%.1f to %.1f), %llu plugin calls\n", f[i].format, k ? "write" : "read", depth,
			       f[i].ns[k][rounds / 2], f[i].ns[k][0], f[i].ns[k][rounds - 1], (unsigned long long)f[i].calls[k]);
		}
	return 0; /* the images are a private copy: nothing is closed */
}
