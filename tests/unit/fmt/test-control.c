/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Control calls: each on a drained and flushed image, caches dropped and sizes told afterwards; absent ones say so. */
#include "rig.h"

#define MB (1u << 20)
#define U 65536u
#define CAPS (VH_VOL_GROW | VH_VOL_DISCARD | VH_VOL_ZERO | VH_VOL_ZERO_ON_GROW)

static struct {
	int calls, inflight, dirty, flushes, order, fail;
	uint64_t new_bytes;
	char name[64];
	_Atomic int busy; /* map and commit calls that run */
} seen;
static const struct vh_format_ops *toy;

/* Counts what runs while a control call does: nothing may. */
static int count_map(void *img, struct vh_map *m)
{
	int r;

	seen.busy++;
	r = toy->map(img, m);
	seen.busy--;
	return r;
}

static int count_commit(void *img, struct vh_map *m, int status, uint32_t nowait)
{
	int r = toy->commit(img, m, status, nowait);

	if (!r && !status)
		seen.dirty = 1;
	return r;
}

static int count_flush(void *img, uint32_t phase)
{
	int r = toy->flush(img, phase);

	seen.flushes++;
	if (!r)
		seen.dirty = 0;
	return r;
}

static int called(struct vh_err *e)
{
	seen.calls++;
	seen.inflight += seen.busy;
	g_assert_cmpint(seen.dirty, ==, 0); /* flushed */
	if (seen.fail > 0)
		return seen.fail; /* what no call returns */
	return seen.fail ? err_set(e, seen.fail, "the plugin says no") : 0;
}

static int snap(void *img, const char *name, struct vh_err *e)
{
	g_strlcpy(seen.name, name, sizeof(seen.name));
	return called(e);
}

static int snap_job(void *img, const char *name, struct vh_job *j, struct vh_err *e)
{
	return snap(img, name, e);
}

static int snap_list(void *img, vh_snapshot_fn *fn, void *ctx, struct vh_err *e)
{
	struct vh_snapshot s = {.size = sizeof(s), .name = "a", .id = "1"};
	int r = called(e);

	r = r ? r : fn(ctx, &s);
	s.name = "b";
	return r ? r : fn(ctx, &s);
}

static int amend(void *img, const struct vh_opts *o, struct vh_job *j, struct vh_err *e)
{
	return called(e);
}

static int set_backing(void *img, const char *name, const char *format, uint64_t bytes, struct vh_meta *volume, struct vh_err *e)
{
	g_strlcpy(seen.name, name ? name : "(none)", sizeof(seen.name));
	return called(e);
}

static int empty(void *img, struct vh_job *j, struct vh_err *e)
{
	int r = called(e);

	return r ? r : toy->empty(img, j, e);
}

static int info(void *img, struct vh_image_info *i)
{
	int r = toy->info(img, i);

	if (seen.new_bytes)
		i->bytes = seen.new_bytes;
	return r;
}

static struct vh_format_ops full(void)
{
	struct vh_format_ops o;
	ERR_AUTO(e);

	if (!toy && plug_format("toy-format", &toy, &e))
		g_error("%s", e.cause);
	o = *toy;
	o.map = count_map;
	o.commit = count_commit;
	o.flush = count_flush;
	o.info = info;
	o.snapshot_create = snap;
	o.snapshot_list = snap_list;
	o.snapshot_apply = snap_job;
	o.snapshot_remove = snap_job;
	o.amend = amend;
	o.set_backing = set_backing;
	o.empty = empty;
	memset(&seen, 0, sizeof(seen));
	return o;
}

static struct blk_vol *vol(void)
{
	struct blk_vol *v = fake_vol_new("toy", 0, CAPS);

	rig_create(v, "toy-format", 4 * MB, NULL, NULL, 0);
	return v;
}

static struct fmt_image *open_as(struct blk_vol *v, const struct vh_format_ops *o, int read_only)
{
	struct fmt_spec s = {.vol = blk_vol_ref(v), .ops = o, .read_only = read_only, .label = "test"};
	struct fmt_image *i;
	ERR_AUTO(e);

	if (fmt_open(&s, &i, &e))
		g_error("%s", e.cause);
	return i;
}

static int nth(struct fmt_image *i, unsigned n, struct vh_err *e);

static int count_snap(void *ctx, const struct vh_snapshot *s)
{
	return ++*(int *)ctx == 1 && s->name[0] == 'a' ? 0 : 7;
}

/* Every control call that changes the image. */
static int nth(struct fmt_image *i, unsigned n, struct vh_err *e)
{
	switch (n) {
	case 0: return fmt_snapshot_create(i, "one", e);
	case 1: return fmt_snapshot_apply(i, "one", NULL, e);
	case 2: return fmt_snapshot_remove(i, "one", NULL, e);
	case 3: return fmt_amend(i, NULL, NULL, e);
	case 4: return fmt_empty(i, NULL, e);
	case 5: return fmt_set_backing(i, "below", "raw", 1, NULL, e);
	}
	return 1;
}

