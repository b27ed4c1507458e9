/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * The load of one round: a new image over recording volumes, then writes, zeroes, discards, flushes, and where it is asked for
 * snapshots and changes of size, some of them at once, and now and then the image is closed and opened again.
 */
#include "crash/crash-i.h"
#include <errno.h>
#include <stdlib.h>
#include "plug/options.h"
#include "util/loop.h"

#define BATCH 8u
#define SNAPSHOTS 3u /* at once */

struct load;
struct guest_io {
	struct fmt_io io;
	struct iovec iov;
	struct load *l;
	uint8_t *buf;
	uint32_t op; /* of the oracle */
	int result;
};

struct load {
	struct round *r;
	struct fmt_image *image;
	struct vh_loop *loop;
	struct fmt_queue *queue;
	uint64_t rnd, sectors, unit; /* of the disk now, of a unit */
	uint64_t last;               /* where the load was: the next is often near */
	pthread_mutex_t lock;
	pthread_cond_t cond;
	unsigned pending;
	struct guest_io io[BATCH];
	struct { uint32_t *values; uint64_t sectors; unsigned number; } snapshot[SNAPSHOTS];
	unsigned n_snapshots, snapshots_made;
	int no_resizes;
	int no_snapshots; /* this kind of image has none, or no more */
};

static int resolve(void *ctx, const struct vh_ref *ref, int read_only, struct blk_vol **vol, char format[32], struct vh_err *e)
{
	struct round *r = ctx;

	/* A format that keeps no name of its parent says none. */
	if (r->base && ref->role == VH_REF_BACKING && (!ref->name[0] || !strcmp(ref->name, r->base_name))) {
		*vol = blk_vol_ref(r->base);
		g_strlcpy(format, r->base_format, 32);
		return 0;
	}
	for (unsigned v = 1; v < r->volumes; v++) {
		if (strcmp(ref->name, r->names[v]))
			continue;
		*vol = blk_vol_ref(r->vols[v]);
		g_strlcpy(format, ref->format, 32);
		return 0;
	}
	return err_set(e, -ENOENT, "the image refers to \"%s\", which is none of its files", ref->name);
}

int round_open(struct round *r, int read_only, struct fmt_image **out, struct vh_err *e)
{
	struct fmt_spec s = {.vol = blk_vol_ref(r->vols[0]), .ops = r->ops, .opts = optset_get(r->open_opts), .read_only = read_only,
			     .resolve = resolve, .resolve_ctx = r, .label = r->names[0], .on_read_error = FMT_REPORT,
			     .on_write_error = FMT_REPORT};
	struct fmt_layer_info top;
	int ret = fmt_open(&s, out, e);

	if (ret)
		return ret;
	fmt_layer_get(*out, 0, &top);
	r->encrypted = !!(top.caps & VH_FMT_CRYPT);
	return 0;
}

/* ---- requests ---- */

static void guest_done(struct fmt_io *io, int result)
{
	struct guest_io *g = (struct guest_io *)io;
	struct load *l = g->l;
	uint32_t now = trace_now(l->r->trace);

	pthread_mutex_lock(&l->lock);
	g->result = result;
	if (!result)
		oracle_op(l->r->oracle, g->op)->ended = now;
	l->pending--;
	pthread_cond_signal(&l->cond);
	pthread_mutex_unlock(&l->lock);
}

static void submit_all(void *ctx)
{
	struct load *l = ctx;
	unsigned n = l->pending;

	for (unsigned k = 0; k < n; k++)
		fmt_submit(l->queue, &l->io[k].io);
}

static int overlaps(const struct load *l, unsigned n, uint64_t c, uint64_t count)
{
	for (unsigned k = 0; k < n; k++) {
		const struct oracle_op *x = oracle_op(l->r->oracle, l->io[k].op);

		if (x->op != VH_FLUSH && c < (uint64_t)x->c + x->n && x->c < c + count)
			return 1;
	}
	return 0;
}

