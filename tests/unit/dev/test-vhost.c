/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* virtio-net with rings that the kernel serves: this test is the kernel. */
#include <fcntl.h>
#include <glib.h>
#include <poll.h>
#define virtio_net_config virtio_net_space
#include <linux/virtio_net.h>
#undef virtio_net_config
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "dev/vhost-net.h"
#include "driver.h"
#include "net/port.h"
#include "net/rate.h"

#define DEVFN (1 << 3)
#define PAIRS 2

struct net_port {
	struct vh_net_info info;
	int fd[PAIRS];
};
const struct vh_net_info *net_port_info(const struct net_port *p) { return &p->info; }
int net_port_fd(const struct net_port *p, unsigned pair) { return p->fd[pair]; }
int net_port_set_offload(struct net_port *p, uint64_t offload) { (void)p; (void)offload; return 0; }
int net_port_set_pairs(struct net_port *p, unsigned active) { (void)p; (void)active; return 0; }
void net_port_lost(struct net_port *p) { (void)p; }
int net_port_set_filter(struct net_port *p, const struct vh_net_filter *f, struct vh_err *e)
{
	(void)p;
	(void)f;
	(void)e;
	return -EOPNOTSUPP;
}

/* The kernel's side: what it was told. All atomic. */
struct ring {
	int started, kick, call, err, backend;
	unsigned base, size;
};
static struct {
	int fd;
	uint64_t features;
	struct ring ring[2];
} kernel[PAIRS];
static int kernel_opened, kernel_open_error, kernel_refuses;

static struct ring *ring_of(int fd, unsigned ring)
{
	for (unsigned i = 0; i < PAIRS; i++)
		if (kernel[i].fd == fd)
			return &kernel[i].ring[ring];
	g_assert_not_reached();
}

#define SET(x, v) __atomic_store_n(&(x), v, __ATOMIC_SEQ_CST)
#define GET(x) __atomic_load_n(&(x), __ATOMIC_SEQ_CST)

int vhost_net_open(const struct mem *m, int *fd, struct vh_err *e)
{
	(void)e;
	g_assert_cmpuint(m->n, >, 0);
	*fd = -1;
	if (kernel_open_error)
		return kernel_open_error;
	*fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	kernel[kernel_opened++].fd = *fd;
	return 0;
}
int vhost_net_features(int fd, uint64_t acked)
{
	for (unsigned i = 0; i < PAIRS; i++)
		if (kernel[i].fd == fd)
			kernel[i].features = acked;
	return 0;
}
int vhost_net_start(int fd, unsigned ring, const struct virtqueue *vq, int kick, int call, int err)
{
	struct ring *r = ring_of(fd, ring);

	g_assert_false(r->started);
	r->size = vq->size;
	r->base = vq->last_avail;
	r->kick = kick;
	r->err = err;
	SET(r->call, call);
	SET(r->backend, -1);
	SET(r->started, 1);
	return 0;
}
int vhost_net_call(int fd, unsigned ring, int call)
{
	SET(ring_of(fd, ring)->call, call);
	return 0;
}
int vhost_net_backend(int fd, unsigned ring, int tap)
{
	if (kernel_refuses && tap >= 0)
		return -kernel_refuses;
	SET(ring_of(fd, ring)->backend, tap);
	return 0;
}
int vhost_net_stop(int fd, unsigned ring, uint16_t *last_avail)
{
	struct ring *r = ring_of(fd, ring);

	if (last_avail)
		*last_avail = (uint16_t)r->base;
	SET(r->backend, -1);
	SET(r->started, 0);
	return 0;
}

struct rig {
	struct vm *v;
	struct pci_host *h;
	struct vh_loop *loop;
	struct net_port port;
	int peer[PAIRS];
	struct virtio_dev *dev;
	struct drv d;
	uint64_t buf;
};

static int rig_try(struct rig *r, unsigned pairs, int vhost, const struct rate_limit *in)
{
	struct virtio_net_config c = {.port = &r->port, .pairs = pairs, .mac = {2, 0, 0, 0, 0, 1}, .loops = &r->loop, .n_loops = 1,
				      .label = "test nic", .in = in, .vhost = vhost};

	memset(r, 0, sizeof(*r));
	memset(kernel, 0, sizeof(kernel));
	kernel_opened = 0;
	r->v = fake_vm(16 << 20, 36);
	g_assert_cmpint(pci_host_new(r->v, &r->h, NULL), ==, 0);
	g_assert_cmpint(loop_new("test", &r->loop, NULL), ==, 0);
	g_assert_cmpint(loop_start(r->loop, NULL), ==, 0);
	r->port.info.path = VH_NET_PATH_TAP;
	for (unsigned i = 0; i < pairs; i++) {
		int s[2];

		g_assert_cmpint(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, s), ==, 0);
		r->port.fd[i] = s[0];
		r->peer[i] = s[1];
	}
	r->buf = fake_alloc(r->v, 64 * 4096, 4096);
	return virtio_net_new(r->v, r->h, &c, &r->dev, NULL);
}

