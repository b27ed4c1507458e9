/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "fuzz-virtio.h"
#include "net/guard.h"
#include "net/port.h"
#include "net/rate.h"

/* The port: socket pairs in place of taps. */
struct net_port {
	struct vh_net_info info;
	int fd[2], peer[2];
};
static struct net_port port;

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
	return offload & ~p->info.offload ? -EINVAL : 0;
}
int net_port_set_pairs(struct net_port *p, unsigned active)
{
	(void)p;
	if (!active || active > 2)
		abort();
	return 0;
}
void net_port_lost(struct net_port *p)
{
}

int net_port_set_filter(struct net_port *p, const struct vh_net_filter *f, struct vh_err *e)
{
	uint8_t sum = 0;

	(void)p;
	(void)e;
	for (unsigned i = 0; i < f->n_unicast; i++)
		sum ^= f->unicast[i][5];
	for (unsigned i = 0; i < f->n_multicast; i++)
		sum ^= f->multicast[i][5];
	return sum & 1 ? -EOPNOTSUPP : 0;
}

struct virtio_dev *fuzz_device(struct vm *v, struct pci_host *h, struct vh_loop *l)
{
	struct virtio_net_config c = {.port = &port, .pairs = 2, .mac = {2, 0, 0, 0, 0, 1}, .mtu = 1500, .loops = &l, .n_loops = 1};
	struct virtio_dev *d;
#ifdef FUZZ_GUARD
	/* Memory that nobody wrote to is a frame that passes. */
	static const struct guard guard = {.mode = GUARD_MAC, .tags = 1};
	static const struct rate_limit limit = {.bytes = 1000000, .burst = 1000, .packets = 10000};

	memset(c.mac, 0, 6);
	c.guard = &guard;
	c.in = c.out = &limit;
#endif

	port.info.offload = VH_NET_CSUM | VH_NET_TSO4 | VH_NET_TSO6 | VH_NET_ECN;
	for (int i = 0; i < 2; i++) {
		int s[2];

		if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, s))
			abort();
		port.fd[i] = s[0];
		port.peer[i] = s[1];
	}
	if (virtio_net_new(v, h, &c, &d, NULL))
		abort();
	return d;
}

void fuzz_device_gone(void)
{
	for (int i = 0; i < 2; i++) {
		close(port.fd[i]);
		close(port.peer[i]);
	}
}

/* A packet comes in, or those that went out are fetched. */
void fuzz_input(const uint8_t **p, size_t *left)
{
	static uint8_t buf[40000];
	uint8_t x = *left ? **p : 0;
	size_t n = *left < 60 ? *left : 60;

	memset(buf, x, 100);
	memcpy(buf + 12, *p, n);
	memset(buf, 0, 12);
	if (x & 1) {
		while (read(port.peer[0], buf, sizeof(buf)) > 0 || read(port.peer[1], buf, sizeof(buf)) > 0)
			;
	} else if (write(port.peer[x >> 1 & 1], buf, x & 4 ? (size_t)x * 150 : x) < 0) {
		n = 0;
	}
	*p += n;
	*left -= n;
}
