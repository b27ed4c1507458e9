/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include <errno.h>
#include <glib/gstdio.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "iscsitest.h"
#include "util/parse.h"

char *tgt_dir;
uint64_t vol_io_timeout;
static char *root;

static int run(const char *command)
{
	const char *argv[] = {"bash", "-c", command, NULL};
	g_autofree char *out = NULL, *err = NULL;
	int status;

	g_assert_true(g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, &out, &err, &status, NULL));
	if (status)
		g_printerr("# %s\n# %s%s\n", command, out, err);
	return status;
}

void tgt(const char *verb, const char *words)
{
	/* exec: the script's parent, with whom the server ends, is this test. */
	g_autofree char *command = g_strdup_printf("exec %s %s %s %s", SERVER, verb, tgt_dir, words);

	g_assert_cmpint(run(command), ==, 0);
}

void test_begin(void)
{
	root = g_dir_make_tmp("vhost-iscsi-XXXXXX", NULL);
	g_assert_nonnull(root);
	vol_io_timeout = 0;
	g_setenv("VHOST_ROOT", root, TRUE);
	tgt_dir = g_build_filename(root, "tgt", NULL);
}

void tgt_begin(void)
{
	test_begin();
	tgt("start", "");
	tgt("target", "1 " IQN);
}

void tgt_end(void)
{
	tgt("kill", "");
	test_end();
}

void test_end(void)
{
	g_autofree char *command = g_strdup_printf("rm -rf %s", root);

	run(command);
	g_clear_pointer(&tgt_dir, g_free);
	g_clear_pointer(&root, g_free);
}

int vol_try(struct vol *x, unsigned lun, uint32_t mode, const char *options, struct vh_err *e)
{
	g_autofree char *file = g_build_filename(tgt_dir, "port", NULL), *port = NULL, *text = NULL;
	g_autofree char *name = g_strdup_printf("lun%u", lun), *elsewhere = g_build_filename(root, "elsewhere", NULL);
	struct store_attach a = {.name = name, .mode = mode, .holder = "pid 1 vhost test",
				 .blk = {.io_timeout_ns = vol_io_timeout}};
	struct kvs k;
	int ret;

	memset(x, 0, sizeof(*x));
	g_assert_true(g_file_get_contents(file, &port, NULL, NULL));
	text = g_strdup_printf("portal=127.0.0.1:%s,target=" IQN "%s%s", g_strstrip(port), *options ? "," : "", options);
	g_assert_cmpint(kvs_parse(text, &k, NULL), ==, 0);
	/* Another host has leases of its own. */
	if (strstr(options, "host-b"))
		g_setenv("VHOST_ROOT", elsewhere, TRUE);
	ret = store_pool_open_type("iscsi", &k, &x->pool, e);
	kvs_clear(&k);
	if (!ret)
		ret = store_attach(x->pool, &a, &x->v, e);
	g_setenv("VHOST_ROOT", root, TRUE);
	if (ret && x->pool)
		store_pool_close(x->pool);
	return ret;
}

void vol_open(struct vol *x, unsigned lun, const char *options)
{
	ERR_AUTO(e);

	if (vol_try(x, lun, VH_ATTACH_RW_EXCL, options, &e))
		g_error("%s", e.cause);
}

void vol_close(struct vol *x)
{
	blk_vol_put(x->v);
	store_pool_close(x->pool);
}

/* ---- the load ---- */

struct slot {
	struct blk_io io;
	struct iovec iov;
	struct load *l;
	unsigned block;
	uint64_t *buf;
};

struct load {
	struct vh_loop *loop;
	struct blk_vol *v;
	struct blk_vq *q;
	unsigned first, blocks, depth, next;
	uint64_t *acked; /* version by block */
	uint8_t *unsure; /* a write failed: the version before it, or its own */
	uint64_t version;
	struct slot *slots;
	atomic_uint inflight, failed;
	atomic_ullong done;
	atomic_int stop;
};

static void fill(uint64_t *buf, unsigned block, uint64_t version)
{
	for (unsigned i = 0; i < LOAD_BLOCK / 8; i++)
		buf[i] = version * UINT64_C(0x9e3779b97f4a7c15) ^ ((uint64_t)block << 32 | i);
	buf[0] = version;
}

