/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* virtio-blk and with it the transport, by a driver over plain memory; the disk is a fake whose completions can be held. */
#include <glib.h>
#define virtio_blk_config virtio_blk_space
#include <linux/virtio_blk.h>
#undef virtio_blk_config
#include <string.h>
#include "driver.h"
#include "fake-fmt.h"

#define DISK (1u << 20)
#define SECTORS (DISK / 512)
#define DEVFN (1 << 3)

struct rig {
	struct vm *v;
	struct pci_host *h;
	struct vh_loop *loop[2];
	struct fmt_image *image;
	struct virtio_dev *dev;
	struct drv d;
	uint64_t hdr, data, status;
};

static void rig_new(struct rig *r, unsigned queues, int read_only)
{
	struct virtio_blk_config c = {.queues = queues, .loops = r->loop, .n_loops = 2, .label = "test disk"};

	memset(r, 0, sizeof(*r));
	r->v = fake_vm(16 << 20, 40);
	g_assert_cmpint(pci_host_new(r->v, &r->h, NULL), ==, 0);
	for (int i = 0; i < 2; i++) {
		g_assert_cmpint(loop_new("test", &r->loop[i], NULL), ==, 0);
		g_assert_cmpint(loop_start(r->loop[i], NULL), ==, 0);
	}
	r->image = fake_image(DISK);
	r->image->read_only = read_only;
	c.image = r->image;
	g_assert_cmpint(virtio_blk_new(r->v, r->h, &c, &r->dev, NULL), ==, 0);
	r->hdr = fake_alloc(r->v, 4096, 16);
	r->data = fake_alloc(r->v, 65536, 4096);
	r->status = fake_alloc(r->v, 4096, 1);
}

static void rig_free(struct rig *r)
{
	virtio_free(r->dev);
	for (int i = 0; i < 2; i++) {
		loop_stop(r->loop[i]);
		loop_free(r->loop[i]);
	}
	pci_host_free(r->h);
	fake_image_free(r->image);
	fake_vm_free(r->v);
}

/* Puts request number n with the data at r->data + 4096 * n. */
static void put(struct rig *r, unsigned q, unsigned n, uint32_t type, uint64_t sector, uint32_t len)
{
	struct virtio_blk_outhdr h = {.type = type, .sector = sector};
	struct buf b[3] = {{r->hdr + 16 * n, 16, 0}, {r->data + 4096 * n, len, type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID},
			   {r->status + n, 1, 1}};

	memcpy(fake_at(r->v, r->hdr + 16 * n), &h, 16);
	*(uint8_t *)fake_at(r->v, r->status + n) = 0xee;
	if (!len)
		b[1] = b[2];
	drv_put(&r->d.q[q], b, len ? 3 : 2);
}

static int result(struct rig *r, unsigned q, unsigned n)
{
	drv_kick(&r->d.q[q]);
	drv_wait(&r->d.q[q]);
	return *(uint8_t *)fake_at(r->v, r->status + n);
}

static int request(struct rig *r, uint32_t type, uint64_t sector, uint32_t len)
{
	put(r, 0, 0, type, sector, len);
	return result(r, 0, 0);
}

