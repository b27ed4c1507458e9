/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * The kernel's own virtio-net backend: a pair of rings served by a thread of the kernel's, straight from and into a tap. One fd a
 * pair; ring 0 is what the guest receives, ring 1 what it sends. The kernel reads and writes guest memory by our addresses.
 */
#ifndef DEV_VHOST_NET_H
#define DEV_VHOST_NET_H

#include "dev/virtqueue.h"

/* -ENODEV: this host has none; -EACCES: it may not be opened. */
int vhost_net_open(const struct mem *m, int *fd, struct vh_err *e);
/* What the driver took, before any ring starts. -EOPNOTSUPP: the kernel does not know how such rings look. */
int vhost_net_features(int fd, uint64_t acked);
/* From the ring's beginning. The kernel waits for kick, signals call, and err when it finds the ring broken. No packet moves yet. */
int vhost_net_start(int fd, unsigned ring, const struct virtqueue *vq, int kick, int call, int err);
int vhost_net_call(int fd, unsigned ring, int call);
int vhost_net_backend(int fd, unsigned ring, int tap); /* packets move; -1: no more, and none is under way on return */
int vhost_net_stop(int fd, unsigned ring, uint16_t *last_avail); /* where whoever goes on begins */

#endif
