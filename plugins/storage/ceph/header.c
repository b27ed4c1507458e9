/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * What is read of images without opening them: RBD keeps an image's size, times and values in one header object, and classes of
 * methods on the OSDs read them, several in one operation. So a listing costs one round trip per image, many in flight at once;
 * opening each would cost a dozen, one after the other. What comes back is checked like any input.
 */
#include <endian.h>
#include <stdio.h>
#include <stdlib.h>
#include "../common/name.h"
#include "ceph.h"

#define FLIGHT 128          /* operations in flight of a listing */
#define IMAGES_MAX 4000000u /* more answers than this are not believed */
#define VALUE_MAX 256       /* of our values, with the final NUL */

int ceph_name_ok(const char *name, struct vh_err *e)
{
	char shown[64];
	size_t n = name ? strnlen(name, CEPH_NAME_MAX + 1) : 0;

	if (!n)
		return ceph_fail(e, -EINVAL, "a volume's name is missing");
	if (n > CEPH_NAME_MAX)
		return ceph_fail(e, -EINVAL, "the volume name \"%s\" is longer than %d bytes", name_printable(name, shown), CEPH_NAME_MAX);
	for (const unsigned char *c = (const unsigned char *)name; *c; c++)
		if (*c == '/' || *c == '@' || *c < 0x20 || *c == 0x7f)
			return ceph_fail(e, -EINVAL, "\"%s\" is no volume name: it has a '/', a '@' or a control character",
					 name_printable(name, shown));
	if (name[0] == '.')
		return ceph_fail(e, -EINVAL, "\"%s\" is no volume name: those do not begin with a dot", name_printable(name, shown));
	return 0;
}

int ceph_name_new_ok(const char *name, struct vh_err *e)
{
	char shown[64];
	int ret = ceph_name_ok(name, e);

	for (size_t n = 0; !ret && name[n]; n++) {
		char c = name[n];
		int alnum = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');

		if (n >= 63 || (!alnum && (!n || !strchr("._-", c))))
			ret = ceph_fail(e, -EINVAL, "\"%s\" is no volume name: up to 63 letters, digits, '.', '_' and '-', the first a "
					"letter or digit", name_printable(name, shown));
	}
	return ret;
}

/* ---- Ceph's encoding: little-endian numbers; a string is its length and its bytes ---- */

static size_t put_string(char *to, const char *text)
{
	uint32_t n = (uint32_t)strlen(text), le = htole32(n);

	memcpy(to, &le, 4);
	memcpy(to + 4, text, n);
	return 4 + n;
}

/* The string at the beginning of an answer, or -EPROTO. */
static int64_t get_string(const char *from, size_t len, char *buf, uint64_t cap)
{
	uint32_t n;

	if (len < 4)
		return -EPROTO;
	memcpy(&n, from, 4);
	n = le32toh(n);
	if (n > len - 4)
		return -EPROTO;
	if (n + 1 > cap)
		return -ENOSPC;
	memcpy(buf, from + 4, n);
	buf[n] = 0;
	return n;
}

