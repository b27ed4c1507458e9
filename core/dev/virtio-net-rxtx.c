/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Packets between a tap and the rings. The tap's header is the guest's, so both ways go straight from and into guest
 * memory: received ones by one call each, sent ones by one call for as many as are there. A receive call is offered as many
 * buffers as the last packets needed and, behind them, a scratch buffer: only what a larger packet has over is copied. With a
 * guard the first bytes of a sent packet are copied before they are judged, and the copy is sent.
 */
#include <sys/stat.h>
#include <unistd.h>
#include "dev/virtio-net-rx.h"

#define RX_BUDGET 64
#define TX_BUDGET 128

static void pair_event(void *ctx, uint32_t events);

/* One watch serves both directions, for an fd can be watched once. */
void net_watch(struct net_pair *p)
{
	uint32_t events = 0;
	int r;

	if (!p->rx_on && !p->tx_on) {
		loop_unwatch(p->watch);
		p->watch = NULL;
		return;
	}
	if (p->rx_on && !p->starved && !p->held[NET_IN] && p->active && !p->dead)
		events |= VH_IN;
	if (p->tx_on && p->blocked && !p->dead)
		events |= VH_OUT;
	if (p->watch) {
		loop_watch_events(p->watch, events);
		return;
	}
	r = loop_watch(p->loop, p->fd, events, pair_event, p, &p->watch);
	if (r) {
		p->watch = NULL;
		p->dead = 1;
		log_error("virtio", "%s: the tap cannot be watched: %s", p->net->label, strerror(-r));
	}
}

static void pair_died(struct net_pair *p, const char *what)
{
	if (errno != EBADFD) /* a pair that the driver has just given up */
		log_warn("virtio", "%s: queue %u: %s: %s", p->net->label, p->index, what, strerror(errno));
	p->dead = 1;
	net_watch(p);
}

static void pair_event(void *ctx, uint32_t events)
{
	struct net_pair *p = ctx;

	if (events & VH_OUT && p->blocked) {
		p->blocked = 0;
		p->tx->quiet = 0;
		net_watch(p);
		if (p->tx_on)
			net_tx_run(p);
	}
	if (events & VH_IN && p->rx_on && p->starved)
		net_watch(p);
	else if (events & VH_IN && p->rx_on)
		net_rx_run(p);
}

/* Spreads a packet of `len` bytes that lies in the batch's buffers and then in scratch. 1: it is in the ring, 0: dropped. */
static int rx_deliver(struct net_pair *p, struct net_rx_batch *b, size_t len)
{
	struct virtqueue *vq = &p->rx->vq;
	size_t held = b->len, left = len;
	uint16_t used = 0;
	uint8_t frame[16];
	int r;

	if (len < NET_HEADER + NET_FRAME)
		return 0;
	if (p->filtering) {
		size_t n = iov_to_buf(p->iov, b->n_iov + 1, NET_HEADER, frame, len - NET_HEADER < 16 ? len - NET_HEADER : 16);

		if (!net_passes(&p->filter, frame, n))
			return 0;
	}
	while (len > held) { /* scratch holds [held, len), from its start */
		unsigned at = b->n_iov;
		size_t was = b->len;

		if (!p->mergeable)
			return 0;
		r = net_rx_take(p, b);
		if (r <= 0)
			return r;
		iov_from_buf(p->iov + at, b->n_iov - at, 0, p->scratch + (was - held), len - was < b->len - was ? len - was : b->len - was);
		if (b->len >= len)
			break;
	}
	do {
		size_t n = b->buf[used].len < left ? b->buf[used].len : left;

		vq_push(vq, b->buf[used].head, (uint32_t)n);
		left -= n;
		used++;
	} while (left);
	iov_from_buf(p->iov, b->n_iov, offsetof(struct virtio_net_hdr_v1, num_buffers), &used, sizeof(used));
	vq_unpop(vq, b->n - used);
	p->rx_want = used < NET_RX_WANT ? used : NET_RX_WANT;
	return 1;
}

