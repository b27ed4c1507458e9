/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* virtio-net by a driver over plain memory; the tap is one end of a datagram socket pair, and at the end a real one. */
#include <fcntl.h>
#include <glib.h>
#define virtio_net_config virtio_net_space
#include <linux/virtio_net.h>
#undef virtio_net_config
#include <linux/if_tun.h>
#include <net/if.h>
#include <netpacket/packet.h>
#include <net/ethernet.h>
#include <arpa/inet.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include "driver.h"
#include "net/guard.h"
#include "net/port.h"
#include "net/rate.h"

#define DEVFN (1 << 3)
#define SMALL 1600u

/* The port, as far as a device sees it. */
struct net_port {
	struct vh_net_info info;
	int fd[2];
	uint64_t offload;   /* atomic */
	unsigned pairs;     /* atomic */
	struct vh_net_filter filter;
	unsigned filters;   /* atomic */
	int refuses;        /* what set_filter gives; 0: it cannot filter */
};
const struct vh_net_info *net_port_info(const struct net_port *p)
{
	return &p->info;
}
int net_port_fd(const struct net_port *p, unsigned pair)
{
	return p->fd[pair];
}
int net_port_set_offload(struct net_port *p, uint64_t offload)
{
	__atomic_store_n(&p->offload, offload, __ATOMIC_SEQ_CST);
	return 0;
}
int net_port_set_pairs(struct net_port *p, unsigned active)
{
	__atomic_store_n(&p->pairs, active, __ATOMIC_SEQ_CST);
	return 0;
}
int net_port_set_filter(struct net_port *p, const struct vh_net_filter *f, struct vh_err *e)
{
	(void)e;
	p->filter = *f;
	__atomic_fetch_add(&p->filters, 1, __ATOMIC_SEQ_CST);
	return p->refuses ? p->refuses : -EOPNOTSUPP;
}

void net_port_lost(struct net_port *p)
{
	g_assert_not_reached(); /* taps do not end so */
}

struct rig {
	struct vm *v;
	struct pci_host *h;
	struct vh_loop *loop[2];
	struct net_port port;
	int peer[2];
	struct virtio_dev *dev;
	struct drv d;
	uint64_t tx, rx, ctrl;
};

static const uint8_t mac[6] = {2, 0, 0, 0, 0, 1};

static const struct virtio_net_config no_limits;
static uint64_t rig_offload = VH_NET_CSUM | VH_NET_TSO4 | VH_NET_TSO6 | VH_NET_ECN;

/* limits: guard, in and out of it. */
static void rig_limited(struct rig *r, unsigned pairs, int tap, const struct virtio_net_config *limits)
{
	struct virtio_net_config c = {.guard = limits->guard, .in = limits->in, .out = limits->out,
		.port = &r->port, .pairs = pairs, .mtu = 1500, .loops = r->loop, .n_loops = 2, .label = "test nic"};
	int s[2];

	memset(r, 0, sizeof(*r));
	memcpy(c.mac, mac, 6);
	r->v = fake_vm(16 << 20, 36);
	g_assert_cmpint(pci_host_new(r->v, &r->h, NULL), ==, 0);
	for (int i = 0; i < 2; i++) {
		g_assert_cmpint(loop_new("test", &r->loop[i], NULL), ==, 0);
		g_assert_cmpint(loop_start(r->loop[i], NULL), ==, 0);
	}
	r->port.info.path = VH_NET_PATH_TAP;
	r->port.info.offload = rig_offload;
	for (unsigned i = 0; i < pairs && tap < 0; i++) {
		int room = 4 << 20;

		g_assert_cmpint(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, s), ==, 0);
		setsockopt(s[1], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
		r->port.fd[i] = s[0];
		r->peer[i] = s[1];
	}
	if (tap >= 0)
		r->port.fd[0] = tap;
	g_assert_cmpint(virtio_net_new(r->v, r->h, &c, &r->dev, NULL), ==, 0);
	r->tx = fake_alloc(r->v, 256 * 4096, 4096);
	r->rx = fake_alloc(r->v, 256 * 4096, 4096);
	r->ctrl = fake_alloc(r->v, 4096, 4096);
}

static void rig_new(struct rig *r, unsigned pairs, int tap)
{
	rig_limited(r, pairs, tap, &no_limits);
}

static void rig_free(struct rig *r)
{
	virtio_free(r->dev);
	for (int i = 0; i < 2; i++) {
		loop_stop(r->loop[i]);
		loop_free(r->loop[i]);
		if (r->peer[i]) {
			close(r->peer[i]);
			close(r->port.fd[i]);
		}
	}
	pci_host_free(r->h);
	fake_vm_free(r->v);
}

/* A packet with 12 bytes of header for `to`, filled with a pattern. */
static size_t frame(uint8_t *p, const uint8_t *to, size_t len, uint8_t seed)
{
	memset(p, 0, 12);
	for (size_t i = 12; i < len; i++)
		p[i] = (uint8_t)(seed + i);
	memcpy(p + 12, to, 6);
	p[24] = 8;
	p[25] = 0;
	return len;
}

static ssize_t receive(int fd, void *buf, size_t len)
{
	ssize_t n;

	wait_for((n = read(fd, buf, len)) >= 0 || errno != EAGAIN);
	return n;
}

