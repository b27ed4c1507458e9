/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* virtio-net over a stream socket: packets in pieces, impossible lengths, a full socket, an end. The test is the other side. */
#include <arpa/inet.h>
#include <glib.h>
#define virtio_net_config virtio_net_space
#include <linux/virtio_net.h>
#undef virtio_net_config
#include <string.h>
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
	int fd;
	int lost; /* atomic */
};
const struct vh_net_info *net_port_info(const struct net_port *p)
{
	return &p->info;
}
int net_port_fd(const struct net_port *p, unsigned pair)
{
	return p->fd;
}
int net_port_set_offload(struct net_port *p, uint64_t offload)
{
	g_assert_cmpuint(offload, ==, 0);
	return 0;
}
int net_port_set_pairs(struct net_port *p, unsigned active)
{
	return 0;
}
int net_port_set_filter(struct net_port *p, const struct vh_net_filter *f, struct vh_err *e)
{
	return -EOPNOTSUPP;
}
void net_port_lost(struct net_port *p)
{
	__atomic_fetch_add(&p->lost, 1, __ATOMIC_SEQ_CST);
}

struct rig {
	struct vm *v;
	struct pci_host *h;
	struct vh_loop *loop;
	struct net_port port;
	int peer;
	struct virtio_dev *dev;
	struct drv d;
	uint64_t tx, rx;
	unsigned given;
};

static const uint8_t mac[6] = {2, 0, 0, 0, 0, 1};

/* limits: guard, in and out of it. */
static void rig_with(struct rig *r, const struct virtio_net_config *limits)
{
	struct virtio_net_config c = {.port = &r->port, .pairs = 1, .mtu = 1500, .loops = &r->loop, .n_loops = 1, .label = "test nic",
				      .guard = limits->guard, .in = limits->in, .out = limits->out};
	int s[2];

	memset(r, 0, sizeof(*r));
	memcpy(c.mac, mac, 6);
	r->v = fake_vm(24 << 20, 36);
	g_assert_cmpint(pci_host_new(r->v, &r->h, NULL), ==, 0);
	g_assert_cmpint(loop_new("test", &r->loop, NULL), ==, 0);
	g_assert_cmpint(loop_start(r->loop, NULL), ==, 0);
	g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, s), ==, 0);
	r->port.info.path = VH_NET_PATH_STREAM;
	r->port.fd = s[0];
	r->peer = s[1];
	g_assert_cmpint(virtio_net_new(r->v, r->h, &c, &r->dev, NULL), ==, 0);
	r->tx = fake_alloc(r->v, 256 * 4096, 4096);
	r->rx = fake_alloc(r->v, 256 * 4096, 4096);
}

static void rig_new(struct rig *r)
{
	rig_with(r, &(struct virtio_net_config){0});
}

static void rig_free(struct rig *r)
{
	virtio_free(r->dev);
	loop_stop(r->loop);
	loop_free(r->loop);
	close(r->peer);
	close(r->port.fd);
	pci_host_free(r->h);
	fake_vm_free(r->v);
}

/* A packet as the stream has it: its length, then a pattern for `mac`. Returns bytes. */
static size_t packet(uint8_t *p, uint32_t len, uint8_t seed)
{
	uint32_t be = htonl(len);

	memcpy(p, &be, 4);
	for (uint32_t i = 0; i < len; i++)
		p[4 + i] = (uint8_t)(seed + i);
	memcpy(p + 4, mac, 6);
	p[16] = 8;
	p[17] = 0;
	return 4 + len;
}

static void write_all(int fd, const uint8_t *p, size_t n)
{
	while (n) {
		ssize_t w = send(fd, p, n, MSG_NOSIGNAL);

		if (w < 0) {
			g_assert_cmpint(errno, ==, EAGAIN);
			g_usleep(500);
			continue;
		}
		p += w;
		n -= (size_t)w;
	}
}

static void read_all(int fd, uint8_t *p, size_t n)
{
	while (n) {
		ssize_t r = 0;

		wait_for((r = read(fd, p, n)) > 0);
		p += r;
		n -= (size_t)r;
	}
}

/* Receive buffers of `len` bytes, each at a place of its own. */
static void give(struct rig *r, unsigned n, uint32_t len)
{
	for (unsigned i = 0; i < n; i++) {
		struct buf b[1] = {{r->rx + 4096 * (r->given++ % 256), len, 1}};

		drv_put(&r->d.q[0], b, 1);
	}
	drv_kick(&r->d.q[0]);
}

