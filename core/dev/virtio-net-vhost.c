/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Pairs whose rings the kernel serves (vhost-net.h). It is used where nothing needs to see the packets: no guard and no limits.
 * The receive filters are then not kept, as with QEMU: they spare the guest work and protect nobody. The control queue, links
 * and the use of pairs stay here.
 *
 * Interrupts: a queue with an MSI-X vector has the kernel signal that vector's eventfd, which KVM waits for; without one the signal
 * comes to the queue's loop, which raises INTx.
 */
#include <sys/eventfd.h>
#include <unistd.h>
#include "dev/vhost-net.h"
#include "dev/virtio-net-i.h"

static struct virtio_queue *queue_of(struct net_pair *p, int dir)
{
	return dir == NET_IN ? p->rx : p->tx;
}

static void kernel_called(struct net_pair *p, int dir)
{
	uint64_t n;

	if (read(p->call_fd[dir], &n, sizeof(n)) == sizeof(n))
		virtio_queue_interrupt(queue_of(p, dir));
}

static void called_in(void *ctx, uint32_t events)
{
	(void)events;
	kernel_called(ctx, NET_IN);
}

static void called_out(void *ctx, uint32_t events)
{
	(void)events;
	kernel_called(ctx, NET_OUT);
}

static void ring_broke(void *ctx, uint32_t events)
{
	struct net_pair *p = ctx;
	uint64_t n;

	(void)events;
	if (read(p->err_fd, &n, sizeof(n)) == sizeof(n))
		virtio_need_reset(&p->net->dev, "the kernel found a ring broken");
}

int net_vhost_new(struct net *n, const struct virtio_net_config *c, struct vh_err *e)
{
	int r = 0;

	for (unsigned i = 0; i < n->n_pairs; i++) {
		struct net_pair *p = &n->pair[i];

		p->vhost = p->err_fd = p->call_fd[NET_IN] = p->call_fd[NET_OUT] = -1;
	}
	if (c->vhost == VIRTIO_NET_VHOST_OFF || n->guard.mode || net_port_info(n->port)->path != VH_NET_PATH_TAP)
		return c->vhost != VIRTIO_NET_VHOST_ON ? 0 : err_set(e, -EOPNOTSUPP, "vhost-net cannot serve this NIC: it has a guard, or no tap");
	for (unsigned i = 0; i < n->n_pairs && !r; i++) {
		struct net_pair *p = &n->pair[i];

		r = vhost_net_open(vm_mem(n->dev.vm), &p->vhost, c->vhost == VIRTIO_NET_VHOST_ON ? e : NULL);
		p->err_fd = r ? -1 : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		for (int k = NET_IN; !r && k <= NET_OUT; k++)
			p->call_fd[k] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (!r && (p->err_fd < 0 || p->call_fd[NET_IN] < 0 || p->call_fd[NET_OUT] < 0))
			r = err_set(e, -errno, "cannot make an eventfd: %s", strerror(errno));
	}
	n->kernel_can = !r;
	if (r && c->vhost == VIRTIO_NET_VHOST_ON)
		return r;
	if (r && r != -ENODEV)
		log_debug("virtio", "%s: without vhost-net: %s", n->label, strerror(-r));
	return 0;
}

void net_vhost_free(struct net *n)
{
	for (unsigned i = 0; n->pair && i < n->n_pairs; i++) {
		struct net_pair *p = &n->pair[i];
		const int fd[] = {p->vhost, p->err_fd, p->call_fd[NET_IN], p->call_fd[NET_OUT]};

		for (unsigned k = 0; k < sizeof(fd) / sizeof(fd[0]); k++)
			if (fd[k] > 0) /* 0: it was never tried */
				close(fd[k]);
	}
}

void net_vhost_negotiated(struct net *n)
{
	struct rate_limit l[2];
	int r = 0;

	rate_get(&n->rate[NET_IN], &l[0]);
	rate_get(&n->rate[NET_OUT], &l[1]);
	n->kernel = n->kernel_can && !rate_limits(&l[0]) && !rate_limits(&l[1]);
	for (unsigned i = 0; n->kernel && !r && i < n->n_pairs; i++)
		r = vhost_net_features(n->pair[i].vhost, n->dev.acked);
	if (r) {
		log_warn("virtio", "%s: vhost-net does not take these features: %s", n->label, strerror(-r));
		n->kernel = 0;
	}
}

