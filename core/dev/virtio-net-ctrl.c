/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * The control queue: receive filters, MAC address, VLANs, queue pairs, offloads. A command is checked whole before it
 * changes anything; what the backend cannot filter is filtered here, so its refusal is no error.
 */
#include "dev/virtio-net-i.h"

#define MAX_IOV 64u

struct command {
	const struct iovec *iov;
	unsigned n;
	uint64_t len; /* of the data */
	uint8_t class, cmd;
};

/* Exactly len bytes of data, or nothing. */
static int data_is(const struct command *c, void *buf, size_t len)
{
	return c->len == len && iov_to_buf(c->iov, c->n, sizeof(struct virtio_net_ctrl_hdr), buf, len) == len;
}

/* What the backend cannot filter is no failure. */
static int tell_backend(struct net *n)
{
	struct net_filter f;
	struct vh_net_filter x = {.size = sizeof(x)};
	int vlans, r;

	pthread_mutex_lock(&n->dev.lock);
	f = n->filter;
	vlans = f.vlans_on;
	pthread_mutex_unlock(&n->dev.lock);
	x.mode = (f.promisc || f.alluni || f.uni_overflow ? VH_NET_RX_PROMISC : 0) |
		 (f.allmulti || f.multi_overflow ? VH_NET_RX_ALLMULTI : 0) | (f.nomulti ? VH_NET_RX_NOMULTI : 0) |
		 (f.nouni ? VH_NET_RX_NOUNI : 0) | (f.nobcast ? VH_NET_RX_NOBCAST : 0);
	x.unicast = (const uint8_t(*)[6])f.uni;
	x.multicast = (const uint8_t(*)[6])f.multi;
	x.n_unicast = f.n_uni;
	x.n_multicast = f.n_multi;
	x.vlans = vlans ? f.vlan : NULL;
	memcpy(x.mac, f.mac, 6);
	r = net_port_set_filter(n->port, &x, NULL);
	return r == -EOPNOTSUPP ? 0 : r;
}

static int tell_port(struct net *n)
{
	int r = tell_backend(n);

	net_update_pairs(n);
	return r;
}

/* The pairs look by themselves when their queues start. */
void net_tell_filter(struct vh_task *t)
{
	tell_backend(container_of(t, struct net, tell));
}

static int rx_mode(struct net *n, const struct command *c)
{
	struct net_filter *f = &n->filter;
	uint8_t *const flag[] = {
		[VIRTIO_NET_CTRL_RX_PROMISC] = &f->promisc, [VIRTIO_NET_CTRL_RX_ALLMULTI] = &f->allmulti,
		[VIRTIO_NET_CTRL_RX_ALLUNI] = &f->alluni,   [VIRTIO_NET_CTRL_RX_NOMULTI] = &f->nomulti,
		[VIRTIO_NET_CTRL_RX_NOUNI] = &f->nouni,	    [VIRTIO_NET_CTRL_RX_NOBCAST] = &f->nobcast,
	};
	uint8_t on;

	if (c->cmd >= sizeof(flag) / sizeof(flag[0]) || !data_is(c, &on, 1))
		return -EINVAL;
	pthread_mutex_lock(&n->dev.lock);
	*flag[c->cmd] = on != 0;
	pthread_mutex_unlock(&n->dev.lock);
	tell_port(n);
	return 0;
}

/* One table: a count and as many addresses. Returns the offset behind it, or < 0. */
static int64_t mac_table(const struct command *c, uint64_t at, uint8_t table[NET_MACS][6], uint16_t *n, uint8_t *overflow)
{
	uint32_t count;

	if (c->len - at < sizeof(count) || iov_to_buf(c->iov, c->n, sizeof(struct virtio_net_ctrl_hdr) + at, &count, 4) != 4)
		return -EINVAL;
	at += sizeof(count);
	if (count > (c->len - at) / 6)
		return -EINVAL;
	*overflow = count > NET_MACS;
	*n = 0;
	if (!*overflow) {
		*n = (uint16_t)count;
		iov_to_buf(c->iov, c->n, sizeof(struct virtio_net_ctrl_hdr) + at, table, count * 6);
	}
	return (int64_t)(at + (uint64_t)count * 6);
}

static void take_mac(struct net *n, const uint8_t mac[6], uint8_t old[6])
{
	pthread_mutex_lock(&n->dev.lock);
	memcpy(old, n->filter.mac, 6);
	memcpy(n->filter.mac, mac, 6);
	memcpy(n->config.mac, mac, 6);
	pthread_mutex_unlock(&n->dev.lock);
}

static int mac_address(struct net *n, const struct command *c)
{
	uint8_t mac[6], old[6];
	int r;

	if (!data_is(c, mac, 6) || mac[0] & 1)
		return -EINVAL;
	if (n->guard.mode && memcmp(mac, n->mac, 6)) /* better told than that nothing it sends arrives */
		return -EPERM;
	take_mac(n, mac, old);
	r = tell_port(n);
	if (r < 0) { /* a backend that hears only its own address, and cannot have this one */
		take_mac(n, old, mac);
		net_update_pairs(n);
	}
	return r;
}

