/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * virtio 1.2 over PCI: the transport drives a device through this table. Everything that a driver writes is hostile.
 */
#ifndef DEV_VIRTIO_H
#define DEV_VIRTIO_H

#include <stddef.h>
#include "dev/pci.h"
#include "dev/virtqueue.h"
#include "util/loop.h"

#ifndef container_of
#define container_of(p, type, member) ((type *)((char *)(p) - offsetof(type, member)))
#endif

#define VIRTIO_NO_VECTOR 0xffffu
#define VIRTIO_BIT(n) (UINT64_C(1) << (n))

struct virtio_dev;

/*
 * A queue and what runs it. From the start to the stop it belongs to its loop: the doorbell's eventfd is watched there and,
 * if the device polls, the loop busy-polls it. Requests that outlive a call of the device are counted in `inflight`, by
 * virtio_queue_get and virtio_queue_put; a stopped queue is given back to the driver (reset) or freed only when that is 0.
 */
struct virtio_queue {
	struct virtqueue vq;
	struct virtio_dev *dev;
	unsigned index;
	struct vh_loop *loop;
	void *user; /* the device's own */

	/* [queue] */
	unsigned inflight;
	uint8_t running, stopping, flush_armed, batch;
	uint8_t quiet; /* set by the device: do not ask for doorbells before the loop sleeps */
	uint8_t foreign; /* set by the device's queue_start: the kernel serves the ring, nobody here looks at it */
	struct loop_poller poller;
	struct vh_watch *watch;
	struct vh_task flush;

	/* [any] */
	int kick_fd;
	uint16_t vector; /* atomic */
	int want;        /* atomic: it shall run */
	struct vh_task sync;

	/* The driver's registers, under the device's lock. */
	uint16_t reg_size;
	uint64_t reg_desc, reg_avail, reg_used;
	uint8_t reg_enable, reg_reset, started, stop_pending, bell;
	uint64_t bell_addr;
};

struct virtio_ops {
	const char *name;
	uint16_t id;          /* virtio device id */
	uint8_t pci_class[3]; /* base, sub, prog-if */
	/* Device configuration; [off, off+len) lies inside config_size. The device's lock is held. */
	void (*config_read)(struct virtio_dev *d, unsigned off, void *data, unsigned len);
	void (*config_write)(struct virtio_dev *d, unsigned off, const void *data, unsigned len);
	int (*start)(struct virtio_dev *d); /* [vcpu], lock held: DRIVER_OK, before the queues start. < 0: DEVICE_NEEDS_RESET */
	void (*reset)(struct virtio_dev *d); /* [any], lock held: every queue has stopped */
	/* [queue] The queue begins to run; what is in it already is handled by the queue_notify that follows. */
	void (*queue_start)(struct virtio_queue *q);
	/* [queue] It ends: take nothing more from it, let go of what is held but not under way. */
	void (*queue_stop)(struct virtio_queue *q);
	void (*queue_notify)(struct virtio_queue *q); /* [queue] the doorbell rang */
	void (*queue_vector)(struct virtio_queue *q); /* [any], lock held. Optional: a queue that runs has another vector */
	/* [queue] Optional: busy polling; what was done, 0 for nothing. */
	int (*queue_poll)(struct virtio_queue *q);
	/* [queue] Optional, with queue_poll: the loop goes to sleep; 1: it shall not. After notifications were asked for. */
	int (*queue_sleep)(struct virtio_queue *q, int going);
	void (*free)(struct virtio_dev *d); /* [main] nothing runs; frees d itself */
};

struct virtio_dev {
	struct pci_dev pci;
	const struct virtio_ops *ops;
	struct vm *vm;
	const char *label;   /* for the log: "disk default/web"; owned by the device */
	uint64_t features;   /* offered; VERSION_1, rings' and transport's are added by virtio_pci_init */
	uint64_t acked;      /* by the driver; stable from FEATURES_OK to the end of the reset */
	unsigned n_queues;
	uint16_t max_queue_size;
	unsigned config_size;
	struct virtio_queue *queue; /* n_queues of them, made by virtio_pci_init; the device sets loop (and user) before it */

	/* The transport's, under lock where not said otherwise. */
	pthread_mutex_t lock;
	pthread_cond_t idle; /* a reset ended */
	uint8_t status, resetting;
	unsigned stopping; /* queues that have yet to stop before the reset is done */
	uint8_t isr;         /* atomic */
	uint16_t config_vector; /* atomic */
	uint8_t generation;  /* atomic */
	uint8_t needs_reset; /* atomic */
	uint32_t feature_select, driver_feature_select;
	uint64_t driver_features;
	uint16_t queue_select;
	uint64_t bar_addr; /* of the registers; 0: not mapped */
	unsigned pci_cfg_cap;
};

/* [main] Allocates d->queue for n_queues; then the device sets each queue's loop; then virtio_pci_init, for which the
 * caller has set ops, vm, label, features, n_queues, max_queue_size, config_size. */
int virtio_queues_new(struct virtio_dev *d, struct vh_err *e);
int virtio_pci_init(struct virtio_dev *d, struct pci_host *h, struct vh_err *e);
/* [main] Off the bus, reset, idle: returns when no request is in flight. The queues' loops run (or have nothing to do). */
void virtio_pci_exit(struct virtio_dev *d);
void virtio_queues_free(struct virtio_dev *d);