static void absent_calls(void)
{
	struct vh_format_ops o = full();
	struct blk_vol *v = vol();
	struct fmt_image *i;
	int n = 0;

	o.snapshot_create = NULL;
	o.snapshot_list = NULL;
	o.snapshot_apply = NULL;
	o.snapshot_remove = NULL;
	o.amend = NULL;
	o.set_backing = NULL;
	o.empty = NULL;
	o.describe = NULL;
	i = open_as(v, &o, 0);
	for (unsigned k = 0; k < 6; k++) {
		ERR_AUTO(e);

		g_assert_cmpint(nth(i, k, &e), ==, -EOPNOTSUPP);
		g_assert_nonnull(strstr(e.cause, "images of format toy-format"));
	}
	g_assert_cmpint(fmt_snapshot_list(i, count_snap, &n, NULL), ==, -EOPNOTSUPP);
	g_assert_cmpint(fmt_describe(i, NULL, NULL, NULL), ==, 0);
	fmt_close(i);
	blk_vol_put(v);
}

static void read_only(void)
{
	struct vh_format_ops o = full();
	struct blk_vol *v = vol();
	struct fmt_image *i = open_as(v, &o, 1);
	int n = 0;

	for (unsigned k = 0; k < 6; k++)
		g_assert_cmpint(nth(i, k, NULL), ==, -EROFS);
	g_assert_cmpint(seen.calls, ==, 0);
	g_assert_cmpint(fmt_snapshot_list(i, count_snap, &n, NULL), ==, 7); /* fn ends it */
	g_assert_cmpint(n, ==, 2);
	fmt_close(i);
	blk_vol_put(v);
}

struct writer {
	struct rig_queue q;
	_Atomic int stop, errors;
	unsigned writes;
};

static gpointer keep_writing(gpointer ctx)
{
	struct writer *w = ctx;
	uint8_t buf[4096];
	uint64_t seed = 5;

	while (!w->stop) {
		memset(buf, (int)w->writes, sizeof(buf));
		if (rig_io(&w->q, VH_WRITE, 0, buf, sizeof(buf), rig_rnd(&seed) % (4 * MB / 4096) * 4096))
			w->errors++;
		w->writes++;
	}
	return NULL;
}

/* Under writes, each call sees a still and flushed image, and the writers go on afterwards. */
static void under_load(void)
{
	struct vh_format_ops o = full();
	struct blk_vol *v = vol();
	struct fmt_image *i = open_as(v, &o, 0);
	struct writer w = {0};
	GThread *t;
	ERR_AUTO(e);

	rig_queue_open(&w.q, i, 8);
	t = g_thread_new("writer", keep_writing, &w);
	for (unsigned round = 0; round < 40; round++)
		for (unsigned k = 0; k < 4; k++)
			if (nth(i, k, &e))
				g_error("%u: %s", k, e.cause);
	w.stop = 1;
	g_thread_join(t);
	g_assert_cmpint(seen.calls, ==, 160);
	g_assert_cmpint(seen.inflight, ==, 0);
	g_assert_cmpint(w.errors, ==, 0);
	g_assert_cmpuint(w.writes, >, 0);
	g_assert_cmpstr(seen.name, ==, "one");
	rig_queue_close(&w.q);
	fmt_close(i);
	blk_vol_put(v);
}

static void told(void *ctx, uint64_t bytes)
{
	*(uint64_t *)ctx = bytes;
}

/* What an applied snapshot changed is seen: the size at once, and no cached place is used. */
static void size_and_caches(void)
{
	struct vh_format_ops o = full();
	struct blk_vol *v = vol();
	struct fmt_image *i = open_as(v, &o, 0);
	struct rig_queue q;
	struct fmt_info fi;
	uint64_t bytes = 0;
	uint8_t b[4096];

	rig_queue_open(&q, i, 4);
	fmt_listen(i, told, &bytes);
	memset(b, 9, sizeof(b));
	g_assert_cmpint(rig_io(&q, VH_WRITE, 0, b, sizeof(b), 8192), ==, 0);
	g_assert_cmpint(rig_io(&q, VH_READ, 0, b, sizeof(b), 8192), ==, 0);
	g_assert_cmpint(b[0], ==, 9);
	g_assert_cmpint(fmt_empty(i, NULL, NULL), ==, 0);
	g_assert_cmpint(rig_io(&q, VH_READ, 0, b, sizeof(b), 8192), ==, 0);
	g_assert_cmpint(b[0], ==, 0);
	g_assert_cmpint(bytes, ==, 0); /* nothing to tell */
	seen.new_bytes = 3 * MB;
	g_assert_cmpint(fmt_snapshot_apply(i, "smaller", NULL, NULL), ==, 0);
	g_assert_cmpuint(bytes, ==, 3 * MB);
	fmt_get_info(i, &fi);
	g_assert_cmpuint(fi.bytes, ==, 3 * MB);
	g_assert_cmpint(rig_io(&q, VH_READ, 0, b, sizeof(b), 3 * MB), ==, -EINVAL);
	rig_queue_close(&q);
	fmt_close(i);
	blk_vol_put(v);
}