static int mac_command(struct net *n, const struct command *c)
{
	struct net_filter f;
	int64_t at;

	if (c->cmd == VIRTIO_NET_CTRL_MAC_ADDR_SET)
		return mac_address(n, c);
	if (c->cmd != VIRTIO_NET_CTRL_MAC_TABLE_SET)
		return -EINVAL;
	pthread_mutex_lock(&n->dev.lock);
	f = n->filter;
	pthread_mutex_unlock(&n->dev.lock);
	at = mac_table(c, 0, f.uni, &f.n_uni, &f.uni_overflow);
	if (at >= 0)
		at = mac_table(c, (uint64_t)at, f.multi, &f.n_multi, &f.multi_overflow);
	if (at < 0 || (uint64_t)at != c->len)
		return -EINVAL;
	pthread_mutex_lock(&n->dev.lock);
	n->filter = f; /* this queue alone writes it while the device runs */
	pthread_mutex_unlock(&n->dev.lock);
	tell_port(n);
	return 0;
}

static int vlan_command(struct net *n, const struct command *c)
{
	uint16_t id;

	if (c->cmd > VIRTIO_NET_CTRL_VLAN_DEL || !data_is(c, &id, 2) || id > 4095)
		return -EINVAL;
	pthread_mutex_lock(&n->dev.lock);
	if (c->cmd == VIRTIO_NET_CTRL_VLAN_ADD)
		n->filter.vlan[id / 64] |= UINT64_C(1) << (id % 64);
	else
		n->filter.vlan[id / 64] &= ~(UINT64_C(1) << (id % 64));
	pthread_mutex_unlock(&n->dev.lock);
	tell_port(n);
	return 0;
}

static int pairs_command(struct net *n, const struct command *c)
{
	uint16_t pairs;
	int r;

	if (c->cmd != VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET || !data_is(c, &pairs, 2) || !pairs || pairs > n->n_pairs)
		return -EINVAL;
	r = n->n_pairs > 1 ? net_port_set_pairs(n->port, pairs) : 0;
	if (r < 0) {
		log_warn("virtio", "%s: cannot use %u queue pairs: %s", n->label, pairs, strerror(-r));
		return r;
	}
	pthread_mutex_lock(&n->dev.lock);
	n->active = pairs;
	pthread_mutex_unlock(&n->dev.lock);
	net_update_pairs(n);
	return 0;
}

static int announce_command(struct net *n, const struct command *c)
{
	if (c->cmd != VIRTIO_NET_CTRL_ANNOUNCE_ACK || c->len)
		return -EINVAL;
	pthread_mutex_lock(&n->dev.lock);
	n->config.status &= (uint16_t)~VIRTIO_NET_S_ANNOUNCE;
	pthread_mutex_unlock(&n->dev.lock);
	return 0;
}

static int offloads_command(struct net *n, const struct command *c)
{
	uint64_t bits;

	if (c->cmd != VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET || !data_is(c, &bits, 8) || bits & ~(NET_GUEST_OFFLOADS & n->dev.acked))
		return -EINVAL;
	return net_set_offloads(n, bits);
}

static int run(struct net *n, const struct command *c)
{
	static const struct {
		uint8_t class, feature;
		int (*fn)(struct net *n, const struct command *c);
	} table[] = {
		{VIRTIO_NET_CTRL_RX, VIRTIO_NET_F_CTRL_RX, rx_mode},
		{VIRTIO_NET_CTRL_MAC, VIRTIO_NET_F_CTRL_VQ, mac_command},
		{VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_F_CTRL_VLAN, vlan_command},
		{VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_F_GUEST_ANNOUNCE, announce_command},
		{VIRTIO_NET_CTRL_MQ, VIRTIO_NET_F_MQ, pairs_command},
		{VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS, offloads_command},
	};

	for (unsigned i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (table[i].class == c->class && virtio_has(&n->dev, table[i].feature))
			return table[i].fn(n, c);
	return -EOPNOTSUPP;
}

void net_ctrl_run(struct virtio_queue *q)
{
	struct net *n = net_of(q->dev);
	struct iovec iov[MAX_IOV];
	struct vq_chain c = {.iov = iov, .cap = MAX_IOV};
	struct virtio_net_ctrl_hdr h;
	int r;

	do {
		vq_notify_off(&q->vq);
		while ((r = vq_pop(&q->vq, &c)) > 0) {
			struct command cmd = {.iov = iov, .n = c.n_out};
			uint8_t ack;

			if (c.out_len < sizeof(h) || !c.in_len) {
				r = vq_break(&q->vq, "a control command without a header or an answer");
				break;
			}
			iov_to_buf(iov, c.n_out, 0, &h, sizeof(h));
			cmd.class = h.class;
			cmd.cmd = h.cmd;
			cmd.len = c.out_len - sizeof(h);
			ack = run(n, &cmd) < 0 ? VIRTIO_NET_ERR : VIRTIO_NET_OK;
			iov_from_buf(iov + c.n_out, c.n_in, 0, &ack, 1);
			vq_push(&q->vq, c.head, 1);
		}
		if (r < 0) {
			virtio_queue_broken(q);
			return;
		}
	} while (vq_notify_on(&q->vq));
	virtio_queue_flush(q);
}
