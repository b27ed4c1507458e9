/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Packets between a stream socket and the rings: each is led by its length, 32 bits, big-endian, and has no vnet header. Many
 * are read by one call into a buffer, and many sent by one; what the socket took of a packet only in part is kept, for the
 * other side must get as many bytes as were announced, whatever the guest does to its memory. When the guest has no buffers
 * nothing is read, which holds the other side back. The other side is hostile: a length that cannot be ends the link.
 */
#include <arpa/inet.h>
#include <limits.h>
#include <sys/socket.h>
#include <unistd.h>
#include "dev/virtio-net-rx.h"

#define IN_SIZE (256u << 10)
#define FRAME_MAX 65550u /* an MTU of 65521 with its Ethernet header and two VLAN tags */
#define PREFIX 4u
#define RX_READS 4       /* in one go */
#define TX_BUDGET 128

struct net_stream {
	int broken;
	uint8_t *in; /* received, not yet delivered: [at, have) */
	size_t at, have;
	unsigned most;  /* receive buffers that the driver had out at most */
	uint8_t *rest;  /* of a packet that the socket took in part: [rest_at, rest_len) */
	size_t rest_at, rest_len;
};

int net_stream_new(struct net_pair *p)
{
	struct net_stream *s = calloc(1, sizeof(*s));

	p->stream = s;
	if (!s)
		return -ENOMEM;
	s->in = malloc(IN_SIZE);
	s->rest = malloc(PREFIX + FRAME_MAX);
	return s->in && s->rest ? 0 : -ENOMEM;
}

void net_stream_free(struct net_pair *p)
{
	if (!p->stream)
		return;
	free(p->stream->in);
	free(p->stream->rest);
	free(p->stream);
	p->stream = NULL;
}

int net_stream_broken(const struct net_pair *p)
{
	return p->stream->broken;
}

/* For good: where the next packet begins nobody knows, or nobody is there. Told once. */
static void lose(struct net_pair *p, const char *why)
{
	struct net *n = p->net;

	p->dead = 1;
	net_watch(p);
	if (p->stream->broken)
		return;
	p->stream->broken = 1;
	log_warn("virtio", "%s: %s: the guest's link is down", n->label, why);
	net_port_lost(n->port);
	virtio_net_set_link(&n->dev, 0);
}

static uint32_t frame_length(const uint8_t *p)
{
	uint32_t be;

	memcpy(&be, p, sizeof(be));
	return ntohl(be);
}

/* Buffers for `want` bytes. 1, 0: the packet cannot be had, -EAGAIN: not now, -EPROTO. */
static int take_buffers(struct net_pair *p, struct net_rx_batch *b, size_t want)
{
	struct virtqueue *vq = &p->rx->vq;

	b->n = b->n_iov = 0;
	b->len = 0;
	while (b->len < want) {
		int r = b->n && !p->mergeable ? 0 : net_rx_take(p, b);

		if (r < 0)
			return r;
		if (r)
			continue;
		/* All that a driver has ever offered does not hold it, nor does what one chain may be made of. */
		if (b->n && (!p->mergeable || vq_pending(vq) || b->n >= p->stream->most)) {
			vq_unpop(vq, b->n);
			return 0;
		}
		if (vq_notify_on(vq)) { /* some have come after all */
			vq_notify_off(vq);
			continue;
		}
		vq_unpop(vq, b->n);
		return -EAGAIN;
	}
	return 1;
}

/* As take_buffers(). */
static int deliver(struct net_pair *p, const uint8_t *frame, size_t len)
{
	struct virtio_net_hdr_v1 h = {0};
	struct net_rx_batch b;
	size_t left = NET_HEADER + len;
	unsigned used = 0;
	int r;

	if (len < NET_FRAME || (p->filtering && !net_passes(&p->filter, frame, len)))
		return 0;
	r = take_buffers(p, &b, left);
	if (r <= 0)
		return r;
	for (; left; used++) {
		size_t n = b.buf[used].len < left ? b.buf[used].len : left;

		vq_push(&p->rx->vq, b.buf[used].head, (uint32_t)n);
		left -= n;
	}
	h.num_buffers = (uint16_t)used;
	iov_from_buf(p->iov, b.n_iov, 0, &h, NET_HEADER);
	iov_from_buf(p->iov, b.n_iov, NET_HEADER, frame, len);
	return 1;
}

