/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The plugin's table; an image's opening, closing, and what is done before its first change. */
#include <stdarg.h>
#include <stdio.h>
#include "qcow2.h"

static const struct vh_host *vh_host_ptr;
const struct vh_host *q2_host;
const struct vh_meta_ops *q2_io;
const struct vh_log_ops *q2_log;
const struct vh_job_ops *q2_job;

int q2_services(struct vh_err *e)
{
	const struct vh_meta_ops *m = vh_service(vh_host_ptr, VH_SVC_META, VH_UPTO(struct vh_meta_ops, resize));

	q2_host = vh_host_ptr;
	q2_log = vh_service(vh_host_ptr, VH_SVC_LOG, VH_UPTO(struct vh_log_ops, log));
	q2_job = vh_service(vh_host_ptr, VH_SVC_JOB, VH_UPTO(struct vh_job_ops, cancelled));
	if (!m)
		return q2_fail(e, -EOPNOTSUPP, "this host has no " VH_SVC_META " service");
	q2_io = m;
	return 0;
}

/* ---- header changes of an open image ---- */

int q2_header_update(struct q2 *q, struct vh_err *e)
{
	int r;

	pthread_mutex_lock(&q->header_lock);
	r = q2_header_write(q->vol, &q->h, e);
	pthread_mutex_unlock(&q->header_lock);
	if (r < 0)
		return r;
	r = q2_io->flush(q->vol);
	return r < 0 ? q2_fail(e, r, "cannot write the header") : 0;
}

static void incompat_set(struct q2 *q, uint64_t bit, int on)
{
	pthread_mutex_lock(&q->header_lock);
	__atomic_store_n(&q->h.incompat, on ? q->h.incompat | bit : q->h.incompat & ~bit, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&q->header_lock);
}

int q2_corrupt(struct q2 *q, const char *fmt, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (q->read_only) {
		q2_warn("the image is damaged: %s", text);
		return -EIO;
	}
	if (__atomic_exchange_n(&q->failed, 1, __ATOMIC_ACQ_REL))
		return -EIO;
	q2_warn("the image is damaged: %s; it is not written to any more, and is marked as corrupt", text);
	if (q->h.version >= 3) {
		incompat_set(q, Q2_INCOMPAT_CORRUPT, 1);
		q2_header_update(q, NULL);
	}
	return -EIO;
}

int q2_writing_begin(struct q2 *q, struct vh_err *e)
{
	int r = 0, change = 0;

	pthread_mutex_lock(&q->make_lock);
	if (__atomic_load_n(&q->writing, __ATOMIC_ACQUIRE))
		goto out;
	if (q->read_only) {
		r = q2_fail(e, -EROFS, "the image is read-only");
		goto out;
	}
	/* Whatever a bit means that is not known here: it would not be true any more. */
	if (q->h.autoclear & ~Q2_AUTOCLEAR_KNOWN) {
		q->h.autoclear &= Q2_AUTOCLEAR_KNOWN;
		change = 1;
	}
	if (q->h.nbitmaps) {
		r = q2_bitmaps_begin(q, e);
		if (r < 0) {
			q2_warn("the persistent bitmaps are given up: they cannot be marked as in use");
			q->h.autoclear &= ~Q2_AUTOCLEAR_BITMAPS;
			q->h.nbitmaps = 0;
			r = 0;
		}
		change = 1;
	}
	if (q->h.version >= 3 && (q->h.compat & Q2_COMPAT_LAZY) && !(q->h.incompat & Q2_INCOMPAT_DIRTY)) {
		incompat_set(q, Q2_INCOMPAT_DIRTY, 1);
		change = 1;
	}
	if (change)
		r = q2_header_update(q, e);
	if (r >= 0)
		__atomic_store_n(&q->writing, 1, __ATOMIC_RELEASE);
out:
	pthread_mutex_unlock(&q->make_lock);
	return r < 0 ? r : 0;
}

/* ---- opening ---- */

