/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * The inside of the qcow2 plugin, linked in, over a volume in memory: counts of all widths, the allocator and the growth of its tables,
 * the header, and what hostile images try.
 */
#include <glib.h>
#include <malloc.h>
#include <stdio.h>
#include <string.h>
#include "../../../plugins/formats/qcow2/refcount.h"

/* ---- a host ---- */

struct vh_meta { uint8_t *data; uint64_t cap, bytes, writes, limit; }; /* bytes past cap are a hole */
struct vh_err { char text[512]; int code; };

static int host_err(struct vh_err *e, int code, const char *fmt, ...)
{
	va_list ap;

	if (!e || e->text[0])
		return code;
	va_start(ap, fmt);
	vsnprintf(e->text, sizeof(e->text), fmt, ap);
	va_end(ap);
	e->code = code;
	return code;
}

static void host_remedy(struct vh_err *e, const char *fmt, ...) {}

static void grow(struct vh_meta *m, uint64_t n)
{
	if (n > m->cap) {
		uint64_t cap = MAX(n, m->cap * 2);

		m->data = g_realloc(m->data, cap);
		memset(m->data + m->cap, 0, cap - m->cap);
		m->cap = cap;
	}
	m->bytes = MAX(m->bytes, n);
}

static pthread_mutex_t m_lock = PTHREAD_MUTEX_INITIALIZER;

static int m_read(struct vh_meta *m, void *buf, uint64_t len, uint64_t off)
{
	uint64_t end, n;

	pthread_mutex_lock(&m_lock);
	end = MIN(m->bytes, m->cap);
	n = off < end ? MIN(len, end - off) : 0;
	memcpy(buf, m->data + (n ? off : 0), n);
	pthread_mutex_unlock(&m_lock);
	memset((uint8_t *)buf + n, 0, len - n);
	return 0;
}

static int m_write_unlocked(struct vh_meta *m, const void *buf, uint64_t len, uint64_t off)
{
	m->writes++;
	if (off > m->limit || len > m->limit - off)
		return -ENOSPC;
	grow(m, off + len);
	if (buf)
		memcpy(m->data + off, buf, len);
	else
		memset(m->data + off, 0, len);
	return 0;
}

static int m_write(struct vh_meta *m, const void *buf, uint64_t len, uint64_t off)
{
	int r;

	pthread_mutex_lock(&m_lock);
	r = m_write_unlocked(m, buf, len, off);
	pthread_mutex_unlock(&m_lock);
	return r;
}

static int m_zero(struct vh_meta *m, uint64_t len, uint64_t off) { return m_write(m, NULL, len, off); }
static int m_flush(struct vh_meta *m) { return 0; }
static uint64_t m_bytes(struct vh_meta *m)
{
	uint64_t n;

	pthread_mutex_lock(&m_lock);
	n = m->bytes;
	pthread_mutex_unlock(&m_lock);
	return n;
}
static int m_resize(struct vh_meta *m, uint64_t bytes)
{
	if (bytes > m->limit)
		return -ENOSPC;
	m->writes++;
	if (bytes < m->bytes && bytes < m->cap)
		memset(m->data + bytes, 0, m->cap - bytes);
	m->bytes = bytes;
	return 0;
}
static int m_discard(struct vh_meta *m, uint64_t len, uint64_t off)
{
	pthread_mutex_lock(&m_lock);
	if (off < MIN(m->bytes, m->cap))
		memset(m->data + off, 0, MIN(len, MIN(m->bytes, m->cap) - off));
	pthread_mutex_unlock(&m_lock);
	return 0;
}

static const struct vh_meta_ops meta_ops = {sizeof(meta_ops), 0, m_read, m_write, m_zero, m_flush, m_bytes, m_resize, m_discard};

static const void *host_service(const struct vh_host *h, const char *iid)
{
	return strcmp(iid, VH_SVC_META) ? NULL : &meta_ops;
}

static const struct vh_host host = {.size = sizeof(host), .service = host_service, .err = host_err, .remedy = host_remedy};
static const struct vh_format_ops *ops;
static uint64_t seed;

static uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

/* ---- images ---- */

static struct vh_meta *vol_new(void)
{
	struct vh_meta *m = g_new0(struct vh_meta, 1);

	m->limit = UINT64_C(1) << 31;
	grow(m, 4096);
	m->bytes = 0;
	return m;
}

static void vol_free(struct vh_meta *m)
{
	g_free(m->data);
	g_free(m);
}

struct given { const char *name; int64_t num; };

static void create(struct vh_meta *m, uint64_t bytes, uint32_t prealloc, const struct given *g)
{
	struct vh_val v[8], *p[8];
	struct vh_opts o = {sizeof(o), 0, (const struct vh_val *const *)p};
	struct vh_create c = {.size = sizeof(c), .bytes = bytes, .volumes = &m, .n = 1, .opts = &o, .prealloc = prealloc};
	struct vh_err e = {0};

	for (; g && g->name; g++, o.n++) {
		v[o.n] = (struct vh_val){.size = sizeof(*v), .name = g->name, .num = g->num};
		p[o.n] = &v[o.n];
	}
	if (ops->create(&c, NULL, &e) < 0)
		g_error("create: %s", e.text);
}

static int try_open(struct vh_meta *m, uint64_t flags, struct q2 **q, struct vh_err *e)
{
	struct vh_open o = {.size = sizeof(o), .n = 1, .volumes = &m, .flags = flags, .host_caps = ~UINT64_C(0)};
	void *img = NULL;
	int r;

	memset(e, 0, sizeof(*e));
	r = ops->open(&o, &img, e);
	*q = img;
	return r;
}

