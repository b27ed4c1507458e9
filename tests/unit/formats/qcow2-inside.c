/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include <string.h>
#include "qcow2-inside.h"

/* ---- a host ---- */

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

int m_write(struct vh_meta *m, const void *buf, uint64_t len, uint64_t off)
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
int m_resize(struct vh_meta *m, uint64_t bytes)
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
const struct vh_format_ops *ops;
static uint64_t seed;

uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

/* ---- images ---- */

struct vh_meta *vol_new(void)
{
	struct vh_meta *m = g_new0(struct vh_meta, 1);

	m->limit = UINT64_C(1) << 31;
	grow(m, 4096);
	m->bytes = 0;
	return m;
}

void vol_free(struct vh_meta *m)
{
	g_free(m->data);
	g_free(m);
}

void create(struct vh_meta *m, uint64_t bytes, uint32_t prealloc, const struct given *g)
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

int try_open(struct vh_meta *m, uint64_t flags, struct q2 **q, struct vh_err *e)
{
	struct vh_open o = {.size = sizeof(o), .n = 1, .volumes = &m, .flags = flags, .host_caps = ~UINT64_C(0)};
	void *img = NULL;
	int r;

	memset(e, 0, sizeof(*e));
	r = ops->open(&o, &img, e);
	*q = img;
	return r;
}

struct q2 *must_open(struct vh_meta *m, uint64_t flags)
{
	struct vh_err e;
	struct q2 *q;

	if (try_open(m, flags, &q, &e) < 0)
		g_error("open: %s", e.text);
	return q;
}

int flush(struct q2 *q)
{
	int r = 1;

	for (uint32_t p = 0; r == 1 && p < 8; p++)
		r = ops->flush(q, p);
	return r;
}

void found(void *ctx, uint32_t what, uint64_t off, const char *text)
{
	g_test_message("check: %u at %" G_GUINT64_FORMAT ": %s", what, off, text);
	++*(int *)ctx;
}

void clean(struct q2 *q)
{
	struct vh_err e = {0};
	int n = 0;

	if (ops->check(q, 0, found, &n, NULL, &e) < 0)
		g_error("check: %s", e.text);
	g_assert_cmpint(n, ==, 0);
}

void put_be(uint8_t *p, uint64_t v, int n)
{
	while (n-- > 0) {
		p[n] = (uint8_t)v;
		v >>= 8;
	}
}

struct vh_extent first(struct q2 *q, uint32_t op, uint32_t flags, uint64_t pos, int want)
{
	struct vh_extent x[8] = {0};
	struct vh_map map = {.size = sizeof(map), .op = op, .flags = flags, .cap = 8, .pos = pos, .len = 4096, .ext = x};

	g_assert_cmpint(ops->map(q, &map), ==, want);
	return x[0];
}

uint8_t *l2_entry(struct vh_meta *m, uint64_t index, uint32_t entry)
{
	uint64_t l1 = q2_be64(m->data + 40), l2 = q2_be64(m->data + l1) & Q2_OFFSET_MASK;

	return m->data + l2 + index * entry;
}

/* An image with its first cluster mapped. */
struct vh_meta *mapped(const struct given *g)
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

int inside_main(int argc, char **argv, void (*add)(void))
{
	const struct vh_plugin *p;

	g_test_init(&argc, &argv, NULL);
	seed = (uint64_t)g_test_rand_int() | 1;
	g_assert_cmpint(vh_plugin_entry_v1(&host, &p), ==, 0);
	ops = p->get(VH_IID_FORMAT);
	add();
	return g_test_run();
}