void virtio_notify_config(struct virtio_dev *d);                 /* [any] the device's configuration has changed */
void virtio_need_reset(struct virtio_dev *d, const char *why);   /* [any but lock holders] the driver broke the rules */
void virtio_queue_interrupt(struct virtio_queue *q);             /* [any] */
void virtio_queue_broken(struct virtio_queue *q);                /* [queue] after a vq_pop < 0 */
static inline int virtio_has(const struct virtio_dev *d, unsigned bit)
{
	return (d->acked >> bit & 1) != 0;
}
static inline void virtio_queue_get(struct virtio_queue *q)
{
	q->inflight++;
}
void virtio_queue_take(struct virtio_queue *q); /* [queue] a running queue that was foreign, and is no more: starts it here */
void virtio_queue_idle(struct virtio_queue *q);
static inline void virtio_queue_put(struct virtio_queue *q)
{
	if (--q->inflight == 0 && q->stopping)
		virtio_queue_idle(q);
}
/* [queue] Shows what was pushed, with an interrupt if the driver wants one. */
static inline void virtio_queue_flush(struct virtio_queue *q)
{
	if (vq_publish(&q->vq))
		virtio_queue_interrupt(q);
}
/* [queue] The same at the end of the loop's turn, so that completions of one turn share an interrupt. */
static inline void virtio_queue_flush_later(struct virtio_queue *q)
{
	if (!q->batch && !q->flush_armed) {
		q->flush_armed = 1;
		loop_defer(q->loop, &q->flush);
	}
}

/* Between virtio.c and the transport; d->lock is held. */
void virtio_start_queue(struct virtio_queue *q);
void virtio_stop_queue(struct virtio_queue *q);
void virtio_sync_queue(void *queue);   /* [queue] d->lock not held: does what was posted now */
void virtio_forget_queue(void *queue); /* [queue] nothing of the queue stays in the loop */
void virtio_begin_reset(struct virtio_dev *d);
void virtio_transport_reset(struct virtio_dev *d);          /* registers as at power-on */
void virtio_transport_bell(struct virtio_queue *q, int on); /* the doorbell goes to kick_fd by the kernel */

/*
 * The devices. `h`: where to add it; all [main]. The loops serve the queues, in turn; they run (or will) on threads of
 * their own. Stopping a device waits for its requests, so what completes them must not be the thread that waits. Strings are
 * copied; images, ports and fds are borrowed and outlive the device.
 */
struct fmt_image; struct net_port; struct disk; struct guard; struct rate_limit;
struct virtio_blk_config { struct fmt_image *image; const char *serial; unsigned queues; struct vh_loop *const *loops; unsigned n_loops; const char *label; };
int virtio_blk_new(struct vm *v, struct pci_host *h, const struct virtio_blk_config *c, struct virtio_dev **out, struct vh_err *e);
struct virtio_net_config { struct net_port *port; unsigned pairs; uint8_t mac[6]; uint16_t mtu; struct vh_loop *const *loops; unsigned n_loops; const char *label;
	const struct guard *guard; const struct rate_limit *in, *out; /* NULL: none */
	enum { VIRTIO_NET_VHOST_AUTO, VIRTIO_NET_VHOST_ON, VIRTIO_NET_VHOST_OFF } vhost; }; /* the kernel's vhost-net: where it can, or an error, or never */
int virtio_net_new(struct vm *v, struct pci_host *h, const struct virtio_net_config *c, struct virtio_dev **out, struct vh_err *e);
void virtio_net_set_link(struct virtio_dev *d, int up); /* [any] */
/* [any] Limits of what the guest receives and sends, from now on; NULL: as they are. */
void virtio_net_set_rates(struct virtio_dev *d, const struct rate_limit *in, const struct rate_limit *out);
/* [any] Tells the network where the guest is, after it was silent: by the guest's driver, or if that cannot, by a RARP of ours. */
void virtio_net_announce(struct virtio_dev *d);
/* What the device itself counts; waits: how often a limit held something up; kernel_queues: those that vhost-net serves, whose packets
 * are not counted here. */
struct virtio_net_stats { uint64_t rx_packets, rx_bytes, rx_dropped, tx_packets, tx_bytes, tx_dropped, guard_dropped, rate_in_waits, rate_out_waits, kernel_queues; };
void virtio_net_get_stats(struct virtio_dev *d, struct virtio_net_stats *out); /* [any] */
int virtio_rng_new(struct vm *v, struct pci_host *h, struct vh_loop *l, struct virtio_dev **out, struct vh_err *e);
int virtio_balloon_new(struct vm *v, struct pci_host *h, struct vh_loop *l, struct virtio_dev **out, struct vh_err *e);
void virtio_balloon_set(struct virtio_dev *d, uint64_t target_bytes); /* memory the guest shall keep */
struct balloon_stats { uint64_t actual, target, swap_in, swap_out, major_faults, minor_faults, free, total, available, disk_caches, last_update; int have; };
void virtio_balloon_get(struct virtio_dev *d, struct balloon_stats *out);
/* in_fd/out_fd: -1 for none; borrowed. */
int virtio_console_new(struct vm *v, struct pci_host *h, struct vh_loop *l, int in_fd, int out_fd, struct virtio_dev **out, struct vh_err *e);
void virtio_free(struct virtio_dev *d); /* any of the above; while its loops still run */

#endif