static void write_next(struct slot *s)
{
	struct load *l = s->l;

	/* Stays with its blocks: block % depth is the slot. */
	fill(s->buf, s->block, ++l->version);
	s->io.off = (uint64_t)s->block * LOAD_BLOCK;
	blk_submit(l->q, &s->io);
}

static void write_done(struct blk_io *io, int res)
{
	struct slot *s = (struct slot *)((char *)io - offsetof(struct slot, io));
	struct load *l = s->l;

	if (res) {
		atomic_fetch_add(&l->failed, 1);
		l->unsure[s->block - l->first] = 1;
	} else {
		l->acked[s->block - l->first] = s->buf[0];
		l->unsure[s->block - l->first] = 0;
		atomic_fetch_add(&l->done, 1);
	}
	if (atomic_load(&l->stop) || res) {
		atomic_fetch_sub(&l->inflight, 1);
		return;
	}
	/* The same block twice, then the slot's next: a write that comes late lands on one that was acknowledged. */
	if (l->version & 1) {
		s->block += l->depth;
		if (s->block >= l->first + l->blocks)
			s->block = l->first + (s->block - l->first) % l->depth;
	}
	write_next(s);
}

static void begin(void *ctx)
{
	struct load *l = ctx;

	g_assert_cmpint(blk_vq_open(l->v, l->loop, l->depth, &l->q, NULL), ==, 0);
	for (unsigned i = 0; i < l->depth; i++) {
		struct slot *s = &l->slots[i];

		s->l = l;
		s->block = l->first + i;
		s->buf = aligned_alloc(4096, LOAD_BLOCK);
		s->iov = (struct iovec){s->buf, LOAD_BLOCK};
		s->io = (struct blk_io){.op = VH_WRITE, .len = LOAD_BLOCK, .iov = &s->iov, .niov = 1, .done = write_done};
		atomic_fetch_add(&l->inflight, 1);
		write_next(s);
	}
}

static void end(void *ctx)
{
	blk_vq_close(((struct load *)ctx)->q);
}

struct load *load_start(struct blk_vol *v, unsigned first, unsigned blocks, unsigned depth)
{
	struct load *l = g_new0(struct load, 1);

	l->v = v;
	l->first = first;
	l->blocks = blocks;
	l->depth = depth;
	l->acked = g_new0(uint64_t, blocks);
	l->unsure = g_new0(uint8_t, blocks);
	l->slots = g_new0(struct slot, depth);
	g_assert_cmpint(loop_new("load", &l->loop, NULL), ==, 0);
	g_assert_cmpint(loop_start(l->loop, NULL), ==, 0);
	loop_call(l->loop, begin, l);
	return l;
}

uint64_t load_done(struct load *l)
{
	return atomic_load(&l->done);
}

unsigned load_stop(struct load *l)
{
	atomic_store(&l->stop, 1);
	for (int i = 0; atomic_load(&l->inflight); i++) {
		g_assert_cmpint(i, <, 6000); /* a minute */
		g_usleep(10000);
	}
	loop_call(l->loop, end, l);
	loop_stop(l->loop);
	loop_free(l->loop);
	return atomic_load(&l->failed);
}

unsigned load_verify(struct load *l, struct blk_vol *v)
{
	uint64_t *got = aligned_alloc(4096, LOAD_BLOCK), *want = aligned_alloc(4096, LOAD_BLOCK);
	unsigned bad = 0;

	for (unsigned i = 0; i < l->blocks; i++) {
		ERR_AUTO(e);

		if (!l->acked[i] && !l->unsure[i])
			continue;
		if (blk_read(v, got, LOAD_BLOCK, (uint64_t)(l->first + i) * LOAD_BLOCK, &e))
			g_error("%s", e.cause);
		fill(want, l->first + i, l->unsure[i] ? got[0] : l->acked[i]);
		if (memcmp(got, want, LOAD_BLOCK) && !(l->unsure[i] && !l->acked[i])) {
			if (!bad)
				g_printerr("# block %u has version %llu, not %llu\n", l->first + i, (unsigned long long)got[0],
					   (unsigned long long)l->acked[i]);
			bad++;
		}
	}
	for (unsigned i = 0; i < l->depth; i++)
		free(l->slots[i].buf);
	free(got);
	free(want);
	g_free(l->slots);
	g_free(l->acked);
	g_free(l->unsure);
	g_free(l);
	return bad;
}
