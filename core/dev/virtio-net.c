/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* virtio-net over a port's tap fds: features, configuration, queues on their loops. */
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include "dev/virtio-net-i.h"

static struct net_pair *pair_of(struct virtio_queue *q)
{
	struct net *n = net_of(q->dev);

	return q->index == net_ctrl_index(n) || q->index >= 2 * n->n_pairs ? NULL : &n->pair[q->index / 2];
}

static void net_queue_start(struct virtio_queue *q)
{
	struct net_pair *p = pair_of(q);

	if (!p || net_vhost_start(p, q->index & 1 ? NET_OUT : NET_IN))
		return;
	if (q->index & 1)
		net_tx_start(p);
	else
		net_rx_start(p);
}

static void net_queue_stop(struct virtio_queue *q)
{
	struct net_pair *p = pair_of(q);

	if (!p || net_vhost_stop(p, q->index & 1 ? NET_OUT : NET_IN))
		return;
	if (q->index & 1)
		net_tx_stop(p);
	else
		net_rx_stop(p);
}

/* [any], lock held */
static void net_vector(struct virtio_queue *q)
{
	struct net_pair *p = pair_of(q);

	if (p)
		loop_post(p->loop, &p->update);
}

static void net_notify(struct virtio_queue *q)
{
	struct net_pair *p = pair_of(q);

	if (!p)
		net_ctrl_run(q);
	else if (q->index & 1)
		net_tx_run(p);
	else
		net_rx_buffers(p);
}

static int net_poll(struct virtio_queue *q)
{
	struct net_pair *p = pair_of(q);

	if (!p) {
		if (!vq_pending(&q->vq))
			return 0;
		net_ctrl_run(q);
		return 1;
	}
	if (q->index & 1)
		return vq_pending(&q->vq) ? net_tx_run(p) : 0;
	if (p->starved) {
		if (!vq_pending(&q->vq))
			return 0;
		net_rx_buffers(p);
		return 1;
	}
	return p->rx_hot ? net_rx_run(p) : 0;
}

int net_set_offloads(struct net *n, uint64_t guest)
{
	uint64_t x = 0;

	/* Nothing goes without checksums, whatever the driver took. */
	if (!(guest & VIRTIO_BIT(VIRTIO_NET_F_GUEST_CSUM)))
		return net_port_set_offload(n->port, 0);
	x |= VH_NET_CSUM;
	if (guest & VIRTIO_BIT(VIRTIO_NET_F_GUEST_TSO4))
		x |= VH_NET_TSO4;
	if (guest & VIRTIO_BIT(VIRTIO_NET_F_GUEST_TSO6))
		x |= VH_NET_TSO6;
	if (guest & VIRTIO_BIT(VIRTIO_NET_F_GUEST_ECN))
		x |= VH_NET_ECN;
	if (guest & VIRTIO_BIT(VIRTIO_NET_F_GUEST_UFO))
		x |= VH_NET_UFO;
	/* The kernel's taps take both or neither. */
	if (guest & VIRTIO_BIT(VIRTIO_NET_F_GUEST_USO4) && guest & VIRTIO_BIT(VIRTIO_NET_F_GUEST_USO6))
		x |= VH_NET_USO;
	return net_port_set_offload(n->port, x);
}

/* [vcpu], lock held */
static int net_start(struct virtio_dev *d)
{
	struct net *n = net_of(d);
	int r;

	n->filter.vlans_on = virtio_has(d, VIRTIO_NET_F_CTRL_VLAN);
	net_vhost_negotiated(n);
	/* What the driver before wanted is forgotten. */
	loop_post(n->loop, &n->tell);
	r = net_set_offloads(n, d->acked);
	if (r >= 0 && n->n_pairs > 1)
		r = net_port_set_pairs(n->port, 1);
	return r;
}

static void net_reset(struct virtio_dev *d)
{
	struct net *n = net_of(d);

	memset(&n->filter, 0, sizeof(n->filter));
	memcpy(n->filter.mac, n->mac, 6);
	memcpy(n->config.mac, n->mac, 6);
	n->filter.promisc = 1; /* until the driver says what it wants */
	n->config.status = n->link ? VIRTIO_NET_S_LINK_UP : 0;
	n->active = 1;
}

