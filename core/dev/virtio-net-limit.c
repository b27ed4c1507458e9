/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * What a NIC may do: the guard over what is sent, limits of both directions, and what is counted. A limit that is used up holds
 * a direction until its timer: what is sent stays in the ring, so the guest feels it, and what is received stays in the tap,
 * whose queue drops what is too much.
 */
#include <time.h>
#include <unistd.h>
#include "dev/virtio-net-i.h"

#define COMPLAIN_NS UINT64_C(10000000000)
#define JUDGED (NET_HEADER + GUARD_MOST)

/* The loops' clock, from outside of them. */
static uint64_t mono(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int net_limit_new(struct net *n, const struct virtio_net_config *c, struct vh_err *e)
{
	if (c->guard)
		n->guard = *c->guard;
	memcpy(n->guard.mac, n->mac, 6);
	for (unsigned i = 0; n->guard.mode && i < n->n_pairs; i++) {
		n->pair[i].judged = malloc(NET_TX_BATCH * JUDGED);
		if (!n->pair[i].judged)
			return err_set(e, -ENOMEM, "no memory for a guard");
	}
	if (c->in)
		rate_set(&n->rate[NET_IN], c->in, mono());
	if (c->out)
		rate_set(&n->rate[NET_OUT], c->out, mono());
	return 0;
}

void net_limit_free(struct net *n)
{
	for (unsigned i = 0; n->pair && i < n->n_pairs; i++)
		free(n->pair[i].judged);
	rate_free(&n->rate[NET_IN]);
	rate_free(&n->rate[NET_OUT]);
}

void virtio_net_set_rates(struct virtio_dev *d, const struct rate_limit *in, const struct rate_limit *out)
{
	struct net *n = net_of(d);

	if (in)
		rate_set(&n->rate[NET_IN], in, mono());
	if (out)
		rate_set(&n->rate[NET_OUT], out, mono());
	if ((in && rate_limits(in)) || (out && rate_limits(out)))
		__atomic_store_n(&n->kernel, 0, __ATOMIC_RELAXED);
	net_update_pairs(n);
}

static void go_on_in(void *ctx)
{
	struct net_pair *p = ctx;

	p->held[NET_IN] = 0;
	net_watch(p);
	if (p->rx_on)
		net_rx_run(p);
}

static void go_on_out(void *ctx)
{
	struct net_pair *p = ctx;

	p->held[NET_OUT] = 0;
	p->tx->quiet = p->blocked;
	if (p->tx_on)
		net_tx_run(p);
}

int net_hold(struct net_pair *p, int dir)
{
	uint64_t now = loop_now(p->loop), wait = rate_wait(&p->net->rate[dir], now);

	if (!wait)
		return 0;
	if (!p->timer[dir] && loop_timer(p->loop, dir == NET_IN ? go_on_in : go_on_out, p, &p->timer[dir])) {
		p->timer[dir] = NULL;
		return 0; /* no memory: better too fast than never again */
	}
	p->held[dir] = 1;
	loop_timer_at(p->timer[dir], now + wait);
	if (dir == NET_IN)
		net_watch(p);
	else
		p->tx->quiet = 1;
	return 1;
}

void net_release(struct net_pair *p, int dir)
{
	p->held[dir] = 0;
	if (p->timer[dir])
		loop_timer_free(p->timer[dir]);
	p->timer[dir] = NULL;
}

static void complain(struct net_pair *p, enum guard_verdict v)
{
	struct net *n = p->net;
	uint64_t now = loop_now(p->loop), told = __atomic_load_n(&n->guard_told, __ATOMIC_RELAXED);

	if (told && now - told < COMPLAIN_NS)
		return;
	if (__atomic_compare_exchange_n(&n->guard_told, &told, now, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		log_warn("virtio", "%s: the guard dropped a frame: %s", n->label, guard_text(v));
}

int net_judge(struct net_pair *p, struct net_tx *t, unsigned slot)
{
	uint8_t *own = p->judged + (size_t)slot * JUDGED, *frame = own + NET_HEADER;
	size_t len = t->len - NET_HEADER, have = len < GUARD_FIRST ? len : GUARD_FIRST;
	enum guard_verdict v;

	iov_to_buf(t->iov, t->n_iov, 0, own, NET_HEADER + have);
	v = guard_check(&p->net->guard, own, frame, have, len);
	if (v == GUARD_MORE) {
		size_t most = len < GUARD_MOST ? len : GUARD_MOST;

		/* Only what is new is read: what was read before is what was judged. */
		iov_to_buf(t->iov, t->n_iov, NET_HEADER + have, frame + have, most - have);
		have = most;
		v = guard_check(&p->net->guard, own, frame, have, len);
	}
	if (v != GUARD_PASS) {
		complain(p, v);
		return 0;
	}
	iov_drop(&t->iov, &t->n_iov, NET_HEADER + have);
	t->iov--;
	*t->iov = (struct iovec){own, NET_HEADER + have};
	t->n_iov++;
	return 1;
}

void virtio_net_get_stats(struct virtio_dev *d, struct virtio_net_stats *out)
{
	struct net *n = net_of(d);

	memset(out, 0, sizeof(*out));
	for (unsigned i = 0; i < n->n_pairs; i++) {
		struct net_pair *p = &n->pair[i];

		out->rx_packets += __atomic_load_n(&p->rx_packets, __ATOMIC_RELAXED);
		out->rx_bytes += __atomic_load_n(&p->rx_bytes, __ATOMIC_RELAXED);
		out->rx_dropped += __atomic_load_n(&p->rx_dropped, __ATOMIC_RELAXED);
		out->tx_packets += __atomic_load_n(&p->tx_packets, __ATOMIC_RELAXED);
		out->tx_bytes += __atomic_load_n(&p->tx_bytes, __ATOMIC_RELAXED);
		out->tx_dropped += __atomic_load_n(&p->tx_dropped, __ATOMIC_RELAXED);
		out->guard_dropped += __atomic_load_n(&p->guard_dropped, __ATOMIC_RELAXED);
	}
	for (unsigned i = 0; i < n->n_pairs; i++)
		for (int k = NET_IN; k <= NET_OUT; k++)
			out->kernel_queues += __atomic_load_n(&n->pair[i].kernel[k], __ATOMIC_RELAXED);
	out->rate_in_waits = rate_waits(&n->rate[NET_IN]);
	out->rate_out_waits = rate_waits(&n->rate[NET_OUT]);
}

/* A RARP request for the own address: it asks nothing of anybody, but every switch on the way learns from it. */
void net_announce(struct vh_task *t)
{
	struct net_pair *p = container_of(t, struct net_pair, announce);
	uint8_t f[NET_HEADER + 60] = {0}, *e = f + NET_HEADER;

	memset(e, 0xff, 6);
	memcpy(e + 6, p->net->mac, 6);
	memcpy(e + 12, "\x80\x35\0\1\x08\0\6\4\0\3", 10);
	memcpy(e + 22, p->net->mac, 6);
	memcpy(e + 32, p->net->mac, 6);
	if (write(p->fd, f, sizeof(f)) < 0)
		log_debug("virtio", "%s: announcing: %s", p->net->label, strerror(errno));
}