/* A place and a length: small, whole units, or anything; often near the last one. */
static void place(struct load *l, uint64_t *c, uint64_t *n)
{
	uint64_t kind = crash_below(&l->rnd, 100), near = crash_below(&l->rnd, 2), at;

	if (kind < 40)
		*n = 1 + crash_below(&l->rnd, 16);
	else if (kind < 70)
		*n = l->unit * (1 + crash_below(&l->rnd, l->unit >= 2048 ? 2 : 4));
	else if (kind < 88)
		*n = 1 + crash_below(&l->rnd, l->unit);
	else
		*n = 1 + crash_below(&l->rnd, l->unit >= 2048 ? l->unit + l->unit / 2 : 3 * l->unit + 8);
	if (*n > l->sectors)
		*n = l->sectors;
	at = near ? l->last + crash_below(&l->rnd, 2 * l->unit + 1) : crash_below(&l->rnd, l->sectors);
	if (kind >= 40 && kind < 70)
		at -= at % l->unit;
	if (at > l->sectors - *n)
		at = crash_below(&l->rnd, l->sectors - *n + 1);
	if (kind >= 40 && kind < 70)
		at -= at % l->unit;
	*c = at;
}

/* Small writes in a row allocate together: now and then one goes on where the one before it ends. */
static void follow(struct load *l, unsigned n, uint32_t op, uint64_t *c, uint64_t *count)
{
	const struct oracle_op *x = n ? oracle_op(l->r->oracle, l->io[n - 1].op) : NULL;

	if (!x || op != VH_WRITE || x->op != VH_WRITE || crash_below(&l->rnd, 3))
		return;
	*count = 1 + *count % 16;
	if ((uint64_t)x->c + x->n + *count <= l->sectors)
		*c = (uint64_t)x->c + x->n;
	else
		*count = 1; /* wherever that is */
}

/* Up to `depth` requests at once, which never overlap: who wins is not the question here. */
static int batch(struct load *l, unsigned depth, struct vh_err *e)
{
	unsigned n = 0, want = 1 + (unsigned)crash_below(&l->rnd, depth);
	/* A flush among writes is where the order of things matters most. */
	unsigned flush_at = want > 1 && crash_below(&l->rnd, 2) ? (unsigned)crash_below(&l->rnd, want) : BATCH;
	int ret = 0;

	for (unsigned tries = 0; n < want && tries < 20; tries++) {
		struct guest_io *g = &l->io[n];
		uint64_t kind = crash_below(&l->rnd, 100), c = 0, count = 0;
		struct oracle_op op = {.op = kind < 55 ? VH_WRITE : kind < 67 ? VH_ZERO : kind < 82 ? VH_DISCARD : VH_FLUSH};

		if (n == flush_at)
			op.op = VH_FLUSH;
		if (op.op != VH_FLUSH) {
			place(l, &c, &count);
			follow(l, n, op.op, &c, &count);
			if (overlaps(l, n, c, count))
				continue;
			l->last = c;
		}
		op.c = (uint32_t)c;
		op.n = (uint32_t)count;
		memset(&g->io, 0, sizeof(g->io));
		g->io.op = op.op;
		if ((op.op == VH_WRITE || op.op == VH_ZERO) && crash_below(&l->rnd, 12) == 0) {
			g->io.flags |= VH_REQ_FUA;
			op.fua = 1;
		}
		if (op.op == VH_ZERO && crash_below(&l->rnd, 2))
			g->io.flags |= VH_REQ_MAY_UNMAP;
		g->op = oracle_begin(l->r->oracle, &op);
		g->io.off = c * CRASH_SECTOR;
		g->io.len = count * CRASH_SECTOR;
		if (op.op == VH_WRITE) {
			g->buf = g_realloc(g->buf, g->io.len);
			oracle_fill(g->buf, VALUE_OP + g->op, c, count);
			g->iov = (struct iovec){g->buf, g->io.len};
			g->io.niov = 1;
		}
		g->io.iov = &g->iov;
		g->io.done = guest_done;
		g->l = l;
		n++;
	}
	l->r->operations += n;
	l->pending = n;
	for (unsigned k = 0; k < n; k++)
		oracle_op(l->r->oracle, l->io[k].op)->begun = trace_now(l->r->trace);
	loop_call(l->loop, submit_all, l);
	pthread_mutex_lock(&l->lock);
	while (l->pending)
		pthread_cond_wait(&l->cond, &l->lock);
	pthread_mutex_unlock(&l->lock);
	for (unsigned k = 0; k < n && !ret; k++)
		if (l->io[k].result < 0)
			ret = err_set(e, l->io[k].result, "operation %u of the load fails: %s", l->io[k].op, strerror(-l->io[k].result));
	return ret;
}

/* ---- control calls ---- */

static uint32_t control_begin(struct load *l, struct oracle_op op)
{
	op.begun = trace_now(l->r->trace);
	l->r->operations++;
	return oracle_begin(l->r->oracle, &op);
}