/* Delivers what is there. 1: all whole packets are gone, 0: nothing more can be done now. */
static int deliver_all(struct net_pair *p)
{
	struct net_stream *s = p->stream;

	while (s->have - s->at >= PREFIX) {
		uint32_t len = frame_length(s->in + s->at);
		int r;

		if (p->limited[NET_IN] && net_hold(p, NET_IN))
			return 0;
		if (!len || len > FRAME_MAX) {
			lose(p, "the other side sent a packet of an impossible length");
			return 0;
		}
		if (s->have - s->at < PREFIX + len)
			break;
		r = deliver(p, s->in + s->at + PREFIX, len);
		if (r == -EAGAIN) {
			p->rx->quiet = 0;
			p->starved = 1;
			net_watch(p);
			return 0;
		}
		if (r < 0) {
			virtio_queue_broken(p->rx);
			return 0;
		}
		if (p->limited[NET_IN])
			rate_take(&p->net->rate[NET_IN], len);
		if (r)
			net_count(&p->rx_bytes, len);
		net_count(r ? &p->rx_packets : &p->rx_dropped, 1);
		s->at += PREFIX + len;
	}
	return 1;
}

/* 1: something was read. */
static int fill(struct net_pair *p)
{
	struct net_stream *s = p->stream;
	ssize_t n;

	if (s->at) { /* at most one packet, in part */
		memmove(s->in, s->in + s->at, s->have - s->at);
		s->have -= s->at;
		s->at = 0;
	}
	do
		n = read(p->fd, s->in + s->have, IN_SIZE - s->have);
	while (n < 0 && errno == EINTR);
	if (n > 0)
		s->have += (size_t)n;
	else if (!n)
		lose(p, "the other side has ended");
	else if (errno != EAGAIN)
		lose(p, strerror(errno));
	return n > 0;
}

int net_stream_rx(struct net_pair *p)
{
	uint64_t before = p->rx_packets + p->rx_dropped;
	struct virtqueue *vq = &p->rx->vq;
	unsigned out;

	vq_pending(vq);
	out = (uint16_t)(vq->avail_idx - vq->last_avail);
	if (out > p->stream->most)
		p->stream->most = out;
	for (unsigned i = 0; deliver_all(p) && i < RX_READS && fill(p); i++)
		;
	return net_rx_moved(p, before);
}

void net_stream_rx_start(struct net_pair *p)
{
	p->stream->most = 0;
}

struct packet {
	struct iovec *iov; /* the length first */
	unsigned n_iov;    /* 0: it goes nowhere */
	size_t len;        /* with it */
	uint16_t head;
	uint8_t guard;     /* because of the guard */
};

struct batch {
	struct packet t[NET_TX_BATCH];
	uint32_t length[NET_TX_BATCH];
	unsigned n, n_iov;
};

/* With a guard: what it saw, with the length before it, and the rest. 0: it goes nowhere. */
static int judge(struct net_pair *p, struct batch *b, const struct vq_chain *c, size_t len)
{
	struct net_tx g = {.iov = c->iov, .n_iov = c->n_out, .head = c->head, .len = (uint32_t)c->out_len};
	struct iovec *first = p->tx_iov + b->n_iov;
	uint32_t be = htonl((uint32_t)len);

	if (!net_judge(p, &g, b->n))
		return 0;
	/* It has the vnet header before the frame, where the length finds room. */
	memcpy((uint8_t *)g.iov->iov_base + NET_HEADER - PREFIX, &be, PREFIX);
	iov_drop(&g.iov, &g.n_iov, NET_HEADER - PREFIX);
	if (g.n_iov > IOV_MAX) {
		size_t rest = PREFIX + len - g.iov->iov_len;

		iov_to_buf(g.iov + 1, g.n_iov - 1, 0, p->scratch, rest);
		g.iov[1] = (struct iovec){p->scratch, rest};
		g.n_iov = 2;
	}
	if (g.iov != first)
		memmove(first, g.iov, g.n_iov * sizeof(*first));
	return (int)g.n_iov;
}

/* Behind the batch's iovecs one is left free for the length; the chain's follow it. */
static void add_packet(struct net_pair *p, struct batch *b, const struct vq_chain *c)
{
	struct packet *t = &b->t[b->n];
	struct iovec *first = p->tx_iov + b->n_iov, *iov = c->iov;
	size_t len = c->out_len - NET_HEADER;
	unsigned n = c->n_out;

	*t = (struct packet){.iov = first, .head = c->head};
	if (c->out_len < NET_HEADER + NET_FRAME || len > FRAME_MAX || !p->link || p->dead) {
		b->n++;
		return;
	}
	if (p->judged) {
		t->n_iov = (unsigned)judge(p, b, c, len);
		t->guard = !t->n_iov;
		t->len = PREFIX + len;
		b->n_iov += t->n_iov;
		b->n++;
		return;
	}
	iov_drop(&iov, &n, NET_HEADER);
	if (n + 1 > IOV_MAX) { /* alone in its batch; the scratch buffer is not needed otherwise */
		iov_to_buf(iov, n, 0, p->scratch, len);
		first[1] = (struct iovec){p->scratch, len};
		n = 1;
	} else if (iov != first + 1) {
		memmove(first + 1, iov, n * sizeof(*iov));
	}
	b->length[b->n] = htonl((uint32_t)len);
	first[0] = (struct iovec){&b->length[b->n], PREFIX};
	t->n_iov = n + 1;
	t->len = PREFIX + len;
	b->n_iov += t->n_iov;
	b->n++;
}

