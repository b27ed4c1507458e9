/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include <glib.h>
#include <string.h>
#include <unistd.h>

#include "vm/bus.h"

struct dev {
	struct bus_region r;
	struct bus *b;
	uint8_t reg[64];
	unsigned reads, writes, last_len;
	uint64_t last_off;
	/* What the next access does besides. */
	struct bus_region *remove, *add;
	int freed; /* set once nothing may touch the device */
	unsigned bad;
	int sleep;
};

static void dev_read(void *ctx, uint64_t off, void *data, unsigned len)
{
	struct dev *d = ctx;
	if (__atomic_load_n(&d->freed, __ATOMIC_SEQ_CST))
		__atomic_add_fetch(&d->bad, 1, __ATOMIC_SEQ_CST);
	__atomic_add_fetch(&d->reads, 1, __ATOMIC_SEQ_CST);
	__atomic_store_n(&d->last_len, len, __ATOMIC_RELAXED);
	__atomic_store_n(&d->last_off, off, __ATOMIC_RELAXED);
	if (d->sleep)
		g_usleep(20000);
	if (off + len <= sizeof d->reg)
		memcpy(data, d->reg + off, len);
	if (__atomic_load_n(&d->freed, __ATOMIC_SEQ_CST))
		__atomic_add_fetch(&d->bad, 1, __ATOMIC_SEQ_CST);
}

static void dev_write(void *ctx, uint64_t off, const void *data, unsigned len)
{
	struct dev *d = ctx;
	d->writes++;
	if (off + len <= sizeof d->reg)
		memcpy(d->reg + off, data, len);
	if (d->remove)
		bus_remove(d->b, d->remove);
	if (d->add)
		g_assert_cmpint(bus_add(d->b, d->add), ==, 0);
	d->remove = d->add = NULL;
}

static const struct bus_ops ops = {dev_read, dev_write};

static struct dev *dev_new(struct bus *b, uint64_t base, uint64_t len)
{
	struct dev *d = g_new0(struct dev, 1);
	d->b = b;
	d->r = (struct bus_region){.base = base, .len = len, .ops = &ops, .ctx = d};
	for (unsigned i = 0; i < sizeof d->reg; i++)
		d->reg[i] = (uint8_t)i;
	return d;
}

static void test_unclaimed(void)
{
	struct bus *b = bus_new();
	uint64_t v = 0;
	for (unsigned len = 1; len <= 8; len *= 2) {
		v = 0;
		bus_read(b, 0x1234, &v, len);
		g_assert_cmphex(v, ==, len == 8 ? ~UINT64_C(0) : (UINT64_C(1) << (len * 8)) - 1);
		bus_write(b, 0x1234, &v, len);
	}
	bus_read(b, ~UINT64_C(0) - 3, &v, 8); /* wraps */
	bus_free(b);
}

static void test_claims(void)
{
	struct bus *b = bus_new();
	g_autofree struct dev *a = dev_new(b, 0x100, 0x10), *c = dev_new(b, 0x110, 4), *o = dev_new(b, 0x10f, 2), *top = dev_new(b, ~UINT64_C(0) - 7, 8);
	uint32_t v;

	g_assert_cmpint(bus_add(b, &c->r), ==, 0);
	g_assert_cmpint(bus_add(b, &a->r), ==, 0);
	g_assert_cmpint(bus_add(b, &o->r), ==, -EEXIST);
	g_assert_cmpint(bus_add(b, &top->r), ==, 0);
	o->r.len = 0;
	g_assert_cmpint(bus_add(b, &o->r), ==, -EINVAL);
	o->r.base = ~UINT64_C(0);
	o->r.len = 2;
	g_assert_cmpint(bus_add(b, &o->r), ==, -EINVAL);
	bus_read(b, 0x104, &v, 4);
	g_assert_cmphex(v, ==, 0x07060504);
	g_assert_cmpuint(a->last_len, ==, 4);
	bus_read(b, 0x10e, &v, 4); /* half in one, half in the next: bytes */
	g_assert_cmphex(v, ==, 0x01000f0e);
	bus_read(b, 0x112, &v, 4); /* half out */
	g_assert_cmphex(v, ==, 0xffff0302);
	v = 0xaabbccdd;
	bus_write(b, 0x10e, &v, 4);
	g_assert_cmphex(a->reg[0xf], ==, 0xcc);
	g_assert_cmphex(c->reg[1], ==, 0xaa);
	bus_read(b, ~UINT64_C(0), &v, 1);
	g_assert_cmpuint(top->last_off, ==, 7);
	bus_remove(b, &a->r);
	bus_remove(b, &a->r); /* twice does nothing */
	bus_read(b, 0x104, &v, 4);
	g_assert_cmphex(v, ==, 0xffffffff);
	bus_free(b);
}