static void control_end(struct load *l, uint32_t k)
{
	oracle_op(l->r->oracle, k)->ended = trace_now(l->r->trace);
}

static int resize(struct load *l, struct vh_err *e)
{
	uint64_t old = l->sectors, size = old + crash_below(&l->rnd, l->r->oracle->most - old + 1);
	struct oracle_op op = {.op = ORACLE_RESIZE};
	uint32_t k;
	int ret;
	ERR_AUTO(why);

	if (crash_below(&l->rnd, 2) && crash_below(&l->rnd, 3) == 0)
		size -= size % l->unit;
	if (size <= old)
		return 0;
	op.c = (uint32_t)old;
	op.n = (uint32_t)(size - old);
	op.size = size;
	k = control_begin(l, op);
	ret = fmt_resize(l->image, size * CRASH_SECTOR, &why);
	if (ret == -EOPNOTSUPP) { /* not this kind of image, or not with snapshots */
		l->no_resizes = 1;
		return 0;
	}
	if (ret < 0) {
		err_move(e, &why);
		return ret;
	}
	control_end(l, k);
	l->sectors = size;
	return 0;
}

/* What the disk holds now, by sector. */
static int look(struct load *l, uint32_t **out, struct vh_err *e)
{
	uint64_t step = (1u << 20) / CRASH_SECTOR;
	g_autofree uint8_t *buf = g_malloc(1u << 20);
	uint32_t *v = g_new0(uint32_t, l->r->oracle->most);

	for (uint64_t c = 0; c < l->sectors; c += step) {
		uint64_t n = MIN(step, l->sectors - c);
		int ret = fmt_pread(l->image, buf, n * CRASH_SECTOR, c * CRASH_SECTOR, e), shifted;

		for (uint64_t k = 0; k < n && !ret; k++) {
			v[c + k] = oracle_value(buf + k * CRASH_SECTOR, c + k, &shifted);
			if (v[c + k] == VALUE_BAD || shifted)
				ret = err_set(e, -EIO, "sector %llu is damaged before there was any crash", (unsigned long long)(c + k));
		}
		if (ret) {
			g_free(v);
			return ret;
		}
	}
	*out = v;
	return 0;
}

/* Some images of a format that has snapshots cannot have one: counts of one bit, data in a file of its own. */
static int snapshot_create(struct load *l, const char *name, struct vh_err *e)
{
	ERR_AUTO(why);
	int ret = fmt_snapshot_create(l->image, name, &why);

	if (!ret) {
		l->n_snapshots++;
		return 0;
	}
	g_clear_pointer(&l->snapshot[l->n_snapshots].values, g_free);
	if (ret == -EOPNOTSUPP || ret == -ERANGE || ret == -EOVERFLOW) {
		l->no_snapshots = 1;
		return 0;
	}
	err_move(e, &why);
	return ret;
}

static int snapshot(struct load *l, struct vh_err *e)
{
	struct oracle_op flush = {.op = VH_FLUSH}, apply = {.op = ORACLE_APPLY, .fua = 1};
	unsigned which = (unsigned)crash_below(&l->rnd, SNAPSHOTS), kind = (unsigned)crash_below(&l->rnd, 3);
	char name[32];
	uint32_t k, a = 0;
	int ret;

	if (which >= l->n_snapshots)
		kind = 0;
	else if (kind == 0 && l->n_snapshots == SNAPSHOTS)
		kind = 1;
	if (kind == 1 && l->snapshot[which].sectors != l->sectors)
		kind = 2; /* sizes that come back are not this test's subject */
	if (kind == 0)
		g_snprintf(name, sizeof(name), "snap%u", l->snapshots_made);
	else
		g_snprintf(name, sizeof(name), "snap%u", l->snapshot[which].number);
	k = control_begin(l, flush);
	if (kind == 0) {
		l->snapshot[l->n_snapshots].sectors = l->sectors;
		l->snapshot[l->n_snapshots].number = l->snapshots_made++;
		ret = look(l, &l->snapshot[l->n_snapshots].values, e);
		if (!ret)
			ret = snapshot_create(l, name, e);
	} else if (kind == 1) {
		apply.n = (uint32_t)l->sectors;
		apply.values = g_memdup2(l->snapshot[which].values, l->r->oracle->most * sizeof(uint32_t));
		a = control_begin(l, apply);
		ret = fmt_snapshot_apply(l->image, name, NULL, e);
	} else {
		ret = fmt_snapshot_remove(l->image, name, NULL, e);
		if (!ret) {
			g_free(l->snapshot[which].values);
			l->snapshot[which] = l->snapshot[--l->n_snapshots];
		}
	}
	if (ret)
		return err_set(e, ret, "snapshot %s of the load", name);
	if (kind == 1)
		control_end(l, a);
	control_end(l, k);
	return 0;
}