static struct q2 *must_open(struct vh_meta *m, uint64_t flags)
{
	struct vh_err e;
	struct q2 *q;

	if (try_open(m, flags, &q, &e) < 0)
		g_error("open: %s", e.text);
	return q;
}

static int flush(struct q2 *q)
{
	int r = 1;

	for (uint32_t p = 0; r == 1 && p < 8; p++)
		r = ops->flush(q, p);
	return r;
}

static void found(void *ctx, uint32_t what, uint64_t off, const char *text)
{
	g_test_message("check: %u at %" G_GUINT64_FORMAT ": %s", what, off, text);
	++*(int *)ctx;
}

static void clean(struct q2 *q)
{
	struct vh_err e = {0};
	int n = 0;

	if (ops->check(q, 0, found, &n, NULL, &e) < 0)
		g_error("check: %s", e.text);
	g_assert_cmpint(n, ==, 0);
}

/* ---- counts ---- */

static void widths(void)
{
	for (uint32_t order = 0; order <= 6; order++) {
		uint8_t d[4096] = {0};
		uint32_t n = sizeof(d) * 8 >> order;
		g_autofree uint64_t *model = g_new0(uint64_t, n);
		uint64_t max = order == 6 ? UINT64_MAX : (UINT64_C(1) << (1u << order)) - 1;

		for (int k = 0; k < 20000; k++) {
			uint32_t i = (uint32_t)(rnd() % n);

			model[i] = rnd() % 4 ? rnd() & max : max;
			q2_count_set(d, order, i, model[i]);
			g_assert_cmpuint(q2_count(d, order, i), ==, model[i]);
		}
		for (uint32_t i = 0; i < n; i++)
			g_assert_cmpuint(q2_count(d, order, i), ==, model[i]);
	}
	/* As QEMU has them: the lowest bits of a byte are the first count's. */
	uint8_t b[16] = {0xe4, 1, 2, 3, 4, 5, 6, 7};

	g_assert_cmpuint(q2_count(b, 0, 2), ==, 1);
	g_assert_cmpuint(q2_count(b, 1, 1), ==, 1);
	g_assert_cmpuint(q2_count(b, 1, 3), ==, 3);
	g_assert_cmpuint(q2_count(b, 2, 0), ==, 4);
	g_assert_cmpuint(q2_count(b, 4, 1), ==, 0x0203);
	g_assert_cmpuint(q2_count(b, 6, 0), ==, UINT64_C(0xe401020304050607));
}

/* Takes, gives back and frees clusters at random; no cluster is ever had twice. */
static void allocator(void)
{
	for (uint32_t bits = 1; bits <= 64; bits *= 2) {
		struct vh_meta *m = vol_new();
		struct given g[] = {{"cluster-size", 512}, {"refcount-bits", bits}, {NULL, 0}};
		g_autoptr(GHashTable) mine = g_hash_table_new(g_direct_hash, g_direct_equal);
		g_autoptr(GPtrArray) list = g_ptr_array_new();
		uint64_t rt_off, count, off = 0;
		struct q2 *q;

		create(m, 1 << 20, 0, g);
		q = must_open(m, 0);
		g_assert_cmpint(q2_writing_begin(q, NULL), ==, 0);
		rt_off = q->h.rt_off;
		for (int k = 0; k < 12000; k++) {
			uint64_t got = 0, want = 1 + rnd() % 9;
			int zeros;

			if (rnd() % 4 == 0 && list->len) {
				guint i = (guint)(rnd() % list->len);
				uint64_t c = GPOINTER_TO_SIZE(list->pdata[i]);

				g_ptr_array_remove_index_fast(list, i);
				g_hash_table_remove(mine, GSIZE_TO_POINTER(c));
				if (rnd() % 2)
					g_assert_cmpint(q2_unalloc(q, c << 9, 0), ==, 0);
				else
					q2_free(q, c << 9, 512, 0);
			}
			if (rnd() % 500 == 0) {
				g_assert_cmpint(q2_sync(q), ==, 0);
			} else if (rnd() % 300 == 0) {
				g_assert_cmpint(q2_alloc(q, want = 1 + rnd() % 400, &off), ==, 0);
				got = want;
			} else {
				g_assert_cmpint(q2_alloc_run(q, want, rnd() % 2 ? Q2_WANT_ZEROS : 0, &off, &got, &zeros), ==, 0);
				for (uint64_t b = 0; zeros && b < got * 512; b++)
					g_assert_true(off + b >= m->cap || !m->data[off + b]);
				memset(m->data + MIN(off, m->cap), 0xaa, MIN(got * 512, m->cap - MIN(off, m->cap)));
				g_assert_cmpuint(got, <=, want);
			}
			if (off) {
				for (uint64_t c = off >> 9; c < (off >> 9) + got; c++) {
					g_assert_false(q2_is_meta(q, c << 9, 512));
					g_assert_true(g_hash_table_add(mine, GSIZE_TO_POINTER(c)));
					g_ptr_array_add(list, GSIZE_TO_POINTER(c));
				}
			}
			off = 0;
		}
		if (bits >= 16) /* the table has grown */
			g_assert_cmpuint(q->h.rt_off, !=, rt_off);
		for (guint i = 0; i < list->len; i++) {
			g_assert_cmpint(q2_ref_get(q, GPOINTER_TO_SIZE(list->pdata[i]), &count), ==, 0);
			g_assert_cmpuint(count, ==, 1);
			if (i % 2)
				g_assert_cmpint(q2_unalloc(q, GPOINTER_TO_SIZE(list->pdata[i]) << 9, 0), ==, 0);
			else
				q2_free(q, GPOINTER_TO_SIZE(list->pdata[i]) << 9, 512, 0);
		}
		g_assert_cmpint(q2_sync(q), ==, 0);
		clean(q);
		ops->close(q);
		q = must_open(m, 0);
		clean(q);
		ops->close(q);
		vol_free(m);
	}
}