static void test_tx(void)
{
	struct rig r;
	uint8_t got[4096];

	rig_new(&r, 1, -1);
	drv_start(&r.d, r.v, DEVFN, VIRTIO_BIT(VIRTIO_NET_F_MAC), 2, 64);
	for (unsigned i = 0; i < 300; i++) {
		uint64_t at = r.tx + 4096 * (i % 64);
		size_t len = 12 + 60 + i;
		struct buf whole[1] = {{at, (uint32_t)len, 0}}, parts[3] = {{at, 5, 0}, {at + 5, 20, 0}, {at + 25, (uint32_t)len - 25, 0}};

		frame(fake_at(r.v, at), mac, len, (uint8_t)i);
		if (i & 1)
			drv_put(&r.d.q[1], whole, 1);
		else
			drv_put(&r.d.q[1], parts, 3);
		drv_kick(&r.d.q[1]);
		g_assert_cmpint(receive(r.peer[0], got, sizeof(got)), ==, (ssize_t)len);
		g_assert_cmpmem(got, len, fake_at(r.v, at), len);
		g_assert_cmpuint(drv_wait(&r.d.q[1]).len, ==, 0);
	}
	rig_free(&r);
}

/* The socket takes about ten packets: the rest waits for room, in order, and nothing is lost. */
static void test_tx_full(void)
{
	struct rig r;
	uint8_t got[4096];

	rig_new(&r, 1, -1);
	drv_start(&r.d, r.v, DEVFN, VIRTIO_BIT(VIRTIO_RING_F_EVENT_IDX), 2, 256);
	for (unsigned i = 0; i < 200; i++) {
		uint64_t at = r.tx + 4096 * i;
		struct buf b[1] = {{at, 100, 0}};

		frame(fake_at(r.v, at), mac, 100, (uint8_t)i);
		drv_put(&r.d.q[1], b, 1);
	}
	drv_kick(&r.d.q[1]);
	g_usleep(20000);
	for (unsigned i = 0; i < 200; i++) {
		g_assert_cmpint(receive(r.peer[0], got, sizeof(got)), ==, 100);
		g_assert_cmpuint(got[99], ==, (uint8_t)(i + 99));
	}
	for (unsigned i = 0; i < 200; i++)
		drv_wait(&r.d.q[1]);
	rig_free(&r);
}

static void give(struct rig *r, unsigned n, uint32_t len)
{
	for (unsigned i = 0; i < n; i++) {
		struct buf b[1] = {{r->rx + 4096 * i, len, 1}};

		drv_put(&r->d.q[0], b, 1);
	}
	drv_kick(&r->d.q[0]);
}

static void test_rx(void)
{
	struct rig r;
	uint8_t out[4096];

	rig_new(&r, 1, -1);
	drv_start(&r.d, r.v, DEVFN, 0, 2, 64);
	/* Packets wait where there is no buffer. */
	g_assert_cmpint(write(r.peer[0], out, frame(out, mac, 100, 1)), ==, 100);
	g_usleep(5000);
	for (unsigned i = 0; i < 200; i++) {
		struct done u;
		uint8_t *p = fake_at(r.v, r.rx);

		memset(p, 0xee, 100);
		give(&r, 1, SMALL);
		u = drv_wait(&r.d.q[0]);
		g_assert_cmpuint(u.len, ==, 100);
		g_assert_cmpuint(p[10] | p[11] << 8, ==, 1);
		g_assert_cmpmem(p + 12, 88, out + 12, 88);
		g_assert_cmpint(write(r.peer[0], out, frame(out, mac, 100, (uint8_t)i)), ==, 100);
	}
	give(&r, 1, SMALL);
	drv_wait(&r.d.q[0]);
	/* Without mergeable buffers what is too large is dropped, and the buffer serves the next one. */
	give(&r, 1, 200);
	g_assert_cmpint(write(r.peer[0], out, frame(out, mac, 201, 1)), ==, 201);
	g_assert_cmpint(write(r.peer[0], out, frame(out, mac, 20, 1)), ==, 20); /* no packet */
	g_assert_cmpint(write(r.peer[0], out, frame(out, mac, 200, 2)), ==, 200);
	g_assert_cmpuint(drv_wait(&r.d.q[0]).len, ==, 200);
	rig_free(&r);
}