static void net_config_read(struct virtio_dev *d, unsigned off, void *data, unsigned len)
{
	memcpy(data, (const uint8_t *)&net_of(d)->config + off, len);
}

void virtio_net_set_link(struct virtio_dev *d, int up)
{
	struct net *n = net_of(d);

	pthread_mutex_lock(&d->lock);
	n->link = up != 0;
	n->config.status = (uint16_t)((n->config.status & ~VIRTIO_NET_S_LINK_UP) | (up ? VIRTIO_NET_S_LINK_UP : 0));
	if (up && virtio_has(d, VIRTIO_NET_F_GUEST_ANNOUNCE))
		n->config.status |= VIRTIO_NET_S_ANNOUNCE;
	pthread_mutex_unlock(&d->lock);
	net_update_pairs(n);
	virtio_notify_config(d);
}

void virtio_net_announce(struct virtio_dev *d)
{
	struct net *n = net_of(d);
	int guest, live;

	pthread_mutex_lock(&d->lock);
	live = n->link && d->status & VIRTIO_CONFIG_S_DRIVER_OK && !d->resetting;
	guest = virtio_has(d, VIRTIO_NET_F_GUEST_ANNOUNCE);
	if (live && guest)
		n->config.status |= VIRTIO_NET_S_ANNOUNCE;
	pthread_mutex_unlock(&d->lock);
	if (live && guest)
		virtio_notify_config(d);
	else if (live && net_port_info(n->port)->path == VH_NET_PATH_TAP)
		loop_post(n->pair[0].loop, &n->pair[0].announce);
}

static void forget_update(void *ctx)
{
	struct net_pair *p = ctx;

	loop_cancel(p->loop, &p->update);
	loop_cancel(p->loop, &p->announce);
}

static void forget_tell(void *ctx)
{
	struct net *n = ctx;

	loop_cancel(n->loop, &n->tell);
}

static void net_free(struct virtio_dev *d)
{
	struct net *n = net_of(d);

	virtio_pci_exit(d);
	if (n->loop)
		loop_call(n->loop, forget_tell, n);
	for (unsigned i = 0; n->pair && i < n->n_pairs; i++) {
		struct net_pair *p = &n->pair[i];

		if (p->loop)
			loop_call(p->loop, forget_update, p);
		free(p->iov);
		free(p->tx_iov);
		free(p->scratch);
		net_stream_free(p);
	}
	net_limit_free(n);
	net_vhost_free(n);
	virtio_queues_free(d);
	free(n->pair);
	free(n->label);
	free(n);
}

static const struct virtio_ops net_ops = {
	.name = "net",
	.id = VIRTIO_ID_NET,
	.pci_class = {2, 0, 0},
	.config_read = net_config_read,
	.start = net_start,
	.reset = net_reset,
	.queue_start = net_queue_start,
	.queue_stop = net_queue_stop,
	.queue_notify = net_notify,
	.queue_vector = net_vector,
	.queue_poll = net_poll,
	.free = net_free,
};

static uint64_t net_features(const struct net *n, uint64_t offload)
{
	uint64_t f = VIRTIO_BIT(VIRTIO_NET_F_MAC) | VIRTIO_BIT(VIRTIO_NET_F_STATUS) | VIRTIO_BIT(VIRTIO_NET_F_MRG_RXBUF) |
		     VIRTIO_BIT(VIRTIO_NET_F_CTRL_VQ) | VIRTIO_BIT(VIRTIO_NET_F_CTRL_RX) | VIRTIO_BIT(VIRTIO_NET_F_CTRL_RX_EXTRA) |
		     VIRTIO_BIT(VIRTIO_NET_F_CTRL_VLAN) | VIRTIO_BIT(VIRTIO_NET_F_CTRL_MAC_ADDR) |
		     VIRTIO_BIT(VIRTIO_NET_F_GUEST_ANNOUNCE);

	if (n->n_pairs > 1)
		f |= VIRTIO_BIT(VIRTIO_NET_F_MQ);
	if (n->config.mtu)
		f |= VIRTIO_BIT(VIRTIO_NET_F_MTU);
	if (!(offload & VH_NET_CSUM))
		return f;
	f |= VIRTIO_BIT(VIRTIO_NET_F_CSUM) | VIRTIO_BIT(VIRTIO_NET_F_GUEST_CSUM) | VIRTIO_BIT(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS);
	if (offload & VH_NET_TSO4)
		f |= VIRTIO_BIT(VIRTIO_NET_F_HOST_TSO4) | VIRTIO_BIT(VIRTIO_NET_F_GUEST_TSO4);
	if (offload & VH_NET_TSO6)
		f |= VIRTIO_BIT(VIRTIO_NET_F_HOST_TSO6) | VIRTIO_BIT(VIRTIO_NET_F_GUEST_TSO6);
	if (offload & VH_NET_ECN)
		f |= VIRTIO_BIT(VIRTIO_NET_F_HOST_ECN) | VIRTIO_BIT(VIRTIO_NET_F_GUEST_ECN);
	if (offload & VH_NET_UFO)
		f |= VIRTIO_BIT(VIRTIO_NET_F_HOST_UFO) | VIRTIO_BIT(VIRTIO_NET_F_GUEST_UFO);
	if (offload & VH_NET_USO)
		f |= VIRTIO_BIT(VIRTIO_NET_F_HOST_USO) | VIRTIO_BIT(VIRTIO_NET_F_GUEST_USO4) | VIRTIO_BIT(VIRTIO_NET_F_GUEST_USO6);
	return f;
}