static int id_ok(const char *id)
{
	return *id && strlen(id) == strspn(id, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ");
}

void ceph_header_oid(const char *id, char oid[CEPH_OID_MAX])
{
	snprintf(oid, CEPH_OID_MAX, "rbd_header.%s", id);
}

int ceph_id(const struct ceph_pool *p, const char *name, char id[CEPH_ID_MAX])
{
	char oid[CEPH_NAME_MAX + 64], buf[CEPH_ID_MAX + 8];
	int n;

	snprintf(oid, sizeof(oid), "rbd_id.%s", name);
	n = rados_read(p->io, oid, buf, sizeof(buf), 0);
	if (n < 0)
		return n;
	if (get_string(buf, (size_t)n, id, CEPH_ID_MAX) < 0 || strlen(id) != (size_t)n - 4 || !id_ok(id))
		return -EPROTO;
	return 0;
}

/* ---- one image's header ---- */

struct look {
	rados_read_op_t op;
	rados_completion_t done;
	char oid[CEPH_OID_MAX], key[VALUE_MAX];
	char *size, *time, *value;
	size_t size_n, time_n, value_n;
	int size_r, time_r, value_r;
};

static void look_prepare(struct look *l, const char *id, const char *key)
{
	static const uint64_t head = UINT64_C(0xfffffffffffffffe); /* the image itself, no snapshot; the same in either byte order */
	uint64_t snap = htole64(head);
	size_t n = put_string(l->key, key);

	ceph_header_oid(id, l->oid);
	l->op = rados_create_read_op();
	rados_read_op_exec(l->op, "rbd", "get_size", (const char *)&snap, sizeof(snap), &l->size, &l->size_n, &l->size_r);
	/* Images of old versions have no times, most have no value of ours: the others' answers count all the same. */
	rados_read_op_exec(l->op, "rbd", "get_modify_timestamp", NULL, 0, &l->time, &l->time_n, &l->time_r);
	rados_read_op_set_flags(l->op, LIBRADOS_OP_FLAG_FAILOK);
	rados_read_op_exec(l->op, "rbd", "metadata_get", l->key, n, &l->value, &l->value_n, &l->value_r);
	rados_read_op_set_flags(l->op, LIBRADOS_OP_FLAG_FAILOK);
}

static void look_clear(struct look *l)
{
	if (l->op)
		rados_release_read_op(l->op);
	if (l->done)
		rados_aio_release(l->done);
	rados_buffer_free(l->size);
	rados_buffer_free(l->time);
	rados_buffer_free(l->value);
	memset(l, 0, sizeof(*l));
}

static void identity(const struct ceph_pool *p, const char *id, char out[160])
{
	snprintf(out, 160, "rbd:%s:%lld:%.40s:%s", p->fsid, (long long)p->id, p->ns ? p->ns : "", id);
}

/* ret: the operation's. */
static int look_stat(const struct ceph_pool *p, const struct look *l, const char *id, int ret, struct vh_vol_stat *st)
{
	uint64_t bytes;
	uint32_t t[2];

	if (ret < 0)
		return ret;
	if (l->size_r < 0)
		return l->size_r;
	if (l->size_n < 9) /* u8 order, u64 size */
		return -EPROTO;
	memcpy(&bytes, l->size + 1, 8);
	st->bytes = le64toh(bytes);
	if (st->bytes > INT64_MAX)
		return -EPROTO;
	st->allocated = UINT64_MAX;
	st->flags = VH_STAT_SPARSE;
	if (l->time_r >= 0 && l->time_n >= 8) {
		memcpy(t, l->time, 8);
		st->mtime = (int64_t)le32toh(t[0]) * 1000000000 + (le32toh(t[1]) < 1000000000 ? le32toh(t[1]) : 0);
	}
	identity(p, id, st->identity);
	return 0;
}

static int64_t look_value(const struct look *l, char *buf, uint64_t cap)
{
	if (l->value_r < 0 || !l->value_n)
		return -ENODATA;
	return get_string(l->value, l->value_n, buf, cap);
}

int64_t ceph_meta_read(const struct ceph_pool *p, const char *id, const char *key, char *buf, uint64_t cap)
{
	char in[VALUE_MAX], out[4096], oid[CEPH_OID_MAX];
	int n;

	if (strlen(key) + 4 > sizeof(in))
		return -EINVAL;
	ceph_header_oid(id, oid);
	n = rados_exec(p->io, oid, "rbd", "metadata_get", in, put_string(in, key), out, sizeof(out));
	if (n < 0)
		return n == -ENOENT ? -ENODATA : n;
	return get_string(out, (size_t)n, buf, cap);
}

int ceph_meta_write(const struct ceph_pool *p, const char *id, const char *key, const char *value)
{
	char in[1024], oid[CEPH_OID_MAX];
	rados_write_op_t op;
	size_t n = 0;
	int ret, result = 0;

	if (strlen(key) > 256 || (value && strlen(value) > 512))
		return -EINVAL;
	if (value) { /* a map of one pair */
		uint32_t one = htole32(1);

		memcpy(in, &one, 4);
		n = 4;
	}
	n += put_string(in + n, key);
	if (value)
		n += put_string(in + n, value);
	ceph_header_oid(id, oid);
	op = rados_create_write_op();
	rados_write_op_assert_exists(op); /* an image that was deleted is not half made again */
	rados_write_op_exec(op, "rbd", value ? "metadata_set" : "metadata_remove", in, n, &result);
	ret = rados_write_op_operate(op, p->io, oid, NULL, 0);
	rados_release_write_op(op);
	return ret;
}

/* ---- members of the pool's table ---- */

struct used { uint64_t bytes; };

static int add_used(uint64_t off, size_t len, int exists, void *ctx)
{
	if (exists)
		((struct used *)ctx)->bytes += len;
	return 0;
}

/* From the object map where the image has one that is valid; else it would cost a look at every object. */
static uint64_t allocated(const struct ceph_pool *p, const char *id, uint64_t bytes)
{
	struct used u = {0};
	uint64_t features = 0, flags = 0;
	rbd_image_t image;
	int ret;

	if (rbd_open_by_id_read_only(p->io, id, &image, NULL))
		return UINT64_MAX;
	ret = rbd_get_features(image, &features);
	if (!ret)
		ret = rbd_get_flags(image, &flags);
	if (!ret && (!(features & RBD_FEATURE_FAST_DIFF) || flags & (RBD_FLAG_OBJECT_MAP_INVALID | RBD_FLAG_FAST_DIFF_INVALID)))
		ret = -EOPNOTSUPP;
	if (!ret)
		ret = rbd_diff_iterate2(image, NULL, 0, bytes, 0, 1, add_used, &u);
	rbd_close(image);
	return ret ? UINT64_MAX : u.bytes;
}

int ceph_stat(void *pool, const char *name, struct vh_vol_stat *out, struct vh_err *e)
{
	struct ceph_pool *p = pool;
	struct vh_vol_stat st = {.size = out->size};
	struct ceph_locks locks;
	struct look l = {0};
	char id[CEPH_ID_MAX];
	int ret = ceph_name_ok(name, e);

	if (ret)
		return ret;
	ret = ceph_id(p, name, id);
	if (!ret) {
		look_prepare(&l, id, CEPH_META "format");
		ret = look_stat(p, &l, id, rados_read_op_operate(l.op, p->io, l.oid, LIBRADOS_OPERATION_NOFLAG), &st);
		look_clear(&l);
	}
	if (ret)
		return ceph_errno(e, ret, p, name);
	st.allocated = allocated(p, id, st.bytes);
	if (!ceph_locks_get(p, id, &locks)) {
		if (locks.n)
			st.flags |= VH_STAT_IN_USE;
		ceph_locks_clear(&locks);
	}
	memcpy(out, &st, st.size < sizeof(st) ? st.size : sizeof(st));
	return 0;
}

/* The names and ids of all images; those of format 1 have no id, and unfinished ones are nobody's. */
static int all_images(const struct ceph_pool *p, rbd_image_spec_t **out, size_t *n)
{
	rbd_image_spec_t *all = NULL;
	size_t cap = 0;
	int ret;

	do {
		free(all);
		all = cap ? calloc(cap, sizeof(*all)) : NULL;
		if (cap && !all)
			return -ENOMEM;
		*n = cap;
		ret = rbd_list2(p->io, all, n);
		if (ret == -ERANGE && (*n > IMAGES_MAX || *n <= cap))
			ret = -EFBIG;
		cap = *n + 16;
	} while (ret == -ERANGE);
	if (ret < 0) {
		free(all);
		return ret;
	}
	*out = all;
	return 0;
}

static int list_stats(struct ceph_pool *p, rbd_image_spec_t *all, size_t n, vh_list_fn *fn, void *ctx)
{
	struct look *flight = calloc(FLIGHT, sizeof(*flight));
	size_t sent = 0;
	int stop = 0;

	if (!flight)
		return -ENOMEM;
	for (size_t k = 0; k < n; k++) {
		struct look *l = &flight[k % FLIGHT];
		struct vh_vol_stat st = {.size = sizeof(st)};
		char format[VALUE_MAX];
		int64_t got;
		int ret;

		for (; sent < n && sent < k + FLIGHT && !stop; sent++) {
			struct look *s = &flight[sent % FLIGHT];

			look_prepare(s, all[sent].id, CEPH_META "format");
			if (rados_aio_create_completion2(NULL, NULL, &s->done) ||
			    rados_aio_read_op_operate(s->op, p->io, s->done, s->oid, LIBRADOS_OPERATION_NOFLAG))
				s->size_r = -ENOMEM;
		}
		if (k >= sent)
			break;
		if (l->done && l->size_r != -ENOMEM)
			rados_aio_wait_for_complete(l->done);
		ret = look_stat(p, l, all[k].id, l->done ? rados_aio_get_return_value(l->done) : -ENOMEM, &st);
		got = look_value(l, format, sizeof(format));
		look_clear(l);
		if (ret == -ENOENT || stop) /* gone meanwhile */
			continue;
		if (ret == -ETIMEDOUT) { /* and so will be all others; those in flight are waited for */
			stop = ret;
			continue;
		}
		if (ret) { /* one that cannot be read is still there */
			st.bytes = st.allocated = UINT64_MAX;
			identity(p, all[k].id, st.identity);
		}
		p->listed = all[k].name;
		p->listed_format = got >= 0 ? format : "";
		stop = fn(ctx, all[k].name, &st) ? 1 : 0;
		p->listed = NULL;
	}
	free(flight);
	return stop;
}

int ceph_list(void *pool, int with_stat, vh_list_fn *fn, void *ctx, struct vh_err *e)
{
	struct ceph_pool *p = pool;
	rbd_image_spec_t *all;
	size_t total, n = 0;
	int ret = all_images(p, &all, &total);

	if (ret == -ENOENT)
		return 0; /* no image was ever made here */
	if (ret)
		return ceph_fail(e, ret, "the images of pool %s cannot be listed: %s", p->name, ceph_why(ret));
	for (size_t k = 0; k < total; k++) {
		rbd_image_spec_t this = all[k];

		if (ceph_name_ok(this.name, NULL) || !id_ok(this.id) || strlen(this.id) >= CEPH_ID_MAX)
			continue;
		all[k] = all[n]; /* those of interest to the front */
		all[n++] = this;
	}
	if (with_stat) {
		ret = list_stats(p, all, n, fn, ctx);
	} else {
		for (size_t k = 0; k < n && !ret; k++)
			ret = fn(ctx, all[k].name, NULL) ? 1 : 0;
	}
	rbd_image_spec_list_cleanup(all, total);
	free(all);
	return ret < 0 ? ceph_fail(e, ret, "the images of pool %s cannot be listed: %s", p->name, ceph_why(ret)) : ret;
}

static int key_of(const char *key, char out[VALUE_MAX], struct vh_err *e)
{
	if (!*key || strlen(key) > 64 || strspn(key, "abcdefghijklmnopqrstuvwxyz.-") != strlen(key))
		return ceph_fail(e, -EINVAL, "\"%.64s\" is no name of a value", key);
	snprintf(out, VALUE_MAX, CEPH_META "%s", key);
	return 0;
}

int64_t ceph_meta_get(void *pool, const char *name, const char *key, char *buf, uint64_t cap, struct vh_err *e)
{
	struct ceph_pool *p = pool;
	char full[VALUE_MAX], value[VALUE_MAX * 4], id[CEPH_ID_MAX];
	int64_t n = ceph_name_ok(name, e);

	if (!n)
		n = key_of(key, full, e);
	if (n)
		return n;
	if (p->listed && !strcmp(p->listed, name) && !strcmp(key, "format")) {
		n = *p->listed_format ? snprintf(value, sizeof(value), "%s", p->listed_format) : -ENODATA;
	} else {
		n = ceph_id(p, name, id);
		if (!n)
			n = ceph_meta_read(p, id, full, value, sizeof(value));
		if (n < 0 && n != -ENODATA)
			return ceph_errno(e, (int)n, p, name);
	}
	if (n < 0)
		return n;
	if ((uint64_t)n > cap)
		return ceph_fail(e, -ENOSPC, "the value of %s has %lld bytes", key, (long long)n);
	memcpy(buf, value, (uint64_t)n < cap ? (size_t)n + 1 : (size_t)n);
	return n;
}

int ceph_meta_set(void *pool, const char *name, const char *key, const char *value, struct vh_err *e)
{
	struct ceph_pool *p = pool;
	char full[VALUE_MAX], id[CEPH_ID_MAX];
	int ret = ceph_name_ok(name, e);

	if (!ret)
		ret = key_of(key, full, e);
	if (!ret && value && strlen(value) > 255)
		ret = ceph_fail(e, -EINVAL, "the value of %s is longer than 255 bytes", key);
	if (ret)
		return ret;
	ret = ceph_id(p, name, id);
	if (!ret)
		ret = ceph_meta_write(p, id, full, value);
	return ret ? ceph_errno(e, ret, p, name) : 0;
}