/* The next packet in the ring, whose first buffer is of the right pattern; its length without header. */
static size_t got(struct rig *r, uint8_t seed)
{
	struct done u = drv_wait(&r->d.q[0]);
	const uint8_t *p = fake_at(r->v, r->d.q[0].desc[u.id].addr);
	unsigned n = (unsigned)(p[10] | p[11] << 8);
	size_t len = u.len - 12;

	g_assert_cmpmem(p, 10, "\0\0\0\0\0\0\0\0\0\0", 10);
	g_assert_cmpmem(p + 12, 6, mac, 6);
	for (unsigned i = 14; i < u.len - 12; i++)
		g_assert_cmpuint(p[12 + i], ==, (uint8_t)(seed + i));
	for (size_t at = len; n > 1; n--) {
		u = drv_wait(&r->d.q[0]);
		p = fake_at(r->v, r->d.q[0].desc[u.id].addr);
		for (unsigned i = 0; i < u.len; i++)
			g_assert_cmpuint(p[i], ==, (uint8_t)(seed + at + i));
		at += u.len;
		len += u.len;
	}
	return len;
}

/* Two packets, with a break at every byte of them. */
static void test_every_split(void)
{
	uint8_t bytes[256];
	struct rig r;
	size_t n;

	rig_new(&r);
	drv_start(&r.d, r.v, DEVFN, 0, 2, 64);
	n = packet(bytes, 60, 1);
	n += packet(bytes + n, 75, 2);
	for (size_t cut = 0; cut <= n; cut++) {
		give(&r, 2, SMALL);
		write_all(r.peer, bytes, cut);
		if (cut % 4 == 0) /* else they may come together */
			g_usleep(1000);
		write_all(r.peer, bytes + cut, n - cut);
		g_assert_cmpuint(got(&r, 1), ==, 60);
		g_assert_cmpuint(got(&r, 2), ==, 75);
	}
	/* Byte by byte. */
	give(&r, 2, SMALL);
	for (size_t i = 0; i < n; i++)
		write_all(r.peer, bytes + i, 1);
	g_assert_cmpuint(got(&r, 1), ==, 60);
	g_assert_cmpuint(got(&r, 2), ==, 75);
	rig_free(&r);
}

/* More than the buffer holds at once, in sizes from the least to the most that can be. */
static void test_many(void)
{
	static const uint32_t sizes[] = {14, 60, 1514, 65550, 14, 14, 9000, 1500, 40000, 65550, 65549, 100};
	g_autofree uint8_t *bytes = g_malloc(70000);
	struct rig r;

	rig_new(&r);
	drv_start(&r.d, r.v, DEVFN, VIRTIO_BIT(VIRTIO_NET_F_MRG_RXBUF), 2, 256);
	for (unsigned i = 0; i < 240; i++) {
		uint32_t len = sizes[i % G_N_ELEMENTS(sizes)];

		if (i % 2 == 0)
			give(&r, 2 * 41, SMALL + 100);
		write_all(r.peer, bytes, packet(bytes, len, (uint8_t)i));
		g_assert_cmpuint(got(&r, (uint8_t)i), ==, len);
		if (i % 2) {
			/* Whatever is left is taken back by a reset, as a driver would. */
			drv_start(&r.d, r.v, DEVFN, VIRTIO_BIT(VIRTIO_NET_F_MRG_RXBUF), 2, 256);
		}
	}
	rig_free(&r);
}

