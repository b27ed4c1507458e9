/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "dev/vhost-net.h"

#include <fcntl.h>
#include <linux/vhost.h>
#include <linux/virtio_config.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define DEVICE "/dev/vhost-net"
#define BIT(n) (UINT64_C(1) << (n))
#define F_MRG_RXBUF 15
/* What changes how rings and headers look; the rest is between the driver and us. */
#define RING_FEATURES (BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_RING_F_INDIRECT_DESC) | BIT(VIRTIO_RING_F_EVENT_IDX) | BIT(F_MRG_RXBUF))

static int call(int fd, unsigned long request, const void *arg)
{
	return ioctl(fd, request, arg) < 0 ? -errno : 0;
}

int vhost_net_open(const struct mem *m, int *fd, struct vh_err *e)
{
	struct {
		struct vhost_memory head;
		struct vhost_memory_region region[2];
	} table = {.head.nregions = m->n};
	int r;

	*fd = open(DEVICE, O_RDWR | O_CLOEXEC);
	if (*fd < 0) {
		r = errno == ENOENT || errno == ENXIO ? -ENODEV : -errno;
		if (r == -ENODEV)
			err_remedy(e, "load it (modprobe vhost_net), or use vhost=off");
		return err_set(e, r, DEVICE ": %s", strerror(errno));
	}
	for (unsigned i = 0; i < m->n; i++)
		table.region[i] = (struct vhost_memory_region){.guest_phys_addr = m->range[i].gpa, .memory_size = m->range[i].bytes,
							       .userspace_addr = (uintptr_t)m->range[i].host};
	r = call(*fd, VHOST_SET_OWNER, NULL);
	if (!r)
		r = call(*fd, VHOST_SET_MEM_TABLE, &table);
	if (r) {
		close(*fd);
		*fd = -1;
		return err_set(e, r, DEVICE " does not take this machine: %s", strerror(-r));
	}
	return 0;
}

int vhost_net_features(int fd, uint64_t acked)
{
	uint64_t want = acked & RING_FEATURES, can = 0;
	int r = call(fd, VHOST_GET_FEATURES, &can);

	if (!r && want & ~can)
		r = -EOPNOTSUPP;
	return r ? r : call(fd, VHOST_SET_FEATURES, &want);
}

int vhost_net_start(int fd, unsigned ring, const struct virtqueue *vq, int kick, int call_fd, int err)
{
	struct vhost_vring_state num = {ring, vq->size}, base = {ring, vq->last_avail};
	struct vhost_vring_addr addr = {.index = ring, .desc_user_addr = (uintptr_t)vq->desc, .avail_user_addr = (uintptr_t)vq->avail,
					.used_user_addr = (uintptr_t)vq->used};
	struct vhost_vring_file k = {ring, kick}, c = {ring, call_fd}, x = {ring, err};
	int r = call(fd, VHOST_SET_VRING_NUM, &num);

	if (!r)
		r = call(fd, VHOST_SET_VRING_BASE, &base);
	if (!r)
		r = call(fd, VHOST_SET_VRING_ADDR, &addr);
	if (!r)
		r = call(fd, VHOST_SET_VRING_ERR, &x);
	if (!r)
		r = call(fd, VHOST_SET_VRING_CALL, &c);
	return r ? r : call(fd, VHOST_SET_VRING_KICK, &k);
}

int vhost_net_call(int fd, unsigned ring, int call_fd)
{
	struct vhost_vring_file c = {ring, call_fd};

	return call(fd, VHOST_SET_VRING_CALL, &c);
}

int vhost_net_backend(int fd, unsigned ring, int tap)
{
	struct vhost_vring_file b = {ring, tap};

	return call(fd, VHOST_NET_SET_BACKEND, &b);
}

int vhost_net_stop(int fd, unsigned ring, uint16_t *last_avail)
{
	struct vhost_vring_state base = {.index = ring};
	struct vhost_vring_file none = {ring, -1};
	int r = vhost_net_backend(fd, ring, -1);

	if (!r)
		r = call(fd, VHOST_SET_VRING_KICK, &none);
	if (!r)
		r = call(fd, VHOST_SET_VRING_CALL, &none);
	if (!r)
		r = call(fd, VHOST_SET_VRING_ERR, &none);
	if (!r)
		r = call(fd, VHOST_GET_VRING_BASE, &base);
	if (!r && last_avail)
		*last_avail = (uint16_t)base.num;
	return r;
}