/* One request is sent to make more zeros while there are some, and only one; the others go on with those. */
static void zeros_in_time(void)
{
	struct vh_meta *m = vol_new();
	struct given g[] = {{"cluster-size", 65536}, {NULL, 0}};
	uint64_t off, got, left;
	unsigned sent = 0, dry = 0;
	int zeros, r;
	struct q2 *q;

	create(m, 64 << 20, 0, g);
	q = must_open(m, 0);
	g_assert_cmpint(q2_writing_begin(q, NULL), ==, 0);
	for (int k = 0; k < 600; k++) {
		r = q2_alloc_run(q, 1, Q2_WANT_ZEROS | Q2_NOWAIT, &off, &got, &zeros);
		if (r == -EAGAIN) {
			sent++;
			dry += q->zero_lo >= q->zero_hi;
			r = q2_alloc_run(q, 1, Q2_WANT_ZEROS, &off, &got, &zeros);
		}
		g_assert_cmpint(r, ==, 0);
		g_assert_true(zeros);
	}
	g_assert_cmpuint(sent, >, 10);
	g_assert_cmpuint(dry, <, 3); /* at first there are none */
	/* The one that is sent is late: the others use up what there is, then they wait as well. */
	while ((r = q2_alloc_run(q, 1, Q2_WANT_ZEROS | Q2_NOWAIT, &off, &got, &zeros)) == 0)
		;
	g_assert_cmpint(r, ==, -EAGAIN);
	left = q->zero_hi - q->zero_lo;
	g_assert_cmpuint(left, >=, 2);
	for (uint64_t k = 0; k < left; k++) {
		g_assert_cmpint(q2_alloc_run(q, 1, Q2_WANT_ZEROS | Q2_NOWAIT, &off, &got, &zeros), ==, 0);
		g_assert_true(zeros);
	}
	g_assert_cmpint(q2_alloc_run(q, 1, Q2_WANT_ZEROS | Q2_NOWAIT, &off, &got, &zeros), ==, -EAGAIN);
	g_assert_cmpint(q2_alloc_run(q, 1, Q2_WANT_ZEROS, &off, &got, &zeros), ==, 0);
	g_assert_true(zeros);
	g_assert_cmpint(q2_alloc_run(q, 1, Q2_WANT_ZEROS | Q2_NOWAIT, &off, &got, &zeros), ==, 0);
	g_assert_true(zeros);
	ops->close(q);
	vol_free(m);
}

static void limits_of_counts(void)
{
	struct vh_meta *m = vol_new();
	struct given g[] = {{"refcount-bits", 2}, {NULL, 0}};
	uint64_t off, count;
	struct q2 *q;

	create(m, 1 << 20, 0, g);
	q = must_open(m, 0);
	g_assert_cmpint(q2_alloc(q, 3, &off), ==, 0);
	g_assert_cmpint(q2_ref_add(q, off + 65536, 1, 1), ==, 0);
	g_assert_cmpint(q2_ref_add(q, off + 65536, 1, 1), ==, 0);
	g_assert_cmpint(q2_ref_add(q, off, 3 * 65536, 1), ==, -ERANGE); /* and nothing is changed */
	for (int k = 0; k < 3; k++) {
		g_assert_cmpint(q2_ref_get(q, (off >> 16) + (uint64_t)k, &count), ==, 0);
		g_assert_cmpuint(count, ==, k == 1 ? 3 : 1);
	}
	g_assert_cmpint(q2_ref_add(q, off, 4 * 65536, -1), ==, -EUCLEAN);
	ops->close(q);
	vol_free(m);
}

/* ---- several at once ---- */

#define THREADS 4u
#define CLUSTERS 16384u /* of 512 bytes; every thread has its own */
struct worker { struct q2 *q; unsigned me, ops; uint64_t rnd, addr[CLUSTERS]; };
static int workers_left;

static int ask(struct q2 *q, struct vh_map *map)
{
	int r;

	map->flags |= VH_MAP_NOWAIT;
	map->n = 0;
	r = ops->map(q, map);
	if (r != -EAGAIN)
		return r;
	map->flags &= ~VH_MAP_NOWAIT;
	return ops->map(q, map);
}

static uint64_t where(struct q2 *q, uint64_t c)
{
	struct vh_extent x[2];
	struct vh_map map = {.size = sizeof(map), .op = VH_MAP_READ, .cap = 2, .pos = c * 512, .len = 512, .ext = x};

	g_assert_cmpint(ask(q, &map), ==, 0);
	return x[0].type == VH_EXT_DATA ? x[0].addr : 0;
}