static int make_pair(struct net *n, unsigned i, struct vh_loop *l, struct vh_err *e)
{
	struct net_pair *p = &n->pair[i];

	p->net = n;
	p->index = i;
	p->loop = l;
	p->rx = &n->dev.queue[2 * i];
	p->tx = &n->dev.queue[2 * i + 1];
	p->rx->loop = p->tx->loop = l;
	p->update.fn = net_pair_update;
	p->announce.fn = net_announce;
	p->fd = net_port_fd(n->port, i);
	p->iov = calloc(NET_RX_IOV + 1, sizeof(*p->iov));
	p->tx_iov = calloc(NET_TX_IOV, sizeof(*p->tx_iov));
	p->scratch = calloc(1, NET_SCRATCH); /* pages that no packet needs are never touched */
	if (p->fd < 0)
		return err_set(e, p->fd, "the port has no queue pair %u", i);
	if (!p->iov || !p->tx_iov || !p->scratch ||
	    (net_port_info(n->port)->path == VH_NET_PATH_STREAM && net_stream_new(p) < 0))
		return err_set(e, -ENOMEM, "no memory for a queue pair");
	return 0;
}

int virtio_net_new(struct vm *v, struct pci_host *h, const struct virtio_net_config *c, struct virtio_dev **out,
		   struct vh_err *e)
{
	const struct vh_net_info *info = net_port_info(c->port);
	struct net *n = calloc(1, sizeof(*n));
	struct virtio_dev *d;
	int r;

	if (!n)
		return err_set(e, -ENOMEM, "no memory for a network device");
	d = &n->dev;
	n->port = c->port;
	n->loop = c->loops[0];
	n->tell.fn = net_tell_filter;
	n->n_pairs = c->pairs ? c->pairs : 1;
	n->link = 1;
	n->label = strdup(c->label ? c->label : "net");
	n->pair = calloc(n->n_pairs, sizeof(*n->pair));
	memcpy(n->mac, c->mac, 6);
	n->config.max_virtqueue_pairs = (uint16_t)n->n_pairs;
	n->config.mtu = c->mtu;
	d->ops = &net_ops;
	d->vm = v;
	d->label = n->label;
	d->n_queues = 2 * n->n_pairs + 1;
	d->max_queue_size = NET_QUEUE_SIZE;
	d->config_size = offsetof(struct virtio_net_space, speed);
	d->features = net_features(n, info->offload);
	rate_init(&n->rate[NET_IN]);
	rate_init(&n->rate[NET_OUT]);
	if (!n->label || !n->pair)
		r = err_set(e, -ENOMEM, "no memory for a network device");
	else
		r = virtio_queues_new(d, e);
	for (unsigned i = 0; !r && i < n->n_pairs; i++)
		r = make_pair(n, i, c->loops[i % c->n_loops], e);
	if (!r)
		r = net_limit_new(n, c, e);
	if (!r)
		r = net_vhost_new(n, c, e);
	if (!r) {
		d->queue[2 * n->n_pairs].loop = c->loops[0];
		r = virtio_pci_init(d, h, e);
	}
	if (r) {
		net_free(d);
		return r;
	}
	*out = d;
	return 0;
}