static void locks_init(struct q2 *q)
{
	pthread_mutexattr_t a;

	pthread_mutexattr_init(&a);
	pthread_mutexattr_settype(&a, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(&q->make_lock, &a);
	pthread_mutexattr_destroy(&a);
	pthread_mutex_init(&q->flush_lock, NULL);
	pthread_mutex_init(&q->alloc_lock, NULL);
	pthread_mutex_init(&q->header_lock, NULL);
	pthread_mutex_init(&q->rt_lock, NULL);
}

static void image_free(struct q2 *q)
{
	q2_crypt_close(q);
	q2_snaps_free(q);
	q2_bitmaps_free(q);
	q2_l1_close(q);
	q2_ref_close(q);
	q2_cache_fini(&q->l2);
	q2_cache_fini(&q->rb);
	q2_header_free(&q->h);
	free(q->meta.v);
	free(q->freed.v);
	free(q->unlinking.v);
	free(q->unlinked.v);
	free(q->late.v);
	pthread_mutex_destroy(&q->flush_lock);
	pthread_mutex_destroy(&q->make_lock);
	pthread_mutex_destroy(&q->alloc_lock);
	pthread_mutex_destroy(&q->header_lock);
	pthread_mutex_destroy(&q->rt_lock);
	free(q);
}

#define MAX_SLICE (16u << 10)
#define MAX_CACHE (UINT64_C(64) << 20)

static int derive(struct q2 *q, uint64_t cache, struct vh_err *e)
{
	const struct q2_header *h = &q->h;
	uint64_t covers, counts;
	uint32_t slice;

	q->cluster = UINT64_C(1) << h->bits;
	q->extended = !!(h->incompat & Q2_INCOMPAT_EXTENDED);
	q->has_data = !!(h->incompat & Q2_INCOMPAT_DATA);
	q->data_raw = q->has_data && (h->autoclear & Q2_AUTOCLEAR_RAW);
	q->zero_flag = h->version >= 3;
	q->entry = q->extended ? 16 : 8;
	q->l2_bits = h->bits - (q->extended ? 4 : 3);
	q->subs = q->extended ? 32 : 1;
	q->sub_bits = h->bits - (q->extended ? 5 : 0);
	q->rb_bits = h->bits + 3 - h->ref_order;
	q->fence = UINT64_MAX;
	slice = (uint32_t)q2_min(q->cluster, MAX_SLICE);
	/* All tables of the disk; counts take a quarter of that in the usual layout, and are needed for allocating only. */
	covers = q2_up((h->bytes >> h->bits) * q->entry + slice, slice);
	counts = q2_up(((h->bytes >> h->bits) << h->ref_order >> 3) + slice, slice);
	if (!cache) {
		covers = q2_min(covers, MAX_CACHE);
		counts = q2_min(counts, MAX_CACHE / 4);
	} else {
		covers = q2_min(covers, cache - cache / 5);
		counts = q2_min(counts, cache / 5);
	}
	if (q2_cache_init(&q->l2, q, slice, covers) < 0 || q2_cache_init(&q->rb, q, slice, counts) < 0)
		return q2_fail(e, -ENOMEM, "no memory for tables");
	return 0;
}

static int check_features(struct q2 *q, const struct vh_open *o, struct vh_err *e)
{
	if (q->has_data) {
		if (o->n < 2 || !o->volumes[1])
			return q2_fail(e, -ENOENT, "the image keeps its data in another file, which is not there");
		q->data = o->volumes[1];
		q->data_vol = 1;
		if (q->h.crypt == Q2_CRYPT_AES)
			return q2_fail(e, -EOPNOTSUPP, "an external data file cannot be encrypted the old way");
	}
	if (q->h.crypt && !(o->host_caps & VH_FMT_CRYPT) && !(o->flags & VH_OPEN_REPAIR))
		return q2_fail(e, -EOPNOTSUPP, "the image is encrypted, and this host cannot decrypt");
	if (q->data_raw && q->h.backing[0])
		return q2_fail(e, -EINVAL, "the header is damaged: a raw data file and a backing image");
	return 0;
}

/* The parts that have their own files. */
static int open_parts(struct q2 *q, const struct vh_open *o, struct vh_err *e)
{
	int r = 0;

	if (q->h.nbitmaps)
		r = q2_bitmaps_load(q, e);
	if (r >= 0)
		r = q2_compress_open(q, o->opts, e);
	if (r >= 0 && q->h.crypt && (o->host_caps & VH_FMT_CRYPT))
		r = q2_crypt_open(q, o->opts, e);
	return r;
}

/* Counts that were not written when the image was last in use. */
static int open_dirty(struct q2 *q, struct vh_err *e)
{
	if (!(q->h.incompat & Q2_INCOMPAT_DIRTY) || q->flags & (VH_OPEN_RO | VH_OPEN_REPAIR))
		return 0;
	q2_warn("the image was not closed cleanly: its counts are made anew");
	return q2_repair_dirty(q, e);
}

int q2_open(const struct vh_open *o, void **img, struct vh_err *e)
{
	struct q2 *q;
	int r = q2_services(e);

	if (r < 0)
		return r;
	if (o->flags & VH_MUST_UNDERSTAND & ~(VH_OPEN_RO | VH_OPEN_REPAIR))
		return q2_fail(e, -EOPNOTSUPP, "unknown open flags 0x%llx", (unsigned long long)o->flags);
	if (o->n < 1)
		return q2_fail(e, -EINVAL, "no volume was handed over");
	q = calloc(1, sizeof(*q));
	if (!q)
		return q2_fail(e, -ENOMEM, "no memory for an image");
	locks_init(q);
	q->vol = q->data = o->volumes[0];
	q->nvols = o->n;
	q->flags = o->flags;
	q->host_caps = o->host_caps;
	q->opened_bytes = q2_io->bytes(q->vol);
	q->read_only = !!(o->flags & VH_OPEN_RO);
	q->object = o->object;
	r = q2_header_read(q->vol, &q->h, o->flags, e);
	if (r >= 0)
		r = derive(q, (uint64_t)vh_opt_num(o->opts, "cache-size", 0), e);
	if (r >= 0)
		r = check_features(q, o, e);
	if (r < 0)
		goto error;
	q->backing_all = q->h.backing[0] ? o->backing_bytes : 0;
	q->backing_bytes = q2_min(q->backing_all, q->h.bytes);
	r = q2_ref_open(q, e);
	if (r >= 0)
		r = q2_snaps_load(q, e);
	if (r >= 0 && vh_opt_get(o->opts, "snapshot"))
		r = q2_snapshot_use(q, vh_opt_str(o->opts, "snapshot", ""), e);
	if (r >= 0)
		r = q2_l1_open(q, e);
	if (r >= 0)
		r = open_parts(q, o, e);
	if (r >= 0)
		r = open_dirty(q, e);
	if (r < 0)
		goto error;
	q->clears = (q->h.autoclear & ~Q2_AUTOCLEAR_KNOWN) || q->h.nbitmaps;
	*img = q;
	return 0;
error:
	image_free(q);
	return r;
}

/* Clean: everything is in the file, nothing is pending, and the file ends where its last cluster does. */
static void close_clean(struct q2 *q)
{
	uint64_t end;

	if (q2_unflushed(q)) /* the host knows why it did not flush */
		return;
	pthread_mutex_lock(&q->alloc_lock);
	for (uint64_t k = 0; k < q->late.n; k++) {
		pthread_mutex_unlock(&q->alloc_lock);
		q2_free(q, q->late.v[k].first << q->h.bits, q->late.v[k].n << q->h.bits, 1);
		pthread_mutex_lock(&q->alloc_lock);
	}
	pthread_mutex_unlock(&q->alloc_lock);
	if (q2_sync(q) < 0)
		return;
	if (q->h.incompat & Q2_INCOMPAT_DIRTY) {
		incompat_set(q, Q2_INCOMPAT_DIRTY, 0);
		if (q2_header_update(q, NULL) < 0)
			return;
	}
	/* The file grew in strides, ours and the host's. */
	end = q->end << q->h.bits;
	end = end > q->opened_bytes ? end : q->opened_bytes;
	if (q2_io->bytes(q->vol) > end)
		q2_io->resize(q->vol, end);
}

void q2_close(void *img)
{
	struct q2 *q = img;

	if (!q->read_only && q->writing && !q->failed)
		close_clean(q);
	image_free(q);
}

static int info(void *img, struct vh_image_info *i)
{
	struct q2 *q = img;

	i->volumes = q->has_data ? 2 : 1;
	i->caps = VH_FMT_COMPRESSED | VH_FMT_DISCARD | VH_FMT_ZERO | VH_FMT_LOCK_SELF;
	if (!q->has_data && !q->h.crypt && !q->read_only)
		i->caps |= VH_FMT_ENCODE;
	if (q->has_data)
		i->caps &= ~VH_FMT_COMPRESSED;
	if (q->cipher.size)
		i->caps |= VH_FMT_CRYPT;
	if (q->h.incompat & Q2_INCOMPAT_DIRTY)
		i->caps |= VH_FMT_DIRTY;
	if (q->h.backing[0])
		i->caps |= VH_FMT_BACKING;
	i->bytes = q->h.bytes;
	i->unit = (uint32_t)q->cluster;
	i->subunit = 1u << q->sub_bits;
	i->backing_bytes = q->backing_bytes;
	if (VH_KNOWS(i, cipher))
		i->cipher = q->cipher.size ? &q->cipher : NULL;
	if (VH_KNOWS(i, end))
		i->end = q->end << q->h.bits;
	return 0;
}

/* ---- snapshots ---- */

/*
 * Entries say whether their cluster is theirs alone, and counts say it too. What changes both for the whole image cannot
 * do so at once, so that a crash in between would leave a difference: harmless, but one that every check calls damage. The
 * dirty bit has it put right when the image is next opened. Version 2 has none.
 */
static int doubt_begin(struct q2 *q, int *set, struct vh_err *e)
{
	int r;

	*set = 0;
	if (q->read_only || q->failed || q->h.version < 3 || (q->h.incompat & Q2_INCOMPAT_DIRTY))
		return 0;
	r = q2_writing_begin(q, e);
	if (r < 0 || (q->h.incompat & Q2_INCOMPAT_DIRTY))
		return r;
	*set = 1;
	incompat_set(q, Q2_INCOMPAT_DIRTY, 1);
	return q2_header_update(q, e);
}

static int doubt_end(struct q2 *q, int set, int r, struct vh_err *e)
{
	if (!set || __atomic_load_n(&q->failed, __ATOMIC_ACQUIRE) || q2_sync(q) < 0)
		return r;
	incompat_set(q, Q2_INCOMPAT_DIRTY, 0);
	if (q2_header_update(q, r < 0 ? NULL : e) < 0) {
		incompat_set(q, Q2_INCOMPAT_DIRTY, 1); /* it is made good when the image is closed, or opened */
		return r < 0 ? r : -EIO;
	}
	return r;
}

static int snapshot_create(void *img, const char *name, struct vh_err *e)
{
	struct q2 *q = img;
	int set, r = doubt_begin(q, &set, e);

	return r < 0 ? r : doubt_end(q, set, q2_snapshot_create(img, name, e), e);
}

static int snapshot_apply(void *img, const char *name, struct vh_job *j, struct vh_err *e)
{
	struct q2 *q = img;
	int set, r = doubt_begin(q, &set, e);

	return r < 0 ? r : doubt_end(q, set, q2_snapshot_apply(img, name, j, e), e);
}

static int snapshot_remove(void *img, const char *name, struct vh_job *j, struct vh_err *e)
{
	struct q2 *q = img;
	int set, r = doubt_begin(q, &set, e);

	return r < 0 ? r : doubt_end(q, set, q2_snapshot_remove(img, name, j, e), e);
}

static const struct vh_opt opt_cache = {
	sizeof(struct vh_opt), VH_OPT_SIZE, 0, "cache-size",
	"Bytes of memory for mapping tables; 0: as much as the whole disk needs, up to 64M", "0", NULL, 0, INT64_C(1) << 36};
static const struct vh_opt opt_snapshot = {
	sizeof(struct vh_opt), VH_OPT_STR, 0, "snapshot", "Name or id of the internal snapshot to read instead of the disk", NULL, NULL, 1, 65535};
static const struct vh_opt *const open_options[] = {&opt_cache, &opt_snapshot, &q2_opt_level, &q2_opt_secret, NULL};

static const struct vh_format_ops ops = {
	.size = sizeof(struct vh_format_ops),
	.caps = VH_FMT_COMPRESSED | VH_FMT_CRYPT | VH_FMT_DISCARD | VH_FMT_ZERO | VH_FMT_LOCK_SELF | VH_FMT_DIRTY | VH_FMT_BACKING |
		VH_FMT_ENCODE,
	.name = "qcow2",
	.open_options = open_options,
	.create_options = q2_create_options,
	.probe = q2_probe,
	.inspect = q2_inspect,
	.open = q2_open,
	.close = q2_close,
	.info = info,
	.map = q2_map,
	.commit = q2_commit,
	.flush = q2_flush,
	.decode = q2_decode,
	.create = q2_create,
	.resize = q2_resize,
	.check = q2_check,
	.measure = q2_measure,
	.snapshot_create = snapshot_create,
	.snapshot_list = q2_snapshot_list,
	.snapshot_apply = snapshot_apply,
	.snapshot_remove = snapshot_remove,
	.describe = q2_describe,
	.amend_options = q2_amend_options,
	.amend = q2_amend,
	.set_backing = q2_set_backing,
	.empty = q2_empty,
	.encode = q2_encode,
	.put = q2_put,
	.create_refs = q2_create_refs,
};

VH_PLUGIN_DEFINE("qcow2", VH_KIND_FORMAT, VH_IID_FORMAT, &ops, "1.0",
		 "QEMU's copy-on-write format, versions 2 and 3", "LGPL-2.1-or-later", 0);