static void *work(void *arg)
{
	struct worker *w = arg;

	for (unsigned k = 0; k < w->ops; k++) {
		uint64_t c = 0;
		struct vh_extent x[4];
		struct vh_map map = {.size = sizeof(map), .op = VH_MAP_WRITE, .cap = 4, .len = 512, .ext = x};
		int r, ok;

		w->rnd = w->rnd * UINT64_C(6364136223846793005) + 1442695040888963407u;
		c = (w->rnd >> 33) % (CLUSTERS / THREADS) * THREADS + w->me;
		ok = (w->rnd >> 20) % 8 != 0;
		map.pos = c * 512;
		if ((w->rnd >> 25) % 4 == 0)
			map.op = VH_MAP_DISCARD;
		else if ((w->rnd >> 25) % 4 == 1)
			map.len = 100;
		g_assert_cmpuint(where(w->q, c), ==, w->addr[c]);
		g_assert_cmpint(ask(w->q, &map), ==, 0);
		g_assert_cmpuint(map.n, ==, 1);
		if (!(x[0].flags & VH_EXT_COMMIT))
			continue;
		r = ops->commit(w->q, &map, ok ? 0 : -EIO, 1);
		if (r == -EAGAIN)
			r = ops->commit(w->q, &map, ok ? 0 : -EIO, 0);
		g_assert_cmpint(r, ==, 0);
		if (ok)
			w->addr[c] = map.op == VH_MAP_WRITE ? x[0].addr : 0;
	}
	__atomic_sub_fetch(&workers_left, 1, __ATOMIC_ACQ_REL);
	return NULL;
}

/* Mappings of different clusters run in parallel, beside flushes, with a cache too small for the tables. */
static void parallel(void)
{
	static struct worker w[THREADS];
	struct given g[] = {{"cluster-size", 512}, {"refcount-bits", 64}, {NULL, 0}};
	struct vh_meta *m = vol_new();
	g_autoptr(GHashTable) seen = g_hash_table_new(g_direct_hash, g_direct_equal);
	pthread_t t[THREADS];
	struct q2 *q;

	create(m, CLUSTERS * 512, 0, g);
	m_resize(m, UINT64_C(16) << 20); /* memory that does not move */
	m_write(m, "", 1, (UINT64_C(16) << 20) - 1);
	q = must_open(m, 0);
	workers_left = THREADS;
	for (unsigned k = 0; k < THREADS; k++) {
		w[k] = (struct worker){.q = q, .me = k, .ops = g_test_slow() ? 200000 : 6000, .rnd = rnd()};
		g_assert_cmpint(pthread_create(&t[k], NULL, work, &w[k]), ==, 0);
	}
	while (__atomic_load_n(&workers_left, __ATOMIC_ACQUIRE))
		g_assert_cmpint(flush(q), ==, 0);
	for (unsigned k = 0; k < THREADS; k++)
		pthread_join(t[k], NULL);
	g_assert_cmpint(q2_sync(q), ==, 0);
	clean(q);
	ops->close(q);
	q = must_open(m, 0);
	clean(q);
	for (unsigned c = 0; c < CLUSTERS; c++) {
		uint64_t a = w[c % THREADS].addr[c];

		g_assert_cmpuint(where(q, c), ==, a);
		g_assert_true(!a || g_hash_table_add(seen, GSIZE_TO_POINTER(a)));
	}
	g_assert_cmpuint(g_hash_table_size(seen), >, CLUSTERS / 8);
	ops->close(q);
	vol_free(m);
}

/* ---- the header ---- */

static void put_be(uint8_t *p, uint64_t v, int n)
{
	while (n-- > 0) {
		p[n] = (uint8_t)v;
		v >>= 8;
	}
}

/* A header of 120 bytes, an extension and an autoclear bit that nobody knows. */
static void strange_header(void)
{
	struct vh_meta *m = vol_new();
	struct vh_extent x[4];
	struct vh_map map = {.size = sizeof(map), .op = VH_MAP_READ, .cap = 4, .len = 4096, .ext = x};
	uint64_t writes;
	struct q2 *q;
	uint8_t old[512];

	create(m, 1 << 20, 0, NULL);
	put_be(m->data + 100, 120, 4);
	memcpy(m->data + 112, "strange!", 8);
	memset(m->data + 120, 0, 400);
	put_be(m->data + 120, 0x12345678, 4);
	put_be(m->data + 124, 5, 4);
	memcpy(m->data + 128, "hello", 5);
	put_be(m->data + 88, 0x100, 8);
	memcpy(old, m->data, sizeof(old));
	writes = m->writes;
	q = must_open(m, VH_OPEN_RO);
	g_assert_cmpint(ops->map(q, &map), ==, 0);
	ops->close(q);
	q = must_open(m, 0);
	g_assert_cmpint(ops->map(q, &map), ==, 0);
	ops->close(q);
	g_assert_cmpuint(m->writes, ==, writes); /* nothing was changed, so nothing is written */
	g_assert_cmpmem(old, 512, m->data, 512);
	q = must_open(m, 0);
	map.op = VH_MAP_WRITE;
	map.flags = VH_MAP_OVERWRITE_ONLY | VH_MAP_NOWAIT;
	g_assert_cmpint(ops->map(q, &map), ==, -EAGAIN);
	map.flags = VH_MAP_OVERWRITE_ONLY;
	g_assert_cmpint(ops->map(q, &map), ==, 0);
	g_assert_cmpuint(q2_be64(m->data + 88), ==, 0);
	ops->close(q);
	g_assert_cmpuint(q2_be32(m->data + 100), ==, 120);
	g_assert_cmpmem(m->data + 112, 8, "strange!", 8);
	q = must_open(m, VH_OPEN_RO);
	g_assert_cmpuint(q->h.next, ==, 1);
	g_assert_cmpuint(q->h.ext[0].type, ==, 0x12345678);
	g_assert_cmpmem(q->h.ext[0].data, q->h.ext[0].len, "hello", 5);
	ops->close(q);
	vol_free(m);
}