static void rig_new(struct rig *r, unsigned pairs, int vhost)
{
	g_assert_cmpint(rig_try(r, pairs, vhost, NULL), ==, 0);
}

static void rig_free(struct rig *r)
{
	if (r->dev)
		virtio_free(r->dev);
	loop_stop(r->loop);
	loop_free(r->loop);
	for (unsigned i = 0; i < PAIRS; i++)
		if (r->peer[i]) {
			close(r->peer[i]);
			close(r->port.fd[i]);
		}
	pci_host_free(r->h);
	fake_vm_free(r->v);
}

static unsigned kernel_queues(struct rig *r)
{
	struct virtio_net_stats st;

	virtio_net_get_stats(r->dev, &st);
	return (unsigned)st.kernel_queues;
}

static int readable(int fd)
{
	struct pollfd p = {fd, POLLIN, 0};

	return poll(&p, 1, 0) == 1;
}

static void put(struct rig *r, unsigned q, unsigned i, uint32_t len, int in)
{
	struct buf b[1] = {{r->buf + 4096 * i, len, in}};
	uint8_t *p = fake_at(r->v, b[0].gpa);

	memset(p, 0, 12);
	memset(p + 12, (int)i + 1, len - 12);
	drv_put(&r->d.q[q], b, 1);
}

/* As the kernel would: one more entry of the ring is done with. */
static void serve(struct rig *r, unsigned pair, unsigned dir, uint32_t len)
{
	struct drvq *q = &r->d.q[2 * pair + dir];
	struct ring *k = &kernel[pair].ring[dir];
	uint16_t used = GET(q->used->idx), head = q->avail->ring[k->base % q->size];

	q->used->ring[used % q->size].id = head;
	q->used->ring[used % q->size].len = len;
	SET(q->used->idx, (uint16_t)(used + 1));
	k->base = (uint16_t)(k->base + 1);
}

static void test_served(void)
{
	struct rig r;
	struct ring *rx = &kernel[0].ring[0], *tx = &kernel[0].ring[1];
	uint8_t frame[200] = {0};

	rig_new(&r, 1, VIRTIO_NET_VHOST_AUTO);
	g_assert_cmpint(kernel_opened, ==, 1);
	drv_start(&r.d, r.v, DEVFN, VIRTIO_BIT(VIRTIO_NET_F_MRG_RXBUF) | VIRTIO_BIT(VIRTIO_RING_F_EVENT_IDX), 2, 64);
	wait_for(GET(rx->backend) == r.port.fd[0] && GET(tx->backend) == r.port.fd[0]);
	g_assert_cmpuint(kernel_queues(&r), ==, 2);
	g_assert_cmpuint(rx->size, ==, 64);
	g_assert_true(kernel[0].features & VIRTIO_BIT(VIRTIO_NET_F_MRG_RXBUF) && kernel[0].features & VIRTIO_BIT(VIRTIO_F_VERSION_1));
	/* The vectors' own eventfds, and doorbells that nobody here looks at. */
	g_assert_cmpint(GET(rx->call), ==, r.dev->pci.msix[1].msi->fd);
	g_assert_cmpint(GET(tx->call), ==, r.dev->pci.msix[2].msi->fd);
	g_assert_true(readable(rx->kick) && readable(tx->kick)); /* it was rung for them */
	put(&r, 1, 0, 100, 0);
	drv_kick(&r.d.q[1]);
	put(&r, 0, 1, 200, 1);
	drv_kick(&r.d.q[0]);
	g_assert_cmpint(write(r.peer[0], frame, 100), ==, 100);
	g_usleep(10000);
	g_assert_cmpint(read(r.peer[0], frame, 200), ==, -1);
	struct done u;
	g_assert_cmpint(drv_poll(&r.d.q[0], &u), ==, 0);
	g_assert_cmpint(drv_poll(&r.d.q[1], &u), ==, 0);
	/* A masked vector: KVM must not deliver what the kernel signals. */
	unsigned sets = r.dev->pci.msix[1].msi->sets;
	mmio_set(r.v, r.d.bar + r.d.msix_table + 16 + 12, 1, 4);
	g_assert_cmpuint(r.dev->pci.msix[1].msi->sets, ==, sets + 1);
	g_assert_cmpuint(r.dev->pci.msix[1].msi->addr, ==, 0);
	mmio_set(r.v, r.d.bar + r.d.msix_table + 16 + 12, 0, 4);
	g_assert_cmphex(r.dev->pci.msix[1].msi->addr, ==, 0xfee00000);
	g_assert_cmphex(r.dev->pci.msix[1].msi->data, ==, 0x41);
	/* Another vector while it runs, and none. */
	drv_set(&r.d, VIRTIO_PCI_COMMON_Q_SELECT, 0, 2);
	drv_set(&r.d, VIRTIO_PCI_COMMON_Q_MSIX, 2, 2);
	wait_for(GET(rx->call) == r.dev->pci.msix[2].msi->fd);
	drv_set(&r.d, VIRTIO_PCI_COMMON_Q_MSIX, VIRTIO_NO_VECTOR, 2);
	wait_for(GET(rx->call) != r.dev->pci.msix[2].msi->fd);
	/* The link goes down and up. */
	virtio_net_set_link(r.dev, 0);
	wait_for(GET(rx->backend) == -1 && GET(tx->backend) == -1);
	virtio_net_set_link(r.dev, 1);
	wait_for(GET(rx->backend) == r.port.fd[0] && GET(tx->backend) == r.port.fd[0]);
	/* A broken ring. */
	uint64_t one = 1;
	g_assert_cmpint(write(rx->err, &one, 8), ==, 8);
	wait_for(drv_get(&r.d, VIRTIO_PCI_COMMON_STATUS, 1) & VIRTIO_CONFIG_S_NEEDS_RESET);
	drv_reset(&r.d);
	g_assert_false(GET(rx->started) || GET(tx->started));
	g_assert_cmpuint(kernel_queues(&r), ==, 0);
	for (unsigned i = 0; i < 20; i++) { /* again and again, also before the last one has begun */
		drv_start(&r.d, r.v, DEVFN, VIRTIO_BIT(VIRTIO_NET_F_MRG_RXBUF), 2, 64);
		if (i & 1)
			wait_for(GET(rx->backend) == r.port.fd[0]);
	}
	rig_free(&r);
	g_assert_false(GET(rx->started) || GET(tx->started));
}