/* Without buffers nothing is read, and nothing is lost; what can never fit is dropped. */
static void test_back_pressure(void)
{
	uint8_t bytes[4096];
	unsigned sent = 0;
	struct rig r;
	size_t n = 0, at = 0;

	rig_new(&r);
	drv_start(&r.d, r.v, DEVFN, VIRTIO_BIT(VIRTIO_RING_F_EVENT_IDX), 2, 64);
	for (;;) { /* until neither the device nor the socket takes more */
		ssize_t w;

		if (at == n) {
			n = packet(bytes, 1000, (uint8_t)sent++);
			at = 0;
		}
		w = send(r.peer, bytes + at, n - at, MSG_NOSIGNAL);
		if (w < 0) {
			g_usleep(20000);
			w = send(r.peer, bytes + at, n - at, MSG_NOSIGNAL);
		}
		if (w < 0)
			break;
		at += (size_t)w;
		g_assert_cmpuint(sent, <, 10000);
	}
	g_assert_cmpuint(sent, >, 50);
	for (unsigned i = 0; i < sent; i++) {
		give(&r, 1, SMALL);
		if (i + 1 == sent)
			write_all(r.peer, bytes + at, n - at);
		g_assert_cmpuint(got(&r, (uint8_t)i), ==, 1000);
	}
	/* Too large for one buffer, and the driver merges none: dropped, the next one takes it. */
	give(&r, 1, 200);
	write_all(r.peer, bytes, packet(bytes, 189, 7));
	write_all(r.peer, bytes, packet(bytes, 13, 7)); /* no packet */
	write_all(r.peer, bytes, packet(bytes, 188, 8));
	g_assert_cmpuint(got(&r, 8), ==, 188);
	rig_free(&r);
}

/* Merged buffers: a packet waits for as many as it needs, unless the driver never has so many. */
static void test_merge_waits(void)
{
	g_autofree uint8_t *bytes = g_malloc(70000);
	struct rig r;

	rig_new(&r);
	drv_start(&r.d, r.v, DEVFN, VIRTIO_BIT(VIRTIO_NET_F_MRG_RXBUF) | VIRTIO_BIT(VIRTIO_RING_F_EVENT_IDX), 2, 64);
	give(&r, 8, SMALL);
	for (unsigned i = 0; i < 6; i++) {
		write_all(r.peer, bytes, packet(bytes, 100, (uint8_t)i));
		g_assert_cmpuint(got(&r, (uint8_t)i), ==, 100);
	}
	write_all(r.peer, bytes, packet(bytes, 6000, 9)); /* four; two are there, but eight were */
	g_usleep(5000);
	struct done u;

	g_assert_cmpint(drv_poll(&r.d.q[0], &u), ==, 0);
	give(&r, 1, SMALL);
	give(&r, 1, SMALL);
	g_assert_cmpuint(got(&r, 9), ==, 6000);
	give(&r, 8, SMALL);
	write_all(r.peer, bytes, packet(bytes, 20000, 3)); /* thirteen: never */
	write_all(r.peer, bytes, packet(bytes, 50, 4));
	g_assert_cmpuint(got(&r, 4), ==, 50);
	rig_free(&r);
}

static void link_goes_down(struct rig *r)
{
	uint8_t x = 0;

	wait_for(!(mmio_get(r->v, r->d.config + 6, 2) & VIRTIO_NET_S_LINK_UP));
	g_assert_cmpint(__atomic_load_n(&r->port.lost, __ATOMIC_SEQ_CST), ==, 1);
	/* The device goes on: what is sent goes nowhere and comes back. */
	for (unsigned i = 0; i < 3; i++) {
		struct buf b[1] = {{r->tx, 100, 0}};

		drv_put(&r->d.q[1], b, 1);
		drv_kick(&r->d.q[1]);
		drv_wait(&r->d.q[1]);
	}
	/* Also after a reset; and it is told once only. */
	drv_start(&r->d, r->v, DEVFN, VIRTIO_BIT(VIRTIO_NET_F_STATUS), 2, 64);
	g_assert_false(mmio_get(r->v, r->d.config + 6, 2) & VIRTIO_NET_S_LINK_UP);
	virtio_net_set_link(r->dev, 1);
	give(r, 1, SMALL);
	send(r->peer, &x, 1, MSG_NOSIGNAL);
	struct buf b[1] = {{r->tx, 100, 0}};

	drv_put(&r->d.q[1], b, 1);
	drv_kick(&r->d.q[1]);
	drv_wait(&r->d.q[1]);
	g_assert_cmpint(__atomic_load_n(&r->port.lost, __ATOMIC_SEQ_CST), ==, 1);
}