/* One packet. 1: there may be more, 0: nothing left to do. */
static int rx_one(struct net_pair *p)
{
	struct virtqueue *vq = &p->rx->vq;
	struct net_rx_batch b;
	ssize_t n;
	int r;

	b.n = b.n_iov = 0;
	b.len = 0;
	do
		r = net_rx_take(p, &b);
	while (r > 0 && b.n < p->rx_want);
	if (r < 0) {
		virtio_queue_broken(p->rx);
		return 0;
	}
	if (!b.n) {
		if (vq_notify_on(vq)) { /* some have come after all */
			vq_notify_off(vq);
			return 1;
		}
		p->rx->quiet = 0;
		p->starved = 1; /* the tap is watched until it says something: often the driver is faster, and nothing changes */
		return 0;
	}
	p->iov[b.n_iov] = (struct iovec){p->scratch, NET_SCRATCH};
	n = readv(p->fd, p->iov, (int)b.n_iov + 1);
	if (n <= 0) {
		vq_unpop(vq, b.n);
		if (n < 0 && errno == EINTR)
			return 1;
		if (n == 0 || errno != EAGAIN)
			pair_died(p, "reading from the tap");
		return 0;
	}
	r = rx_deliver(p, &b, (size_t)n);
	if (r < 0) {
		virtio_queue_broken(p->rx);
		return 0;
	}
	if (p->limited[NET_IN])
		rate_take(&p->net->rate[NET_IN], (size_t)n > NET_HEADER ? (size_t)n - NET_HEADER : 0);
	if (r) {
		net_count(&p->rx_packets, 1);
		net_count(&p->rx_bytes, (size_t)n - NET_HEADER);
	} else {
		vq_unpop(vq, b.n);
		net_count(&p->rx_dropped, 1);
	}
	return 1;
}

int net_rx_run(struct net_pair *p)
{
	uint64_t before = p->rx_packets + p->rx_dropped;
	int n = 0;

	if (p->starved || p->dead || !p->active || p->held[NET_IN] || p->rx->vq.broken)
		return 0;
	if (__builtin_expect(p->stream != NULL, 0))
		return net_stream_rx(p);
	while (n < RX_BUDGET && !(p->limited[NET_IN] && net_hold(p, NET_IN)) && rx_one(p))
		n++;
	return net_rx_moved(p, before);
}

void net_rx_buffers(struct net_pair *p)
{
	p->rx->quiet = 1;
	if (p->starved) {
		p->starved = 0;
		net_watch(p); /* nothing to do if it still is */
	}
	net_rx_run(p);
}

static void tx_done(struct net_pair *p, const struct net_tx *t, int ok)
{
	if (ok)
		net_count(&p->tx_bytes, t->len - NET_HEADER);
	net_count(ok ? &p->tx_packets : &p->tx_dropped, 1);
}

/* One call per packet. Returns how many are done with: fewer than n when the tap takes no more. */
static unsigned tx_each(struct net_pair *p, const struct net_tx *t, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		ssize_t w;

		if (!t[i].n_iov)
			continue;
		do
			w = t[i].n_iov == 1 ? write(p->fd, t[i].iov->iov_base, t[i].iov->iov_len) : writev(p->fd, t[i].iov, (int)t[i].n_iov);
		while (w < 0 && errno == EINTR);
		if (w < 0 && errno == EAGAIN)
			return i;
		/* What the host refuses (a bad offload header, the interface is down) is lost, as on a wire. */
		tx_done(p, &t[i], w >= 0);
	}
	return n;
}

static void tx_ring_close(struct net_pair *p)
{
	if (p->have_ring)
		io_uring_queue_exit(&p->ring);
	p->have_ring = 0;
}

/* One call for all: a third less time per small packet. A tap writes at once and in order, and has no limit of its own
 * unless it was given one: then what it does not take is lost. */
static unsigned tx_batch(struct net_pair *p, const struct net_tx *t, unsigned n)
{
	unsigned left = 0;

	for (unsigned i = 0; i < n; i++) {
		struct io_uring_sqe *s;

		if (!t[i].n_iov)
			continue;
		s = io_uring_get_sqe(&p->ring);
		if (!s) /* cannot be: the ring holds a batch, and is empty in between */
			break;
		if (t[i].n_iov == 1)
			io_uring_prep_write(s, p->fd, t[i].iov->iov_base, (unsigned)t[i].iov->iov_len, 0);
		else
			io_uring_prep_writev(s, p->fd, t[i].iov, t[i].n_iov, 0);
		io_uring_sqe_set_data64(s, i);
		left++;
	}
	while (left) {
		int r = io_uring_submit_and_wait(&p->ring, left);
		struct io_uring_cqe *cqe;
		unsigned head, seen = 0;

		if (r < 0 && r != -EINTR && r != -EAGAIN && r != -EBUSY) {
			log_warn("virtio", "%s: io_uring: %s", p->net->label, strerror(-r));
			net_count(&p->tx_dropped, left);
			tx_ring_close(p);
			break;
		}
		io_uring_for_each_cqe(&p->ring, head, cqe) {
			tx_done(p, &t[io_uring_cqe_get_data64(cqe)], cqe->res >= 0);
			seen++;
		}
		io_uring_cq_advance(&p->ring, seen);
		left -= seen;
	}
	return n;
}

/* Only for real taps: other descriptors may be full, and then the order would suffer. */
static void tx_ring_open(struct net_pair *p)
{
	struct stat st;

	if (fstat(p->fd, &st) || !S_ISCHR(st.st_mode))
		return;
	p->have_ring = !io_uring_queue_init(NET_TX_BATCH, &p->ring, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN) ||
		       !io_uring_queue_init(NET_TX_BATCH, &p->ring, 0);
}