/* The dirty bit of lazy counts: set by the first change, gone after a clean close. */
static void lazy(void)
{
	struct vh_meta *m = vol_new();
	struct given g[] = {{"lazy-refcounts", 1}, {NULL, 0}};
	struct vh_extent x[4];
	struct vh_map map = {.size = sizeof(map), .op = VH_MAP_WRITE, .cap = 4, .len = 65536, .ext = x};
	struct q2 *q;
	uint64_t count;

	create(m, 1 << 20, 0, g);
	g_assert_cmpuint(q2_be64(m->data + 80), ==, 1);
	q = must_open(m, 0);
	g_assert_cmpuint(q2_be64(m->data + 72), ==, 0);
	g_assert_cmpint(ops->map(q, &map), ==, 0);
	g_assert_cmpuint(q2_be64(m->data + 72), ==, Q2_INCOMPAT_DIRTY);
	m_write(m, NULL, 65536, x[0].addr);
	g_assert_cmpint(ops->commit(q, &map, 0, 0), ==, 0);
	g_assert_cmpint(flush(q), ==, 0);
	/* As after a crash: the counts are made anew. */
	struct vh_meta *c = vol_new();

	m_write(c, m->data, m->bytes, 0);
	struct q2 *p = must_open(c, 0);

	g_assert_cmpint(q2_ref_get(p, x[0].addr >> 16, &count), ==, 0);
	g_assert_cmpuint(count, ==, 1);
	clean(p);
	ops->close(p);
	g_assert_cmpuint(q2_be64(c->data + 72), ==, 0);
	vol_free(c);
	ops->close(q);
	g_assert_cmpuint(q2_be64(m->data + 72), ==, 0);
	g_assert_cmpuint(q2_be64(m->data + 80), ==, 1); /* the wish stays */
	q = must_open(m, 0);
	clean(q);
	ops->close(q);
	vol_free(m);
}

/* ---- entries ---- */

static struct vh_extent first(struct q2 *q, uint32_t op, uint32_t flags, uint64_t pos, int want)
{
	struct vh_extent x[8] = {0};
	struct vh_map map = {.size = sizeof(map), .op = op, .flags = flags, .cap = 8, .pos = pos, .len = 4096, .ext = x};

	g_assert_cmpint(ops->map(q, &map), ==, want);
	return x[0];
}

static uint8_t *l2_entry(struct vh_meta *m, uint64_t index, uint32_t entry)
{
	uint64_t l1 = q2_be64(m->data + 40), l2 = q2_be64(m->data + l1) & Q2_OFFSET_MASK;

	return m->data + l2 + index * entry;
}

/* An image with its first cluster mapped. */
static struct vh_meta *mapped(const struct given *g)
{
	struct vh_meta *m = vol_new();
	struct vh_extent x[4];
	struct vh_map map = {.size = sizeof(map), .op = VH_MAP_WRITE, .cap = 4, .len = 65536, .ext = x};
	struct q2 *q;

	create(m, 1 << 20, 0, g);
	q = must_open(m, 0);
	g_assert_cmpint(ops->map(q, &map), ==, 0);
	for (uint32_t k = 0; k < map.n; k++)
		m_write(m, NULL, x[k].len, x[k].addr);
	g_assert_cmpint(ops->commit(q, &map, 0, 0), ==, 0);
	g_assert_cmpint(flush(q), ==, 0);
	ops->close(q);
	return m;
}

static void entries(void)
{
	struct given g[] = {{"extended-l2", 1}, {NULL, 0}};
	struct vh_meta *m = mapped(NULL);
	struct vh_extent x;
	struct q2 *q;

	put_be(l2_entry(m, 1, 8), 1, 8);                                  /* zeros, and not data at byte 0 */
	put_be(l2_entry(m, 2, 8), Q2_COMPRESSED | 0, 8);                  /* compressed, at byte 0 */
	put_be(l2_entry(m, 3, 8), Q2_COMPRESSED | 0x12345 | UINT64_C(3) << 54, 8);
	put_be(l2_entry(m, 4, 8), 0x30000 | Q2_COPIED | 0x200, 8);        /* not aligned */
	q = must_open(m, VH_OPEN_RO);
	x = first(q, VH_MAP_READ, 0, 65536, 0);
	g_assert_cmpuint(x.type, ==, VH_EXT_ZERO);
	x = first(q, VH_MAP_READ, 0, 2 * 65536 + 512, 0);
	g_assert_cmpuint(x.type, ==, VH_EXT_COMPRESSED);
	g_assert_cmpuint(x.aux, ==, 512);
	x = first(q, VH_MAP_READ, 0, 3 * 65536 + 512, 0);
	g_assert_cmpuint(x.type, ==, VH_EXT_COMPRESSED);
	g_assert_cmpuint(x.addr, ==, 0x12345);
	g_assert_cmpuint(x.aux, ==, 4 * 512 - 0x145);
	g_assert_cmpuint(x.head, ==, 512);
	g_assert_cmpuint(x.len + x.head + x.tail, ==, 65536);
	first(q, VH_MAP_READ, 0, 4 * 65536, -EIO);
	ops->close(q);
	g_assert_cmpuint(q2_be64(m->data + 72), ==, 0); /* read-only: nothing is marked */
	q = must_open(m, 0);
	first(q, VH_MAP_READ, VH_MAP_NOWAIT, 4 * 65536, -EAGAIN);
	first(q, VH_MAP_READ, 0, 4 * 65536, -EIO);
	first(q, VH_MAP_WRITE, 0, 0, -EIO); /* no more */
	first(q, VH_MAP_READ, 0, 65536, 0);
	ops->close(q);
	g_assert_cmpuint(q2_be64(m->data + 72), ==, Q2_INCOMPAT_CORRUPT);
	struct vh_err e;

	g_assert_cmpint(try_open(m, 0, &q, &e), ==, -EUCLEAN);
	g_assert_nonnull(strstr(e.text, "corrupt"));
	ops->close(must_open(m, VH_OPEN_RO));
	vol_free(m);

	m = mapped(g);
	put_be(l2_entry(m, 1, 16), 0, 8);
	put_be(l2_entry(m, 1, 16) + 8, UINT64_C(1) << 33, 8);             /* subcluster 1 is zeros */
	put_be(l2_entry(m, 0, 16) + 8, 0xffffffff | UINT64_C(1) << 37, 8); /* subcluster 5 is data and zeros */
	put_be(l2_entry(m, 2, 16), Q2_COMPRESSED | 0x50000, 8);
	put_be(l2_entry(m, 2, 16) + 8, 1, 8);                             /* compressed, with a bitmap */
	q = must_open(m, VH_OPEN_RO);
	first(q, VH_MAP_READ, 0, 5 * 2048, -EIO);
	x = first(q, VH_MAP_REPORT, 0, 65536 + 2048, 0);
	g_assert_cmpuint(x.type, ==, VH_EXT_ZERO);
	g_assert_cmpuint(x.len, ==, 2048);
	g_assert_cmpuint(x.flags & VH_EXT_ALLOCATED, !=, 0);
	first(q, VH_MAP_READ, 0, 2 * 65536, -EIO);
	ops->close(q);
	vol_free(m);
}