/* Without MSI-X the signal comes to us, and the line is raised. */
static void test_intx(void)
{
	struct rig r;
	struct ring *rx = &kernel[0].ring[0];
	uint64_t one = 1;

	rig_new(&r, 1, VIRTIO_NET_VHOST_ON);
	drv_probe(&r.d, r.v, DEVFN);
	drv_negotiate(&r.d, 0);
	drv_queue(&r.d, 0, 64);
	drv_queue(&r.d, 1, 64);
	drv_ok(&r.d);
	wait_for(GET(rx->backend) == r.port.fd[0]);
	g_assert_cmpuint(mmio_get(r.v, r.d.isr, 1), ==, 0);
	g_assert_cmpint(write(GET(rx->call), &one, 8), ==, 8);
	wait_for(GET(r.v->line[pci_intx_gsi(DEVFN >> 3, 0)]));
	g_assert_cmpuint(mmio_get(r.v, r.d.isr, 1), ==, 1);
	g_assert_false(GET(r.v->line[pci_intx_gsi(DEVFN >> 3, 0)]));
	g_assert_false(readable(GET(rx->call)));
	rig_free(&r);
}

/* Pairs are served as they are used. */
static void test_pairs(void)
{
	struct rig r;
	uint16_t two = 2;
	uint8_t *p;
	struct buf b[3];

	rig_new(&r, 2, VIRTIO_NET_VHOST_AUTO);
	drv_start(&r.d, r.v, DEVFN, VIRTIO_BIT(VIRTIO_NET_F_CTRL_VQ) | VIRTIO_BIT(VIRTIO_NET_F_MQ), 5, 64);
	wait_for(GET(kernel[0].ring[1].backend) == r.port.fd[0]);
	wait_for(kernel_queues(&r) == 4);
	g_assert_cmpint(GET(kernel[1].ring[0].backend), ==, -1);
	p = fake_at(r.v, r.buf);
	p[0] = VIRTIO_NET_CTRL_MQ;
	p[1] = VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET;
	memcpy(p + 2, &two, 2);
	p[4] = 0xee;
	b[0] = (struct buf){r.buf, 2, 0};
	b[1] = (struct buf){r.buf + 2, 2, 0};
	b[2] = (struct buf){r.buf + 4, 1, 1};
	drv_put(&r.d.q[4], b, 3);
	drv_kick(&r.d.q[4]);
	drv_wait(&r.d.q[4]);
	g_assert_cmpuint(p[4], ==, 0);
	wait_for(GET(kernel[1].ring[0].backend) == r.port.fd[1] && GET(kernel[1].ring[1].backend) == r.port.fd[1]);
	rig_free(&r);
}

