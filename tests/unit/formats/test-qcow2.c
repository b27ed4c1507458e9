/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The inside of the qcow2 plugin: counts of all widths, the allocator and the growth of its tables, the header. */
#include <string.h>
#include "qcow2-inside.h"

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

static void add(void)
{
	g_test_add_func("/qcow2/widths", widths);
	g_test_add_func("/qcow2/limits-of-counts", limits_of_counts);
	g_test_add_func("/qcow2/allocator", allocator);
	g_test_add_func("/qcow2/zeros-in-time", zeros_in_time);
	g_test_add_func("/qcow2/parallel", parallel);
	g_test_add_func("/qcow2/strange-header", strange_header);
	g_test_add_func("/qcow2/lazy", lazy);
}

int main(int argc, char **argv)
{
	return inside_main(argc, argv, add);
}