/* An entry that points at metadata lets nobody write it. */
static void no_way_to_metadata(void)
{
	struct vh_meta *m = mapped(NULL);
	uint64_t l1 = q2_be64(m->data + 40), l2 = q2_be64(m->data + l1) & Q2_OFFSET_MASK, rt = q2_be64(m->data + 48);
	uint64_t bad[] = {0, l1, l2, rt, q2_be64(m->data + rt)};
	struct { uint32_t op, flags; } way[] = {{VH_MAP_WRITE, VH_MAP_OVERWRITE_ONLY}, {VH_MAP_WRITE, 0}, {VH_MAP_ZERO, 0},
						{VH_MAP_ZERO, VH_MAP_MAY_UNMAP}, {VH_MAP_DISCARD, 0}};
	struct q2 *q;

	for (unsigned k = 1; k < G_N_ELEMENTS(bad); k++) {
		for (unsigned w = 0; w < G_N_ELEMENTS(way); w++) {
			for (unsigned whole = 0; whole < 2; whole++) {
				struct vh_extent x[8];
				struct vh_map map = {.size = sizeof(map), .op = way[w].op, .flags = way[w].flags, .cap = 8,
						     .pos = whole ? 65536 : 65536 + 4096, .len = whole ? 65536 : 4096, .ext = x};
				int r;

				put_be(l2_entry(m, 1, 8), bad[k] | Q2_COPIED, 8);
				put_be(m->data + 72, 0, 8);
				q = must_open(m, 0);
				r = ops->map(q, &map);
				if (r == 0) /* an entry may be changed as long as nobody writes or punches there */
					for (uint32_t i = 0; i < map.n; i++)
						g_assert_true(x[i].type == VH_EXT_TRIM && !x[i].bytes);
				else
					g_assert_cmpint(r, ==, -EIO);
				if (r == 0 && map.n && (x[0].flags & VH_EXT_COMMIT))
					ops->commit(q, &map, -EIO, 0);
				ops->close(q);
			}
		}
	}
	vol_free(m);
}

/* A cluster of the refcount table's or L2's that is counted as free is not handed out. */
static void free_metadata(void)
{
	struct vh_meta *m = mapped(NULL);
	uint64_t rt = q2_be64(m->data + 48), block = q2_be64(m->data + rt);
	struct q2 *q;

	for (int k = 0; k < 4; k++)
		put_be(m->data + block + 2 * (uint64_t)k, 0, 2);
	q = must_open(m, 0);
	first(q, VH_MAP_WRITE, VH_MAP_NOWAIT, 5 * 65536, -EAGAIN);
	first(q, VH_MAP_WRITE, 0, 5 * 65536, -EIO);
	ops->close(q);
	g_assert_cmpuint(q2_be64(m->data + 72), ==, Q2_INCOMPAT_CORRUPT);
	vol_free(m);
}

/* ---- hostile headers ---- */