/* Large and small packets over small buffers; sizes change all the time, so what readv was offered does, too. */
static void test_mergeable(void)
{
	static uint8_t out[65536], got[70000];
	static const unsigned sizes[] = {100, 60000, 65000, 1612, 1600, 1601, 3200, 26, 65535, 40000, 74};
	struct rig r;
	int room = 1 << 20;

	rig_new(&r, 1, -1);
	setsockopt(r.port.fd[0], SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
	drv_start(&r.d, r.v, DEVFN, VIRTIO_BIT(VIRTIO_NET_F_MRG_RXBUF) | VIRTIO_BIT(VIRTIO_NET_F_GUEST_CSUM) |
		  VIRTIO_BIT(VIRTIO_NET_F_GUEST_TSO4), 2, 256);
	g_assert_cmpuint(r.port.offload, ==, VH_NET_CSUM | VH_NET_TSO4);
	give(&r, 256, SMALL);
	for (unsigned i = 0; i < 300; i++) {
		unsigned len = sizes[i % G_N_ELEMENTS(sizes)], have = 0, n = 0, want = 1;

		frame(out, mac, len, (uint8_t)i);
		wait_for(write(r.peer[0], out, len) == (ssize_t)len);
		for (; n < want; n++) {
			struct done u = drv_wait(&r.d.q[0]);
			uint64_t gpa = r.d.q[0].desc[u.id].addr;
			struct buf b[1] = {{gpa, SMALL, 1}};

			g_assert_cmpuint(u.len, <=, SMALL);
			memcpy(got + have, fake_at(r.v, gpa), u.len);
			if (!n)
				want = got[10] | got[11] << 8;
			have += u.len;
			/* A free descriptor by its own number: the ring stays full. */
			r.d.q[0].desc[u.id] = (struct vring_desc){b[0].gpa, SMALL, VRING_DESC_F_WRITE, 0};
			r.d.q[0].avail->ring[r.d.q[0].avail_idx & 255] = (uint16_t)u.id;
			__atomic_store_n(&r.d.q[0].avail->idx, ++r.d.q[0].avail_idx, __ATOMIC_SEQ_CST);
		}
		drv_kick(&r.d.q[0]);
		g_assert_cmpuint(have, ==, len);
		g_assert_cmpuint(want, ==, (len + SMALL - 1) / SMALL);
		g_assert_cmpmem(got + 12, len - 12, out + 12, len - 12);
	}
	rig_free(&r);
}

static int control(struct rig *r, unsigned q, uint8_t class, uint8_t cmd, const void *data, uint32_t len)
{
	uint8_t *p = fake_at(r->v, r->ctrl);
	struct buf b[3] = {{r->ctrl, 2, 0}, {r->ctrl + 16, len, 0}, {r->ctrl + 4000, 1, 1}};

	p[0] = class;
	p[1] = cmd;
	if (len)
		memcpy(p + 16, data, len);
	p[4000] = 0xee;
	if (!len)
		b[1] = b[2];
	drv_put(&r->d.q[q], b, len ? 3 : 2);
	drv_kick(&r->d.q[q]);
	drv_wait(&r->d.q[q]);
	return p[4000];
}

/* Whether a packet for `to` arrives; an own one behind it says that it was judged. */
static int arrives(struct rig *r, const uint8_t to[6], uint16_t type, uint16_t vid)
{
	uint8_t out[128];
	const uint8_t *p;
	uint64_t gpa;

	g_usleep(3000); /* the filters are taken over by a posted task */
	frame(out, to, 100, 1);
	out[24] = (uint8_t)(type >> 8);
	out[25] = (uint8_t)type;
	out[26] = (uint8_t)(vid >> 8);
	out[27] = (uint8_t)vid;
	give(r, 1, SMALL);
	g_assert_cmpint(write(r->peer[0], out, 100), ==, 100);
	frame(out, r->dev->pci.priv ? r->dev->pci.priv : mac, 101, 1);
	g_assert_cmpint(write(r->peer[0], out, 101), ==, 101);
	struct done u = drv_wait(&r->d.q[0]);
	gpa = r->d.q[0].desc[u.id].addr;
	p = fake_at(r->v, gpa);
	(void)p;
	if (u.len == 101)
		return 0;
	g_assert_cmpuint(u.len, ==, 100);
	give(r, 1, SMALL);
	g_assert_cmpuint(drv_wait(&r->d.q[0]).len, ==, 101);
	return 1;
}

static void test_filters(void)
{
	static const uint8_t other[6] = {2, 0, 0, 0, 0, 2}, group[6] = {1, 0, 0x5e, 0, 0, 1}, all[6] = {255, 255, 255, 255, 255, 255};
	struct rig r;
	uint8_t on = 1, off = 0;
	uint16_t vid = 5, bad = 4096;
	uint8_t tables[4 + 6 + 4 + 6] = {1, 0, 0, 0, 2, 0, 0, 0, 0, 2, 1, 0, 0, 0, 1, 0, 0x5e, 0, 0, 1};
	uint8_t huge[8] = {0xff, 0xff, 0xff, 0xff};

	rig_new(&r, 1, -1);
	drv_start(&r.d, r.v, DEVFN, VIRTIO_BIT(VIRTIO_NET_F_CTRL_VQ) | VIRTIO_BIT(VIRTIO_NET_F_CTRL_RX) |
		  VIRTIO_BIT(VIRTIO_NET_F_CTRL_RX_EXTRA) | VIRTIO_BIT(VIRTIO_NET_F_CTRL_VLAN) |
		  VIRTIO_BIT(VIRTIO_NET_F_CTRL_MAC_ADDR), 3, 64);
	g_assert_true(arrives(&r, other, 0x800, 0)); /* promiscuous until told otherwise */
	g_assert_cmpint(control(&r, 2, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, &off, 1), ==, 0);
	g_assert_false(arrives(&r, other, 0x800, 0));
	g_assert_true(arrives(&r, mac, 0x800, 0));
	g_assert_true(arrives(&r, all, 0x800, 0));
	g_assert_false(arrives(&r, group, 0x800, 0));
	g_assert_cmpint(control(&r, 2, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, tables, sizeof(tables)), ==, 0);
	g_assert_true(arrives(&r, other, 0x800, 0));
	g_assert_true(arrives(&r, group, 0x800, 0));
	g_assert_cmpint(control(&r, 2, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_NOMULTI, &on, 1), ==, 0);
	g_assert_false(arrives(&r, group, 0x800, 0));
	g_assert_cmpint(control(&r, 2, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_NOBCAST, &on, 1), ==, 0);
	g_assert_false(arrives(&r, all, 0x800, 0));
	g_assert_false(arrives(&r, mac, 0x8100, 5));
	g_assert_cmpint(control(&r, 2, VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD, &vid, 2), ==, 0);
	g_assert_true(arrives(&r, mac, 0x8100, 5));
	g_assert_false(arrives(&r, mac, 0x8100, 6));
	g_assert_cmpint(control(&r, 2, VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_DEL, &vid, 2), ==, 0);
	g_assert_false(arrives(&r, mac, 0x8100, 5));
	/* What is malformed is refused and changes nothing. */
	g_assert_cmpint(control(&r, 2, VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD, &bad, 2), ==, 1);
	g_assert_cmpint(control(&r, 2, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, huge, 8), ==, 1);
	g_assert_cmpint(control(&r, 2, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, tables, 3), ==, 1);
	g_assert_cmpint(control(&r, 2, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, tables, 12), ==, 1);
	g_assert_cmpint(control(&r, 2, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, group, 6), ==, 1);
	g_assert_cmpint(control(&r, 2, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, other, 5), ==, 1);
	g_assert_cmpint(control(&r, 2, VIRTIO_NET_CTRL_RX, 9, &on, 1), ==, 1);
	g_assert_cmpint(control(&r, 2, VIRTIO_NET_CTRL_RX, 0, NULL, 0), ==, 1);
	g_assert_cmpint(control(&r, 2, VIRTIO_NET_CTRL_MQ, 0, &vid, 2), ==, 1); /* not negotiated */
	g_assert_cmpint(control(&r, 2, 200, 1, tables, 20), ==, 1);
	g_assert_true(arrives(&r, other, 0x800, 0));
	/* The driver's own address. */
	memset(tables, 0, 8);
	g_assert_cmpint(control(&r, 2, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, tables, 8), ==, 0);
	g_assert_false(arrives(&r, other, 0x800, 0));
	g_assert_cmpint(control(&r, 2, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, other, 6), ==, 0);
	g_assert_cmpuint(mmio_get(r.v, r.d.config + 5, 1), ==, 2);
	r.dev->pci.priv = (void *)other; /* see arrives() */
	g_assert_false(arrives(&r, mac, 0x800, 0));
	g_assert_cmpuint(r.port.filters, >, 5);
	g_assert_cmpmem(r.port.filter.mac, 6, other, 6);
	/* A backend that cannot have an address: the driver is told, and keeps what it had. */
	r.port.refuses = -EADDRINUSE;
	g_assert_cmpint(control(&r, 2, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, mac, 6), ==, 1);
	g_assert_cmpuint(mmio_get(r.v, r.d.config + 5, 1), ==, 2);
	g_assert_false(arrives(&r, mac, 0x800, 0));
	/* The next driver begins by hearing everything, with the first address. */
	r.port.refuses = 0;
	unsigned told = __atomic_load_n(&r.port.filters, __ATOMIC_SEQ_CST);

	drv_start(&r.d, r.v, DEVFN, 0, 2, 64);
	wait_for(__atomic_load_n(&r.port.filters, __ATOMIC_SEQ_CST) > told);
	g_assert_cmpuint(r.port.filter.mode & VH_NET_RX_PROMISC, ==, VH_NET_RX_PROMISC);
	g_assert_cmpmem(r.port.filter.mac, 6, mac, 6);
	rig_free(&r);
}

static void test_pairs(void)
{
	struct rig r;
	uint8_t out[200];
	uint16_t two = 2, three = 3, none = 0;
	struct buf b[1];

	rig_new(&r, 2, -1);
	/* Without MQ the control queue is the third. */
	drv_start(&r.d, r.v, DEVFN, VIRTIO_BIT(VIRTIO_NET_F_CTRL_VQ) | VIRTIO_BIT(VIRTIO_NET_F_CTRL_RX), 3, 64);
	g_assert_cmpint(control(&r, 2, VIRTIO_NET_CTRL_RX, 0, &none, 1), ==, 0);
	drv_start(&r.d, r.v, DEVFN, VIRTIO_BIT(VIRTIO_NET_F_CTRL_VQ) | VIRTIO_BIT(VIRTIO_NET_F_MQ), 5, 64);
	g_assert_cmpuint(mmio_get(r.v, r.d.config + 8, 2), ==, 2);
	g_assert_cmpuint(r.port.pairs, ==, 1);
	b[0] = (struct buf){r.rx, SMALL, 1};
	drv_put(&r.d.q[2], b, 1);
	drv_kick(&r.d.q[2]);
	frame(out, mac, 100, 1);
	g_assert_cmpint(write(r.peer[1], out, 100), ==, 100);
	g_usleep(10000);
	struct done u;
	g_assert_cmpint(drv_poll(&r.d.q[2], &u), ==, 0); /* not in use */
	g_assert_cmpint(control(&r, 4, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, &three, 2), ==, 1);
	g_assert_cmpint(control(&r, 4, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, &none, 2), ==, 1);
	g_assert_cmpint(control(&r, 4, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, &two, 2), ==, 0);
	g_assert_cmpuint(drv_wait(&r.d.q[2]).len, ==, 100);
	g_assert_cmpuint(r.port.pairs, ==, 2);
	b[0] = (struct buf){r.tx, 100, 0};
	frame(fake_at(r.v, r.tx), mac, 100, 3);
	drv_put(&r.d.q[3], b, 1);
	drv_kick(&r.d.q[3]);
	g_assert_cmpint(receive(r.peer[1], out, 200), ==, 100);
	rig_free(&r);
}

static void test_link(void)
{
	struct rig r;
	uint8_t out[200];
	unsigned was;
	struct buf b[1];

	rig_new(&r, 1, -1);
	drv_start(&r.d, r.v, DEVFN, VIRTIO_BIT(VIRTIO_NET_F_STATUS) | VIRTIO_BIT(VIRTIO_NET_F_CTRL_VQ) |
		  VIRTIO_BIT(VIRTIO_NET_F_GUEST_ANNOUNCE), 3, 64);
	g_assert_cmpuint(mmio_get(r.v, r.d.config + 6, 2), ==, VIRTIO_NET_S_LINK_UP);
	g_assert_cmpuint(mmio_get(r.v, r.d.config + 10, 2), ==, 1500);
	was = drv_signals(r.dev, 0);
	virtio_net_set_link(r.dev, 0);
	g_assert_cmpuint(mmio_get(r.v, r.d.config + 6, 2), ==, 0);
	g_assert_cmpuint(drv_signals(r.dev, 0), ==, was + 1);
	g_usleep(5000);
	b[0] = (struct buf){r.tx, 100, 0};
	drv_put(&r.d.q[1], b, 1);
	drv_kick(&r.d.q[1]);
	drv_wait(&r.d.q[1]); /* into the void */
	g_assert_cmpint(read(r.peer[0], out, 200), ==, -1);
	virtio_net_set_link(r.dev, 1);
	g_assert_cmpuint(mmio_get(r.v, r.d.config + 6, 2), ==, VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE);
	g_assert_cmpint(control(&r, 2, VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK, NULL, 0), ==, 0);
	g_assert_cmpuint(mmio_get(r.v, r.d.config + 6, 2), ==, VIRTIO_NET_S_LINK_UP);
	rig_free(&r);
}

static void test_resets(void)
{
	struct rig r;
	uint8_t out[200];

	rig_new(&r, 1, -1);
	for (unsigned i = 0; i < 50; i++) {
		drv_start(&r.d, r.v, DEVFN, VIRTIO_BIT(VIRTIO_NET_F_MRG_RXBUF), 2, 64);
		give(&r, 4, SMALL);
		frame(out, mac, 100, 1);
		wait_for(write(r.peer[0], out, 100) == 100);
		if (i % 3)
			drv_wait(&r.d.q[0]);
	}
	rig_free(&r);
}

static struct virtio_net_stats stats_of(struct rig *r)
{
	struct virtio_net_stats st;

	virtio_net_get_stats(r->dev, &st);
	return st;
}

static const struct guard strict = {.mode = GUARD_FULL, .n_addrs = 1, .addr = {{4, {192, 0, 2, 5}}}};

/* An ARP answer with 12 bytes of header: by whom, for which address. */
static size_t arp(uint8_t *p, const uint8_t src[6], const uint8_t sha[6], uint8_t last)
{
	memset(p, 0, 12 + 60);
	memset(p + 12, 0xff, 6);
	memcpy(p + 18, src, 6);
	memcpy(p + 24, "\x08\6\0\1\x08\0\6\4\0\2", 10);
	memcpy(p + 34, sha, 6);
	memcpy(p + 40, "\300\0\2", 3);
	p[43] = last;
	return 12 + 60;
}

/* What is forged goes nowhere, and everything else does, however it lies in memory. */
static void test_guard(void)
{
	static const uint8_t other[6] = {2, 0, 0, 0, 0, 2};
	struct virtio_net_config limits = {.guard = &strict};
	struct rig r;
	uint8_t got[4096], want[80];

	rig_limited(&r, 1, -1, &limits);
	drv_start(&r.d, r.v, DEVFN, VIRTIO_BIT(VIRTIO_NET_F_CTRL_VQ) | VIRTIO_BIT(VIRTIO_NET_F_CTRL_RX) |
		  VIRTIO_BIT(VIRTIO_NET_F_CTRL_MAC_ADDR), 3, 64);
	for (unsigned i = 0; i < 64; i++) {
		uint64_t at = r.tx + 4096 * (i % 64);
		uint8_t *p = fake_at(r.v, at);
		struct buf whole[1] = {{at, 72, 0}}, parts[5] = {{at, 5, 0}, {at + 5, 9, 0}, {at + 14, 20, 0}, {at + 34, 1, 0}, {at + 35, 37, 0}};
		int forged = i % 4;

		arp(p, forged == 1 ? other : mac, forged == 2 ? other : mac, forged == 3 ? 6 : 5);
		p[71] = (uint8_t)i;
		drv_put(&r.d.q[1], i % 3 ? whole : parts, i % 3 ? 1 : 5);
		drv_kick(&r.d.q[1]);
		drv_wait(&r.d.q[1]);
		if (forged)
			continue;
		arp(want, mac, mac, 5);
		want[71] = (uint8_t)i;
		g_assert_cmpint(receive(r.peer[0], got, sizeof(got)), ==, 72);
		g_assert_cmpmem(got, 72, want, 72);
	}
	g_assert_cmpint(read(r.peer[0], got, sizeof(got)), ==, -1);
	g_assert_cmpuint(stats_of(&r).guard_dropped, ==, 48);
	g_assert_cmpuint(stats_of(&r).tx_packets, ==, 16);
	g_assert_cmpuint(stats_of(&r).tx_bytes, ==, 16 * 60);
	g_assert_cmpuint(stats_of(&r).tx_dropped, ==, 0);
	/* A packet of many pages: its head is the copy, its tail the guest's memory. */
	uint8_t *p = fake_at(r.v, r.tx);
	struct buf large[4] = {{r.tx, 200, 0}, {r.tx + 200, 4000, 0}, {r.tx + 4200, 4000, 0}, {r.tx + 8200, 1000, 0}};

	for (unsigned i = 0; i < 9200; i++)
		p[i] = (uint8_t)(i * 7);
	memset(p, 0, 12);
	memset(p + 12, 0xff, 6);
	memcpy(p + 18, mac, 6);
	memcpy(p + 24, "\x08\0\x45\0\x23\xd6\0\0\0\0\x40\6\0\0\300\0\2\5\300\0\2\6", 22);
	drv_put(&r.d.q[1], large, 4);
	drv_kick(&r.d.q[1]);
	static uint8_t big[10000];
	g_assert_cmpint(receive(r.peer[0], big, sizeof(big)), ==, 9200);
	g_assert_cmpmem(big, 9200, p, 9200);
	drv_wait(&r.d.q[1]);
	/* Its address stays what it is. */
	g_assert_cmpint(control(&r, 2, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, other, 6), ==, 1);
	g_assert_cmpint(control(&r, 2, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, mac, 6), ==, 0);
	rig_free(&r);
}

struct forger {
	uint8_t *p;
	int stop; /* atomic */
};

static gpointer forge(gpointer data)
{
	struct forger *f = data;

	while (!__atomic_load_n(&f->stop, __ATOMIC_RELAXED))
		for (uint8_t i = 5; i < 8; i++) {
			__atomic_store_n(f->p + 43, i, __ATOMIC_RELAXED);
			__atomic_store_n(f->p + 23, (uint8_t)(i - 4), __ATOMIC_RELAXED);
		}
	return NULL;
}

/* The guest changes a frame all the time while it is sent: what comes out is what was judged. */
static void test_guard_race(void)
{
#ifdef __SANITIZE_THREAD__
	g_test_skip("ThreadSanitizer takes the guest's changes for ours");
	return;
#endif
	struct virtio_net_config limits = {.guard = &strict};
	struct rig r;
	struct forger f = {0};
	uint8_t got[4096];
	GThread *t;
	unsigned arrived = 0;

	rig_limited(&r, 1, -1, &limits);
	drv_start(&r.d, r.v, DEVFN, 0, 2, 64);
	f.p = fake_at(r.v, r.tx);
	arp(f.p, mac, mac, 5);
	t = g_thread_new("forger", forge, &f);
	for (unsigned i = 0; i < 20000; i++) {
		struct buf whole[1] = {{r.tx, 72, 0}};

		drv_put(&r.d.q[1], whole, 1);
		drv_kick(&r.d.q[1]);
		drv_wait(&r.d.q[1]);
		for (; read(r.peer[0], got, sizeof(got)) == 72; arrived++) {
			g_assert_cmpmem(got + 18, 6, mac, 6);
			g_assert_cmpuint(got[43], ==, 5);
		}
	}
	__atomic_store_n(&f.stop, 1, __ATOMIC_RELAXED);
	g_thread_join(t);
	g_assert_cmpuint(arrived + stats_of(&r).guard_dropped, ==, 20000);
	g_test_message("%u of 20000 arrived", arrived);
	rig_free(&r);
}

static unsigned count_frames(int fd)
{
	static uint8_t got[4096];
	unsigned n = 0;

	while (read(fd, got, sizeof(got)) > 0)
		n++;
	return n;
}

/* A limit so small that time plays no part: the burst goes, then one frame that pays later, and the rest waits. */
static void test_rates(void)
{
	struct rate_limit l = {.bytes = 1, .burst = 400}, none = {0}, packets = {.packets = 1};
	struct virtio_net_config limits = {.in = &l, .out = &l};
	struct rig r;
	uint8_t out[256], got[256];

	rig_limited(&r, 1, -1, &limits);
	drv_start(&r.d, r.v, DEVFN, VIRTIO_BIT(VIRTIO_RING_F_EVENT_IDX), 2, 256);
	for (unsigned i = 0; i < 8; i++) {
		struct buf b[1] = {{r.tx + 4096 * i, 112, 0}};

		frame(fake_at(r.v, b[0].gpa), mac, 112, (uint8_t)i);
		drv_put(&r.d.q[1], b, 1);
	}
	drv_kick(&r.d.q[1]);
	for (unsigned i = 0; i < 4; i++) {
		g_assert_cmpint(receive(r.peer[0], got, sizeof(got)), ==, 112);
		g_assert_cmpuint(got[50], ==, (uint8_t)(i + 50));
		drv_wait(&r.d.q[1]);
	}
	wait_for(stats_of(&r).rate_out_waits > 0);
	/* What comes in is left in the tap: the same four. */
	give(&r, 16, SMALL);
	for (unsigned i = 0; i < 8; i++)
		g_assert_cmpint(write(r.peer[0], out, frame(out, mac, 112, (uint8_t)i)), ==, 112);
	for (unsigned i = 0; i < 4; i++)
		g_assert_cmpuint(drv_wait(&r.d.q[0]).len, ==, 112);
	wait_for(stats_of(&r).rate_in_waits > 0);
	g_usleep(20000);
	g_assert_cmpuint(count_frames(r.peer[0]), ==, 0);
	struct done u;
	g_assert_cmpint(drv_poll(&r.d.q[0], &u), ==, 0);
	g_assert_cmpuint(stats_of(&r).rx_packets, ==, 4);
	g_assert_cmpuint(stats_of(&r).tx_packets, ==, 4);
	g_assert_cmpuint(stats_of(&r).rate_in_waits, ==, 1); /* and does not ask again and again */
	g_assert_cmpuint(stats_of(&r).rate_out_waits, ==, 1);
	/* Lifted while it waits: the rest goes at once, in order, without a doorbell. */
	virtio_net_set_rates(r.dev, NULL, &none);
	for (unsigned i = 4; i < 8; i++) {
		g_assert_cmpint(receive(r.peer[0], got, sizeof(got)), ==, 112);
		g_assert_cmpuint(got[50], ==, (uint8_t)(i + 50));
		drv_wait(&r.d.q[1]);
	}
	g_assert_cmpint(drv_poll(&r.d.q[0], &u), ==, 0);
	virtio_net_set_rates(r.dev, &none, NULL);
	for (unsigned i = 4; i < 8; i++)
		g_assert_cmpuint(drv_wait(&r.d.q[0]).len, ==, 112);
	/* By packets, from now on: 32 at once. */
	virtio_net_set_rates(r.dev, NULL, &packets);
	g_usleep(5000);
	for (unsigned i = 0; i < 40; i++) {
		struct buf b[1] = {{r.tx + 4096 * i, 112, 0}};

		frame(fake_at(r.v, b[0].gpa), mac, 112, (uint8_t)i);
		drv_put(&r.d.q[1], b, 1);
	}
	drv_kick(&r.d.q[1]);
	for (unsigned i = 0; i < 32; i++)
		g_assert_cmpint(receive(r.peer[0], got, sizeof(got)), ==, 112);
	/* A reset ends the waiting; so does the end of the device. */
	drv_start(&r.d, r.v, DEVFN, 0, 2, 64);
	rig_free(&r);
}

/* With a rate that time plays a part in, everything arrives in the end without anybody ringing. */
static void test_rate_timer(void)
{
	struct rate_limit l = {.bytes = 100000, .burst = 1000};
	struct virtio_net_config limits = {.out = &l};
	struct rig r;
	uint8_t got[256];

	rig_limited(&r, 1, -1, &limits);
	drv_start(&r.d, r.v, DEVFN, VIRTIO_BIT(VIRTIO_RING_F_EVENT_IDX), 2, 256);
	for (unsigned i = 0; i < 100; i++) {
		struct buf b[1] = {{r.tx + 4096 * i, 112, 0}};

		frame(fake_at(r.v, b[0].gpa), mac, 112, (uint8_t)i);
		drv_put(&r.d.q[1], b, 1);
	}
	drv_kick(&r.d.q[1]);
	for (unsigned i = 0; i < 100; i++)
		g_assert_cmpint(receive(r.peer[0], got, sizeof(got)), ==, 112);
	g_assert_cmpuint(stats_of(&r).rate_out_waits, >=, 2);
	rig_free(&r);
}

static void test_announce(void)
{
	struct rig r;
	uint8_t got[256];

	rig_new(&r, 1, -1);
	virtio_net_announce(r.dev); /* nobody is there yet */
	drv_start(&r.d, r.v, DEVFN, VIRTIO_BIT(VIRTIO_NET_F_STATUS) | VIRTIO_BIT(VIRTIO_NET_F_CTRL_VQ) |
		  VIRTIO_BIT(VIRTIO_NET_F_GUEST_ANNOUNCE), 3, 64);
	g_assert_cmpuint(mmio_get(r.v, r.d.config + 6, 2), ==, VIRTIO_NET_S_LINK_UP);
	virtio_net_announce(r.dev);
	g_assert_cmpuint(mmio_get(r.v, r.d.config + 6, 2), ==, VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE);
	g_assert_cmpint(control(&r, 2, VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK, NULL, 0), ==, 0);
	g_assert_cmpint(read(r.peer[0], got, sizeof(got)), ==, -1);
	/* A driver that knows nothing of it: a RARP that its own guard would let pass. */
	drv_start(&r.d, r.v, DEVFN, 0, 2, 64);
	virtio_net_announce(r.dev);
	g_assert_cmpint(receive(r.peer[0], got, sizeof(got)), ==, 72);
	struct guard g = strict;
	memcpy(g.mac, mac, 6);
	g_assert_cmpint(guard_check(&g, got, got + 12, 60, 60), ==, GUARD_PASS);
	g_assert_cmpuint(got[24] << 8 | got[25], ==, 0x8035);
	rig_free(&r);
}

/* What is offered is what the fd can, and what is taken arrives there; the kernel has UDP segmentation for both IPs or none. */
static void test_offloads(void)
{
	enum { USO4 = 54, USO6 = 55, HOST_USO = 56 };
	static const struct {
		uint64_t fd, offered;
	} rows[] = {
		{0, 0},
		{VH_NET_TSO4, 0}, /* nothing without checksums */
		{VH_NET_CSUM, VIRTIO_BIT(VIRTIO_NET_F_CSUM) | VIRTIO_BIT(VIRTIO_NET_F_GUEST_CSUM)},
		{VH_NET_CSUM | VH_NET_UFO, VIRTIO_BIT(VIRTIO_NET_F_CSUM) | VIRTIO_BIT(VIRTIO_NET_F_GUEST_CSUM) |
						   VIRTIO_BIT(VIRTIO_NET_F_HOST_UFO) | VIRTIO_BIT(VIRTIO_NET_F_GUEST_UFO)},
		{VH_NET_CSUM | VH_NET_USO, VIRTIO_BIT(VIRTIO_NET_F_CSUM) | VIRTIO_BIT(VIRTIO_NET_F_GUEST_CSUM) |
						   VIRTIO_BIT(USO4) | VIRTIO_BIT(USO6) | VIRTIO_BIT(HOST_USO)},
	};
	const uint64_t all = VIRTIO_BIT(VIRTIO_NET_F_CSUM) | VIRTIO_BIT(VIRTIO_NET_F_GUEST_CSUM) | VIRTIO_BIT(VIRTIO_NET_F_HOST_TSO4) |
			     VIRTIO_BIT(VIRTIO_NET_F_GUEST_TSO4) | VIRTIO_BIT(VIRTIO_NET_F_HOST_TSO6) | VIRTIO_BIT(VIRTIO_NET_F_GUEST_TSO6) |
			     VIRTIO_BIT(VIRTIO_NET_F_HOST_ECN) | VIRTIO_BIT(VIRTIO_NET_F_GUEST_ECN) | VIRTIO_BIT(VIRTIO_NET_F_HOST_UFO) |
			     VIRTIO_BIT(VIRTIO_NET_F_GUEST_UFO) | VIRTIO_BIT(USO4) | VIRTIO_BIT(USO6) | VIRTIO_BIT(HOST_USO);
	const uint64_t old = rig_offload, csum = VIRTIO_BIT(VIRTIO_NET_F_GUEST_CSUM);
	struct rig r;
	uint64_t bits;

	for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
		rig_offload = rows[i].fd;
		rig_new(&r, 1, -1);
		g_assert_cmphex(r.dev->features & all, ==, rows[i].offered);
		rig_free(&r);
	}
	rig_offload = VH_NET_CSUM | VH_NET_UFO | VH_NET_USO;
	rig_new(&r, 1, -1);
	drv_start(&r.d, r.v, DEVFN, csum | VIRTIO_BIT(USO4) | VIRTIO_BIT(VIRTIO_NET_F_GUEST_UFO), 2, 64);
	g_assert_cmphex(r.port.offload, ==, VH_NET_CSUM | VH_NET_UFO);
	drv_start(&r.d, r.v, DEVFN, csum | VIRTIO_BIT(USO4) | VIRTIO_BIT(USO6) | VIRTIO_BIT(VIRTIO_NET_F_CTRL_VQ) |
		  VIRTIO_BIT(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS), 3, 64);
	g_assert_cmphex(r.port.offload, ==, VH_NET_CSUM | VH_NET_USO);
	bits = csum;
	g_assert_cmpint(control(&r, 2, VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, &bits, 8), ==, 0);
	g_assert_cmphex(r.port.offload, ==, VH_NET_CSUM);
	bits = csum | VIRTIO_BIT(VIRTIO_NET_F_GUEST_UFO); /* not negotiated */
	g_assert_cmpint(control(&r, 2, VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, &bits, 8), ==, 1);
	bits = csum | VIRTIO_BIT(USO4) | VIRTIO_BIT(USO6);
	g_assert_cmpint(control(&r, 2, VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, &bits, 8), ==, 0);
	g_assert_cmphex(r.port.offload, ==, VH_NET_CSUM | VH_NET_USO);
	rig_free(&r);
	rig_offload = old;
}

