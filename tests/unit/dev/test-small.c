/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The small devices, rng, balloon, console, and what of the transport needs no disk: registers, status, INTx, PCI_CFG. */
#include <fcntl.h>
#include <glib.h>
#include <linux/virtio_balloon.h>
#include <string.h>
#include <unistd.h>
#include "driver.h"

#define DEVFN (1 << 3)
#define ST VIRTIO_PCI_COMMON_STATUS

struct rig {
	struct vm *v;
	struct pci_host *h;
	struct vh_loop *loop;
	struct virtio_dev *dev;
	struct drv d;
	uint64_t buf;
};

static void rig_new(struct rig *r)
{
	memset(r, 0, sizeof(*r));
	r->v = fake_vm(16 << 20, 40);
	g_assert_cmpint(pci_host_new(r->v, &r->h, NULL), ==, 0);
	g_assert_cmpint(loop_new("test", &r->loop, NULL), ==, 0);
	g_assert_cmpint(loop_start(r->loop, NULL), ==, 0);
	r->buf = fake_alloc(r->v, 1 << 20, 4096);
}

static void rig_free(struct rig *r)
{
	virtio_free(r->dev);
	loop_stop(r->loop);
	loop_free(r->loop);
	pci_host_free(r->h);
	fake_vm_free(r->v);
}

static void rng_rig(struct rig *r)
{
	rig_new(r);
	g_assert_cmpint(virtio_rng_new(r->v, r->h, r->loop, &r->dev, NULL), ==, 0);
}

static void test_rng(void)
{
	struct rig r;
	struct buf b[2];
	uint8_t *p;
	unsigned zeros = 0;

	rng_rig(&r);
	drv_start(&r.d, r.v, DEVFN, 0, 1, 8);
	p = fake_at(r.v, r.buf);
	b[0] = (struct buf){r.buf, 100, 1};
	b[1] = (struct buf){r.buf + 4096, 156, 1};
	drv_put(&r.d.q[0], b, 2);
	drv_kick(&r.d.q[0]);
	g_assert_cmpuint(drv_wait(&r.d.q[0]).len, ==, 256);
	for (int i = 0; i < 156; i++)
		zeros += !p[4096 + i];
	g_assert_cmpuint(zeros, <, 30);
	/* 64 KiB is the most that one request gets, however long it is. */
	b[0] = (struct buf){r.buf, 1 << 20, 1};
	drv_put(&r.d.q[0], b, 1);
	drv_kick(&r.d.q[0]);
	g_assert_cmpuint(drv_wait(&r.d.q[0]).len, ==, 65536);
	g_assert_cmpuint(p[65536] | p[65537] | p[65538] | p[65539], ==, 0);
	b[0] = (struct buf){r.buf, 16, 0}; /* nothing to write to */
	drv_put(&r.d.q[0], b, 1);
	drv_kick(&r.d.q[0]);
	g_assert_cmpuint(drv_wait(&r.d.q[0]).len, ==, 0);
	rig_free(&r);
}

static void set_features(struct rig *r, uint64_t f)
{
	drv_set(&r->d, VIRTIO_PCI_COMMON_GFSELECT, 0, 4);
	drv_set(&r->d, VIRTIO_PCI_COMMON_GF, (uint32_t)f, 4);
	drv_set(&r->d, VIRTIO_PCI_COMMON_GFSELECT, 1, 4);
	drv_set(&r->d, VIRTIO_PCI_COMMON_GF, (uint32_t)(f >> 32), 4);
}