static void test_rw(void)
{
	struct rig r;
	uint8_t *p;

	rig_new(&r, 1, 0);
	drv_start(&r.d, r.v, DEVFN, VIRTIO_BIT(VIRTIO_BLK_F_FLUSH), 1, 64);
	p = fake_at(r.v, r.data);
	for (int i = 0; i < 4096; i++)
		p[i] = (uint8_t)(i * 7);
	g_assert_cmpint(request(&r, VIRTIO_BLK_T_OUT, 8, 4096), ==, VIRTIO_BLK_S_OK);
	g_assert_cmpmem(r.image->data + 4096, 4096, p, 4096);
	memset(p, 0, 4096);
	for (int i = 0; i < 200; i++) { /* the ring wraps */
		struct done u;

		put(&r, 0, 0, VIRTIO_BLK_T_IN, 8, 4096);
		drv_kick(&r.d.q[0]);
		u = drv_wait(&r.d.q[0]);
		g_assert_cmpuint(u.len, ==, 4097);
	}
	g_assert_cmpmem(r.image->data + 4096, 4096, p, 4096);
	g_assert_cmpuint(drv_signals(r.dev, 1), >, 0);
	g_assert_cmpint(request(&r, VIRTIO_BLK_T_FLUSH, 0, 0), ==, VIRTIO_BLK_S_OK);
	g_assert_cmpuint(fake_count(&r.image->flushes), ==, 1);
	g_assert_cmpint(request(&r, VIRTIO_BLK_T_GET_ID, 0, 20), ==, VIRTIO_BLK_S_OK);
	g_assert_cmpstr((char *)p, ==, "fake-serial");
	g_assert_cmpuint(fake_count(&r.image->fua), ==, 0);
	rig_free(&r);
}

static void test_refused(void)
{
	struct rig r;

	rig_new(&r, 1, 0);
	drv_start(&r.d, r.v, DEVFN, 0, 1, 64);
	g_assert_cmpint(request(&r, VIRTIO_BLK_T_IN, SECTORS, 512), ==, VIRTIO_BLK_S_IOERR);
	g_assert_cmpint(request(&r, VIRTIO_BLK_T_IN, SECTORS - 1, 1024), ==, VIRTIO_BLK_S_IOERR);
	g_assert_cmpint(request(&r, VIRTIO_BLK_T_OUT, UINT64_MAX, 512), ==, VIRTIO_BLK_S_IOERR);
	g_assert_cmpint(request(&r, VIRTIO_BLK_T_IN, UINT64_MAX / 512, 1024), ==, VIRTIO_BLK_S_IOERR);
	g_assert_cmpint(request(&r, VIRTIO_BLK_T_IN, 0, 511), ==, VIRTIO_BLK_S_IOERR);
	g_assert_cmpint(request(&r, VIRTIO_BLK_T_IN, 0, 0), ==, VIRTIO_BLK_S_OK);
	g_assert_cmpint(request(&r, 77, 0, 512), ==, VIRTIO_BLK_S_UNSUPP);
	/* Discard was not negotiated. */
	g_assert_cmpint(request(&r, VIRTIO_BLK_T_DISCARD, 0, 16), ==, VIRTIO_BLK_S_UNSUPP);
	g_assert_cmpuint(fake_count(&r.image->submitted), ==, 0);
	/* Without FLUSH every write is durable by itself. */
	g_assert_cmpint(request(&r, VIRTIO_BLK_T_OUT, 0, 512), ==, VIRTIO_BLK_S_OK);
	g_assert_cmpuint(fake_count(&r.image->fua), ==, 1);
	r.image->fail = -EIO;
	g_assert_cmpint(request(&r, VIRTIO_BLK_T_IN, 0, 512), ==, VIRTIO_BLK_S_IOERR);
	r.image->fail = -EOPNOTSUPP;
	g_assert_cmpint(request(&r, VIRTIO_BLK_T_IN, 0, 512), ==, VIRTIO_BLK_S_UNSUPP);
	rig_free(&r);

	rig_new(&r, 1, 1);
	drv_start(&r.d, r.v, DEVFN, VIRTIO_BIT(VIRTIO_BLK_F_RO), 1, 64);
	g_assert_cmpint(request(&r, VIRTIO_BLK_T_OUT, 0, 512), ==, VIRTIO_BLK_S_IOERR);
	g_assert_cmpint(request(&r, VIRTIO_BLK_T_IN, 0, 512), ==, VIRTIO_BLK_S_OK);
	rig_free(&r);
}

static int ranges(struct rig *r, uint32_t type, const struct virtio_blk_discard_write_zeroes *x, unsigned n)
{
	memcpy(fake_at(r->v, r->data), x, n * sizeof(*x));
	return request(r, type, 0, (uint32_t)(n * sizeof(*x)));
}

