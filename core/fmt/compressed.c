/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Writing compressed units: encoding on any thread, storing one at a time. Reading them is read.c's. */
#include "fmt/impl.h"

int fmt_encoding(struct fmt_image *i, struct fmt_encoding *out, struct vh_err *e)
{
	struct fmt_layer *l = i->layers[0];

	if (!(l->info.caps & VH_FMT_ENCODE) || !l->ops->encode || !l->ops->put)
		return err_set(e, -EOPNOTSUPP, "images of format %s, or this one, cannot be written compressed", l->ops->name);
	if (i->read_only)
		return err_set(e, -EROFS, "image %s is read-only", i->label);
	out->unit = l->info.unit;
	out->once = !!(l->info.caps & VH_FMT_WRITE_ONCE);
	return 0;
}

int64_t fmt_encode(struct fmt_image *i, const void *in, uint64_t in_len, void *out, uint64_t cap)
{
	struct fmt_layer *l = i->layers[0];
	int64_t n;

	if (load_relaxed(&l->faulted))
		return -EIO;
	n = l->ops->encode(l->img, in, in_len, out, cap);
	if (n <= 0 || (uint64_t)n > cap) {
		if (n == -ENOSPC || n == -ENOMEM || n == -EIO || n == -EINVAL)
			return n;
		layer_fault(l, "encode() returned what it must not");
		return -EIO;
	}
	return n;
}

int fmt_put(struct fmt_image *i, uint64_t pos, uint64_t len, const void *stored, uint64_t n, struct vh_err *e)
{
	struct fmt_layer *l = i->layers[0];
	uint64_t bytes = load_relaxed(&i->bytes);
	int r;

	if (!n || !len || pos & (l->info.unit - 1) || len > l->info.unit || pos > bytes || len > bytes - pos)
		return err_set(e, -EINVAL, "%llu bytes at %llu are no unit of the image", (unsigned long long)len,
			       (unsigned long long)pos);
	if (load_relaxed(&l->faulted))
		return err_set(e, -EIO, "image %s is faulted", i->label);
	__atomic_store_n(&i->puts, 1, __ATOMIC_SEQ_CST); /* from now on no queue remembers that something is not there */
	pthread_mutex_lock(&i->put_lock);
	if (l->lock_core)
		pthread_rwlock_wrlock(&l->lock);
	r = l->ops->put(l->img, pos, len, stored, n, e);
	if (l->lock_core)
		pthread_rwlock_unlock(&l->lock);
	pthread_mutex_unlock(&i->put_lock);
	if (r == 0)
		__atomic_add_fetch(&i->commit_seq, 1, __ATOMIC_SEQ_CST);
	if (r > 0 || r == -EAGAIN) {
		layer_fault(l, "put() returned what it must not");
		r = -EIO;
	}
	return r < 0 ? err_set(e, r, "cannot store compressed data at %llu: %s", (unsigned long long)pos, strerror(-r)) : 0;
}