static void test_hostile_lengths(void)
{
	static const uint32_t bad[] = {0, 65551, 0x7fffffff, 0x80000000, 0xffffffff, 0x3c000000};

	for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
		uint32_t be = htonl(bad[i]);
		uint8_t bytes[256];
		struct rig r;
		size_t n = packet(bytes, 60, 1);

		rig_new(&r);
		drv_start(&r.d, r.v, DEVFN, VIRTIO_BIT(VIRTIO_NET_F_STATUS), 2, 64);
		give(&r, 4, SMALL);
		/* What came before it is delivered, nothing after it. */
		memcpy(bytes + n, &be, 4);
		n += 4;
		n += packet(bytes + n, 60, 2);
		write_all(r.peer, bytes, n);
		g_assert_cmpuint(got(&r, 1), ==, 60);
		link_goes_down(&r);
		rig_free(&r);
	}
}

static void test_other_side_ends(void)
{
	for (unsigned how = 0; how < 3; how++) {
		uint8_t bytes[128];
		struct rig r;

		rig_new(&r);
		drv_start(&r.d, r.v, DEVFN, VIRTIO_BIT(VIRTIO_NET_F_STATUS), 2, 64);
		if (how) /* in the middle of a packet */
			write_all(r.peer, bytes, packet(bytes, 60, 1) / how);
		give(&r, 4, SMALL);
		shutdown(r.peer, SHUT_RDWR);
		if (how == 1)
			g_assert_cmpuint(got(&r, 1), ==, 60);
		link_goes_down(&r);
		rig_free(&r);
	}
}

static void put(struct rig *r, unsigned slot, uint32_t len, uint8_t seed, int parts)
{
	uint64_t at = r->tx + 4096 * slot;
	uint8_t *p = fake_at(r->v, at);
	struct buf whole[1] = {{at, 12 + len, 0}}, three[3] = {{at, 12, 0}, {at + 12, 1, 0}, {at + 13, len - 1, 0}},
		   odd[3] = {{at, 5, 0}, {at + 5, 20, 0}, {at + 25, len - 13, 0}};

	memset(p, 0xff, 12); /* a header that no driver may set: it is not looked at */
	for (uint32_t i = 0; i < len; i++)
		p[12 + i] = (uint8_t)(seed + i);
	drv_put(&r->d.q[1], parts == 0 ? whole : parts == 1 ? three : odd, parts ? 3 : 1);
}

static void sent(struct rig *r, uint32_t len, uint8_t seed)
{
	g_autofree uint8_t *p = g_malloc(4 + len);
	uint32_t be;

	read_all(r->peer, p, 4 + len);
	memcpy(&be, p, 4);
	g_assert_cmpuint(ntohl(be), ==, len);
	for (uint32_t i = 0; i < len; i++)
		g_assert_cmpuint(p[4 + i], ==, (uint8_t)(seed + i));
}

static void test_tx(void)
{
	struct rig r;

	rig_new(&r);
	drv_start(&r.d, r.v, DEVFN, 0, 2, 256);
	for (unsigned round = 0; round < 20; round++) {
		for (unsigned i = 0; i < 50; i++)
			put(&r, i, 14 + i + round, (uint8_t)(i + round), (int)i % 3);
		drv_kick(&r.d.q[1]);
		for (unsigned i = 0; i < 50; i++)
			sent(&r, 14 + i + round, (uint8_t)(i + round));
		for (unsigned i = 0; i < 50; i++)
			g_assert_cmpuint(drv_wait(&r.d.q[1]).len, ==, 0);
	}
	/* What is no packet goes nowhere; the next one does. */
	put(&r, 0, 13, 1, 0);
	put(&r, 1, 60, 2, 0);
	drv_kick(&r.d.q[1]);
	sent(&r, 60, 2);
	rig_free(&r);
}

/* As a driver puts it: nothing in the header, and the NIC's own address, or another's. */
static void put_as(struct rig *r, unsigned slot, uint32_t len, uint8_t seed, int parts, int own)
{
	uint8_t *p = fake_at(r->v, r->tx + 4096 * slot);

	put(r, slot, len, seed, parts);
	memset(p, 0, 12);
	memcpy(p + 12 + 6, own ? mac : (const uint8_t *)"\2\0\0\0\0\2", 6);
	memcpy(p + 12 + 12, "\x88\xb5", 2); /* for experiments: nothing that a guard of addresses reads on in */
}