/* The same over a real tap in a network namespace of our own. */
static void test_tap(void)
{
	struct rig r;
	struct ifreq q = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
	struct sockaddr_ll to = {.sll_family = AF_PACKET};
	int tap, s, header = 12;
	uint8_t out[200], got[200];
	struct buf b[1];

	if (unshare(CLONE_NEWNET)) {
		g_test_skip("no network namespace may be made here");
		return;
	}
	tap = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (tap < 0 || ioctl(tap, TUNSETIFF, &q) || ioctl(tap, TUNSETVNETHDRSZ, &header)) {
		g_test_skip("no tap may be made here");
		return;
	}
	s = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, htons(ETH_P_ALL));
	g_assert_cmpint(ioctl(s, SIOCGIFINDEX, &q), ==, 0);
	to.sll_ifindex = q.ifr_ifindex;
	to.sll_protocol = htons(ETH_P_ALL);
	q.ifr_flags = IFF_UP;
	g_assert_cmpint(ioctl(s, SIOCSIFFLAGS, &q), ==, 0);
	g_assert_cmpint(bind(s, (struct sockaddr *)&to, sizeof(to)), ==, 0);
	rig_new(&r, 1, tap);
	drv_start(&r.d, r.v, DEVFN, VIRTIO_BIT(VIRTIO_NET_F_MRG_RXBUF), 2, 64);
	/* Out, with our own type so that the kernel's chatter is told apart. */
	b[0] = (struct buf){r.tx, 112, 0};
	frame(fake_at(r.v, r.tx), mac, 112, 9);
	((uint8_t *)fake_at(r.v, r.tx))[24] = 0x88;
	((uint8_t *)fake_at(r.v, r.tx))[25] = 0xb5;
	drv_put(&r.d.q[1], b, 1);
	drv_kick(&r.d.q[1]);
	do
		g_assert_cmpint(receive(s, got, 200), >=, 14);
	while (got[12] != 0x88);
	g_assert_cmpmem(got, 100, (uint8_t *)fake_at(r.v, r.tx) + 12, 100);
	drv_wait(&r.d.q[1]);
	/* Many at once, in one piece and in three, some of them no packets: all that are arrive, in order. */
	for (unsigned i = 0; i < 40; i++) {
		uint64_t at = r.tx + 4096 * i;
		uint8_t *p = fake_at(r.v, at);
		struct buf whole[1] = {{at, i % 7 == 3 ? 20 : 112, 0}}, parts[2] = {{at, 12, 0}, {at + 12, 100, 0}};

		frame(p, mac, 112, (uint8_t)i);
		p[24] = 0x88;
		p[25] = 0xb5;
		p[26] = (uint8_t)i;
		drv_put(&r.d.q[1], i % 7 == 3 || i & 1 ? whole : parts, i % 7 == 3 || i & 1 ? 1 : 2);
	}
	drv_kick(&r.d.q[1]);
	for (unsigned i = 0; i < 40; i++) {
		if (i % 7 == 3)
			continue;
		do
			g_assert_cmpint(receive(s, got, 200), >=, 14);
		while (got[12] != 0x88);
		g_assert_cmpuint(got[14], ==, i);
	}
	for (unsigned i = 0; i < 40; i++)
		drv_wait(&r.d.q[1]);
	/* In. */
	give(&r, 32, SMALL);
	frame(out, mac, 112, 5);
	out[24] = 0x88;
	out[25] = 0xb5;
	g_assert_cmpint(send(s, out + 12, 100, 0), ==, 100);
	for (;;) {
		struct done u = drv_wait(&r.d.q[0]);
		const uint8_t *p = fake_at(r.v, r.d.q[0].desc[u.id].addr);

		if (p[24] != 0x88)
			continue;
		g_assert_cmpuint(u.len, ==, 112);
		g_assert_cmpuint(p[10] | p[11] << 8, ==, 1);
		g_assert_cmpmem(p + 12, 100, out + 12, 100);
		break;
	}
	rig_free(&r);
	close(s);
	close(tap);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/net/transmit", test_tx);
	g_test_add_func("/net/transmit-waits-for-room", test_tx_full);
	g_test_add_func("/net/receive", test_rx);
	g_test_add_func("/net/mergeable-buffers", test_mergeable);
	g_test_add_func("/net/filters-and-control-garbage", test_filters);
	g_test_add_func("/net/queue-pairs", test_pairs);
	g_test_add_func("/net/link", test_link);
	g_test_add_func("/net/resets", test_resets);
	g_test_add_func("/net/guard", test_guard);
	g_test_add_func("/net/guard-and-a-guest-that-changes-its-mind", test_guard_race);
	g_test_add_func("/net/rates", test_rates);
	g_test_add_func("/net/rates-go-on-by-themselves", test_rate_timer);
	g_test_add_func("/net/announce", test_announce);
	g_test_add_func("/net/offloads", test_offloads);
	g_test_add_func("/net/real-tap", test_tap);
	return g_test_run();
}