/* ---- the image ---- */

static int open_image(struct load *l, struct vh_err *e)
{
	struct fmt_layer_info info;
	int ret = round_open(l->r, 0, &l->image, e);

	if (ret)
		return ret;
	fmt_layer_get(l->image, 0, &info);
	l->unit = l->r->unit = MAX(info.unit / CRASH_SECTOR, 8);
	ret = loop_new("crash", &l->loop, e);
	if (!ret)
		ret = fmt_queue_open(l->image, l->loop, BATCH, &l->queue, e);
	if (!ret)
		ret = loop_start(l->loop, e);
	return ret;
}

static void close_image(struct load *l)
{
	if (l->loop)
		loop_stop(l->loop);
	if (l->queue)
		fmt_queue_close(l->queue);
	loop_free(l->loop);
	fmt_close(l->image);
	l->image = NULL;
	l->queue = NULL;
	l->loop = NULL;
}

static int reopen(struct load *l, struct vh_err *e)
{
	struct oracle_op op = {.op = VH_FLUSH};
	uint32_t k = control_begin(l, op);

	close_image(l);
	control_end(l, k);
	return open_image(l, e);
}

static int make_files(struct round *r, struct vh_create *c, struct vh_meta **metas, struct vh_err *e)
{
	struct vh_create_ref *refs = NULL;
	uint64_t required = 0, full = 0;
	int n = r->ops->create_refs ? r->ops->create_refs(c, NULL, 0, e) : 0, ret = 0;

	if (n > 0 && n < (int)CRASH_VOLUMES) {
		refs = g_new0(struct vh_create_ref, (gsize)n);
		for (int k = 0; k < n; k++)
			refs[k].size = sizeof(*refs);
		ret = r->ops->create_refs(c, refs, (uint32_t)n, e);
		if (ret >= 0 && ret != n)
			ret = err_set(e, -EIO, "create_refs() says %d and then %d", n, ret);
	}
	if (n < 0 || ret < 0 || n >= (int)CRASH_VOLUMES) {
		g_free(refs);
		return err_set(e, n < 0 ? n : ret < 0 ? ret : -E2BIG, "an image of %d further files", n);
	}
	if (r->ops->measure && r->ops->measure(c, 0, &required, &full, NULL) < 0)
		required = 0;
	if (!r->ops->create)
		required = c->bytes;
	r->volumes = 1 + (unsigned)n;
	r->trace = trace_new(r->volumes);
	ret = 0;
	for (unsigned v = 0; v < r->volumes && !ret; v++) {
		unsigned align = r->number % 2 ? 1 : CRASH_SECTOR;
		uint64_t bytes = v ? refs[v - 1].bytes : n ? 0 : required; /* measure() tells of all files together */

		if (v)
			r->names[v] = g_strndup(refs[v - 1].name, sizeof(refs[0].name));
		r->vols[v] = record_volume(r->trace, v, r->names[v], r->seed + v, align, e);
		if (!r->vols[v])
			ret = -ENOMEM;
		else
			ret = blk_vol_resize(r->vols[v], (bytes + CRASH_SECTOR - 1) / CRASH_SECTOR * CRASH_SECTOR, e);
		metas[v] = ret ? NULL : fmt_meta_new(r->vols[v], 0);
	}
	g_free(refs);
	return ret;
}

static int make_image(struct round *r, struct vh_err *e)
{
	struct vh_meta *metas[CRASH_VOLUMES] = {0};
	struct vh_create c = {.size = sizeof(c), .bytes = r->bytes, .opts = optset_get(r->create_opts), .name = r->names[0]};
	struct vh_meta *base = NULL;
	int ret;

	if (r->base) {
		base = fmt_meta_new(r->base, 1);
		c.backing = r->base_name;
		c.backing_format = r->base_format;
		c.backing_bytes = r->base_bytes;
		c.backing_volume = base;
	}
	ret = make_files(r, &c, metas, e);
	c.volumes = metas;
	c.n = r->volumes;
	if (!ret && r->ops->create)
		ret = r->ops->create(&c, NULL, e);
	for (unsigned v = 0; v < r->volumes; v++) {
		if (!ret)
			ret = blk_flush(r->vols[v], e);
		fmt_meta_free(metas[v]);
	}
	fmt_meta_free(base);
	return ret < 0 ? err_set(e, ret, "cannot make an image of format %s", r->spec->format) : 0;
}