static void test_ranges(void)
{
	struct rig r;
	struct virtio_blk_discard_write_zeroes x[40] = {{8, 8, 0}, {0, 0, 0}, {32, 1, 0}};

	rig_new(&r, 1, 0);
	memset(r.image->data, 0xaa, DISK);
	drv_start(&r.d, r.v, DEVFN, VIRTIO_BIT(VIRTIO_BLK_F_DISCARD) | VIRTIO_BIT(VIRTIO_BLK_F_WRITE_ZEROES) |
		  VIRTIO_BIT(VIRTIO_BLK_F_FLUSH), 1, 64);
	g_assert_cmpint(ranges(&r, VIRTIO_BLK_T_WRITE_ZEROES, x, 3), ==, VIRTIO_BLK_S_OK);
	g_assert_cmpuint(fake_count(&r.image->zeroed), ==, 2);
	g_assert_cmpuint(fake_count(&r.image->unmap), ==, 0);
	g_assert_cmpuint(r.image->data[8 * 512 - 1], ==, 0xaa);
	g_assert_cmpuint(r.image->data[8 * 512], ==, 0);
	g_assert_cmpuint(r.image->data[16 * 512 - 1], ==, 0);
	g_assert_cmpuint(r.image->data[16 * 512], ==, 0xaa);
	g_assert_cmpuint(r.image->data[32 * 512], ==, 0);
	x[2].flags = 1;
	g_assert_cmpint(ranges(&r, VIRTIO_BLK_T_WRITE_ZEROES, x, 3), ==, VIRTIO_BLK_S_OK);
	g_assert_cmpuint(fake_count(&r.image->unmap), ==, 1);
	g_assert_cmpint(ranges(&r, VIRTIO_BLK_T_DISCARD, x, 3), ==, VIRTIO_BLK_S_UNSUPP); /* a flag that discard has not */
	x[2].flags = 0;
	g_assert_cmpint(ranges(&r, VIRTIO_BLK_T_DISCARD, x, 3), ==, VIRTIO_BLK_S_OK);
	g_assert_cmpuint(fake_count(&r.image->discards), ==, 2);
	x[2].sector = SECTORS;
	g_assert_cmpint(ranges(&r, VIRTIO_BLK_T_DISCARD, x, 3), ==, VIRTIO_BLK_S_IOERR);
	g_assert_cmpuint(fake_count(&r.image->discards), ==, 2);
	g_assert_cmpint(ranges(&r, VIRTIO_BLK_T_DISCARD, x, 40), ==, VIRTIO_BLK_S_IOERR);
	g_assert_cmpint(request(&r, VIRTIO_BLK_T_DISCARD, 0, 17), ==, VIRTIO_BLK_S_IOERR);
	g_assert_cmpint(request(&r, VIRTIO_BLK_T_DISCARD, 0, 0), ==, VIRTIO_BLK_S_IOERR);
	rig_free(&r);
}

/* Header, data and status in odd pieces. */
static void test_framing(void)
{
	struct rig r;
	struct virtio_blk_outhdr h = {.type = VIRTIO_BLK_T_OUT, .sector = 4};
	uint8_t *p;

	rig_new(&r, 1, 0);
	drv_start(&r.d, r.v, DEVFN, VIRTIO_BIT(VIRTIO_BLK_F_FLUSH), 1, 64);
	p = fake_at(r.v, r.data);
	memcpy(p, &h, 16);
	memset(p + 16, 0x5a, 512);
	struct buf whole[2] = {{r.data, 528, 0}, {r.status, 1, 1}};
	drv_put(&r.d.q[0], whole, 2);
	g_assert_cmpint(result(&r, 0, 0), ==, 0);
	g_assert_cmpuint(r.image->data[4 * 512], ==, 0x5a);
	g_assert_cmpuint(r.image->data[5 * 512 - 1], ==, 0x5a);
	h.type = VIRTIO_BLK_T_IN;
	memcpy(p, &h, 16);
	struct buf pieces[6] = {{r.data, 7, 0}, {r.data + 7, 0, 0}, {r.data + 7, 9, 0}, {r.data + 4096, 100, 1}, {r.data + 8192, 0, 1},
				{r.data + 8192, 413, 1}};
	drv_put(&r.d.q[0], pieces, 6);
	drv_kick(&r.d.q[0]);
	drv_wait(&r.d.q[0]);
	g_assert_cmpuint(p[4096 + 99], ==, 0x5a);
	g_assert_cmpuint(p[8192 + 411], ==, 0x5a);
	g_assert_cmpuint(p[8192 + 412], ==, 0); /* the status */
	rig_free(&r);
}

