/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * The block engine alone, without a guest: blk-engine FILE|null ENGINE DEPTH SECONDS [WORD...]. Blocks of 4 KiB at random, one queue;
 * prints requests per second. FILE is opened with O_DIRECT where that works. Words: write; seq (in a row, and again from the start);
 * bs=BYTES; nomerge (neighbours are not joined); nospin (the loop sleeps at once); huge, small (buffers lie in huge pages, or in pages of 4 KiB whose neighbours
 * are elsewhere in memory, as those of a guest may be).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "blk/blk-i.h"
#include "instant.h"

static struct instant vol = {.info = {.size = sizeof(vol.info), .fd = -1, .logical_block = 512}}; /* "null", or a file's fd */

static struct vh_loop *loop;
static struct blk_vq *q;
static uint64_t block = 4096, blocks, count, limit_ns, start_ns, next, seed = 88172645463325252u;
static uint16_t op = VH_READ;
static int seq, nomerge, huge, small, nospin;

struct slot {
	struct blk_io io;
	struct iovec iov;
};

static uint64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void submit(struct slot *s)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	s->io.op = op;
	s->io.off = (seq ? next++ : seed) % blocks * block;
	blk_submit(q, &s->io);
}

static void done(struct blk_io *io, int res)
{
	if (res < 0) {
		fprintf(stderr, "request failed: %s\n", strerror(-res));
		exit(1);
	}
	if (++count % 64 == 0 && now() - start_ns > limit_ns)
		loop_stop(loop);
	submit((struct slot *)io);
}

/* One after the other in memory, as asked for. */
static uint8_t *buffers(uint64_t n)
{
	uint64_t two = 2u << 20, bytes = (n + 2 * two - 1) & ~(two - 1);
	uint8_t *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, (small ? MAP_SHARED : MAP_PRIVATE) | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	p = (uint8_t *)(((uintptr_t)p + two - 1) & ~(uintptr_t)(two - 1));
	if (huge && madvise(p, bytes - two, MADV_HUGEPAGE) < 0)
		perror("huge pages");
	for (uint64_t at = 0; small && at < n; at += 8192) /* the kernel gives neighbours to those that are touched in order */
		p[at] = 1;
	for (uint64_t at = 4096; small && at < n; at += 8192)
		p[at] = 1;
	memset(p, 1, n);
	return p;
}

static int words(char **w)
{
	for (; *w; w++) {
		if (!strcmp(*w, "write"))
			op = VH_WRITE;
		else if (!strcmp(*w, "seq"))
			seq = 1;
		else if (!strcmp(*w, "nomerge"))
			nomerge = 1;
		else if (!strcmp(*w, "huge"))
			huge = 1;
		else if (!strcmp(*w, "small"))
			small = 1;
		else if (!strcmp(*w, "nospin"))
			nospin = 1;
		else if (!strncmp(*w, "bs=", 3))
			block = strtoull(*w + 3, NULL, 0);
		else
			return 0;
	}
	return block >= 512 && !(block & 511);
}

int main(int argc, char **argv)
{
	static const char *const names[] = {"auto", "aio", "uring", "threads"};
	struct blk_config c = {.label = "bench"};
	struct blk_vol *v;
	unsigned depth;
	uint8_t *mem;
	struct stat st;
	ERR_AUTO(e);

	if (argc < 5 || !words(argv + 5)) {
		fprintf(stderr, "usage: blk-engine FILE|null auto|aio|uring|threads DEPTH SECONDS [write] [seq] [bs=BYTES] [nomerge] [nospin] [huge|small]\n");
		return 2;
	}
	for (unsigned i = 0; i < 4; i++)
		if (!strcmp(argv[2], names[i]))
			c.engine = (enum blk_engine)i;
	depth = (unsigned)atoi(argv[3]);
	limit_ns = (uint64_t)(atof(argv[4]) * 1e9);
	instant_io = plug_service(VH_SVC_IO);
	vol.info.bytes = 1u << 30;
	if (strcmp(argv[1], "null")) {
		vol.info.fd = open(argv[1], O_RDWR | O_DIRECT | O_CLOEXEC);
		if (vol.info.fd >= 0)
			vol.info.caps = VH_VOL_FD_DIRECT;
		else
			vol.info.fd = open(argv[1], O_RDWR | O_CLOEXEC);
		if (vol.info.fd < 0 || fstat(vol.info.fd, &st) < 0) {
			perror(argv[1]);
			return 1;
		}
		vol.info.bytes = (uint64_t)st.st_size;
	}
	blocks = vol.info.bytes / block;
	if (!blocks || !depth || loop_new("bench", &loop, &e) || blk_vol_new(&vol, &instant_ops, &c, &v, &e) ||
	    blk_vq_open(v, loop, depth, &q, &e))
		return err_report(&e, 0);
	if (nomerge)
		q->merge_free = NULL;
	if (nospin)
		loop_set_poll_max(loop, 0);
	mem = buffers(block * depth);
	if (!mem)
		return 1;
	start_ns = now();
	for (unsigned i = 0; i < depth; i++) {
		struct slot *s = calloc(1, sizeof(*s));

		s->iov = (struct iovec){mem + i * block, block};
		s->io = (struct blk_io){.len = block, .iov = &s->iov, .niov = 1, .done = done};
		submit(s);
	}
	loop_run(loop);
	printf("%s %s depth %u: %.0f requests/s, %.1f MB/s\n", argv[1], argv[2], depth, (double)count / ((double)(now() - start_ns) / 1e9),
	       (double)(count * block) / ((double)(now() - start_ns) / 1e3));
	return 0; /* with requests in flight: the process ends, nothing is closed */
}
