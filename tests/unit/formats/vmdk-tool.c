/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * What tests/cases/vmdk.sh needs of the plugin, beside `vhost img`: bytes in and out through the core, and streams.
 *
 *   vmdk-tool read IMAGE OUT        the disk, chain and all, into a raw file
 *   vmdk-tool io IMAGE CMD...       write:BYTE:OFF:LEN, zero:OFF:LEN, discard:OFF:LEN, flush
 *   vmdk-tool stream RAW IMAGE [LEVEL [FLUSH-AT-GRAIN]]
 *   vmdk-tool calls IMAGE           writes and reads all twice; says how many calls of the plugin the second time took
 */
#include "vmdk-file.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "util/loop.h"

#define PIECE (3u << 20)

static struct fmt_image *must_open(const char *path, int ro)
{
	ERR_AUTO(e);
	struct fmt_image *i = vmdk_file_open(path, ro, 0, NULL, &e);

	if (!i) {
		fprintf(stderr, "%s: %s%s%s%s\n", path, e.cause, e.remedy ? " (" : "", e.remedy ? e.remedy : "", e.remedy ? ")" : "");
		exit(1);
	}
	return i;
}

static int failed(int r, struct vh_err *e)
{
	if (r < 0)
		fprintf(stderr, "%s\n", e->cause ? e->cause : strerror(-r));
	return r < 0;
}

static int cmd_read(const char *path, const char *out)
{
	struct fmt_image *i = must_open(path, 1);
	g_autofree uint8_t *buf = g_malloc(PIECE);
	struct fmt_info info;
	FILE *f = fopen(out, "w");
	int bad = !f;
	ERR_AUTO(e);

	fmt_get_info(i, &info);
	for (uint64_t at = 0; at < info.bytes && !bad; at += PIECE) {
		uint64_t n = MIN(PIECE, info.bytes - at);

		bad = failed(fmt_pread(i, buf, n, at, &e), &e) || fwrite(buf, 1, n, f) != n;
	}
	if (f)
		bad |= fclose(f) != 0;
	fmt_close(i);
	return bad;
}

struct ask {
	struct fmt_io io;
	struct fmt_queue *q;
	GMutex lock;
	GCond cond;
	int done, result;
};

static void ended(struct fmt_io *io, int result)
{
	struct ask *a = (struct ask *)io;

	g_mutex_lock(&a->lock);
	a->done = 1;
	a->result = result;
	g_cond_signal(&a->cond);
	g_mutex_unlock(&a->lock);
}

static void submit(void *ctx)
{
	struct ask *a = ctx;

	fmt_submit(a->q, &a->io);
}

static int cmd_discard(struct fmt_image *i, uint64_t off, uint64_t len)
{
	struct ask a = {.io = {.op = VH_DISCARD, .off = off, .len = len, .done = ended}};
	struct vh_loop *l;
	ERR_AUTO(e);

	if (loop_new("q", &l, &e) < 0 || fmt_queue_open(i, l, 4, &a.q, &e) < 0 || loop_start(l, &e) < 0)
		g_error("queue");
	loop_call(l, submit, &a);
	g_mutex_lock(&a.lock);
	while (!a.done)
		g_cond_wait(&a.cond, &a.lock);
	g_mutex_unlock(&a.lock);
	loop_stop(l);
	fmt_queue_close(a.q);
	loop_free(l);
	return a.result;
}

static int cmd_io(const char *path, char **cmd, int n)
{
	struct fmt_image *i = must_open(path, 0);
	int bad = 0;

	for (int k = 0; k < n && !bad; k++) {
		g_auto(GStrv) p = g_strsplit(cmd[k], ":", 4);
		ERR_AUTO(e);

		if (!strcmp(p[0], "write")) {
			uint64_t off = strtoull(p[2], NULL, 0), len = strtoull(p[3], NULL, 0);
			g_autofree uint8_t *buf = g_malloc(len);

			memset(buf, atoi(p[1]), len);
			bad = failed(fmt_pwrite(i, buf, len, off, &e), &e);
		} else if (!strcmp(p[0], "zero")) {
			bad = failed(fmt_pzero(i, strtoull(p[2], NULL, 0), strtoull(p[1], NULL, 0), &e), &e);
		} else if (!strcmp(p[0], "discard")) {
			bad = failed(cmd_discard(i, strtoull(p[1], NULL, 0), strtoull(p[2], NULL, 0)), &e);
		} else {
			bad = failed(fmt_flush(i, &e), &e);
		}
	}
	fmt_close(i);
	return bad;
}

static int cmd_calls(const char *path)
{
	struct fmt_image *i = must_open(path, 0);
	g_autofree uint8_t *buf = g_malloc0(PIECE);
	struct fmt_stats a, b;
	struct fmt_info info;
	ERR_AUTO(e);

	fmt_get_info(i, &info);
	for (int pass = 0; pass < 3; pass++) {
		if (pass == 2)
			fmt_get_stats(i, &a);
		for (uint64_t at = 0; at < info.bytes; at += PIECE) {
			uint64_t n = MIN(PIECE, info.bytes - at);

			memset(buf, pass + 1, n);
			if (failed(fmt_pwrite(i, buf, n, at, &e), &e) || failed(fmt_pread(i, buf, n, at, &e), &e))
				exit(1);
		}
	}
	fmt_get_stats(i, &b);
	printf("%llu\n", (unsigned long long)(b.map_calls - a.map_calls));
	fmt_close(i);
	return 0;
}

int main(int argc, char **argv)
{
	ERR_AUTO(e);

	if (argc == 4 && !strcmp(argv[1], "read"))
		return cmd_read(argv[2], argv[3]);
	if (argc > 3 && !strcmp(argv[1], "io"))
		return cmd_io(argv[2], argv + 3, argc - 3);
	if (argc >= 4 && !strcmp(argv[1], "stream"))
		return failed(vmdk_file_stream(argv[2], argv[3], argc > 4 ? argv[4] : "default", argc > 5 ? argv[5] : NULL, &e), &e);
	if (argc == 3 && !strcmp(argv[1], "calls"))
		return cmd_calls(argv[2]);
	fprintf(stderr, "see the source\n");
	return 2;
}