/* Several queues at once, all over; every completion arrives once. */
static void test_queues(void)
{
	struct rig r;
	unsigned total = 0;

	rig_new(&r, 4, 0);
	drv_start(&r.d, r.v, DEVFN, VIRTIO_BIT(VIRTIO_BLK_F_MQ) | VIRTIO_BIT(VIRTIO_BLK_F_FLUSH) | VIRTIO_BIT(VIRTIO_RING_F_EVENT_IDX),
		  4, 64);
	for (int round = 0; round < 300; round++)
		for (unsigned q = 0; q < 4; q++) {
			for (unsigned i = 0; i < 3; i++)
				put(&r, q, q * 3 + i, VIRTIO_BLK_T_IN, 8 * i, 512);
			drv_kick(&r.d.q[q]);
			for (unsigned i = 0; i < 3; i++, total++)
				drv_wait(&r.d.q[q]);
		}
	g_assert_cmpuint(fake_count(&r.image->submitted), ==, total);
	rig_free(&r);
}

static void test_reset_in_flight(void)
{
	struct rig r;
	struct done u;

	rig_new(&r, 2, 0);
	drv_start(&r.d, r.v, DEVFN, VIRTIO_BIT(VIRTIO_BLK_F_MQ), 2, 64);
	r.image->hold = 1;
	for (unsigned i = 0; i < 8; i++)
		put(&r, i & 1, i, VIRTIO_BLK_T_IN, 0, 4096);
	drv_kick(&r.d.q[0]);
	drv_kick(&r.d.q[1]);
	wait_for(fake_count(&r.image->submitted) == 8);
	drv_set(&r.d, VIRTIO_PCI_COMMON_STATUS, 0, 1);
	for (int i = 0; i < 20; i++) {
		g_assert_cmphex(drv_get(&r.d, VIRTIO_PCI_COMMON_STATUS, 1), !=, 0);
		/* Nothing can be set up meanwhile. */
		drv_set(&r.d, VIRTIO_PCI_COMMON_STATUS, 1, 1);
		g_usleep(500);
	}
	g_assert_cmpuint(r.v->n_bells, ==, 0);
	fake_release(r.image);
	wait_for(drv_get(&r.d, VIRTIO_PCI_COMMON_STATUS, 1) == 0);
	g_assert_cmpuint(drv_get(&r.d, VIRTIO_PCI_COMMON_Q_ENABLE, 2), ==, 0);
	/* The device works as before. */
	drv_start(&r.d, r.v, DEVFN, VIRTIO_BIT(VIRTIO_BLK_F_MQ), 2, 64);
	g_assert_cmpint(request(&r, VIRTIO_BLK_T_IN, 0, 512), ==, 0);
	g_assert_cmpint(drv_poll(&r.d.q[0], &u), ==, 0);
	/* Two at once, and a start right behind them. */
	for (int i = 0; i < 50; i++) {
		drv_set(&r.d, VIRTIO_PCI_COMMON_STATUS, 0, 1);
		drv_set(&r.d, VIRTIO_PCI_COMMON_STATUS, 0, 1);
		drv_start(&r.d, r.v, DEVFN, VIRTIO_BIT(VIRTIO_BLK_F_MQ), 2, 64);
		g_assert_cmpint(request(&r, VIRTIO_BLK_T_IN, 0, 512), ==, 0);
	}
	rig_free(&r);
}