static void failing(void)
{
	struct vh_format_ops o = full();
	struct blk_vol *v = vol();
	struct fmt_image *i = open_as(v, &o, 0);
	struct rig_queue q;
	uint8_t b[512] = {1};

	rig_queue_open(&q, i, 4);
	seen.fail = -ENOSPC;
	for (unsigned k = 0; k < 6; k++) {
		ERR_AUTO(e);

		g_assert_cmpint(nth(i, k, &e), ==, -ENOSPC);
		g_assert_nonnull(strstr(e.cause, "the plugin says no"));
		g_assert_cmpint(rig_io(&q, VH_WRITE, 0, b, sizeof(b), 0), ==, 0); /* and it goes on */
	}
	/* The volume fails before the call: it is not made. */
	seen.fail = 0;
	seen.calls = 0;
	g_assert_cmpint(rig_io(&q, VH_WRITE, 0, b, sizeof(b), MB), ==, 0);
	fake_vol_fail_op(v, VH_FLUSH, -EIO);
	g_assert_cmpint(nth(i, 0, NULL), ==, -EIO);
	g_assert_cmpint(seen.calls, ==, 0);
	fake_vol_fail_op(v, VH_FLUSH, 0);
	/* A positive number is no answer: the plugin is not trusted any more. */
	seen.fail = 1;
	g_assert_cmpint(nth(i, 0, NULL), ==, -EIO);
	g_assert_cmpint(rig_io(&q, VH_READ, 0, b, sizeof(b), 2 * MB), ==, -EIO);
	rig_queue_close(&q);
	fmt_close(i);
	blk_vol_put(v);
}

static int tell_layer(void *ctx, uint64_t off, uint64_t len, uint32_t type, uint32_t own, uint64_t addr)
{
	g_string_append_printf(ctx, "%u+%u %u%s;", (unsigned)(off / U), (unsigned)(len / U), type, own ? " own" : "");
	return 0;
}

/* One layer's own view: what it leaves to its backing image, and what it decides. */
static void one_layer(void)
{
	struct blk_vol *base = fake_vol_new("base", 2 * MB, CAPS), *v = fake_vol_new("top", 0, CAPS);
	struct fmt_layer_info l;
	struct fmt_image *i;
	GString *s = g_string_new(NULL);
	uint8_t b[U];
	ERR_AUTO(e);

	memset(b, 3, sizeof(b));
	rig_register("base", base);
	rig_create(v, "toy-format", 4 * MB, "base", "raw", 2 * MB);
	i = rig_open(v, "toy-format", 0, FMT_REPORT);
	g_assert_cmpuint(fmt_layers(i), ==, 2);
	g_assert_cmpint(fmt_layer_get(i, 1, &l), ==, 0);
	g_assert_cmpstr(l.format, ==, "raw");
	g_assert_cmpuint(l.bytes, ==, 2 * MB);
	g_assert_cmpint(fmt_layer_get(i, 2, &l), ==, -ENOENT);
	g_assert_cmpint(fmt_layer_get(i, 0, &l), ==, 0);
	g_assert_cmpuint(l.backing_bytes, ==, 2 * MB);
	g_assert_cmpint(fmt_pwrite(i, b, U, 2 * U, &e), ==, 0);
	g_assert_cmpint(fmt_pzero(i, 2 * U, 4 * U, &e), ==, 0);
	g_assert_cmpint(fmt_report_layer(i, 0, 0, 4 * MB, tell_layer, s, &e), ==, 0);
	g_assert_cmpstr(s->str, ==, "0+2 3;2+1 1 own;3+1 3;4+2 2 own;6+26 3;32+32 2;");
	g_string_truncate(s, 0);
	g_assert_cmpint(fmt_report_layer(i, 1, U, 2 * MB - U, tell_layer, s, &e), ==, 0);
	g_assert_cmpstr(s->str, ==, "1+31 1 own;");
	g_assert_cmpint(fmt_report_layer(i, 1, 0, 4 * MB, tell_layer, s, &e), ==, -EINVAL);
	err_clear(&e);
	g_assert_cmpint(fmt_report_layer(i, 2, 0, 1, tell_layer, s, &e), ==, -ENOENT);
	fmt_close(i);
	g_string_free(s, TRUE);
	rig_forget();
	blk_vol_put(v);
	blk_vol_put(base);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/control/absent", absent_calls);
	g_test_add_func("/control/read-only", read_only);
	g_test_add_func("/control/under-load", under_load);
	g_test_add_func("/control/size-and-caches", size_and_caches);
	g_test_add_func("/control/failing", failing);
	g_test_add_func("/control/one-layer", one_layer);
	return g_test_run();
}