static void test_status(void)
{
	struct rig r;

	rng_rig(&r);
	drv_probe(&r.d, r.v, DEVFN);
	g_assert_cmphex(drv_get(&r.d, ST, 1), ==, 0);
	/* FEATURES_OK before DRIVER, DRIVER_OK before FEATURES_OK: not taken. */
	drv_set(&r.d, ST, 8, 1);
	g_assert_cmphex(drv_get(&r.d, ST, 1), ==, 0);
	drv_set(&r.d, ST, 1, 1);
	drv_set(&r.d, ST, 3, 1);
	drv_set(&r.d, ST, 7, 1);
	g_assert_cmphex(drv_get(&r.d, ST, 1), ==, 3);
	/* Bits cannot be taken back but by a reset. */
	drv_set(&r.d, ST, 1, 1);
	g_assert_cmphex(drv_get(&r.d, ST, 1), ==, 3);
	/* No VERSION_1; a feature that was not offered: refused. */
	set_features(&r, 0);
	drv_set(&r.d, ST, 11, 1);
	g_assert_cmphex(drv_get(&r.d, ST, 1), ==, 3);
	set_features(&r, VIRTIO_BIT(VIRTIO_F_VERSION_1) | 1);
	drv_set(&r.d, ST, 11, 1);
	g_assert_cmphex(drv_get(&r.d, ST, 1), ==, 3);
	set_features(&r, VIRTIO_BIT(VIRTIO_F_VERSION_1));
	/* Queues only now. */
	drv_set(&r.d, VIRTIO_PCI_COMMON_Q_DESCLO, 0x1000, 4);
	g_assert_cmphex(drv_get(&r.d, VIRTIO_PCI_COMMON_Q_DESCLO, 4), ==, 0);
	drv_set(&r.d, ST, 11, 1);
	g_assert_cmphex(drv_get(&r.d, ST, 1), ==, 11);
	set_features(&r, 0); /* too late */
	g_assert_cmphex(drv_get(&r.d, VIRTIO_PCI_COMMON_GF, 4), ==, 1);
	drv_set(&r.d, VIRTIO_PCI_COMMON_Q_SIZE, 7, 2);
	drv_set(&r.d, VIRTIO_PCI_COMMON_Q_SIZE, 128, 2);
	g_assert_cmpuint(drv_get(&r.d, VIRTIO_PCI_COMMON_Q_SIZE, 2), ==, 64);
	/* No such queue. */
	drv_set(&r.d, VIRTIO_PCI_COMMON_Q_SELECT, 0xffff, 2);
	g_assert_cmpuint(drv_get(&r.d, VIRTIO_PCI_COMMON_Q_SIZE, 2), ==, 0);
	g_assert_cmphex(drv_get(&r.d, VIRTIO_PCI_COMMON_Q_MSIX, 2), ==, 0xffff);
	drv_set(&r.d, VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
	drv_set(&r.d, VIRTIO_PCI_COMMON_Q_DESCLO, 1, 4);
	drv_set(&r.d, VIRTIO_PCI_COMMON_Q_SELECT, 0, 2);
	/* A vector that is not there. */
	drv_set(&r.d, VIRTIO_PCI_COMMON_Q_MSIX, 2, 2);
	g_assert_cmphex(drv_get(&r.d, VIRTIO_PCI_COMMON_Q_MSIX, 2), ==, 0xffff);
	drv_set(&r.d, VIRTIO_PCI_COMMON_MSIX, 1, 2);
	g_assert_cmphex(drv_get(&r.d, VIRTIO_PCI_COMMON_MSIX, 2), ==, 1);
	/* Rings outside memory: not enabled, and the device says so. */
	drv_set(&r.d, VIRTIO_PCI_COMMON_Q_DESCHI, 0xffffffff, 4);
	drv_set(&r.d, VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
	g_assert_cmpuint(drv_get(&r.d, VIRTIO_PCI_COMMON_Q_ENABLE, 2), ==, 0);
	g_assert_cmphex(drv_get(&r.d, ST, 1), ==, 11 | VIRTIO_CONFIG_S_NEEDS_RESET);
	drv_reset(&r.d);
	/* After DRIVER_OK the queues are fixed. */
	drv_start(&r.d, r.v, DEVFN, 0, 1, 8);
	drv_set(&r.d, VIRTIO_PCI_COMMON_Q_DESCLO, 0, 4);
	g_assert_cmphex(drv_get(&r.d, VIRTIO_PCI_COMMON_Q_DESCLO, 4), ==, r.d.q[0].desc_gpa);
	drv_set(&r.d, 58, 1, 2); /* RING_RESET was not negotiated */
	g_assert_cmpuint(drv_get(&r.d, VIRTIO_PCI_COMMON_Q_ENABLE, 2), ==, 1);
	drv_set(&r.d, ST, 0x8f, 1);
	g_assert_cmphex(drv_get(&r.d, ST, 1), ==, 0x8f);
	/* Odd accesses. */
	g_assert_cmphex(drv_get(&r.d, VIRTIO_PCI_COMMON_STATUS, 4), ==, 0x8f);
	g_assert_cmphex(drv_get(&r.d, VIRTIO_PCI_COMMON_Q_SIZE + 1, 1), ==, 0);
	g_assert_cmphex(mmio_get(r.v, r.d.common + 0x900, 4), ==, 0);
	mmio_set(r.v, r.d.common + 0x900, 1, 4);
	mmio_set(r.v, r.d.notify + 4 * 77, 1, 4); /* a doorbell of no queue */
	rig_free(&r);
}

/* The device moves while it works: the doorbell goes with it. */
static void test_move(void)
{
	struct rig r;
	struct buf b[1];
	uint64_t to = 0xc2000000;

	rng_rig(&r);
	drv_start(&r.d, r.v, DEVFN, 0, 1, 8);
	g_assert_cmpuint(r.v->n_bells, ==, 1);
	g_assert_cmphex(r.v->bell[0].addr, ==, r.d.notify);
	cfg_set(r.v, DEVFN, 4, 0, 2);
	g_assert_cmpuint(r.v->n_bells, ==, 0);
	cfg_set(r.v, DEVFN, 0x20, (uint32_t)to, 4);
	cfg_set(r.v, DEVFN, 0x24, 0, 4);
	cfg_set(r.v, DEVFN, 4, 2, 2);
	g_assert_cmpuint(r.v->n_bells, ==, 1);
	g_assert_cmphex(r.v->bell[0].addr, ==, to + (r.d.notify - r.d.bar));
	r.d.notify = to + (r.d.notify - r.d.bar);
	r.d.common = to + (r.d.common - r.d.bar);
	b[0] = (struct buf){r.buf, 10, 1};
	drv_put(&r.d.q[0], b, 1);
	drv_kick(&r.d.q[0]);
	g_assert_cmpuint(drv_wait(&r.d.q[0]).len, ==, 10);
	/* And without the kernel's help. */
	uint32_t zero = 0;
	drv_put(&r.d.q[0], b, 1);
	bus_write(r.v->mmio, r.d.notify, &zero, 2);
	g_assert_cmpuint(drv_wait(&r.d.q[0]).len, ==, 10);
	drv_reset(&r.d);
	g_assert_cmpuint(r.v->n_bells, ==, 0);
	rig_free(&r);
}

static void test_intx(void)
{
	struct rig r;
	struct buf b[1];
	unsigned gsi = pci_intx_gsi(1, 0), at;

	rng_rig(&r);
	drv_probe(&r.d, r.v, DEVFN);
	drv_negotiate(&r.d, 0);
	drv_queue(&r.d, 0, 8);
	drv_ok(&r.d);
	b[0] = (struct buf){r.buf, 10, 1};
	drv_put(&r.d.q[0], b, 1);
	drv_kick(&r.d.q[0]);
	wait_for(__atomic_load_n(&r.v->line[gsi], __ATOMIC_SEQ_CST));
	drv_wait(&r.d.q[0]);
	g_assert_cmphex(mmio_get(r.v, r.d.isr, 1), ==, 1);
	g_assert_cmpint(r.v->line[gsi], ==, 0);
	g_assert_cmphex(mmio_get(r.v, r.d.isr, 1), ==, 0);
	virtio_notify_config(r.dev);
	g_assert_cmpint(r.v->line[gsi], ==, 1);
	g_assert_cmphex(mmio_get(r.v, r.d.isr, 4), ==, 2);
	virtio_notify_config(r.dev);
	drv_reset(&r.d);
	g_assert_cmpint(r.v->line[gsi], ==, 0);
	/* The window through configuration space: the status register. */
	for (at = cfg_get(r.v, DEVFN, 0x34, 1); cfg_get(r.v, DEVFN, at, 1) != 9 || cfg_get(r.v, DEVFN, at + 3, 1) != 5;
	     at = cfg_get(r.v, DEVFN, at + 1, 1))
		g_assert_cmphex(at, !=, 0);
	cfg_set(r.v, DEVFN, at + 4, 4, 1);
	cfg_set(r.v, DEVFN, at + 8, 20, 4);
	cfg_set(r.v, DEVFN, at + 12, 1, 4);
	cfg_set(r.v, DEVFN, at + 16, 1, 1);
	g_assert_cmphex(drv_get(&r.d, ST, 1), ==, 1);
	g_assert_cmphex(cfg_get(r.v, DEVFN, at + 16, 1), ==, 1);
	cfg_set(r.v, DEVFN, at + 8, 0xfffffff0, 4); /* outside */
	cfg_set(r.v, DEVFN, at + 16, 3, 1);
	cfg_set(r.v, DEVFN, at + 12, 3, 4);
	cfg_set(r.v, DEVFN, at + 16, 3, 1);
	g_assert_cmphex(drv_get(&r.d, ST, 1), ==, 1);
	rig_free(&r);
}

static void balloon_rig(struct rig *r, uint64_t features, unsigned queues)
{
	rig_new(r);
	g_assert_cmpint(virtio_balloon_new(r->v, r->h, r->loop, &r->dev, NULL), ==, 0);
	drv_start(&r->d, r->v, DEVFN, features, queues, 32);
}

static int touched(struct rig *r, uint64_t gpa)
{
	return *(volatile uint8_t *)fake_at(r->v, gpa);
}

static void test_balloon(void)
{
	struct rig r;
	uint32_t pfn[200];
	uint64_t base = 8 << 20;
	struct balloon_stats s;
	struct buf b[1];
	unsigned was;

	balloon_rig(&r, VIRTIO_BIT(VIRTIO_BALLOON_F_STATS_VQ) | VIRTIO_BIT(VIRTIO_BALLOON_F_DEFLATE_ON_OOM) |
		    VIRTIO_BIT(VIRTIO_BALLOON_F_REPORTING), 4);
	memset(fake_at(r.v, base), 0xaa, 1 << 20);
	/* Up, down, alone, twice, and from other worlds. */
	for (unsigned i = 0; i < 50; i++)
		pfn[i] = (uint32_t)(base / 4096 + i);
	for (unsigned i = 0; i < 50; i++)
		pfn[50 + i] = (uint32_t)(base / 4096 + 150 - i);
	for (unsigned i = 100; i < 200; i++)
		pfn[i] = i & 1 ? 0xffffffff - i : (16u << 20) / 4096 + i;
	pfn[150] = (uint32_t)(base / 4096 + 200);
	pfn[151] = pfn[150];
	memcpy(fake_at(r.v, r.buf), pfn, sizeof(pfn));
	b[0] = (struct buf){r.buf, sizeof(pfn) + 3, 0};
	drv_put(&r.d.q[0], b, 1);
	drv_kick(&r.d.q[0]);
	drv_wait(&r.d.q[0]);
	for (unsigned i = 0; i < 256; i++)
		g_assert_cmpint(touched(&r, base + i * 4096), ==, i < 50 || (i > 100 && i <= 150) || i == 200 ? 0 : 0xaa);
	/* Deflating is only told. */
	drv_put(&r.d.q[1], b, 1);
	drv_kick(&r.d.q[1]);
	drv_wait(&r.d.q[1]);
	g_assert_cmpint(touched(&r, base + 60 * 4096), ==, 0xaa);
	/* Reporting: writable buffers are free pages. */
	b[0] = (struct buf){base + 60 * 4096, 8192, 1};
	drv_put(&r.d.q[3], b, 1);
	drv_kick(&r.d.q[3]);
	drv_wait(&r.d.q[3]);
	g_assert_cmpint(touched(&r, base + 60 * 4096), ==, 0);
	g_assert_cmpint(touched(&r, base + 61 * 4096), ==, 0);
	g_assert_cmpint(touched(&r, base + 62 * 4096), ==, 0xaa);
	/* The target, and the driver's answer. */
	was = drv_signals(r.dev, 0);
	virtio_balloon_set(r.dev, 12 << 20);
	g_assert_cmpuint(drv_signals(r.dev, 0), ==, was + 1);
	g_assert_cmpuint(mmio_get(r.v, r.d.config, 4), ==, 1024);
	mmio_set(r.v, r.d.config + 4, 1000, 4);
	mmio_set(r.v, r.d.config, 7, 4);
	g_assert_cmpuint(mmio_get(r.v, r.d.config, 4), ==, 1024);
	virtio_balloon_get(r.dev, &s);
	g_assert_cmpuint(s.actual, ==, (16 << 20) - 4096000);
	g_assert_cmpuint(s.target, ==, 12 << 20);
	g_assert_cmpint(s.have, ==, 0);
	mmio_set(r.v, r.d.config + 4, 0xffffffff, 4);
	virtio_balloon_get(r.dev, &s);
	g_assert_cmpuint(s.actual, ==, 0);
	virtio_balloon_set(r.dev, UINT64_MAX);
	g_assert_cmpuint(mmio_get(r.v, r.d.config, 4), ==, 0);
	rig_free(&r);
}

static void nothing(void *ctx)
{
	(void)ctx;
}

static void test_balloon_stats(void)
{
	struct rig r;
	struct virtio_balloon_stat st[] = {{VIRTIO_BALLOON_S_MEMFREE, 1111}, {VIRTIO_BALLOON_S_MEMTOT, 2222}, {999, 3}, {VIRTIO_BALLOON_S_CACHES, 4}};
	struct balloon_stats s;
	struct buf b[1];
	struct done u;

	balloon_rig(&r, VIRTIO_BIT(VIRTIO_BALLOON_F_STATS_VQ), 3);
	memcpy(fake_at(r.v, r.buf), st, sizeof(st));
	b[0] = (struct buf){r.buf, sizeof(st), 0};
	drv_put(&r.d.q[2], b, 1);
	drv_kick(&r.d.q[2]);
	do {
		g_usleep(1000);
		virtio_balloon_get(r.dev, &s);
	} while (!s.have);
	g_assert_cmpuint(s.free, ==, 1111);
	g_assert_cmpuint(s.total, ==, 2222);
	g_assert_cmpuint(s.disk_caches, ==, 4);
	drv_wait(&r.d.q[2]); /* get gave the buffer back */
	loop_call(r.loop, nothing, NULL); /* and is done with it */
	/* A length from another world; and one while another is held: the older one goes back. */
	b[0].len = 1 << 20;
	drv_put(&r.d.q[2], b, 1);
	drv_kick(&r.d.q[2]);
	g_usleep(5000);
	g_assert_cmpint(drv_poll(&r.d.q[2], &u), ==, 0);
	drv_put(&r.d.q[2], b, 1);
	drv_kick(&r.d.q[2]);
	drv_wait(&r.d.q[2]);
	/* Nothing is held over a reset. */
	drv_start(&r.d, r.v, DEVFN, VIRTIO_BIT(VIRTIO_BALLOON_F_STATS_VQ), 3, 32);
	virtio_balloon_get(r.dev, &s);
	g_assert_cmpint(s.have, ==, 0);
	g_usleep(5000);
	g_assert_cmpint(drv_poll(&r.d.q[2], &u), ==, 0);
	rig_free(&r);
}

static void test_console(void)
{
	struct rig r;
	int in[2], out[2];
	struct buf b[2];
	static char big[200000], got[200000];
	size_t have = 0;

	rig_new(&r);
	g_assert_cmpint(pipe2(in, O_CLOEXEC), ==, 0);
	g_assert_cmpint(pipe2(out, O_CLOEXEC), ==, 0);
	g_assert_cmpint(virtio_console_new(r.v, r.h, r.loop, in[0], out[1], &r.dev, NULL), ==, 0);
	g_assert_cmpint(write(in[1], "early", 5), ==, 5);
	for (int round = 0; round < 3; round++) {
		drv_start(&r.d, r.v, DEVFN, 0, 2, 32);
		if (round)
			g_assert_cmpint(write(in[1], "early", 5), ==, 5);
		b[0] = (struct buf){r.buf, 3, 1};
		drv_put(&r.d.q[0], b, 1);
		b[0] = (struct buf){r.buf + 100, 100, 1};
		drv_put(&r.d.q[0], b, 1);
		drv_kick(&r.d.q[0]);
		g_assert_cmpuint(drv_wait(&r.d.q[0]).len, ==, 3);
		g_assert_cmpuint(drv_wait(&r.d.q[0]).len, ==, 2);
		g_assert_cmpmem(fake_at(r.v, r.buf), 3, "ear", 3);
		g_assert_cmpmem(fake_at(r.v, r.buf + 100), 2, "ly", 2);
	}
	/* More than the pipe holds: the device waits for the reader, with a blocking descriptor. */
	for (size_t i = 0; i < sizeof(big); i++)
		big[i] = (char)(i * 31 >> 3);
	memcpy(fake_at(r.v, r.buf), big, sizeof(big));
	b[0] = (struct buf){r.buf, 1, 0};
	b[1] = (struct buf){r.buf + 1, sizeof(big) - 1, 0};
	drv_put(&r.d.q[1], b, 2);
	drv_kick(&r.d.q[1]);
	g_usleep(10000);
	while (have < sizeof(big)) {
		ssize_t n = read(out[0], got + have, sizeof(got) - have);

		g_assert_cmpint(n, >, 0);
		have += (size_t)n;
	}
	g_assert_cmpmem(got, have, big, sizeof(big));
	drv_wait(&r.d.q[1]);
	mmio_set(r.v, r.d.config + 8, '!', 4);
	g_assert_cmpint(read(out[0], got, 10), ==, 1);
	g_assert_cmpint(got[0], ==, '!');
	/* The end of the input ends nothing else. */
	close(in[1]);
	drv_put(&r.d.q[1], b, 1);
	drv_kick(&r.d.q[1]);
	drv_wait(&r.d.q[1]);
	g_assert_cmpint(read(out[0], got, 10), ==, 1);
	rig_free(&r);
	close(in[0]);
	close(out[0]);
	close(out[1]);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/virtio/status-machine", test_status);
	g_test_add_func("/virtio/moves-while-working", test_move);
	g_test_add_func("/virtio/intx-and-pci-cfg", test_intx);
	g_test_add_func("/rng/fills-and-caps", test_rng);
	g_test_add_func("/balloon/pages", test_balloon);
	g_test_add_func("/balloon/stats", test_balloon_stats);
	g_test_add_func("/console/both-ways", test_console);
	return g_test_run();
}
