/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * virtio 1.2 over PCI: the transport drives a device through this table. Everything that a driver writes is hostile.
 */
#ifndef DEV_VIRTIO_H
#define DEV_VIRTIO_H

#include "dev/pci.h"
#include "dev/virtqueue.h"
#include "util/loop.h"

struct virtio_dev;
struct virtio_ops {
	const char *name;
	uint16_t id; /* virtio device id */
	uint8_t pci_class[3]; /* base, sub, prog-if */
	void (*config_read)(struct virtio_dev *d, unsigned off, void *data, unsigned len);
	void (*config_write)(struct virtio_dev *d, unsigned off, const void *data, unsigned len);
	int (*start)(struct virtio_dev *d); /* DRIVER_OK: queues are enabled; [vcpu]. < 0: DEVICE_NEEDS_RESET */
	void (*stop)(struct virtio_dev *d); /* reset: returns when no request of the device is in flight and none comes */
	int (*queue_loop)(struct virtio_dev *d, unsigned q, struct vh_loop **loop); /* which loop serves queue q */
	void (*queue_notify)(struct virtio_dev *d, unsigned q); /* [queue] the doorbell rang */
};
struct virtio_dev {
	struct pci_dev pci;
	const struct virtio_ops *ops;
	struct vm *vm;
	uint64_t features;  /* offered */
	uint64_t acked;     /* by the driver, FEATURES_OK set */
	unsigned n_queues;
	uint16_t max_queue_size;
	unsigned config_size;
	struct virtqueue *vq; /* n_queues of them */
	struct virtio_transport *t; /* the transport's own */
};
/* The caller has set ops, vm, features, n_queues, max_queue_size, config_size. */
int virtio_pci_init(struct virtio_dev *d, struct pci_host *h, struct vh_err *e);
void virtio_pci_exit(struct virtio_dev *d);
void virtio_notify_config(struct virtio_dev *d); /* [any] */
void virtio_need_reset(struct virtio_dev *d, const char *why); /* [any] the driver broke the rules */

/* The devices. `h`: where to add it; all [main]. */
struct fmt_image; struct net_port; struct disk;
struct virtio_blk_config { struct fmt_image *image; const char *serial; unsigned queues; struct vh_loop *const *loops; unsigned n_loops; const char *label; };
int virtio_blk_new(struct vm *v, struct pci_host *h, const struct virtio_blk_config *c, struct virtio_dev **out, struct vh_err *e);
struct virtio_net_config { struct net_port *port; unsigned pairs; uint8_t mac[6]; uint16_t mtu; struct vh_loop *const *loops; unsigned n_loops; const char *label; };
int virtio_net_new(struct vm *v, struct pci_host *h, const struct virtio_net_config *c, struct virtio_dev **out, struct vh_err *e);
void virtio_net_set_link(struct virtio_dev *d, int up);
int virtio_rng_new(struct vm *v, struct pci_host *h, struct vh_loop *l, struct virtio_dev **out, struct vh_err *e);
int virtio_balloon_new(struct vm *v, struct pci_host *h, struct vh_loop *l, struct virtio_dev **out, struct vh_err *e);
void virtio_balloon_set(struct virtio_dev *d, uint64_t target_bytes); /* memory the guest shall keep */
struct balloon_stats { uint64_t actual, target, swap_in, swap_out, major_faults, minor_faults, free, total, available, disk_caches, last_update; int have; };
void virtio_balloon_get(struct virtio_dev *d, struct balloon_stats *out);
/* in_fd/out_fd: -1 for none; borrowed. */
int virtio_console_new(struct vm *v, struct pci_host *h, struct vh_loop *l, int in_fd, int out_fd, struct virtio_dev **out, struct vh_err *e);
void virtio_free(struct virtio_dev *d); /* any of the above */

#endif