static void *release_later(void *p)
{
	g_usleep(20000);
	fake_release(p);
	return NULL;
}

/* The device goes while requests are under way: removal waits for them; so does the machine's reset. */
static void test_removal_in_flight(void)
{
	struct rig r;
	GThread *t;

	rig_new(&r, 1, 0);
	for (int i = 0; i < 2; i++) {
		drv_start(&r.d, r.v, DEVFN, 0, 1, 64);
		r.image->hold = 1;
		put(&r, 0, 0, VIRTIO_BLK_T_IN, 0, 4096);
		drv_kick(&r.d.q[0]);
		wait_for(fake_count(&r.image->submitted) == 1u + (unsigned)i);
		t = g_thread_new("release", release_later, r.image);
		if (!i) {
			pci_host_reset(r.h);
			g_thread_join(t);
			g_assert_cmphex(drv_get(&r.d, VIRTIO_PCI_COMMON_STATUS, 1), ==, 0);
		}
	}
	rig_free(&r); /* with one in flight; the rig frees the image after the device */
	g_thread_join(t);
}

static void test_queue_reset(void)
{
	struct rig r;

	rig_new(&r, 2, 0);
	drv_start(&r.d, r.v, DEVFN, VIRTIO_BIT(VIRTIO_BLK_F_MQ) | VIRTIO_BIT(VIRTIO_F_RING_RESET), 2, 64);
	r.image->hold = 1;
	put(&r, 1, 0, VIRTIO_BLK_T_IN, 0, 4096);
	drv_kick(&r.d.q[1]);
	wait_for(fake_count(&r.image->submitted) == 1);
	drv_set(&r.d, VIRTIO_PCI_COMMON_Q_SELECT, 1, 2);
	drv_set(&r.d, 58, 1, 2);
	g_assert_cmpuint(drv_get(&r.d, 58, 2), ==, 1);
	g_assert_cmpuint(drv_get(&r.d, VIRTIO_PCI_COMMON_Q_ENABLE, 2), ==, 1);
	fake_release(r.image);
	wait_for(drv_get(&r.d, 58, 2) == 0);
	g_assert_cmpuint(drv_get(&r.d, VIRTIO_PCI_COMMON_Q_ENABLE, 2), ==, 0);
	drv_queue(&r.d, 1, 32);
	put(&r, 1, 0, VIRTIO_BLK_T_IN, 0, 4096);
	g_assert_cmpint(result(&r, 1, 0), ==, 0);
	put(&r, 0, 0, VIRTIO_BLK_T_IN, 0, 4096);
	g_assert_cmpint(result(&r, 0, 0), ==, 0);
	rig_free(&r);
}

/* A driver that breaks the rules stops its device, is told so, and gets it back by a reset. */
static void test_broken(void)
{
	static const char *const how[] = {"loop", "outside", "index", "no status", "head"};

	for (unsigned i = 0; i < G_N_ELEMENTS(how); i++) {
		struct rig r;
		struct buf b[2] = {{0, 16, 0}, {0, 513, 1}};
		unsigned was;
		struct drvq *q;

		rig_new(&r, 1, 0);
		drv_start(&r.d, r.v, DEVFN, 0, 1, 8);
		q = &r.d.q[0];
		was = drv_signals(r.dev, 0);
		b[0].gpa = r.hdr;
		b[1].gpa = i == 1 ? (16u << 20) - 512 : r.data;
		if (i == 3)
			b[1].in = 0;
		drv_fill(q, b, 2);
		if (i == 0)
			q->desc[1] = (struct vring_desc){r.data, 512, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 1};
		if (i == 2)
			q->avail_idx = 20;
		if (i == 4)
			q->avail->ring[0] = 8;
		drv_publish(q);
		drv_kick(q);
		wait_for(drv_get(&r.d, VIRTIO_PCI_COMMON_STATUS, 1) == (15 | VIRTIO_CONFIG_S_NEEDS_RESET));
		wait_for(drv_signals(r.dev, 0) == was + 1);
		g_assert_cmpuint(fake_count(&r.image->submitted), ==, 0);
		drv_start(&r.d, r.v, DEVFN, 0, 1, 8);
		g_assert_cmpint(request(&r, VIRTIO_BLK_T_IN, 0, 512), ==, 0);
		rig_free(&r);
	}
}