static void sent_own(struct rig *r, uint32_t len, uint8_t seed)
{
	g_autofree uint8_t *p = g_malloc(4 + len);
	uint32_t be;

	read_all(r->peer, p, 4 + len);
	memcpy(&be, p, 4);
	g_assert_cmpuint(ntohl(be), ==, len);
	g_assert_cmpmem(p + 4 + 6, 6, mac, 6);
	for (uint32_t i = 14; i < len; i++)
		g_assert_cmpuint(p[4 + i], ==, (uint8_t)(seed + i));
}

/* What is sent in another's name goes nowhere, in whatever pieces and batches, also when the socket is full at times. */
static void test_tx_guard(void)
{
	static const struct guard own = {.mode = GUARD_MAC};
	struct virtio_net_stats st;
	struct rig r;
	unsigned forged = 0;
	int small = 4096;

	rig_with(&r, &(struct virtio_net_config){.guard = &own});
	setsockopt(r.port.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	drv_start(&r.d, r.v, DEVFN, 0, 2, 256);
	for (unsigned round = 0; round < 20; round++) {
		for (unsigned i = 0; i < 50; i++) {
			put_as(&r, i, 60 + 37 * i + round, (uint8_t)(i + round), (int)i % 3, (i * 7 + round) % 5 != 0);
			forged += (i * 7 + round) % 5 == 0;
		}
		drv_kick(&r.d.q[1]);
		for (unsigned i = 0; i < 50; i++)
			if ((i * 7 + round) % 5)
				sent_own(&r, 60 + 37 * i + round, (uint8_t)(i + round));
		for (unsigned i = 0; i < 50; i++)
			g_assert_cmpuint(drv_wait(&r.d.q[1]).len, ==, 0);
	}
	virtio_net_get_stats(r.dev, &st);
	g_assert_cmpuint(st.guard_dropped, ==, forged);
	g_assert_cmpuint(st.tx_packets, ==, 20 * 50 - forged);
	rig_free(&r);
}

/* A limit of packets holds both directions back, and loses none. */
static void test_limits(void)
{
	static const struct rate_limit few = {.packets = 400}; /* and 32 at once */
	struct virtio_net_stats st;
	uint8_t bytes[128];
	struct rig r;

	rig_with(&r, &(struct virtio_net_config){.in = &few, .out = &few});
	drv_start(&r.d, r.v, DEVFN, 0, 2, 256);
	for (unsigned i = 0; i < 100; i++)
		put(&r, i, 60, (uint8_t)i, 0);
	drv_kick(&r.d.q[1]);
	for (unsigned i = 0; i < 100; i++)
		sent(&r, 60, (uint8_t)i);
	for (unsigned i = 0; i < 100; i++)
		drv_wait(&r.d.q[1]);
	give(&r, 100, SMALL);
	for (unsigned i = 0; i < 100; i++)
		write_all(r.peer, bytes, packet(bytes, 60, (uint8_t)i));
	for (unsigned i = 0; i < 100; i++)
		g_assert_cmpuint(got(&r, (uint8_t)i), ==, 60);
	virtio_net_get_stats(r.dev, &st);
	g_assert_cmpuint(st.rate_in_waits, >, 0);
	g_assert_cmpuint(st.rate_out_waits, >, 0);
	g_assert_cmpuint(st.rx_packets, ==, 100);
	g_assert_cmpuint(st.rx_bytes, ==, 6000);
	g_assert_cmpuint(st.tx_bytes, ==, 6000);
	rig_free(&r);
}

/* A chain of as many descriptors as may be, alone and among others: more than one call takes. */
static void test_tx_long_chain(void)
{
	struct vring_desc *table;
	struct rig r;

	rig_new(&r);
	drv_start(&r.d, r.v, DEVFN, VIRTIO_BIT(VIRTIO_RING_F_INDIRECT_DESC), 2, 64);
	uint64_t gpa = fake_alloc(r.v, 1024 * sizeof(*table), 4096), data = r.tx + 4096 * 8;
	uint8_t *p = fake_at(r.v, data);

	table = fake_at(r.v, gpa);
	for (unsigned i = 0; i < 1024; i++)
		table[i] = (struct vring_desc){data + 10 + 3 * i, 3, i < 1023 ? VRING_DESC_F_NEXT : 0, (uint16_t)(i + 1)};
	table[0].addr = data; /* the header and one byte more: all 1024 are needed */
	table[0].len = 13;
	for (unsigned i = 0; i < 3070; i++)
		p[12 + i] = (uint8_t)(9 + i);
	for (unsigned round = 0; round < 3; round++) {
		struct drvq *q = &r.d.q[1];

		put(&r, 0, 100, 1, 0);
		unsigned at = q->next_desc++ % q->size;

		q->desc[at] = (struct vring_desc){gpa, 1024 * sizeof(*table), VRING_DESC_F_INDIRECT, 0};
		q->avail->ring[q->avail_idx % q->size] = (uint16_t)at;
		__atomic_store_n(&q->avail->idx, ++q->avail_idx, __ATOMIC_SEQ_CST);
		put(&r, 1, 200, 2, 1);
		drv_kick(q);
		sent(&r, 100, 1);
		sent(&r, 3070, 9);
		sent(&r, 200, 2);
		for (unsigned i = 0; i < 3; i++)
			drv_wait(q);
	}
	rig_free(&r);
}

/* The socket takes a packet in parts: the other side gets them in order and whole, although the guest uses its memory again. */
static void test_tx_full(void)
{
	struct rig r;
	int room = 4096;
	unsigned done = 0;

	rig_new(&r);
	setsockopt(r.port.fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	drv_start(&r.d, r.v, DEVFN, VIRTIO_BIT(VIRTIO_RING_F_EVENT_IDX), 2, 256);
	for (unsigned i = 0; i < 80; i++)
		put(&r, i, 3000 + i, (uint8_t)i, (int)i % 3);
	drv_kick(&r.d.q[1]);
	g_usleep(20000);
	for (unsigned i = 0; i < 80; i++) {
		struct done u;

		while (drv_poll(&r.d.q[1], &u))
			memset(fake_at(r.v, r.tx + 4096 * done++), 0xee, 4096);
		sent(&r, 3000 + i, (uint8_t)i);
	}
	while (done++ < 80)
		drv_wait(&r.d.q[1]);
	rig_free(&r);
}

/* A reset in the middle of a packet does not break the row: its rest goes out first. */
static void test_tx_reset(void)
{
	struct rig r;
	uint8_t bytes[1 << 16];
	size_t n = 0, at = 0, whole = 0;
	int room = 4096;

	rig_new(&r);
	setsockopt(r.port.fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	for (unsigned round = 0; round < 3; round++) {
		drv_start(&r.d, r.v, DEVFN, 0, 2, 64);
		for (unsigned i = 0; i < 8; i++)
			put(&r, i, 3000, (uint8_t)i, 0);
		drv_kick(&r.d.q[1]);
		g_usleep(20000);
	}
	drv_start(&r.d, r.v, DEVFN, 0, 2, 64);
	put(&r, 0, 77, 5, 0); /* the last one */
	drv_kick(&r.d.q[1]);
	for (;;) {
		uint32_t len;
		ssize_t got_now = 0;

		wait_for((got_now = read(r.peer, bytes + n, sizeof(bytes) - n)) > 0);
		n += (size_t)got_now;
		for (; n - at >= 4; at += 4 + len, whole++) {
			memcpy(&len, bytes + at, 4);
			len = ntohl(len);
			if (len == 77)
				goto out;
			g_assert_cmpuint(len, ==, 3000);
			if (n - at < 4 + len)
				break;
		}
	}
out:
	g_assert_cmpuint(whole, >=, 1);
	rig_free(&r);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/net-stream/a-break-at-every-byte", test_every_split);
	g_test_add_func("/net-stream/many-of-all-sizes", test_many);
	g_test_add_func("/net-stream/no-buffers-no-reading", test_back_pressure);
	g_test_add_func("/net-stream/merged-buffers-are-waited-for", test_merge_waits);
	g_test_add_func("/net-stream/hostile-lengths-end-the-link", test_hostile_lengths);
	g_test_add_func("/net-stream/the-other-side-ends", test_other_side_ends);
	g_test_add_func("/net-stream/sent-whole-and-in-order", test_tx);
	g_test_add_func("/net-stream/the-guard", test_tx_guard);
	g_test_add_func("/net-stream/limits", test_limits);
	g_test_add_func("/net-stream/the-longest-chain", test_tx_long_chain);
	g_test_add_func("/net-stream/a-full-socket", test_tx_full);
	g_test_add_func("/net-stream/reset-in-the-middle-of-a-packet", test_tx_reset);
	return g_test_run();
}