/* A BAR that moves by a write to its own or to another region's handler. */
static void test_move_inside(void)
{
	struct bus *b = bus_new();
	g_autofree struct dev *cfg = dev_new(b, 0x1000, 16), *bar = dev_new(b, 0x2000, 16);
	uint8_t v = 0;

	g_assert_cmpint(bus_add(b, &cfg->r), ==, 0);
	g_assert_cmpint(bus_add(b, &bar->r), ==, 0);
	cfg->remove = &bar->r;
	bus_write(b, 0x1000, &v, 1);
	bar->r.base = 0x3000;
	cfg->add = &bar->r;
	bus_write(b, 0x1000, &v, 1);
	bus_read(b, 0x3005, &v, 1);
	g_assert_cmphex(v, ==, 5);
	bar->remove = &bar->r; /* itself */
	bus_write(b, 0x3000, &v, 1);
	bus_read(b, 0x3005, &v, 1);
	g_assert_cmphex(v, ==, 0xff);
	bus_free(b);
}

static gpointer slow_reader(gpointer p)
{
	struct dev *d = p;
	uint8_t v;
	bus_read(d->b, d->r.base, &v, 1);
	return NULL;
}

static void test_remove_waits(void)
{
	struct bus *b = bus_new();
	g_autofree struct dev *d = dev_new(b, 0x1000, 16);
	GThread *t;

	d->sleep = 1;
	g_assert_cmpint(bus_add(b, &d->r), ==, 0);
	t = g_thread_new("reader", slow_reader, d);
	while (!__atomic_load_n(&d->reads, __ATOMIC_SEQ_CST))
		g_usleep(100);
	bus_remove(b, &d->r);
	__atomic_store_n(&d->freed, 1, __ATOMIC_SEQ_CST);
	g_thread_join(t);
	g_assert_cmpuint(d->bad, ==, 0);
	bus_free(b);
}

struct storm { struct bus *b; struct dev *d; int stop; };

static gpointer storm_reader(gpointer p)
{
	struct storm *s = p;
	uint32_t v;
	while (!__atomic_load_n(&s->stop, __ATOMIC_SEQ_CST)) {
		bus_read(s->b, 0x1000, &v, 4);
		g_assert_true(v == 0xffffffff || v == 0x03020100);
		bus_read(s->b, 0x9000, &v, 4);
		g_assert_cmphex(v, ==, 0x03020100); /* the neighbour is never gone */
	}
	return NULL;
}

static void test_storm(void)
{
	struct storm s = {.b = bus_new()};
	g_autofree struct dev *d = dev_new(s.b, 0x1000, 16), *n = dev_new(s.b, 0x9000, 16);
	GThread *t[4];

	g_assert_cmpint(bus_add(s.b, &n->r), ==, 0);
	for (unsigned i = 0; i < 4; i++)
		t[i] = g_thread_new("reader", storm_reader, &s);
	for (unsigned i = 0; i < 3000; i++) {
		__atomic_store_n(&d->freed, 0, __ATOMIC_SEQ_CST);
		g_assert_cmpint(bus_add(s.b, &d->r), ==, 0);
		if (i % 16 == 0)
			g_usleep(50);
		bus_remove(s.b, &d->r);
		__atomic_store_n(&d->freed, 1, __ATOMIC_SEQ_CST);
	}
	__atomic_store_n(&s.stop, 1, __ATOMIC_SEQ_CST);
	for (unsigned i = 0; i < 4; i++)
		g_thread_join(t[i]);
	g_assert_cmpuint(d->bad, ==, 0);
	bus_free(s.b);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/bus/unclaimed-is-all-ones", test_unclaimed);
	g_test_add_func("/bus/regions-claim-whole-accesses", test_claims);
	g_test_add_func("/bus/region-moves-from-inside-a-handler", test_move_inside);
	g_test_add_func("/bus/remove-waits-for-handlers", test_remove_waits);
	g_test_add_func("/bus/readers-against-a-moving-region", test_storm);
	return g_test_run();
}