int net_tx_run(struct net_pair *p)
{
	struct virtqueue *vq = &p->tx->vq;
	struct net_tx t[NET_TX_BATCH];
	int n = 0, r = 1;

	if (p->blocked || p->held[NET_OUT])
		return 0;
	if (__builtin_expect(p->stream != NULL, 0))
		return net_stream_tx(p);
	while (n < TX_BUDGET && r > 0 && !p->held[NET_OUT]) {
		unsigned got = 0, n_iov = 0, done;

		while (got < NET_TX_BATCH && n_iov <= VQ_MAX_CHAIN) { /* tx_iov holds twice that */
			struct vq_chain c = {.iov = p->tx_iov + n_iov + 1, .cap = VQ_MAX_CHAIN}; /* net_judge wants one before it */

			if (p->limited[NET_OUT] && vq_pending(vq) && net_hold(p, NET_OUT))
				break;
			r = vq_pop(vq, &c);
			if (r <= 0)
				break;
			t[got] = (struct net_tx){.iov = c.iov, .n_iov = c.n_out, .head = c.head,
						 .len = (uint32_t)(c.out_len < UINT32_MAX ? c.out_len : UINT32_MAX)};
			n_iov += c.n_out + 1;
			if (c.out_len < NET_HEADER + NET_FRAME || !p->link || p->dead) {
				t[got].n_iov = 0;
			} else if (p->judged && !net_judge(p, &t[got], got)) {
				t[got].n_iov = 0;
				t[got].guard = 1;
			} else if (p->limited[NET_OUT]) {
				rate_take(&p->net->rate[NET_OUT], t[got].len - NET_HEADER);
			}
			got++;
		}
		done = got > 1 && p->have_ring ? tx_batch(p, t, got) : tx_each(p, t, got);
		for (unsigned i = 0; i < done; i++) {
			vq_push(vq, t[i].head, 0);
			if (!t[i].n_iov)
				net_count(t[i].guard ? &p->guard_dropped : &p->tx_dropped, 1);
		}
		for (unsigned i = done; i < got && p->limited[NET_OUT]; i++)
			if (t[i].n_iov)
				rate_give(&p->net->rate[NET_OUT], t[i].len - NET_HEADER);
		n += (int)done;
		if (done < got) {
			vq_unpop(vq, got - done);
			p->blocked = 1;
			p->tx->quiet = 1;
			net_watch(p);
			break;
		}
	}
	if (r < 0)
		virtio_queue_broken(p->tx);
	else
		virtio_queue_flush(p->tx);
	return n;
}

void net_rx_start(struct net_pair *p)
{
	p->rx_on = 1;
	p->starved = 0;
	p->dead = p->stream && net_stream_broken(p);
	if (p->stream)
		net_stream_rx_start(p);
	p->rx_want = 1;
	p->rx->quiet = 1;
	net_pair_update(&p->update);
}

void net_rx_stop(struct net_pair *p)
{
	p->rx_on = 0;
	net_release(p, NET_IN);
	net_watch(p);
}

void net_tx_start(struct net_pair *p)
{
	p->tx_on = 1;
	p->blocked = 0;
	tx_ring_open(p);
	net_pair_update(&p->update);
}

void net_tx_stop(struct net_pair *p)
{
	p->tx_on = 0;
	p->blocked = 0;
	net_release(p, NET_OUT);
	tx_ring_close(p);
	net_watch(p);
}

void net_pair_update(struct vh_task *t)
{
	struct net_pair *p = container_of(t, struct net_pair, update);
	struct net *n = p->net;
	int was = p->active;

	pthread_mutex_lock(&n->dev.lock);
	p->filter = n->filter;
	p->filtering = virtio_has(&n->dev, VIRTIO_NET_F_CTRL_RX) && !n->filter.promisc;
	p->mergeable = virtio_has(&n->dev, VIRTIO_NET_F_MRG_RXBUF);
	p->link = n->link != 0;
	p->active = p->index < n->active && n->link;
	for (int i = NET_IN; i <= NET_OUT; i++) {
		struct rate_limit l;

		rate_get(&n->rate[i], &l);
		p->limited[i] = rate_limits(&l) != 0;
	}
	pthread_mutex_unlock(&n->dev.lock);
	if (p->active && !was)
		p->dead = p->stream && net_stream_broken(p);
	for (int i = NET_IN; i <= NET_OUT; i++) /* the limit may have changed: whoever waits asks again */
		if (p->held[i])
			loop_timer_at(p->timer[i], 1);
	net_watch(p);
	net_vhost_update(p);
	/* What a stream's buffer holds no event tells of. */
	if (p->stream && p->active && !was && p->rx_on)
		net_rx_run(p);
}

void net_update_pairs(struct net *n)
{
	for (unsigned i = 0; i < n->n_pairs; i++)
		loop_post(n->pair[i].loop, &n->pair[i].update);
}