/* A limit comes: the rings are taken back where the kernel stopped, and nothing is sent twice or forgotten. */
static void test_taken_back(void)
{
	struct rate_limit l = {.bytes = 1 << 30};
	struct rig r;
	uint8_t got[300];

	rig_new(&r, 1, VIRTIO_NET_VHOST_AUTO);
	drv_start(&r.d, r.v, DEVFN, VIRTIO_BIT(VIRTIO_RING_F_EVENT_IDX), 2, 64);
	wait_for(GET(kernel[0].ring[0].backend) == r.port.fd[0] && GET(kernel[0].ring[1].backend) == r.port.fd[0]);
	for (unsigned i = 0; i < 8; i++) {
		put(&r, 1, i, 100, 0);
		put(&r, 0, 10 + i, 300, 1);
	}
	for (unsigned i = 0; i < 5; i++) {
		serve(&r, 0, 1, 0);
		serve(&r, 0, 0, 60);
	}
	virtio_net_set_rates(r.dev, &l, NULL);
	for (unsigned i = 5; i < 8; i++) {
		wait_for(read(r.peer[0], got, sizeof(got)) == 100);
		g_assert_cmpuint(got[50], ==, i + 1);
	}
	g_assert_cmpint(write(r.peer[0], got, 80), ==, 80);
	for (unsigned i = 0; i < 8; i++)
		g_assert_cmpuint(drv_wait(&r.d.q[1]).len, ==, 0);
	for (unsigned i = 0; i < 6; i++)
		g_assert_cmpuint(drv_wait(&r.d.q[0]).len, ==, i < 5 ? 60 : 80);
	g_assert_cmpuint(kernel_queues(&r), ==, 0);
	g_assert_false(GET(kernel[0].ring[0].started));
	put(&r, 1, 20, 100, 0);
	drv_kick(&r.d.q[1]); /* and our doorbell is looked at again */
	wait_for(read(r.peer[0], got, sizeof(got)) == 100);
	/* While there is a limit the next driver's rings are ours, too; and afterwards the kernel's again. */
	drv_start(&r.d, r.v, DEVFN, 0, 2, 64);
	put(&r, 1, 21, 100, 0);
	drv_kick(&r.d.q[1]);
	wait_for(read(r.peer[0], got, sizeof(got)) == 100);
	g_assert_cmpuint(kernel_queues(&r), ==, 0);
	l.bytes = 0;
	virtio_net_set_rates(r.dev, &l, NULL);
	drv_start(&r.d, r.v, DEVFN, 0, 2, 64);
	wait_for(kernel_queues(&r) == 2);
	rig_free(&r);
}

/* What the kernel will not do is done here; unless it was asked for. */
static void test_refused(void)
{
	struct rate_limit l = {.bytes = 1 << 30};
	struct rig r;
	uint8_t got[300];

	kernel_refuses = ENOTSOCK;
	rig_new(&r, 1, VIRTIO_NET_VHOST_ON);
	drv_start(&r.d, r.v, DEVFN, 0, 2, 64);
	put(&r, 1, 1, 100, 0);
	drv_kick(&r.d.q[1]);
	wait_for(read(r.peer[0], got, sizeof(got)) == 100);
	wait_for(kernel_queues(&r) == 0);
	drv_wait(&r.d.q[1]);
	rig_free(&r);
	kernel_refuses = 0;
	kernel_open_error = -EACCES;
	rig_new(&r, 1, VIRTIO_NET_VHOST_AUTO);
	drv_start(&r.d, r.v, DEVFN, 0, 2, 64);
	put(&r, 1, 1, 100, 0);
	drv_kick(&r.d.q[1]);
	wait_for(read(r.peer[0], got, sizeof(got)) == 100);
	rig_free(&r);
	g_assert_cmpint(rig_try(&r, 1, VIRTIO_NET_VHOST_ON, NULL), ==, -EACCES);
	rig_free(&r);
	kernel_open_error = 0;
	rig_new(&r, 1, VIRTIO_NET_VHOST_OFF);
	g_assert_cmpint(kernel_opened, ==, 0);
	rig_free(&r);
	g_assert_cmpint(rig_try(&r, 1, VIRTIO_NET_VHOST_AUTO, &l), ==, 0);
	drv_start(&r.d, r.v, DEVFN, 0, 2, 64);
	g_usleep(5000);
	g_assert_cmpuint(kernel_queues(&r), ==, 0);
	rig_free(&r);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/vhost/served", test_served);
	g_test_add_func("/vhost/intx", test_intx);
	g_test_add_func("/vhost/pairs", test_pairs);
	g_test_add_func("/vhost/taken-back", test_taken_back);
	g_test_add_func("/vhost/refused", test_refused);
	return g_test_run();
}