static void test_config(void)
{
	struct rig r;
	unsigned gen, was;

	rig_new(&r, 3, 0);
	drv_start(&r.d, r.v, DEVFN, VIRTIO_BIT(VIRTIO_BLK_F_CONFIG_WCE) | VIRTIO_BIT(VIRTIO_BLK_F_FLUSH), 1, 64);
	g_assert_cmpuint(mmio_get(r.v, r.d.config, 4), ==, SECTORS);
	g_assert_cmpuint(mmio_get(r.v, r.d.config + 12, 4), ==, 254);
	g_assert_cmpuint(mmio_get(r.v, r.d.config + 20, 4), ==, 512);
	g_assert_cmpuint(mmio_get(r.v, r.d.config + 24, 1), ==, 3);
	g_assert_cmpuint(mmio_get(r.v, r.d.config + 26, 2), ==, 8);
	g_assert_cmpuint(mmio_get(r.v, r.d.config + 28, 4), ==, 128);
	g_assert_cmpuint(mmio_get(r.v, r.d.config + 34, 2), ==, 3);
	g_assert_cmpuint(mmio_get(r.v, r.d.config + r.d.config_len, 4), ==, 0);
	/* Write-through by configuration. */
	g_assert_cmpint(request(&r, VIRTIO_BLK_T_OUT, 0, 512), ==, 0);
	g_assert_cmpuint(fake_count(&r.image->fua), ==, 0);
	mmio_set(r.v, r.d.config + 32, 0, 1);
	g_assert_cmpuint(mmio_get(r.v, r.d.config + 32, 1), ==, 0);
	g_assert_cmpint(request(&r, VIRTIO_BLK_T_OUT, 0, 512), ==, 0);
	g_assert_cmpuint(fake_count(&r.image->fua), ==, 1);
	mmio_set(r.v, r.d.config, 1, 4); /* read-only */
	g_assert_cmpuint(mmio_get(r.v, r.d.config, 4), ==, SECTORS);
	/* A new size. */
	gen = drv_get(&r.d, VIRTIO_PCI_COMMON_CFGGENERATION, 1);
	was = drv_signals(r.dev, 0);
	r.image->listener(r.image->listener_ctx, DISK / 2);
	g_assert_cmpuint(mmio_get(r.v, r.d.config, 4), ==, SECTORS / 2);
	g_assert_cmpuint(drv_get(&r.d, VIRTIO_PCI_COMMON_CFGGENERATION, 1), !=, gen);
	g_assert_cmpuint(drv_signals(r.dev, 0), ==, was + 1);
	g_assert_cmpint(request(&r, VIRTIO_BLK_T_IN, SECTORS / 2, 512), ==, VIRTIO_BLK_S_IOERR);
	rig_free(&r);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/blk/read-write-flush-id", test_rw);
	g_test_add_func("/blk/refused-requests", test_refused);
	g_test_add_func("/blk/discard-and-write-zeroes", test_ranges);
	g_test_add_func("/blk/any-framing", test_framing);
	g_test_add_func("/blk/queues", test_queues);
	g_test_add_func("/blk/reset-in-flight", test_reset_in_flight);
	g_test_add_func("/blk/removal-in-flight", test_removal_in_flight);
	g_test_add_func("/blk/queue-reset", test_queue_reset);
	g_test_add_func("/blk/broken-driver", test_broken);
	g_test_add_func("/blk/config", test_config);
	return g_test_run();
}