/* The eventfd that the kernel shall signal. Own ones are watched. */
static int signal_fd(struct net_pair *p, int dir)
{
	struct virtio_queue *q = queue_of(p, dir);
	uint16_t vector = __atomic_load_n(&q->vector, __ATOMIC_RELAXED);
	int fd = pci_msix_enabled(&p->net->dev.pci) && vector != VIRTIO_NO_VECTOR ? pci_msix_fd(&p->net->dev.pci, vector) : -1;

	if (fd < 0) {
		if (!p->call_watch[dir] &&
		    loop_watch(p->loop, p->call_fd[dir], VH_IN, dir == NET_IN ? called_in : called_out, p, &p->call_watch[dir]))
			p->call_watch[dir] = NULL;
		return p->call_watch[dir] ? p->call_fd[dir] : -1;
	}
	loop_unwatch(p->call_watch[dir]);
	p->call_watch[dir] = NULL;
	return fd;
}

int net_vhost_start(struct net_pair *p, int dir)
{
	struct virtio_queue *q = queue_of(p, dir);
	int r, call;

	if (!__atomic_load_n(&p->net->kernel, __ATOMIC_RELAXED))
		return 0;
	if (!p->err_watch && loop_watch(p->loop, p->err_fd, VH_IN, ring_broke, p, &p->err_watch))
		p->err_watch = NULL;
	call = signal_fd(p, dir);
	r = call < 0 || !p->err_watch ? -ENOMEM : vhost_net_start(p->vhost, (unsigned)dir, &q->vq, q->kick_fd, call, p->err_fd);
	if (r) {
		log_warn("virtio", "%s: vhost-net does not take queue %u: %s", p->net->label, q->index, strerror(-r));
		vhost_net_stop(p->vhost, (unsigned)dir, NULL);
		return 0;
	}
	q->foreign = 1;
	__atomic_store_n(&p->kernel[dir], 1, __ATOMIC_RELAXED);
	loop_post(p->loop, &p->update); /* which has it move packets, or takes it back: not from within the queue's start */
	return 1;
}

static void unwatch(struct net_pair *p, int dir)
{
	loop_unwatch(p->call_watch[dir]);
	p->call_watch[dir] = NULL;
	if (!p->kernel[NET_IN] && !p->kernel[NET_OUT]) {
		loop_unwatch(p->err_watch);
		p->err_watch = NULL;
	}
}

int net_vhost_stop(struct net_pair *p, int dir)
{
	struct virtio_queue *q = queue_of(p, dir);
	uint16_t at = q->vq.last_avail;
	int r;

	if (!p->kernel[dir])
		return 0;
	r = vhost_net_stop(p->vhost, (unsigned)dir, &at);
	if (r)
		log_error("virtio", "%s: stopping queue %u of vhost-net: %s", p->net->label, q->index, strerror(-r));
	vq_resume(&q->vq, at);
	q->foreign = 0;
	__atomic_store_n(&p->kernel[dir], 0, __ATOMIC_RELAXED);
	p->backend[dir] = 0;
	unwatch(p, dir);
	return 1;
}

void net_vhost_update(struct net_pair *p)
{
	for (int dir = NET_IN; dir <= NET_OUT; dir++) {
		struct virtio_queue *q = queue_of(p, dir);
		uint64_t one = 1;
		int r, call;

		if (!p->kernel[dir])
			continue;
		if (!__atomic_load_n(&p->net->kernel, __ATOMIC_RELAXED)) { /* somebody wants to see the packets now */
			net_vhost_stop(p, dir);
			virtio_queue_take(q);
			continue;
		}
		call = signal_fd(p, dir); /* the vector may be another */
		if (call >= 0)
			vhost_net_call(p->vhost, (unsigned)dir, call);
		if (p->backend[dir] == p->active)
			continue;
		r = vhost_net_backend(p->vhost, (unsigned)dir, p->active ? p->fd : -1);
		if (r) {
			log_warn("virtio", "%s: vhost-net does not serve queue %u: %s", p->net->label, q->index, strerror(-r));
			__atomic_store_n(&p->net->kernel, 0, __ATOMIC_RELAXED);
			net_update_pairs(p->net);
			return;
		}
		p->backend[dir] = p->active;
		/* What the driver rang for while nobody was there. */
		if (p->active && write(q->kick_fd, &one, sizeof(one)) < 0)
			log_debug("virtio", "%s: doorbell: %s", p->net->label, strerror(errno));
	}
}