struct hostile { uint32_t off, bytes; uint64_t value; uint64_t file; int want; const char *text; };
static const struct hostile hostiles[] = {
	{4, 4, 1, 0, -EOPNOTSUPP, "version 1"},
	{4, 4, 4, 0, -EOPNOTSUPP, "version 4"},
	{20, 4, 8, 0, -EINVAL, "2^8"},
	{20, 4, 22, 0, -EINVAL, "2^22"},
	{20, 4, 0xffffffff, 0, -EINVAL, "2^4294967295"},
	{8, 8, 0x1000, 0, 0, NULL},
	{8, 8, 0xffffffffffffffff, 0, -EINVAL, "backing image's name"},
	{8, 8, 0x20000, 0, -EINVAL, "backing image's name"},
	{24, 8, 0x7fffffffffffffff, 0, -EFBIG, "disk of"},
	{24, 8, UINT64_C(1) << 50, 0, -EINVAL, "too few"},
	{32, 4, 3, 0, -EOPNOTSUPP, "encryption"},
	{36, 4, 0xffffffff, 0, -EFBIG, "L1 table"},
	{36, 4, 0x400001, 0, -EFBIG, "L1 table"},
	{36, 4, 0x400000, 0, -EUCLEAN, "over other metadata"}, /* 32 MiB, of which the file has but little */
	{36, 4, 0x400000, UINT64_C(1) << 40, -EUCLEAN, "over other metadata"},
	{36, 4, 0, 0, -EINVAL, "too few"},
	{40, 8, 0x30200, 0, -EINVAL, "L1 table"},
	{40, 8, UINT64_C(1) << 56, 0, -EINVAL, "L1 table"},
	{40, 8, 0, 0, -EINVAL, "L1 table"},
	{40, 8, UINT64_C(1) << 40, 0, -EINVAL, "L1 table"},
	{48, 8, 0, 0, -EINVAL, "refcount table"},
	{48, 8, 0x10001, 0, -EINVAL, "refcount table"},
	{48, 8, UINT64_C(1) << 40, 0, -EINVAL, "refcount table"},
	{56, 4, 0, 0, -EINVAL, "refcount table"},
	{56, 4, 0xffffffff, 0, -EFBIG, "refcount table"},
	{56, 4, 129, 0, -EFBIG, "refcount table"},
	{60, 4, 0xffffffff, 0, -EFBIG, "snapshots"},
	{60, 4, 1, 0, -EINVAL, "snapshots"},
	{72, 8, 0x20, 0, -EOPNOTSUPP, "incompatible bit 5"},
	{72, 8, UINT64_C(1) << 63, 0, -EOPNOTSUPP, "incompatible bit 63"},
	{72, 8, 2, 0, -EUCLEAN, "corrupt"},
	{72, 8, 8, 0, -EINVAL, "compression"},
	{96, 4, 7, 0, -EINVAL, "2^7"},
	{96, 4, 0xffffffff, 0, -EINVAL, "2^4294967295"},
	{100, 4, 103, 0, -EINVAL, "length"},
	{100, 4, 96, 0, -EINVAL, "length"},
	{100, 4, 0x20000, 0, -EINVAL, "length"},
	{104, 1, 1, 0, -EINVAL, "compression"},
	{104, 1, 9, 0, -EOPNOTSUPP, "compression type 9"},
};

static void hostile_headers(void)
{
	for (unsigned k = 0; k < G_N_ELEMENTS(hostiles); k++) {
		const struct hostile *h = &hostiles[k];
		struct vh_meta *m = mapped(NULL);
		struct vh_ref refs[4] = {0};
		struct vh_err e = {0};
		struct q2 *q;
		size_t before = mallinfo2().uordblks + mallinfo2().hblkhd, after;
		gint64 t = g_get_monotonic_time();
		int r;

		put_be(m->data + h->off, h->value, (int)h->bytes);
		if (h->file)
			m->bytes = h->file;
		r = try_open(m, 0, &q, &e);
		after = mallinfo2().uordblks + mallinfo2().hblkhd;
		if (r != h->want || (h->text && !strstr(e.text, h->text)))
			g_error("hostile header %u (byte %u): %d, %s; wanted %d, %s", k, h->off, r, e.text, h->want, h->text);
		if (r < 0)
			g_assert_cmpuint(strlen(e.text), >, 0);
		/* Reserved; touched is only what the file really has. */
		g_assert_cmpuint(after, <, before + (UINT64_C(120) << 20));
		g_assert_cmpint(g_get_monotonic_time() - t, <, G_USEC_PER_SEC * 5);
		if (r == 0)
			ops->close(q);
		ops->inspect(m, refs, 4, &e);
		vol_free(m);
	}
}

/* The largest L1 table, in a file that is one hole: what it claims must not cost more than it may. */
static void largest_l1(void)
{
	struct vh_meta *m = mapped(NULL);
	gint64 t = g_get_monotonic_time();
	struct mallinfo2 before = mallinfo2(), after;
	struct q2 *q;

	m->bytes = UINT64_C(1) << 50;
	put_be(m->data + 24, UINT64_C(1) << 51, 8);
	put_be(m->data + 36, 0x400000, 4);
	put_be(m->data + 40, UINT64_C(1) << 40, 8);
	q = must_open(m, VH_OPEN_RO);
	after = mallinfo2();
	/* The table, and as much again that is reserved and touched where something is written. */
	g_assert_cmpuint(after.uordblks + after.hblkhd, <, before.uordblks + before.hblkhd + (UINT64_C(80) << 20));
	first(q, VH_MAP_READ, 0, UINT64_C(1) << 50, 0);
	ops->close(q);
	g_assert_cmpint(g_get_monotonic_time() - t, <, G_USEC_PER_SEC * 5);
	vol_free(m);
}

/* The name of an unknown feature comes from the image's own table. */
static void feature_by_name(void)
{
	struct vh_meta *m = vol_new();
	struct vh_err e;
	struct q2 *q;
	uint8_t *p;

	create(m, 1 << 20, 0, NULL);
	put_be(m->data + 72, 1 << 6, 8);
	for (p = m->data + 112; q2_be32(p) != Q2_EXT_FEATURES; p += 8 + (q2_be32(p + 4) + 7) / 8 * 8)
		;
	p[8] = 0;
	p[9] = 6;
	memset(p + 10, 0, 46);
	strcpy((char *)p + 10, "moon phases");
	g_assert_cmpint(try_open(m, 0, &q, &e), ==, -EOPNOTSUPP);
	g_assert_nonnull(strstr(e.text, "moon phases"));
	vol_free(m);
}