/* As many packets as one call takes. Returns vq_pop's last word. */
static int collect(struct net_pair *p, struct batch *b)
{
	int r = 1;

	b->n = b->n_iov = 0;
	while (b->n < NET_TX_BATCH && b->n_iov < VQ_MAX_CHAIN) { /* tx_iov holds twice that */
		struct vq_chain c = {.iov = p->tx_iov + b->n_iov + 1, .cap = VQ_MAX_CHAIN};

		if (p->limited[NET_OUT] && vq_pending(&p->tx->vq) && net_hold(p, NET_OUT))
			break;
		r = vq_pop(&p->tx->vq, &c);
		if (r <= 0)
			break;
		if (b->n && b->n_iov + 1 + c.n_out > IOV_MAX) {
			vq_unpop(&p->tx->vq, 1);
			break;
		}
		add_packet(p, b, &c);
	}
	return r;
}

/* 1: the rest is out. */
static int send_rest(struct net_pair *p)
{
	struct net_stream *s = p->stream;

	while (s->rest_at < s->rest_len && !s->broken) {
		ssize_t w = send(p->fd, s->rest + s->rest_at, s->rest_len - s->rest_at, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (w < 0 && errno == EAGAIN)
			return 0;
		if (w < 0 && errno != EINTR)
			lose(p, strerror(errno));
		if (w > 0)
			s->rest_at += (size_t)w;
	}
	s->rest_at = s->rest_len = 0;
	return 1;
}

/* Returns how many packets are done with: fewer than b->n, or something in s->rest, when the socket takes no more. */
static unsigned send_batch(struct net_pair *p, struct batch *b)
{
	struct msghdr m = {.msg_iov = p->tx_iov, .msg_iovlen = b->n_iov};
	struct net_stream *s = p->stream;
	size_t left;
	ssize_t w = 0;

	if (b->n_iov) {
		do
			w = sendmsg(p->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
		while (w < 0 && errno == EINTR);
		if (w < 0 && errno != EAGAIN) {
			lose(p, strerror(errno));
			for (unsigned i = 0; i < b->n; i++)
				b->t[i].n_iov = 0;
			return b->n;
		}
	}
	left = w > 0 ? (size_t)w : 0;
	for (unsigned i = 0; i < b->n; i++) {
		struct packet *t = &b->t[i];

		if (!t->n_iov)
			continue;
		if (!left)
			return i;
		net_count(&p->tx_packets, 1);
		net_count(&p->tx_bytes, t->len - PREFIX);
		if (p->limited[NET_OUT])
			rate_take(&p->net->rate[NET_OUT], t->len - PREFIX);
		if (left >= t->len) {
			left -= t->len;
			continue;
		}
		s->rest_len = t->len - left;
		iov_to_buf(t->iov, t->n_iov, left, s->rest, s->rest_len);
		return i + 1;
	}
	return b->n;
}

int net_stream_tx(struct net_pair *p)
{
	struct virtqueue *vq = &p->tx->vq;
	int n = 0, r = 1, full = !send_rest(p);
	struct batch b;

	while (n < TX_BUDGET && r > 0 && !full && !p->held[NET_OUT]) {
		unsigned done;

		r = collect(p, &b);
		done = send_batch(p, &b);
		for (unsigned i = 0; i < done; i++) {
			if (!b.t[i].n_iov)
				net_count(b.t[i].guard ? &p->guard_dropped : &p->tx_dropped, 1);
			vq_push(vq, b.t[i].head, 0);
		}
		n += (int)done;
		if (done < b.n)
			vq_unpop(vq, b.n - done);
		full = done < b.n || p->stream->rest_len;
	}
	if (full) {
		p->blocked = 1;
		p->tx->quiet = 1;
		net_watch(p);
	}
	if (r < 0)
		virtio_queue_broken(p->tx);
	else
		virtio_queue_flush(p->tx);
	return n;
}