/* A new disk that does not read as zeros, an encrypted one, is filled first, with what a backing image would show. */
static int mark(struct round *r, struct fmt_image *image, struct vh_err *e)
{
	uint64_t n = r->bytes / CRASH_SECTOR;
	g_autofree uint8_t *disk = g_malloc(r->bytes);
	int ret = fmt_pread(image, disk, r->bytes, 0, e), shifted;

	for (uint64_t c = 0; c < n && !ret && !r->marked; c++)
		r->marked = oracle_value(disk + c * CRASH_SECTOR, c, &shifted) != VALUE_ZERO;
	if (ret || !r->marked)
		return ret;
	oracle_fill(disk, VALUE_BASE, 0, n);
	ret = fmt_pwrite(image, disk, r->bytes, 0, e);
	return ret ? ret : fmt_flush(image, e);
}

/* Its size, and with it how much there is to do, follows from the format's unit. */
static int measure_unit(struct round *r, struct vh_err *e)
{
	struct fmt_layer_info info;
	struct fmt_image *image;
	int ret = round_open(r, 0, &image, e);

	if (ret)
		return ret;
	fmt_layer_get(image, 0, &info);
	r->unit = MAX(info.unit / CRASH_SECTOR, 8);
	if (info.caps & VH_FMT_WRITE_ONCE)
		ret = err_set(e, -EOPNOTSUPP, "images of this kind are filled once and not written to");
	else if (!r->base)
		ret = mark(r, image, e);
	fmt_close(image);
	return ret;
}

static int run(struct load *l, struct vh_err *e)
{
	struct round *r = l->r;
	const struct crash_spec *s = r->spec;
	unsigned want = s->operations, depth = s->depth ? MIN(s->depth, BATCH) : 5;
	int ret = 0;

	if (!want)
		want = r->unit >= 2048 ? 40 : 90;
	while (r->operations < want && !ret) {
		uint64_t kind = crash_below(&l->rnd, 100);

		if (kind < 4)
			ret = reopen(l, e);
		else if (kind < 14 && s->snapshots && !l->no_snapshots && r->ops->snapshot_create && r->ops->snapshot_apply && r->ops->snapshot_remove)
			ret = snapshot(l, e);
		else if (kind < 19 && s->resizes && !r->marked && !l->no_resizes && r->ops->resize)
			ret = resize(l, e);
		else
			ret = batch(l, depth, e);
	}
	return ret;
}

int round_load(struct round *r, struct vh_err *e)
{
	struct load l = {.r = r, .rnd = r->seed * 0x9e3779b97f4a7c15u | 1};
	struct oracle_op op = {.op = VH_FLUSH};
	uint64_t most;
	uint32_t k;
	int ret = make_image(r, e);

	r->made = !ret;
	if (!ret)
		ret = measure_unit(r, e);
	if (ret)
		return ret;
	l.sectors = r->bytes / CRASH_SECTOR;
	most = l.sectors + (r->spec->resizes && r->ops->resize ? l.sectors / 2 : 0);
	r->oracle = oracle_new(l.sectors, most, r->marked ? l.sectors : r->base ? MIN(r->base_bytes / CRASH_SECTOR, l.sectors) : 0);
	pthread_mutex_init(&l.lock, NULL);
	pthread_cond_init(&l.cond, NULL);
	record_start(r->trace, r->vols);
	ret = open_image(&l, e);
	if (!ret)
		ret = run(&l, e);
	r->broken = ret < 0;
	k = control_begin(&l, op);
	if (l.image)
		close_image(&l);
	control_end(&l, k);
	trace_end(r->trace);
	for (unsigned b = 0; b < BATCH; b++)
		g_free(l.io[b].buf);
	for (unsigned n = 0; n < l.n_snapshots; n++)
		g_free(l.snapshot[n].values);
	pthread_mutex_destroy(&l.lock);
	pthread_cond_destroy(&l.cond);
	return ret;
}