/* L2 tables over the header, the L1 table, themselves. */
static void overlaps(void)
{
	struct vh_meta *m = mapped(NULL);
	uint64_t l1 = q2_be64(m->data + 40), rt = q2_be64(m->data + 48), l2 = q2_be64(m->data + l1);
	struct vh_err e;
	struct q2 *q;

	put_be(m->data + l1, l1 | Q2_COPIED, 8);
	g_assert_cmpint(try_open(m, 0, &q, &e), ==, -EUCLEAN);
	ops->close(must_open(m, VH_OPEN_RO));
	put_be(m->data + l1, rt | Q2_COPIED, 8);
	g_assert_cmpint(try_open(m, 0, &q, &e), ==, -EUCLEAN);
	put_be(m->data + l1, q2_be64(m->data + rt) | Q2_COPIED, 8);
	g_assert_cmpint(try_open(m, 0, &q, &e), ==, -EUCLEAN);
	put_be(m->data + l1, l2, 8);
	put_be(m->data + rt, rt, 8); /* the refcount table is its own block */
	g_assert_cmpint(try_open(m, 0, &q, &e), ==, -EUCLEAN);
	vol_free(m);
}

/* ---- any bytes ---- */

static void drive(struct q2 *q)
{
	struct vh_extent x[8];
	struct vh_image_info info = {.size = sizeof(info)};

	g_assert_cmpint(ops->info(q, &info), ==, 0);
	for (int k = 0; k < 12; k++) {
		uint32_t op = 1 + (uint32_t)(rnd() % 5);
		uint64_t pos = rnd() % (info.bytes ? info.bytes : 1);
		struct vh_map map = {.size = sizeof(map), .op = op, .cap = 8, .pos = pos, .len = 1 + rnd() % 200000, .ext = x};
		int owes = 0;

		map.len = MIN(map.len, info.bytes - pos);
		if (q->read_only && op != VH_MAP_READ && op != VH_MAP_REPORT)
			continue;
		if (op == VH_MAP_WRITE && rnd() % 2)
			map.flags = VH_MAP_OVERWRITE_ONLY;
		if (op == VH_MAP_ZERO && rnd() % 2)
			map.flags = VH_MAP_MAY_UNMAP;
		if (!map.len || ops->map(q, &map) < 0)
			continue;
		for (uint32_t i = 0; i < map.n; i++)
			owes |= x[i].flags & VH_EXT_COMMIT;
		if (owes)
			ops->commit(q, &map, rnd() % 4 ? 0 : -EIO, 0);
		if (rnd() % 4 == 0)
			flush(q);
	}
}

/* Bytes of the metadata changed at random: errors, but no crash, no hang, no loop. */
static void any_bytes(void)
{
	static const struct given kinds[][3] = {
		{{NULL, 0}}, {{"cluster-size", 512}, {NULL, 0}}, {{"extended-l2", 1}, {NULL, 0}}, {{"compat", 0}, {NULL, 0}},
		{{"refcount-bits", 1}, {"cluster-size", 4096}, {NULL, 0}}, {{"lazy-refcounts", 1}, {NULL, 0}},
	};
	unsigned opened = 0, n = g_test_slow() ? 20000 : 1500;

	for (unsigned k = 0; k < n; k++) {
		struct vh_meta *m = mapped(kinds[k % G_N_ELEMENTS(kinds)]);
		uint64_t flags = rnd() % 3 == 0 ? VH_OPEN_RO : rnd() % 4 == 0 ? VH_OPEN_REPAIR : 0;
		struct vh_ref refs[4] = {0};
		struct vh_err e = {0};
		struct q2 *q;
		int found_n = 0;

		m->limit = 64 << 20;
		for (uint64_t j = 1 + rnd() % 6; j > 0; j--) {
			uint64_t where = rnd() % 3 ? rnd() % 160 : rnd() % m->bytes;

			if (where >= m->cap)
				continue;
			if (rnd() % 2)
				m->data[where] = (uint8_t)rnd();
			else
				m->data[where] ^= (uint8_t)(1u << rnd() % 8);
		}
		ops->inspect(m, refs, 4, &e);
		if (try_open(m, flags, &q, &e) < 0) {
			g_assert_cmpuint(strlen(e.text), >, 0);
			vol_free(m);
			continue;
		}
		opened++;
		drive(q);
		memset(&e, 0, sizeof(e));
		if (rnd() % 2)
			ops->check(q, flags & VH_OPEN_RO ? 0 : (uint32_t)(rnd() % 4), found, &found_n, NULL, &e);
		ops->close(q);
		vol_free(m);
	}
	g_test_message("%u of %u images could be opened", opened, n);
	g_assert_cmpuint(opened, >, n / 10);
}

int main(int argc, char **argv)
{
	const struct vh_plugin *p;

	g_test_init(&argc, &argv, NULL);
	seed = (uint64_t)g_test_rand_int() | 1;
	g_assert_cmpint(vh_plugin_entry_v1(&host, &p), ==, 0);
	ops = p->get(VH_IID_FORMAT);
	g_test_add_func("/qcow2/widths", widths);
	g_test_add_func("/qcow2/limits-of-counts", limits_of_counts);
	g_test_add_func("/qcow2/allocator", allocator);
	g_test_add_func("/qcow2/zeros-in-time", zeros_in_time);
	g_test_add_func("/qcow2/parallel", parallel);
	g_test_add_func("/qcow2/strange-header", strange_header);
	g_test_add_func("/qcow2/lazy", lazy);
	g_test_add_func("/qcow2/entries", entries);
	g_test_add_func("/qcow2/no-way-to-metadata", no_way_to_metadata);
	g_test_add_func("/qcow2/free-metadata", free_metadata);
	g_test_add_func("/qcow2/hostile-headers", hostile_headers);
	g_test_add_func("/qcow2/largest-l1", largest_l1);
	g_test_add_func("/qcow2/feature-by-name", feature_by_name);
	g_test_add_func("/qcow2/overlaps", overlaps);
	g_test_add_func("/qcow2/any-bytes", any_bytes);
	return g_test_run();
}
